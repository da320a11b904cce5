"""What EC2 sells at this moment: instance type x availability zone x market, with live prices.

A region is asked in which zones it offers what, for Spot prices and for the quotas of the account. What an
instance type is, one region tells for all, and what an hour on demand costs, the price list. What the account
is not allowed to ask is told in one line for each permission, and the offers do without. Local and Wavelength
Zones are left out: they have neither these prices nor a default network.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from gpucloud.errors import AuthError, NotFound, ProviderError
from gpucloud.model import Availability, Gpu, Market, Offer, Requirements, utcnow
from gpucloud.parallel import results, run_all
from gpucloud.replies import Rows
from gpucloud_aws import prices, quotas
from gpucloud_aws.api import InstanceType, PastPrice
from gpucloud_aws.errors import forbidden
from gpucloud_aws.hardware import chips, disk_of
from gpucloud_aws.reader import written
from gpucloud_aws.spot_history import LINUX
from gpucloud_aws.spot_history import SOURCE as SPOT_SOURCE

if TYPE_CHECKING:
    from gpucloud_aws.account import Account

log = logging.getLogger(__name__)
T = TypeVar("T")

ACCELERATED: Final = ("dl*", "g*", "inf*", "p*", "trn*")
"""Families with accelerators. Of all types of all regions, fifty thousand, a few thousand matter."""

NAMES_AT_ONCE: Final = 100
"""How many instance types one request may name."""

EFA: Final = "efa"


class Kind(NamedTuple):
    """An instance type in our words."""

    instance_type: str
    gpu: Gpu | None
    gpu_count: int
    vcpus: int | None
    memory_gib: Decimal | None
    disk_gib: Decimal | None
    interconnect: str | None
    on_demand: bool


Usd = Mapping[tuple[str, str], Decimal]
"""Prices by instance type and place: a region for what is on demand, a zone for Spot."""

Zones = Mapping[str, Sequence[str]]
"""The zones of a region in which each instance type is offered."""


class Terms(NamedTuple):
    """What a region tells of the types that it has: their Spot prices, and the account's quotas by code."""

    spot: Usd
    quotas: Mapping[str, Decimal]


