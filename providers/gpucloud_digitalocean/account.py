"""What launches share in an account beside its keys, and its listings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from gpucloud.errors import NotFound, Rejected
from gpucloud.http import HttpClient
from gpucloud.labels import PREFIX, firewall_name, is_firewall
from gpucloud.model import InstanceRef, SideResource
from gpucloud.replies import every_row, understood
from gpucloud_digitalocean.api import (
    FIREWALLS,
    PER_PAGE,
    TAGS,
    Firewall,
    OneFirewall,
    OneTag,
    Page,
    Tag,
)

FIREWALL: Final = "firewall"
TAG: Final = "tag"
PATHS: Final[Mapping[str, str]] = {FIREWALL: FIREWALLS, TAG: TAGS}
"""Where what is shared is, by the kind that we tell of it."""

EVERYWHERE: Final = {"addresses": ["0.0.0.0/0", "::/0"]}
PROTOCOLS: Final = ("tcp", "udp", "icmp")


class Account:
    """The firewalls and tags behind one API token."""

    def __init__(self, provider: str, http: HttpClient) -> None:
        self._provider = provider
        self._http = http

    def rows(self, path: str, **params: Any) -> Iterator[Any]:
        """A listing, from all its pages."""

        def page(number: str | None) -> tuple[list[Any], str | None]:
            asked = {"per_page": PER_PAGE, **params, **({"page": number} if number else {})}
            told = understood(self._provider, Page.model_validate, self._http.get(path, params=asked))
            return told.rows, told.following

        return every_row(self._provider, path, page)

    def firewall(self, networks: Sequence[str]) -> str:
        """The firewall that lets these networks in, made if it is not there: its name, and its tag."""
        name = firewall_name(networks)
        if any(firewall.name == name for firewall in self._firewalls()):
            return name
        # The tag of an earlier one may still be there; without any the firewall is refused.
        with suppress(Rejected):
            self._http.post(TAGS, json={"name": name})
        some = {"addresses": sorted(set(networks))} if networks else EVERYWHERE
        ssh = {"protocol": "tcp", "ports": "22", "sources": some}
        among = [{"protocol": each, "ports": "0", "sources": {"tags": [name]}} for each in PROTOCOLS]
        out = [{"protocol": each, "ports": "0", "destinations": EVERYWHERE} for each in PROTOCOLS]
        wanted = {"name": name, "tags": [name], "inbound_rules": [ssh, *among], "outbound_rules": out}
        self._http.post(FIREWALLS, json=wanted)
        return name

    def tag(self, droplet: str, tag: str) -> None:
        """Put a tag onto a Droplet."""
        resource = {"resource_id": droplet, "resource_type": "droplet"}
        self._http.post(f"{TAGS}/{tag}/resources", json={"resources": [resource]})

    def shared(self) -> Iterator[SideResource]:
        """Our firewalls, and the tags of ours that nothing carries."""
        firewalls = self._firewalls()
        for firewall in firewalls:
            yield SideResource(self._provider, FIREWALL, InstanceRef(firewall.id))
        # Without its tag a firewall would stay, and guard nothing.
        kept = {firewall.name for firewall in firewalls}
        for row in self.rows(TAGS):
            tag = understood(self._provider, Tag.model_validate, row)
            if tag.name.startswith(PREFIX) and tag.resources.count == 0 and tag.name not in kept:
                yield SideResource(self._provider, TAG, InstanceRef(tag.name))

    def remove(self, resource: SideResource) -> None:
        """Delete one, a firewall with its tag; a missing one is success.

        Raises ``Rejected`` while a Droplet carries the tag.
        """
        with suppress(NotFound):
            tag = self._tag_of(resource)
            # The vendor would delete it, and machines would be open to everybody, or not known as ours.
            if tag and self._in_use(tag):
                what = f"the {resource.kind} {tag} is in use at {self._provider}"
                raise Rejected(what, provider=self._provider, hint="gpucloud ps")
            self._http.delete(f"{PATHS[resource.kind]}/{resource.ref.id}")
            if resource.kind == FIREWALL:
                self._http.delete(f"{TAGS}/{tag}")

    def _firewalls(self) -> list[Firewall]:
        found = [understood(self._provider, Firewall.model_validate, row) for row in self.rows(FIREWALLS)]
        return [firewall for firewall in found if is_firewall(firewall.name)]

    def _tag_of(self, resource: SideResource) -> str | None:
        """The tag by which it is seen whether something is used. Raises ``NotFound``."""
        if resource.kind == FIREWALL:
            reply = self._http.get(f"{FIREWALLS}/{resource.ref.id}")
            return understood(self._provider, OneFirewall.model_validate, reply).firewall.name
        return resource.ref.id if resource.kind == TAG else None

    def _in_use(self, tag: str) -> bool:
        with suppress(NotFound):
            told = understood(self._provider, OneTag.model_validate, self._http.get(f"{TAGS}/{tag}"))
            return told.tag.resources.count != 0
        return False
