"""What several users of sockets need."""

from __future__ import annotations

import ipaddress
import select
import socket


def hung_up(connected: socket.socket) -> None:
    """Return once nobody is at the other end any more; an end of its sending alone does not count."""
    poll = select.poll()
    poll.register(connected, 0)
    poll.poll()


def is_loopback(host: str) -> bool:
    """Whether a name or an address means the computer that uses it, as far as can be said without asking."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
