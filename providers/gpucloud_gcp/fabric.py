"""The cards by which the GPUs of several machines reach each other, and their networks.

By GPUDirect RDMA: such a machine has a second ordinary card, which Google wants in another network than the
first, and for each GPU a card of the type MRDMA. These are all in one network, which has the RoCE profile of
the zone, each in a subnet of its own: https://docs.cloud.google.com/ai-hypercomputer/docs/create/create-vm. A
network with that profile belongs to one zone, and takes no other cards, no addresses of the outside and no
rules of a firewall; its machines reach each other without:
https://docs.cloud.google.com/vpc/docs/rdma-network-profiles and
https://docs.cloud.google.com/firewall/docs/firewall-for-roce.

By GPUDirect-TCPX or GPUDirect-TCPXO: such a machine has four or eight more ordinary cards, each in a network
of its own, for only a profile lets two cards of a machine into one network:
https://docs.cloud.google.com/ai-hypercomputer/docs/create/create-mig-with-a3-high-mega and
https://docs.cloud.google.com/compute/docs/instances/create-instance-multiple-nics. As there, they have IPv4
alone, and no number of queues is asked for. A project may have 15 networks, some only 5, until more are asked
for; so all regions and both kinds of machines share the same eight. The tags of a machine count in all of its
networks, and it may have 64: https://docs.cloud.google.com/vpc/docs/add-remove-network-tags.

For these the cards are not all: NCCL uses them by a plugin of Google's and a daemon, the receive datapath
manager, and the kernel has to know of it: https://docs.cloud.google.com/compute/docs/gpus/gpudirect. Google
publishes parts of this, and recipes that build an image:
https://github.com/GoogleCloudPlatform/cluster-toolkit/tree/main/examples/machine-learning. An image for
everybody that has all of it was not found, so image or setup have to bring it.

Facts as of 2026-11-21.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from gpucloud.errors import AuthError, NotFound, ProviderError, QuotaExceeded, Rejected
from gpucloud.parallel import results, run_all
from gpucloud.provider import LaunchSpec
from gpucloud_gcp import api
from gpucloud_gcp.account import Account, Forbidden
from gpucloud_gcp.errors import PROVIDER, Fault, translate
from gpucloud_gcp.network import AMONG_NODES, MARK, NETWORK, NETWORK_S, insert, ours, see_to
from gpucloud_gcp.quotas import of_project
from gpucloud_gcp.sdk import Changes, Place

log = logging.getLogger(__name__)

ORDINARY: Final = "GVNIC"
MRDMA: Final = "MRDMA"

SUBNET_S: Final = 120.0
"""How long a subnet may take to be made."""

RDMA_RANGE: Final = "10.{number}.0.0/16"
RDMA_FIRST: Final = 16
SECOND_RANGE: Final = "10.8.0.0/16"
"""The ranges of one machine's cards may not overlap, and those of the first are in 10.128.0.0/9."""

JUMBO: Final = 8896
"""The MTU in bytes that Google advises for RDMA; a network with the RoCE profile has it by itself."""

TCPX_MTU: Final = 8244
"""The MTU in bytes that Google gives the networks for GPUDirect-TCPX and GPUDirect-TCPXO."""

TCPX_RANGE: Final = "10.{number}.0.0/12"
TCPX_STEP: Final = 16
TCPX_PREFIX: Final = 23
"""Of the first of these networks are the addresses in 10.0.0.0/12, of the second in 10.16.0.0/12, and so on.

A network has the subnets of all regions, and in each 508 machines.
"""

ROLES: Final = "the roles Compute Network Admin and Compute Security Admin"
"""https://docs.cloud.google.com/compute/docs/access/iam (as of 2026-11-21)."""

TCPX_PAGE: Final = "https://docs.cloud.google.com/compute/docs/gpus/gpudirect"


