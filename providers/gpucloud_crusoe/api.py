"""Crusoe's words: endpoints and replies."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, Field

from gpucloud.wire import Count, Text

USER: Final = "users/identities"
PROJECTS: Final = "organizations/projects"
CAPACITIES: Final = "capacities"
IMAGES: Final = "compute/images"
QUOTAS: Final = "projects/{project}/quotas"
TYPES: Final = "projects/{project}/compute/vms/types"
INSTANCES: Final = "projects/{project}/compute/vms/instances"
INSTANCE: Final = "projects/{project}/compute/vms/instances/{id}"
OPERATION: Final = "projects/{project}/compute/vms/instances/operations/{id}"

D = TypeVar("D")


class Items(BaseModel, Generic[D]):
    """What every listing stands in."""

    items: list[D]
    next_page_token: Text = None


Rows = Items[Any]
"""A listing, whose rows are read one by one."""


class Identity(BaseModel):
    """A person."""

    email: str


class User(BaseModel):
    """Whose keys they are."""

    identity: Identity


class Project(BaseModel):
    """A project, to which machines belong."""

    id: str = Field(min_length=1)
    name: str


class Type(BaseModel):
    """What can be rented; ``disk_gb`` is of its own disks, and 0 without any."""

    product_name: str = Field(min_length=1)
    gpu_type: str = ""
    num_gpu: int = Field(ge=0, le=1000, strict=True)
    cpu_cores: Count = None
    memory_gb: Count = None
    disk_gb: Count = None


class Capacity(BaseModel):
    """So many machines of a type that are free in a place; each takes ``num_slices`` of a quota."""

    type: str
    location: str
    # True would be one.
    quantity: int = Field(ge=0, strict=True)
    num_slices: Count = None
    quota_type: str = ""


class Quota(BaseModel):
    """What is left of a quota."""

    type: str = ""
    available: int | None = None


class Quotas(BaseModel):
    """All quotas of a project, each of which is read for itself."""

    quotas: list[Any] | None = None


class Image(BaseModel):
    """A system to start from, such as ``ubuntu22.04-nvidia-sxm-docker``; without ``locations`` everywhere."""

    name: str = Field(min_length=1)
    tags: list[str] = []
    locations: list[str] = []


class Address(BaseModel):
    """An address, or none yet."""

    address: Text = None


class Addresses(BaseModel):
    """Those of a network card."""

    public_ipv4: Address | None = None
    private_ipv4: Address | None = None


class Card(BaseModel):
    """A network card."""

    ips: list[Addresses] = []


class Instance(BaseModel):
    """One machine. ``billing_type`` is ``On-demand`` or ``Spot``."""

    id: str = Field(min_length=1)
    name: str
    state: str
    type: str | None = None
    location: str | None = None
    billing_type: str | None = None
    network_interfaces: list[Card] = []


class Result(BaseModel):
    """What an operation has come to; a code is only of one that failed."""

    code: str = ""
    message: str = ""


class Made(BaseModel):
    """What an operation is about."""

    id: str = Field(min_length=1)


class Operation(BaseModel):
    """Something that goes on after its request has been answered."""

    operation_id: str = Field(min_length=1)
    state: str
    metadata: Any = None
    result: Any = None


class Begun(BaseModel):
    """The answer to such a request."""

    operation: Operation


FAILED: Final = "FAILED"
UNDER_WAY: Final = "IN_PROGRESS"
