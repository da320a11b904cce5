"""Verda's words: where its instance types are, and what it says of one."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

URL: Final = "https://api.verda.com"
PATH: Final = "v1/instance-types"
CURRENCY: Final = "usd"


def _price(value: object) -> Decimal | None:
    """A decimal string, or a number; ``None`` for what is no price."""
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        return None
    return price if price.is_finite() and 0 < price < 10**9 else None


Price = Annotated[Decimal | None, BeforeValidator(_price)]


class Cpu(BaseModel):
    """The processors of an instance."""

    number_of_cores: int | None = Field(default=None, ge=0, le=10**6)


class Gpus(BaseModel):
    """``description`` is ``8x H100 SXM5 80GB``."""

    description: str = ""
    number_of_gpus: int = Field(ge=0, le=10_000)


class Memory(BaseModel):
    """Memory of the whole instance."""

    size_in_gigabytes: Decimal | None = Field(default=None, ge=0, lt=10**9)


class InstanceType(BaseModel):
    """One row. Prices are per hour of the whole instance, in ``currency``."""

    instance_type: str = Field(min_length=1)
    name: str | None = None
    model: str | None = None
    gpu: Gpus | None = None
    gpu_memory: Memory | None = None
    cpu: Cpu | None = None
    memory: Memory | None = None
    price_per_hour: Price = None
    spot_price: Price = None
    currency: str | None = None
    best_for: list[str] | None = None


Reply: Final[TypeAdapter[list[Any]]] = TypeAdapter(list[Any])
"""All rows; each is read for itself, so that one that is malformed does not cost the others."""
