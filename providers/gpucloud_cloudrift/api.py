"""CloudRift's words: how its instance types are asked for, and what it says of one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel, Field

URL: Final = "https://api.cloudrift.ai"
PATH: Final = "api/v1/instance-types/list"
VERSION: Final = "2026-09-08"
"""The protocol: https://docs.cloudrift.ai/changelog/2026."""

MOST_BYTES: Final = 2**60

REQUEST: Final = {
    "version": VERSION,
    "data": {"selector": {"ByServiceAndLocation": {"services": ["vm"]}}},
}


class Datacenter(BaseModel):
    """A data centre; ``country_code`` is ``US``."""

    name: str
    country_code: str | None = None


class Addresses(BaseModel):
    """Whether machines in a data centre can have public addresses."""

    public_ips: bool | None = None


class Variant(BaseModel):
    """What can be rented. ``cost_per_hour`` is in cents for the whole; memories and disk are bytes.

    ``vram`` is the memory of one GPU; ``mig_profile`` is said of a part of one, such as ``1g.10gb``. Numbers
    of nodes are by data centre.
    """

    name: str = Field(min_length=1)
    cost_per_hour: Decimal = Field(lt=10**9)
    gpu_count: int | None = Field(default=None, ge=0, le=10_000)
    vram: int | None = Field(default=None, ge=0, le=MOST_BYTES)
    mig_profile: str | None = None
    logical_cpu_count: int | None = Field(default=None, ge=0, le=10**6)
    dram: int | None = Field(default=None, ge=0, le=MOST_BYTES)
    disk: int | None = Field(default=None, ge=0, le=MOST_BYTES)
    available_nodes: int | None = None
    nodes_per_dc: dict[str, int] | None = None
    available_nodes_per_dc: dict[str, int] | None = None
    ip_availability_per_dc: dict[str, Addresses] | None = None


class InstanceType(BaseModel):
    """Variants of one kind of machine; ``brand_short`` is ``RTX PRO 6000``."""

    name: str
    brand_short: str | None = None
    datacenters: list[Datacenter] | None = None
    variants: list[Any]


class Data(BaseModel):
    """Every instance type; each is read for itself, so that a malformed one does not cost the others."""

    instance_types: list[Any]


class Reply(BaseModel):
    """The envelope of every reply."""

    data: Data
