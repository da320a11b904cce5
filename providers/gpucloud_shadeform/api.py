"""Shadeform's words: endpoints and replies."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field, model_validator

from gpucloud.wire import Amount, Count, Moment, Price, Text, Texts

URL: Final = "https://api.shadeform.ai"
TYPES: Final = "v1/instances/types"
INSTANCES: Final = "v1/instances"
CREATE: Final = "v1/instances/create"
SSH_KEYS: Final = "v1/sshkeys"
ADD_SSH_KEY: Final = "v1/sshkeys/add"

ON_DEMAND: Final = "on_demand"
SPOT: Final = "spot"
TAKEN_BACK: Final = "preempted"
"""What stands in ``status_details`` of a spot instance that Shadeform has ended."""


class Place(BaseModel):
    """A type in a region, sold in one way; one that is not told is on demand.

    ``hourly_price`` is in dollars, and told of spot only.
    """

    region: str = Field(min_length=1)
    available: bool | None = None
    display_name: str | None = None
    rental_type: str | None = None
    hourly_price: Price = None


class Configuration(BaseModel):
    """What an instance consists of; ``vram_per_gpu_in_gb`` is of one GPU, the rest of the whole."""

    gpu_type: str = ""
    num_gpus: int = Field(strict=True, ge=0, le=10_000)
    vram_per_gpu_in_gb: Amount = None
    interconnect: str | None = None
    nvlink: bool | None = None
    vcpus: Count = None
    memory_in_gb: Amount = None
    storage_in_gb: Amount = None
    os_options: Texts = []


class InstanceType(BaseModel):
    """One type of one cloud. ``hourly_price`` is in whole cents for the instance, on demand."""

    cloud: str = Field(min_length=1)
    shade_instance_type: str = Field(min_length=1)
    cloud_instance_type: str = ""
    deployment_type: str = ""
    hourly_price: Count = None
    configuration: Configuration
    availability: list[Any]

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, row: Any) -> Any:
        """What the configuration lacks may stand beside it."""
        inner = row.get("configuration") or {} if isinstance(row, dict) else None
        return {**row, "configuration": {**row, **inner}} if isinstance(inner, dict) else row


class Types(BaseModel):
    """All types; each is read for itself, so that a malformed one does not cost the others."""

    instance_types: list[Any]


class Terms(BaseModel):
    """How an instance is rented; ``hourly_price`` is in dollars."""

    rental_type: Text = None
    hourly_price: Price = None


class AutoDelete(BaseModel):
    """When it ends by itself."""

    date_threshold: Moment = None


class Instance(BaseModel):
    """One machine. ``ip`` is empty until it has one; ``hourly_price`` is in cents.

    ``cost_estimate`` is what it has cost so far, in dollars.
    """

    id: str = Field(min_length=1)
    cloud: str
    region: Text = None
    shade_instance_type: str
    status: str
    status_details: Text = None
    ip: Text = None
    ssh_user: Text = None
    ssh_port: Count = None
    hourly_price: Price = None
    cost_estimate: Amount = None
    rental_terms: Terms | None = None
    auto_delete: AutoDelete | None = None
    tags: Texts = []


class Instances(BaseModel):
    """Everything that is not deleted, in one piece."""

    instances: list[Any]


class SshKey(BaseModel):
    """A public key of the account."""

    id: str
    name: str
    public_key: str


class SshKeys(BaseModel):
    """All of them."""

    ssh_keys: list[Any]


class Made(BaseModel):
    """The id of what was made."""

    id: str = Field(min_length=1)
