"""What is true in the cloud of the tests: instances, what bills, and what is to be refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

# Loading all of moto's images takes longer than a test.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends

from gpucloud.model import utcnow
from tests.harness.aws import goods
from tests.harness.aws.blocks import Offering, Reservation

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
LOGIN: Final = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
"""The environment of who may use it."""

REGIONS: Final = ("eu-west-1", "us-east-1", "us-west-2")
ZONES: Final = ("a", "b")
ADDRESS: Final = "203.0.113.10"
CODES: Final = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
NEXT: Final = {"pending": "running", "shutting-down": "terminated", "stopping": "stopped"}
"""What a state becomes once it has been seen."""


@dataclass(frozen=True)
class BootInfo:
    """A new instance as its first start has it."""

    id: str
    user_data: str
    region: str
    instance_type: str


@dataclass(frozen=True)
class Refusal:
    """An answer of the vendor's own: HTTP status, code and text."""

    status: int
    code: str
    text: str = "no"


@dataclass(frozen=True)
class Asked:
    """One request, as botocore's description reads it."""

    action: str
    region: str
    words: Mapping[str, Any]


@dataclass
class Machine:
    """One instance ever made. ``unseen`` is how many listings do not show it yet."""

    id: str
    region: str
    zone: str
    instance_type: str
    spot: bool
    created_at: datetime
    request: Mapping[str, Any]
    user_data: str
    tags: dict[str, str]
    groups: tuple[str, ...]
    subnet: str
    address: str
    unseen: int = 0
    fails_with: str | None = None
    ended_at: datetime | None = None

    @property
    def token(self) -> str | None:
        """By which its launch is found again."""
        return self.tags.get("gpucloud-token")

    @property
    def placement_group(self) -> str | None:
        """Where it stands with others."""
        group: str | None = self.request.get("Placement", {}).get("GroupName")
        return group

    @property
    def reservation(self) -> str | None:
        """The Capacity Block that it is in."""
        target = self.request.get("CapacityReservationSpecification", {}).get("CapacityReservationTarget", {})
        id: str | None = target.get("CapacityReservationId")
        return id

    @property
    def thing(self) -> Any:
        """moto's own instance."""
        return backend(self.region).get_instance(self.id)

    @property
    def state(self) -> str:
        """As EC2 says it."""
        return str(self.thing.state)

    @property
    def alive(self) -> bool:
        """Whether anything of it is left."""
        return self.state not in ("shutting-down", "terminated")

    def become(self, state: str) -> None:
        """Change its state."""
        self.thing._state.name, self.thing._state.code = state, CODES[state]
        primary, elastic = self.thing.nics[0], self.elastic_ip
        if elastic:
            primary.public_ip = elastic.public_ip
        else:
            primary.public_ip = self.address if state == "running" else None
        if state == "terminated":
            self._let_go()
        if state == "shutting-down" and self.ended_at is None:
            self.ended_at = utcnow()

    @property
    def elastic_ip(self) -> Any:
        """The address that its primary interface has for good, if it has one."""
        addresses = backend(self.region).addresses
        return next((each for each in addresses if each.eni is self.thing.nics[0]), None)

    def _let_go(self) -> None:
        """An interface that was there before the instance stays when that has ended."""
        for interface in self.thing.nics.values():
            if not interface.delete_on_termination:
                interface.instance, interface.attachment_id, interface.status = None, None, "available"

    def seen(self) -> None:
        """It has been shown in a listing, and goes on in what it was at."""
        if self.fails_with and self.state == "pending":
            reason = self.fails_with
            self.thing.terminate()
            self.become("terminated")
            self.thing.state_reason.code, self.ended_at = reason, utcnow()
        elif following := NEXT.get(self.state):
            self.become(following)


