"""Faults between the program and each vendor: what bills is in fsck's report, and nothing is rented twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.acme import Fault, Trouble, Verb
from tests.harness.cloud_fleets import World, give_back
from tests.harness.clouds import RIGS
from tests.harness.faulty import GENERIC
from tests.harness.rental import RENTAL_RIGS

# What fails while something is only read is the same everywhere; the matrix of acme has all of that.
VENDORS = {**RIGS, **RENTAL_RIGS}
CASES = (
    *((verb, trouble) for verb in (Verb.CREATE, Verb.TERMINATE) for trouble in GENERIC),
    *((verb, Trouble.ERROR) for verb in (Verb.OFFERS, Verb.GET, Verb.LIST, Verb.LIST_RESOURCES)),
)


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with VENDORS[request.param](tmp_path) as rig:
        yield World(rig, tmp_path)


@pytest.mark.parametrize(("verb", "trouble"), CASES, ids=str)
@pytest.mark.parametrize("world", VENDORS, indirect=True)
def test_a_fault_hides_nothing_that_bills(world: World, verb: Verb, trouble: Trouble) -> None:
    if verb not in world.rig.verbs:
        pytest.skip(f"{world.rig.name} is not asked for {verb}")
    for act in (world.rent, give_back, world.rent):
        world.rig.faults.strike(Fault(verb, trouble))
        world.act(act)
        world.explained()
    assert world.rig.faults.struck
    world.rig.faults.calm()
    world.act(world.rent)
    assert world.living()
    world.cleaned_up()


LAGGING = [("aws", "listing_lag"), ("gcp", "lag"), *((name, "lag") for name in RENTAL_RIGS)]


@pytest.mark.parametrize(("world", "lag"), LAGGING, indirect=["world"])
def test_what_is_listed_late_is_neither_lost_nor_rented_again(world: World, lag: str) -> None:
    setattr(world.rig.state, lag, 2)
    world.rig.faults.strike(Fault(Verb.CREATE, Trouble.LOST_REPLY))
    for act in (world.rent, world.rent, give_back):
        world.act(act)
        world.explained()
    world.cleaned_up()
    assert len(world.rig.state.instances()) == 1
