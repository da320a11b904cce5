"""What Crusoe offers: its types where some are free, at prices that ship here, as its API has none."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gpucloud.catalog.names import named
from gpucloud.model import Availability, Market, Offer

if TYPE_CHECKING:
    from gpucloud_crusoe.api import Capacity, Type

PRICES: Final = Path(__file__).with_name("prices.csv")
GB: Final = 10**9
GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Price:
    """What one GPU costs an hour, in dollars, who says so, and of which day."""

    usd: Decimal
    as_of: datetime
    source: str


@cache
def prices() -> Mapping[str, Price]:
    """By Crusoe's own name of the GPU, such as ``H100-SXM-80GB``."""
    with PRICES.open(encoding="utf-8", newline="") as file:
        return {
            row["gpu_type"]: Price(
                Decimal(row["usd_per_gpu_hour"]),
                datetime.fromisoformat(row["as_of"]).replace(tzinfo=UTC),
                row["source"],
            )
            for row in csv.DictReader(file)
        }


def offers_of(
    provider: str, kind: Type, capacities: Sequence[Capacity], quotas: Mapping[str, int]
) -> Iterator[Offer]:
    """A type in each place that is told of it; none of what has no known price.

    ``quotas`` is how much is left of each. Of several figures for one place the highest is meant.
    """
    price = prices().get(kind.gpu_type)
    if price is None or not kind.num_gpu:
        return
    usd = price.usd * kind.num_gpu
    places = {free.location: free for free in sorted(capacities, key=_quantity)}
    for place in places.values() or [None]:
        yield Offer(
            provider=provider,
            instance_type=kind.product_name,
            market=Market.ON_DEMAND,
            usd_per_hour=usd,
            amount=usd,
            as_of=price.as_of,
            source=price.source,
            confidence="published",
            gpu=named(kind.gpu_type),
            gpu_count=kind.num_gpu,
            region=place.location if place else None,
            availability=_availability(place, quotas),
            availability_detail=f"{place.quantity} free" if place else None,
            vcpus=kind.cpu_cores or None,
            memory_gib=Decimal(kind.memory_gb) if kind.memory_gb else None,
            disk_gib=round(Decimal(kind.disk_gb) * GB / GIB, 2) if kind.disk_gb else None,
            interconnect="infiniband" if "-ib." in kind.product_name else None,
        )


def _quantity(place: Capacity) -> int:
    return place.quantity


def _availability(place: Capacity | None, quotas: Mapping[str, int]) -> Availability:
    """Whether there are some in a place, and the project may have one more."""
    if place is None or not place.quantity:
        return Availability.UNAVAILABLE
    left = quotas.get(place.quota_type)
    if left is not None and left < (place.num_slices or 1):
        return Availability.NO_QUOTA
    return Availability.AVAILABLE
