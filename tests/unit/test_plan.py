"""What a launch would do: which offers, in which order, for how long, and what it costs at worst."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud import errors, registry
from gpucloud.cli.consent import describe
from gpucloud.config import load
from gpucloud.fleet import Fleet
from gpucloud.fleet.plan import SHORTEST, LaunchRequest, Plan, affords, plan
from gpucloud.model import (
    Availability,
    Gpu,
    GpuWish,
    Limits,
    Market,
    Offer,
    Requirements,
    Tariff,
    over_time,
)
from gpucloud.provider import Fuse
from gpucloud.quantities import LONGEST
from gpucloud.registry import Registry
from gpucloud.store import Store
from tests.harness.adapters import Stated, an_offer, failing

HOUR = timedelta(hours=1)
ANYTHING = Requirements(markets=())

Answer = Callable[[], Iterable[Offer]]
Build = Callable[..., Fleet]


def an_adapter(name: str, answer: Answer) -> type[Stated]:
    return type(name.capitalize(), (Stated,), {"name": name, "offers": lambda self, requirements: answer()})


@pytest.fixture
def fleet(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Make the fleet of somebody who can choose among these providers, each with its answer."""
    store = Store(tmp_path / "books")

    def build(settings: dict[str, str] | None = None, **answers: Answer) -> Fleet:
        module = ModuleType("adapters_of_this_test")
        for name, answer in answers.items():
            setattr(module, name.capitalize(), an_adapter(name, answer))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        table = {name: f"{module.__name__}:{name.capitalize()}" for name in sorted(answers)}
        monkeypatch.setattr(registry, "BUILTIN", table)
        config = load(settings or {}, {}, home)
        return Fleet(store, Registry(config), config, "me", failing(AssertionError()), lambda event: None)

    yield build
    store.db.close()


def request(requirements: Requirements = ANYTHING, **limits: Any) -> LaunchRequest:
    return LaunchRequest("train", requirements, **limits)


def priced(*prices: str, **changes: Any) -> list[Offer]:
    """Offers at these prices, each of another type."""
    return [an_offer(instance_type=f"t{price}", usd_per_hour=Decimal(price), **changes) for price in prices]


def prices(made: Plan) -> list[str]:
    return [str(offer.usd_per_hour) for offer in made.offers]


def refusal(act: Callable[[], object], kind: type[errors.GpucloudError]) -> errors.GpucloudError:
    with pytest.raises(errors.GpucloudError) as caught:
        act()
    error = caught.value
    assert type(error) is kind
    assert error.message and error.why and error.hint
    return error


def test_the_offers_are_tried_cheapest_first(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("3", "1"), best=lambda: priced("2")), request(), [])
    assert prices(made) == ["1", "2", "3"]
    assert made.failures == ()


def test_only_the_named_providers_are_asked(fleet: Build) -> None:
    here = fleet(acme=lambda: priced("1"), best=lambda: priced("2"))
    assert prices(plan(here, request(), ["best"])) == ["2"]


def test_a_provider_that_fails_or_hangs_is_told_of_beside_the_plan(fleet: Build) -> None:
    release = threading.Event()

    def hang() -> Iterable[Offer]:
        release.wait(60)
        return ()

    here = fleet(
        {"offers.timeout": "0.3s"},
        acme=lambda: priced("1"),
        best=failing(errors.AuthError("best: no", provider="best")),
        cosy=hang,
    )
    try:
        made = plan(here, request(), [])
    finally:
        release.set()
    assert prices(made) == ["1"]
    assert [(failure.provider, failure.code) for failure in made.failures] == [
        ("best", "auth"),
        ("cosy", "timeout"),
    ]


