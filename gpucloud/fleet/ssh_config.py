"""The books as a configuration for the system's ``ssh``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import alias, node_label, persist_s
from gpucloud.fleet.sharing import shared_sockets
from gpucloud.model import Cluster
from gpucloud.remote.openssh import Target, write


def write_config(fleet: Fleet) -> Path:
    """Write the config for every node that was reached; returns its path."""
    targets = (target for cluster in fleet.store.clusters.living() for target in _targets(fleet, cluster))
    return write(fleet.config.data_dir / "ssh", fleet.identity_file(), targets, persist_s=persist_s(fleet))


def _targets(fleet: Fleet, cluster: Cluster) -> Iterator[Target]:
    for rental in cluster.rentals:
        if rental.ssh is None or rental.host_key is None:
            continue
        jump = rental.ssh.jump
        pinned = fleet.store.pins.get(alias(jump)) if jump else None
        control, jump_control = shared_sockets(fleet, rental)
        yield Target(
            name=node_label(cluster, rental.rank),
            address=rental.ssh,
            alias=rental.token,
            host_key=rental.host_key,
            jump_key=pinned[0] if pinned else None,
            control=control,
            jump_control=jump_control,
        )
