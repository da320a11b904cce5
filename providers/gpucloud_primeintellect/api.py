"""Prime Intellect's words: endpoints and replies."""

from __future__ import annotations

from typing import Any, Final

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gpucloud.wire import Amount, Count, Price, Text, Texts

AVAILABILITY: Final = "api/v1/availability/gpus"
PODS: Final = "api/v1/pods/"
STATUS: Final = "api/v1/pods/status"
SSH_KEYS: Final = "api/v1/ssh_keys/"

PAGE_SIZE: Final = 100
"""The most rows that one page has."""

SECURE: Final = "secure_cloud"
COMMUNITY: Final = "community_cloud"
NO_GPU: Final = "CPU_NODE"
IMAGE: Final = "ubuntu_22_cuda_12"
"""What a pod has where nothing else is said."""
TEMPLATE: Final = "custom_template"


class Wire(BaseModel):
    """What has its names in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


class Page(BaseModel):
    """Some rows of a listing; ``total`` is how many there are in all."""

    rows: list[Any] = Field(validation_alias=AliasChoices("items", "data"))
    total: Count = Field(default=None, validation_alias=AliasChoices("totalCount", "total_count"))


class Part(Wire):
    """How much of something a machine has or may have, and what a unit of it costs in an hour."""

    min_count: Count = None
    default_count: Count = None
    max_count: Count = None
    step: Count = None
    price_per_unit: Amount = None
    default_included_in_price: bool | None = None


class Prices(Wire):
    """For an hour of the whole machine."""

    on_demand: Price = None
    community_price: Price = None
    currency: str = Field(pattern="^[A-Z]{3}$")


class Line(Wire):
    """What can be rented: a configuration of GPUs in a data centre."""

    cloud_id: str = Field(min_length=1)
    gpu_type: str = Field(min_length=1)
    socket: str
    provider: str = Field(min_length=1)
    gpu_count: Count
    security: str = Field(min_length=1)
    prices: Prices
    disk: Part
    vcpu: Part
    memory: Part
    shared_disk: Part | None = None
    region: Text = None
    data_center: Text = None
    country: Text = None
    internet_speed: Count = None
    interconnect_type: Text = None
    stock_status: Text = None
    images: Texts = []
    is_spot: bool | None = None
    prepaid_time: Amount = None


class Pod(Wire):
    """One machine. ``ssh_connection`` is a text such as ``root@192.0.2.1 -p 22``, or a list of such."""

    id: str = Field(min_length=1)
    name: Text = None
    provider_type: str
    gpu_name: str
    gpu_count: int
    status: Text = None
    installation_status: Text = None
    price_hr: Price = None
    is_spot: bool | None = None
    ssh_connection: Any = None


class Made(BaseModel):
    """The id of what was made."""

    id: str = Field(min_length=1)


class PodStatus(Wire):
    """What there is to know of a pod while it is set up."""

    pod_id: str
    ssh_connection: Any = None


class Statuses(BaseModel):
    """Those of the pods that were asked for, as far as there are such."""

    data: list[PodStatus] | None = None


class SshKey(Wire):
    """A public key of the account."""

    id: str = Field(min_length=1)
    name: str
    public_key: str
