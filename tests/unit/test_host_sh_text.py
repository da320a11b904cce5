"""The on-host program as text: plain POSIX sh, and what it says to commands that it does not know."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.host_sh import PROGRAM, HostSh


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "--shell=sh", PROGRAM], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    "shell",
    [
        ["dash"],
        ["bash", "--posix"],
        pytest.param(["busybox", "sh"], marks=pytest.mark.needs_busybox),
    ],
    ids=lambda shell: shell[0],
)
def test_every_shell_can_parse_it(shell: list[str]) -> None:
    assert shutil.which(shell[0])
    done = subprocess.run([*shell, "-n", PROGRAM], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_one_short_file_that_says_it_is_sh() -> None:
    lines = PROGRAM.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert len(lines) <= 800
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["fail"], ["become"], ["../init"], ["init; true"]])
def test_an_unknown_command_is_refused_with_64(host_sh: HostSh, words: list[str]) -> None:
    done = host_sh.run(*words, status=64)
    assert done.stdout == b""
    assert f"knows no command '{words[0] if words else ''}'".encode() in done.stderr
    assert sorted(path.name for path in host_sh.root.iterdir()) == ["host.sh"]