def test_when_nothing_matches_it_is_told_what_removed_how_many(fleet: Build) -> None:
    offers = [
        *priced("1", "2", gpu=Gpu("H100", 80), gpu_count=1),
        *priced("3", gpu=Gpu("A100", 80), gpu_count=1, market=Market.SPOT),
    ]
    wanted = Requirements(gpus=(GpuWish.parse("A100"),))
    error = refusal(lambda: plan(fleet(acme=lambda: offers), request(wanted), []), errors.NothingMatched)
    assert "A100" in error.message
    assert error.why == "2 removed by gpu, 1 removed by market"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("H10", "H100"),
        ("h10", "H100"),
        ("rtx4900", "RTX4090"),
        ("RTX-4900-24", "RTX4090-24"),
        ("B300", ""),
        ("H100:8", ""),
        ("h100", ""),
        ("24GB+", ""),
    ],
)
def test_a_mistyped_gpu_is_answered_with_what_is_on_offer(fleet: Build, typed: str, meant: str) -> None:
    offers = [an_offer(gpu=Gpu("H100", 80), gpu_count=2), an_offer(gpu=Gpu("RTX4090", 24), gpu_count=2)]
    wanted = Requirements(gpus=(GpuWish.parse(typed),))
    error = refusal(lambda: plan(fleet(acme=lambda: offers), request(wanted), []), errors.NothingMatched)
    assert error.hint == (f"did you mean {meant!r}?" if meant else "gpucloud offers shows what there is")


def test_when_nobody_offers_anything_it_is_told_so(fleet: Build) -> None:
    error = refusal(lambda: plan(fleet(acme=tuple), request(), []), errors.NothingMatched)
    assert error.why == "no provider offers anything"


def test_when_only_the_price_is_too_high_it_is_the_price(fleet: Build) -> None:
    wanted = Requirements(markets=(), max_usd_per_hour=Decimal("0.50"))
    error = refusal(
        lambda: plan(fleet(acme=lambda: priced("1", "2")), request(wanted), []), errors.PriceAboveCap
    )
    assert "$0.50" in error.message
    assert error.why == "2 offers are above the cap"


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (errors.AuthError("no", provider="acme"), errors.AuthError),
        (errors.QuotaExceeded("no", provider="acme"), errors.QuotaExceeded),
        (errors.BalanceExhausted("no", provider="acme"), errors.BalanceExhausted),
        (errors.Unreachable("no", provider="acme"), errors.Unreachable),
        (errors.RateLimited("no", provider="acme"), errors.Unreachable),
        (errors.BadReply("no", provider="acme"), errors.BadReply),
        (errors.Rejected("no", provider="acme"), errors.BadReply),
        (errors.ConfigError("no", why="it is wrong", hint="vi"), errors.ConfigError),
        (KeyError("no"), errors.BadReply),
    ],
)
def test_when_nobody_could_answer_the_kind_of_failure_decides_and_whether_trying_again_helps(
    fleet: Build, cause: BaseException, kind: type[errors.GpucloudError]
) -> None:
    error = refusal(lambda: plan(fleet(acme=failing(cause)), request(), []), kind)
    assert "acme: " in error.why and "no" in error.why
    assert error.retryable == getattr(cause, "retryable", False)


def test_an_answer_without_a_match_counts_more_than_the_failure_of_another(fleet: Build) -> None:
    here = fleet(
        acme=lambda: priced("1", market=Market.SPOT),
        best=failing(errors.AuthError("best: no", provider="best")),
    )
    refusal(lambda: plan(here, request(Requirements()), []), errors.NothingMatched)


def test_what_is_out_of_stock_or_forbidden_by_a_quota_is_not_tried(fleet: Build) -> None:
    offers = [
        an_offer(instance_type=str(availability), availability=availability) for availability in Availability
    ]
    made = plan(fleet(acme=lambda: offers), request(), [])
    assert [offer.availability for offer in made.offers] == [
        Availability.AVAILABLE,
        Availability.LIMITED,
        Availability.UNKNOWN,
    ]


def test_when_quotas_forbid_all_of_it_they_are_named(fleet: Build) -> None:
    forbidden = an_offer(availability=Availability.NO_QUOTA, availability_detail="quota P is 0 of 8")
    error = refusal(lambda: plan(fleet(acme=lambda: [forbidden]), request(), []), errors.QuotaExceeded)
    assert error.why == "quota P is 0 of 8"
    gone = an_offer(instance_type="x", availability=Availability.UNAVAILABLE)
    refusal(lambda: plan(fleet(acme=lambda: [forbidden, gone]), request(), []), errors.NoCapacity)


def test_what_was_refused_a_short_while_ago_is_not_tried(fleet: Build) -> None:
    here = fleet(acme=lambda: priced("1", "2", "3"))
    here.store.refusals.add(priced("1")[0], "sold out", HOUR)
    here.store.refusals.add(priced("2")[0], "sold out", -HOUR)
    assert prices(plan(here, request(), [])) == ["2", "3"]


