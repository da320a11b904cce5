"""The price history: changes only, bounded, and read by many at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.catalog import history as module
from gpucloud.catalog.history import History
from gpucloud.errors import StoreError, Unreachable
from gpucloud.market.past import take_over
from gpucloud.market.trend import Trend, trends
from gpucloud.model import Availability, Failure, Gpu, GpuWish, Market, Offer
from tests.harness.adapters import an_offer

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
H100 = Gpu("H100", 80, "SXM")


def sold(price: str = "2", **changes: Any) -> Offer:
    return an_offer(**{"gpu": H100, "gpu_count": 1, "usd_per_hour": Decimal(price), **changes})


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    kept = History(tmp_path / "history.db")
    yield kept
    kept.close()


def quotes(history: History, since: datetime = NOON) -> list[list[tuple[int, str, str]]]:
    """Of every line its quotes: hours since noon, price, availability."""
    return [
        [(int((q.at - NOON) / HOUR), str(q.usd_per_hour), q.availability) for q in line.quotes]
        for line in history.lines(since)
    ]


def test_only_changes_are_kept(history: History) -> None:
    for hour, (price, availability) in enumerate(
        [
            ("2", Availability.AVAILABLE),
            ("2", Availability.AVAILABLE),
            ("3", Availability.AVAILABLE),
            ("3", Availability.LIMITED),
            ("3", Availability.LIMITED),
            ("2", Availability.AVAILABLE),
        ]
    ):
        history.note([sold(price, availability=availability)], NOON + hour * HOUR)
    assert quotes(history) == [
        [(0, "2", "available"), (2, "3", "available"), (3, "3", "limited"), (5, "2", "available")]
    ]
    (line,) = history.lines(NOON)
    assert line.seen_at == NOON + 5 * HOUR


def test_what_did_not_change_writes_nothing_for_a_while(tmp_path: Path, history: History) -> None:
    history.note([sold()], NOON)
    with sqlite3.connect(tmp_path / "history.db") as other:
        before = other.execute("PRAGMA data_version").fetchone()
        history.note([sold()], NOON + timedelta(minutes=9))
        assert other.execute("PRAGMA data_version").fetchone() == before
        history.note([sold()], NOON + timedelta(minutes=10))
        assert other.execute("PRAGMA data_version").fetchone() != before
    other.close()
    (line,) = history.lines(NOON)
    assert line.seen_at == NOON + timedelta(minutes=10)


def test_how_many_quotes_are_new_is_told(history: History) -> None:
    assert history.note([sold(), sold(instance_type="other")], NOON) == 2
    assert history.note([sold(), sold("3", instance_type="other")], NOON + HOUR) == 1


def test_of_several_hosts_of_one_line_the_cheapest_counts(history: History) -> None:
    history.note([sold("3", ref="a"), sold("2", ref="b"), sold("4", ref="c")], NOON)
    assert quotes(history) == [[(0, "2", "unknown")]]


def test_what_differs_in_place_market_type_or_gpus_is_another_line(history: History) -> None:
    others: list[dict[str, Any]] = [
        {"region": "eu"},
        {"zone": "us-east-1"},
        {"market": Market.SPOT},
        {"instance_type": "other"},
        {"gpu": Gpu("A100", 80)},
        {"gpu_count": 8},
        {"provider": "other"},
    ]
    history.note([sold(), *(sold(**other) for other in others)], NOON)
    assert len(history.lines(NOON)) == len(others) + 1


def test_an_offer_without_a_gpu_is_not_kept(history: History) -> None:
    assert history.note([an_offer()], NOON) == 0


def test_lines_are_found_by_gpu_provider_and_market(history: History) -> None:
    history.note([sold(), sold(market=Market.SPOT), sold(provider="other")], NOON)
    history.note([an_offer(gpu=Gpu("A100", 80), gpu_count=8)], NOON)

    def found(wish: str = "", **settings: Any) -> int:
        return len(history.lines(NOON, (GpuWish.parse(wish),) if wish else (), **settings))

    assert (found(), found("H100"), found("H100-SXM-80"), found("A100"), found("24GB+")) == (4, 3, 3, 1, 4)
    assert (found("A100:8"), found("H100:8"), found("B200")) == (1, 0, 0)
    assert (found(providers=["other"]), found(markets=[Market.SPOT])) == (1, 1)


def test_what_held_when_the_time_begins_is_told_with_what_came_later(history: History) -> None:
    for hour, price in enumerate(["1", "2", "3"]):
        history.note([sold(price)], NOON + hour * HOUR)
    assert quotes(history, NOON + 1.5 * HOUR) == [[(1, "2", "unknown"), (2, "3", "unknown")]]
    assert quotes(history, NOON + 3 * HOUR) == []


def test_what_was_replaced_before_a_day_is_forgotten_and_what_still_held_is_kept(history: History) -> None:
    for hour, price in enumerate(["1", "2", "3"]):
        history.note(
            [sold(price), *([sold("9", instance_type="gone")] if not hour else [])], NOON + hour * HOUR
        )
    assert history.prune(NOON + 1.5 * HOUR) == 2
    assert quotes(history) == [[(1, "2", "unknown"), (2, "3", "unknown")]]
    assert history.prune(NOON + 1.5 * HOUR) == 0


def test_the_file_does_not_grow_without_bound(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    for hour in range(2_000):
        offers = [sold(str(1 + hour % 2), instance_type=f"type-{number}") for number in range(10)]
        history.note(offers, NOON + hour * HOUR)
    lines = history.lines(NOON)
    assert len(lines) == 10
    assert sum(len(line.quotes) for line in lines) < 10_000
    assert lines[0].quotes[-1].at == NOON + 1_999 * HOUR


def test_a_newer_file_is_refused_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    file = tmp_path / "history.db"
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer"):
        History(file).lines(NOON)
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="cannot be used") as caught:
        History(file).note([sold()], NOON)
    assert str(file) in caught.value.hint


def test_two_that_have_it_open_see_what_the_other_wrote(tmp_path: Path) -> None:
    one, other = History(tmp_path / "history.db"), History(tmp_path / "history.db")
    one.note([sold("1")], NOON)
    assert other.note([sold("1")], NOON + HOUR) == 0
    assert other.note([sold("2")], NOON + 2 * HOUR) == 1
    assert quotes(one) == [[(0, "1", "unknown"), (2, "2", "unknown")]]
    one.close()
    other.close()


def test_a_failed_note_leaves_nothing(history: History) -> None:
    history.note([sold("1")], NOON)
    with pytest.raises((StoreError, OverflowError)):
        history.note([sold("2"), sold("1" + "0" * 30, instance_type="huge")], NOON + HOUR)
    assert quotes(history) == [[(0, "1", "unknown")]]
    assert history.note([sold("2")], NOON + HOUR) == 1


def trend(history: History, pieces: int, hours: int) -> list[Trend]:
    end = NOON + hours * HOUR
    return trends(history.lines(NOON), NOON, end, pieces)


def test_a_trend_is_the_cheapest_gpu_hour_of_each_piece_of_time(history: History) -> None:
    history.note([sold("4"), sold("16", gpu_count=8, instance_type="eight")], NOON)
    history.note([sold("1")], NOON + 2 * HOUR)
    history.note([sold("1")], NOON + 3 * HOUR)
    (one,) = trend(history, pieces=5, hours=5)
    assert (one.provider, one.market, str(one.gpu)) == ("acme", "on-demand", "H100-SXM-80")
    assert one.prices == (*map(Decimal, (2, 4, 1, 1)), None)


def test_what_cannot_be_had_is_no_price(history: History) -> None:
    history.note([sold("1", availability=Availability.UNAVAILABLE)], NOON)
    history.note([sold("1", availability=Availability.UNAVAILABLE)], NOON + HOUR)
    assert trend(history, pieces=2, hours=2) == []


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=20), st.integers(1, 10)
)
def test_every_price_of_a_trend_was_seen(
    tmp_path_factory: pytest.TempPathFactory, seen: list[tuple[int, int]], pieces: int
) -> None:
    kept = History(tmp_path_factory.mktemp("history") / "history.db")
    for hour, price in sorted(seen):
        kept.note([sold(str(price))], NOON + hour * HOUR)
    found = trend(kept, pieces, 31)
    kept.close()
    (one,) = found
    assert set(one.known) <= {price for _, price in seen}
    last = max(hour for hour, _ in seen)
    assert one.prices[min(int(last * pieces / 31), pieces - 1)] is not None


def past(price: str, hour: int, **changes: Any) -> Offer:
    return sold(price, as_of=NOON + hour * HOUR, market=Market.SPOT, confidence="history", **changes)


def test_what_somebody_else_has_seen_is_taken_over_at_its_own_moments(history: History) -> None:
    told = [past("3", 5), past("1", 0), past("2", 2), past("9", 1, instance_type="other")]
    assert history.add(told, NOON + 6 * HOUR) == 4
    assert history.add(told, NOON + 6 * HOUR) == 0
    assert quotes(history) == [
        [(0, "1", "unknown"), (2, "2", "unknown"), (5, "3", "unknown")],
        [(1, "9", "unknown")],
    ]
    # Both held until they were told.
    assert {line.seen_at for line in history.lines(NOON + 6 * HOUR)} == {NOON + 6 * HOUR}
    assert len(history.lines(NOON + 6 * HOUR)) == 2


def test_past_prices_do_not_replace_what_was_seen_later(history: History) -> None:
    history.note([past("7", 0)], NOON + 10 * HOUR)
    history.add([past("1", 0), past("2", 2)], NOON + 3 * HOUR)
    assert quotes(history) == [[(0, "1", "unknown"), (2, "2", "unknown"), (10, "7", "unknown")]]
    assert history.note([past("7", 0)], NOON + 11 * HOUR) == 0
    (line,) = history.lines(NOON)
    assert line.seen_at == NOON + 11 * HOUR


def test_of_several_past_prices_of_one_moment_the_least_counts(history: History) -> None:
    assert history.add([past("3", 0), past("2", 0), past("4", 0)], NOON) == 1
    assert quotes(history) == [[(0, "2", "unknown")]]


class Teller:
    """Tells these past offers, or raises."""

    def __init__(self, *told: Offer, error: Exception | None = None) -> None:
        self.told, self.error = told, error

    def spot_history(self, since: datetime, regions: Sequence[str]) -> Iterator[Offer]:
        yield from (offer for offer in self.told if offer.as_of >= since)
        if self.error:
            raise self.error


def test_a_provider_that_cannot_tell_hides_no_other_and_leaves_nothing(history: History) -> None:
    tellers = {
        "bad": Teller(past("1", 1, provider="bad"), error=Unreachable("bad: it is down", provider="bad")),
        "good": Teller(past("1", 1, provider="good"), past("2", 0, provider="good")),
        "huge": Teller(past("1" + "0" * 30, 1, provider="huge")),
    }
    told = dict(take_over(tellers, NOON + HOUR, (), history))
    assert told["good"] == 1
    assert isinstance(told["bad"], Failure)
    assert isinstance(told["huge"], Failure)
    assert [line.provider for line in history.lines(NOON)] == ["good"]
