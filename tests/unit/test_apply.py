"""Applying a plan: only what was planned, in its order, at about its price."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud import errors, registry
from gpucloud.config import load
from gpucloud.fleet import Fleet
from gpucloud.fleet.apply import at_planned_prices, requote, settings
from gpucloud.fleet.plan import LaunchRequest, Plan, plan
from gpucloud.fleet.planfile import PlanFile, PlannedJob, PlannedOffer, fixed
from gpucloud.fleet.quote import FRESH, Quotes
from gpucloud.model import Availability, Event, Limits, Offer, Requirements, utcnow
from gpucloud.registry import Registry
from gpucloud.store import Store
from tests.harness.adapters import WHEN, Stated, an_offer, failing

HOUR = timedelta(hours=1)
ANYTHING = Requirements(markets=())

Answer = Callable[[], Iterable[Offer]]


class Market:
    """Providers of which each sells what it is told to, and a person who plans and applies there."""

    def __init__(self, store: Store, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store, self._home, self._patch = store, home, monkeypatch
        self.told: list[Event] = []

    def fleet(self, given: dict[str, str], answers: dict[str, Answer]) -> Fleet:
        """What acts on a market where providers answer so."""
        module = ModuleType("adapters_of_this_test")
        for name, answer in answers.items():
            verbs = {"name": name, "offers": lambda self, requirements, answer=answer: answer()}
            setattr(module, name.capitalize(), type(name.capitalize(), (Stated,), verbs))
        self._patch.setitem(sys.modules, module.__name__, module)
        table = {name: f"{module.__name__}:{name.capitalize()}" for name in sorted(answers)}
        self._patch.setattr(registry, "BUILTIN", table)
        config = load(given, {}, self._home)
        return Fleet(self._store, Registry(config), config, "me", failing(AssertionError()), self.told.append)

    def planned(
        self, requirements: Requirements = ANYTHING, tolerance: str = "0.05", **more: Any
    ) -> PlanFile:
        """A plan of two offers of acme, at 2 and 3 dollars, and one of best at 4."""
        answers: dict[str, Answer] = {"acme": lambda: sold("2", "3"), "best": lambda: sold("4")}
        request = LaunchRequest("train", requirements, **{"max_duration": HOUR, **more})
        return fixed(
            plan(self.fleet({}, answers), request, []),
            [],
            PlannedJob(),
            by="ann",
            made_at=utcnow(),
            good_for=HOUR,
            price_tolerance=Decimal(tolerance),
            settings={},
        )

    def requoted(self, planned: PlanFile, acme: Answer | None = None, best: Answer | None = None) -> Plan:
        """The plan at other prices; those of a provider of which nothing is said have not moved."""
        answers = {"acme": acme or (lambda: sold("2", "3")), "best": best or (lambda: sold("4"))}
        return requote(self.fleet(settings(planned), answers), planned)


def sold(*prices: str, **now: str) -> list[Offer]:
    """Offers of types that are named after what they cost once, some of them at another price now."""
    return [
        an_offer(instance_type=f"t{price}", usd_per_hour=Decimal(now.get(f"t{price}", price)), as_of=utcnow())
        for price in prices
    ]


def types(made: Plan) -> list[str]:
    return [offer.instance_type for offer in made.offers]


def refusal(act: Callable[[], object], kind: type[errors.GpucloudError]) -> errors.GpucloudError:
    with pytest.raises(errors.GpucloudError) as caught:
        act()
    assert type(caught.value) is kind
    assert caught.value.message and caught.value.why and caught.value.hint
    return caught.value


@pytest.fixture
def market(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Market]:
    store = Store(tmp_path / "books")
    yield Market(store, home, monkeypatch)
    store.db.close()


def test_what_has_not_moved_is_applied_as_it_was_planned(market: Market) -> None:
    planned = market.planned(replace(ANYTHING, max_usd_per_hour=Decimal(5)))
    made = market.requoted(planned)
    assert types(made) == ["t2", "t3", "t4"]
    assert (made.request, made.limits) == (planned.request, planned.limits)
    assert made.worst_cost == planned.worst_cost == 4
    assert market.told == []


def test_the_planned_order_stays_although_the_prices_have_another_now(market: Market) -> None:
    made = market.requoted(market.planned(tolerance="1"), lambda: sold("2", "3", t2="4"))
    assert types(made) == ["t2", "t3", "t4"]


def test_what_was_not_planned_is_not_rented_however_cheap_it_is(market: Market) -> None:
    made = market.requoted(market.planned(), lambda: sold("0.01", "2", "3"))
    assert types(made) == ["t2", "t3", "t4"]


def test_an_offer_of_the_same_name_but_another_handle_is_another(market: Market) -> None:
    made = market.requoted(market.planned(), lambda: [replace(o, ref="x") for o in sold("2", "3")])
    assert types(made) == ["t4"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda: sold("3"), "acme/t2/us-east/on-demand is not to be had now"),
        (
            lambda: [replace(o, availability=Availability.UNAVAILABLE) for o in sold("2")] + sold("3"),
            "acme/t2/us-east/on-demand is not to be had now",
        ),
        (
            lambda: sold("2", "3", t2="2.11"),
            "acme/t2/us-east/on-demand was $2 an hour and is $2.11 now",
        ),
    ],
)
def test_when_the_best_is_gone_or_dearer_the_next_is_taken_and_that_is_told(
    market: Market, answer: Answer, told: str
) -> None:
    assert types(market.requoted(market.planned(), answer)) == ["t3", "t4"]
    assert market.told == [Event("moved", told)]


def test_what_matters_only_after_the_best_is_not_told(market: Market) -> None:
    assert types(market.requoted(market.planned(), lambda: sold("2"))) == ["t2", "t4"]
    assert market.told == []


def test_of_many_that_are_passed_over_only_some_are_told_one_by_one(market: Market) -> None:
    answers: dict[str, Answer] = {"acme": lambda: sold(*map(str, range(10, 21)))}
    request = LaunchRequest("train", ANYTHING, max_duration=HOUR, max_cost=Decimal(100))
    made = plan(market.fleet({}, answers), request, [])
    planned = fixed(
        made, [], PlannedJob(), by="", made_at=WHEN, good_for=HOUR, price_tolerance=Decimal(0), settings={}
    )
    assert types(requote(market.fleet({}, {"acme": lambda: sold("19", "20")}), planned)) == ["t19", "t20"]
    assert len(market.told) == 4
    assert "6 more" in market.told[-1].message


def test_a_little_dearer_is_tolerated_and_a_little_more_is_not(market: Market) -> None:
    planned = market.planned()
    assert types(market.requoted(planned, lambda: sold("2", "3", t2="2.10"))) == ["t2", "t3", "t4"]
    assert types(market.requoted(planned, lambda: sold("2", "3", t2="2.100001"))) == ["t3", "t4"]


def test_the_cap_on_the_price_holds_within_what_is_tolerated(market: Market) -> None:
    planned = market.planned(replace(ANYTHING, max_usd_per_hour=Decimal("2.05")))
    assert types(market.requoted(planned, lambda: sold("2", t2="2.05"))) == ["t2"]
    error = refusal(lambda: market.requoted(planned, lambda: sold("2", t2="2.06")), errors.PriceAboveCap)
    assert "was $2 an hour and is $2.06 now" in error.why


def test_when_all_that_are_left_are_dearer_it_is_the_price(market: Market) -> None:
    planned = market.planned()
    error = refusal(
        lambda: market.requoted(planned, lambda: sold("3", t3="9"), lambda: ()), errors.PriceAboveCap
    )
    assert "acme/t3/us-east/on-demand was $3 an hour and is $9 now" in error.why


@pytest.mark.parametrize("left", [(), ("1",)])
def test_when_none_is_there_it_is_capacity(market: Market, left: Sequence[str]) -> None:
    planned = market.planned()
    refusal(lambda: market.requoted(planned, lambda: sold(*left), lambda: ()), errors.NoCapacity)


def test_a_provider_that_cannot_be_asked_is_named_when_nothing_else_is_left(market: Market) -> None:
    planned = market.planned()
    lost = failing(errors.Unreachable("acme: no answer", provider="acme"))
    error = refusal(lambda: market.requoted(planned, lost, lambda: sold("1")), errors.NoCapacity)
    assert "acme: no answer" in error.why
    refusal(lambda: market.requoted(planned, lost, lost), errors.Unreachable)


def test_a_provider_without_an_adapter_by_now_is_said_to_have_none(market: Market) -> None:
    planned = market.planned()
    here = market.fleet(settings(planned), {"acme": lambda: sold("2")})
    assert "'best'" in refusal(lambda: requote(here, planned), errors.NothingMatched).message


def test_only_providers_of_the_plan_are_asked(market: Market) -> None:
    planned = replace(market.planned(), providers=("acme",))
    assert types(market.requoted(planned, best=failing(AssertionError("it was asked")))) == ["t2", "t3"]


def test_what_moved_beside_the_price_must_not_make_it_dearer_at_worst(market: Market) -> None:
    planned = market.planned(disk_gib=730)

    def with_disks(usd: str) -> Answer:
        return lambda: [replace(o, disk_usd_per_gib_month=Decimal(usd)) for o in sold("2", "3")]

    assert market.requoted(planned, with_disks("1")).worst_cost == 4
    error = refusal(lambda: market.requoted(planned, with_disks("2")), errors.BudgetRefused)
    assert "at worst it was $4.00 and is $5.00 now" in error.why


def test_the_planned_limits_hold_whatever_the_configuration_says_by_now(market: Market) -> None:
    planned = market.planned(max_cost=Decimal(4))
    answers: dict[str, Answer] = {"acme": lambda: sold("2", "3"), "best": lambda: sold("4")}
    here = market.fleet({**settings(planned), "launch.max_cost": "1", "launch.idle": "1m"}, answers)
    assert requote(here, planned).limits == planned.limits == Limits(HOUR, Decimal(4))


def test_a_later_cap_of_the_fuse_refuses(market: Market) -> None:
    planned = market.planned()
    here = market.fleet({**settings(planned), "launch.require_fuse": "A"}, {"acme": lambda: sold("2")})
    refusal(lambda: requote(here, replace(planned, providers=("acme",))), errors.BudgetRefused)


def test_launch_holds_each_offer_to_its_planned_price_once_more(market: Market) -> None:
    planned = market.planned()
    answers: dict[str, Answer] = {"acme": lambda: sold("2", t2="2.10"), "best": lambda: sold("4")}
    here = market.fleet(settings(planned), answers)
    offer = at_planned_prices(planned, requote(here, planned)).offers[0]
    assert utcnow() - offer.as_of > FRESH
    wanted = planned.request.requirements
    assert Quotes(here, wanted).fresh(offer).usd_per_hour == Decimal("2.10")
    later = market.fleet(settings(planned), {"acme": lambda: sold("2", "3", t2="2.15")})
    refusal(lambda: Quotes(later, wanted).fresh(offer), errors.PriceAboveCap)


@given(st.decimals("0", "9.99", places=4))
def test_every_tolerance_reaches_the_settings_unchanged(share: Decimal) -> None:
    planned = PlanFile(
        made_at=WHEN,
        expires_at=WHEN,
        by="",
        request=LaunchRequest("train", ANYTHING),
        providers=(),
        offers=(PlannedOffer("acme/big/us-east/on-demand", "acme", Decimal(1), WHEN),),
        worst_cost=None,
        price_tolerance=share,
        settings={"launch.audition_budget": "2"},
    )
    config = load(settings(planned), {}, Path("/nonexistent"))
    assert config.get("launch.price_tolerance") == share
    assert config.get("launch.audition_budget") == 2
