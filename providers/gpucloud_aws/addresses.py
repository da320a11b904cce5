"""Elastic IPs: how the world reaches a node that has several network interfaces.

The address and the primary interface are made, and put together, before the instance is launched with that
interface: so it has its address from its first moment on, and keeps it while it is stopped. Both carry the
tags of the node, by which the same launch finds them again, and by which what is left of one is listed.
Neither ends with the instance. An address bills until it is released, which EC2 refuses while it is in use:
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ReleaseAddress.html (as of 2026-11-21)

AllocateAddress has no idempotency key, so it is sent once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import NotFound, ProviderError, Rejected
from gpucloud_aws import machines, tags
from gpucloud_aws.errors import ADDRESSES, FORBIDDEN, forbidden

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import AddressTypeDef, CreateNetworkInterfaceRequestTypeDef, TagTypeDef

    from gpucloud.provider import LaunchSpec
    from gpucloud_aws.account import Account
    from gpucloud_aws.network import Place

log = logging.getLogger(__name__)

KIND: Final = "elastic-ip"
INTERFACE: Final = "network-interface"


@dataclass(frozen=True, slots=True)
class Reached:
    """An interface that the world reaches, and the allocation of its address, each by its id.

    ``earlier``: another try of the same launch has made the address, and perhaps an instance.
    """

    interface: str
    address: str
    earlier: bool


def ensure(account: Account, region: str, spec: LaunchSpec, place: Place, undo: ExitStack) -> Reached | None:
    """Find or make an interface with an Elastic IP; ``None`` when the account may not have one.

    What is made goes into ``undo``; what an earlier try has made does not, as an instance may have it by now.
    Raises what a request over the network raises, and ``QuotaExceeded`` for interfaces.
    """
    there: list[AddressTypeDef] = []
    with ExitStack() as made:
        try:
            with account.translated(region):
                there += _described(account.ec2(region), f"tag:{machines.TOKEN}", spec.token)
                # Of several, as after an answer that was lost, one that is in use already counts.
                there.sort(key=_is_free)
                reached = _ensured(account, region, spec, place, made, there)
        except ProviderError as error:
            error.outcome_unknown = error.outcome_unknown or bool(there)
            if error.vendor_code != ADDRESSES and error.vendor_code not in FORBIDDEN:
                undo.push(made.pop_all())
                raise
            permission = forbidden(error)
            why = f"{permission} is not allowed" if permission else error.message
            log.warning(
                "%s in %s: %s: the nodes have one EFA card each, as more take an Elastic IP",
                account.provider,
                region,
                why,
            )
            undone(account, region, made, error)
            return None
        undo.push(made.pop_all())
        return reached


def undone(account: Account, region: str, made: ExitStack, error: ProviderError) -> None:
    """Take back what was made. When that fails ``error`` tells to look for it by the token."""
    try:
        with account.translated(region):
            made.close()
    except ProviderError as left:
        log.warning(
            "%s in %s: not all of a failed launch is removed: %s", account.provider, region, left.message
        )
        error.outcome_unknown = True


def of_instances(client: EC2Client) -> Iterator[tuple[str, dict[str, str]]]:
    """Every address that was made for an instance of ours, with its tags."""
    for address in _described(client, "tag-key", machines.TOKEN):
        yield address.get("AllocationId", ""), tags.read(address.get("Tags", []))


def release(account: Account, region: str, id: str, *, ended: str = "") -> None:
    """Let go of an address; a missing one is success. One that an instance has stays, but for ``ended``."""
    try:
        with suppress(NotFound), account.translated(region):
            client = account.ec2(region)
            for address in client.describe_addresses(AllocationIds=[id])["Addresses"]:
                if address.get("InstanceId") not in (None, "", ended):
                    continue
                # An interface alone, without an instance, is enough for EC2 to refuse it.
                if association := address.get("AssociationId"):
                    client.disassociate_address(AssociationId=association)
                client.release_address(AllocationId=id)
    except Rejected as error:
        # It stays listed, and is tried again.
        log.debug("%s: the Elastic IP %s stays for now: %s", account.provider, id, error.why)


def _ensured(
    account: Account,
    region: str,
    spec: LaunchSpec,
    place: Place,
    made: ExitStack,
    there: Sequence[AddressTypeDef],
) -> Reached:
    client = account.ec2(region)
    if there and (used := there[0].get("NetworkInterfaceId")):
        return Reached(used, there[0].get("AllocationId", ""), earlier=True)
    address = there[0].get("AllocationId", "") if there else _allocated(account, region, spec, made)
    interface = _waiting(client, spec, place) or _created(client, spec, place, made)
    association = client.associate_address(AllocationId=address, NetworkInterfaceId=interface)
    made.callback(client.disassociate_address, AssociationId=association["AssociationId"])
    return Reached(interface, address, earlier=bool(there))


def _described(client: EC2Client, name: str, value: str) -> list[AddressTypeDef]:
    return client.describe_addresses(Filters=[{"Name": name, "Values": [value]}])["Addresses"]


def _is_free(address: AddressTypeDef) -> bool:
    return not address.get("NetworkInterfaceId")


def _allocated(account: Account, region: str, spec: LaunchSpec, made: ExitStack) -> str:
    id = account.ec2(region, once=True).allocate_address(
        Domain="vpc", TagSpecifications=[{"ResourceType": KIND, "Tags": _tags(spec)}]
    )["AllocationId"]
    made.callback(account.ec2(region).release_address, AllocationId=id)
    return id


def _waiting(client: EC2Client, spec: LaunchSpec, place: Place) -> str | None:
    """The interface of an earlier try: all others of the token are made with the instance, and attached."""
    filters: list[Any] = [
        {"Name": f"tag:{machines.TOKEN}", "Values": [spec.token]},
        {"Name": "subnet-id", "Values": [place.subnet]},
        {"Name": "status", "Values": ["available"]},
    ]
    found = client.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
    return next((each["NetworkInterfaceId"] for each in found if "NetworkInterfaceId" in each), None)


def _created(client: EC2Client, spec: LaunchSpec, place: Place, made: ExitStack) -> str:
    wanted: CreateNetworkInterfaceRequestTypeDef = {
        "SubnetId": place.subnet,
        "Groups": [place.group],
        "TagSpecifications": [{"ResourceType": INTERFACE, "Tags": _tags(spec)}],
    }
    if place.has_ipv6:
        wanted["Ipv6AddressCount"] = 1
    id = client.create_network_interface(**wanted)["NetworkInterface"].get("NetworkInterfaceId", "")
    made.callback(client.delete_network_interface, NetworkInterfaceId=id)
    return id


def _tags(spec: LaunchSpec) -> list[TagTypeDef]:
    return tags.listed({**spec.tags, "Name": f"gpucloud {spec.cluster}"})
