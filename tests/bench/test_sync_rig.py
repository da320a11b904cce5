"""The rig of the comparison with rsync: its line is as long as told, and nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench import trees
from tests.bench.sync_rig import Far, far_host
from tests.harness.waiting import eventually

ENTER = """
import sys
from pathlib import Path
from tests.bench.sync_rig import far_host
with far_host(float(sys.argv[1]), Path(sys.argv[2])) as far:
    print(far.host.pid, far.interface, flush=True)
    sys.stdin.read()
"""


def round_trip_s(far: Far) -> float:
    """How long a connection takes to come up."""
    began = time.monotonic()
    socket.create_connection((far.host.host, far.host.port), timeout=30).close()
    return time.monotonic() - began


@pytest.mark.needs_netns
def test_the_line_is_as_long_as_told_but_for_what_is_only_prepared(tmp_path: Path) -> None:
    with far_host(200, tmp_path / "host") as far:
        assert round_trip_s(far) >= 0.2
        with far.close_by():
            # On a busy machine one may be late by itself.
            assert min(round_trip_s(far) for _ in range(20)) < 0.2
        assert round_trip_s(far) >= 0.2


@pytest.mark.needs_netns
@pytest.mark.parametrize("rtt_ms", [0, 1])
def test_the_line_carries_every_byte_both_ways(rtt_ms: int, tmp_path: Path) -> None:
    data = os.urandom(8 * trees.MIB)
    with far_host(rtt_ms, tmp_path / "host") as far:
        done = subprocess.run(far.ssh("far", "cat"), input=data, capture_output=True, check=True, timeout=60)
    assert done.stdout == data


@pytest.mark.needs_netns
@pytest.mark.parametrize("python", [True, False])
def test_a_host_has_python_or_not(python: bool, tmp_path: Path) -> None:
    with far_host(0, tmp_path / "host", python=python) as far:
        done = subprocess.run(far.ssh("far", "command -v python3 python"), check=False, capture_output=True)
    assert bool(done.stdout) is python


@pytest.mark.needs_netns
@pytest.mark.parametrize("rtt_ms", [0, 50])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_behind(number: signal.Signals, rtt_ms: int, tmp_path: Path) -> None:
    words = [sys.executable, "-c", ENTER, str(rtt_ms), str(tmp_path / "host")]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        pid, interface = process.stdout.readline().split()
        assert Path(f"/sys/class/net/{interface}").exists()
        process.send_signal(number)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    eventually(lambda: not Path(f"/sys/class/net/{interface}").exists())


def test_a_tree_is_the_same_each_time_and_a_change_is_one_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        trees.small_files(root, 50)
    assert trees.differences(one, other) == []
    trees.change_one(one, 3)
    (changed,) = trees.differences(one, other)
    status = (other / changed).stat()
    os.utime(one / changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert trees.differences(one, other) == [changed]


def test_a_mib_of_the_big_file_is_changed(tmp_path: Path) -> None:
    trees.big_file(tmp_path / "one", 4 * trees.MIB)
    before = (tmp_path / "one" / trees.BIG_NAME).read_bytes()
    trees.change_big(tmp_path / "one", 1)
    after = (tmp_path / "one" / trees.BIG_NAME).read_bytes()
    assert len(before) == len(after)
    assert 0.9 * trees.MIB < sum(x != y for x, y in zip(before, after, strict=True)) <= trees.MIB
