"""The replies of acme, in its own words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import AwareDatetime, BaseModel

from gpucloud.model import Market

TYPES = "v1/types"
INSTANCES = "v1/instances"
RESOURCES = "v1/resources"


class Page(BaseModel):
    """A part of a listing; ``next`` is the cursor of the following one."""

    items: list[Any]
    next: str | None = None


class Type(BaseModel):
    """A line of the price list; ``available`` is null where acme does not say."""

    name: str
    gpu: str | None = None
    gpus: int = 0
    region: str
    market: Market
    usd_per_hour: Decimal
    available: bool | None = None


class Ssh(BaseModel):
    """Where SSH answers."""

    host: str
    port: int = 22
    user: str = "root"


class Thing(BaseModel):
    """An instance, or something beside one."""

    id: str
    kind: str
    status: str
    region: str
    type: str = ""
    market: Market
    tags: dict[str, str] = {}
    usd_per_hour: Decimal
    created_at: AwareDatetime
    ssh: Ssh | None = None
