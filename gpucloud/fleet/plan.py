"""What a launch would do and cost at worst, before anything is rented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from gpucloud.errors import BudgetRefused, GpucloudError, NoCapacity, NothingMatched, PriceAboveCap
from gpucloud.fleet import Fleet
from gpucloud.market import SearchResult, Terms, search
from gpucloud.model import Availability, Failure, Offer, Requirements
from gpucloud.quantities import LONGEST

SHORTEST: Final = timedelta(minutes=1)
"""A cap that buys less than this is refused: no job could even start."""
_MICROSECOND: Final = timedelta(microseconds=1)
_MICROSECONDS_PER_HOUR: Final = timedelta(hours=1) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What to rent under which name. ``ephemeral`` clusters end with the ``run`` that made them."""

    name: str
    requirements: Requirements
    nodes: int = 1
    max_duration: timedelta | None = None
    max_cost: Decimal | None = None
    ephemeral: bool = False
    image: str | None = None
    disk_gib: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Offers in the order in which they will be tried, and how long each may run at most."""

    request: LaunchRequest
    offers: tuple[Offer, ...]
    failures: tuple[Failure, ...]
    max_duration: timedelta | None

    @property
    def free(self) -> bool:
        """Whether nothing in it can cost anything."""
        return all(offer.usd_per_hour == 0 for offer in self.offers)

    def lease(self, offer: Offer) -> timedelta | None:
        """When a node rented by ``offer`` must end, counted from its launch; ``None`` for no limit."""
        bought = affords(offer, self.request)
        limits = [limit for limit in (self.max_duration, bought) if limit is not None]
        return min(limits, default=None)

    @property
    def worst_cost(self) -> Decimal:
        """The most that it can cost: the dearest of the offers that may be tried, for its whole lease."""
        return max(self._cost(offer) for offer in self.offers)

    def _cost(self, offer: Offer) -> Decimal:
        lease = self.lease(offer) or timedelta()
        return offer.usd_per_hour * self.request.nodes * (lease // _MICROSECOND) / _MICROSECONDS_PER_HOUR


def affords(offer: Offer, request: LaunchRequest) -> timedelta | None:
    """How long the request's money pays for an offer; ``None`` when there is no limit or nothing to pay."""
    rate = offer.usd_per_hour * request.nodes
    if request.max_cost is None or rate == 0:
        return None
    paid = request.max_cost * _MICROSECONDS_PER_HOUR
    # Rounded down, so that the whole of it does not cost more than the limit.
    return int(paid // rate) * _MICROSECOND if paid / rate < LONGEST // _MICROSECOND else LONGEST


def _buys_enough(offer: Offer, request: LaunchRequest) -> bool:
    bought = affords(offer, request)
    return bought is None or bought >= SHORTEST


def plan(fleet: Fleet, request: LaunchRequest, references: Sequence[str]) -> Plan:
    """Ask the market and fix the order of offers and the limits.

    Raises:
        NothingMatched: when no offer meets the requirements.
        PriceAboveCap: when only the price is too high.
        NoCapacity: when all that matches is out of stock or was refused a short while ago.
        BudgetRefused: when the cost limit buys less than a minute.
        ProviderError: what the providers said, when none could answer.
    """
    terms = Terms(fleet.config.duration("offers.timeout").total_seconds())
    found = search(fleet.registry.select(references), request.requirements, terms)
    if not found.offers:
        raise no_offer(found, request.requirements)
    refused = fleet.store.refusals.among(found.offers)
    usable = [
        offer
        for offer in found.offers
        if offer.availability is not Availability.UNAVAILABLE and offer.id not in refused
    ]
    if not usable:
        raise NoCapacity(
            f"nothing that matches can be had now; {len(found.offers)} offers are out of stock",
            provider=found.offers[0].provider,
            why="; ".join(sorted(set(refused.values()))) or "their providers say so",
            hint="try again in a few minutes, or ask for something else",
        )
    affordable = [offer for offer in usable if _buys_enough(offer, request)]
    if not affordable:
        raise BudgetRefused(
            f"${request.max_cost} does not buy a minute of what matches",
            why=f"the cheapest is ${usable[0].usd_per_hour * request.nodes} an hour",
            hint="raise --max-cost",
        )
    # A fallback may cost more than the best offer, but not so much that nobody would have agreed to it.
    dearest = affordable[0].usd_per_hour * fleet.config.get("launch.price_factor")
    affordable = [offer for offer in affordable if offer.usd_per_hour <= dearest]
    duration = request.max_duration
    if duration is None and any(offer.usd_per_hour for offer in affordable):
        duration = fleet.config.duration("launch.max_duration")
    return Plan(request, tuple(affordable), found.failures, duration)


def no_offer(found: SearchResult, wanted: Requirements) -> GpucloudError:
    """Why a search found nothing: the price, the providers, or the requirements."""
    if found.removed["price"]:
        return PriceAboveCap(
            f"every match costs more than ${wanted.max_usd_per_hour} an hour",
            why=f"{found.removed['price']} offers are above the cap",
            hint="raise --max-price, or look at gpucloud offers",
        )
    if not found.removed and found.failures:
        return _unanswered(found.failures)
    return NothingMatched(
        "no offer matches" + (f" {' or '.join(map(str, wanted.gpus))}" if wanted.gpus else ""),
        why=_removals(found),
        hint=_suggestion(found, wanted) or "gpucloud offers shows what there is",
    )


def _unanswered(failures: Sequence[Failure]) -> GpucloudError:
    from gpucloud import errors

    first = failures[0]
    message = "no provider could answer"
    why = "; ".join(f"{failure.provider}: {failure.message}" for failure in failures)
    if first.code == errors.ConfigError.code:
        return errors.ConfigError(message, why=why, hint="gpucloud config show --origin")
    kinds: dict[str, type[errors.ProviderError]] = {
        kind.code: kind for kind in (errors.AuthError, errors.QuotaExceeded, errors.BalanceExhausted)
    }
    return kinds.get(first.code, errors.Unreachable if first.retryable else errors.BadReply)(
        message, provider=first.provider, why=why, hint="try again, or gpucloud providers"
    )


def _removals(found: SearchResult) -> str:
    """Which filter removed how many offers, the most first."""
    if not found.removed:
        return (
            "no provider offers anything"
            if not found.failures
            else "no provider that answered offers anything"
        )
    return ", ".join(f"{count} removed by {name}" for name, count in found.removed.most_common())


def _suggestion(found: SearchResult, wanted: Requirements) -> str:
    """A GPU that is on offer and spelled like one that was asked for; empty when there is none."""
    import difflib

    names = sorted(found.gpus | {gpu.partition("-")[0] for gpu in found.gpus})
    spellings = {name.upper(): name for name in names}
    for wish in wanted.gpus:
        typed = str(wish.gpu or "").upper()
        close = difflib.get_close_matches(typed, spellings, n=1)
        if close and close[0] != typed:
            return f"did you mean {spellings[close[0]]!r}?"
    return ""
