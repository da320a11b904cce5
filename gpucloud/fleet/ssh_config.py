"""The books as a configuration for the system's ``ssh``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gpucloud.errors import GpucloudError
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import alias, persist_s
from gpucloud.fleet.sharing import shared_sockets
from gpucloud.model import Cluster
from gpucloud.remote.openssh import Target, write
from gpucloud.remote.ssh_names import OwnNames

log = logging.getLogger(__name__)

SUFFIX: Final = ".gpucloud"
"""A node's name with this is always ours, whatever the user's own configuration has."""

WAIT_S: Final = 30
"""How long to wait for another process that writes the same."""


def write_config(fleet: Fleet) -> Path:
    """Write the config for every node that was reached; returns its path.

    A node is called as in all commands: ``NAME``, or ``NAME-RANK``. Each name is there with ``SUFFIX``, and
    without it unless the user's own configuration has settings for that name.
    """
    with fleet.store.db.lock("ssh-config", wait_s=WAIT_S):
        # Whoever writes last has read last.
        targets = list(_targets(fleet))
        return write(_folder(fleet), fleet.identity_file(), targets, persist_s=persist_s(fleet))


def update_config(fleet: Fleet) -> None:
    """Bring the config up to date, where there is one; nothing that is rented or ended depends on it."""
    if not (_folder(fleet) / "config").exists():
        return
    try:
        write_config(fleet)
    except (OSError, GpucloudError) as error:
        log.warning("the configuration for ssh is not up to date: %s", error)


def user_config() -> Path:
    """The user's own SSH configuration."""
    return Path.home() / ".ssh" / "config"


def _folder(fleet: Fleet) -> Path:
    return fleet.config.data_dir / "ssh"


def _targets(fleet: Fleet) -> Iterator[Target]:
    clusters = fleet.store.clusters.living()
    theirs = OwnNames(user_config(), skip=_folder(fleet) / "config")
    # In all commands a cluster's name goes before that of another's node.
    used = {cluster.name: cluster.id for cluster in clusters}
    for cluster in clusters:
        for rental in cluster.rentals:
            free = [n for n in _names(cluster, rental.rank) if used.setdefault(n, cluster.id) == cluster.id]
            names = [name for name in free if not theirs.have(name)] + [name + SUFFIX for name in free]
            if rental.ssh is None or rental.host_key is None or not names:
                continue
            jump = rental.ssh.jump
            pinned = fleet.store.pins.get(alias(jump)) if jump else None
            control, jump_control = shared_sockets(fleet, rental)
            yield Target(
                name=names[0],
                others=tuple(names[1:]),
                address=rental.ssh,
                alias=rental.token,
                host_key=rental.host_key,
                jump_key=pinned[0] if pinned else None,
                control=control,
                jump_control=jump_control,
            )


def _names(cluster: Cluster, rank: int) -> list[str]:
    """What a node is called, as ``gpucloud ssh`` would take it."""
    numbered = f"{cluster.name}-{rank}"
    return [cluster.name, numbered] if rank == 0 else [numbered]
