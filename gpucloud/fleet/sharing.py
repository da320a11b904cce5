"""The connections to nodes that are left open for the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import endpoint_of, persist_s
from gpucloud.model import Rental

if TYPE_CHECKING:
    from pathlib import Path


def hang_up(fleet: Fleet, rental: Rental) -> None:
    """Let nobody else share the connection to a node; it ends once those who use it are done."""
    from gpucloud.remote.connection import forget

    if rental.ssh and rental.host_key:
        forget(endpoint_of(fleet, rental.ssh, "", rental.host_key))


def shared_sockets(fleet: Fleet, rental: Rental) -> tuple[Path | None, Path | None]:
    """Where the connection to a node is shared, and that to its jump host; ``None`` where none is."""
    from gpucloud.remote.connection import Incompatible, uses_openssh

    wanted = persist_s(fleet) and uses_openssh(fleet.config.get("ssh.client"))
    if not wanted or rental.ssh is None or rental.host_key is None:
        return None, None
    from gpucloud.remote.sockets import shared

    endpoint = endpoint_of(fleet, rental.ssh, "", rental.host_key)
    jump = endpoint.jump
    if jump and not jump.pinned:
        return None, None
    try:
        return shared(endpoint), shared(jump) if jump else None
    except Incompatible:
        return None, None
