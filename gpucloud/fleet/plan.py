"""What a launch would do and cost at worst, before anything is rented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Final

from gpucloud.config import Config
from gpucloud.errors import (
    BudgetRefused,
    ConfigError,
    GpucloudError,
    NoCapacity,
    NothingMatched,
    PriceAboveCap,
    QuotaExceeded,
)
from gpucloud.fleet import Fleet
from gpucloud.market import SearchResult, Terms, search
from gpucloud.market.advice import advised
from gpucloud.market.cost import egress_price
from gpucloud.model import (
    CANNOT_BE_HAD,
    MICROSECOND,
    MICROSECONDS_PER_HOUR,
    Availability,
    Failure,
    Labels,
    Limits,
    Offer,
    Requirements,
    Tariff,
    over_time,
)
from gpucloud.provider import Fuse, Traits
from gpucloud.quantities import LONGEST

SHORTEST: Final = timedelta(minutes=1)
"""A cap that buys less than this is refused: no job could even start."""
HOURS_IN_MONTH: Final = 730


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What to rent under which name. ``ephemeral`` clusters end with the ``run`` that made them.

    ``no_limit``: the person has said that it may go on, and cost, without end. ``fuse`` is the weakest that
    will do at ending by itself. ``reservation`` is the id or name of the one to launch into.
    """

    name: str
    requirements: Requirements
    nodes: int = 1
    max_duration: timedelta | None = None
    max_cost: Decimal | None = None
    idle: timedelta | None = None
    no_limit: bool = False
    fuse: Fuse | None = None
    labels: Labels = field(default_factory=Labels)
    ephemeral: bool = False
    image: str | None = None
    disk_gib: int | None = None
    reservation: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Offers in the order in which they will be tried, and how long each may run at most.

    ``traits`` are those of each provider.
    """

    request: LaunchRequest
    offers: tuple[Offer, ...]
    failures: tuple[Failure, ...]
    limits: Limits
    traits: Mapping[str, Traits] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """Whether nothing in it can cost anything."""
        return all(offer.usd_per_hour == 0 for offer in self.offers)

    def lease(self, offer: Offer) -> timedelta | None:
        """When a node rented by ``offer`` must end, counted from its launch; ``None`` for no limit."""
        bought = affords(offer, self.tariff(offer), self.request.nodes, self.limits.max_cost)
        limits = [limit for limit in (self.limits.max_duration, bought) if limit is not None]
        return min(limits, default=None)

    def tariff(self, offer: Offer) -> Tariff:
        """How it is billed beside its price, as far as the offer tells."""
        return tariff(offer, self.request.disk_gib, self.traits)

    @property
    def worst_cost(self) -> Decimal | None:
        """The most that it can cost: the dearest of the offers that may be tried, for its whole lease.

        ``None`` when nothing bounds it.
        """
        costs = [self._cost(offer) for offer in self.offers]
        return None if None in costs else max(cost for cost in costs if cost is not None)

    def _cost(self, offer: Offer) -> Decimal | None:
        terms, lease = self.tariff(offer), self.lease(offer)
        rate = _rate(offer, terms, self.request.nodes)
        if lease is None:
            return Decimal(0) if rate == 0 else None
        return over_time(rate, terms.billed(lease))


def tariff(offer: Offer, disk_gib: int | None, traits: Mapping[str, Traits]) -> Tariff:
    """How an offer is billed beside its price, with a disk of that size, or else of the usual one."""
    known, monthly = traits.get(offer.provider), offer.disk_usd_per_gib_month
    size = disk_gib or (known.usual_disk_gib if known else None)
    minimum = known.billing_minimum_s if known and offer.minimum_s is None else offer.minimum_s
    return Tariff(
        known.billing_grain_s if known else None,
        minimum,
        None if monthly is None or size is None else monthly * size / HOURS_IN_MONTH,
        egress_price(offer),
    )


def affords(offer: Offer, terms: Tariff, nodes: int, max_cost: Decimal | None) -> timedelta | None:
    """How long that much money pays for an offer; ``None`` when there is no limit or nothing to pay."""
    rate = _rate(offer, terms, nodes)
    if max_cost is None or rate == 0:
        return None
    paid = max_cost * MICROSECONDS_PER_HOUR
    # Rounded down, so that the whole of it, as it is billed, does not cost more than the limit.
    bought = int(paid // rate) * MICROSECOND if paid / rate < LONGEST // MICROSECOND else LONGEST
    grain = timedelta(seconds=terms.grain_s or 0)
    whole = bought // grain * grain if grain else bought
    return whole if terms.billed(whole) <= bought else timedelta()


def _rate(offer: Offer, terms: Tariff, nodes: int) -> Decimal:
    return (offer.usd_per_hour + (terms.disk_usd_per_hour or Decimal(0))) * nodes


def plan(fleet: Fleet, request: LaunchRequest, references: Sequence[str]) -> Plan:
    """Ask the market and fix the order of offers and the limits.

    Raises:
        NothingMatched: when no offer meets the requirements.
        PriceAboveCap: when only the price is too high.
        NoCapacity: when all that matches is out of stock or was refused a short while ago.
        QuotaExceeded: when its providers say that no quota allows any of it.
        BudgetRefused: when the cost limit buys less than a minute, or nothing ends by itself as it must.
        ProviderError: what the providers said, when none could answer.
    """
    if request.reservation is not None:
        from gpucloud.fleet.reserve import plan_within

        return plan_within(fleet, request)
    terms = Terms(fleet.config.duration("offers.timeout").total_seconds())
    found = search(fleet.registry.select(references), request.requirements, terms)
    if not found.offers:
        raise no_offer(found, request.requirements)
    refused = fleet.store.refusals.among(found.offers)
    usable = [
        offer for offer in found.offers if offer.availability not in CANNOT_BE_HAD and offer.id not in refused
    ]
    if not usable:
        raise _nothing_usable(found.offers, refused)
    usable = _safe_enough(fleet, request, usable)
    paid = any(offer.usd_per_hour for offer in usable)
    limits = limits_of(fleet.config, request, paid=paid)
    traits = {offer.provider: fleet.registry.get(offer.provider).traits for offer in usable}
    affordable = [offer for offer in usable if _buys_enough(offer, request, limits, traits)]
    if not affordable:
        raise BudgetRefused(
            f"${limits.max_cost} does not buy a minute of what matches",
            why=f"the cheapest is ${usable[0].usd_per_hour * request.nodes} an hour",
            hint="raise --max-cost",
        )
    # A fallback may cost more than the best offer, but not so much that nobody would have agreed to it.
    dearest = affordable[0].usd_per_hour * fleet.config.get("launch.price_factor")
    affordable = [offer for offer in affordable if offer.usd_per_hour <= dearest]
    providers = [fleet.registry.get(name) for name in traits]
    told, silent = advised(providers, affordable, request.nodes, terms.timeout_s)
    usable = [offer for offer in told if offer.availability not in CANNOT_BE_HAD]
    if not usable:
        raise _nothing_usable(told, {})
    return Plan(request, tuple(usable), (*found.failures, *silent), limits, traits)


def _nothing_usable(offers: Sequence[Offer], refused: Mapping[str, str]) -> GpucloudError:
    """Why none of the offers that match can be had."""
    forbidden = [offer for offer in offers if offer.availability is Availability.NO_QUOTA]
    if len(forbidden) == len(offers):
        told = {offer.availability_detail or f"{offer.id}: no quota" for offer in forbidden}
        return QuotaExceeded(
            "no quota allows what matches",
            provider=forbidden[0].provider,
            why="; ".join(sorted(told)),
            hint="have it raised, or ask for something else",
        )
    return NoCapacity(
        f"nothing that matches can be had now; {len(offers)} offers are out of stock",
        provider=offers[0].provider,
        why="; ".join(sorted(set(refused.values()))) or "their providers say so",
        hint="try again in a few minutes, or ask for something else",
    )


def limits_of(config: Config, request: LaunchRequest, *, paid: bool) -> Limits:
    """The limits of a launch: those that were asked for, else those of the configuration if it costs."""
    if request.no_limit:
        return Limits(lifted=True)
    usual = paid and request.max_duration is None
    return Limits(
        config.duration("launch.max_duration") if usual else request.max_duration,
        config.get("launch.max_cost") if paid and request.max_cost is None else request.max_cost,
        request.idle or config.get("launch.idle"),
    )


def _safe_enough(fleet: Fleet, request: LaunchRequest, offers: Sequence[Offer]) -> list[Offer]:
    """The offers whose machines end by themselves as surely as is asked for. Raises ``BudgetRefused``."""
    weakest = request.fuse or parse_fuse(fleet.config.get("launch.require_fuse"))
    if weakest is None:
        return list(offers)
    fuses = {offer.provider: fleet.registry.get(offer.provider).traits.fuse for offer in offers}
    kept = [offer for offer in offers if fuses[offer.provider] <= weakest]
    if not kept:
        told = ", ".join(f"{name} has {fuse}" for name, fuse in sorted(fuses.items()))
        raise BudgetRefused(
            f"nothing that matches ends by itself as {weakest} asks for",
            why=told,
            hint="take another provider, or a weaker --require-fuse",
        )
    return kept


def parse_fuse(text: str) -> Fuse | None:
    """Read A, B, C or D; ``None`` for nothing. Raises ``ConfigError``."""
    try:
        return Fuse(text.strip().upper()) if text.strip() else None
    except ValueError:
        raise ConfigError(
            f"there is no fuse {text!r}", why="they are A, B, C and D, the strongest first", hint="write B"
        ) from None


def _buys_enough(offer: Offer, request: LaunchRequest, limits: Limits, traits: Mapping[str, Traits]) -> bool:
    terms = tariff(offer, request.disk_gib, traits)
    bought = affords(offer, terms, request.nodes, limits.max_cost)
    return bought is None or bought >= SHORTEST


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
    login = first.code == errors.AuthError.code
    return kinds.get(first.code, errors.Unreachable if first.retryable else errors.BadReply)(
        message,
        provider=first.provider,
        why=why,
        hint=f"gpucloud login {first.provider}" if login else "try again, or gpucloud providers",
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
