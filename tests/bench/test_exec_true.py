"""``exec`` of a command that does nothing, on a connection that is there: beside OpenSSH's own."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.amount import at_length
from tests.bench.contenders import CLUSTER, Engine, SharedSsh
from tests.bench.report import Table
from tests.bench.sync_rig import far_host

RUNS = 11
TABLE = Table(
    ("exec true", "RTT ms", "gpucloud ms", "warm process ms", "ssh over a ControlMaster ms", "limit ms")
)

pytestmark = [at_length, pytest.mark.slow, pytest.mark.needs_netns]


@pytest.mark.parametrize("rtt_ms", [0, 50, 150], ids="rtt{}".format)
def test_exec_takes_little_more_than_a_round_trip(
    rtt_ms: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit_ms = 1.6 * rtt_ms + 60
    with far_host(rtt_ms, tmp_path / "host") as far, Engine(far) as ours, SharedSsh(far) as ssh:
        ways: dict[str, Callable[[], float]] = {
            "gpucloud": lambda: ours.run("exec", CLUSTER, "--", "true"),
            "warm": lambda: ours.ask("exec", "true"),
            "ssh": lambda: ssh.run("true"),
        }
        for act in ways.values():
            act()
        rounds = [{name: 1000 * act() for name, act in ways.items()} for _ in range(RUNS)]
    took_ms = {name: statistics.median(each[name] for each in rounds) for name in ways}
    shown = [f"{took_ms[name]:.0f}" for name in ("gpucloud", "warm", "ssh")]
    TABLE.add(["", str(rtt_ms), *shown, f"{limit_ms:.0f}"], capsys)
    assert took_ms["warm"] <= limit_ms