class Gaps:
    """What may not be asked: by which permission it is missing, where, and what the offers do without."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._found: dict[tuple[str, str], set[str]] = {}
        self._lock = threading.Lock()

    def note(self, error: ProviderError, place: str, consequence: str) -> bool:
        """Remember what was forbidden; false for any other failure."""
        permission = forbidden(error)
        if permission:
            with self._lock:
                self._found.setdefault((permission, consequence), set()).add(place)
        return permission is not None

    @contextmanager
    def noted(self, place: str, consequence: str) -> Iterator[None]:
        """Inside, what is forbidden ends here."""
        try:
            yield
        except ProviderError as error:
            if not self.note(error, place, consequence):
                raise

    def tell(self) -> None:
        """One line for each permission."""
        for (permission, consequence), places in sorted(self._found.items()):
            where = ", ".join(sorted(places))
            log.warning("%s: %s is not allowed in %s: %s", self._provider, permission, where, consequence)


def read(account: Account, wanted: Requirements, regions: Sequence[str]) -> Iterator[Offer]:
    """All offers of the regions, which are asked at once.

    A region that does not answer is left out with a warning as long as another one does. Raises what asking
    raises when none does.
    """
    gaps = Gaps(account.provider)
    offered = from_each(
        account, {region: partial(_zones, account, region, wanted) for region in regions}, gaps
    )
    kinds = {kind.instance_type: kind for kind in _kinds(account, offered, gaps) if fits(kind, wanted)}
    sold = {region: zones.keys() & kinds.keys() for region, zones in offered.items()}
    sold = {region: types for region, types in sold.items() if types}
    asked: dict[str, Callable[[], Any]] = {
        "terms": partial(
            from_each,
            account,
            {region: partial(_terms, account, region, types, wanted, gaps) for region, types in sold.items()},
            gaps,
        )
    }
    if _sells(wanted, Market.ON_DEMAND):
        on_sale = {
            region: {name for name in types if kinds[name].on_demand} for region, types in sold.items()
        }
        asked["prices"] = partial(prices.read, account, on_sale)
    answers = run_all(asked)
    terms: Mapping[str, Terms] = results({"terms": answers["terms"]})["terms"]
    on_demand = _on_demand(account.provider, answers.get("prices", {}), terms, gaps)
    gaps.tell()
    for region, told in terms.items():
        here = ((kinds[name], zone) for name in sorted(sold[region]) for zone in offered[region][name])
        yield from _offers(account.provider, region, here, told, on_demand)


def kind_of(entry: Any) -> Kind | None:
    """One instance type; ``None`` with a part of an accelerator. Raises ``ValueError`` for what is none."""
    told = InstanceType.model_validate(entry)
    found = chips(told)
    if found is None and told.devices:
        return None
    gpu, count = found or (None, 0)
    memory = told.main_memory.mib
    return Kind(
        told.instance_type,
        gpu,
        count,
        told.vcpus.count,
        Decimal(memory) / 1024 if memory else None,
        disk_of(told.storage.total_gb),
        EFA if told.network.efa else None,
        "on-demand" in told.usage,
    )


def _zones(account: Account, region: str, wanted: Requirements) -> Zones:
    names = [name.lower() for name in wanted.instance_types] or list(ACCELERATED)
    zones: dict[str, list[str]] = {}
    asked = {"LocationType": "availability-zone", "Filter": [{"Name": "instance-type", "Value": names}]}
    for offering in account.reader.ec2(
        region, "DescribeInstanceTypeOfferings", asked, "InstanceTypeOfferingSet"
    ):
        zone = offering.get("Location", "")
        if zone[:-1] == region:
            zones.setdefault(offering.get("InstanceType", ""), []).append(zone)
    return zones


def _kinds(account: Account, offered: Mapping[str, Zones], gaps: Gaps) -> list[Kind]:
    """What each type is. That is the same wherever it is sold, so each is asked about in one region only."""
    found: list[Kind] = []
    known = set[str]()
    failure: ProviderError | None = None
    for region in sorted(offered, key=lambda region: (-len(offered[region]), region)):
        names = sorted(offered[region].keys() - known)
        try:
            for first in range(0, len(names), NAMES_AT_ONCE):
                found += _described(account, region, names[first : first + NAMES_AT_ONCE])
            known.update(names)
        except ProviderError as error:
            failure = failure or error
            if not gaps.note(error, region, "instance types are read elsewhere"):
                log.warning("%s: %s (%s)", account.provider, error.message, error.why)
    if failure is not None and not found:
        raise failure
    return found


def _described(account: Account, region: str, names: Sequence[str]) -> list[Kind]:
    asked = {"InstanceType": list(names)}
    told = account.reader.ec2(region, "DescribeInstanceTypes", asked, "InstanceTypeSet")
    return Rows(account.provider).read(kind_of, told)


def _terms(account: Account, region: str, types: Set[str], wanted: Requirements, gaps: Gaps) -> Terms:
    spot: Usd = {}
    if _sells(wanted, Market.SPOT):
        with gaps.noted(region, "Spot offers there are left out"):
            spot = _spot_prices(account, region, types)
    allowed: Mapping[str, Decimal] = {}
    with gaps.noted(region, "whether the quotas there suffice is not known"):
        allowed = quotas.read(account, region)
    return Terms(spot, allowed)


def _on_demand(provider: str, answer: Usd | BaseException, terms: Mapping[str, Terms], gaps: Gaps) -> Usd:
    """What the price list has answered; without it there is still Spot. Raises when there is not."""
    if not isinstance(answer, BaseException):
        return answer
    without = "on-demand offers are left out"
    if not isinstance(answer, ProviderError):
        raise answer
    if not gaps.note(answer, "the price list", without):
        if not any(told.spot for told in terms.values()):
            raise answer
        log.warning("%s: %s: %s (%s)", provider, without, answer.message, answer.why)
    return {}


def _spot_prices(account: Account, region: str, types: Set[str]) -> Usd:
    now = written(utcnow())
    asked = {
        "StartTime": now,
        "EndTime": now,
        "InstanceType": sorted(types),
        "ProductDescription": [LINUX],
    }
    told = account.reader.ec2(region, "DescribeSpotPriceHistory", asked, "SpotPriceHistorySet")
    prices = Rows(account.provider).read(PastPrice.model_validate, told)
    # Of several the newest holds, so it comes last.
    prices.sort(key=lambda price: price.since)
    return {(price.instance_type, price.zone): price.usd for price in prices if price.product == LINUX}


def fits(kind: Kind, wanted: Requirements) -> bool:
    """Whether an instance type answers the requirements, as far as they are about GPUs and names."""
    if wanted.gpus:
        return any(wish.accepts(kind.gpu, kind.gpu_count) for wish in wanted.gpus)
    return kind.gpu is not None or bool(wanted.instance_types)


def _sells(wanted: Requirements, market: Market) -> bool:
    return not wanted.markets or market in wanted.markets


def from_each(account: Account, tasks: Mapping[str, Callable[[], T]], gaps: Gaps) -> dict[str, T]:
    """What each region answers. Raises the first failure when none does, and what is no provider's."""
    answers = run_all(tasks)
    good = {region: answer for region, answer in answers.items() if not isinstance(answer, BaseException)}
    for region, answer in sorted(answers.items(), key=lambda item: item[0]):
        if not isinstance(answer, BaseException):
            continue
        if not good or not isinstance(answer, ProviderError):
            raise answer
        if gaps.note(answer, region, "these regions are left out"):
            continue
        if isinstance(answer, AuthError | NotFound):
            # EC2 refuses credentials that others take where a region is not open to them.
            log.debug("%s: %s is not open to the account: %s", account.provider, region, answer.why)
        else:
            log.warning("%s: %s is left out: %s (%s)", account.provider, region, answer.message, answer.why)
    return dict(sorted(good.items()))


