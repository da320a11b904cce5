"""How far files have come, as a person at a terminal, a log file and a script see it."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import pexpect
import pytest

from tests.cli.test_terminal import at_terminal
from tests.harness.cli import Cli
from tests.harness.screen import Screen, shown

MOVES = re.compile(r"\x1b\[[0-9;]*[A-Z]")

SHOW = """
import sys
from gpucloud.cli.render import out
from gpucloud.cli.transfers import view
from gpucloud.remote.progress import Phase, Progress

labels = sys.argv[1].split(",")
out.json = "--json" in sys.argv
print("begun", flush=True)
with view(labels) as watchers:
    for label in labels:
        watchers[label](Progress(Phase.SENDING, 1, 2**20, 3, 2**22))
    for line in sys.stdin:
        if line == "end\\n":
            break
        out.note(line.rstrip())
    if "fail" in sys.argv:
        raise SystemExit(1)
print("over")
"""


class Shown:
    """A transfer that is shown at a terminal for as long as the test wants."""

    def __init__(self, labels: str, columns: int = 100, lines: int = 24, **env: str) -> None:
        self.screen = Screen(columns)
        self.process: pexpect.spawn[str] = pexpect.spawn(
            sys.executable,
            ["-c", SHOW, labels],
            env={**os.environ, "TERM": "xterm", **env},
            encoding="utf-8",
            dimensions=(lines, columns),
            echo=False,
            timeout=30,
        )

    def until(self, text: str) -> str:
        """Wait for a text; returns what there is to be seen then."""
        self.process.expect(text)
        self.screen.write(f"{self.process.before}{self.process.after}")
        return self.screen.text

    def end(self) -> str:
        """End it; returns what stays."""
        self.process.sendline("end")
        self.screen.write(self.process.read())
        self.process.close()
        assert self.process.exitstatus == 0
        return self.screen.text


def test_each_node_has_a_line_that_vanishes() -> None:
    terminal = Shown("train-0,train-1")
    terminal.until("begun")
    seen = terminal.until("train-1 .* left")
    assert seen.splitlines()[1:] == [
        "train-0  sending    1.0 MiB of 4.0 MiB  1 of 3 files  -/s  - left",
        "train-1  sending    1.0 MiB of 4.0 MiB  1 of 3 files  -/s  - left",
    ]
    terminal.until("train-1 .* 0 B/s  - left")
    assert terminal.end() == "begun\nover\n"


def test_what_is_told_meanwhile_stays_above() -> None:
    terminal = Shown("train")
    terminal.until(" left")
    terminal.process.sendline("a warning")
    terminal.until("a warning")
    terminal.until(" left")
    assert [line.split("  ")[0] for line in terminal.screen.text.splitlines()] == [
        "begun",
        "a warning",
        "train",
    ]
    assert terminal.end() == "begun\na warning\nover\n"


def test_a_terminal_that_changes_its_size_is_left_clean() -> None:
    terminal = Shown("train-0,train-1")
    terminal.until("train-1 .* left")
    terminal.process.setwinsize(24, 40)
    # As a terminal does that wraps what is there already.
    terminal.screen = _wrapped(terminal.screen, 40)
    seen = terminal.until("train-1  sending    1.0 MiB of 4.0 MiB \r")
    assert all(len(line) < 40 for line in seen.splitlines())
    assert terminal.end() == "begun\nover\n"


def _wrapped(screen: Screen, columns: int) -> Screen:
    narrow = Screen(columns)
    narrow.write("\r\n".join(screen.rows))
    return narrow


def test_more_nodes_than_lines_are_counted() -> None:
    terminal = Shown(",".join(f"n{number}" for number in range(64)), lines=6)
    seen = terminal.until("and 60 more nodes").splitlines()
    assert [line.split()[0] for line in seen] == ["begun", "n0", "n1", "n2", "n3", "and"]
    assert terminal.end() == "begun\nover\n"


def test_without_colour_it_moves_and_a_dumb_terminal_gets_lines() -> None:
    plain = Shown("train", NO_COLOR="1")
    plain.until(" left")
    assert plain.end() == "begun\nover\n"
    dumb = Shown("train", TERM="dumb")
    dumb.until("train: 3 files, 4.0 MiB")
    written = dumb.end()
    assert written == "begun\n     sending  train: 3 files, 4.0 MiB\nover\n"


def test_nothing_moves_in_what_is_over_at_once(cli: Cli) -> None:
    (cli.project / "a").write_text("a")
    cli.ok("launch", "--name", "x", "--nodes", "2", "--no-push")
    process = at_terminal(cli, "push", "x")
    text = process.read()
    process.close()
    lines = shown(text).splitlines()
    assert lines == ["      pushed  x-0: 1 file, 1 B", "      pushed  x-1: 1 file, 1 B"]


def test_a_pipe_gets_a_line_for_each_phase(cli: Cli) -> None:
    (cli.project / "a").write_text("abc")
    cli.ok("launch", "--name", "x", "--no-push")
    done = cli.ok("push")
    assert not MOVES.search(done.err)
    words = [line.split(maxsplit=1) for line in done.err.splitlines()]
    assert [word for word, _ in words if word != "verifying"] == ["comparing", "sending", "pushed"]
    assert ["sending", "x: 1 file, 3 B"] in words
    assert "sending" not in cli.ok("push").err
    done = cli.ok("pull", "x", "a", "--to", "home")
    assert [line.split()[0] for line in done.err.splitlines()][:2] == ["comparing", "receiving"]


def events(err: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in err.splitlines() if line.startswith('{"schema": "gpucloud.progress/1"')
    ]


def test_json_has_events_beside_the_document(cli: Cli) -> None:
    for number in range(3):
        (cli.project / f"{number}").write_text("abc")
    cli.ok("launch", "--name", "x", "--nodes", "2", "--no-push")
    done = cli.ok("push", "--json")
    assert done.json["schema"] == "gpucloud.push/1"
    assert [(node["rank"], node["node"], node["files"]) for node in done.json["pushed"]] == [
        (0, "x-0", 3),
        (1, "x-1", 3),
    ]
    told = events(done.err)
    for node in "x-0", "x-1":
        own = [event for event in told if event["node"] == node]
        assert [event["phase"] for event in own if event["done"]][:2] == ["comparing", "sending"]
        assert not own[0]["done"]
        last = next(event for event in own if event["done"] and event["phase"] == "sending")
        assert last == {
            "schema": "gpucloud.progress/1",
            "node": node,
            "phase": "sending",
            "files": 3,
            "files_total": 3,
            "bytes": 9,
            "bytes_total": 9,
            "bytes_per_second": last["bytes_per_second"],
            "seconds_left": last["seconds_left"],
            "done": True,
        }


@pytest.mark.parametrize("words", [("run",), ("launch", "--name", "x")])
def test_a_job_s_push_and_its_outputs_are_told_as_well(cli: Cli, words: tuple[str, ...]) -> None:
    (cli.project / "a").write_text("abc")
    done = cli.ok(*words, "--output", "out", "--json", "--", "cp a out")
    phases = {event["phase"] for event in events(done.err) if event["done"]}
    assert phases >= {"comparing", "sending"}
    assert ("receiving" in phases) == (words == ("run",))
    assert done.json["schema"] == f"gpucloud.{words[0]}/1"


def test_what_broke_off_is_never_done(cli: Cli) -> None:
    (cli.project / "file").write_text("abc")
    # No file can take its place.
    (cli.project / "home" / "file" / "mine").mkdir(parents=True)
    cli.ok("launch", "--name", "x")
    done = cli("pull", "x", "file", "--to", "home", "--json")
    assert done.code == 84
    last = events(done.err)[-1]
    assert (last["phase"], last["done"]) == ("receiving", False)
    assert done.json["schema"] == "gpucloud.error/1"
