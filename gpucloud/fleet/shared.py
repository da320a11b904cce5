"""What launches have made once at a provider and left for the next: networks, firewalls, keys."""

from __future__ import annotations

from gpucloud.errors import NothingMatched
from gpucloud.fleet import Fleet
from gpucloud.model import SideResource
from gpucloud.provider import KeepsShared


def shared_resources(fleet: Fleet, name: str) -> list[SideResource]:
    """All of it in the account, in the order to be removed in. Raises ``NothingMatched``."""
    return list(_keeper(fleet, name).shared_resources())


def remove_shared(fleet: Fleet, resource: SideResource) -> None:
    """Delete one of them. Raises ``Rejected`` while something still uses it."""
    _keeper(fleet, resource.provider).remove_shared(resource)


def _keeper(fleet: Fleet, name: str) -> KeepsShared:
    provider = fleet.registry.get(name)
    if not isinstance(provider, KeepsShared):
        raise NothingMatched(
            f"launches leave nothing at {provider.name} for the next",
            why="its adapter makes nothing that they share",
            hint="gpucloud fsck shows what may be left of single launches",
        )
    return provider
