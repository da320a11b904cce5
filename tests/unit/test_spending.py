"""What was spent, grouped by what a person asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.model import ClusterState, Gpu, InstanceRef, Labels
from gpucloud.store import Store
from gpucloud.store.ledger import Charge, Line, meter
from gpucloud.store.spending import (
    KEYS,
    Origin,
    Spending,
    grouped,
    next_day,
    next_month,
    together,
)
from tests.harness.books import START, a_rental, an_instance, opened

HOUR = timedelta(hours=1)

names = st.sampled_from(["a", "b", "c"])
unsaid = st.one_of(st.none(), names)
origins = st.builds(
    Origin,
    cluster=names,
    provider=names,
    market=names,
    region=unsaid,
    gpu=unsaid,
    instance_id=unsaid,
    project=unsaid,
    user=unsaid,
    tags=st.dictionaries(names, names, max_size=2),
)
books = st.dictionaries(st.sampled_from(["gc-1", "gc-2", "gc-3", "gc-4"]), origins, min_size=4)
amounts = st.integers(0, 10**12).map(lambda micros: Decimal(micros) / 10**6)
charges = st.lists(
    st.builds(
        Charge,
        token=st.sampled_from(["gc-1", "gc-2", "gc-3", "gc-4"]),
        cluster_id=st.just(1),
        line=st.sampled_from(Line),
        lasted=st.integers(0, 10**12).map(lambda number: timedelta(microseconds=number)),
        usd=st.one_of(st.none(), amounts),
        since=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    ),
    max_size=12,
)
all_keys = st.lists(st.sampled_from([*KEYS, "tag:a", "tag:b"]), max_size=3, unique=True)


@given(charges, books, all_keys)
def test_the_sum_over_every_grouping_is_the_total(
    spent: list[Charge], rented: dict[str, Origin], keys: list[str]
) -> None:
    groups = grouped(spent, rented, keys)
    whole = together(groups)
    assert whole.at_least == sum((each.usd for each in spent if each.usd is not None), Decimal(0))
    assert whole.lasted == sum((each.lasted for each in spent if each.line is Line.INSTANCE), timedelta())
    assert (whole.total is None) == any(each.usd is None for each in spent)
    for line in Line:
        of_line = [each.usd for each in spent if each.line is line]
        assert whole.of(line) == (
            None if None in of_line else sum((usd for usd in of_line if usd is not None), Decimal(0))
        )
    assert len({group.keys for group in groups}) == len(groups)
    assert all(len(group.keys) == len(keys) for group in groups)


@given(charges, books, all_keys)
def test_times_follow_on_each_other_and_else_the_most_comes_first(
    spent: list[Charge], rented: dict[str, Origin], keys: list[str]
) -> None:
    groups = grouped(spent, rented, keys)
    if {"day", "month"} & set(keys):
        shown = [tuple(key or "~" for key in group.keys) for group in groups]
        assert shown == sorted(shown)
    else:
        assert [g.at_least for g in groups] == sorted((g.at_least for g in groups), reverse=True)


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 11, 30), timezones=st.just(UTC)))
def test_a_period_ends_later_at_a_midnight_within_its_length(at: datetime) -> None:
    for end, longest in (next_day(at), 1), (next_month(at), 31):
        assert timedelta(0) < end - at <= timedelta(days=longest)
        assert (end.hour, end.minute, end.second, end.microsecond) == (0, 0, 0, 0)
    last = next_month(at) - timedelta(microseconds=1)
    assert next_month(at).day == 1
    assert (last.year, last.month) == (at.year, at.month)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Three clusters with a node each for two hours at $3.60, from an hour before a month ends."""
    with opened(tmp_path) as store:
        begin = datetime(2026, 1, 31, 23, tzinfo=UTC)
        for number, (name, labels) in enumerate(
            {
                "train-1": Labels("vision", "ann", {"team": "blue"}),
                "train-2": Labels("vision", "bob"),
                "eval": Labels(),
            }.items()
        ):
            cluster = store.clusters.create(name, 1, ephemeral=False, labels=labels)
            gpu = Gpu("H100", 80, "SXM") if number else None
            rental = a_rental(cluster, f"gc-{number}", gpu=gpu, region="us-east", intended_at=begin)
            store.journal.intend(rental)
            store.journal.accept(
                rental.token,
                an_instance(rental.token, ref=InstanceRef(f"i-{number}"), created_at=begin),
            )
            with store.db.write() as db:
                meter(db, rental, begin + 2 * HOUR, running=False)
        yield store


