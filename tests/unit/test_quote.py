"""The price of the moment: who is asked for it, how often, and what it may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest

from gpucloud.config import load
from gpucloud.errors import NoCapacity, PriceAboveCap
from gpucloud.fleet import Fleet
from gpucloud.fleet.quote import FRESH, Quotes
from gpucloud.model import Availability, Offer, Requirements, utcnow
from gpucloud.parallel import results, run_all
from gpucloud.provider import ProviderSettings
from gpucloud.store import Store
from tests.harness.acme import Only
from tests.harness.adapters import Stated, an_offer, failing

WANTED = Requirements(markets=())


class Acme(Stated):
    """Sells what it is told to, and remembers what it was asked for."""

    name: ClassVar[str] = "acme"

    def __init__(self, *sold: Offer) -> None:
        super().__init__(ProviderSettings(self.name, Path("/nonexistent")))
        self.sold = sold
        self.asked: list[Requirements] = []

    def offers(self, requirements: Requirements) -> list[Offer]:
        self.asked.append(requirements)
        return [replace(offer, as_of=utcnow()) for offer in self.sold]


Quoting = Callable[..., Quotes]


@pytest.fixture
def quoting(home: Path, tmp_path: Path) -> Iterator[Quoting]:
    store = Store(tmp_path / "books")

    def build(acme: Acme, wanted: Requirements = WANTED, **settings: str) -> Quotes:
        config = load({f"launch.{name}": text for name, text in settings.items()}, {}, home)
        unused = failing(AssertionError())
        return Quotes(Fleet(store, Only(config, acme), config, "me", unused, lambda event: None), wanted)

    yield build
    store.db.close()


def stale(**changes: object) -> Offer:
    return an_offer(as_of=utcnow() - FRESH - timedelta(seconds=1), **changes)


def test_a_price_that_was_just_told_is_not_asked_for_again(quoting: Quoting) -> None:
    acme, offer = Acme(), an_offer(as_of=utcnow())
    assert quoting(acme).fresh(offer) is offer
    assert not acme.asked


def test_an_old_price_is_asked_for_and_only_where_it_is_of(quoting: Quoting) -> None:
    acme = Acme(an_offer(usd_per_hour=Decimal("0.90")))
    found = quoting(acme, replace(WANTED, max_usd_per_hour=Decimal(2))).fresh(stale())
    assert found.usd_per_hour == Decimal("0.90")
    assert utcnow() - found.as_of <= FRESH
    (asked,) = acme.asked
    assert (asked.instance_types, asked.regions, asked.max_usd_per_hour) == (("big",), ("us-east",), None)


def test_the_nodes_of_a_launch_share_an_answer(quoting: Quoting) -> None:
    acme = Acme(an_offer(), an_offer(zone="b"))
    quotes = quoting(acme)
    offers = [stale(), stale(zone="b"), stale(), stale()]
    found = results(run_all({rank: lambda o=o: quotes.fresh(o) for rank, o in enumerate(offers)}))  # type: ignore[misc]
    assert [found[rank].zone for rank in range(4)] == [None, "b", None, None]
    assert len(acme.asked) == 1


@pytest.mark.parametrize("left", [(), (an_offer(availability=Availability.UNAVAILABLE),)])
def test_what_is_no_longer_there_is_passed_over_for_now(quoting: Quoting, left: tuple[Offer, ...]) -> None:
    with pytest.raises(NoCapacity) as caught:
        quoting(Acme(*left)).fresh(stale())
    assert not caught.value.lasting


@pytest.mark.parametrize(("now", "agreed"), [("1.10", True), ("1.11", False)])
def test_what_has_become_dearer_than_is_tolerated_is_refused(
    quoting: Quoting, now: str, agreed: bool
) -> None:
    quotes = quoting(Acme(an_offer(usd_per_hour=Decimal(now))), price_tolerance="10%")
    if agreed:
        assert quotes.fresh(stale()).usd_per_hour == Decimal(now)
    else:
        with pytest.raises(PriceAboveCap, match="dearer"):
            quotes.fresh(stale())


def test_no_tolerance_passes_the_cap_of_the_person(quoting: Quoting) -> None:
    quotes = quoting(
        Acme(an_offer(usd_per_hour=Decimal("1.05"))),
        replace(WANTED, max_usd_per_hour=Decimal("1.04")),
        price_tolerance="50%",
    )
    with pytest.raises(PriceAboveCap):
        quotes.fresh(stale())
