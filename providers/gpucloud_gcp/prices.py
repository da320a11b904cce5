"""What a machine costs in each market: the sum of its parts in Google's price list.

The list, https://docs.cloud.google.com/billing/docs/reference/rest/v1/services.skus/list, tells parts, and
how they are sold, by their description alone, such as "Nvidia L4 GPU running in Americas" or "Nvidia L4 GPU
attached to Spot Preemptible VMs running in Americas"; the regions are a field of their own. Cores, memory and
local disks are billed beside the GPUs; a B200 is billed as a slice that has all but the disks in it, and so
is each chip of a TPU (https://cloud.google.com/compute/vm-instance-pricing,
https://cloud.google.com/tpu/pricing and the list itself, November 2026). The same parts under a commitment
or for sole tenants are described in other words, and do not count here. Neither do those that are told for
nothing, which are placeholders. A machine of which one part cannot be found has no price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from gpucloud.catalog.currencies import to_usd
from gpucloud.errors import BadReply
from gpucloud.model import Market
from gpucloud.replies import Rows
from gpucloud_gcp import api
from gpucloud_gcp.account import Account
from gpucloud_gcp.errors import PROVIDER
from gpucloud_gcp.machines import Machine

SOURCE: Final = "cloudbilling.googleapis.com services.skus"
SPOT: Final = "Spot Preemptible"
PAID_BY_USE: Final = "OnDemand"
SPOT_USAGE: Final = {PAID_BY_USE, "Preemptible"}
"""Some lines of spot machines have the usage of the others, as that of a B200: the description counts."""

SSD: Final = "SSD backed Local Storage"
PAGE_SIZE: Final = 5000
FIELDS: Final = (
    "nextPageToken,skus(description,category/usageType,serviceRegions,"
    "pricingInfo/pricingExpression(baseUnit,baseUnitConversionFactor,tieredRates/unitPrice))"
)
"""What is wanted of each line, a third of what there is."""

GIB: Final = 2**30
HOUR_S: Final = 3600

SERIES: Final[Mapping[str, str]] = {
    "a2-": "A2",
    "a3-megagpu-": "A3Plus",
    "a3-ultragpu-": "A3Ultra",
    "a3-highgpu-": "A3",
    "a3-edgegpu-": "A3",
    "g2-": "G2",
    "g4-": "G4",
    "n1-": "N1 Predefined",
}
"""What the cores and the memory of a series are called; of others they are not billed apart, or not known."""

ACCELERATORS: Final[Mapping[str, tuple[str, ...]]] = {
    "nvidia-tesla-t4": ("Nvidia Tesla T4 GPU",),
    "nvidia-tesla-p4": ("Nvidia Tesla P4 GPU",),
    "nvidia-tesla-v100": ("Nvidia Tesla V100 GPU",),
    "nvidia-tesla-p100": ("Nvidia Tesla P100 GPU",),
    "nvidia-tesla-a100": ("Nvidia Tesla A100 GPU",),
    "nvidia-a100-80gb": ("Nvidia Tesla A100 80GB GPU",),
    "nvidia-l4": ("Nvidia L4 GPU",),
    "nvidia-h100-80gb": ("Nvidia H100 80GB GPU",),
    # It has been called by each of these.
    "nvidia-h100-mega-80gb": (
        "Nvidia H100 80GB Mega GPU",
        "Nvidia H100 Mega 80GB GPU",
        "Nvidia H100 80GB Plus GPU",
    ),
    "nvidia-h200-141gb": ("H200 141GB GPU",),
    "nvidia-rtx-pro-6000": ("RTX 6000 96GB",),
}
"""What GPUs are called that are billed beside cores and memory."""

SLICES: Final[Mapping[str, tuple[str, ...]]] = {"nvidia-b200": ("A4 Nvidia B200 (1 gpu slice)",)}
"""What GPUs are called that are billed with their share of cores and memory."""

TPUS: Final[Mapping[str, str]] = {"ct5p-": "TpuV5p", "ct6e-": "TpuV6e", "tpu7x-": "TPU7x"}
"""What the chips of a series are called, each of which is billed with its share of the machine."""

TPUS_BY_MARKET: Final = ("V5p", "V6e")
"""The TPUs that are known by name as spot machines and in the queue, where the word Tpu is missing."""

QUEUED: Final = "DWS Defined Duration"
"""What the Dynamic Workload Scheduler provides once it has it: machines that wait, and end by themselves."""

CALENDAR: Final = " in Calendar Mode"
RESERVED: Final = "DWS Calendar Mode"
ATTACHED: Final = "attached to Calendar mode reservations"
"""What is reserved for a time. GPUs and slices are called so in the list. Cores, memory and disks are taken
to be called as others are there; where they are not, a machine has no price.
"""

RUNNING: Final = " running in "
"""What descriptions end with, and a place; those of disks and reservations have only " in ", or nothing."""


def _said() -> Iterator[tuple[str, tuple[str, Market]]]:
    """What parts are called in each market, without the place, with the part."""
    for series in SERIES.values():
        for part in ("Core", "Ram"):
            name = f"{series} {part}"
            yield f"{series} Instance {part}", (name, Market.ON_DEMAND)
            yield f"{SPOT} {series} Instance {part}", (name, Market.SPOT)
            # Some of these have the word and some have not.
            for words in (f"{series} {part}", f"{series} Instance {part}"):
                yield f"{QUEUED} {words}", (name, Market.QUEUED)
                yield f"{words} {ATTACHED}", (name, Market.RESERVED)
                yield f"Reserved {words}{CALENDAR}", (name, Market.RESERVED)
    for name in (name for names in ACCELERATORS.values() for name in names):
        yield name, (name, Market.ON_DEMAND)
        yield f"{name} attached to {SPOT} VMs", (name, Market.SPOT)
        yield f"{name} attached to {QUEUED} VMs", (name, Market.QUEUED)
        yield f"Reserved {name}{CALENDAR}", (name, Market.RESERVED)
    for name in (name for names in SLICES.values() for name in names):
        yield name, (name, Market.ON_DEMAND)
        yield f"{SPOT} {name}", (name, Market.SPOT)
        yield f"{QUEUED} {name}", (name, Market.QUEUED)
        yield f"{RESERVED} {name}", (name, Market.RESERVED)
    for name in TPUS.values():
        yield name, (name, Market.ON_DEMAND)
    for version in TPUS_BY_MARKET:
        name = f"Tpu{version}"
        yield f"{name} attached to {SPOT} VMs", (name, Market.SPOT)
        yield f"{QUEUED} {version}", (name, Market.QUEUED)
    yield SSD, (SSD, Market.ON_DEMAND)
    yield f"{SSD} attached to {SPOT} VMs", (SSD, Market.SPOT)
    yield f"{QUEUED} {SSD}", (SSD, Market.QUEUED)
    yield f"{SSD} {ATTACHED}", (SSD, Market.RESERVED)
    yield f"Reserved {SSD}{CALENDAR}", (SSD, Market.RESERVED)


_LINES: Final = dict(_said())
_UNITS: Final = {"s": HOUR_S, "By.s": HOUR_S * GIB}
"""How many of what is billed make an hour, or an hour of a GiB."""


@dataclass(slots=True)
class PriceList:
    """Dollars for an hour of one core, GPU or GiB, by what it is called, by market and by region."""

    usd: dict[tuple[str, Market, str], Decimal] = field(default_factory=dict)

    def add(self, sku: api.Sku, part: str, market: Market, rates: Mapping[str, Decimal]) -> None:
        """Take a line. Raises ``ValueError`` for a unit or a currency that is not known."""
        told = sku.pricing_info[-1].pricing_expression
        unit = _UNITS.get(told.base_unit)
        if unit is None:
            raise ValueError(f"{sku.description} is told for each {told.base_unit}")
        money = max((tier.unit_price for tier in told.tiered_rates), key=lambda price: price.amount)
        usd = to_usd(money.amount, money.currency_code, rates).usd * unit / told.base_unit_conversion_factor
        if usd <= 0:
            raise ValueError(f"{sku.description} is told for nothing")
        for region in sku.service_regions:
            # Of two lines that nobody can tell apart the dearer counts, so that no price is too low.
            self.usd[part, market, region] = max(usd, self.usd.get((part, market, region), usd))

    def of(self, machine: Machine, market: Market) -> Decimal | None:
        """The price of a machine for an hour; ``None`` when one of its parts has none."""
        parts: list[tuple[tuple[str, ...], Decimal | int | None]] = []
        if machine.tpu:
            parts.append(((_of_series(TPUS, machine),), machine.gpu_count))
        elif machine.accelerator in SLICES:
            parts.append((SLICES[machine.accelerator], machine.gpu_count))
        else:
            series = _of_series(SERIES, machine)
            parts.append((ACCELERATORS.get(machine.accelerator, ()), machine.gpu_count))
            parts.append(((f"{series} Core",), machine.vcpus))
            parts.append(((f"{series} Ram",), machine.memory_gib))
        if machine.ssd_gib:
            parts.append(((SSD,), machine.ssd_gib))
        costs = [self._cost(names, amount, market, machine.region) for names, amount in parts]
        return None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))

    def _cost(
        self, names: Iterable[str], amount: Decimal | int | None, market: Market, region: str
    ) -> Decimal | None:
        keys = ((name, market, region) for name in names)
        prices = [self.usd[key] for key in keys if key in self.usd]
        return max(prices) * amount if prices and amount else None


def _of_series(names: Mapping[str, str], machine: Machine) -> str:
    return next((name for start, name in names.items() if machine.type.startswith(start)), "")


def price_list(account: Account, rates: Mapping[str, Decimal]) -> PriceList:
    """Read the whole list, of which only the lines of machines with accelerators are kept.

    Raises ``AuthError`` where the Cloud Billing API is off or forbidden, and what a read raises.
    """
    rows, prices = Rows(PROVIDER), PriceList()
    token, known = "", set[str]()
    while token not in known:
        known.add(token)
        params: dict[str, Any] = {"pageSize": PAGE_SIZE, "fields": FIELDS}
        if token:
            params["pageToken"] = token
        page = account.read(api.SkuPage, account.billing.get(api.SKUS, params=params))
        for row in page.skus:
            # There are tens of thousands of lines, and nearly all are of something else.
            line = _line(row)
            if line:
                with rows.row():
                    sku = api.Sku.model_validate(row)
                    usages = SPOT_USAGE if line[1] is Market.SPOT else {PAID_BY_USE}
                    if sku.category.usage_type in usages:
                        prices.add(sku, *line, rates)
        token = page.next_page_token
        if not token:
            return prices
    raise BadReply(
        f"{PROVIDER} sent a price list that cannot be read",
        provider=PROVIDER,
        why="its pages go in a circle",
    )


def _line(row: object) -> tuple[str, Market] | None:
    """Which part of a machine a line is about, and in which market; ``None`` for all others."""
    said = row.get("description") if isinstance(row, dict) else None
    if not isinstance(said, str):
        return None
    if RUNNING in said:
        return _LINES.get(said.partition(RUNNING)[0])
    calendar = CALENDAR if said.endswith(CALENDAR) else ""
    found = _LINES.get(said.partition(" in ")[0] + calendar)
    return found if found and (found[0] == SSD or found[1] is Market.RESERVED) else None
