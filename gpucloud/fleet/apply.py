"""Applying a plan that was made before: only what was planned is rented, at about what it was to cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from gpucloud.errors import BudgetRefused, GpucloudError, NoCapacity, NothingMatched, PriceAboveCap
from gpucloud.fleet import Fleet
from gpucloud.fleet.plan import LaunchRequest, Plan, plan
from gpucloud.fleet.planfile import PlanFile, PlannedOffer
from gpucloud.fleet.quote import FRESH
from gpucloud.model import Event, Offer

ANEW: Final = "make a new plan: gpucloud plan ... -o FILE"
NAMED: Final = 3
"""So many of the offers that are passed over are told of one by one."""


def settings(planned: PlanFile) -> dict[str, str]:
    """What a plan overrides of the configuration."""
    return {
        **planned.settings,
        "launch.price_tolerance": f"{planned.price_tolerance * 100:f}%",
        # Which offers are too dear beside the best was decided when it was planned.
        "launch.price_factor": "1000000",
    }


def requote(fleet: Fleet, planned: PlanFile) -> Plan:
    """The plan at the prices of this moment; ``fleet`` has the ``settings`` of the plan.

    Has those of the planned offers, in the planned order, that are still there and hardly dearer. What was
    passed over before the first of them is told.

    Raises:
        NothingMatched: when there is no adapter any more for one of its providers.
        NoCapacity: when none of them is there.
        PriceAboveCap: when all that are left have become dearer than the plan tolerates.
        BudgetRefused: when at worst it costs more than the plan tolerates, or a limit refuses all of them.
        ProviderError: what the providers said, when none could answer.
    """
    fleet.registry.select(planned.providers)
    try:
        now = plan(fleet, _at_any_price(planned), planned.providers)
    except NothingMatched as error:
        raise _gone(planned, f"{error.message}: {error.why}") from error
    quotes = {(offer.id, offer.ref): offer for offer in now.offers}
    kept: list[Offer] = []
    passed_over: list[str] = []
    dearer = ""
    for one in planned.offers:
        quote = quotes.get((one.id, one.ref))
        fault = _fault(planned, one, quote)
        if quote and not fault:
            kept.append(quote)
        elif not kept:
            passed_over.append(fault)
        dearer = dearer or (fault if quote else "")
    if dearer and not kept:
        raise PriceAboveCap("what was planned has become dearer", why=dearer, hint=ANEW)
    if not kept:
        raise _gone(planned, "; ".join(f"{f.provider}: {f.message}" for f in now.failures))
    _tell(fleet, passed_over)
    found = replace(now, request=planned.request, offers=tuple(kept), limits=planned.limits)
    _check_worst(planned, found.worst_cost)
    return found


def at_planned_prices(planned: PlanFile, now: Plan) -> Plan:
    """What to rent: each offer at the price that the plan has, so that launch holds it to that once more."""
    agreed = {(one.id, one.ref): one for one in planned.offers}
    offers = []
    for offer in now.offers:
        one = agreed[offer.id, offer.ref]
        # However young the plan is, launch is to ask for the price of the moment.
        offers.append(replace(offer, usd_per_hour=one.usd_per_hour, as_of=one.as_of - FRESH))
    return replace(now, offers=tuple(offers))


def _at_any_price(planned: PlanFile) -> LaunchRequest:
    """The request with the planned limits, and without a cap on the price: what is dearer is told as such."""
    anything = replace(planned.request.requirements, max_usd_per_hour=None)
    return replace(planned.request, requirements=anything)


def _fault(planned: PlanFile, one: PlannedOffer, quote: Offer | None) -> str:
    """Why a planned offer is not to be rented now; empty when it may be."""
    if quote is None:
        return f"{one.id} is not to be had now"
    cap = planned.request.requirements.max_usd_per_hour
    allowed = one.usd_per_hour * (1 + planned.price_tolerance)
    if quote.usd_per_hour <= (allowed if cap is None else min(allowed, cap)):
        return ""
    return f"{one.id} was ${one.usd_per_hour:f} an hour and is ${quote.usd_per_hour:f} now"


def _gone(planned: PlanFile, why: str) -> GpucloudError:
    return NoCapacity(
        "nothing that was planned can be had now",
        provider=planned.offers[0].provider,
        why=why or "it is out of stock, was refused a short while ago, or is no longer sold",
        hint=f"try again later, or {ANEW}",
        lasting=False,
    )


def _tell(fleet: Fleet, passed_over: Sequence[str]) -> None:
    for fault in passed_over[:NAMED]:
        fleet.tell(Event("moved", fault))
    if len(passed_over) > NAMED:
        fleet.tell(Event("moved", f"so have {len(passed_over) - NAMED} more of the planned offers"))


def _check_worst(planned: PlanFile, worst: Decimal | None) -> None:
    """Terms beside the price may have moved, such as what a disk costs. Raises ``BudgetRefused``."""
    if planned.worst_cost is None:
        return
    allowed = planned.worst_cost * (1 + planned.price_tolerance)
    if worst is None or worst > allowed:
        raise BudgetRefused(
            "it can cost more than was planned",
            why=f"at worst it was ${planned.worst_cost:.2f} and is "
            + ("without any bound now" if worst is None else f"${worst:.2f} now"),
            hint=ANEW,
        )
