"""How long a line of a job takes from being written on the host to being read here, with ``logs -f``.

Both ends are on one machine and have one clock, so each line is the time at which it was written.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from subprocess import Popen

import pytest

from tests.bench.amount import FULL, at_length
from tests.bench.contenders import CLUSTER, Command
from tests.bench.report import Table
from tests.bench.sync_rig import Far, far_host

LINES = 400
ROUNDS = 3
"""The best counts: a machine that has something else to do only ever makes a line look later."""

LONG = (1024 if FULL else 128) << 20
PEAK_MIB = 80
JOB = """\
exec python3 -c '
import pathlib, sys, time
def tell(text):
    print(text, flush=True)
row = "x" * 99 + chr(10)
for _ in range({before} // len(row) // 1000):
    sys.stdout.write(row * 1000)
tell("ready")
while not pathlib.Path("go").exists():
    time.sleep(0.01)
for _ in range({lines}):
    tell(time.monotonic_ns())
    time.sleep(0.01)
'"""
TABLE = Table(
    (
        "log line, written to read",
        "RTT ms",
        "log MiB",
        "until ready s",
        "median ms",
        "p99 ms",
        "limit ms",
        "peak MiB",
    )
)

pytestmark = [at_length, pytest.mark.slow, pytest.mark.needs_netns]


@pytest.fixture(scope="module", params=[0, 50, 150], ids="rtt{}".format)
def far(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """A host that many milliseconds away."""
    with far_host(request.param, tmp_path_factory.mktemp("far") / "host") as far:
        yield far


@pytest.mark.parametrize("before", [0, LONG], ids=["short", "long"])
def test_a_line_is_here_soon(far: Far, before: int, capsys: pytest.CaptureFixture[str]) -> None:
    rtt_ms = far.rtt_s * 1000
    limit_ms = rtt_ms / 2 + 50
    with Command(far, JOB.format(before=before, lines=ROUNDS * LINES)) as ours:
        ours.disconnect()
        began = time.monotonic()
        with ours.started("logs", "-f", CLUSTER) as follower:
            lines = _lines(follower)
            while next(lines)[0] != b"ready":
                pass
            ready_s = time.monotonic() - began
            (ours.there / "go").touch()
            late_ms = [(read_ns - int(line)) / 1e6 for line, read_ns in lines]
    assert len(late_ms) == ROUNDS * LINES
    rounds = [late_ms[begin : begin + LINES] for begin in range(0, len(late_ms), LINES)]
    median = statistics.median(late_ms)
    p99 = min(statistics.quantiles(each, n=100)[98] for each in rounds)
    peak_mib = (ours.peak_kib or 0) / 1024
    times = [f"{ready_s:.2f}", f"{median:.1f}", f"{p99:.1f}", f"{limit_ms:.0f}"]
    TABLE.add(["", f"{rtt_ms:.0f}", f"{before >> 20}", *times, f"{peak_mib:.0f}"], capsys)
    assert p99 <= limit_ms
    assert peak_mib <= PEAK_MIB


def _lines(process: Popen[bytes]) -> Iterator[tuple[bytes, int]]:
    """What it prints, and when each line could be read."""
    assert process.stdout is not None
    rest = b""
    # Each read gives what is there, so that none of its lines is older than it looks.
    while data := process.stdout.read1(1 << 20):  # type: ignore[attr-defined]
        now = time.monotonic_ns()
        *whole, rest = (rest + data).split(b"\n")
        yield from ((line, now) for line in whole)
