"""The transcript of the README, executed line by line at a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.harness.cli import Cli
from tests.harness.screen import shown

README = Path(__file__).resolve().parents[2] / "README.md"
UNWRAPPED = 10_000
"""Lines are compared as they were written, not as a terminal breaks them."""


def block(name: str) -> str:
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", README.read_text(), re.DOTALL)
    assert match, f"the README has no block {name!r}"
    return match[1]


def transcript() -> Iterator[tuple[str, str]]:
    """Each command with what it prints."""
    for part in re.split(r"^\$ ", block("session"), flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def matches(wanted: str, printed: str) -> bool:
    """Whether a text is what was printed; ``...`` stands for anything within a line, alone for any lines."""
    pattern = ""
    for line in wanted.splitlines():
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part.rstrip()) for part in line.split("...")) + r" *\n"
    return re.fullmatch(pattern, printed) is not None


def test_the_session_of_the_readme_is_what_happens(cli: Cli, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "gpucloud"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpucloud "$@"\n')
    program.chmod(0o755)
    environ = {
        **cli.environ,
        "PATH": f"{program.parent}:{cli.environ['PATH']}",
        "TERM": "xterm",
        "NO_COLOR": "1",
    }
    for command, wanted in transcript():
        process: pexpect.spawn[str] = pexpect.spawn(
            "sh",
            ["-c", command],
            cwd=str(cli.project),
            env=environ,
            encoding="utf-8",
            timeout=60,
            dimensions=(50, 110),
        )
        seen = shown(process.read(), UNWRAPPED)
        process.close()
        assert process.exitstatus == 0, f"{command}: {seen}"
        assert matches(wanted, seen), f"$ {command}\n{seen}\n--- wanted ---\n{wanted}"


@pytest.mark.parametrize("name", ["main job", "tests"])
def test_the_two_commands_are_one_line_each(name: str) -> None:
    assert len(block(name).strip().splitlines()) == 1
