"""Shadeform's words: where its instance types are, and what it says of one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel, Field, model_validator

URL: Final = "https://api.shadeform.ai"
PATH: Final = "v1/instances/types"

ON_DEMAND: Final = "on_demand"
SPOT: Final = "spot"


class Place(BaseModel):
    """A type in a region, sold in one way; one that is not told is on demand.

    ``hourly_price`` is in dollars, and told of spot only.
    """

    region: str = Field(min_length=1)
    available: bool | None = None
    display_name: str | None = None
    rental_type: str | None = None
    hourly_price: Decimal | None = Field(default=None, lt=10**9)


class Configuration(BaseModel):
    """What an instance consists of; ``vram_per_gpu_in_gb`` is of one GPU, the rest of the whole."""

    gpu_type: str = ""
    num_gpus: int = Field(ge=0, le=10_000)
    vram_per_gpu_in_gb: Decimal | None = Field(default=None, ge=0, lt=10**9)
    interconnect: str | None = None
    nvlink: bool | None = None
    vcpus: int | None = Field(default=None, ge=0, le=10**6)
    memory_in_gb: Decimal | None = Field(default=None, ge=0, lt=10**9)
    storage_in_gb: Decimal | None = Field(default=None, ge=0, lt=10**9)


class InstanceType(BaseModel):
    """One type of one cloud. ``hourly_price`` is in whole cents for the instance, on demand."""

    cloud: str = Field(min_length=1)
    shade_instance_type: str = Field(min_length=1)
    cloud_instance_type: str = ""
    deployment_type: str = ""
    hourly_price: int | None = Field(default=None, lt=10**9)
    configuration: Configuration
    availability: list[Any]

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, row: Any) -> Any:
        """What the configuration lacks may stand beside it."""
        inner = row.get("configuration") or {} if isinstance(row, dict) else None
        return {**row, "configuration": {**row, **inner}} if isinstance(inner, dict) else row


class Reply(BaseModel):
    """All types; each is read for itself, so that a malformed one does not cost the others."""

    instance_types: list[Any]