def test_when_all_was_refused_or_is_out_of_stock_there_is_no_capacity(fleet: Build) -> None:
    here = fleet(
        acme=lambda: [*priced("1"), an_offer(instance_type="x", availability=Availability.UNAVAILABLE)]
    )
    here.store.refusals.add(priced("1")[0], "sold out", HOUR)
    error = refusal(lambda: plan(here, request(), []), errors.NoCapacity)
    assert "2 offers" in error.message
    assert error.why == "sold out"
    assert error.retryable
    here = fleet(acme=lambda: [an_offer(availability=Availability.UNAVAILABLE)])
    assert refusal(lambda: plan(here, request(), []), errors.NoCapacity).why == "their providers say so"


def test_a_fallback_is_not_much_dearer_than_the_best_offer(fleet: Build) -> None:
    offers = priced("1", "2", "3", "3.01", "9")
    assert prices(plan(fleet(acme=lambda: offers), request(), [])) == ["1", "2", "3"]
    here = fleet({"launch.price_factor": "1"}, acme=lambda: offers)
    assert prices(plan(here, request(), [])) == ["1"]


def test_what_costs_is_never_the_fallback_of_what_is_free(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("0", "0.01")), request(max_cost=Decimal(5)), [])
    assert made.free
    assert prices(made) == ["0"]


def test_what_costs_ends_by_itself_even_when_nobody_asked_for_it(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("2")), request(), [])
    assert made.limits.max_duration == timedelta(hours=24)
    assert made.limits.max_cost == 100
    assert made.lease(made.offers[0]) == timedelta(hours=24)
    assert made.worst_cost == 48
    assert not made.free
    here = fleet({"launch.max_duration": "2h"}, acme=lambda: priced("2"))
    assert plan(here, request(), []).worst_cost == 4


def test_what_is_free_goes_on_until_somebody_ends_it(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("0")), request(), [])
    assert made.limits == Limits()
    assert made.lease(made.offers[0]) is None
    assert made.free and made.worst_cost == 0


def test_a_duration_that_was_asked_for_holds_for_all_offers(fleet: Build) -> None:
    for price in ("0", "2"):
        made = plan(fleet(acme=lambda price=price: priced(price)), request(max_duration=3 * HOUR), [])
        assert made.lease(made.offers[0]) == 3 * HOUR


def test_a_limit_on_the_cost_ends_dearer_offers_sooner(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("2", "4")), request(max_cost=Decimal(8)), [])
    assert [made.lease(offer) for offer in made.offers] == [4 * HOUR, 2 * HOUR]
    assert made.worst_cost == 8
    made = plan(fleet(acme=lambda: priced("2", "4")), request(max_cost=Decimal(8), max_duration=3 * HOUR), [])
    assert [made.lease(offer) for offer in made.offers] == [3 * HOUR, 2 * HOUR]
    assert made.worst_cost == 8


def test_every_node_is_paid_for(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("2")), request(nodes=4, max_cost=Decimal(8)), [])
    assert made.lease(made.offers[0]) == HOUR
    assert made.worst_cost == 8
    assert plan(fleet(acme=lambda: priced("2")), request(nodes=4, max_duration=HOUR), []).worst_cost == 8


def test_offers_of_which_the_money_buys_less_than_a_minute_are_left_out(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("60", "61")), request(max_cost=Decimal(1)), [])
    assert prices(made) == ["60"]
    assert made.lease(made.offers[0]) == SHORTEST


@pytest.mark.parametrize("limit", ["0", "0.99"])
def test_money_that_buys_nothing_is_refused(fleet: Build, limit: str) -> None:
    error = refusal(
        lambda: plan(fleet(acme=lambda: priced("60", "90")), request(max_cost=Decimal(limit)), []),
        errors.BudgetRefused,
    )
    assert f"${limit}" in error.message
    assert "$60 an hour" in error.why


def test_without_money_the_free_offers_are_left(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("0", "1")), request(max_cost=Decimal(0)), [])
    assert prices(made) == ["0"]
    assert made.worst_cost == 0


