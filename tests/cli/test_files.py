"""``gpucloud push`` and ``gpucloud pull``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpucloud.remote.progress import Phase
from tests.harness.cli import Cli, Finished, installation


def write(folder: Path, *names: str, content: str = "content") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def on_host(cli: Cli) -> set[str]:
    return set(cli.ok("exec", "x", "--", "find . -type f -o -type l").out.splitlines())


def three_lines(done: Finished) -> list[str]:
    phases = {phase.value for phase in Phase}
    lines = [line for line in done.err.splitlines() if line.split()[0] not in phases]
    assert len(lines) == 3, done.err
    assert done.out == ""
    return lines


@pytest.fixture(scope="module")
def a_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """One cluster, ``train``, with one file and one job for all the mistakes that can be made."""
    with installation(tmp_path_factory.mktemp("installation")) as runner:
        write(runner.project, "file")
        runner.ok("launch", "--name", "train", "--", "true")
        yield runner


def test_a_push_tells_on_stderr_what_it_did(cli: Cli) -> None:
    cli.ok("launch", "--name", "x")
    write(cli.project, "a", "sub/b", "c")
    done = cli.ok("push", "x")
    assert (done.out, "3 files, 21" in done.err) == ("", True), done.err
    (cli.project / "a").unlink()
    write(cli.project, "c", content="longer than before")
    done = cli.ok("push")
    assert "1 file, 18" in done.err
    assert "1 that vanished here were deleted there" in done.err
    assert on_host(cli) == {"./sub/b", "./c"}


def test_a_push_of_another_folder_takes_the_place_of_the_last_and_spares_results(cli: Cli) -> None:
    write(cli.project, "one/a", "one/both", "two/b")
    write(cli.project, "two/both", content="other")
    cli.ok("launch", "--name", "x", "--workdir", "one")
    cli.ok("exec", "x", "--", "echo made > result")
    document = cli.ok("push", "--workdir", "two", "--json").json
    assert document == {
        "schema": "gpucloud.push/1",
        "pushed": [
            {"rank": 0, "node": "x", "files": 2, "bytes": 12, "removed": 1, "changing": [], "skipped": []}
        ],
        "failures": [],
    }
    assert on_host(cli) == {"./b", "./both", "./result"}


def test_every_node_is_pushed_to(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--nodes", "2", "--no-push")
    write(cli.project, "a")
    cli.ok("push", "x")
    assert sorted(cli.ok("exec", "--all", "x", "--", "cat a").out.splitlines()) == [
        "0| content",
        "1| content",
    ]


def test_a_dry_run_lists_the_biggest_and_what_is_left_out_and_changes_nothing(cli: Cli) -> None:
    write(cli.project, "code", "gone")
    cli.ok("launch", "--name", "x")
    (cli.project / "gone").unlink()
    write(cli.project, "data/big", content="x" * 2_000_000)
    write(cli.project, "data/half", content="x" * 1_000_000)
    write(cli.project, "heap/huge", content="x" * 9_000_000)
    write(cli.project, ".gpucloudignore", content="heap\n")
    write(cli.project, *(f"many/{n}" for n in range(12)))
    os.mkfifo(cli.project / "pipe")
    done = cli.ok("push", "x", "--dry-run")
    assert [line.split("\t")[-1] for line in done.out.splitlines()][:3] == ["data/", "data/big", "data/half"]
    assert len(done.out.splitlines()) == 10
    assert "16 files, " in done.err
    assert "left out: pipe (fifo)" in done.err
    assert on_host(cli) == {"./code", "./gone"}


def test_a_pull_prints_the_files_that_came(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push")
    cli.ok("exec", "x", "--", "mkdir out; echo 1 > out/1.pt; echo 2 > out/2.pt; echo log > out/log")
    write(cli.project, "home/out/mine")
    done = cli.ok("pull", "x", "out/*.pt", "--to", "home")
    assert done.out.splitlines() == ["home/out/1.pt", "home/out/2.pt"]
    assert (cli.project / "home" / "out" / "2.pt").read_text() == "2\n"
    document = cli.ok("pull", "x", "out", "--to", "home", "--json").json
    assert document == {
        "schema": "gpucloud.pull/1",
        "files": ["home/out/1.pt", "home/out/2.pt", "home/out/log"],
        "missing": [],
        "unverified": [],
        "failures": [],
    }
    assert {path.name for path in (cli.project / "home" / "out").iterdir()} == {"1.pt", "2.pt", "log", "mine"}


def test_declared_outputs_are_pulled_without_being_named(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--output", "out", "--", "mkdir out; echo done > out/result")
    cli.ok("logs", "-f", "x")
    done = cli.ok("pull", "x", "--to", "elsewhere")
    assert done.out.splitlines() == ["elsewhere/out/result"]
    assert cli.ok("jobs", "--json").json["jobs"][0]["outputs_verified_at"] is None
    done = cli.ok("pull", "x", "--json")
    assert done.json["files"] == [str(cli.project / "out" / "result")]
    assert "checksums agree" in done.err
    assert cli.ok("jobs", "--json").json["jobs"][0]["outputs_verified_at"] is not None


def test_an_output_that_lies_elsewhere_keeps_the_machine(cli: Cli) -> None:
    done = cli("run", "--name", "x", "--output", "model.pt", "--", "echo w > ../w; ln -s ../w model.pt")
    assert done.code == 86
    assert "the link model.pt leads out of the folder" in done.err
    assert cli.ok("exec", "x", "--", "cat model.pt").out == "w\n"


def test_an_output_that_is_a_link_comes_home_with_what_it_leads_to(cli: Cli) -> None:
    done = cli("run", "--output", "best.pt", "--", "mkdir ckpt; echo w > ckpt/5.pt; ln -s ckpt/5.pt best.pt")
    assert done.code == 0, done.err
    assert (cli.project / "best.pt").read_text() == "w\n"


def test_an_output_with_no_place_here_keeps_the_machine_and_says_why(cli: Cli) -> None:
    write(cli.project, "model.pt/inner")
    done = cli("run", "--name", "x", "--output", "model.pt", "--", "rm -r model.pt; echo w > model.pt")
    assert done.code == 86
    assert "'model.pt' cannot be written" in done.err
    assert "Is a directory" in done.err
    (cli.project / "model.pt").rename(cli.project / "moved")
    cli.ok("down", "x", "--yes")
    assert (cli.project / "model.pt").read_text() == "w\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["push", "trian"], 3, "did you mean 'train'?"),
        (["push", "--workdir", "nowhere"], 2, "there is no folder nowhere"),
        (["push", "--workdir", "file"], 2, "there is no folder file"),
        (["push", "--dry-run", "--workdir", "file"], 2, "there is no folder file"),
        (["push", "--workdir", "/"], 2, "would be pushed whole"),
        (["pull", "trian", "a"], 3, "did you mean 'train'?"),
        (["pull", "trian"], 3, "did you mean 'train'?"),
        (["pull", "train", "../a"], 2, "'../a' cannot be pulled"),
        (["pull", "train", "/etc/passwd"], 2, "'/etc/passwd' cannot be pulled"),
        (["pull", "train", "file", "--to", "file"], 84, "file' cannot be written"),
        (["pull", "train"], 2, "declared no outputs"),
    ],
)
def test_what_cannot_be_done_is_said_in_three_lines(
    a_cluster: Cli, words: list[str], code: int, said: str
) -> None:
    done = a_cluster(*words)
    assert done.code == code, done.err
    assert any(said in line for line in three_lines(done)), done.err


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_with_several_clusters_one_has_to_be_named(cli: Cli, verb: str) -> None:
    assert "there is none" in three_lines(cli(verb))[1]
    for name in ("a", "b"):
        cli.ok("launch", "--name", name, "--no-push")
    done = cli(verb)
    assert done.code == 2
    assert "there are a, b" in three_lines(done)[1]
