"""What Hot Aisle offers, which has no names there: ours are put together from what a machine has."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.catalog.names import named
from gpucloud.model import Availability, Market, Offer

if TYPE_CHECKING:
    from gpucloud_hotaisle.api import Specs

CENTS: Final = 100
GIB: Final = 2**30


def to_offer(provider: str, row: Any, now: datetime) -> Offer:
    """One kind of machine. Raises ``ValueError`` when there is no price."""
    from gpucloud_hotaisle.api import Available, Specs

    told = Available.model_validate(row)
    specs = Specs.model_validate(told.specs)
    if told.price_cents is None:
        raise ValueError("it has no price")
    usd, gpus = told.price_cents / CENTS, specs.gpu_count
    return Offer(
        provider=provider,
        instance_type=name_of(specs),
        market=Market.ON_DEMAND,
        usd_per_hour=usd,
        amount=usd,
        as_of=now,
        source="admin.hotaisle.app",
        gpu=named(specs.gpus[0].model) if specs.gpus and gpus else None,
        gpu_count=gpus,
        availability=_availability(told.quantity),
        availability_detail=None if told.quantity is None else f"{told.quantity} free",
        vcpus=specs.cpu_cores or None,
        memory_gib=_gib(specs.ram_capacity),
        disk_gib=_gib(specs.disk_capacity),
        minimum_s=None if told.minimum_minutes is None else told.minimum_minutes * 60,
    )


def name_of(specs: Specs) -> str:
    """Such as ``8x-mi300x-104c-1792g-12288g-xeon-platinum-8470``."""
    model = specs.gpus[0].model if specs.gpus else ""
    gpu = f"{specs.gpu_count}x {model} " if specs.gpu_count else ""
    sizes = f"{specs.cpu_cores}c {specs.ram_capacity // GIB}g {specs.disk_capacity // GIB}g"
    cpu = specs.cpus.model if specs.cpus else ""
    return re.sub("[^a-z0-9]+", "-", f"{gpu}{sizes} {cpu}".lower()).strip("-")


def _availability(quantity: int | None) -> Availability:
    if quantity is None:
        return Availability.UNKNOWN
    return Availability.AVAILABLE if quantity else Availability.UNAVAILABLE


def _gib(count: int) -> Decimal | None:
    return round(Decimal(count) / GIB, 2) if count else None
