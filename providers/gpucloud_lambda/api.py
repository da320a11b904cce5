"""Lambda's words: endpoints and replies."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, Field

from gpucloud.wire import Count, Price, Text

INSTANCE_TYPES: Final = "api/v1/instance-types"
INSTANCES: Final = "api/v1/instances"
OPERATIONS: Final = "instance-operations"
LAUNCH: Final = f"api/v1/{OPERATIONS}/launch"
TERMINATE: Final = f"api/v1/{OPERATIONS}/terminate"
SSH_KEYS: Final = "api/v1/ssh-keys"

D = TypeVar("D")


class Data(BaseModel, Generic[D]):
    """What every reply that is no refusal stands in."""

    data: D


class Specs(BaseModel):
    """What one instance has."""

    vcpus: Count = None
    memory_gib: Count = None
    storage_gib: Count = None
    gpus: int = Field(ge=0, le=1000)


class InstanceType(BaseModel):
    """``gpu_description`` is ``H100 (80 GB SXM5)``."""

    name: str = Field(min_length=1)
    gpu_description: str = ""
    price_cents_per_hour: Price = None
    specs: Specs


class Region(BaseModel):
    """A place, such as ``us-west-1``."""

    name: str = Field(min_length=1)


class Listed(BaseModel):
    """An instance type, and where some are left."""

    instance_type: InstanceType
    regions_with_capacity_available: list[Region]


class Tag(BaseModel):
    """A tag of an instance."""

    key: str
    value: str


class Instance(BaseModel):
    """One machine; ``ip`` is missing until it has one."""

    id: str = Field(min_length=1)
    status: str
    ip: Text = None
    private_ip: Text = None
    region: Region
    instance_type: InstanceType | None = None
    tags: list[Tag] = []


class SshKey(BaseModel):
    """A public key of the account."""

    id: str
    name: str
    public_key: str


class Launched(BaseModel):
    """The ids of what was made."""

    instance_ids: list[str] = Field(min_length=1)


Rows = Data[list[Any]]
"""A listing, whose rows are read one by one."""
