"""What launches make beside an instance, and what they share: found by tags in all regions, and deleted.

Volumes and network interfaces end with their instance; what is listed here is on its way, or was left behind.
An Elastic IP and the interface that it belongs to end only when they are removed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import NotFound, Rejected
from gpucloud.model import InstanceRef, SideResource
from gpucloud.provider import Tagged
from gpucloud_aws import addresses, groups, machines, tags
from gpucloud_aws.network import SHARED

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client

    from gpucloud_aws.account import Account

log = logging.getLogger(__name__)

OVER: Final = ("deleting", "deleted")
"""States of volumes that bill no more."""

VOLUME: Final = "volume"
INTERFACE: Final = addresses.INTERFACE
SECURITY_GROUP: Final = "security-group"
SUBNET: Final = "subnet"
GATEWAY: Final = "internet-gateway"
VPC: Final = "vpc"


def of_instances(account: Account) -> list[SideResource]:
    """All that carries the tag of an instance. Raises rather than leave a region out."""

    def within(client: EC2Client, region: str) -> Iterator[SideResource]:
        tagged: list[Any] = [{"Name": "tag-key", "Values": [machines.TOKEN]}]
        for volumes in client.get_paginator("describe_volumes").paginate(Filters=tagged):
            for volume in volumes["Volumes"]:
                if volume.get("State") in OVER:
                    continue
                carried = tags.read(volume.get("Tags", []))
                yield _resource(account.provider, VOLUME, volume.get("VolumeId", ""), region, carried)
        for id, carried in addresses.of_instances(client):
            yield _resource(account.provider, addresses.KIND, id, region, carried)
        for interfaces in client.get_paginator("describe_network_interfaces").paginate(Filters=tagged):
            for interface in interfaces["NetworkInterfaces"]:
                carried = tags.read(interface.get("TagSet", []))
                yield _resource(
                    account.provider, INTERFACE, interface.get("NetworkInterfaceId", ""), region, carried
                )
        yield from groups.left(client, account.provider, region)

    return machines.everywhere(account, within)


def shared(account: Account) -> list[SideResource]:
    """All that launches share, in the order to be removed in: EC2 deletes nothing that is in use."""

    def within(client: EC2Client, region: str) -> Iterator[SideResource]:
        tagged: list[Any] = [{"Name": f"tag:{SHARED[0]}", "Values": [SHARED[1]]}]
        found = {
            SECURITY_GROUP: [
                each.get("GroupId")
                for each in client.describe_security_groups(Filters=tagged)["SecurityGroups"]
            ],
            SUBNET: [each.get("SubnetId") for each in client.describe_subnets(Filters=tagged)["Subnets"]],
            GATEWAY: [
                each.get("InternetGatewayId")
                for each in client.describe_internet_gateways(Filters=tagged)["InternetGateways"]
            ],
            VPC: [each.get("VpcId") for each in client.describe_vpcs(Filters=tagged)["Vpcs"]],
        }
        for kind, ids in found.items():
            yield from (_resource(account.provider, kind, id or "", region, {}) for id in ids)

    return machines.everywhere(account, within)


def remove(account: Account, resource: SideResource) -> None:
    """Delete one; a missing one is success. What its instance still uses stays, and stays listed."""
    region, id = resource.ref.region or "", resource.ref.id
    if resource.kind == groups.KIND:
        groups.remove(account, region, id)
        return
    if resource.kind == addresses.KIND:
        addresses.release(account, region, id)
        return
    try:
        with suppress(NotFound), account.translated(region):
            client = account.ec2(region)
            if resource.kind == VOLUME:
                client.delete_volume(VolumeId=id)
            elif resource.kind == INTERFACE:
                client.delete_network_interface(NetworkInterfaceId=id)
    except Rejected as error:
        # EC2 lets go of them some time after the instance has ended; that is no reason to give up.
        log.debug("%s: the %s %s stays for now: %s", account.provider, resource.kind, id, error.why)


def remove_shared(account: Account, resource: SideResource) -> None:
    """Delete one; a missing one is success. Raises ``Rejected`` while something uses it."""
    region, id = resource.ref.region or "", resource.ref.id
    with suppress(NotFound), account.translated(region):
        client = account.ec2(region)
        if resource.kind == SECURITY_GROUP:
            client.delete_security_group(GroupId=id)
        elif resource.kind == SUBNET:
            client.delete_subnet(SubnetId=id)
        elif resource.kind == VPC:
            client.delete_vpc(VpcId=id)
        elif resource.kind == GATEWAY:
            _remove_gateway(client, id)


def _remove_gateway(client: EC2Client, id: str) -> None:
    found = client.describe_internet_gateways(InternetGatewayIds=[id])["InternetGateways"]
    for attachment in (each for gateway in found for each in gateway.get("Attachments", [])):
        client.detach_internet_gateway(InternetGatewayId=id, VpcId=attachment.get("VpcId", ""))
    client.delete_internet_gateway(InternetGatewayId=id)


def _resource(provider: str, kind: str, id: str, region: str, carried: Mapping[str, str]) -> SideResource:
    told = Tagged.read(carried)
    return SideResource(
        provider=provider,
        kind=kind,
        ref=InstanceRef(id, region),
        token=told.token,
        cluster=told.cluster,
        owner=told.owner,
    )
