"""DigitalOcean's words: endpoints and replies."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AliasChoices, AwareDatetime, BaseModel, Field

from gpucloud.replies import query_of
from gpucloud.wire import Count, Price, Text

SIZES: Final = "v2/sizes"
DROPLETS: Final = "v2/droplets"
SSH_KEYS: Final = "v2/account/keys"
FIREWALLS: Final = "v2/firewalls"
TAGS: Final = "v2/tags"
PER_PAGE: Final = 200

Id = Annotated[int, Field(strict=True, gt=0)]


class Pages(BaseModel):
    """``next`` is the address of the next page."""

    next: Text = None


class Links(BaseModel):
    """Where the other pages are; nothing on the only one."""

    pages: Pages = Pages()


class Page(BaseModel):
    """A page of a listing, whose rows are read one by one."""

    rows: list[Any] = Field(
        validation_alias=AliasChoices("sizes", "droplets", "ssh_keys", "firewalls", "tags")
    )
    links: Links = Links()

    @property
    def following(self) -> str | None:
        """The number of the next page."""
        return query_of(self.links.pages.next).get("page") if self.links.pages.next else None


class GpuInfo(BaseModel):
    """``model`` is ``nvidia_h100``."""

    count: int = Field(strict=True, ge=1, le=1000)
    model: str = Field(min_length=1)


class Size(BaseModel):
    """What can be created; ``memory`` is MiB and ``disk`` GiB. One without GPUs has no ``gpu_info``."""

    slug: str = Field(min_length=1)
    price_hourly: Price = None
    regions: list[str]
    available: bool = Field(strict=True)
    vcpus: Count = None
    memory: Count = None
    disk: Count = None
    gpu_info: GpuInfo | None = None


class Paid(BaseModel):
    """What a Droplet's size costs an hour."""

    price_hourly: Price = None


class Address(BaseModel):
    """An address, ``public`` or ``private``."""

    ip_address: Text = None
    type: str


class Networks(BaseModel):
    """The addresses of a Droplet; none until it has some."""

    v4: list[Address] = []


class Region(BaseModel):
    """A place, such as ``nyc2``."""

    slug: str = Field(min_length=1)


class Droplet(BaseModel):
    """One machine."""

    id: Id
    status: str
    tags: list[str]
    created_at: AwareDatetime | None = None
    networks: Networks = Networks()
    region: Region
    size_slug: Text = None
    size: Paid = Paid()


class Made(BaseModel):
    """Something that has just been made, of which the id is what matters."""

    id: Id


class OneDroplet(BaseModel):
    """A Droplet that was asked for."""

    droplet: Droplet


class MadeDroplet(BaseModel):
    """A Droplet that was created."""

    droplet: Made


class SshKey(BaseModel):
    """A public key of the account."""

    id: Id
    name: str
    public_key: str


class MadeKey(BaseModel):
    """A key that was added."""

    ssh_key: Made


class Firewall(BaseModel):
    """Who may reach the Droplets with its tags."""

    id: str = Field(min_length=1)
    name: str


class OneFirewall(BaseModel):
    """A firewall that was asked for."""

    firewall: Firewall


class Tagged(BaseModel):
    """How much carries a tag."""

    count: Count = None


class Tag(BaseModel):
    """A tag of the account."""

    name: str
    resources: Tagged = Tagged()


class OneTag(BaseModel):
    """A tag that was asked for."""

    tag: Tag
