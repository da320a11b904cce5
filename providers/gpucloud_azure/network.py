"""What launches share: one resource group, and in each region a network whose firewall lets in SSH alone.

Everything is made where it is missing, under a name that tells its region, and carries the tag
``gpucloud=shared``. A rule of the firewall is written by itself: to write the whole group of rules would take
away what others have added meanwhile.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import NotFound, Rejected
from gpucloud.model import InstanceRef, SideResource
from gpucloud.replies import Rows
from gpucloud_azure.account import ResourceId

if TYPE_CHECKING:
    from gpucloud.http import HttpClient
    from gpucloud_azure.account import Account, Clients
    from gpucloud_azure.api import Thing

SHARED: Final = {"gpucloud": "shared"}
IPV4: Final = "10.28.0.0/16"
IPV6: Final = "fd4b:2c70:91de::/48"
SUBNET_IPV6: Final = "fd4b:2c70:91de::/64"
"""Networks of two regions are never joined, so each may have the same addresses. A subnet of IPv6 must be a
/64: https://learn.microsoft.com/azure/virtual-network/ip-services/ipv6-overview (November 2026)"""

EVERYBODY: Final = "*"
FIRST_PRIORITY: Final = 1000
LAST_PRIORITY: Final = 4096
TRIES: Final = 5
WAIT_S: Final = 60
"""How long the making of a part, which takes Azure some seconds, is waited for."""

TAKEN: Final = "SecurityRuleConflict"
CHANGED: Final = "PreconditionFailed"
ELSEWHERE: Final = "InvalidResourceGroupLocation"


