"""The ledger: what was agreed, integrated over time, to the micro-dollar."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.model import Cluster, Rental, utcnow
from gpucloud.store import Store
from gpucloud.store.ledger import meter
from tests.harness.books import START, a_rental, an_instance, opened, rented

MICRO = Decimal("0.000001")
_numbers = itertools.count()

spans = st.integers(0, 10**13).map(lambda number: timedelta(microseconds=number))
prices = st.integers(0, 10**9).map(lambda micros: Decimal(micros) / 10**6)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all: every test has clusters of its own."""
    with opened(tmp_path_factory.mktemp("books")) as store:
        yield store


def a_cluster(store: Store) -> Cluster:
    return store.clusters.create(f"c{next(_numbers)}", 1, ephemeral=False)


def an_intent(store: Store, cluster: Cluster, price: Decimal | None = None) -> Rental:
    rental = a_rental(cluster, f"gc-{next(_numbers)}", usd_per_hour=price)
    store.journal.intend(rental)
    return rental


def enter(store: Store, rental: Rental, *changes: tuple[datetime, Decimal | None]) -> None:
    """Enter changes of the price of a rental."""
    with store.db.write() as db:
        for at, price in changes:
            meter(db, replace(rental, usd_per_hour=price), at, running=True)


def cost(store: Store, cluster: Cluster, now: datetime) -> Decimal:
    total = store.ledger.cost(cluster.id, now)
    assert total is not None
    return total


def test_a_cluster_without_rentals_has_cost_nothing(store: Store) -> None:
    assert store.ledger.cost(a_cluster(store).id) == 0


@pytest.mark.parametrize(
    ("price", "span", "total"),
    [
        ("3.60", timedelta(hours=1), "3.60"),
        ("3.60", timedelta(seconds=1), "0.001"),
        ("3.60", timedelta(milliseconds=1), "0.000001"),
        ("98.32", timedelta(days=30), "70790.4"),
        ("0", timedelta(days=365), "0"),
        ("3.60", timedelta(0), "0"),
        ("0.0009", timedelta(seconds=2), "0.000001"),
        ("0.0009", timedelta(seconds=1), "0"),
    ],
)
def test_the_cost_is_price_times_time_rounded_to_the_micro_dollar(
    store: Store, price: str, span: timedelta, total: str
) -> None:
    cluster = a_cluster(store)
    enter(store, an_intent(store, cluster), (START, Decimal(price)))
    assert cost(store, cluster, START + span) == Decimal(total)


def test_without_a_time_the_cost_is_that_until_now(store: Store) -> None:
    cluster = a_cluster(store)
    enter(store, an_intent(store, cluster), (utcnow() - timedelta(hours=1), Decimal(360)))
    total = store.ledger.cost(cluster.id)
    assert total is not None and Decimal(360) <= total < Decimal(366)


def test_a_rental_that_is_gone_costs_no_more(store: Store) -> None:
    cluster = a_cluster(store)
    token = f"gc-{next(_numbers)}"
    rental = rented(store, cluster, token)
    assert rental.state == "accepted"
    store.journal.gone(token, "down")
    assert cost(store, cluster, utcnow()) == cost(store, cluster, utcnow() + timedelta(days=1)) > 0


@given(prices, st.lists(spans, min_size=1, max_size=5))
def test_the_cost_does_not_depend_on_into_how_many_pieces_the_time_is_split(
    store: Store, price: Decimal, pieces: list[timedelta]
) -> None:
    whole, split = a_cluster(store), a_cluster(store)
    times = [START + sum(pieces[:count], timedelta()) for count in range(len(pieces) + 1)]
    enter(store, an_intent(store, whole), (START, price))
    enter(store, an_intent(store, split), *((at, price) for at in times[:-1]))
    assert abs(cost(store, whole, times[-1]) - cost(store, split, times[-1])) <= MICRO


