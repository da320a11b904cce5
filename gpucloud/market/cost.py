"""What a job would cost by an offer, term by term, as far as it is known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

from gpucloud.catalog.cards import Fact, card, names
from gpucloud.model import Market, Offer

SECONDS: Final = Decimal(3600)
HOURS_IN_MONTH: Final = Decimal(730)
"""As vendors count who state prices by the month: 365 days in 12 months."""

HOPELESS: Final = 20
"""So many interruptions are expected that nothing would ever be finished in one go."""

COARSEST_S: Final = 3600
"""Where a provider does not say in which steps it bills, at worst a begun hour counts as a whole one."""


def parse_hours(text: str) -> Decimal:
    """Read ``6``, ``1.5`` or ``6h``. Raises ``ValueError``."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*h?", text.strip(), re.ASCII)
    if match is None or not Decimal(match[1]):
        raise ValueError(f"{text!r} is no number of hours; write 6 or 1.5")
    return Decimal(match[1])


MEGABITS_IN_GIB: Final = Decimal(2**30 * 8) / 1_000_000

READY: Final = "getting ready"
"""The term for the time that is billed before anything can be done."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """How long machines take until SSH answers, in seconds: what was seen, by provider, and the limit."""

    seen_s: Mapping[str, Decimal]
    limit_s: Decimal


@dataclass(frozen=True, slots=True)
class Work:
    """A job as far as the bill goes: hours of running, disk that it needs, traffic in and out.

    Without ``readiness`` the time until it can begin is left out.
    """

    hours: Decimal
    disk_gib: Decimal | None = None
    egress_gib: Decimal | None = None
    data_gib: Decimal | None = None
    readiness: Readiness | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a cost in dollars; ``None`` is not known and not in the sum. ``how`` is the arithmetic."""

    name: str
    expected: Decimal | None
    worst: Decimal | None
    how: str


@dataclass(frozen=True, slots=True)
class Cost:
    """The sum of its terms. ``worst`` is ``None`` when nothing bounds it."""

    terms: tuple[Term, ...]

    @property
    def expected(self) -> Decimal:
        """What is to be expected, without the terms that are not known."""
        return sum((term.expected for term in self.terms if term.expected is not None), Decimal(0))

    @property
    def worst(self) -> Decimal | None:
        """The most that it can be; ``None`` when a term has no bound."""
        worst = [term.worst for term in self.terms]
        return None if None in worst else sum((amount for amount in worst if amount is not None), Decimal(0))

    @property
    def unknown(self) -> tuple[str, ...]:
        """The terms of which not even what is to be expected is known."""
        return tuple(term.name for term in self.terms if term.expected is None)


def cost(offer: Offer, work: Work) -> Cost:
    """The cost of a job by an offer: the instance, its disk, traffic, and for spot what is done twice."""
    facts = card(offer.provider).facts if offer.provider in names() else {}
    terms = [_instance(offer, work, facts)]
    if work.readiness:
        terms.append(_ready(offer, work.readiness))
    if work.data_gib:
        terms.append(_data(offer, work.data_gib))
    if offer.market is Market.SPOT:
        terms.append(_redone(offer, work))
    if work.disk_gib:
        terms.append(_disk(offer, work))
    if work.egress_gib:
        terms.append(_egress(offer, work))
    return Cost(tuple(terms))


def _instance(offer: Offer, work: Work, facts: Mapping[str, Fact]) -> Term:
    grain, usual = _seconds(facts, "billing_grain_s"), _seconds(facts, "billing_minimum_s")
    minimum = usual if offer.minimum_s is None else offer.minimum_s
    wanted = max(work.hours * SECONDS, Decimal(minimum or 0))
    expected, worst = _stepped(wanted, grain or 1), _stepped(wanted, grain or COARSEST_S)
    steps = "in which steps it is billed is not known" if grain is None else f"billed in steps of {grain} s"
    least = f", at least {minimum} s" if minimum else ""
    return Term(
        "instance",
        offer.usd_per_hour * expected / SECONDS,
        offer.usd_per_hour * worst / SECONDS,
        f"${offer.usd_per_hour:f} an hour for {work.hours:f} h, {steps}{least}",
    )


