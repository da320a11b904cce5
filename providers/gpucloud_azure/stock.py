"""What the account is offered: sizes by region, with live prices, as far as its quotas go.

Three things are asked of every region, all at once: the sizes with their restrictions, the retail prices, and
how much of the quotas is used. A regional offer leaves the zone to Azure, which then has the most machines to
choose from; offers by zone would differ in nothing that Azure tells.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gpucloud.catalog.names import normalise
from gpucloud.errors import AuthError, ProviderError
from gpucloud.model import Availability, Market, Offer, Requirements
from gpucloud.parallel import run_all
from gpucloud.replies import Rows
from gpucloud_azure.errors import permission
from gpucloud_azure.excerpt import Excerpts

if TYPE_CHECKING:
    from gpucloud.http import HttpClient
    from gpucloud_azure.account import Account
    from gpucloud_azure.api import Sku, Usage
    from gpucloud_azure.catalog import RetailPrices

log = logging.getLogger(__name__)

MACHINE: Final = "virtualMachines"
ALL_SPOT: Final = "lowPriorityCores"
ALL_VCPUS: Final = "cores"
"""The names of the quotas beside that of the family: of all spot machines in a region, and of all others."""

NOT_FOR_YOU: Final = "NotAvailableForSubscription"
NO_SUCH_OFFER: Final = "QuotaId"
CONFIDENTIAL: Final = "ConfidentialComputingType"
MIB: Final = 1024

AT_ONCE: Final = 20
"""How many regions are read at the same time: as many as httpx keeps connections for."""

PRICES_AT_ONCE: Final = 8
"""How many of them read prices: prices.azure.com answers 429 to who asks in haste."""

SKUS_READ: Final = "Microsoft.Compute/skus/read"
USAGES_READ: Final = "Microsoft.Compute/locations/usages/read"


@dataclass(frozen=True, slots=True)
class _Told:
    """What one region has told: its sizes by folded name, its quotas by folded name if they may be read."""

    skus: Mapping[str, Sku]
    prices: Sequence[Offer]
    usages: Mapping[str, Usage] | None


class Stock:
    """What can be rented in one account, at the retail prices."""

    def __init__(self, account: Account, retail: RetailPrices) -> None:
        self._account = account
        self._retail = retail
        self._excerpts = Excerpts()
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._at_the_prices = threading.BoundedSemaphore(PRICES_AT_ONCE)

    def offers(self, wanted: Requirements) -> list[Offer]:
        """All of it that may matter. Raises what the last region raised when none could be read."""
        names = _sizes(wanted)
        if not names:
            return []
        with self._account.http() as http, self._retail.price_list() as prices:
            regions = self._regions(http, wanted)
            read = partial(self._in_turn, http, prices, names)
            done = run_all({region: partial(read, region) for region in regions})
        told = {region: each for region, each in done.items() if isinstance(each, _Told)}
        errors = {region: each for region, each in done.items() if isinstance(each, BaseException)}
        self._warn(errors, failed=bool(errors) and not told)
        if any(each.usages is None for each in told.values()):
            log.warning(
                "%s: without the permission %s no quota is known", self._account.provider, USAGES_READ
            )
        return [offer for region, each in told.items() for offer in self._offers(region, each, wanted)]

    def sku(self, http: HttpClient, region: str, name: str) -> Sku | None:
        """What one size is in a region; ``None`` when it is not there."""
        return self._skus(http, region, {name.casefold()}).get(name.casefold())

    def _regions(self, http: HttpClient, wanted: Requirements) -> list[str]:
        """Those of the account that the settings and the requirements leave."""
        from gpucloud_azure.api import RESOURCES, ImageName

        rows = self._account.rows(http, self._account.path("locations"), **{"api-version": RESOURCES})
        known = [each.name for each in Rows(self._account.provider).read(ImageName.model_validate, rows)]
        for chosen in (self._account.settings.names("regions"), wanted.regions):
            names = {"".join(name.split()).lower() for name in chosen}
            known = [region for region in known if not names or region.lower() in names]
        return known

    def _in_turn(self, http: HttpClient, prices: HttpClient, names: set[str], region: str) -> _Told:
        with self._places:
            return self._of(http, prices, names, region)

    def _of(self, http: HttpClient, prices: HttpClient, names: set[str], region: str) -> _Told:
        skus = self._skus(http, region, names)
        if not skus:
            return _Told({}, (), {})
        quotas = {name.casefold() for sku in skus.values() for name in (sku.family, ALL_SPOT, ALL_VCPUS)}
        asked: dict[str, Callable[[], object]] = {
            "prices": partial(self._prices, prices, region),
            "usages": partial(self._usages, http, region, quotas),
        }
        done = run_all(asked)
        offers, usages = done["prices"], done["usages"]
        if isinstance(usages, AuthError):
            usages = None
        for answer in (offers, usages):
            if isinstance(answer, BaseException):
                raise answer
        assert isinstance(offers, list)
        assert usages is None or isinstance(usages, dict)
        return _Told(skus, offers, usages)

    def _skus(self, http: HttpClient, region: str, names: set[str]) -> dict[str, Sku]:
        from gpucloud_azure.api import SKUS, Sku

        def make(row: object) -> Sku | None:
            if not isinstance(row, dict) or row.get("resourceType") != MACHINE:
                return None
            return Sku.model_validate(row) if str(row.get("name")).casefold() in names else None

        asked = {"api-version": SKUS, "$filter": f"location eq '{region}'"}
        path = self._account.path("providers/Microsoft.Compute/skus")
        rows = self._account.paged(partial(self._excerpts.page, http, path, names), path, asked)
        return {sku.name.casefold(): sku for sku in Rows(self._account.provider).read(make, rows)}

    def _prices(self, http: HttpClient, region: str) -> list[Offer]:
        with self._at_the_prices:
            return self._retail.retail_offers(http, region)

    def _usages(self, http: HttpClient, region: str, names: set[str]) -> dict[str, Usage]:
        """Those with these folded names."""
        from gpucloud_azure.api import COMPUTE, Usage

        path = self._account.path(f"providers/Microsoft.Compute/locations/{region}/usages")
        told = self._account.rows(http, path, **{"api-version": COMPUTE})
        rows = (row for row in told if _counts(row, names))
        read = Rows(self._account.provider).read(Usage.model_validate, rows)
        return {usage.name.value.casefold(): usage for usage in read}

    def _offers(self, region: str, told: _Told, wanted: Requirements) -> Iterator[Offer]:
        for price in told.prices:
            sku = told.skus.get(price.instance_type.casefold())
            if sku is None or (wanted.markets and price.market not in wanted.markets):
                continue
            if why := _left_out(sku, price.market):
                log.debug("%s: %s is left out in %s: %s", self._account.provider, sku.name, region, why)
                continue
            yield _offer(price, sku, told.usages)

    def _warn(self, errors: Mapping[str, BaseException], *, failed: bool) -> None:
        """One line for all that was refused, and one for all that failed; raises when nothing is left."""
        provider = self._account.provider
        if failed:
            raise next(iter(errors.values()))
        for region, error in errors.items():
            if not isinstance(error, ProviderError):
                raise error
            if not isinstance(error, AuthError):
                log.warning("%s: %s is left out: %s (%s)", provider, region, error.message, error.why)
        refused = {region: error for region, error in errors.items() if isinstance(error, AuthError)}
        if refused:
            named = sorted({permission(error, SKUS_READ) for error in refused.values()})
            log.warning(
                "%s: %s left out, for want of the permission %s",
                provider, ", ".join(sorted(refused)), " and ".join(named),
            )  # fmt: skip


def _sizes(wanted: Requirements) -> set[str]:
    """The folded names of the sizes with GPUs that may answer."""
    from gpucloud_azure.api import SIZES

    chosen = {name.casefold() for name in wanted.instance_types}
    return {
        name
        for name, size in SIZES.items()
        if (not chosen or name in chosen)
        and (
            not wanted.gpus
            or any(w.accepts(normalise(size.gpu, memory_gib=size.gpu_memory), size.gpus) for w in wanted.gpus)
        )
    }


def _counts(row: Any, names: set[str]) -> bool:
    """Whether a quota as it came has one of these folded names; of all there are one in ten has."""
    try:
        found: bool = row["name"]["value"].casefold() in names
    except (TypeError, KeyError, AttributeError):
        # Whoever reads it says what is wrong with it.
        return True
    return found


def _left_out(sku: Sku, market: Market) -> str:
    """Why nobody with this account can rent it; empty when somebody may."""
    if NOT_FOR_YOU in sku.refused:
        return "it is not available for the subscription"
    if market is Market.SPOT and not sku.can("LowPriorityCapable"):
        return "it is not sold as spot"
    if sku.has(CONFIDENTIAL):
        return "a confidential machine needs an image of its own"
    return ""


def _offer(price: Offer, sku: Sku, usages: Mapping[str, Usage] | None) -> Offer:
    """A retail price as what the account is offered."""
    vcpus, disk_mib = (
        sku.number("vCPUs"),
        sku.number("MaxResourceVolumeMB") or sku.number("NvmeDiskSizeInMiB"),
    )
    gpus = sku.number("GPUs")
    availability, detail = _allowed(sku, price.market, vcpus, usages)
    return replace(
        price,
        instance_type=sku.name,
        confidence="live",
        gpu_count=int(gpus) if gpus and gpus == int(gpus) else price.gpu_count,
        vcpus=int(vcpus) if vcpus else price.vcpus,
        memory_gib=sku.number("MemoryGB") or price.memory_gib,
        disk_gib=disk_mib / MIB if disk_mib else None,
        availability=availability,
        availability_detail=detail,
    )


def _allowed(
    sku: Sku, market: Market, vcpus: Decimal | None, usages: Mapping[str, Usage] | None
) -> tuple[Availability, str | None]:
    """Whether quotas forbid it. That they do not says nothing of whether there is any."""
    if NO_SUCH_OFFER in sku.refused:
        return Availability.NO_QUOTA, "the kind of subscription does not include this size (QuotaId)"
    names = (ALL_SPOT,) if market is Market.SPOT else (sku.family, ALL_VCPUS)
    for usage in _known(names, usages or {}):
        if vcpus and usage.limit - usage.current_value < vcpus:
            used = f"{usage.current_value} of {usage.limit} vCPUs are used, and it takes {vcpus:f}"
            return Availability.NO_QUOTA, f"{usage.name.value}: {used}"
    return Availability.UNKNOWN, None


def _known(names: Iterable[str], usages: Mapping[str, Usage]) -> Iterator[Usage]:
    return (usages[name.casefold()] for name in names if name.casefold() in usages)
