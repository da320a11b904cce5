"""What launches share in an account beside its keys: firewall groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from gpucloud.errors import NotFound, Rejected
from gpucloud.http import HttpClient
from gpucloud.labels import firewall_name, is_firewall
from gpucloud.model import InstanceRef, SideResource
from gpucloud.replies import understood
from gpucloud_vultr.api import FIREWALLS, Answer, Group, OneGroup, Rule
from gpucloud_vultr.catalog import rows_of

GROUP: Final = "firewall-group"
EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
SSH_PORT: Final = "22"


class Account:
    """The firewall groups behind one API key."""

    def __init__(self, provider: str, http: HttpClient) -> None:
        self._provider = provider
        self._http = http

    def group(self, networks: Sequence[str]) -> str:
        """The id of the group that lets these networks in, made if it is not there."""
        wanted = {ip_network(each, strict=False) for each in networks or EVERYWHERE}
        name = firewall_name(map(str, wanted))
        found = next((group.id for group in self._groups() if group.description == name), None)
        group = found or self._new_group(name)
        # A launch that was cut off may have left one that is not complete.
        for network in sorted(wanted - self._let_in(group), key=str):
            self._let_into(group, network)
        return group

    def widened(self, group: str, networks: Sequence[str]) -> str | None:
        """The id of one that lets in these networks too, beside those of this one; ``None`` if not ours."""
        if all(group != ours.id for ours in self._groups()):
            return None
        before = map(str, self._let_in(group))
        return self.group([*before, *networks] if networks else EVERYWHERE)

    def shared(self) -> Iterator[SideResource]:
        """Our groups."""
        for group in self._groups():
            yield SideResource(self._provider, GROUP, InstanceRef(group.id))

    def remove(self, resource: SideResource) -> None:
        """Delete one; a missing one is success. Raises ``Rejected`` while a machine is in the group."""
        path = f"{FIREWALLS}/{resource.ref.id}"
        with suppress(NotFound):
            told = understood(self._provider, OneGroup.model_validate, self._http.get(path))
            if told.firewall_group.instance_count != 0:
                what = f"the firewall group {resource.ref.id} is in use at {self._provider}"
                raise Rejected(what, provider=self._provider, hint="gpucloud ps")
            self._http.delete(path)

    def _groups(self) -> list[Group]:
        listed = rows_of(self._provider, self._http, FIREWALLS)
        groups = [understood(self._provider, Group.model_validate, row) for row in listed]
        return [group for group in groups if is_firewall(group.description)]

    def _new_group(self, name: str) -> str:
        reply = self._http.post(FIREWALLS, json={"description": name})
        return understood(self._provider, Answer.model_validate, reply).made.id

    def _let_in(self, group: str) -> set[IPv4Network | IPv6Network]:
        listed = rows_of(self._provider, self._http, f"{FIREWALLS}/{group}/rules")
        return {understood(self._provider, _network, row) for row in listed}

    def _let_into(self, group: str, network: IPv4Network | IPv6Network) -> None:
        rule = {
            "ip_type": f"v{network.version}",
            "protocol": "tcp",
            "subnet": str(network.network_address),
            "subnet_size": network.prefixlen,
            "port": SSH_PORT,
        }
        self._http.post(f"{FIREWALLS}/{group}/rules", json=rule)


def _network(row: object) -> IPv4Network | IPv6Network:
    """What a rule lets in. Raises ``ValueError``."""
    rule = Rule.model_validate(row)
    return ip_network(f"{rule.subnet}/{rule.subnet_size}", strict=False)
