"""The ledger: what was agreed, integrated over time, to the micro-dollar."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.model import Cluster, Rental, utcnow
from gpucloud.store import Store, clock
from gpucloud.store.ledger import Charge, Line, charge, meter, spans_of, total
from gpucloud.store.spending import next_day, next_month
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


rates = st.one_of(st.none(), prices)
moments = st.integers(-(10**13), 10**13).map(lambda number: START + timedelta(microseconds=number))
histories = st.lists(st.tuples(moments, rates), min_size=1, max_size=6)
payments = st.lists(st.tuples(moments, st.one_of(st.none(), prices)), max_size=3)
LATEST = START + timedelta(microseconds=2 * 10**13)


def a_history(
    store: Store, entered: list[tuple[datetime, Decimal | None]], paid: list[tuple[datetime, Decimal | None]]
) -> Cluster:
    """A cluster of one rental with two meters, and what was paid once for it."""
    cluster = a_cluster(store)
    rental = an_intent(store, cluster)
    enter(store, rental, *entered)
    with store.db.write() as db:
        for at, usd in entered:
            tariff = replace(rental.tariff, disk_usd_per_hour=usd)
            meter(db, replace(rental, tariff=tariff), at, running=True, line=Line.DISK)
        for at, usd in paid:
            charge(db, rental.token, at, Line.EGRESS, usd, "traffic")
    return cluster


def known(charges: Iterable[Charge]) -> Decimal:
    return sum((each.usd for each in charges if each.usd is not None), Decimal(0))


def lasted(charges: Iterable[Charge], *, known: bool) -> timedelta:
    return sum((each.lasted for each in charges if (each.usd is not None) == known), timedelta())


@given(histories, payments, st.tuples(moments, moments, moments))
def test_money_and_time_are_conserved_when_a_time_is_split(
    store: Store,
    entered: list[tuple[datetime, Decimal | None]],
    paid: list[tuple[datetime, Decimal | None]],
    times: tuple[datetime, datetime, datetime],
) -> None:
    cluster = a_history(store, entered, paid)
    begin, middle, end = sorted(times)

    def within(since: datetime | None, until: datetime | None) -> list[Charge]:
        return store.ledger.charges(since, until, cluster_id=cluster.id, now=LATEST)

    for since, until in (begin, end), (None, end), (begin, None), (None, None):
        whole = within(since, until)
        parts = [*within(since, middle), *within(middle, until)]
        assert known(whole) == known(parts)
        for told in True, False:
            assert lasted(whole, known=told) == lasted(parts, known=told)
        assert all(each.usd is None or each.usd >= 0 for each in [*whole, *parts])


@given(histories, payments, moments)
def test_days_and_months_add_up_to_the_whole_time(
    store: Store,
    entered: list[tuple[datetime, Decimal | None]],
    paid: list[tuple[datetime, Decimal | None]],
    since: datetime,
) -> None:
    cluster = a_history(store, entered, paid)
    whole = store.ledger.charges(since, cluster_id=cluster.id, now=LATEST)
    for period in next_day, next_month:
        parts = store.ledger.charges(since, cluster_id=cluster.id, now=LATEST, period=period)
        assert known(parts) == known(whole)
        assert lasted(parts, known=True) == lasted(whole, known=True)
        assert all(each.since + each.lasted <= period(each.since) for each in parts)
        assert (total(parts) is None) == (total(whole) is None)


@given(histories, moments)
def test_times_never_overlap_and_leave_no_gap(
    store: Store, entered: list[tuple[datetime, Decimal | None]], now: datetime
) -> None:
    rental = an_intent(store, a_cluster(store))
    enter(store, rental, *entered)
    with store.db.write() as db:
        found = spans_of(db, rental.token, Line.INSTANCE, clock.reading().moved(now))
    assert len(found) == len(entered)
    assert all(span.start <= span.end for span in found)
    assert all(before.end == after.start for before, after in itertools.pairwise(found))


@given(
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(0, 364),
    st.integers(1, 24 * 365),
)
def test_daylight_saving_makes_no_difference(store: Store, zone: str, number: int, hours: int) -> None:
    """A year holds both changes of the clocks; times in the zone are subtracted as its clocks show them."""
    cluster = a_cluster(store)
    begin = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    end = begin + timedelta(hours=hours)
    local, local_end = begin.astimezone(ZoneInfo(zone)), end.astimezone(ZoneInfo(zone))
    enter(store, an_intent(store, cluster), (local - timedelta(days=1), Decimal(2)))
    (found,) = store.ledger.charges(local, local_end, cluster_id=cluster.id, now=end + timedelta(days=1))
    assert found.usd == 2 * hours
    assert found.lasted == timedelta(hours=hours)
    assert found.since == begin


@dataclass(slots=True)
class Clocks:
    """The time of day, which somebody sets, and the count since the boot, which nobody can."""

    day: datetime = START
    count: int = 0

    def pass_by(self, time: timedelta) -> None:
        self.day += time
        self.count += time // timedelta(microseconds=1)


@contextmanager
def our_clocks() -> Iterator[Clocks]:
    clocks = Clocks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "utcnow", lambda: clocks.day)
        patch.setattr(clock, "ticks", lambda: clocks.count)
        patch.setattr(clock, "_boot", lambda: "one boot")
        yield clocks


jumps = st.integers(-(10**7), 10**7).filter(lambda seconds: abs(seconds) > 1)


@given(st.lists(st.tuples(prices, spans, jumps), min_size=1, max_size=5))
def test_who_sets_the_time_of_day_within_one_boot_changes_no_cost(
    store: Store, steps: list[tuple[Decimal, timedelta, int]]
) -> None:
    cluster = a_cluster(store)
    rental = an_intent(store, cluster)
    expected = Fraction(0)
    with our_clocks() as clocks:
        for price, time, jump in steps:
            enter(store, rental, (clocks.day, price))
            clocks.pass_by(time)
            clocks.day += timedelta(seconds=jump)
            expected += Fraction(price) * Fraction(time // timedelta(microseconds=1), 3_600_000_000)
        spent = store.ledger.cost(cluster.id)
    assert spent is not None
    assert abs(Fraction(spent) - expected) <= Fraction(MICRO)


def test_what_is_known_is_told_beside_what_is_not(store: Store) -> None:
    cluster = a_cluster(store)
    hour = timedelta(hours=1)
    enter(store, an_intent(store, cluster), (START, Decimal(5)), (START + hour, None))
    found = store.ledger.charges(cluster_id=cluster.id, now=START + 4 * hour)
    assert [(each.usd, each.lasted) for each in found] == [(5, hour), (None, 3 * hour)]
    assert total(found) is None


def test_what_stands_still_is_no_charge(store: Store) -> None:
    cluster = a_cluster(store)
    hour = timedelta(hours=1)
    enter(store, an_intent(store, cluster), (START, Decimal(5)), (START + hour, Decimal(0)))
    later = START + timedelta(days=400)
    assert store.ledger.charges(START + hour, cluster_id=cluster.id, now=later) == []
    days = store.ledger.charges(cluster_id=cluster.id, now=later, period=next_day)
    assert [(each.since, each.usd) for each in days] == [(START, Decimal(5))]
