"""Reading and following a log by byte offset."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.harness.host_sh import HostSh
from tests.harness.waiting import eventually

WAIT = "until [ -e go ]; do sleep 0.05; done\n"
TEXT = "zwölf Boxkämpfer\n日本\n".encode()


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.init()
    return host_sh


def read(host: HostSh, offset: int) -> bytes:
    return host.run("read", "j", str(offset)).stdout


def tails(host: HostSh) -> list[int]:
    """What waits for the log to grow: tail where it is GNU's, else a loop of our own, which naps."""
    return host.processes("-f") or host.processes("0.02")


def test_reading_begins_at_any_byte_and_ends_where_the_log_does(host: HostSh) -> None:
    (host.work / "text").write_bytes(TEXT)
    host.finish("j", "cat text\n")
    for offset in range(len(TEXT) + 3):
        assert read(host, offset) == TEXT[offset:]
    assert read(host, 10**9) == b""


def test_the_log_can_be_read_while_the_job_goes_on(host: HostSh) -> None:
    host.start("j", f"printf one\n{WAIT}printf two\n")
    eventually(lambda: read(host, 0) == b"one")
    (host.work / "go").touch()
    host.ended("j")
    assert read(host, 3) == b"two"


@pytest.mark.parametrize("command", ["read", "follow", "last", "since"])
def test_the_log_of_an_unknown_job_is_refused_with_3(host: HostSh, command: str) -> None:
    done = host.run(command, "nobody", "0", status=3)
    assert (done.stdout, done.stderr) == (b"", b"gpucloud: there is no job nobody on this host\n")


def test_what_is_followed_and_what_is_read_then_is_the_log_from_any_offset(host: HostSh) -> None:
    pieces = "for n in $(seq 40); do printf 'Größe %s\\n' $n; sleep 0.02; done\nprintf '日本'\n"
    host.start("j", pieces)
    # Also beyond what there is when it begins, within a character, and beyond all that there will ever be.
    offsets = [0, 1, 3, 4, 5, 40, 117, 400, 10_000]
    followers = {offset: host.popen("follow", "j", str(offset)) for offset in offsets}
    heard: dict[int, bytes] = {}

    def listen(offset: int) -> None:
        heard[offset] = followers[offset].communicate()[0]

    listeners = [threading.Thread(target=listen, args=(offset,)) for offset in offsets]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join()
    log = host.log("j")
    assert log == "".join([*(f"Größe {n}\n" for n in range(1, 41)), "日本"]).encode()
    for offset, follower in followers.items():
        assert follower.returncode == 0
        assert heard[offset] + read(host, offset + len(heard[offset])) == log[offset:]


def test_a_piece_is_there_before_the_next_is_written(host: HostSh) -> None:
    host.start("j", f"echo one\n{WAIT}echo two\nuntil [ -e on ]; do sleep 0.05; done\n")
    with host.popen("follow", "j", "2") as follower:
        assert follower.stdout
        assert follower.stdout.readline() == b"e\n"
        (host.work / "go").touch()
        assert follower.stdout.readline() == b"two\n"
        (host.work / "on").touch()
        assert follower.stdout.read() == b""
    assert follower.returncode == 0


def test_following_ends_with_the_job_and_leaves_no_process(host: HostSh) -> None:
    host.start("j", WAIT)
    with host.popen("follow", "j", "0") as follower:
        eventually(lambda: tails(host))
        (host.work / "go").touch()
        follower.communicate(timeout=20)
    assert follower.returncode == 0
    assert tails(host) == host.processes("follow") == []


def test_following_a_job_that_is_over_ends_at_once(host: HostSh) -> None:
    host.finish("j", "echo done\n")
    done = host.run("follow", "j", "0")
    assert done.stdout + read(host, len(done.stdout)) == b"done\n"


def test_a_follower_ends_when_nobody_listens_any_more(host: HostSh) -> None:
    host.start("j", f"{WAIT}while :; do echo chatter; sleep 0.05; done\n")
    with host.popen("follow", "j", "0") as follower:
        assert follower.stdout and follower.stderr
        follower.stdout.close()
        (host.work / "go").touch()
        assert follower.stderr.read() == b""
    assert follower.returncode == 0
    assert tails(host) == []
    assert host.status("j")["state"] == "going"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_follower_that_is_told_to_end_takes_its_tail_along(host: HostSh, how: signal.Signals) -> None:
    host.start("j", WAIT)
    with host.popen("follow", "j", "0") as follower:
        eventually(lambda: tails(host))
        os.kill(follower.pid, how)
        follower.communicate(timeout=20)
    assert tails(host) == host.processes("follow") == []
    assert host.status("j")["state"] == "going"


def test_a_follower_whose_parent_has_died_goes_away_though_the_log_is_silent(host: HostSh) -> None:
    host.start("j", WAIT)
    # In the place of sshd: it starts a follower and is killed.
    parent = "import os, subprocess, sys\nsubprocess.Popen(sys.argv[1:]).wait()\n"
    with subprocess.Popen(
        [sys.executable, "-c", parent, *map(os.fsdecode, host.command("follow", "j", "0"))],
        env=host.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as sshd:
        eventually(lambda: tails(host))
        sshd.kill()
    eventually(lambda: not host.processes("follow") and not tails(host))
    assert host.status("j")["state"] == "going"