class Network:
    """The shared parts of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def make(self, http: HttpClient, clients: Clients, region: str, *, ipv6: bool) -> str:
        """See to it that there are group, firewall and network; returns the id of the subnet.

        With ``ipv6`` it surely has addresses of that kind too; without, it may. Raises ``Rejected`` when
        others change the network again and again.
        """
        from gpucloud_azure.api import NETWORKS, SECURITY

        group, name = self._account.group, shared_name(region)
        self._make_group(http, clients, region)
        if self._thing(http, SECURITY, name) is None:
            body: Any = {"location": region, "tags": SHARED}
            self._done(clients.network.network_security_groups.begin_create_or_update, group, name, body)
        if self._thing(http, NETWORKS, name) is None:
            # With both kinds from the start, so that it is all one which of two launches makes it.
            subnet = {
                "addressPrefixes": [IPV4, SUBNET_IPV6],
                "networkSecurityGroup": {"id": self._id(SECURITY, name)},
            }
            wanted: Any = {
                "location": region,
                "tags": SHARED,
                "properties": {
                    "addressSpace": {"addressPrefixes": [IPV4, IPV6]},
                    "subnets": [{"name": name, "properties": subnet}],
                },
            }
            self._done(clients.network.virtual_networks.begin_create_or_update, group, name, wanted)
        elif ipv6:
            self._add_ipv6(clients, name)
        return f"{self._id(NETWORKS, name)}/subnets/{name}"

    def let_in(self, http: HttpClient, clients: Clients, region: str, sources: Sequence[str]) -> None:
        """Open SSH to these networks, or to everybody; all other rules are left as they are.

        Raises ``Rejected`` when no priority is free, or others take each at the same moment.
        """
        for source in sources or (EVERYBODY,):
            for tries_left in reversed(range(TRIES)):
                rules = self._rules(http, region)
                if rule_name(source) in rules:
                    break
                try:
                    self._add(clients, region, source, _free(rules.values()))
                except Rejected as error:
                    # Somebody else took the priority meanwhile.
                    if error.vendor_code != TAKEN or not tries_left:
                        raise

    def listed(self, http: HttpClient) -> Iterator[SideResource]:
        """What is shared, in the order to be removed in: whatever uses something comes before it."""
        from gpucloud_azure.api import GROUP, NETWORKS, PLACEMENT, RESOURCES, SECURITY, Thing

        tagged = {"api-version": RESOURCES, "$filter": "tagName eq 'gpucloud' and tagValue eq 'shared'"}
        read = Rows(self._account.provider).read
        things = read(
            Thing.model_validate, self._account.rows(http, self._account.path("resources"), **tagged)
        )
        groups = read(
            Thing.model_validate, self._account.rows(http, self._account.path("resourcegroups"), **tagged)
        )
        for kind in (PLACEMENT, NETWORKS, SECURITY):
            yield from (self._shared(kind, each) for each in things if each.type.lower() == kind.lower())
        yield from (self._shared(GROUP, each) for each in groups)

    def remove(self, http: HttpClient, clients: Clients, resource: SideResource) -> None:
        """Delete one, and wait until what it uses may be deleted too; a missing one is success."""
        from gpucloud_azure.api import GROUP, NETWORKS, PLACEMENT, SECURITY

        found = ResourceId.parse(resource.ref.id)
        with suppress(NotFound), self._account.translated():
            if resource.kind == GROUP:
                self._remove_group(http, clients, resource.ref.id.rpartition("/")[2])
            elif found and resource.kind == PLACEMENT:
                clients.compute.proximity_placement_groups.delete(found.group, found.name)
            elif found and resource.kind == NETWORKS:
                clients.network.virtual_networks.begin_delete(found.group, found.name).result(WAIT_S)
            elif found and resource.kind == SECURITY:
                clients.network.network_security_groups.begin_delete(found.group, found.name).result(WAIT_S)

    def _make_group(self, http: HttpClient, clients: Clients, region: str) -> None:
        from gpucloud_azure.api import RESOURCES

        group = self._account.group
        try:
            http.get(self._account.path(f"resourcegroups/{group}"), params={"api-version": RESOURCES})
        except NotFound:
            body: Any = {"location": region, "tags": SHARED}
            try:
                with self._account.translated():
                    clients.resources.resource_groups.create_or_update(group, body)
            except Rejected as error:
                # Another process made it meanwhile, for another region; where its entry is kept is all one.
                if error.vendor_code != ELSEWHERE:
                    raise

    def _remove_group(self, http: HttpClient, clients: Clients, group: str) -> None:
        """To delete a group deletes all that is in it, so first there must be nothing."""
        from gpucloud_azure.api import RESOURCES, Thing

        where, version = self._account.path(f"resourceGroups/{group}/resources"), {"api-version": RESOURCES}
        left = Rows(self._account.provider).read(
            Thing.model_validate, self._account.rows(http, where, **version)
        )
        if left:
            raise Rejected(
                f"the resource group {group} is not empty",
                provider=self._account.provider,
                why=f"it has {', '.join(each.name for each in left[:5])}",
                hint=f"az resource list --resource-group {group} --output table",
            )
        clients.resources.resource_groups.begin_delete(group, polling=False)

    def _add_ipv6(self, clients: Clients, name: str) -> None:
        """Let a network that was made for IPv4 alone have both kinds; all else in it is left as it is."""
        networks, group = clients.network.virtual_networks, self._account.group
        for tries_left in reversed(range(TRIES)):
            # Read by the version that writes it: another might not tell all that is there.
            with self._account.translated():
                found = networks.get(group, name)
            body: Any = found.as_dict()
            if not _with_ipv6(body, name):
                return
            unchanged = {"If-Match": found.etag}
            try:
                self._done(networks.begin_create_or_update, group, name, body, headers=unchanged)
            except Rejected as error:
                # Somebody else has changed it meanwhile.
                if error.vendor_code != CHANGED or not tries_left:
                    raise

    def _rules(self, http: HttpClient, region: str) -> dict[str, Any]:
        """The rules for what comes in, by name."""
        from gpucloud_azure.api import SECURITY

        firewall = self._thing(http, SECURITY, shared_name(region))
        rules = firewall.properties.security_rules if firewall else []
        return {rule.name: rule for rule in rules if rule.properties.direction == "Inbound"}

    def _add(self, clients: Clients, region: str, source: str, priority: int) -> None:
        body: Any = {
            "properties": {
                "access": "Allow",
                "direction": "Inbound",
                "priority": priority,
                "protocol": "Tcp",
                "sourceAddressPrefix": source,
                "sourcePortRange": "*",
                "destinationAddressPrefix": "*",
                "destinationPortRange": "22",
            }
        }
        where = self._account.group, shared_name(region), rule_name(source)
        self._done(clients.network.security_rules.begin_create_or_update, *where, body)

    def _done(self, begin: Callable[..., Any], *what: Any, **how: Any) -> None:
        """Have a part made or changed, in turn with others, and wait for it."""
        self._account.in_turn(lambda: begin(*what, **how).result(WAIT_S))

    def _thing(self, http: HttpClient, kind: str, name: str) -> Thing | None:
        from gpucloud_azure.api import VERSIONS, Thing

        try:
            body = http.get(self._id(kind, name), params={"api-version": VERSIONS[kind]})
        except NotFound:
            return None
        return Rows(self._account.provider).envelope(Thing.model_validate, body)

    def _id(self, kind: str, name: str) -> str:
        return f"/{self._account.path(f'resourceGroups/{self._account.group}/providers/{kind}/{name}')}"

    def _shared(self, kind: str, thing: Thing) -> SideResource:
        return SideResource(self._account.provider, kind, InstanceRef(thing.id, thing.location))


def shared_name(region: str) -> str:
    """The name of the network of a region, its subnet and its firewall."""
    return f"gpucloud-{region}"


def ipv6_alone(sources: Sequence[str]) -> bool:
    """Whether these networks reach nothing but IPv6; everybody, which is none of them, reaches IPv4."""
    return bool(sources) and all(ipaddress.ip_network(each, strict=False).version == 6 for each in sources)


def rule_name(source: str) -> str:
    """The name of the rule that lets in one network; two spellings of a network have one."""
    if source == EVERYBODY:
        return "gpucloud-ssh-everybody"
    network = ipaddress.ip_network(source, strict=False)
    return f"gpucloud-ssh-{re.sub('[^0-9a-f]', '-', network.exploded)}"


def _with_ipv6(network: dict[str, Any], name: str) -> bool:
    """Add what a network and its subnet of that name lack for IPv6; whether they lacked anything."""
    properties = network["properties"]
    ours = (each["properties"] for each in properties.get("subnets", []) if each["name"] == name)
    subnet, space = next(ours, None), properties["addressSpace"]
    if subnet is None:
        return False
    # A single prefix may be in a field of its own.
    prefixes = subnet.get("addressPrefixes") or [subnet["addressPrefix"]]
    if any(":" in each for each in prefixes):
        return False
    subnet.pop("addressPrefix", None)
    subnet["addressPrefixes"] = [*prefixes, SUBNET_IPV6]
    space["addressPrefixes"] = list(dict.fromkeys([*space["addressPrefixes"], IPV6]))
    return True


def _free(rules: Iterable[Any]) -> int:
    """The first priority that no rule has."""
    taken = {rule.properties.priority for rule in rules}
    free = (each for each in range(FIRST_PRIORITY, LAST_PRIORITY + 1) if each not in taken)
    return next(free, LAST_PRIORITY)
