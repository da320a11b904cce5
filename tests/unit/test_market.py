"""Asking every provider at once: nobody hides anybody, filters only take away, and the order is fixed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud import errors
from gpucloud.market import SearchResult, Terms, ask_all, list_instances, search, to_failure
from gpucloud.model import (
    Availability,
    Failure,
    Gpu,
    GpuWish,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
)
from tests.harness.adapters import an_offer, failing, stated

LONG = 30.0
"""A deadline that a provider which answers does not miss, in seconds."""

PROVIDER_ERRORS = (
    errors.AuthError,
    errors.NoCapacity,
    errors.QuotaExceeded,
    errors.RateLimited,
    errors.NotFound,
    errors.Unsupported,
    errors.Rejected,
    errors.BalanceExhausted,
    errors.Unreachable,
    errors.BadReply,
    errors.ProviderError,
)
ANYTHING = Requirements(markets=())


def answered(offers: Iterable[Offer], wanted: Requirements = ANYTHING) -> SearchResult:
    """What a search finds at a provider that answers with these."""
    return search([stated("acme", lambda: offers)], wanted, Terms(LONG))


def reason(offer: Offer, wanted: Requirements) -> str | None:
    """Which filter removes an offer."""
    return next(iter(answered([offer], wanted).removed), None)


def ids(offers: Iterable[Offer]) -> list[str]:
    """The offers as a search ranks them."""
    return [offer.id for offer in answered(offers).offers]


def good(price: str = "1") -> Any:
    return stated("good", lambda: [an_offer(provider="good", usd_per_hour=Decimal(price))])


@pytest.mark.parametrize("kind", PROVIDER_ERRORS)
def test_what_a_provider_raises_is_told_and_the_others_are_answered(kind: type[errors.ProviderError]) -> None:
    error = kind("bad: it said no", provider="bad")
    found = search([stated("bad", failing(error)), good()], ANYTHING, Terms(LONG))
    assert [offer.provider for offer in found.offers] == ["good"]
    assert found.failures == (Failure("bad", kind.code, "it said no", kind.retryable),)


def test_the_reason_of_an_error_is_told_with_it() -> None:
    error = errors.ConfigError("bad: the setting is wrong", why="it is no number", hint="vi")
    assert to_failure("bad", error) == Failure(
        "bad", "config", "the setting is wrong (it is no number)", False
    )


@pytest.mark.parametrize(
    "bug",
    [KeyError("price"), ZeroDivisionError("0"), SystemExit(1), AssertionError(), RecursionError("deep")],
)
def test_a_bug_of_one_provider_is_told_as_such_and_the_others_are_answered(bug: BaseException) -> None:
    found = search([stated("bad", failing(bug)), good()], ANYTHING, Terms(LONG))
    assert [offer.provider for offer in found.offers] == ["good"]
    assert found.failures == (Failure("bad", "bug", f"{type(bug).__name__}: {bug}", False),)


def half_an_answer() -> Iterator[Offer]:
    yield an_offer(provider="bad")
    raise errors.BadReply("bad: page 2 makes no sense", provider="bad")


GARBAGE: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "a number": lambda: 3,
    "texts": lambda: ["offer"],
    "a dictionary": lambda: {"offers": []},
    "an instance": lambda: [Instance("bad", InstanceRef("i-1"), InstanceState.RUNNING)],
    "a hole in the list": lambda: [an_offer(provider="bad"), None],
    "half an answer": half_an_answer,
    "a price that is no number": lambda: [an_offer(provider="bad", usd_per_hour=Decimal("NaN"))],
    "a price as text": lambda: [an_offer(provider="bad", usd_per_hour="1")],
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_garbage_from_one_provider_is_its_failure_and_the_others_are_answered(
    answer: Callable[[], Iterable[Offer]],
) -> None:
    found = search([stated("bad", answer), good()], ANYTHING, Terms(LONG))
    assert [offer.provider for offer in found.offers] == ["good"]
    assert [failure.provider for failure in found.failures] == ["bad"]


@pytest.mark.parametrize("answer", [lambda: None, lambda: ["i-1"], lambda: [an_offer()]])
def test_a_garbage_listing_is_a_failure_because_silence_is_not_absence(answer: Callable[[], Any]) -> None:
    mine = Instance("good", InstanceRef("i-1"), InstanceState.RUNNING)
    providers = [stated("bad", instances=answer), stated("good", instances=lambda: [mine])]
    listed, failures = list_instances(providers, LONG)
    assert listed == {"good": [mine]}
    assert [failure.provider for failure in failures] == ["bad"]


def test_an_empty_listing_is_an_answer() -> None:
    assert list_instances([stated("good")], LONG) == ({"good": []}, [])


def test_a_provider_that_hangs_is_left_behind_at_the_deadline() -> None:
    release = threading.Event()

    def hang() -> Iterable[Offer]:
        release.wait(60)
        return ()

    try:
        found = search([stated("slow", hang), good()], ANYTHING, Terms(0.3))
        assert [offer.provider for offer in found.offers] == ["good"]
        assert found.failures == (Failure("slow", "timeout", "no answer within 0.3 s", True),)
        threads = {thread for thread in threading.enumerate() if thread.name.startswith("Thread-")}
        assert threads and all(thread.daemon for thread in threads)
    finally:
        release.set()


def test_all_providers_are_asked_at_the_same_time() -> None:
    meeting = threading.Barrier(5)

    def meet() -> Iterable[Offer]:
        meeting.wait(LONG)
        return [an_offer()]

    found = search([stated(f"p{number}", meet) for number in range(5)], ANYTHING, Terms(2 * LONG))
    assert (len(found.offers), found.failures) == (5, ())


def test_a_provider_that_is_named_twice_is_told_of_once() -> None:
    bad = stated("bad", failing(errors.AuthError("no", provider="bad")))
    assert len(search([bad, bad], ANYTHING, Terms(LONG)).failures) == 1
    assert len(search([good(), good()], ANYTHING, Terms(LONG)).offers) == 1


def test_the_failures_are_told_in_the_order_in_which_the_providers_were_named() -> None:
    names = ["zeta", "alpha", "mid"]
    bad = [stated(name, failing(errors.AuthError("no", provider=name))) for name in names]
    _, failures = ask_all(bad, lambda provider: list(provider.offers(ANYTHING)), LONG)
    assert [failure.provider for failure in failures] == names


def test_no_provider_is_no_answer() -> None:
    found = search([], ANYTHING, Terms(LONG))
    assert (found.offers, found.failures, found.removed, found.gpus) == ((), (), Counter(), frozenset())


def test_a_search_tells_what_was_removed_and_every_gpu_there_was() -> None:
    offers = [
        an_offer(instance_type="a", gpu=Gpu("H100", 80), gpu_count=1),
        an_offer(instance_type="b", gpu=Gpu("A100", 40), gpu_count=1),
        an_offer(instance_type="c"),
        an_offer(instance_type="d", gpu=Gpu("H100", 80), gpu_count=1, usd_per_hour=Decimal(9)),
        an_offer(instance_type="e", gpu=Gpu("H100", 80), gpu_count=1, market=Market.SPOT),
    ]
    wanted = Requirements(gpus=(GpuWish.parse("H100"),), max_usd_per_hour=Decimal(2))
    assert [offer.instance_type for offer in answered(offers, wanted).offers] == ["a"]
    found = answered(offers[1:], wanted)
    assert found.offers == ()
    assert found.removed == {"gpu": 2, "price": 1, "market": 1}
    assert found.gpus == {"H100-80", "A100-40"}


FULL = an_offer(
    gpu=Gpu("H100", 80, "SXM"),
    gpu_count=8,
    zone="us-east-1a",
    vcpus=96,
    memory_gib=Decimal(512),
    disk_gib=Decimal(1000),
    usd_per_hour=Decimal("31.92"),
)
EXACT = Requirements(
    gpus=(GpuWish.parse("H100-SXM-80:8"),),
    markets=(Market.ON_DEMAND,),
    regions=("us-east",),
    instance_types=("big",),
    max_usd_per_hour=Decimal("31.92"),
    min_vcpus=96,
    min_memory_gib=512,
    min_disk_gib=1000,
)


def test_an_offer_that_just_meets_everything_fits() -> None:
    assert reason(FULL, EXACT) is None
    assert reason(FULL, ANYTHING) is None
    assert reason(FULL, replace(EXACT, regions=("us-east-1a",))) is None
    assert reason(FULL, replace(EXACT, gpus=(GpuWish.parse("A100"), GpuWish.parse("24GB+:8")))) is None


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ({"gpu": Gpu("A100", 80, "SXM")}, "gpu"),
        ({"gpu_count": 4}, "gpu"),
        ({"gpu": None, "gpu_count": 0}, "gpu"),
        ({"market": Market.SPOT}, "market"),
        ({"region": "eu", "zone": "eu-1"}, "region"),
        ({"region": None, "zone": None}, "region"),
        ({"instance_type": "small"}, "instance type"),
        ({"vcpus": 95}, "vcpus"),
        ({"memory_gib": Decimal("511.9")}, "memory"),
        ({"disk_gib": Decimal("999.9")}, "disk"),
        ({"usd_per_hour": Decimal("31.920001")}, "price"),
    ],
)
def test_what_an_offer_lacks_is_the_reason(change: dict[str, Any], lack: str) -> None:
    assert reason(replace(FULL, **change), EXACT) == lack


@pytest.mark.parametrize(
    ("unknown", "lack"), [("vcpus", "vcpus"), ("memory_gib", "memory"), ("disk_gib", "disk")]
)
def test_what_is_unknown_meets_no_minimum_not_even_zero(unknown: str, lack: str) -> None:
    change: dict[str, Any] = {unknown: None}
    zero: dict[str, Any] = {f"min_{unknown}": 0}
    offer = replace(FULL, **change)
    assert reason(offer, EXACT) == lack
    assert reason(offer, Requirements(**zero)) == lack
    assert reason(offer, Requirements()) is None


def test_the_price_is_the_last_reason_so_that_it_is_told_only_when_nothing_else_is_wrong() -> None:
    assert reason(replace(FULL, usd_per_hour=Decimal(99), vcpus=1), EXACT) == "vcpus"


chips = st.sampled_from([None, Gpu("H100"), Gpu("H100", 80, "SXM"), Gpu("H100", 94, "NVL"), Gpu("A100", 40)])
numbers = st.none() | st.integers(0, 4)
offers = st.builds(
    an_offer,
    instance_type=st.sampled_from(["big", "small"]),
    market=st.sampled_from(Market),
    usd_per_hour=st.integers(0, 3).map(Decimal),
    gpu=chips,
    gpu_count=st.integers(0, 2),
    region=st.sampled_from([None, "eu", "us"]),
    zone=st.sampled_from([None, "eu-1", "us-1"]),
    availability=st.sampled_from(Availability),
    vcpus=numbers,
    memory_gib=numbers.map(lambda size: None if size is None else Decimal(size)),
    disk_gib=numbers.map(lambda size: None if size is None else Decimal(size)),
)
RESTRICTIONS: dict[str, st.SearchStrategy[Any]] = {
    "gpus": st.sampled_from(["H100", "H100-80", "24GB+:2", "A100:2"]).map(
        lambda wish: (GpuWish.parse(wish),)
    ),
    "markets": st.sampled_from(Market).map(lambda market: (market,)),
    "regions": st.sampled_from(["eu", "us-1"]).map(lambda region: (region,)),
    "instance_types": st.sampled_from(["big", "none"]).map(lambda name: (name,)),
    "max_usd_per_hour": st.integers(0, 3).map(Decimal),
    "min_vcpus": st.integers(0, 4),
    "min_memory_gib": st.integers(0, 4),
    "min_disk_gib": st.integers(0, 4),
}
requirements = st.fixed_dictionaries({}, optional=RESTRICTIONS)


markets = st.lists(offers, max_size=12, unique_by=lambda offer: offer.id)


@given(markets, requirements, st.sampled_from(sorted(RESTRICTIONS)), st.data())
def test_one_more_requirement_never_lets_more_through(
    market: list[Offer], wanted: dict[str, Any], more: str, data: st.DataObject
) -> None:
    wanted = {"markets": (), **wanted}
    if wanted.get(more):
        return
    stricter = {**wanted, more: data.draw(RESTRICTIONS[more])}
    kept = [offer for offer in market if reason(offer, Requirements(**wanted)) is None]
    left = [offer for offer in market if reason(offer, Requirements(**stricter)) is None]
    assert [offer for offer in left if offer not in kept] == []


@given(markets, requirements)
def test_a_search_that_finds_nothing_says_why_of_every_offer(
    market: list[Offer], wanted: dict[str, Any]
) -> None:
    found = answered(market, Requirements(**wanted))
    assert found.removed.total() == (0 if found.offers else len(market))
    assert not found.more
    assert not found.failures


def test_the_cheapest_is_first_and_at_one_price_what_can_surely_be_had() -> None:
    order = [
        an_offer(instance_type="a", usd_per_hour=Decimal("0.99"), availability=Availability.UNAVAILABLE),
        an_offer(instance_type="b", availability=Availability.AVAILABLE),
        an_offer(instance_type="c", availability=Availability.LIMITED, gpu=Gpu("T4"), gpu_count=8),
        an_offer(instance_type="d", availability=Availability.UNKNOWN),
        an_offer(instance_type="e", availability=Availability.NO_QUOTA),
        an_offer(instance_type="f", availability=Availability.UNAVAILABLE),
    ]
    for seed in range(20):
        shuffled = random.Random(seed).sample(order, len(order))
        assert ids(shuffled) == [offer.id for offer in order]


def test_at_one_price_more_gpus_then_more_vcpus_are_better_and_unknown_is_worst() -> None:
    order = [
        an_offer(instance_type="d", gpu=Gpu("T4"), gpu_count=2),
        an_offer(instance_type="c", gpu=Gpu("T4"), gpu_count=1, vcpus=8),
        an_offer(instance_type="b", gpu=Gpu("T4"), gpu_count=1, vcpus=4),
        an_offer(instance_type="a", gpu=Gpu("T4"), gpu_count=1),
    ]
    assert ids(reversed(order)) == [offer.id for offer in order]


@given(markets, st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_who_answered_first(market: list[Offer], chance: random.Random) -> None:
    shuffled = list(market)
    chance.shuffle(shuffled)
    assert ids(shuffled) == ids(market)
    assert sorted(ids(market)) == sorted(offer.id for offer in market)
    prices = [offer.usd_per_hour for offer in answered(market).offers]
    assert prices == sorted(prices)
