"""CloudRift's words: what is asked of it, what it says of types, images and instances."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, Field

from gpucloud.wire import Price, Text

URL: Final = "https://api.cloudrift.ai"
PATH: Final = "api/v1/instance-types/list"
USER: Final = "api/v1/auth/me"
RECIPES: Final = "api/v1/recipes/list"
RENT: Final = "api/v1/instances/rent"
INSTANCES: Final = "api/v1/instances/list"
TERMINATE: Final = "api/v1/instances/terminate"
VERSION: Final = "2026-09-08"
"""The protocol, which renting wants to be of this date at least: https://docs.cloudrift.ai/changelog/2026."""

MOST_BYTES: Final = 2**60


def asked(data: Any) -> dict[str, Any]:
    """What every request is; the version has to come first."""
    return {"version": VERSION, "data": data}


SERVICES: Final = {"services": ["vm"]}
REQUEST: Final = asked({"selector": {"ByServiceAndLocation": SERVICES}})
SHOWN: Final = ("Initializing", "Active", "Deactivating", "Failed")
MOST_LISTED: Final = 10_000
"""More instances than this are not asked for; without a number the vendor tells fewer than there are."""


D = TypeVar("D")


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
    gpu_count: int | None = Field(default=None, ge=0, le=10_000, strict=True)
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
    """Variants of one kind of machine; ``brand_short`` is ``RTX PRO 6000``.

    ``nvidia_kernel_module_support`` is ``ProprietaryOnly`` where only images with that driver start.
    """

    name: str
    brand_short: str | None = None
    manufacturer: str | None = None
    nvidia_kernel_module_support: str | None = None
    datacenters: list[Datacenter] | None = None
    variants: list[Any]


class Told(BaseModel, Generic[D]):
    """The envelope of every reply."""

    data: D


class Types(BaseModel):
    """Every instance type; each is read for itself, so that a malformed one does not cost the others."""

    instance_types: list[Any]


class User(BaseModel):
    """Whose key it is."""

    email: str


class Image(BaseModel):
    """Where an image is; ``cloudinit_url`` goes with it where there is one."""

    image_url: str = Field(min_length=1)
    cloudinit_url: Text = None


class Details(BaseModel):
    """What a recipe makes; of a container it has no image."""

    virtual_machine: Image | None = Field(default=None, alias="VirtualMachine")


class Recipe(BaseModel):
    """A way to set up an instance; ``name`` is ``Ubuntu 24.04 Server (NVidia)``."""

    name: str
    tags: list[str] = []
    details: Details


class Group(BaseModel):
    """Recipes that belong together, each of which is read for itself."""

    recipes: list[Any]


class Recipes(BaseModel):
    """All recipes."""

    groups: list[Group]


class Login(BaseModel):
    """Whom a machine lets in."""

    username: Text = None


class Machine(BaseModel):
    """The virtual machine of an instance; ``login_info`` has one key, such as ``Username``."""

    ready: bool = False
    state: str = ""
    login_info: dict[str, Login] | None = None


class Resource(BaseModel):
    """What was rented; the price is in cents."""

    instance_type: Text = None
    cost_per_hour: Price = None


class Instance(BaseModel):
    """One rental. ``tags`` are missing in the document, and told since 2026-09."""

    id: str = Field(min_length=1)
    status: str
    tags: list[str] | None = None
    instance_name: Text = None
    host_address: Text = None
    internal_host_address: Text = None
    port_mappings: list[list[int]] | None = None
    virtual_machines: list[Machine] = []
    resource_info: Resource | None = None


class Instances(BaseModel):
    """Rentals, each of which is read for itself."""

    instances: list[Any]


class Rented(BaseModel):
    """The ids of what was made; none where there was no room."""

    instance_ids: list[str]
