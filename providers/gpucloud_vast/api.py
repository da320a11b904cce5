"""Vast.ai's words: endpoints, what it says of offers and instances, and how it refuses."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, StringConstraints

from gpucloud.wire import Amount, Count, Price, Text

URL: Final = "https://console.vast.ai"
SEARCH: Final = "api/v0/bundles/"
ASKS: Final = "api/v0/asks"
INSTANCES: Final = "api/v0/instances"
LISTING: Final = "api/v1/instances/"

LISTED: Final = 25
"""So many instances it lists at once."""

Id = Annotated[int, Field(strict=True, gt=0)]


class Row(BaseModel):
    """One offer. Money is dollars: an hour for all its GPUs, by GB of traffic, by GB and month of disk.

    ``duration`` are the seconds until its owner wants the machine back.
    """

    id: int
    gpu_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    num_gpus: int = Field(ge=0, le=10_000)
    dph_base: Amount = None
    dph_total: Amount = None
    min_bid: Amount = None
    gpu_ram: Amount = None
    cpu_ram: Amount = None
    cpu_cores: Amount = None
    cpu_cores_effective: Amount = None
    disk_space: Amount = None
    storage_cost: Amount = None
    inet_up: Amount = None
    inet_down: Amount = None
    inet_up_cost: Amount = None
    reliability2: Amount = None
    cuda_max_good: Amount = None
    driver_version: Text = None
    bw_nvlink: Amount = None
    geolocation: Text = None
    verification: Text = None
    hosting_type: Amount = None
    rentable: bool | None = None
    duration: Amount = None


class Reply(BaseModel):
    """The answer; each offer is read for itself, so that one that is malformed does not cost the others."""

    offers: list[Any]


class Done(BaseModel):
    """What it says of a change; without the word it has done it."""

    success: bool = True
    msg: Text = None


class Created(BaseModel):
    """What it has made."""

    new_contract: Id


class Port(BaseModel):
    """Where a port of a container is open to the outside."""

    HostPort: Count = None


class Instance(BaseModel):
    """One contract. ``dph_base`` is without disk, for a bid the bid itself, also while it is stopped.

    ``actual_status`` is of the container, ``cur_state`` of the contract, and ``intended_status`` what it
    should be. ``ports`` has ``22/tcp`` where SSH is open directly; ``ssh_host`` is a relay, with its port.
    """

    id: Id
    label: Text = None
    actual_status: Text = None
    intended_status: Text = None
    cur_state: Text = None
    status_msg: Text = None
    is_bid: bool | None = None
    dph_base: Price = None
    gpu_name: Text = None
    public_ipaddr: Text = None
    ports: dict[str, list[Port]] | None = None
    ssh_host: Text = None
    ssh_port: Count = None


class Page(BaseModel):
    """Some of the instances, which are read one by one, and where the next ones begin."""

    instances: list[Any]
    next_token: str | None = None


NEVER_STARTS: Final = (
    "OCI runtime create failed|manifest unknown|failed to resolve reference|pull access denied"
    "|repository does not exist|unauthorized: "
)
"""What ``status_msg`` says of a container that does not become more than loaded.

The first is what dstack ends an instance for, the others were seen in use by operators until 2026-10-06.
"""
