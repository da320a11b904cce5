"""Hot Aisle's words: endpoints and replies."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field, TypeAdapter

from gpucloud.wire import Count, Price, Text

SELF: Final = "user/"
TEAMS: Final = "teams/"
MACHINES: Final = "teams/{team}/virtual_machines/"
AVAILABLE: Final = "teams/{team}/virtual_machines/available/"
MACHINE: Final = "teams/{team}/virtual_machines/{id}/"
STATE: Final = "teams/{team}/virtual_machines/{id}/state/"
SSH_KEYS: Final = "user/ssh_keys/"
SSH_KEY: Final = "user/ssh_keys/{fingerprint}/"


class User(BaseModel):
    """A person."""

    email: str


class Self(BaseModel):
    """Whose key it is."""

    user: User


class Team(BaseModel):
    """A team of the user; ``invitation``: not yet accepted."""

    handle: str = Field(min_length=1)
    invitation: bool = False


class Gpus(BaseModel):
    """So many GPUs of a model such as ``MI300X``."""

    count: int = Field(ge=0, le=1000, strict=True)
    model: str = ""


class Cpus(BaseModel):
    """The processors of a machine."""

    model: str = ""


class Specs(BaseModel):
    """What a machine has; memory and disk are bytes."""

    cpu_cores: int = Field(ge=0, strict=True)
    ram_capacity: int = Field(ge=0, strict=True)
    disk_capacity: int = Field(ge=0, strict=True)
    cpus: Cpus | None = None
    gpus: list[Gpus] | None = None

    @property
    def gpu_count(self) -> int:
        """All its GPUs."""
        return sum(some.count for some in self.gpus or ())

    @property
    def shape(self) -> list[int]:
        """By what a machine is known to be of the kind that was asked for."""
        return [self.cpu_cores, self.ram_capacity, self.disk_capacity, self.gpu_count]


class Available(BaseModel):
    """Machines of one kind that can be had; the price is in cents. ``Specs`` go back as they came."""

    quantity: Count = Field(default=None, alias="Quantity")
    price_cents: Price = Field(default=None, alias="OnDemandPrice")
    minimum_minutes: Count = Field(default=None, alias="MinimumReservationMinutes")
    specs: dict[str, Any] = Field(alias="Specs")


class SshAccess(BaseModel):
    """Where SSH answers from outside."""

    ip_address: Text = None
    port: int | None = Field(default=None, gt=0, lt=65536)


class Machine(Specs):
    """One machine. ``deployment_id`` is missing in the document."""

    name: str = Field(min_length=1)
    deployment_id: Text = None
    description: str | None = None
    ip_address: Text = None
    ssh_access: SshAccess | None = None

    @property
    def id(self) -> str:
        """What its address is made of."""
        return self.deployment_id or self.name


class State(BaseModel):
    """What a machine does."""

    state: str


class SshKey(BaseModel):
    """A public key of the user, in parts."""

    type: str
    public_key: str
    fingerprint: str
    comment: str | None = None


Many: Final = TypeAdapter(list[Any] | None)
"""A listing, whose rows are read one by one; nothing at all is an empty one."""
