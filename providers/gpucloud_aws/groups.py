"""Cluster placement groups: nodes that are rented together stand together, for the sake of their network.

EC2 does not delete a group that has an instance in it, so a group goes after its last node. It costs nothing.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/placement-groups.html (as of 2026-11-21)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import ProviderError
from gpucloud.model import InstanceRef, SideResource
from gpucloud.provider import Tagged
from gpucloud_aws import machines, tags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from types_boto3_ec2 import EC2Client

    from gpucloud.provider import LaunchSpec
    from gpucloud_aws.account import Account

log = logging.getLogger(__name__)

KIND: Final = "placement-group"
PREFIX: Final = "gpucloud-"
THERE: Final = "InvalidPlacementGroup.Duplicate"
GONE: Final = "InvalidPlacementGroup.Unknown"
IN_USE: Final = "InvalidPlacementGroup.InUse"


def ensure(account: Account, region: str, spec: LaunchSpec) -> str:
    """The name of the group that the nodes of ``spec`` have in common; it is made by the first of them."""
    name = f"{PREFIX}{spec.group}"
    try:
        with account.translated(region):
            account.ec2(region).create_placement_group(
                GroupName=name,
                Strategy="cluster",
                TagSpecifications=[{"ResourceType": KIND, "Tags": tags.listed(spec.tags)}],
            )
    except ProviderError as error:
        if error.vendor_code != THERE:
            raise
    return name


def remove(account: Account, region: str, name: str) -> None:
    """Delete a group of ours that is empty. One that is in use stays until its last node is gone."""
    if not name.startswith(PREFIX):
        return
    try:
        with account.translated(region):
            account.ec2(region).delete_placement_group(GroupName=name)
    except ProviderError as error:
        if error.vendor_code not in {GONE, IN_USE}:
            # It costs nothing, so it must not stand in the way of ending what does.
            log.warning("%s: the placement group %s stays: %s", account.provider, name, error.why)


def left(client: EC2Client, provider: str, region: str) -> Iterator[SideResource]:
    """The groups of ours without a living node: once for each node that was in it, by its token."""
    tagged: list[Any] = [{"Name": "tag-key", "Values": [machines.TOKEN]}]
    for group in client.describe_placement_groups(Filters=tagged)["PlacementGroups"]:
        name, told = group.get("GroupName", ""), Tagged.read(tags.read(group.get("Tags", [])))
        if not name.startswith(PREFIX) or group.get("State") not in ("available", "pending"):
            continue
        nodes = machines.ours(client, provider, [{"Name": "placement-group-name", "Values": [name]}])
        if any(node.state.name != "terminated" for node in nodes):
            continue
        for token in dict.fromkeys([told.token, *(node.tags[machines.TOKEN] for node in nodes)]):
            yield SideResource(
                provider=provider,
                kind=KIND,
                ref=InstanceRef(name, region),
                token=token,
                cluster=told.cluster,
                owner=told.owner,
            )
