"""When to go on trying, and when a rental is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gpucloud.errors import HostUnreachable
from gpucloud.fleet.contact import Contacts
from gpucloud.fleet.reconnect import Over, Patience, over, reconnect
from tests.harness.acme import Fault, Trouble, Vendor, Verb, serving
from tests.harness.fleets import World, give_back, rent, request, virtual_time

LOST = HostUnreachable("x does not answer")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with virtual_time() as time, serving(Vendor(time.elsewhere)) as server:
        yield World(server, tmp_path, time, {"launch.end_timeout": "30s", "ssh.reconnect_timeout": "5m"})


def test_patience_with_a_host_that_tells_something_each_time_has_no_end() -> None:
    patience = Patience(timedelta())
    for _ in range(5):
        patience.use(LOST, fresh=True)


def test_patience_with_a_host_that_tells_nothing_has_an_end() -> None:
    patience = Patience(timedelta())
    with pytest.raises(HostUnreachable) as caught:
        patience.use(LOST, fresh=False)
    assert caught.value is LOST


def test_a_rental_is_over_when_its_provider_or_the_books_say_so(world: World) -> None:
    with world.process() as fleet:
        cluster = rent(fleet, request(max_duration=timedelta(hours=1)))
        (rental,) = cluster.rentals
        assert over(fleet, rental) is None
        give_back(fleet, "x")
        assert over(fleet, rental) == Over("down")


@pytest.mark.parametrize("trouble", [Trouble.ERROR, Trouble.THROTTLED, Trouble.UNAUTHORIZED, Trouble.HTML])
def test_a_provider_that_does_not_answer_has_not_ended_anything(world: World, trouble: Trouble) -> None:
    with world.process() as fleet:
        (rental,) = rent(fleet, request()).rentals
        world.server.strike(Fault(Verb.GET, trouble, times=99))
        assert over(fleet, rental) is None


def test_what_its_provider_no_longer_knows_is_over(world: World) -> None:
    with world.process() as fleet:
        (rental,) = rent(fleet, request()).rentals
        world.server.strike(Fault(Verb.GET, Trouble.NOT_FOUND, times=99))
        assert over(fleet, rental) == Over("acme no longer knows it")


def test_what_was_ended_when_its_time_was_up_was_due(world: World) -> None:
    with world.process() as fleet:
        (rental,) = rent(fleet, request(max_duration=timedelta(hours=1))).rentals
        world.time.sleep(3601)
        world.server.strike(Fault(Verb.GET, Trouble.NOT_FOUND, times=99))
        ended = over(fleet, rental)
        assert ended
        assert ended.due


def test_a_machine_that_is_there_but_stays_silent_is_given_up_in_time(world: World) -> None:
    with world.process() as fleet:
        contacts = Contacts(fleet, rent(fleet, request()))
        begun = world.time.now
        with pytest.raises(HostUnreachable) as caught:
            reconnect(contacts, 0, LOST, "the job goes on")
        assert caught.value is LOST
        assert world.time.now - begun >= 300


def test_a_machine_that_has_ended_is_not_waited_for(world: World) -> None:
    with world.process() as fleet:
        contacts = Contacts(fleet, rent(fleet, request()))
        give_back(fleet, "x")
        assert reconnect(contacts, 0, LOST, "the job goes on") == Over("down")