@given(prices, spans, spans)
def test_the_cost_grows_by_price_times_time(
    store: Store, price: Decimal, first: timedelta, more: timedelta
) -> None:
    cluster = a_cluster(store)
    enter(store, an_intent(store, cluster), (START, price))
    grown = cost(store, cluster, START + first + more) - cost(store, cluster, START + first)
    hours = Fraction(more // timedelta(microseconds=1), 3_600_000_000)
    assert abs(Fraction(grown) - Fraction(price) * hours) <= Fraction(MICRO)


@given(st.lists(st.tuples(prices, spans), min_size=1, max_size=4))
def test_a_cluster_costs_the_sum_of_its_rentals(store: Store, parts: list[tuple[Decimal, timedelta]]) -> None:
    together = a_cluster(store)
    now = START + max(span for _, span in parts)
    alone = Decimal(0)
    for price, span in parts:
        single = a_cluster(store)
        for cluster in (single, together):
            enter(store, an_intent(store, cluster), (now - span, price))
        alone += cost(store, single, now)
    assert abs(cost(store, together, now) - alone) <= MICRO * len(parts)


@given(
    st.lists(st.tuples(st.integers(-(10**9), 10**9), prices), min_size=1, max_size=6),
    st.integers(-(10**9), 10**9),
)
def test_a_clock_that_jumps_never_makes_a_negative_cost_nor_takes_back_what_was_spent(
    store: Store, changes: list[tuple[int, Decimal]], now: int
) -> None:
    cluster = a_cluster(store)
    rental = an_intent(store, cluster)
    entered = [(START + timedelta(seconds=jump), price) for jump, price in changes]
    enter(store, rental, *entered)
    last, price = entered[-1]
    before = cost(store, cluster, last)
    after = cost(store, cluster, START + timedelta(seconds=now))
    assert 0 <= before <= after
    expected = Fraction(0)
    for (begin, rate), (end, _) in itertools.pairwise([*entered, (START + timedelta(seconds=now), price)]):
        hours = Fraction(max(timedelta(0), end - begin) // timedelta(microseconds=1), 3_600_000_000)
        expected += Fraction(rate) * hours
    assert abs(Fraction(after) - expected) <= Fraction(MICRO)


def test_a_clock_that_was_set_back_while_a_rental_ran_keeps_what_was_spent_before(store: Store) -> None:
    cluster = a_cluster(store)
    hour = timedelta(hours=1)
    rental = an_intent(store, cluster)
    enter(store, rental, (START, Decimal(2)), (START + hour, Decimal(4)), (START - hour, Decimal(0)))
    assert cost(store, cluster, START - hour) == Decimal(2)
    assert cost(store, cluster, START + 10 * hour) == Decimal(2)


@pytest.mark.parametrize(
    "changes",
    [
        (None,),
        (None, Decimal(1)),
        (Decimal(1), None),
        (Decimal(1), None, Decimal(0)),
        (None, Decimal(0)),
    ],
)
def test_the_cost_is_unknown_when_a_price_is_unknown(
    store: Store, changes: tuple[Decimal | None, ...]
) -> None:
    cluster = a_cluster(store)
    enter(store, an_intent(store, cluster), (START, Decimal(5)))
    entered = [(START + timedelta(hours=n), price) for n, price in enumerate(changes)]
    enter(store, an_intent(store, cluster), *entered)
    assert store.ledger.cost(cluster.id, START + timedelta(days=1)) is None


def test_an_unknown_price_of_one_cluster_is_nothing_to_another(store: Store) -> None:
    unknown, known = a_cluster(store), a_cluster(store)
    enter(store, an_intent(store, unknown), (START, None))
    enter(store, an_intent(store, known), (START, Decimal(1)))
    assert cost(store, known, START + timedelta(hours=1)) == 1


def test_the_journal_of_an_instance_of_unknown_price_leads_to_an_unknown_cost(store: Store) -> None:
    cluster = a_cluster(store)
    token = f"gc-{next(_numbers)}"
    rented(store, cluster, token, usd_per_hour=None)
    store.journal.gone(token, "down")
    assert store.ledger.cost(cluster.id) is None
    assert store.clusters.by_id(cluster.id).usd_per_hour == 0


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(hours=5, minutes=30), timedelta(hours=-8)])
def test_the_time_zone_in_which_a_provider_tells_the_time_makes_no_difference(
    store: Store, offset: timedelta
) -> None:
    cluster = a_cluster(store)
    token = f"gc-{next(_numbers)}"
    store.journal.intend(a_rental(cluster, token))
    store.journal.accept(token, an_instance(token, created_at=START.astimezone(timezone(offset))))
    assert cost(store, cluster, START + timedelta(hours=2)) == Decimal("7.20")
    stored = store.db.read("SELECT at FROM ledger WHERE token = ?", token)[0]["at"]
    assert stored == "2026-01-02T03:04:05.678901+00:00"


def test_a_time_without_a_zone_cannot_make_the_books_unreadable(store: Store) -> None:
    cluster = a_cluster(store)
    token = f"gc-{next(_numbers)}"
    store.journal.intend(a_rental(cluster, token))
    store.journal.accept(token, an_instance(token, created_at=datetime(2026, 1, 2, 3, 4)))
    assert cost(store, cluster, START + timedelta(days=2)) > 0


def test_the_original_currency_and_amount_are_kept_beside_the_dollars(store: Store) -> None:
    cluster = a_cluster(store)
    token = f"gc-{next(_numbers)}"
    store.journal.intend(a_rental(cluster, token, currency="EUR", amount=Decimal("3.30")))
    store.journal.accept(token, an_instance(token))
    store.journal.gone(token, "down")
    rows = store.db.read("SELECT * FROM ledger WHERE token = ? ORDER BY id", token)
    assert [(row["usd_micros_per_hour"], row["currency"], row["amount"]) for row in rows] == [
        (3_600_000, "EUR", "3.30"),
        (0, "EUR", None),
    ]


def test_money_is_kept_as_whole_numbers(store: Store) -> None:
    cluster = a_cluster(store)
    rented(store, cluster, f"gc-{next(_numbers)}", usd_per_hour=Decimal("1.23"))
    kinds = store.db.read(
        "SELECT typeof(usd_micros_per_hour) FROM rentals WHERE usd_micros_per_hour IS NOT NULL"
        " UNION SELECT typeof(usd_micros_per_hour) FROM ledger WHERE usd_micros_per_hour IS NOT NULL"
    )
    assert [row[0] for row in kinds] == ["integer"]
