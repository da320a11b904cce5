"""What launches share: a network, the rules of its firewall, and placement policies for groups.

Networks and rules have no labels, so what is ours says so in its description. A rule lets one network of the
outside in, at port 22, to the machines that have its name as a tag: so each machine is open to those whom its
own launch names, and no launch ever takes a rule away. The network's subnets have no IPv6; its rules for IPv6
count for subnets to which somebody gives it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from gpucloud.errors import NotFound, ProviderError, Rejected
from gpucloud.model import InstanceRef, SideResource
from gpucloud.parallel import results, run_all
from gpucloud.provider import LaunchSpec
from gpucloud_gcp import api
from gpucloud_gcp.account import Account
from gpucloud_gcp.errors import EXISTS, PROVIDER
from gpucloud_gcp.sdk import Changes, Place

NETWORK: Final = "gpucloud"
MARK: Final = "gpucloud=shared"
EVERYBODY: Final = ("0.0.0.0/0", "::/0")
RULE_KIND: Final = "firewall rule"
SUBNET_KIND: Final = "subnet"
NETWORK_KIND: Final = "network"

AMONG_NODES: Final = "gpucloud-nodes"
"""The rule, and the tag, of machines that were rented together with others: they reach each other."""

NETWORK_S: Final = 120.0
"""How long a network with a subnet in each region may take to be made; that is done once in a project."""

COLLECTIONS: Final = {
    RULE_KIND: ("Firewalls", "Firewall"),
    SUBNET_KIND: ("Subnetworks", "Subnetwork"),
    NETWORK_KIND: ("Networks", "Network"),
}
"""What the SDK calls them."""

REMOVAL_S: Final = 120.0
"""How long one may take to be deleted; a network cannot be before its subnets are gone."""

TOGETHER: Final = re.compile(r"(a2|a3|a4|a4x|g2|g4)-")
"""The series that can be placed close together.

