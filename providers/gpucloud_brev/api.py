"""Brev's words: where its instance types are, and what it says of one."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel, Field

from gpucloud.quantities import parse_gib

URL: Final = "https://api.brev.dev"
PATH: Final = "v1/instance/types"


class Money(BaseModel):
    """An amount as text, and its currency."""

    currency: str = "USD"
    amount: Decimal = Field(lt=10**9)


class Bytes(BaseModel):
    """A size in parts: 22888 and ``MiB``."""

    value: int = Field(default=0, ge=0, lt=10**12)
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.value}{self.unit}"


class GpuKind(BaseModel):
    """``count`` GPUs; ``memory`` is that of one."""

    count: int = Field(ge=0, le=10_000)
    name: str = Field(min_length=1)
    memory: str | None = None
    memory_bytes: Bytes | None = None


class Storage(BaseModel):
    """A disk: of a fixed ``size``, or from ``min_size`` to ``max_size`` at a price per GB and hour."""

    count: int | None = None
    size: str | None = None
    min_size: str | None = None
    max_size: str | None = None
    price_per_gb_hr: Money | None = None


class InstanceType(BaseModel):
    """One type of one cloud.

    ``base_price`` is per hour of the whole instance, without a disk to choose. ``location_prices`` is from
    locations to other such prices.
    """

    type: str = Field(min_length=1)
    provider: str = Field(min_length=1)
    supported_gpus: list[GpuKind] | None = None
    supported_storage: list[Any] | None = None
    memory: str | None = None
    vcpu: int | None = Field(default=None, ge=0, le=10**6)
    base_price: Money | None = None
    location_prices: Any = None
    location: str | None = None
    available_locations: list[str] | None = None
    is_available: bool | None = None
    preemptible: bool | None = None


class Reply(BaseModel):
    """All types; each is read for itself, so that a malformed one does not cost the others."""

    items: list[Any]


def gib(text: str | None) -> Decimal | None:
    """Read ``22GiB360MiB`` or ``2 TB``; ``None`` for nothing and for what is no size."""
    pieces = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([TGM]i?B)", text or "")
    return sum((parse_gib(number + unit) for number, unit in pieces), Decimal(0)) or None