@dataclass(frozen=True, slots=True)
class Network:
    """One that some cards of a machine are in, one card in each of its subnets.

    ``card`` is their type, ``subnets`` are addresses by name, ``more`` is what the network has beyond others
    in Google's words.
    """

    name: str
    card: str
    subnets: Mapping[str, str]
    more: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """How the GPUs of a machine type reach others, by ``cards`` cards. ``page`` tells what that takes beside.

    ``networks`` makes of the project, the zone and ``cards`` the networks, in the order of the cards.
    """

    name: str
    cards: int
    networks: Callable[[str, str, int], list[Network]]
    page: str = ""


@dataclass(frozen=True, slots=True)
class Fabric:
    """What a machine gets beside its first card, in Google's words, and the tags that rules know it by."""

    cards: tuple[dict[str, Any], ...] = ()
    tags: tuple[str, ...] = ()


def _for_rdma(project: str, zone: str, cards: int) -> list[Network]:
    second, rdma = f"{NETWORK}-second-{_region(zone)}", f"{NETWORK}-rdma-{zone}"
    ranges = (RDMA_RANGE.format(number=RDMA_FIRST + number) for number in range(cards))
    subnets = {f"{rdma}-{number}": addresses for number, addresses in enumerate(ranges)}
    profile = f"projects/{project}/global/networkProfiles/{zone}-vpc-roce"
    return [
        Network(second, ORDINARY, {second: SECOND_RANGE}, {"mtu": JUMBO}),
        Network(rdma, MRDMA, subnets, {"networkProfile": profile}),
    ]


def _for_tcpx(_: str, zone: str, cards: int) -> list[Network]:
    region = _region(zone)
    names = [f"{NETWORK}-gpu-{number}" for number in range(cards)]
    return [
        Network(name, ORDINARY, {f"{name}-{region}": _tcpx_range(number, region)}, {"mtu": TCPX_MTU})
        for number, name in enumerate(names)
    ]


def _tcpx_range(number: int, region: str) -> str:
    """The addresses that a network has in a region: a part of its own that is the region's by its name.

    So who makes one need not know of the others. No two of Google's regions have the same; of such a pair the
    second would be refused, and its nodes told that they have no such cards.
    """
    whole = IPv4Network(TCPX_RANGE.format(number=TCPX_STEP * number))
    parts = 2 ** (TCPX_PREFIX - whole.prefixlen)
    part = uuid5(NAMESPACE_URL, f"gpucloud-range:{region}").int % parts
    return f"{whole[part * whole.num_addresses // parts]}/{TCPX_PREFIX}"


KINDS: Final[Mapping[str, Kind]] = {
    "a3-ultragpu-8g": Kind("RDMA", 8, _for_rdma),
    "a4-highgpu-8g": Kind("RDMA", 8, _for_rdma),
    "a4x-highgpu-4g": Kind("RDMA", 4, _for_rdma),
    "a3-highgpu-8g": Kind("GPUDirect-TCPX", 4, _for_tcpx, TCPX_PAGE),
    "a3-megagpu-8g": Kind("GPUDirect-TCPXO", 8, _for_tcpx, TCPX_PAGE),
}
"""What the machine types have whose names begin like this.

https://docs.cloud.google.com/compute/docs/gpus/gpu-network-bandwidth (as of 2026-11-21). The bare metal of
A4X Max has another profile, IPv6 alone and cards that are not gVNIC; it is none of these.
"""


def fabric(account: Account, changes: Changes, spec: LaunchSpec, machine_type: str, zone: str) -> Fabric:
    """See to it that there is what the GPUs of the nodes reach each other by; empty where there is nothing.

    Where the networks cannot be had, that is logged, and the nodes reach each other by their first cards.
    Safe when several do it at once. Raises what a change raises, but for a refusal that is no matter of time.
    """
    kind = next((kind for name, kind in KINDS.items() if machine_type.startswith(name)), None)
    if spec.nodes < 2 or kind is None:
        return Fabric()
    networks = kind.networks(account.who.project, zone, kind.cards)
    try:
        _see_to_networks(account, changes, _region(zone), networks)
    except (AuthError, NotFound, QuotaExceeded, Rejected) as error:
        log.warning(
            "%s: no %s between the nodes, for its networks in %s cannot be made: %s (%s)%s",
            PROVIDER,
            kind.name,
            zone,
            error.message,
            error.why,
            _remedy(error),
        )
        return Fabric()
    # Once for all nodes, and not where the image may have it.
    if kind.page and spec.rank == 0 and not spec.image:
        log.warning(
            "%s: %s between the nodes takes a plugin of NCCL and a daemon, too, by --image or setup: %s",
            PROVIDER,
            kind.name,
            kind.page,
        )
    cards = [_card(network, subnet, _region(zone)) for network in networks for subnet in network.subnets]
    return Fabric(tuple(cards), tuple(network.name for network in networks if network.card == ORDINARY))