def amounts_by(
    store: Store, *keys: str, since: datetime | None = None, patterns: Sequence[str] = ()
) -> dict[tuple[str | None, ...], Decimal]:
    groups = Spending(store.db, store.ledger).by(keys, since, patterns=patterns)
    return {group.keys: group.at_least for group in groups}


def test_rentals_are_known_by_what_was_rented_and_for_whom(store: Store) -> None:
    one = Decimal("7.20")
    assert amounts_by(store, "project") == {("vision",): 2 * one, (None,): one}
    assert amounts_by(store, "user", "tag:team") == {
        ("ann", "blue"): one,
        ("bob", None): one,
        (None, None): one,
    }
    assert amounts_by(store, "gpu") == {("H100-SXM-80",): 2 * one, (None,): one}
    assert amounts_by(store, "provider", "market", "region", "line") == {
        ("acme", "spot", "us-east", "instance"): 3 * one
    }
    assert amounts_by(store, "instance_id") == {("i-0",): one, ("i-1",): one, ("i-2",): one}


def test_what_runs_over_midnight_is_cut_there(store: Store) -> None:
    half = Decimal("3.60") * 3
    assert amounts_by(store, "day") == {("2026-01-31",): half, ("2026-02-01",): half}
    assert amounts_by(store, "month") == {("2026-01",): half, ("2026-02",): half}
    assert amounts_by(store, "month", "day") == {
        ("2026-01", "2026-01-31"): half,
        ("2026-02", "2026-02-01"): half,
    }
    assert amounts_by(store, "month", since=datetime(2026, 2, 1, tzinfo=UTC)) == {("2026-02",): half}


def test_clusters_are_picked_by_name_or_pattern(store: Store) -> None:
    assert set(amounts_by(store, "cluster", patterns=["train-*"])) == {("train-1",), ("train-2",)}
    assert set(amounts_by(store, "cluster", patterns=["eval", "*-2"])) == {("train-2",), ("eval",)}
    assert amounts_by(store, "cluster", patterns=["train"]) == {}
    assert Spending(store.db, store.ledger).clusters() == ["eval", "train-1", "train-2"]


def test_a_name_that_was_used_twice_is_one_line(store: Store) -> None:
    first = store.clusters.get("eval")
    assert first is not None
    store.clusters.update(first.id, ClusterState.ENDED)
    again = store.clusters.create("eval", 1, ephemeral=False)
    rental = a_rental(again, "gc-again")
    store.journal.intend(rental)
    with store.db.write() as db:
        meter(db, rental, START, running=True)
        meter(db, rental, START + HOUR, running=False)
    assert amounts_by(store, "cluster", patterns=["eval"]) == {("eval",): Decimal("10.80")}


def test_what_is_not_known_leaves_what_is(store: Store) -> None:
    with store.db.write() as db:
        meter(db, a_rental(store.clusters.by_id(3), "gc-2", usd_per_hour=None), START, running=True)
    groups = {group.keys: group for group in Spending(store.db, store.ledger).by(["cluster"])}
    assert groups[("eval",)].of(Line.INSTANCE) is groups[("eval",)].total is None
    assert groups[("eval",)].at_least == Decimal("7.20")
    assert groups[("eval",)].of(Line.DISK) == 0
    assert groups[("train-1",)].total == Decimal("7.20")
