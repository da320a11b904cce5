"""Verda's words: endpoints and replies."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, TypeAdapter

from gpucloud.wire import Amount, Moment, Price, Text

URL: Final = "https://api.verda.com"
TOKEN: Final = "v1/oauth2/token"
INSTANCE_TYPES: Final = "v1/instance-types"
AVAILABILITY: Final = "v1/instance-availability"
LOCATIONS: Final = "v1/locations"
IMAGES: Final = "v1/images"
SSH_KEYS: Final = "v1/ssh-keys"
INSTANCES: Final = "v1/instances"
VOLUMES: Final = "v1/volumes"
VOLUME_TYPES: Final = "v1/volume-types"

CURRENCY: Final = "usd"
OS_VOLUME_TYPE: Final = "NVMe"

Rows: Final[TypeAdapter[list[Any]]] = TypeAdapter(list[Any])
"""A listing, which comes in one piece; its rows are read one by one."""

_UUID: Final = r"^\s*[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\s*$"


def _bare(value: Any) -> Any:
    # The vendor's own client for Go reads a reply to a create in both forms.
    return value.get("id") if isinstance(value, dict) else value


Id: Final[TypeAdapter[str]] = TypeAdapter(
    Annotated[str, StringConstraints(pattern=_UUID, strip_whitespace=True), BeforeValidator(_bare)]
)
"""What was made: the whole reply to a create. Half of one is none, nor is the page of some gateway."""


class Token(BaseModel):
    """What goes into the header of requests, for so many seconds."""

    access_token: str = Field(min_length=1)
    expires_in: int = Field(ge=0, le=10**9)


class Cpu(BaseModel):
    """The processors of an instance."""

    number_of_cores: int | None = Field(default=None, ge=0, le=10**6)


class Gpus(BaseModel):
    """``description`` is ``8x H100 SXM5 80GB``."""

    description: str = ""
    number_of_gpus: int = Field(ge=0, le=10_000)


class Memory(BaseModel):
    """Memory of the whole instance."""

    size_in_gigabytes: Decimal | None = Field(default=None, ge=0, lt=10**9)


class InstanceType(BaseModel):
    """One row. Prices are per hour of the whole instance, in ``currency``."""

    instance_type: str = Field(min_length=1)
    name: str | None = None
    model: str | None = None
    gpu: Gpus | None = None
    gpu_memory: Memory | None = None
    cpu: Cpu | None = None
    memory: Memory | None = None
    price_per_hour: Price = None
    spot_price: Price = None
    currency: str | None = None
    best_for: list[str] | None = None


class Stock(BaseModel):
    """The instance types of which a location has some left."""

    location_code: str = Field(min_length=1)
    availabilities: list[str]


class Location(BaseModel):
    """A data centre, such as ``FIN-01``."""

    code: str
    country_code: Text = None


class Image(BaseModel):
    """``image_type``, such as ``ubuntu-24.04-cuda-13.0-open``, is what a create wants."""

    image_type: str = Field(min_length=1)
    is_default: bool = False
    is_cluster: bool = False


class SshKey(BaseModel):
    """A public key of the account."""

    id: str = Field(min_length=1)
    name: str = ""
    key: str


class Tag(BaseModel):
    """A tag of an instance; one without a value is a bare word."""

    key: str
    value: str = ""


class Instance(BaseModel):
    """One machine; ``ip`` is missing until it has one. In which currency its price is, is not told."""

    id: str = Field(min_length=1)
    status: str
    ip: Text = None
    location: Text = None
    instance_type: Text = None
    is_spot: bool = False
    created_at: Moment = None
    tags: list[Tag] = []


class Volume(BaseModel):
    """A disk, on its own or of an instance."""

    id: str = Field(min_length=1)
    name: str = ""
    status: str = ""
    base_hourly_cost: Amount = None
    currency: Text = None


class VolumePrice(BaseModel):
    """What a gigabyte of a volume costs for a month."""

    monthly_per_gb: Price = None
    currency: Text = None


class VolumeType(BaseModel):
    """A kind of disk."""

    type: str
    price: VolumePrice = VolumePrice()


SOLD_OUT: Final = "service_unavailable"
"""The code of a create, answered 503, of what is sold out (SkyPilot and others treat it so, 2026-11)."""

DELETED: Final = "deleted"
