"""The network interfaces of an instance: one, or between nodes one for each network card that has EFA.

An EFA-only interface has no address and cannot be the primary one, so beside it the first card has a plain
one, which carries all else. Where AWS has both on a card, EFA is at device 1 of the first card and at device
0 of the others: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-acc-inst-types.html
EC2 gives a public address by itself only to an instance with a single interface, and only with a new one
``DeleteOnTermination`` may be asked for:
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceNetworkInterfaceSpecification.html
(as of 2026-11-21).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types_boto3_ec2.type_defs import InstanceNetworkInterfaceSpecificationTypeDef as Interface

    from gpucloud_aws.api import InstanceType
    from gpucloud_aws.network import Place


def single(kind: InstanceType, place: Place, *, together: bool) -> list[Interface]:
    """One interface with a public address; nodes that are rented ``together`` have EFA on it, if it can."""
    interface: Interface = {
        "DeviceIndex": 0,
        "SubnetId": place.subnet,
        "Groups": [place.group],
        "AssociatePublicIpAddress": True,
        "DeleteOnTermination": True,
    }
    if place.has_ipv6:
        interface["Ipv6AddressCount"] = 1
    if together and 0 in kind.network.efa_cards:
        interface["InterfaceType"] = "efa"
    return [interface]


def every(kind: InstanceType, place: Place, primary: str) -> list[Interface]:
    """The primary interface, which is there already, and one for each card that has EFA."""
    plain: Interface = {"NetworkCardIndex": 0, "DeviceIndex": 0, "NetworkInterfaceId": primary}
    fast: list[Interface] = [
        {
            "NetworkCardIndex": card,
            "DeviceIndex": 0 if card else 1,
            "InterfaceType": "efa-only",
            "SubnetId": place.subnet,
            "Groups": [place.group],
            "DeleteOnTermination": True,
        }
        for card in kind.network.efa_cards
    ]
    return [plain, *fast]
