"""Commands that tell their number and are ended by it, under each shell that a host may have."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.errors import RemoteError
from gpucloud.remote import ending
from gpucloud.remote.connection import Completed, Connection
from gpucloud.remote.ending import Outcome, Running, endable
from tests.harness.host_sh import USERLANDS, HostSh

SHELLS = [
    pytest.param(name, marks=pytest.mark.needs_busybox if name == "busybox" else ()) for name in USERLANDS
]


class Here:
    """This machine as the other end of a connection, with the shell and the tools of one userland."""

    def __init__(self, host: HostSh) -> None:
        self.host = host

    def start(self, command: str, **settings: Any) -> subprocess.Popen[bytes]:
        """Run a command as a server that gives it a session."""
        settings.setdefault("start_new_session", True)
        return subprocess.Popen(
            ["sh", "-c", command],
            env=self.host.env,
            executable=str(self.host.bin / "sh"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **settings,
        )

    def run(self, command: str) -> Completed:
        """As a connection does."""
        with self.start(command) as process:
            out, err = process.communicate(timeout=60)
        return Completed(process.returncode, out, err)

    @contextmanager
    def running(self, command: str, **settings: Any) -> Iterator[tuple[Running, subprocess.Popen[bytes]]]:
        """A command once it has written a line to stdout, with what is needed to end it."""
        with self.start(endable(command), **settings) as process:
            assert process.stdout and process.stderr
            running = Running(lambda data: None)
            try:
                assert process.stdout.readline() == b"on\n"
                running.take(os.read(process.stderr.fileno(), 4096))
                yield running, process
            finally:
                process.kill()
                process.stdout.close()

    def end(self, running: Running) -> Outcome:
        """End it over this."""
        return running.end(cast(Connection, self), wait_s=0)


@pytest.fixture(params=SHELLS)
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Here:
    host = HostSh(tmp_path, request.param)
    host.home.mkdir(parents=True)
    return Here(host)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("session", [True, False], ids=["own session", "the server's session"])
def test_status_streams_and_words_are_the_command_s_own(here: Here, session: bool) -> None:
    command = 'cat; echo "it\'s $0 $#" >&2; exit 7'
    with here.start(endable(command), start_new_session=session) as process:
        out, err = process.communicate(b"in", timeout=60)
    taken: list[bytes] = []
    running = Running(taken.append)
    running.take(err)
    assert (process.returncode, out, b"".join(taken)) == (7, b"in", b"it's sh 0\n")


@pytest.mark.parametrize("session", [True, False], ids=["own session", "the server's session"])
def test_all_of_it_ends_on_sigterm_and_may_clean_up(here: Here, session: bool) -> None:
    command = "trap 'echo cleaned; exit 3' TERM; sleep 1000 & echo $! >child; echo on; wait"
    with here.running(command, start_new_session=session, cwd=here.host.home) as (running, process):
        child = int((here.host.home / "child").read_text())
        assert here.end(running) is Outcome.TERM
        assert process.wait(30) == 3
        assert process.stdout and process.stdout.read() == b"cleaned\n"
        assert not alive(child)


def test_what_is_deaf_is_killed(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "GRACE_S", 0)
    with here.running("trap '' TERM; echo on; while :; do sleep 1000; done") as (running, process):
        assert here.end(running) is Outcome.KILL
        assert process.wait(30) == -signal.SIGKILL


def test_what_was_stopped_ends_too(here: Here) -> None:
    with here.running("echo on; while :; do sleep 1000; done") as (running, process):
        os.killpg(process.pid, signal.SIGSTOP)
        assert here.end(running) is Outcome.TERM
        assert process.wait(30) == -signal.SIGTERM


def test_groups_of_their_own_within_the_session_end_too(here: Here) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("only bash gives groups of their own to what it starts without a terminal")
    command = f"{bash} -c 'set -m; sleep 1000 & echo $! >child; echo on; wait'"
    with here.running(command, cwd=here.host.home) as (running, _):
        child = int((here.host.home / "child").read_text())
        assert os.getpgid(child) == child
        assert here.end(running) is Outcome.TERM
        assert not alive(child)


def test_what_is_over_needs_no_end(here: Here) -> None:
    with here.running("echo on") as (running, process):
        process.wait(30)
        assert here.end(running) is Outcome.NONE


def test_without_setsid_the_command_runs_and_ends(here: Here) -> None:
    here.host.lose_tools("setsid")
    with here.running("echo on; exec sleep 1000", start_new_session=False) as (running, process):
        assert os.getpgid(process.pid) == os.getpgid(0)
        assert here.end(running) is Outcome.TERM
        assert process.wait(30) == -signal.SIGTERM


def test_shellcheck_has_nothing_to_say() -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("there is no shellcheck on this machine")
    # Splitting the fields of a stat file is meant.
    words = [checker, "--shell=sh", "--exclude=SC2086,SC2034,SC2016", "-"]
    for text in (ending._END, ending._LEADER):
        done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
        assert done.stdout == ""


def test_a_host_that_does_not_tell_the_number_cannot_end_it() -> None:
    class Quiet:
        endpoint = type("Endpoint", (), {"label": "x-1"})

    with pytest.raises(RemoteError, match="x-1 cannot be ended"):
        Running(lambda data: None).end(cast(Connection, Quiet()), wait_s=0)


PIECES = st.lists(
    st.binary(max_size=40) | st.sampled_from([b"\x1e", b"\x1egpucloud ", b"\x1egpucloud x\x1e"])
)


@given(before=PIECES, after=PIECES, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_the_number_is_taken_out_wherever_the_stream_is_cut(
    before: list[bytes], after: list[bytes], cuts: list[int]
) -> None:
    clean, rest = b"".join(before), b"".join(after)
    stream = clean + b"\x1egpucloud 4711\x1e" + rest
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    taken: list[bytes] = []
    running = Running(taken.append)
    for start, end in pairwise(edges):
        running.take(stream[start:end])
    running.close()
    assert b"".join(taken) == clean + rest
    assert running._pid == 4711


@given(st.lists(st.binary(max_size=60)))
def test_without_a_number_nothing_is_lost(pieces: list[bytes]) -> None:
    taken: list[bytes] = []
    running = Running(taken.append)
    for piece in pieces:
        running.take(piece)
    running.close()
    assert b"".join(taken) == b"".join(pieces)


def test_the_command_is_one_word_of_shell() -> None:
    assert shlex.split(endable("a 'b'; c"))[-1] == "a 'b'; c"
