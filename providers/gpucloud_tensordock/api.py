"""TensorDock's words: endpoints and replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, Field, model_validator

from gpucloud.wire import Amount, Count, Price, Text

LOCATIONS: Final = "api/v2/locations"
INSTANCES: Final = "api/v2/instances"
IMAGE: Final = "ubuntu2404"
"""What https://dashboard.tensordock.com/api/docs/instance-creation starts (2026-11-21)."""


def unwrapped(body: Any) -> Any:
    """A reply, or a part of it, without its envelopes ``data`` and ``attributes``."""
    if isinstance(body, Mapping) and "data" in body:
        body = body["data"]
    if isinstance(body, Mapping) and isinstance(body.get("attributes"), Mapping):
        return {**body["attributes"], "id": body.get("id")}
    return body


class Most(BaseModel):
    """The most that one machine can have."""

    max_vcpus: Count = None
    max_ram_gb: Count = None
    max_storage_gb: Count = None


class Rates(BaseModel):
    """Dollars an hour, each for one."""

    per_vcpu_hr: Amount = None
    per_gb_ram_hr: Amount = None
    per_gb_storage_hr: Amount = None


class Features(BaseModel):
    """How a machine can be reached."""

    dedicated_ip_available: bool = False


class Gpus(BaseModel):
    """One kind of GPU in one location; ``price_per_hr`` is for one of them."""

    v0_name: str = Field(alias="v0Name", min_length=1)
    display_name: Text = Field(default=None, alias="displayName")
    max_count: Count = None
    price_per_hr: Price = None
    resources: Most
    pricing: Rates
    network_features: Features = Features()


class Location(BaseModel):
    """A place, and what it has."""

    id: str = Field(min_length=1)
    city: Text = None
    country: Text = None
    gpus: list[Any]


class Locations(BaseModel):
    """All places; each is read for itself."""

    locations: list[Any]


class Instances(BaseModel):
    """All machines of the account."""

    instances: list[Any]


class Instance(BaseModel):
    """One machine; words for its ``status`` come in any case."""

    id: str = Field(min_length=1)
    name: str = ""
    status: str = ""
    ip_address: Text = Field(default=None, alias="ipAddress")
    rate_hourly: Price = Field(default=None, alias="rateHourly")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, body: Any) -> Any:
        return unwrapped(body)
