"""Death on each side of every call to a cloud and every write: what bills is seen, nothing is rented twice.

A process dies here for good: its calls reach the cloud no more, nor its writes the books. That is ``kill -9``
at that moment, without the seconds in which the next process starts. ``GPUCLOUD_CRASH_EVERY`` says which of
the moments a walk takes, and walks that go the same way begin at different ones; 1 takes all of them. What is
asked to find an offer comes before anything is written: only its first call and its last one are tried.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpucloud.fleet import Fleet
from gpucloud.fleet.launch import launch
from gpucloud.fleet.stop import start, stop
from tests.harness.acme import DiesAt, Moment
from tests.harness.cloud_fleets import World, give_back
from tests.harness.clouds import RIGS

EVERY = int(os.environ.get("GPUCLOUD_CRASH_EVERY", "24"))

AFTER_LAUNCH = [
    (walk, moment, command)
    for walk, (command, moment) in enumerate(itertools.product(("fsck", "launch"), Moment))
]
"""Where a launch dies, and what is done next."""

everywhere = pytest.mark.parametrize("cloud", RIGS)


@contextmanager
def a_world(cloud: str, folder: Path) -> Iterator[World]:
    """A cloud where nobody has rented before."""
    folder.mkdir()
    with RIGS[cloud](folder) as rig:
        yield World(rig, folder, lag_s=0.1)


def numbers(walk: int, walks: int) -> Iterator[int]:
    """The calls and writes at which one of several walks dies."""
    return itertools.count(1 + EVERY * walk // walks, EVERY)


def walk_of(moment: Moment) -> Iterator[int]:
    """The calls and writes before or after which an act dies."""
    return numbers(list(Moment).index(moment), len(Moment))


def halted(fleet: Fleet) -> None:
    cluster = fleet.store.clusters.get("x")
    assert cluster
    stop(fleet, cluster)


def started(fleet: Fleet) -> None:
    cluster = fleet.store.clusters.get("x")
    assert cluster
    start(fleet, cluster)


def taken_up(world: World) -> None:
    """Launch again; what is there is taken up and not replaced. Then end it."""
    before = {machine.token for machine in world.living()}
    world.act(world.rent)
    (machine,) = world.living()
    assert before <= {machine.token}
    world.explained()
    world.act(give_back)
    assert not world.living()
    world.cleaned_up()


@everywhere
@pytest.mark.parametrize(("walk", "moment", "next_command"), AFTER_LAUNCH)
def test_a_launch_that_dies_anywhere_is_explained_and_taken_up(
    cloud: str, walk: int, moment: Moment, next_command: str, tmp_path: Path
) -> None:
    for number in numbers(walk, len(AFTER_LAUNCH)):
        with a_world(cloud, tmp_path / str(number)) as world:
            plan = world.planned()
            dies = DiesAt(number, moment)
            world.act(lambda fleet: launch(fleet, plan), dies)  # noqa: B023 - it is called at once
            if next_command == "fsck":
                world.explained()
            taken_up(world)
        if not dies.dead:
            break
    assert number > 10, "the walk found hardly any steps to die at"


@everywhere
def test_a_search_that_dies_leaves_nothing(cloud: str, tmp_path: Path) -> None:
    with a_world(cloud, tmp_path / "x") as world:
        calls: list[str] = []
        world.rig.faults.called = lambda moment, verb: calls.append(moment)
        world.act(world.plan_of)
        for dies in (DiesAt(1, Moment.BEFORE), DiesAt(calls.count(Moment.AFTER), Moment.AFTER)):
            world.act(world.rent, dies)
            assert dies.dead
            assert not world.rig.state.instances()
            world.explained()
        taken_up(world)


@everywhere
@pytest.mark.parametrize("moment", list(Moment))
def test_an_end_that_dies_anywhere_is_explained_and_finished(
    cloud: str, moment: Moment, tmp_path: Path
) -> None:
    with a_world(cloud, tmp_path / "x") as world:
        for number in walk_of(moment):
            world.act(world.rent)
            assert world.living()
            dies = DiesAt(number, moment)
            world.act(give_back, dies)
            world.explained()
            world.cleaned_up()
            if not dies.dead:
                break
    assert number > 10, "the walk found hardly any steps to die at"


@everywhere
@pytest.mark.parametrize("moment", list(Moment))
def test_a_stop_or_start_that_dies_anywhere_is_explained_and_finished_by_the_next(
    cloud: str, moment: Moment, tmp_path: Path
) -> None:
    acts: dict[str, Callable[[Fleet], None]] = {"stop": halted, "start": started}
    with a_world(cloud, tmp_path / "x") as world:
        world.act(world.rent)
        (machine,) = world.living()
        for number in walk_of(moment):
            survived = True
            for name, act in acts.items():
                where = f"{name}, step {number}"
                dies = DiesAt(number, moment)
                world.act(act, dies)
                survived = survived and not dies.dead
                assert world.booked_in_full() or not world.runs(), f"{where}: more bills than is booked"
                # Not before the second does the cloud list as stopped what was stopping.
                world.explained()
                world.explained()
                assert world.booked_in_full() == world.runs(), f"{where}: fsck left the wrong price"
                world.act(act)
                assert world.runs() == (name == "start"), f"{where}: it was not done"
                assert world.booked_in_full() == world.runs(), f"{where}: it was not booked"
            if survived:
                break
        assert [each.token for each in world.rig.state.instances()] == [machine.token]
        world.cleaned_up()
    assert number > 10, "the walk found hardly any steps to die at"