def _offers(
    provider: str, region: str, here: Iterable[tuple[Kind, str]], terms: Terms, on_demand: Usd
) -> Iterator[Offer]:
    now = utcnow()
    for kind, zone in here:
        name = kind.instance_type
        sold = (
            (Market.ON_DEMAND, on_demand.get((name, region)), prices.SOURCE),
            (Market.SPOT, terms.spot.get((name, zone)), SPOT_SOURCE),
        )
        for market, usd, source in sold:
            if usd is None:
                continue
            availability, detail = _availability(kind, market, terms.quotas)
            yield Offer(
                provider=provider,
                instance_type=name,
                market=market,
                usd_per_hour=usd,
                amount=usd,
                as_of=now,
                source=source,
                gpu=kind.gpu,
                gpu_count=kind.gpu_count,
                region=region,
                zone=zone,
                availability=availability,
                availability_detail=detail,
                vcpus=kind.vcpus,
                memory_gib=kind.memory_gib,
                disk_gib=kind.disk_gib,
                any_disk=True,
                interconnect=kind.interconnect,
            )


def _availability(
    kind: Kind, market: Market, allowed: Mapping[str, Decimal]
) -> tuple[Availability, str | None]:
    """What the quotas of the account say; whether there is capacity, EC2 tells only at launch."""
    quota = quotas.quota_of(kind.instance_type, market)
    most = allowed.get(quota.code) if quota else None
    if quota is None or most is None or kind.vcpus is None or kind.vcpus <= most:
        return Availability.UNKNOWN, None
    return Availability.NO_QUOTA, f"{quota.name} ({quota.code}): {most.normalize():f} of {kind.vcpus} vCPUs"
