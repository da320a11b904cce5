"""``gpucloud logs`` as a person and a script use it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pexpect

from tests.harness.cli import Cli
from tests.harness.waiting import eventually

NASTY = r"printf 'one\n\033]0;title\007two\033[31mred\n\377\n'"


def at_terminal(cli: Cli, *words: str) -> str:
    shown = pexpect.spawn(
        sys.executable,
        ["-m", "gpucloud", *words],
        cwd=str(cli.project),
        env={**cli.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=60,
    )
    text = str(shown.read()).replace("\r\n", "\n")
    shown.close()
    return text


def test_a_log_that_is_over_from_wherever_it_is_wanted(cli: Cli, tmp_path: Path) -> None:
    job = cli.ok(
        "launch", "--name", "x", "--nodes", "2", "--", f"{NASTY}; echo $GPUCLOUD_NODE_RANK"
    ).out.strip()
    with (tmp_path / "seen").open("wb") as seen:
        assert cli.start("logs", "-f", "--all", job, stdout=seen, stderr=subprocess.DEVNULL).wait() == 0
    lines = (tmp_path / "seen").read_bytes().splitlines()
    for rank in (b"0", b"1"):
        mine = [line[3:] for line in lines if line.startswith(rank + b"| ")]
        assert mine == [b"one", b"\x1b]0;title\x07two\x1b[31mred", b"\xff", rank], "piped it is as it is"
    assert cli.ok("logs", job, "--tail", "1").out == "0\n"
    assert cli.ok("logs", job, "--rank", "1", "--tail", "1").out == "1\n"
    done = cli.ok("logs", job, "--all", "--tail", "1", "--timestamps")
    timed = [re.sub(r"[0-9T:-]{19}Z", "TIME", line) for line in sorted(done.out.splitlines())]
    assert timed == ["0| TIME 0", "1| TIME 1"]

    events = [json.loads(line) for line in cli.ok("logs", job, "--since", "1h", "--json").out.splitlines()]
    assert [event["text"] for event in events] == ["one", "\x1b]0;title\x07two\x1b[31mred", "\ufffd", "0"]
    assert {event["schema"] for event in events} == {"gpucloud.logs/1"}
    assert all(event["time"] and event["ended"] for event in events)
    assert events[1]["offset"] == 4
    assert cli.ok("logs", job, "--since", "2100-01-01").out == ""

    assert at_terminal(cli, "logs", job) == "one\ntwo\x1b[31mred\n\\xff\n0\n\x1b[0m"

    cli.ok("down", "x", "--yes")
    assert sorted(cli.ok("logs", job, "--all", "--tail", "1").out.splitlines()) == ["0| 0", "1| 1"]
    again = [json.loads(line) for line in cli.ok("logs", job, "--since", "1h", "--json").out.splitlines()]
    assert again == events, "text and times outlive the machine"


def test_logs_that_nobody_followed_come_home_before_the_machine_goes(cli: Cli) -> None:
    job = cli.ok("launch", "--name", "x", "--nodes", "2", "--", "echo $GPUCLOUD_NODE_RANK").out.strip()
    eventually(lambda: cli.ok("jobs", "--json").json["jobs"][0]["state"] == "succeeded")
    cli.ok("down", "x", "--yes")
    assert sorted(cli.ok("logs", job, "--all").out.splitlines()) == ["0| 0", "1| 1"]


def test_what_cannot_be_meant_is_refused(cli: Cli) -> None:
    assert cli("logs", "x", "--tail", "1", "--since", "1h").code == 2
    assert cli("logs", "x", "--since", "yesterday").code == 2
    job = cli.ok("launch", "--name", "x", "--", "true").out.strip()
    assert cli("logs", job, "--all", "--rank", "0").code == 2
    done = cli("logs", job, "--rank", "1")
    assert (done.code, "has no node 1" in done.err) == (3, True)
    cli.ok("down", "x", "--yes")
