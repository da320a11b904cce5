"""Which network cards an instance may have, and which networks and subnets there may be.

https://docs.cloud.google.com/vpc/docs/rdma-network-profiles, and for several cards
https://docs.cloud.google.com/vpc/docs/multiple-interfaces-concepts (as of 2026-11-21).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, ip_network
from itertools import combinations
from typing import Any, Final

Row = dict[str, Any]
MTU: Final = (1300, 8896)
AUTO: Final = "10.128.0.0/9"
"""Where the subnets of a network are that has one in each region by itself."""

SLOTS: Final = (
    ("a3-ultragpu-8g", 2, 8),
    ("a4-highgpu-8g", 2, 8),
    ("a4x-highgpu-4g", 2, 4),
    ("a3-highgpu-8g", 5, 0),
    ("a3-megagpu-8g", 9, 0),
)
"""How many ordinary and MRDMA cards these have; others are not told apart here and have ten of the first."""


def name_of(link: str) -> str:
    """The name at the end of an address."""
    return link.rpartition("/")[2]


def profile_of(network: Row) -> str:
    """The name of a network's profile; empty for an ordinary network."""
    return name_of(network.get("networkProfile", ""))


def network_faults(body: Row) -> Iterator[str]:
    """What is wrong with a network to be made, but for a profile that is not there."""
    link = body.get("networkProfile", "")
    if link and not re.search(r"(^|/)projects/[^/]+/global/networkProfiles/[^/]+$", link):
        yield f"Invalid value for field 'resource.networkProfile': '{link}'"
    elif link and body.get("autoCreateSubnetworks", True):
        yield "Network with a network profile cannot be in auto subnet mode"
    if not MTU[0] <= body.get("mtu", MTU[0]) <= MTU[1]:
        yield f"Invalid value for field 'resource.mtu': '{body['mtu']}'"


def subnet_faults(region: str, body: Row, network: Row, others: list[Row]) -> Iterator[str]:
    """What is wrong with a subnet to be made; ``others`` are those of its network."""
    addresses = ip_network(body["ipCidrRange"])
    taken = [ip_network(other["ipCidrRange"]) for other in others]
    if network.get("autoCreateSubnetworks"):
        taken.append(ip_network(AUTO))
    if any(addresses.overlaps(other) for other in taken):
        yield f"Invalid IPCidrRange: {addresses} conflicts with existing subnetwork"
    profile = profile_of(network)
    if profile and not profile.startswith(f"{region}-"):
        yield f"Network profile {profile} does not support region {region}"


def card_faults(
    zone: str,
    kind: str,
    cards: list[Row],
    networks: Mapping[str, Row],
    subnets: Mapping[tuple[str, str], Row],
) -> Iterator[str]:
    """What is wrong with the cards of an instance, whose networks and subnets are all there."""
    region = zone.rpartition("-")[0]
    ranges: list[IPv4Network] = []
    for card in cards:
        network = networks[name_of(card["network"])]
        subnet = subnets.get((region, name_of(card.get("subnetwork", ""))))
        rdma, profile = card.get("nicType") == "MRDMA", profile_of(network)
        if subnet is None and not network.get("autoCreateSubnetworks"):
            yield "Subnetwork should be specified for custom subnetmode network"
        if subnet and name_of(subnet["network"]) != network["name"]:
            yield f"{subnet['name']} is no subnet of {network['name']}"
        if rdma is not (profile == f"{zone}-vpc-roce"):
            yield f"{card.get('nicType')} cannot be in {network['name']} with the profile {profile!r}"
        if rdma and card.get("accessConfigs"):
            yield "MRDMA takes no external address"
        ranges.append(IPv4Network(subnet["ipCidrRange"] if subnet else AUTO))
    if any(one.overlaps(other) for one, other in combinations(ranges, 2)):
        yield "Networks of several interfaces must not overlap"
    ordinary = [name_of(card["network"]) for card in cards if card.get("nicType") != "MRDMA"]
    if len(ordinary) != len(set(ordinary)):
        yield "Networks must be distinct for NICs attached to a VM"
    most = next((numbers for name, *numbers in SLOTS if kind == name), [10, 0])
    if len(ordinary) > most[0] or len(cards) - len(ordinary) not in {0, most[1]}:
        yield f"{kind} has {most[0]} ordinary and {most[1]} MRDMA cards"
