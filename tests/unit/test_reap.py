"""What a cron job takes for idle, and what is said when an end cannot be proved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gpucloud.errors import TeardownUnconfirmed
from gpucloud.jobs.reap import idle_for
from gpucloud.remote.host import Vitals
from tests.harness.acme import Fault, Trouble, Vendor, Verb, serving
from tests.harness.fleets import World, rent, request, virtual_time


def vitals(idle_for_s: int, *, sessions_known: bool = True) -> Vitals:
    return Vitals(None, 60, idle_for_s, "none", sessions_known, None, 0)


def test_a_cluster_idles_for_as_long_as_the_node_that_was_busy_last() -> None:
    assert idle_for([vitals(90), vitals(30)]) == timedelta(seconds=30)
    assert idle_for([vitals(90), vitals(0)]) == timedelta()


def test_where_sessions_cannot_be_seen_nobody_is_taken_for_gone() -> None:
    assert idle_for([vitals(90), vitals(90, sessions_known=False)]) == timedelta()
    assert idle_for([]) == timedelta()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with virtual_time() as time, serving(Vendor(time.elsewhere)) as server:
        yield World(server, tmp_path, time, {"launch.end_timeout": "30s"})


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        (Fault(Verb.CREATE, Trouble.TWICE), Verb.TERMINATE),
        (Fault(Verb.CREATE, Trouble.LEFT_BEHIND), Verb.REMOVE),
    ],
    ids=["made twice", "left behind"],
)
def test_what_a_provider_refuses_to_end_is_said_to_bill(world: World, made: Fault, kept: Verb) -> None:
    world.server.strike(made, Fault(kept, Trouble.UNAUTHORIZED, times=99))
    with world.process() as fleet, pytest.raises(TeardownUnconfirmed) as caught:
        rent(fleet, request())
    assert "may still be billing" in caught.value.message
    assert world.server.vendor.billing()
    world.explained()
    world.cleaned_up()