def _ready(offer: Offer, readiness: Readiness) -> Term:
    """What is paid while nothing can be done yet; a machine that takes longer than the limit is given up."""
    worst = offer.usd_per_hour * readiness.limit_s / SECONDS
    seen = readiness.seen_s.get(offer.provider)
    if seen is None:
        how = f"nothing of {offer.provider} was rented from here yet; given up after {readiness.limit_s:f} s"
        return Term(READY, None, worst, how)
    how = f"{seen:.0f} s, as it mostly was; given up after {readiness.limit_s:f} s"
    return Term(READY, min(offer.usd_per_hour * seen / SECONDS, worst), worst, how)


def _data(offer: Offer, data_gib: Decimal) -> Term:
    """What is paid while data is brought there; this side may send more slowly than the other can receive."""
    if not offer.inet_down_mbps:
        return Term("bringing data", None, None, "how fast it can receive is not known")
    hours = data_gib * MEGABITS_IN_GIB / offer.inet_down_mbps / SECONDS
    how = f"{data_gib:f} GiB at {offer.inet_down_mbps} Mbit/s take {hours:.2f} h, if this side is as fast"
    return Term("bringing data", offer.usd_per_hour * hours, None, how)


def _redone(offer: Offer, work: Work) -> Term:
    """What is expected to be run again when each interruption loses all that was done."""
    chance = offer.interruptions_per_hour
    if chance is None:
        return Term("redone after interruptions", None, None, "how often it is taken back is not known")
    if chance >= 1:
        return Term("redone after interruptions", None, None, "it is always taken back within the hour")
    if chance == 0:
        return Term("redone after interruptions", Decimal(0), None, "none was seen, which promises nothing")
    rate = -(1 - chance).ln()
    if rate * work.hours > HOPELESS:
        return Term("redone after interruptions", None, None, "it is taken back long before it is done")
    again = ((rate * work.hours).exp() - 1) / rate - work.hours
    how = f"taken back in {chance * 100:f} % of hours: {again:.2f} h again, if nothing is saved meanwhile"
    return Term("redone after interruptions", offer.usd_per_hour * again, None, how)


def _disk(offer: Offer, work: Work) -> Term:
    price, wanted = offer.disk_usd_per_gib_month, work.disk_gib or Decimal(0)
    if price is not None:
        amount = price * wanted * work.hours / HOURS_IN_MONTH
        how = f"${price:f} per GiB and month of {HOURS_IN_MONTH} h for {wanted:f} GiB and {work.hours:f} h"
        return Term("disk", amount, amount, how)
    if offer.disk_gib is not None and offer.disk_gib >= wanted:
        return Term("disk", Decimal(0), Decimal(0), f"{offer.disk_gib:f} GiB come with it")
    return Term("disk", None, None, "its price is not known")


def egress_price(offer: Offer) -> Decimal | None:
    """Dollars for a GB sent to the internet, by the offer or its provider's card; ``None`` if not known."""
    if offer.egress_usd_per_gib is not None or offer.provider not in names():
        return offer.egress_usd_per_gib
    fact = card(offer.provider).facts.get("egress_usd_per_gb")
    if fact is None or not isinstance(fact.value, str) or fact.value == "varies":
        return None
    return Decimal(0) if fact.value == "free" else Decimal(fact.value)


def _egress(offer: Offer, work: Work) -> Term:
    price = egress_price(offer)
    if price is None:
        return Term("traffic out", None, None, "its price is not known")
    out = work.egress_gib or Decimal(0)
    return Term("traffic out", price * out, price * out, f"${price:f} a GB for {out:f} GB")


def _seconds(facts: Mapping[str, Fact], key: str) -> int | None:
    value = facts[key].value if key in facts else None
    return value if isinstance(value, int) else None


def _stepped(seconds: Decimal, grain: int) -> Decimal:
    """Rounded up to whole steps."""
    return (seconds / grain).to_integral_value(ROUND_CEILING) * grain
