"""What ``gpucloud push`` and ``pull`` can be told, and what they warn of."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_files import on_host, write
from tests.harness.cli import Cli
from tests.harness.waiting import eventually


def summaries(err: str) -> list[str]:
    return [line.strip() for line in err.splitlines() if line.split()[0] == "pushed"]


def test_what_was_altered_there_is_noticed_when_it_is_verified(cli: Cli) -> None:
    write(cli.project, "a", "b")
    cli.ok("launch", "--name", "x")
    # The size stays, and so does the time.
    cli.ok("exec", "x", "--", "touch -r a t; printf CONTENT > a; touch -r t a; rm t")
    cli.ok("push", "x", "--verify")
    assert cli.ok("exec", "x", "--", "cat a b").out == "contentcontent"
    done = cli.ok("push", "x", "--verify", "--json")
    assert done.json["pushed"][0]["files"] == 0


def test_git_and_what_is_ignored_are_sent_when_asked_for(cli: Cli) -> None:
    write(
        cli.project, ".git/HEAD", ".git/objects/a", ".git/refs/heads/main", "data/1.bin", "data/2.log", "code"
    )
    write(cli.project, ".gitignore", content="data/\n")
    cli.ok("launch", "--name", "x")
    assert on_host(cli) == {"./.gitignore", "./code"}
    cli.ok("push", "x", "--extra", "data/*.bin")
    assert on_host(cli) == {"./.gitignore", "./code", "./data/1.bin"}
    cli.ok("push", "x", "--with-git")
    git = {"./.git/HEAD", "./.git/objects/a", "./.git/refs/heads/main"}
    assert on_host(cli) >= git
    # A branch that is deleted here must not live on there; without --with-git nothing of it is touched.
    (cli.project / ".git" / "refs" / "heads" / "main").unlink()
    cli.ok("push", "x")
    assert on_host(cli) >= git
    cli.ok("push", "x", "--with-git")
    assert "./.git/refs/heads/main" not in on_host(cli)


def test_each_node_has_its_own_summary_and_one_that_fails_spares_the_others(cli: Cli) -> None:
    write(cli.project, "a", "b")
    cli.ok("launch", "--name", "x", "--nodes", "3")
    write(cli.project, "a", content="changed")
    # Where the folder of the second node was there is a file now.
    cli.ok("exec", "x-1", "--", "cd ..; mv work elsewhere; echo > work")
    done = cli("push", "x")
    assert done.code == 84, done.err
    assert "x-1" in done.err.splitlines()[-3]
    assert summaries(done.err) == ["pushed  x-0: 1 file, 7 B", "pushed  x-2: 1 file, 7 B"]
    for node in "x-0", "x-2":
        assert cli.ok("exec", node, "--", "cat a").out == "changed"


def test_a_secret_is_warned_about_once_and_not_held_back(cli: Cli) -> None:
    write(cli.project, ".env", content="API_KEY=abc\n")
    write(cli.project, ".env.example", content="API_KEY=abc\n")
    cli.ok("launch", "--name", "x", "--nodes", "2", "--no-push")
    done = cli.ok("push", "x")
    warned = [line for line in done.err.splitlines() if "looks like" in line]
    assert warned == ["     warning  .env looks like variables with secrets, and is sent"]
    assert "./.env" in on_host(cli)
    assert warned[0] in cli.ok("push", "x", "--dry-run").err
    hint = next(line for line in done.err.splitlines() if "to leave it here: " in line)
    subprocess.run(["sh", "-c", hint.partition(": ")[2]], check=True, cwd=cli.project)
    assert "looks like" not in cli.ok("push", "x").err


def test_what_cannot_be_sent_is_told_with_the_summary(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push")
    write(cli.project, "code")
    for number in range(8):
        os.mkfifo(cli.project / f"pipe{number}")
    done = cli.ok("push", "x")
    lines = [line for line in done.err.splitlines() if line.split()[0] == "warning"]
    assert lines[0].endswith("pipe0 was left out: fifo")
    assert lines[-1].endswith("and 3 more like these")
    assert len(lines) == 6


def test_a_name_that_would_drive_the_terminal_is_spelled(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push")
    os.mkfifo(cli.project / "\x1b[2Jpipe")
    assert "\x1b" not in cli.ok("push", "x").err
    assert "\x1b" not in cli.ok("push", "x", "--dry-run").err


def test_files_come_from_the_node_that_is_asked_for(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--nodes", "2", "--output", "out", "--", "echo $GPUCLOUD_NODE_RANK > out")
    cli.ok("logs", "-f", "x")
    cli.ok("pull", "x", "out", "--rank", "1", "--to", "one")
    assert (cli.project / "one" / "out").read_text() == "1\n"
    cli.ok("pull", "x", "--rank", "1", "--to", "declared")
    assert (cli.project / "declared" / "out").read_text() == "1\n"
    cli.ok("pull", "x")
    assert (cli.project / "out").read_text() == "0\n"
    for words, code, said in (
        (("--rank", "1"), 2, "add --to DIR"),
        (("out", "--rank", "2"), 3, "x has no node 2"),
        (("out", "--rank", "1", "--watch"), 2, "--watch follows the first machine"),
        (("out", "--every", "5s"), 2, "--every needs --watch"),
        (("out", "--watch", "--every", "5"), 2, "--every makes no sense"),
    ):
        done = cli("pull", "x", *words)
        assert done.code == code, done.err
        assert said in done.err


WRITES = "mkdir ckpt; echo 1 > ckpt/1; while [ ! -e go ]; do sleep 0.05; done; echo 2 > ckpt/2"


def test_checkpoints_come_home_while_the_job_runs_and_all_of_them_at_its_end(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--output", "ckpt", "--", WRITES)
    eventually(lambda: cli("exec", "x", "--", "cat ckpt/1").out == "1\n")
    mirror = cli.start("pull", "x", "--watch", "--every", "1s", "--json")
    eventually(lambda: _read(cli.project / "ckpt" / "1") == "1\n")
    assert mirror.poll() is None
    cli.ok("exec", "x", "--", "touch go")
    out, err = mirror.communicate(timeout=60)
    assert mirror.returncode == 0, err
    assert _read(cli.project / "ckpt" / "2") == "2\n"
    assert '"schema": "gpucloud.pull/1"' in out


def test_a_mirror_that_is_interrupted_leaves_the_job_alone(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--", WRITES)
    eventually(lambda: cli("exec", "x", "--", "cat ckpt/1").out == "1\n")
    mirror = cli.start("pull", "x", "ckpt/*", "--to", "home", "--watch", "--every", "1s")
    eventually(lambda: _read(cli.project / "home" / "ckpt" / "1") == "1\n")
    os.killpg(mirror.pid, signal.SIGINT)
    _, err = mirror.communicate(timeout=60)
    assert mirror.returncode == 130
    assert "goes on: gpucloud pull x --watch" in err
    assert cli.ok("jobs", "--json").json["jobs"][0]["state"] == "running"


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    "words", [("push", "--dry-run", "--with-git"), ("push", "--dry-run", "--extra", "x")]
)
def test_a_dry_run_counts_what_was_asked_for(cli: Cli, words: tuple[str, ...]) -> None:
    write(cli.project, ".git/HEAD", "x", "code")
    write(cli.project, ".gpucloudignore", content="x\n")
    assert cli.ok(*words, "--json").json["files"] == 3
