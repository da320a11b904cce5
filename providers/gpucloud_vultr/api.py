"""Vultr's words: where its plans and regions are, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

URL: Final = "https://api.vultr.com"
REGIONS: Final = "v2/regions"
PER_PAGE: Final = 500

PLANS: Final[Mapping[str, int]] = {"v2/plans": 730, "v2/plans-metal": 672}
"""The lists of plans, and for how many hours a price by the month is in each."""

DEDICATED: Final = "vdm"
"""The type of machines whose locations, and GPUs, are not told in full."""

NO_BRAND: Final = "none"


def _number(value: object) -> Decimal | None:
    """A number that is not negative; ``None`` for anything else."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number >= 0 else None


def _mapping(value: object) -> object:
    """An empty mapping is told as an empty list."""
    return value or {}


Number = Annotated[Decimal | None, BeforeValidator(_number)]


class Costs(BaseModel):
    """Dollars for the whole plan."""

    hourly_cost: Number = None
    monthly_cost: Number = None
    hourly_cost_preemptible: Number = None
    monthly_cost_preemptible: Number = None


class Plan(Costs):
    """One plan, virtual or bare metal; what is told of only one kind is missing in the other."""

    id: str = Field(min_length=1)
    type: str | None = None
    gpu_brand: str | None = None
    gpu_type: str | None = None
    gpu_count: int | str | None = None
    gpu_vram_gb: Number = None
    vcpu_count: Number = None
    cpu_threads: Number = None
    ram: Number = None
    disk: Number = None
    disk_count: Number = None
    deploy_ondemand: bool | None = None
    deploy_preemptible: bool | None = None
    locations: list[str | None] | None = None
    location_cost: Annotated[dict[str, Costs], BeforeValidator(_mapping)] = Field(default_factory=dict)


class Region(BaseModel):
    """One location, of which the country is told."""

    id: str = Field(min_length=1)
    country: str = Field(pattern="^[A-Z]{2}$")


class Links(BaseModel):
    """``next`` is the cursor of the next page."""

    next: str | None = None


class Meta(BaseModel):
    """Where the other pages are."""

    links: Links = Field(default_factory=Links)


class Page(BaseModel):
    """A page of a list; each row is read for itself, so that one malformed does not cost the others."""

    rows: list[Any] = Field(validation_alias=AliasChoices("plans", "plans_metal", "regions"))
    meta: Meta = Field(default_factory=Meta)