@dataclass
class Cloud:
    """One account. What a test sets here holds from the next request on.

    ``capacity`` is how many more of a type a zone has; what is not in it is never out of stock. ``forbidden``
    are actions of policies such as ``pricing:GetProducts``, by region or, with None, everywhere.
    ``throttled`` is how many times an action is refused as asked too often, ``refusals`` are what else it
    answers, one each time. ``offerings`` are the Capacity Blocks that are sold, which begin and end by the
    clock ``now``; ``others_reservations`` are told in every region. ``listing_lag`` is how many listings a
    new instance is missing from; by its id it is known at once. ``interfaces`` are those that were made
    before an instance, by their client token.
    """

    regions: tuple[str, ...] = REGIONS
    types: tuple[str, ...] = goods.NAMES
    usd: dict[str, str] = field(default_factory=lambda: dict(goods.USD))
    spot_usd: dict[tuple[str, str], str] = field(default_factory=dict)
    not_offered: set[tuple[str, str]] = field(default_factory=set)
    capacity: dict[tuple[str, str], int] = field(default_factory=dict)
    scores: dict[tuple[str, str], int] = field(default_factory=dict)
    bands: dict[tuple[str, str], int] = field(default_factory=dict)
    quotas: dict[tuple[str, str], float] = field(default_factory=dict)
    forbidden: set[tuple[str, str | None]] = field(default_factory=set)
    throttled: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, list[Refusal]] = field(default_factory=dict)
    fails_after_creation: dict[str, str] = field(default_factory=dict)
    offerings: list[Offering] = field(default_factory=list)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    others_reservations: list[dict[str, Any]] = field(default_factory=list)
    now: Callable[[], datetime] = utcnow
    listing_lag: int = 0
    page_size: int = 100
    on_boot: Callable[[BootInfo], str] = lambda _: ADDRESS
    on_end: Callable[[str], None] = lambda _: None
    machines: dict[str, Machine] = field(default_factory=dict)
    placement_groups: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    interfaces: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        ec2_backends.reset()

    def instances(self) -> list[Machine]:
        """All ever made."""
        return list(self.machines.values())

    def billing(self) -> list[str]:
        """What bills now: instances, volumes whose instance is gone or stopped, and addresses."""
        ids = [m.id for m in self.instances() if m.alive and m.state not in ("stopped", "stopping")]
        for region in self.regions:
            volumes = backend(region).volumes.values()
            ids += [v.id for v in volumes if not v.attachment or v.attachment.instance.id not in ids]
            ids += [address.allocation_id for address in backend(region).addresses]
        return ids

    def within(self, reservation: str) -> int:
        """How many instances are in a Capacity Block."""
        return sum(m.reservation == reservation for m in self.instances() if m.state != "terminated")

    def of(self, action: str) -> list[Asked]:
        """The requests of one action."""
        return [asked for asked in self.asked if asked.action == action]

    def interrupt(self, id: str) -> None:
        """Take a Spot instance back."""
        machine = self.machines[id]
        machine.thing.terminate()
        machine.become("terminated")
        machine.thing.state_reason.code = "Server.SpotInstanceTermination"
        machine.ended_at = utcnow()
        self.on_end(id)

    def power_off(self, id: str) -> None:
        """Let an instance shut itself down: it does what was agreed at its launch."""
        machine = self.machines[id]
        if machine.request.get("InstanceInitiatedShutdownBehavior") == "terminate":
            machine.thing.terminate()
            machine.become("shutting-down")
            self.on_end(id)
        else:
            machine.become("stopping")

    def without_default_vpc(self, region: str) -> None:
        """Let a region have no default network, as in accounts of careful people."""
        there = backend(region)
        for vpc in [vpc for vpc in there.describe_vpcs() if vpc.is_default]:
            for subnet in there.describe_subnets(filters={"vpc-id": vpc.id}):
                there.delete_subnet(subnet.id)
            for gateway in there.describe_internet_gateways(filters={"attachment.vpc-id": [vpc.id]}):
                there.detach_internet_gateway(gateway.id, vpc.id)
                there.delete_internet_gateway(gateway.id)
            there.delete_vpc(vpc.id)

    def add_ipv6(self, region: str) -> None:
        """Give the default subnets of a region IPv6."""
        there = backend(region)
        for number, subnet in enumerate(there.describe_subnets()):
            there.associate_subnet_cidr_block(subnet.id, f"2001:db8:0:{number:x}::/64")


def backend(region: str) -> Any:
    """moto's EC2 of a region."""
    return ec2_backends[DEFAULT_ACCOUNT_ID][region]
