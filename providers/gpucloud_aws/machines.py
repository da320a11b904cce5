"""Instances in our words, and where they are: one region, or all of the account."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gpucloud.errors import NotFound
from gpucloud.model import Instance, InstanceRef, InstanceState, Market, SshAddress
from gpucloud.parallel import results, run_all
from gpucloud.provider import Tagged
from gpucloud.replies import Rows
from gpucloud_aws.api import Machine
from gpucloud_aws.images import UBUNTU_USER

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client

    from gpucloud_aws.account import Account

T = TypeVar("T")

TOKEN: Final = "gpucloud-token"
LOGIN: Final = "gpucloud-login"
"""The tag that says who logs in, as the image had it at launch."""

ADDRESS: Final = "gpucloud-address"
"""The tag that says which Elastic IP was made for it."""

STATES: Final[Mapping[str, InstanceState]] = {
    "pending": InstanceState.PENDING,
    "running": InstanceState.RUNNING,
    "stopping": InstanceState.STOPPING,
    "stopped": InstanceState.STOPPED,
    "shutting-down": InstanceState.TERMINATING,
    "terminated": InstanceState.TERMINATED,
}
MARKETS: Final[Mapping[str, Market]] = {"spot": Market.SPOT, "capacity-block": Market.RESERVED}
"""How an instance was bought, by its lifecycle; one on demand has none."""

TAKEN_BACK: Final = {"Server.SpotInstanceShutdown", "Server.SpotInstanceTermination"}
"""Why an instance ended when it was EC2 that ended it."""


def everywhere(account: Account, look: Callable[[EC2Client, str], Iterable[T]]) -> list[T]:
    """What ``look`` finds in all regions that are open to the account; raises rather than leave one out."""

    def within(region: str) -> list[T]:
        with account.translated(region):
            return list(look(account.ec2(region), region))

    regions = account.opened()
    found = results(run_all({region: partial(within, region) for region in regions}))
    return [each for region in regions for each in found[region]]


def ours(client: EC2Client, provider: str, filters: Sequence[Any] = ()) -> list[Machine]:
    """The instances of a region that carry our tag."""
    tagged: list[Any] = [{"Name": "tag-key", "Values": [TOKEN]}, *filters]
    pages = client.get_paginator("describe_instances").paginate(Filters=tagged)
    entries = (each for page in pages for one in page["Reservations"] for each in one.get("Instances", []))
    rows = Rows(provider)
    # An instance that cannot be read may bill, so a listing without it would be wrong.
    return [rows.envelope(Machine.model_validate, entry) for entry in entries]


def one(account: Account, ref: InstanceRef) -> tuple[Machine, str]:
    """An instance and its region. Raises ``NotFound`` when none of the regions knows it."""
    if ref.region:
        return _within(account, ref.region, ref.id), ref.region
    for region, machine in _looked_for(account, ref.id):
        return machine, region
    raise NotFound(
        f"{account.provider} knows no instance {ref.id}",
        provider=account.provider,
        why="no region that is open to the account has it",
        hint="gpucloud fsck",
    )


def of_token(account: Account, region: str, token: str) -> Machine | None:
    """The instance that was launched with a token, if it is listed already; of several one that lives."""
    with account.translated(region):
        filters = [{"Name": f"tag:{TOKEN}", "Values": [token]}]
        found = ours(account.ec2(region), account.provider, filters)
    return min(found, key=lambda machine: machine.state.name == "terminated", default=None)


def to_instance(provider: str, region: str, machine: Machine) -> Instance:
    """An instance in our words."""
    told, address = Tagged.read(machine.tags), machine.address
    return Instance(
        provider=provider,
        ref=InstanceRef(machine.id, region),
        state=STATES.get(machine.state.name, InstanceState.UNKNOWN),
        token=told.token,
        cluster=told.cluster,
        rank=told.rank,
        owner=told.owner,
        ssh=(
            SshAddress(address, user=machine.tags.get(LOGIN, UBUNTU_USER), inside=machine.private_address)
            if address
            else None
        ),
        created_at=machine.launched_at and machine.launched_at.astimezone(UTC),
        instance_type=machine.instance_type,
        market=MARKETS.get(machine.lifecycle or "", Market.ON_DEMAND),
        interrupted=machine.reason.code in TAKEN_BACK,
        expires_at=told.expires_at,
    )


def _within(account: Account, region: str, id: str) -> Machine:
    with account.translated(region):
        told = account.ec2(region).describe_instances(InstanceIds=[id])["Reservations"]
    for reservation in told:
        for entry in reservation.get("Instances", []):
            return Rows(account.provider).envelope(Machine.model_validate, entry)
    raise NotFound(f"{account.provider} in {region} knows no instance {id}", provider=account.provider)


def _looked_for(account: Account, id: str) -> Iterator[tuple[str, Machine]]:
    def within(region: str) -> Machine | None:
        with suppress(NotFound):
            return _within(account, region, id)
        return None

    regions = account.opened()
    for region, machine in results(run_all({each: partial(within, each) for each in regions})).items():
        if machine is not None:
            yield region, machine
