"""The cards by which the GPUs of several machines reach each other (GPUDirect RDMA), and their networks.

Such a machine has a second ordinary card, which Google wants in another network than the first, and for each
GPU a card of the type MRDMA. These are all in one network, which has the RoCE profile of the zone, each in a
subnet of its own: https://docs.cloud.google.com/ai-hypercomputer/docs/create/create-vm. A network with that
profile belongs to one zone, and takes no other cards, no addresses of the outside and no rules of a firewall;
its machines reach each other without: https://docs.cloud.google.com/vpc/docs/rdma-network-profiles and
https://docs.cloud.google.com/firewall/docs/firewall-for-roce (as of 2026-11-21).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from gpucloud.errors import AuthError, NotFound, QuotaExceeded, Rejected
from gpucloud.parallel import results, run_all
from gpucloud.provider import LaunchSpec
from gpucloud_gcp import api
from gpucloud_gcp.account import Account
from gpucloud_gcp.errors import PROVIDER
from gpucloud_gcp.network import AMONG_NODES, MARK, NETWORK, NETWORK_S, insert, ours, see_to
from gpucloud_gcp.sdk import Changes, Place

log = logging.getLogger(__name__)

CARDS: Final = ((re.compile("(a3-ultragpu|a4-highgpu)-8g"), 8), (re.compile("a4x-highgpu-4g"), 4))
"""How many MRDMA cards a machine type has: one for each GPU.

https://docs.cloud.google.com/compute/docs/gpus/gpu-network-bandwidth (as of 2026-11-21). The bare metal of
A4X Max has another profile, IPv6 alone and cards that are not gVNIC; it is none of these.
"""

SUBNETS: Final = 8
"""Of each network for RDMA: it is there for machines with fewer cards, too."""

SUBNET_S: Final = 120.0
"""How long a subnet may take to be made."""

RDMA_RANGE: Final = "10.{number}.0.0/16"
RDMA_FIRST: Final = 16
SECOND_RANGE: Final = "10.8.0.0/16"
"""The ranges of one machine's cards may not overlap, and those of the first are in 10.128.0.0/9."""

JUMBO: Final = 8896
"""The MTU in bytes that Google advises; a network with the RoCE profile has it by itself."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """What a machine gets beside its first card, in Google's words, and the tags that rules know it by."""

    cards: tuple[dict[str, Any], ...] = ()
    tags: tuple[str, ...] = ()


def fabric(account: Account, changes: Changes, spec: LaunchSpec, machine_type: str, zone: str) -> Fabric:
    """See to it that there is what RDMA between the nodes needs; empty where there is no RDMA.

    Where the networks cannot be had, that is logged, and the nodes reach each other by their first cards.
    Safe when several do it at once. Raises what a change raises, but for a refusal that is no matter of time.
    """
    count = next((number for pattern, number in CARDS if pattern.match(machine_type)), 0)
    if spec.nodes < 2 or not count:
        return Fabric()
    region = zone.rpartition("-")[0]
    second, rdma = f"{NETWORK}-second-{region}", f"{NETWORK}-rdma-{zone}"
    try:
        _see_to_networks(account, changes, zone, second, rdma)
    except (AuthError, NotFound, QuotaExceeded, Rejected) as error:
        log.warning(
            "%s: no RDMA between the nodes, for its networks in %s cannot be made: %s (%s)",
            PROVIDER,
            zone,
            error.message,
            error.why,
        )
        return Fabric()
    cards = [_card("GVNIC", second, region, second)]
    cards += [_card("MRDMA", rdma, region, f"{rdma}-{number}") for number in range(count)]
    return Fabric(tuple(cards), (second,))


def _card(kind: str, network: str, region: str, subnet: str) -> dict[str, Any]:
    """A card without an address that is reached from outside."""
    return {
        "network": f"global/networks/{network}",
        "subnetwork": f"regions/{region}/subnetworks/{subnet}",
        "nicType": kind,
    }


def _see_to_networks(account: Account, changes: Changes, zone: str, second: str, rdma: str) -> None:
    region = zone.rpartition("-")[0]
    ranges = {second: (second, SECOND_RANGE)}
    for number in range(SUBNETS):
        ranges[f"{rdma}-{number}"] = rdma, RDMA_RANGE.format(number=RDMA_FIRST + number)
    pattern = f"({second}|{rdma}-[0-9])"
    known = {thing.name for thing in ours(account, api.SUBNETS_OF_REGION, pattern, region=region)}
    missing = {name: told for name, told in ranges.items() if name not in known}
    if missing:
        profile = f"projects/{account.who.project}/global/networkProfiles/{zone}-vpc-roce"
        there = {thing.name for thing in ours(account, api.NETWORKS, f"({second}|{rdma})")}
        # The one that Google may refuse comes first, so that no other is left without a use.
        wanted: dict[str, dict[str, Any]] = {rdma: {"networkProfile": profile}, second: {"mtu": JUMBO}}
        for name, more in wanted.items():
            if name not in there:
                _make_network(account, changes, name, more)
        place = Place(region=region)
        made = {
            name: partial(_make_subnet, account, changes, name, *told, place)
            for name, told in missing.items()
        }
        results(run_all(made))
    rule = {
        "network": f"global/networks/{second}",
        "sourceTags": [AMONG_NODES],
        "allowed": [{"IPProtocol": "all"}],
    }
    see_to(account, changes, {second: rule})


def _make_network(account: Account, changes: Changes, name: str, more: dict[str, Any]) -> None:
    body = {"name": name, "description": MARK, "autoCreateSubnetworks": False, **more}
    insert(account, changes, "Networks", "Network", body, NETWORK_S)


def _make_subnet(
    account: Account, changes: Changes, name: str, network: str, addresses: str, place: Place
) -> None:
    body = {
        "name": name,
        "description": MARK,
        "network": f"global/networks/{network}",
        "ipCidrRange": addresses,
    }
    insert(account, changes, "Subnetworks", "Subnetwork", body, SUBNET_S, place)
