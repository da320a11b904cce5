"""Prime Intellect's lines as offers: whose machine it is, and what it comes to with all that it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.catalog.currencies import to_usd
from gpucloud.catalog.names import named
from gpucloud.catalog.sellers import seller
from gpucloud.model import Availability, Market, Offer

if TYPE_CHECKING:
    from gpucloud_primeintellect import api

NAME: Final = "primeintellect"
SECONDS: Final = 3600

OWN: Final = {"primeintellect", "primecompute"}
"""The clouds that are machines of its own."""

STOCK: Final = {
    "Available": Availability.AVAILABLE,
    "High": Availability.AVAILABLE,
    "Medium": Availability.AVAILABLE,
    "Low": Availability.LIMITED,
    "Unavailable": Availability.UNAVAILABLE,
}


def offer_of(line: api.Line, disk_gib: int | None, now: datetime, rates: Mapping[str, Decimal]) -> Offer:
    """A line with a disk of the usual size or, if it can have that, of so many GB.

    Raises ``ValueError`` when it has no price that is certain.
    """
    from gpucloud_primeintellect.api import COMMUNITY, NO_GPU, SECURE

    has_gpus = line.gpu_type != NO_GPU
    if line.gpu_count is None or (has_gpus and not line.gpu_count):
        raise ValueError(f"{line.cloud_id} has an unknown number of GPUs")
    disk = disk_of(line, disk_gib)
    amount = _price(line, disk)
    is_sxm = line.socket.upper().startswith("SXM")
    linked = "nvlink" if is_sxm and line.gpu_count > 1 else None
    return Offer(
        provider=NAME,
        instance_type=type_name(line.provider, line.gpu_count, line.gpu_type),
        market=Market.SPOT if line.is_spot else Market.ON_DEMAND,
        usd_per_hour=to_usd(amount, line.prices.currency, rates).usd,
        amount=amount,
        currency=line.prices.currency,
        as_of=now,
        source="api.primeintellect.ai",
        gpu=named(f"{line.gpu_type} {line.socket}") if has_gpus else None,
        gpu_count=line.gpu_count if has_gpus else 0,
        region=line.region,
        zone=line.data_center,
        country=line.country if re.fullmatch("[A-Z]{2}", line.country or "") else None,
        availability=STOCK.get(line.stock_status or "", Availability.UNKNOWN),
        availability_detail=line.stock_status,
        vcpus=line.vcpu.default_count or None,
        memory_gib=Decimal(line.memory.default_count) if line.memory.default_count else None,
        disk_gib=Decimal(disk) if disk else None,
        interconnect=line.interconnect_type.lower() if line.interconnect_type else linked,
        inet_down_mbps=line.internet_speed or None,
        secure={SECURE: True, COMMUNITY: False}.get(line.security),
        upstream=None if line.provider in OWN else seller(line.provider),
        minimum_s=int(line.prepaid_time * SECONDS) if line.prepaid_time else None,
        ref=f"{line.cloud_id} {line.socket} {line.security}",
    )


def type_name(provider: str, count: int, gpu_type: str) -> str:
    """What a machine is called here; ``launch`` reads it again."""
    return f"{provider}/{count}x{gpu_type}"


def _price(line: api.Line, disk: int | None) -> Decimal:
    """The sum for an hour, in the line's currency. Raises ``ValueError`` when it is not certain."""
    from gpucloud_primeintellect.api import COMMUNITY, SECURE

    prices = {SECURE: line.prices.on_demand, COMMUNITY: line.prices.community_price}
    price = prices.get(line.security)
    if price is None:
        raise ValueError(f"{line.cloud_id} has no price in the {line.security}")
    beside = [
        (line.disk, disk),
        (line.vcpu, line.vcpu.default_count),
        (line.memory, line.memory.default_count),
    ]
    if line.shared_disk and line.shared_disk.default_count:
        beside.append((line.shared_disk, line.shared_disk.default_count))
    for part, count in beside:
        if count is None:
            raise ValueError(f"{line.cloud_id} does not tell all that it comes with")
        price += _on_top(part, count)
    return price


def _on_top(part: api.Part, count: int) -> Decimal:
    """What so much of a part costs beside the price. Raises ``ValueError`` when that is left open."""
    if part.default_included_in_price:
        return Decimal(0)
    if part.price_per_unit and part.default_included_in_price is None:
        raise ValueError("it is left open what is in the price")
    if part.price_per_unit is None and part.default_included_in_price is False:
        raise ValueError("something costs on top, and it is left open how much")
    return count * (part.price_per_unit or Decimal(0))


def disk_of(line: api.Line, wanted: int | None) -> int | None:
    """The GB of disk that it can have and that are enough, or else the usual ones."""
    part = line.disk
    usual, most = part.default_count, part.max_count
    if not wanted or usual is None or wanted <= usual:
        return usual
    # Where the usual disk is in the price, it is not told what a larger one costs.
    if most is None or not part.price_per_unit or part.default_included_in_price is not False:
        return usual
    least, step = part.min_count or 0, part.step or 1
    size = least + -(-(wanted - least) // step) * step
    return size if size <= most else usual
