"""A search with a memory: who is asked, who is remembered, and what is never shown as had."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.catalog.cache import Cache, SourceKind
from gpucloud.catalog.history import History
from gpucloud.errors import BadReply, RateLimited, Unreachable
from gpucloud.market import Search, Terms, grouped, ordered, search
from gpucloud.model import Gpu, Market, Offer, Requirements, utcnow
from tests.harness.adapters import an_offer, failing, stated

LONG = 30.0
ANYTHING = Requirements(markets=())
HOUR = timedelta(hours=1)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "market.db") as cache:
        yield cache


def an(name: str, **changes: Any) -> Offer:
    return an_offer(provider=name, as_of=utcnow().replace(microsecond=0), **changes)


def terms(**changes: Any) -> Terms:
    return Terms(LONG, **changes)


def providers_of(offers: Iterable[Offer]) -> list[str]:
    return sorted(offer.provider for offer in offers)


def test_a_provider_that_told_everything_a_moment_ago_is_not_asked_again(cache: Cache) -> None:
    asked = []

    def answer() -> list[Offer]:
        asked.append(1)
        return [an("acme")]

    for _ in range(3):
        found = search([stated("acme", answer)], ANYTHING, terms(max_age=HOUR), cache)
        assert providers_of(found.offers) == ["acme"]
    assert len(asked) == 1
    search([stated("acme", answer)], ANYTHING, terms(), cache)
    assert len(asked) == 2


def test_an_answer_to_a_narrow_question_does_not_save_the_next_one(cache: Cache) -> None:
    answers = iter([[an("acme")], [an("acme"), an("acme", instance_type="spot", market=Market.SPOT)]])
    provider = stated("acme", lambda: next(answers))
    assert len(search([provider], Requirements(), terms(max_age=HOUR), cache).offers) == 1
    assert len(search([provider], ANYTHING, terms(max_age=HOUR), cache).offers) == 2


def test_nobody_is_asked_offline(cache: Cache) -> None:
    def never() -> list[Offer]:
        raise AssertionError("it was asked")

    cache.put("acme", [an("acme")], name="api", at=utcnow() - HOUR)
    everyone = frozenset({"acme", "new"})
    found = search(
        [stated("acme", never), stated("new", never)],
        ANYTHING,
        terms(max_age=None, stand_ins=everyone),
        cache,
    )
    assert providers_of(found.offers) == ["acme"]
    assert found.failures == ()


@pytest.mark.parametrize("stand_ins", [frozenset(), frozenset({"acme"})])
def test_what_is_remembered_stands_in_for_who_fails_only_where_that_is_wanted(
    cache: Cache, stand_ins: frozenset[str]
) -> None:
    cache.put("acme", [an("acme")], name="api", at=utcnow() - HOUR)
    down = stated("acme", failing(Unreachable("acme: it is down", provider="acme")))
    up = stated("good", lambda: [an("good")])
    found = search([down, up], ANYTHING, terms(stand_ins=stand_ins), cache)
    assert providers_of(found.offers) == sorted({"good", *stand_ins})
    assert [failure.provider for failure in found.failures] == ["acme"]


def test_listed_prices_are_shown_only_of_providers_of_whom_nothing_better_is_known(cache: Cache) -> None:
    for name in ("acme", "new"):
        listed = an(name, instance_type="listed", confidence="A")
        cache.put(name, [listed], name="page", kind=SourceKind.LISTED, at=utcnow())
    both = frozenset({"acme", "new"})
    found = search([stated("acme", lambda: [an("acme")])], ANYTHING, terms(stand_ins=both), cache)
    assert sorted((offer.provider, offer.confidence) for offer in found.offers) == [
        ("acme", "live"),
        ("new", "A"),
    ]
    alone = search([stated("acme", lambda: [an("acme")])], ANYTHING, terms(), cache)
    assert providers_of(alone.offers) == ["acme"]


@pytest.mark.parametrize(
    "garbage", [{"vcpus": 10**30}, {"region": "\ud800"}, {"memory_gib": Decimal("Infinity")}]
)
def test_an_answer_that_cannot_be_kept_is_a_failure_of_its_provider(
    cache: Cache, garbage: dict[str, Any]
) -> None:
    bad = stated("bad", lambda: [an("bad"), an("bad", instance_type="worse", **garbage)])
    found = search([bad, stated("good", lambda: [an("good")])], ANYTHING, terms(), cache)
    assert providers_of(found.offers) == ["good"]
    (failure,) = found.failures
    assert (failure.provider, failure.code) == ("bad", "bug")


def test_four_troubles_at_once_leave_the_rest_and_are_four_failures(cache: Cache) -> None:
    release = threading.Event()

    def hang() -> list[Offer]:
        release.wait(60)
        return []

    troubled = [
        stated("garbled", failing(BadReply("garbled: no JSON", provider="garbled"))),
        stated("hanging", hang),
        stated("busy", failing(RateLimited("busy: asked too often", provider="busy"))),
        stated("broken", failing(Unreachable("broken: HTTP 500", provider="broken"))),
    ]
    try:
        good = stated("good", lambda: [an("good")])
        found = search([*troubled, good], ANYTHING, Terms(0.5), cache)
    finally:
        release.set()
    assert providers_of(found.offers) == ["good"]
    assert {(failure.provider, failure.code) for failure in found.failures} == {
        ("garbled", "bad-reply"),
        ("hanging", "timeout"),
        ("busy", "rate-limited"),
        ("broken", "unreachable"),
    }


def test_what_is_there_is_told_before_the_last_one_answers(cache: Cache) -> None:
    told, cheap = threading.Event(), an("slow", instance_type="new", usd_per_hour=Decimal("0.5"))

    def wait() -> list[Offer]:
        assert told.wait(LONG)
        return [cheap]

    cache.put("slow", [an("slow", instance_type="old")], name="api", at=utcnow() - HOUR)
    slow, quick = stated("slow", wait), stated("quick", lambda: [an("quick")])
    found = Search([slow, quick], ANYTHING, terms(stand_ins=frozenset({"slow"})), cache).results(
        every_answer=True
    )
    first = next(found)
    assert [(offer.provider, offer.instance_type) for offer in first.offers] == [
        ("quick", "big"),
        ("slow", "old"),
    ]
    told.set()
    *_, last = found
    assert [(offer.provider, offer.usd_per_hour) for offer in last.offers] == [
        ("slow", cheap.usd_per_hour),
        ("quick", 1),
    ]


def test_nothing_is_remembered_before_there_is_time_for_it(cache: Cache) -> None:
    one = Search([stated("acme", lambda: [an("acme")])], ANYTHING, terms(), cache)
    assert [found.offers for found in one.results()]
    assert cache.count() == 0
    one.remember()
    assert cache.count() == 1


def test_a_history_that_is_damaged_keeps_no_answer_from_being_remembered(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "history.db").write_bytes(b"no database at all" * 100)
    both = [stated(name, lambda name=name: [an(name)]) for name in ("acme", "other")]  # type: ignore[misc]
    one = Search(both, ANYTHING, terms(), cache, History(tmp_path / "history.db"))
    (found,) = one.results()
    one.remember()
    assert providers_of(found.offers) == providers_of(cache.select()) == ["acme", "other"]
    assert "no quote is kept" in caplog.text


def test_a_memory_that_is_full_keeps_nobody_from_searching(tmp_path: Path) -> None:
    with Cache(tmp_path / "market.db") as cache:
        cache._db.execute("PRAGMA max_page_count = 1")
        listed = [an("acme", instance_type=str(number), ref="x" * 500) for number in range(200)]
        found = search([stated("acme", lambda: listed)], ANYTHING, terms(), cache)
    assert len(found.offers) == 200


def test_a_limit_tells_that_there_are_more(cache: Cache) -> None:
    listed = [an("acme", instance_type=str(number), usd_per_hour=Decimal(number)) for number in range(5)]
    found = search([stated("acme", lambda: listed)], ANYTHING, terms(limit=2), cache)
    assert ([offer.instance_type for offer in found.offers], found.more) == (["0", "1"], True)


def test_of_a_group_the_best_is_told(cache: Cache) -> None:
    listed = [
        an("acme", instance_type=f"{chip}-{price}", gpu=Gpu(chip), gpu_count=1, usd_per_hour=Decimal(price))
        for chip, price in [("H100", 3), ("H100", 2), ("A100", 1), ("A100", 4)]
    ]
    found = search([stated("acme", lambda: listed)], ANYTHING, terms(group=grouped("gpu"), limit=1), cache)
    assert ([offer.instance_type for offer in found.offers], found.more) == (["A100-1"], True)


def test_value_is_the_price_of_computing_and_unknown_comes_last(cache: Cache) -> None:
    listed = [
        an("acme", instance_type="h100", gpu=Gpu("H100", 80, "SXM"), gpu_count=1, usd_per_hour=Decimal(3)),
        an("acme", instance_type="v100", gpu=Gpu("A100", 80, "SXM"), gpu_count=1, usd_per_hour=Decimal(2)),
        an("acme", instance_type="cpu", usd_per_hour=Decimal("0.01")),
    ]
    found = search([stated("acme", lambda: listed)], ANYTHING, terms(order=ordered("value")), cache)
    assert [offer.instance_type for offer in found.offers] == ["h100", "v100", "cpu"]