money = st.decimals("0.000001", 10**6, places=6)
durations = st.none() | st.timedeltas(SHORTEST, LONGEST)


@given(money, st.integers(1, 64), st.decimals(0, 10**9, places=6), durations)
def test_the_worst_cost_is_never_above_the_limit_and_hardly_below_what_it_buys(
    price: Decimal, nodes: int, limit: Decimal, duration: timedelta | None
) -> None:
    offer = an_offer(usd_per_hour=price)
    wanted = request(nodes=nodes, max_cost=limit, max_duration=duration)
    made = Plan(wanted, (offer,), (), Limits(duration, limit))
    lease = made.lease(offer)
    assert lease is not None and timedelta(0) <= lease <= LONGEST
    assert duration is None or lease <= duration
    assert made.worst_cost is not None and made.worst_cost <= limit
    if lease not in (duration, LONGEST):
        assert limit - made.worst_cost < price * nodes / 10**6


@given(st.lists(money, min_size=1, max_size=4), st.integers(1, 8), st.timedeltas(SHORTEST, 30 * 24 * HOUR))
def test_the_worst_cost_is_that_of_the_dearest_offer(
    each: list[Decimal], nodes: int, duration: timedelta
) -> None:
    offers = tuple(an_offer(usd_per_hour=price) for price in each)
    made = Plan(request(nodes=nodes), offers, (), Limits(duration))
    hours = Decimal(duration // timedelta(microseconds=1)) / 3_600_000_000
    assert made.worst_cost is not None
    assert abs(made.worst_cost - max(each) * nodes * hours) < Decimal("0.000001")


@pytest.mark.parametrize(("price", "limit"), [("0", "5"), ("0", None), ("3", None)])
def test_how_long_money_lasts_is_no_question_without_a_price_or_a_limit(
    price: str, limit: str | None
) -> None:
    offer = an_offer(usd_per_hour=Decimal(price))
    assert affords(offer, Tariff(), 1, None if limit is None else Decimal(limit)) is None


def test_a_fortune_lasts_no_longer_than_the_calendar() -> None:
    cheap = an_offer(usd_per_hour=Decimal("0.000001"))
    for limit in ("1e9", "1e30", "1e300"):
        assert affords(cheap, Tariff(), 1, Decimal(limit)) == LONGEST


@given(
    money,
    st.decimals(0, 10**6, places=6),
    st.none() | st.integers(1, 7200),
    st.none() | st.integers(0, 7200),
    st.none() | st.decimals(0, 1, places=4),
)
def test_billing_steps_the_minimum_and_the_disk_count_in_what_money_buys(
    price: Decimal, limit: Decimal, grain: int | None, minimum: int | None, disk: Decimal | None
) -> None:
    terms = Tariff(grain, minimum, disk)
    bought = affords(an_offer(usd_per_hour=price), terms, 1, limit)
    assert bought is not None
    rate = price + (disk or 0)
    assert over_time(rate, terms.billed(bought)) <= limit


def test_without_any_limit_nothing_bounds_the_cost(fleet: Build) -> None:
    made = plan(fleet(acme=lambda: priced("2")), request(no_limit=True), [])
    assert made.limits == Limits(lifted=True)
    assert (made.lease(made.offers[0]), made.worst_cost) == (None, None)


@pytest.mark.parametrize("weakest", ["A", "b"])
def test_what_ends_less_surely_than_is_asked_for_is_refused(fleet: Build, weakest: str) -> None:
    here = fleet({"launch.require_fuse": weakest}, acme=lambda: priced("2"))
    error = refusal(lambda: plan(here, request(), []), errors.BudgetRefused)
    assert "acme has D" in error.why
    assert prices(plan(here, request(fuse=Fuse.CLIENT), [])) == ["2"]


def test_what_is_billed_at_least_is_said_and_counted(fleet: Build) -> None:
    here = fleet(mill=lambda: priced("3", minimum_s=7200))
    made = plan(here, request(max_duration=HOUR), ["mill"])
    assert made.worst_cost == Decimal(6)
    assert any("billed for 2h at least" in line for line in describe(here, made))
    here = fleet(mill=lambda: priced("3"))
    assert not any("at least" in line for line in describe(here, plan(here, request(), ["mill"])))
