"""Who knows more of chosen offers is asked before one of them is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest

from gpucloud.config import load
from gpucloud.errors import NoCapacity, Unreachable
from gpucloud.fleet import Fleet
from gpucloud.fleet.plan import LaunchRequest, Plan, plan
from gpucloud.market.advice import MOST
from gpucloud.model import Availability, Offer, Requirements, utcnow
from gpucloud.provider import ProviderSettings
from gpucloud.store import Store
from tests.harness.acme import Only
from tests.harness.adapters import Stated, an_offer, failing


class Acme(Stated):
    """Sells so many types, the cheapest first, and knows of some how likely they are to be had."""

    name: ClassVar[str] = "acme"

    def __init__(self, types: int, known: dict[str, Availability]) -> None:
        super().__init__(ProviderSettings(self.name, Path("/nonexistent")))
        self.types, self.known = types, known
        self.asked: list[tuple[list[str], int]] = []

    def offers(self, requirements: Requirements) -> list[Offer]:
        cents = range(100, 100 + self.types)
        return [
            an_offer(instance_type=f"t{price}", usd_per_hour=Decimal(price) / 100, as_of=utcnow())
            for price in cents
        ]

    def advise(self, offers: Sequence[Offer], nodes: int) -> Iterable[Offer]:
        self.asked.append(([offer.instance_type for offer in offers], nodes))
        for offer in offers:
            if offer.instance_type in self.known:
                yield replace(offer, availability=self.known[offer.instance_type], availability_detail="told")


class Best(Stated):
    """Sells one type and cannot say more of it."""

    name: ClassVar[str] = "best"

    def __init__(self) -> None:
        super().__init__(ProviderSettings(self.name, Path("/nonexistent")))

    def offers(self, requirements: Requirements) -> list[Offer]:
        return [an_offer(provider="best", as_of=utcnow())]

    def advise(self, offers: Sequence[Offer], nodes: int) -> Iterable[Offer]:
        raise Unreachable("best: no advice", provider=self.name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    books = Store(tmp_path / "books")
    yield books
    books.db.close()


def planned(store: Store, home: Path, *adapters: Stated) -> Plan:
    config = load({}, {}, home)
    unused = failing(AssertionError())
    here = Fleet(store, Only(config, *adapters), config, "me", unused, lambda event: None)
    return plan(here, LaunchRequest("x", Requirements(markets=()), nodes=3), [])


def test_what_is_told_counts_and_the_order_stays(store: Store, home: Path) -> None:
    acme = Acme(3, {"t100": Availability.UNAVAILABLE, "t102": Availability.LIMITED})
    made = planned(store, home, acme)
    assert [(o.instance_type, o.availability) for o in made.offers] == [
        ("t101", Availability.UNKNOWN),
        ("t102", Availability.LIMITED),
    ]
    assert acme.asked == [(["t100", "t101", "t102"], 3)]


def test_no_more_is_asked_about_than_is_likely_to_be_tried(store: Store, home: Path) -> None:
    acme = Acme(MOST + 5, {})
    assert len(planned(store, home, acme).offers) == MOST + 5
    ((types, _),) = acme.asked
    assert len(types) == MOST


def test_who_cannot_say_more_is_taken_all_the_same(store: Store, home: Path) -> None:
    made = planned(store, home, Acme(1, {"t100": Availability.AVAILABLE}), Best())
    assert {o.provider: o.availability_detail for o in made.offers} == {"acme": "told", "best": None}
    assert [(f.provider, f.message) for f in made.failures] == [("best", "no advice")]


def test_when_none_is_left_there_is_no_capacity(store: Store, home: Path) -> None:
    with pytest.raises(NoCapacity):
        planned(store, home, Acme(1, {"t100": Availability.UNAVAILABLE}))
