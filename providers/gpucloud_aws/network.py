"""The network that launches share: a subnet in the zone, and the security group ``gpucloud-ssh``.

The default VPC is used where it has a subnet in the zone. Elsewhere there is a VPC of ours, with a subnet
for each zone, a gateway and a route. What is made is tagged ``gpucloud=shared`` and never removed by a
launch. Two processes may come here at once: names, address ranges and attachments are what EC2 gives only
once, and of two VPCs the earlier counts.

EFA needs a rule that lets the security group reach itself both ways:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-start.html (as of 2026-11-21)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import ProviderError, Rejected
from gpucloud.model import utcnow
from gpucloud_aws import tags

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.literals import ResourceTypeType
    from types_boto3_ec2.type_defs import (
        CreateSubnetRequestTypeDef,
        IpPermissionOutputTypeDef,
        IpPermissionUnionTypeDef,
        SecurityGroupTypeDef,
        SubnetTypeDef,
        TagSpecificationTypeDef,
        VpcTypeDef,
    )

    from gpucloud_aws.account import Account

SHARED: Final = ("gpucloud", "shared")
MADE: Final = "gpucloud-made"
"""The tag that says when something was made: of VPCs EC2 itself does not tell."""

GROUP: Final = "gpucloud-ssh"
DESCRIPTION: Final = "SSH to what gpucloud rents"
RULE: Final = "gpucloud"
SSH: Final = 22
EVERYBODY: Final = ("0.0.0.0/0", "::/0")
NETWORK: Final = "10.97.0.0/16"
SUBNET_BITS: Final = 20

ALREADY: Final = {
    "InvalidGroup.Duplicate",
    "InvalidPermission.Duplicate",
    "InvalidSubnet.Conflict",
    "RouteAlreadyExists",
}
"""What EC2 answers when somebody else was faster; then it is there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is put: a subnet, whether it has IPv6, and a security group."""

    subnet: str
    has_ipv6: bool
    group: str


def prepare(
    account: Account, region: str, zone: str | None, ssh_from: Sequence[str], *, together: bool
) -> Place:
    """Find or make what an instance in that zone needs. Raises what a request over the network raises.

    ``together``: the instances are to reach each other.
    """
    with account.translated(region):
        client = account.ec2(region)
        subnet = _default_subnet(client, zone) or _own_subnet(account, region, zone)
        group = _group(account, region, subnet.get("VpcId", ""))
        _let_in(account, region, group, ssh_from or EVERYBODY)
        if together:
            _let_each_other_in(account, region, group)
    has_ipv6 = any(
        each.get("Ipv6CidrBlockState", {}).get("State") == "associated"
        for each in subnet.get("Ipv6CidrBlockAssociationSet", [])
    )
    return Place(subnet.get("SubnetId", ""), has_ipv6, group.get("GroupId", ""))


def admit(account: Account, region: str, groups: Sequence[str], networks: Sequence[str]) -> None:
    """Open SSH to more networks, in the security group of ours that is among these."""
    with account.translated(region):
        found = account.ec2(region).describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
        for group in found:
            if group.get("GroupName") == GROUP:
                _let_in(account, region, group, networks or EVERYBODY)


def shared_tags(kind: ResourceTypeType, name: str = "gpucloud") -> list[TagSpecificationTypeDef]:
    """What is written on all that launches share."""
    carried = dict([SHARED, ("Name", name), (MADE, utcnow().isoformat())])
    return [{"ResourceType": kind, "Tags": tags.listed(carried)}]


@contextmanager
def unless_there(account: Account, region: str) -> Iterator[None]:
    """Inside, it is no failure that somebody else has made the same just now."""
    try:
        with account.translated(region):
            yield
    except ProviderError as error:
        if error.vendor_code not in ALREADY:
            raise


def _default_subnet(client: EC2Client, zone: str | None) -> SubnetTypeDef | None:
    filters: list[Any] = [{"Name": "default-for-az", "Values": ["true"]}]
    if zone:
        filters.append({"Name": "availability-zone", "Values": [zone]})
    found = client.describe_subnets(Filters=filters)["Subnets"]
    return min(found, key=lambda subnet: subnet.get("AvailabilityZone", ""), default=None)


def _own_subnet(account: Account, region: str, zone: str | None) -> SubnetTypeDef:
    vpc = _own_vpc(account, region)
    _open_to_the_world(account, region, vpc)
    network = ipaddress.ip_network(vpc.get("CidrBlock", NETWORK))
    for part in network.subnets(new_prefix=SUBNET_BITS):
        there = _subnets(account.ec2(region), vpc)
        for subnet in there:
            if zone in (None, subnet.get("AvailabilityZone")):
                return subnet
        if str(part) not in {subnet.get("CidrBlock") for subnet in there}:
            with unless_there(account, region):
                wanted: CreateSubnetRequestTypeDef = {
                    "VpcId": vpc.get("VpcId", ""),
                    "CidrBlock": str(part),
                    "TagSpecifications": shared_tags("subnet"),
                }
                if zone:
                    wanted["AvailabilityZone"] = zone
                return account.ec2(region).create_subnet(**wanted)["Subnet"]
    raise Rejected(
        f"{account.provider}: the network of gpucloud in {region} is full",
        provider=account.provider,
        why=f"{network} has a subnet in every part",
        hint=f"gpucloud providers cleanup {account.provider}",
    )


def _subnets(client: EC2Client, vpc: VpcTypeDef) -> list[SubnetTypeDef]:
    return client.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc.get("VpcId", "")]}])["Subnets"]


def _own_vpc(account: Account, region: str) -> VpcTypeDef:
    client = account.ec2(region)
    if there := _earliest_vpc(client):
        return there
    # It has no idempotency key, so nothing but this call may decide whether it is sent again.
    made = account.ec2(region, once=True).create_vpc(CidrBlock=NETWORK, TagSpecifications=shared_tags("vpc"))[
        "Vpc"
    ]
    earliest = _earliest_vpc(client)
    if earliest is None or earliest.get("VpcId") == made.get("VpcId"):
        return made
    client.delete_vpc(VpcId=made.get("VpcId", ""))
    return earliest


def _earliest_vpc(client: EC2Client) -> VpcTypeDef | None:
    found = client.describe_vpcs(Filters=[{"Name": f"tag:{SHARED[0]}", "Values": [SHARED[1]]}])["Vpcs"]

    def age(vpc: VpcTypeDef) -> tuple[str, str]:
        return tags.read(vpc.get("Tags", [])).get(MADE, ""), vpc.get("VpcId", "")

    return min(found, key=age, default=None)


def _open_to_the_world(account: Account, region: str, vpc: VpcTypeDef) -> None:
    client, id = account.ec2(region), vpc.get("VpcId", "")
    gateway = _gateway(client, id) or _attached(account, region, id)
    tables = client.describe_route_tables(
        Filters=[{"Name": "vpc-id", "Values": [id]}, {"Name": "association.main", "Values": ["true"]}]
    )["RouteTables"]
    for table in tables:
        if not any(route.get("DestinationCidrBlock") == EVERYBODY[0] for route in table.get("Routes", [])):
            with unless_there(account, region):
                client.create_route(
                    RouteTableId=table.get("RouteTableId", ""),
                    DestinationCidrBlock=EVERYBODY[0],
                    GatewayId=gateway,
                )


def _attached(account: Account, region: str, vpc: str) -> str:
    """A new gateway of the VPC, or the one that somebody else has attached just now."""
    client, once = account.ec2(region), account.ec2(region, once=True)
    made = once.create_internet_gateway(TagSpecifications=shared_tags("internet-gateway"))
    id = made["InternetGateway"].get("InternetGatewayId", "")
    try:
        with account.translated(region):
            client.attach_internet_gateway(InternetGatewayId=id, VpcId=vpc)
    except Rejected:
        # EC2 has no code of its own for a second gateway.
        client.delete_internet_gateway(InternetGatewayId=id)
        there = _gateway(client, vpc)
        if there is None:
            raise
        return there
    return id


def _gateway(client: EC2Client, vpc: str) -> str | None:
    found = client.describe_internet_gateways(Filters=[{"Name": "attachment.vpc-id", "Values": [vpc]}])
    return next((each.get("InternetGatewayId") for each in found["InternetGateways"]), None)


def _group(account: Account, region: str, vpc: str) -> SecurityGroupTypeDef:
    client = account.ec2(region)
    if there := _groups(client, vpc):
        return there[0]
    with unless_there(account, region):
        made = client.create_security_group(
            GroupName=GROUP,
            Description=DESCRIPTION,
            VpcId=vpc,
            TagSpecifications=shared_tags("security-group", GROUP),
        )
        return {"GroupId": made["GroupId"]}
    if there := _groups(client, vpc):
        return there[0]
    raise Rejected(
        f"{account.provider}: the security group {GROUP} in {region} cannot be seen",
        provider=account.provider,
        why="somebody has just made it, and it is not listed yet",
        hint="try again in a minute",
    )


def _groups(client: EC2Client, vpc: str) -> list[SecurityGroupTypeDef]:
    filters: list[Any] = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": [GROUP]}]
    return client.describe_security_groups(Filters=filters)["SecurityGroups"]


def _let_in(account: Account, region: str, group: SecurityGroupTypeDef, networks: Sequence[str]) -> None:
    """Add what is missing, one by one: EC2 refuses all rules of a call when it has one of them."""
    there = _open_networks(group.get("IpPermissions", []))
    for network in networks:
        wanted = ipaddress.ip_network(network, strict=False)
        if any(wanted.version == each.version and wanted.subnet_of(each) for each in there):  # type: ignore[arg-type]
            continue
        rule: IpPermissionUnionTypeDef = {"IpProtocol": "tcp", "FromPort": SSH, "ToPort": SSH}
        if wanted.version == 4:
            rule["IpRanges"] = [{"CidrIp": network, "Description": RULE}]
        else:
            rule["Ipv6Ranges"] = [{"CidrIpv6": network, "Description": RULE}]
        with unless_there(account, region):
            account.ec2(region).authorize_security_group_ingress(
                GroupId=group.get("GroupId", ""), IpPermissions=[rule]
            )


def _open_networks(
    rules: Sequence[IpPermissionOutputTypeDef],
) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    ours = [rule for rule in rules if rule.get("FromPort") == SSH == rule.get("ToPort")]
    four = [each.get("CidrIp", "") for rule in ours for each in rule.get("IpRanges", [])]
    six = [each.get("CidrIpv6", "") for rule in ours for each in rule.get("Ipv6Ranges", [])]
    return [ipaddress.ip_network(each) for each in (*four, *six) if each]


def _let_each_other_in(account: Account, region: str, group: SecurityGroupTypeDef) -> None:
    id, client = group.get("GroupId", ""), account.ec2(region)
    rule: IpPermissionUnionTypeDef = {
        "IpProtocol": "-1",
        "UserIdGroupPairs": [{"GroupId": id, "Description": RULE}],
    }
    if not _names_itself(group.get("IpPermissions", []), id):
        with unless_there(account, region):
            client.authorize_security_group_ingress(GroupId=id, IpPermissions=[rule])
    if not _names_itself(group.get("IpPermissionsEgress", []), id):
        with unless_there(account, region):
            client.authorize_security_group_egress(GroupId=id, IpPermissions=[rule])


def _names_itself(rules: Sequence[IpPermissionOutputTypeDef], group: str) -> bool:
    return any(
        rule.get("IpProtocol") == "-1" and pair.get("GroupId") == group
        for rule in rules
        for pair in rule.get("UserIdGroupPairs", [])
    )
