"""The fault matrix again and again: ``GPUCLOUD_BENCH_ROUNDS`` says how often, each time with other waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness.acme import EVERY_FAULT, Fault, Trouble, Vendor, Verb, serving
from tests.harness.fleets import World, attempt, give_back, rent, request, virtual_time

ROUNDS = int(os.environ.get("GPUCLOUD_BENCH_ROUNDS", "0"))
IMPATIENT_S = 0.2
HALTING = {Verb.STOP, Verb.START, Verb.EXPIRE}
FAULTS = [fault for fault in EVERY_FAULT if fault.verb not in HALTING]


def through(folder: Path, fault: Fault) -> None:
    """A launch and an end among one fault; all that bills is explained, and can be ended."""
    settings = {"launch.end_timeout": "30s", "launch.ready_timeout": "30s"}
    with virtual_time() as time, serving(Vendor(time.elsewhere)) as server:
        patience_s = IMPATIENT_S if fault.trouble is Trouble.TIMEOUT else 30
        world = World(server, folder, time, settings, patience_s)
        for act in (lambda fleet: rent(fleet, request()), lambda fleet: give_back(fleet, "x")):
            server.strike(fault)
            with world.process() as fleet:
                attempt(lambda act=act, fleet=fleet: act(fleet))  # type: ignore[misc]
            world.explained()
        world.cleaned_up()


@pytest.mark.skipif(
    not ROUNDS, reason="GPUCLOUD_BENCH_ROUNDS says how often; the matrix is tested once anyway"
)
@pytest.mark.slow
def test_the_fault_matrix_holds_every_time(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        for fault in FAULTS:
            folder = tmp_path / f"{number}-{fault}"
            folder.mkdir()
            through(folder, fault)
