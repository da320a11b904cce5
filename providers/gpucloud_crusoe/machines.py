"""What Crusoe says of a machine, in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gpucloud.model import InstanceState, Market, SshAddress

if TYPE_CHECKING:
    from gpucloud_crusoe.api import Instance

USER: Final = "ubuntu"
STATES: Final = {
    "RESOURCING_LOCATION": InstanceState.PENDING,
    "RESOURCING_AGENT": InstanceState.PENDING,
    "DEFINING": InstanceState.PENDING,
    "STARTING": InstanceState.PENDING,
    "RUNNING": InstanceState.RUNNING,
    "RUNNING_DEGRADED": InstanceState.RUNNING,
    "SHUTDOWN": InstanceState.STOPPING,
    "SHUTOFF": InstanceState.STOPPED,
    "PAUSED": InstanceState.STOPPED,
    "PMSUSPENDED": InstanceState.STOPPED,
    "BLOCKED": InstanceState.FAILED,
    "CRASHED": InstanceState.FAILED,
    "ERROR": InstanceState.FAILED,
    "DELETING": InstanceState.TERMINATING,
    "DELETED": InstanceState.TERMINATED,
}
"""Each with ``STATE_`` before it, or without. They are libvirt's, and some of Crusoe's own."""

MARKETS: Final = {"On-demand": Market.ON_DEMAND, "Spot": Market.SPOT}


def state_of(told: Instance) -> InstanceState:
    """What a machine does."""
    return STATES.get(told.state.removeprefix("STATE_"), InstanceState.UNKNOWN)


def ssh_of(told: Instance) -> SshAddress | None:
    """At its first public address, once it has one."""
    for card in told.network_interfaces:
        for ip in card.ips:
            if ip.public_ipv4 and ip.public_ipv4.address:
                inside = ip.private_ipv4.address if ip.private_ipv4 else None
                return SshAddress(ip.public_ipv4.address, user=USER, inside=inside)
    return None
