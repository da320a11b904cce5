"""What can be rented now: machines from one list, prices and quotas from others, all asked at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final, TypeVar, cast

from gpucloud.catalog.currencies import to_usd
from gpucloud.errors import BadReply, NotFound, Rejected
from gpucloud.model import Availability, Market, Offer, Requirements, utcnow
from gpucloud.parallel import results, run_all
from gpucloud_gcp import api
from gpucloud_gcp.account import Account, Forbidden
from gpucloud_gcp.errors import PROVIDER
from gpucloud_gcp.history import ask, rates_until
from gpucloud_gcp.machines import Machine, machines, parts
from gpucloud_gcp.prices import SOURCE, PriceList, price_list
from gpucloud_gcp.quotas import Quotas, of_project, regional

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

AT_ONCE: Final = 48
"""So many requests for advice are under way at a time."""

SPOT_SOURCE: Final = "compute.googleapis.com advice.capacityHistory"

SUMMED: Final = (Market.ON_DEMAND, Market.SPOT, Market.QUEUED)
"""The markets of which the price list has the parts."""

LIKELY: Final = Decimal("0.7")
"""From here on Google calls the chance of getting spot machines high; below it is medium, or low.

https://docs.cloud.google.com/compute/docs/instances/view-vm-availability (as of 2026-11-21).
"""

MISSING: Final[Mapping[str, tuple[str, str]]] = {
    "prices": (
        "no offers on demand or of the queue, and spot prices only of some machines",
        "the Cloud Billing API (cloudbilling.googleapis.com) is off or forbidden",
    ),
    "regions": ("the quotas of regions are not known", "the permission compute.regions.list is missing"),
    "project": ("the quotas of the project are not known", "the permission compute.projects.get is missing"),
}
"""What is lacking without each read, and what the account has to be given for it."""


def offers(
    account: Account, wanted: Requirements, regions: Sequence[str], rates: Mapping[str, Decimal]
) -> list[Offer]:
    """Every machine with GPUs, in each zone and market that is wanted, that has a price.

    One that is forbidden to the account leaves a line in the log and is done without. Raises what a read
    raises; ``AuthError`` where the machines themselves are forbidden.
    """
    markets = set(wanted.markets or Market)
    reads: dict[str, Callable[[], Any]] = {
        "machines": partial(machines, account, wanted, regions),
        "regions": partial(account.allowed, partial(regional, account)),
        "project": partial(account.allowed, partial(of_project, account)),
        "prices": partial(account.allowed, partial(price_list, account, rates)),
    }
    told = results(run_all(reads))
    found = cast(list[Machine], told.pop("machines"))
    quotas = Quotas({**_given(told["regions"], "regions", {}), **_given(told["project"], "project", {})})
    prices: PriceList = _given(told["prices"], "prices", PriceList())
    made: list[Offer] = []
    for market in (market for market in SUMMED if market in markets):
        sold = [machine for machine in found if machine.queued or market is not Market.QUEUED]
        priced = [(machine, prices.of(machine, market)) for machine in sold]
        made += [
            _offer(machine, market, usd, quotas, source=SOURCE) for machine, usd in priced if usd is not None
        ]
        if market is Market.SPOT:
            made += _spot(account, [machine for machine, usd in priced if usd is None], quotas, rates)
    return made


def _given(told: T | Forbidden, what: str, otherwise: T) -> T:
    """What was read, or what there is without it."""
    if not isinstance(told, Forbidden):
        return told
    lacking, needed = MISSING[what]
    log.warning("%s: %s: %s (%s)", PROVIDER, lacking, needed, told.why)
    return otherwise


def _offer(
    machine: Machine,
    market: Market,
    usd: Decimal,
    quotas: Quotas,
    *,
    source: str,
    amount: Decimal | None = None,
    currency: str = "USD",
) -> Offer:
    short = quotas.short_of(machine, market)
    return Offer(
        provider=PROVIDER,
        instance_type=machine.name,
        market=market,
        usd_per_hour=usd,
        amount=amount if amount is not None else usd,
        currency=currency,
        as_of=utcnow(),
        source=source,
        gpu=machine.gpu,
        gpu_count=machine.gpu_count,
        region=machine.region,
        zone=machine.zone,
        availability=Availability.NO_QUOTA if short else Availability.UNKNOWN,
        availability_detail=short,
        vcpus=machine.vcpus,
        memory_gib=machine.memory_gib,
        disk_gib=Decimal(machine.ssd_gib) if machine.ssd_gib else None,
        any_disk=True,
        ref=machine.name,
    )


def _spot(
    account: Account, found: Sequence[Machine], quotas: Quotas, rates: Mapping[str, Decimal]
) -> Iterator[Offer]:
    """The spot offers of what the price list lacks; Google tells each price for all zones of a region.

    It tells none for attached GPUs.
    """
    now = utcnow()
    asked = sorted({(one.region, one.type) for one in found if one.name == one.type})
    told = some_at_once(
        {key: partial(account.allowed, partial(_present, account, *key, now)) for key in asked}
    )
    refused = {key[0]: each for key, each in told.items() if isinstance(each, Forbidden)}
    if refused:
        log.warning(
            "%s: no spot offers of some machines in %s: the permission compute.advice.capacityHistory is "
            "missing (%s)",
            PROVIDER,
            ", ".join(sorted(refused)),
            next(iter(refused.values())).why,
        )
    for machine in found:
        money = told.get((machine.region, machine.name))
        if money is None or isinstance(money, Forbidden):
            continue
        try:
            usd = to_usd(money.amount, money.currency_code, rates).usd
        except ValueError as error:
            log.debug("%s: %s is left out in %s: %s", PROVIDER, machine.name, machine.zone, error)
            continue
        yield _offer(
            machine,
            Market.SPOT,
            usd,
            quotas,
            source=SPOT_SOURCE,
            amount=money.amount,
            currency=money.currency_code,
        )


def _present(account: Account, region: str, machine_type: str, now: datetime) -> api.Money | None:
    """The spot price of now; ``None`` where none is told."""
    try:
        history = _history(account, region, machine_type, api.PRICE)
        prices = [account.read(api.Price, row) for row in history.price_history]
    except (BadReply, NotFound, Rejected) as error:
        log.debug("%s: %s has no spot price in %s: %s", PROVIDER, machine_type, region, error.why)
        return None
    present = [
        price for price in prices if price.interval.start_time <= now and price.interval.reaches(now, None)
    ]
    last = max(present, key=lambda price: price.interval.start_time, default=None)
    if last is None or last.list_price is None or last.list_price.amount <= 0:
        return None
    return last.list_price


def _history(account: Account, region: str, machine_type: str, what: str) -> api.History:
    return account.read(api.History, ask(account.http, account.who.project, region, machine_type, what))


def advice(account: Account, asked: Iterable[Offer], nodes: int) -> Iterator[Offer]:
    """How likely so many spot machines at once are to be had, in Google's own figures.

    Those that Google does not score are left out. The preemption rate is told beside it, where it may be
    read. Raises what a read raises.
    """
    spot = [
        one for one in asked if one.market is Market.SPOT and one.availability is not Availability.NO_QUOTA
    ]
    now = utcnow()
    own = {(one.region or "", one.instance_type) for one in spot if parts(one.instance_type)[2] == 0}
    tasks: dict[Hashable, Callable[[], object]] = {
        key: partial(account.allowed, partial(_rate, account, *key, now)) for key in own
    }
    tasks.update({offer.id: partial(_score, account, offer, nodes) for offer in spot})
    told = some_at_once(tasks)
    refused = next((each for each in told.values() if isinstance(each, Forbidden)), None)
    if refused:
        log.warning(
            "%s: no preemption rates: the permission compute.advice.capacityHistory is missing (%s)",
            PROVIDER,
            refused.why,
        )
    for offer in spot:
        scores = cast(api.Scores | None, told[offer.id])
        if scores is None or scores.obtainability is None:
            continue
        rate = told.get((offer.region or "", offer.instance_type))
        high = scores.obtainability >= LIKELY
        words = [f"obtainability {scores.obtainability}"]
        if scores.estimated_uptime:
            words.append(f"estimatedUptime {scores.estimated_uptime}")
        if isinstance(rate, Decimal):
            words.append(f"preemptionRate {rate}")
        yield replace(
            offer,
            availability=Availability.AVAILABLE if high else Availability.LIMITED,
            availability_detail=", ".join(words),
        )


def _score(account: Account, offer: Offer, nodes: int) -> api.Scores | None:
    zone, region = offer.zone or "", offer.region or ""
    machine_type, accelerator, count = parts(offer.instance_type)
    selection: dict[str, Any] = {"machineTypes": [machine_type]}
    if accelerator:
        selection["guestAccelerators"] = [{"acceleratorType": accelerator, "acceleratorCount": count}]
    question = {
        "instanceProperties": {"scheduling": {"provisioningModel": "SPOT"}},
        "instanceFlexibilityPolicy": {"instanceSelections": {"wanted": selection}},
        "distributionPolicy": {"targetShape": "ANY_SINGLE_ZONE", "zones": [{"zone": f"zones/{zone}"}]},
        "size": nodes,
    }
    try:
        body = account.http.query(account.path(api.ADVICE, region=region), json=question)
    except (NotFound, Rejected) as error:
        log.debug("%s: nothing is advised of %s: %s", PROVIDER, offer.id, error.why)
        return None
    recommendations = account.read(api.Advice, body).recommendations
    return recommendations[0].scores if recommendations else None


def _rate(account: Account, region: str, machine_type: str, now: datetime) -> Decimal | None:
    """The last preemption rate of a machine type; ``None`` where none is told."""
    try:
        history = _history(account, region, machine_type, api.PREEMPTION)
    except (BadReply, NotFound, Rejected) as error:
        log.debug("%s: %s has no preemption rate in %s: %s", PROVIDER, machine_type, region, error.why)
        return None
    past = rates_until(history.preemption_history, now)
    return past[-1].preemption_rate if past else None


def some_at_once(tasks: Mapping[K, Callable[[], T]]) -> dict[K, T]:
    """Run all, but only some at a time. Raises the first error."""
    keys = list(tasks)
    shares = {first: partial(_in_turn, tasks, keys[first::AT_ONCE]) for first in range(AT_ONCE)}
    return {key: value for share in results(run_all(shares)).values() for key, value in share.items()}


def _in_turn(tasks: Mapping[K, Callable[[], T]], keys: Sequence[K]) -> dict[K, T]:
    return {key: tasks[key]() for key in keys}
