"""What is owed for reservations: at once or when they begin, held until then, and of whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.errors import BudgetRefused
from gpucloud.model import (
    Block,
    Booking,
    BookingState,
    Gpu,
    InstanceRef,
    Labels,
    Reservation,
    ReservationState,
    utcnow,
)
from gpucloud.store import Store
from gpucloud.store.budget import Cap
from gpucloud.store.ledger import Line
from gpucloud.store.spending import Spending
from tests.harness.books import opened

NOW = utcnow()
DAY = timedelta(days=1)
BLOCK = Block(
    provider="acme",
    ref="cbr-1",
    instance_type="p5.48xlarge",
    nodes=2,
    region="us-east",
    zone="us-east-1a",
    starts_at=NOW + DAY,
    ends_at=NOW + 2 * DAY,
    usd=Decimal(500),
    usd_upfront=Decimal(500),
    gpu=Gpu("H100", 80, "SXM"),
    gpu_count=8,
    amount=Decimal("500.00"),
)
MINE = Labels("train", "ada", {"team": "vision"})
TODAY = Cap("day", Decimal(1000), NOW - timedelta(hours=1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as store:
        yield store


def a_booking(block: Block = BLOCK, token: str = "gc-1") -> Booking:
    return Booking(token, "blk", block, BookingState.INTENDED, NOW, MINE)


def sold(token: str = "gc-1") -> Reservation:
    return Reservation(
        "acme",
        InstanceRef("cr-1", "us-east"),
        ReservationState.PENDING,
        BLOCK.instance_type,
        2,
        BLOCK.zone,
        token=token,
    )


def taken(store: Store) -> list[tuple[Decimal, Decimal]]:
    return [(use.spent, use.held) for use in store.budget.uses(TODAY)]


def test_what_was_intended_is_read_back_as_it_was(store: Store) -> None:
    store.bookings.intend(a_booking())
    assert store.bookings.all() == [a_booking()]
    store.bookings.bought("gc-1", sold())
    bought = replace(a_booking(), state=BookingState.BOUGHT, ref=InstanceRef("cr-1", "us-east"))
    assert store.bookings.all() == [bought]


def test_what_is_paid_at_once_is_held_and_then_spent(store: Store) -> None:
    store.bookings.intend(a_booking())
    assert taken(store) == [(Decimal(0), Decimal(500))]
    assert store.ledger.charges() == []
    store.bookings.bought("gc-1", sold())
    assert taken(store) == [(Decimal(500), Decimal(0))]
    (charge,) = store.ledger.charges()
    assert (charge.line, charge.usd, charge.since) == (Line.RESERVATION, Decimal(500), NOW)


def test_what_is_billed_while_it_lasts_is_held_until_it_begins(store: Store) -> None:
    later = replace(BLOCK, usd_upfront=Decimal(100))
    store.bookings.intend(a_booking(later))
    store.bookings.bought("gc-1", sold())
    assert taken(store) == [(Decimal(100), Decimal(400))]
    after = store.ledger.charges(now=NOW + DAY + timedelta(hours=1))
    assert [(each.usd, each.since) for each in after] == [
        (Decimal(100), NOW),
        (Decimal(400), BLOCK.starts_at),
    ]


def test_what_was_not_bought_takes_nothing(store: Store) -> None:
    store.bookings.intend(a_booking())
    store.bookings.failed("gc-1", "somebody was faster")
    assert taken(store) == []
    assert store.ledger.charges() == []
    assert store.bookings.all()[0].reason == "somebody was faster"


@pytest.mark.parametrize(
    "cap",
    [
        Cap("day", Decimal(900), TODAY.since),
        Cap("launch", Decimal(499)),
        Cap("month", Decimal(900), TODAY.since, "train"),
    ],
)
def test_no_two_purchases_pass_a_cap_together(store: Store, cap: Cap) -> None:
    store.bookings.intend(a_booking())
    with pytest.raises(BudgetRefused):
        store.bookings.intend(a_booking(token="gc-2"), [cap])
    assert [booking.token for booking in store.bookings.all()] == ["gc-1"]


def test_the_cap_of_another_project_does_not_count_it(store: Store) -> None:
    store.bookings.intend(a_booking(), [Cap("month", Decimal(1), TODAY.since, "eval")])
    assert store.budget.uses(Cap("month", Decimal(1), TODAY.since, "eval")) == []


def test_it_is_added_up_by_whose_and_what_it_is(store: Store) -> None:
    store.bookings.intend(a_booking())
    store.bookings.bought("gc-1", sold())
    keys = ("cluster", "project", "user", "provider", "market", "region", "gpu", "instance_id", "tag:team")
    (group,) = Spending(store.db, store.ledger).by(keys)
    assert group.keys == (
        "blk", "train", "ada", "acme", "reserved", "us-east", "H100-SXM-80", "cr-1", "vision",
    )  # fmt: skip
    assert group.total == Decimal(500)
    assert Spending(store.db, store.ledger).clusters() == ["blk"]