def _region(zone: str) -> str:
    return zone.rpartition("-")[0]


def _remedy(error: ProviderError) -> str:
    """What helps, where something does."""
    if isinstance(error, AuthError):
        return f"; it takes {ROLES}"
    return f"; {error.hint}" if isinstance(error, QuotaExceeded) else ""


def _card(network: Network, subnet: str, region: str) -> dict[str, Any]:
    """A card without an address that is reached from outside."""
    return {
        "network": f"global/networks/{network.name}",
        "subnetwork": f"regions/{region}/subnetworks/{subnet}",
        "nicType": network.card,
    }


def _see_to_networks(account: Account, changes: Changes, region: str, networks: list[Network]) -> None:
    subnets = {name: network for network in networks for name in network.subnets}
    known = {thing.name for thing in ours(account, api.SUBNETS_OF_REGION, _any_of(subnets), region=region)}
    missing = {name: network for name, network in subnets.items() if name not in known}
    if missing:
        _see_to_all(account, changes, networks)
        place = Place(region=region)
        made = {
            name: partial(_make_subnet, account, changes, name, network, place)
            for name, network in missing.items()
        }
        results(run_all(made))
    rules = {
        network.name: {
            "network": f"global/networks/{network.name}",
            "sourceTags": [AMONG_NODES],
            "allowed": [{"IPProtocol": "all"}],
        }
        for network in networks
        if network.card == ORDINARY
    }
    see_to(account, changes, rules)


def _any_of(names: Iterable[str]) -> str:
    return f"({'|'.join(names)})"


def _see_to_all(account: Account, changes: Changes, networks: list[Network]) -> None:
    """Make those that are missing. Raises ``QuotaExceeded`` before the first if there may not be so many."""
    there = {account.read(api.Thing, row).name for row in account.listed(api.NETWORKS)}
    missing = [network for network in networks if network.name not in there]
    if missing:
        _check_quota(account, len(there), len(missing))
    # One that Google may refuse comes first, so that no other is left without a use.
    for card in (MRDMA, ORDINARY):
        made = {
            network.name: partial(_make_network, account, changes, network)
            for network in missing
            if network.card == card
        }
        results(run_all(made))


def _check_quota(account: Account, used: int, wanted: int) -> None:
    told = account.allowed(lambda: of_project(account))
    # Who may not look learns it from the refusal.
    quota = None if isinstance(told, Forbidden) else told.get(("", "NETWORKS"))
    # What Google tells as used may count networks that another process is making, which are not wanted twice.
    if quota and used + wanted > quota.limit:
        text = f"{used} of {quota.limit.normalize():f} used, {wanted} wanted"
        raise translate(Fault("QUOTA_EXCEEDED", text, quota=quota.metric), account.who.project)


def _make_network(account: Account, changes: Changes, network: Network) -> None:
    body = {"name": network.name, "description": MARK, "autoCreateSubnetworks": False, **network.more}
    insert(account, changes, "Networks", "Network", body, NETWORK_S)


def _make_subnet(account: Account, changes: Changes, name: str, network: Network, place: Place) -> None:
    body = {
        "name": name,
        "description": MARK,
        "network": f"global/networks/{network.name}",
        "ipCidrRange": network.subnets[name],
    }
    insert(account, changes, "Subnetworks", "Subnetwork", body, SUBNET_S, place)
