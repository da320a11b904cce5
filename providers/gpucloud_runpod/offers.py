"""How RunPod's types of GPU, so many of them in one pod of one cloud, are offers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final

from gpucloud.catalog.names import named, normalise
from gpucloud.model import Availability, Gpu, Market, Offer

NAME: Final = "runpod"

SECURE: Final = "SECURE"
COMMUNITY: Final = "COMMUNITY"
CLOUDS: Final = (SECURE, COMMUNITY)
"""RunPod's own data centres, and machines of its partners."""

DISK_USD: Final = Decimal("0.10")
"""A GB and month of disk while a pod runs: https://docs.runpod.io/pods/storage, 2026-11-21."""

PLACEHOLDER: Final = "unknown"
"""The type of GPU that is none."""

STOCK: Final = {
    "high": Availability.AVAILABLE,
    "medium": Availability.AVAILABLE,
    "low": Availability.LIMITED,
    "out": Availability.UNAVAILABLE,
    "none": Availability.UNAVAILABLE,
}


def lines(row: Any, cloud: str, count: int, now: datetime) -> Iterator[Offer]:
    """One type in one cloud and number. Raises ``ValueError`` where the row is malformed."""
    from gpucloud_runpod.api import GpuType

    kind, secure = GpuType.model_validate(row), cloud == SECURE
    sold, price, most = (
        (kind.secure, kind.price.secure, kind.max_count.secure)
        if secure
        else (kind.community, kind.price.community, kind.max_count.community)
    )
    # Of a number that is not told only one is sure.
    if not sold or price is None or count > (1 if most is None else most) or kind.id == PLACEHOLDER:
        return
    versions = [version.version for version in kind.cuda_versions if version.available]
    # What any machine has of those that are free.
    cuda = Decimal(min(versions, key=_parts)) if versions else None
    line = partial(
        pod,
        price,
        gpu=gpu_named(kind.id, kind.name, kind.memory),
        gpu_count=count,
        now=now,
        instance_type=instance_type(kind.id, count, cloud),
        ref=kind.id,
        cuda=cuda,
        secure=secure,
    )
    places = kind.data_centers if secure else []
    for place in places:
        yield line(
            region=place.id,
            country=_country(place.id),
            availability=stock(place.availability),
            availability_detail=place.availability,
        )
    if not places:
        word = kind.availability
        left = stock(word) if word else Availability.UNKNOWN
        yield line(availability=left, availability_detail=word)


def pod(price: Decimal, *, gpu: Gpu, gpu_count: int, now: datetime, **more: Any) -> Offer:
    """A pod with GPUs of which one costs ``price``; ``more`` are the other fields."""
    told = {"market": Market.ON_DEMAND, "confidence": "live", **more}
    return Offer(
        provider=NAME,
        usd_per_hour=price * gpu_count,
        amount=price * gpu_count,
        as_of=now,
        source="api.runpod.io",
        gpu=gpu,
        gpu_count=gpu_count,
        any_disk=True,
        disk_usd_per_gib_month=DISK_USD,
        interconnect="nvlink" if gpu_count > 1 and gpu.form_factor == "SXM" else None,
        **told,
    )


def gpu_named(kind: str, name: str | None, memory_gb: Decimal | None) -> Gpu:
    """One GPU, by the name that people see, or else by the other one."""
    text = name or kind
    known = normalise(text, memory_gib=memory_gb) or normalise(kind, memory_gib=memory_gb)
    return known or named(text, memory_gib=memory_gb)


def stock(word: str) -> Availability:
    """What is left, by RunPod's word for it."""
    return STOCK.get(word.lower(), Availability.UNKNOWN)


def instance_type(kind: str, count: int, cloud: str | None) -> str:
    """What RunPod has no word for: so many of one type of GPU in one pod, in one cloud."""
    return f"{count}x {kind}" + (" community" if cloud == COMMUNITY else "")


def _country(data_center: str) -> str | None:
    """The country of ``EU-RO-1`` or ``US-TX-3``; Americans and Canadians name their states instead."""
    area, _, rest = data_center.partition("-")
    if area in {"US", "CA"}:
        return area
    found = re.match(r"[A-Z]{2}(?=-|$)", rest)
    return found[0] if found else None


def _parts(version: str) -> tuple[int, ...]:
    """``12.11`` comes after ``12.2``."""
    return tuple(map(int, version.split(".")))