https://docs.cloud.google.com/ai-hypercomputer/docs/placement-policy-and-workload-policy (as of 2026-11-21).
"""

GLOBAL: Final = "global"


def prepare(account: Account, changes: Changes, spec: LaunchSpec) -> list[str]:
    """See to it that there is a network with all the rules that a launch needs; return the tags for it.

    Safe when several do it at once: who comes second finds it there. Raises what a change raises.
    """
    rules = _ssh_rules(spec.ssh_from)
    if spec.nodes > 1:
        rules[AMONG_NODES] = {"sourceTags": [AMONG_NODES], "allowed": [{"IPProtocol": "all"}]}
    if not any(ours(account, api.NETWORKS, NETWORK)):
        body = {"name": NETWORK, "description": MARK, "autoCreateSubnetworks": True}
        insert(account, changes, "Networks", "Network", body, NETWORK_S)
    see_to(account, changes, rules)
    return sorted(rules)


def admit(account: Account, changes: Changes, sources: Sequence[str]) -> list[str]:
    """See to it that there are rules for more networks; return the tags for them."""
    rules = _ssh_rules(sources)
    see_to(account, changes, rules)
    return sorted(rules)


def _ssh_rules(sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {_rule_name(source): _rule(source) for source in sources or EVERYBODY}


def see_to(account: Account, changes: Changes, rules: Mapping[str, Mapping[str, Any]]) -> None:
    """Make those rules that are not there, each for the machines with its name as a tag.

    A rule is one of the network of all launches unless it names another.
    """
    known = {thing.name for thing in ours(account, api.FIREWALLS, f"{NETWORK}-.*")}
    missing = {
        name: partial(_make_rule, account, changes, name, rule)
        for name, rule in rules.items()
        if name not in known
    }
    results(run_all(missing))


def _make_rule(account: Account, changes: Changes, name: str, rule: Mapping[str, Any]) -> None:
    body = {
        "name": name,
        "description": MARK,
        "network": f"global/networks/{NETWORK}",
        "direction": "INGRESS",
        "targetTags": [name],
        **rule,
    }
    insert(account, changes, "Firewalls", "Firewall", body)


def placement(account: Account, changes: Changes, spec: LaunchSpec, machine_type: str, region: str) -> str:
    """The name of the placement policy of a group, which is made if need be; empty where there is none."""
    if spec.group is None or spec.nodes < 2 or not TOGETHER.match(machine_type):
        return ""
    name = f"{NETWORK}-{uuid5(NAMESPACE_URL, f'gpucloud-group:{spec.group}').hex[:20]}"
    body = {
        "name": name,
        "description": json.dumps(spec.tags),
        "groupPlacementPolicy": {"collocation": "COLLOCATED"},
    }
    place = Place(region=region)
    insert(account, changes, "ResourcePolicies", "ResourcePolicy", body, place=place)
    return name


def shared(account: Account) -> Iterator[SideResource]:
    """The rules, subnets and networks of ours, in the order to be removed in."""
    for kind, region, thing in _shareable(account):
        if thing.description == MARK:
            yield SideResource(provider=PROVIDER, kind=kind, ref=InstanceRef(thing.name, region))


def _shareable(account: Account) -> Iterator[tuple[str, str | None, api.Thing]]:
    """Whatever has such a name, with what it is and its region."""
    for thing in ours(account, api.FIREWALLS, f"{NETWORK}.*"):
        yield RULE_KIND, None, thing
    # Those of the network of all launches are Google's own, and go with it.
    for scope, row in account.all(api.SUBNETS, f"name eq '{NETWORK}-.*'"):
        yield SUBNET_KIND, scope.rpartition("/")[2], account.read(api.Thing, row)
    for thing in ours(account, api.NETWORKS, f"{NETWORK}.*"):
        yield NETWORK_KIND, None, thing


def remove(account: Account, changes: Changes, resource: SideResource, used: Sequence[api.Machine]) -> None:
    """Delete one of what is shared. ``used`` are our machines. Raises ``Rejected`` while one needs it."""
    name = resource.ref.id
    users = [one.name for one in used if _uses(one, resource)]
    if users:
        raise Rejected(
            f"{PROVIDER}: the {resource.kind} {name} is in use",
            provider=PROVIDER,
            why=f"{users[0]} uses it",
            hint="gpucloud ps",
        )
    place = Place(region=resource.ref.region or "")
    try:
        operation = changes.act(*COLLECTIONS[resource.kind], "delete", name, place)
    except NotFound:
        return
    account.confirm(operation, _where(place), REMOVAL_S)


def _uses(machine: api.Machine, resource: SideResource) -> bool:
    if resource.kind == RULE_KIND:
        return resource.ref.id in machine.tags.items
    cards = machine.network_interfaces
    links = [card.network if resource.kind == NETWORK_KIND else card.subnetwork for card in cards]
    return resource.ref.id in {link.rpartition("/")[2] for link in links}


def _where(place: Place) -> str:
    return f"regions/{place.region}" if place.region else GLOBAL


def insert(
    account: Account,
    changes: Changes,
    kind: str,
    what: str,
    body: dict[str, Any],
    at_most_s: float | None = None,
    place: Place = Place(),  # noqa: B008 - it is frozen
) -> None:
    """Make something that may be there already, and wait for it ``at_most_s`` seconds."""
    try:
        operation = changes.insert(kind, what, body, place)
        account.confirm(operation, _where(place), at_most_s)
    except ProviderError as error:
        if error.vendor_code not in EXISTS:
            raise


def ours(account: Account, template: str, pattern: str, **names: str) -> Iterator[api.Thing]:
    """What has one of our names, in one place."""
    rows = account.listed(template, f"name eq '{pattern}'", **names)
    return (account.read(api.Thing, row) for row in rows)


def _rule_name(source: str) -> str:
    network = str(ip_network(source, strict=False))
    return f"{NETWORK}-ssh-{uuid5(NAMESPACE_URL, network).hex[:12]}"


def _rule(source: str) -> dict[str, Any]:
    network = str(ip_network(source, strict=False))
    return {"sourceRanges": [network], "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}]}
