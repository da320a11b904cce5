"""Hyperstack's words: endpoints and replies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, Field, TypeAdapter

from gpucloud.wire import Amount, Count, Moment, Price, Text

FLAVORS: Final = "v1/core/flavors"
STOCKS: Final = "v1/core/stocks"
PRICEBOOK: Final = "v1/pricebook"
IMAGES: Final = "v1/core/images"
ENVIRONMENTS: Final = "v1/core/environments"
KEYPAIRS: Final = "v1/core/keypairs"
KEYPAIR: Final = "v1/core/keypair"
MACHINES: Final = "v1/core/virtual-machines"

PAGE_SIZE: Final = 100

PriceBook: Final[TypeAdapter[list[Any]]] = TypeAdapter(list[Any])


class Line(BaseModel):
    """What one of something costs for an hour in US dollars, to this account."""

    name: str
    value: Price = None
    start_time: datetime | None = None
    end_time: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is the price at this time; its times are UTC."""
        times = (self.start_time, self.end_time)
        begins, ends = (when and when.replace(tzinfo=when.tzinfo or UTC) for when in times)
        return (begins is None or begins <= now) and (ends is None or now < ends)


class Features(BaseModel):
    """What a flavor cannot do."""

    no_hibernation: bool | None = None


class Flavor(BaseModel):
    """An instance type in one region. ``ram`` is in GB, as ``disk`` is, which is the root disk."""

    name: str = Field(min_length=1)
    region_name: str = Field(min_length=1)
    gpu: str = ""
    gpu_count: Count = None
    cpu: Count = None
    ram: Amount = None
    disk: Count = None
    stock_available: bool | None = None


class FlavorGroup(BaseModel):
    """The flavors with one GPU in one region."""

    gpu: str
    flavors: list[Any]


class Flavors(BaseModel):
    """All of them."""

    data: list[Any]


class Model(BaseModel):
    """How many machines with so many (``8x``) of a GPU could be made now."""

    model: str
    configurations: dict[str, Count] | None = None


class Stock(BaseModel):
    """What is left in one region."""

    region: str
    models: list[Model] = []


class Stocks(BaseModel):
    """What is left in all of them."""

    stocks: list[Stock]


class Restrictions(BaseModel):
    """Whether an image is made for some flavors alone."""

    has_flavor_restrictions: bool | None = None


class Image(BaseModel):
    """An image, which is named ``Ubuntu Server 24.04 LTS R570 CUDA 12.8 with Docker``."""

    name: str = Field(min_length=1)
    is_public: bool | None = None
    flavor_restrictions: Restrictions | None = None


class ImageGroup(BaseModel):
    """The images of one kind in one region."""

    images: list[Image] = []


class Images(BaseModel):
    """All of them."""

    images: list[ImageGroup]


class Page(BaseModel):
    """What is said of a part of a listing, beside the part itself."""

    page_size: Count = None
    count: Count = None


class Environment(BaseModel):
    """What machines and key pairs live in."""

    id: int
    name: str = ""
    region: str = ""


class KeyPair(BaseModel):
    """A public key in an environment."""

    id: int
    name: str = ""
    public_key: str = ""
    environment: Environment | None = None


class ImportedKeyPair(BaseModel):
    """The one that was made."""

    keypair: KeyPair


class MachineFlavor(BaseModel):
    """What a machine is made of."""

    name: Text = None
    gpu: str | None = None
    features: Features | None = None


class MachineEnvironment(BaseModel):
    """Where it is."""

    region: Text = None


class Rule(BaseModel):
    """Who may reach a machine, at which ports."""

    direction: str = ""
    remote_ip_prefix: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None


class Machine(BaseModel):
    """One machine; ``floating_ip`` is its public address, once it has one."""

    id: int
    status: str
    fixed_ip: Text = None
    floating_ip: Text = None
    port_randomization: bool | None = None
    labels: list[str] | None = None
    created_at: Moment = None
    environment: MachineEnvironment | None = None
    flavor: MachineFlavor | None = None
    security_rules: list[Rule] | None = None


class One(BaseModel):
    """What a reply about one machine stands in."""

    instance: Machine


class Made(BaseModel):
    """The id of a machine that was made, of which nothing else has to be right."""

    id: int


class Launched(BaseModel):
    """Those that were made."""

    instances: list[Made] = Field(min_length=1)
