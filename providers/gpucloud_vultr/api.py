"""Vultr's words: endpoints and replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from gpucloud.wire import Amount, Text

URL: Final = "https://api.vultr.com"
REGIONS: Final = "v2/regions"
INSTANCES: Final = "v2/instances"
BARE_METALS: Final = "v2/bare-metals"
SSH_KEYS: Final = "v2/ssh-keys"
FIREWALLS: Final = "v2/firewalls"
SYSTEMS: Final = "v2/os"
PER_PAGE: Final = 500

PLANS: Final[Mapping[str, int]] = {"v2/plans": 730, "v2/plans-metal": 672}
"""The lists of plans, and for how many hours a price by the month is in each."""

DEDICATED: Final = "vdm"
"""The type of machines whose locations, and GPUs, are not told in full."""

METAL: Final = "vbm"
"""The type of bare metal, with which the names of its plans begin."""

NO_BRAND: Final = "none"


def _mapping(value: object) -> object:
    """An empty mapping is told as an empty list."""
    return value or {}


class Costs(BaseModel):
    """Dollars for the whole plan."""

    hourly_cost: Amount = None
    monthly_cost: Amount = None
    hourly_cost_preemptible: Amount = None
    monthly_cost_preemptible: Amount = None


class Plan(Costs):
    """One plan, virtual or bare metal; what is told of only one kind is missing in the other."""

    id: str = Field(min_length=1)
    type: str | None = None
    gpu_brand: str | None = None
    gpu_type: str | None = None
    gpu_count: int | str | None = None
    gpu_vram_gb: Amount = None
    vcpu_count: Amount = None
    cpu_threads: Amount = None
    ram: Amount = None
    disk: Amount = None
    disk_count: Amount = None
    deploy_ondemand: bool | None = None
    deploy_preemptible: bool | None = None
    locations: list[str | None] | None = None
    location_cost: Annotated[dict[str, Costs], BeforeValidator(_mapping)] = Field(default_factory=dict)


class Region(BaseModel):
    """One location, of which the country is told."""

    id: str = Field(min_length=1)
    country: str = Field(pattern="^[A-Z]{2}$")


LISTS: Final = (
    "plans",
    "plans_metal",
    "regions",
    "instances",
    "bare_metals",
    "ssh_keys",
    "firewall_groups",
    "firewall_rules",
    "os",
)
"""What the rows of a list are called."""


class Links(BaseModel):
    """``next`` is the cursor of the next page."""

    next: str | None = None


class Meta(BaseModel):
    """Where the other pages are."""

    links: Links = Field(default_factory=Links)


class Page(BaseModel):
    """A page of a list; each row is read for itself, so that one malformed does not cost the others."""

    rows: list[Any] = Field(validation_alias=AliasChoices(*LISTS))
    meta: Meta = Field(default_factory=Meta)


class Stock(BaseModel):
    """The plans of which a location has some left."""

    available_plans: list[str]


class Server(BaseModel):
    """One machine; bare metal has no power status, no health and no firewall.

    ``main_ip`` is ``0.0.0.0`` until it has one.
    """

    id: str = Field(min_length=1)
    status: str
    power_status: Text = None
    server_status: Text = None
    main_ip: Text = None
    internal_ip: Text = None
    region: Text = None
    plan: Text = None
    label: str
    tags: list[str] = []
    firewall_group_id: Text = None


class OneServer(BaseModel):
    """A machine that was asked for."""

    server: Server = Field(validation_alias=AliasChoices("instance", "bare_metal"))


class Made(BaseModel):
    """Something that has just been made, of which the id is what matters."""

    id: str = Field(min_length=1)


class Answer(BaseModel):
    """What answers the making of something. Of bare metal there are two spellings."""

    made: Made = Field(
        validation_alias=AliasChoices("instance", "bare_metal", "baremetal", "ssh_key", "firewall_group")
    )


class SshKey(BaseModel):
    """A public key of the account."""

    id: str = Field(min_length=1)
    name: str
    ssh_key: str


class Group(BaseModel):
    """A firewall group; its description is what it is known by."""

    id: str = Field(min_length=1)
    description: str
    instance_count: int | None = None


class OneGroup(BaseModel):
    """A firewall group that was asked for."""

    firewall_group: Group


class Rule(BaseModel):
    """What a firewall group lets in."""

    subnet: str
    subnet_size: int


class System(BaseModel):
    """An operating system, such as ``Ubuntu 22.04 LTS x64``."""

    id: int
    name: str
