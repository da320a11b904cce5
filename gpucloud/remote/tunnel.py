"""A connection to a port that a host can reach, carried by SSH and used as a local socket."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Final

import paramiko

from gpucloud.errors import PortClosed, RemoteError
from gpucloud.remote.channel import CHUNK
from gpucloud.remote.liveness import DEAD_AFTER_S
from gpucloud.remote.sockets import hung_up

_FORBIDDEN: Final = {1: "its SSH server forbids it", 3: "its SSH server does not know how"}
"""Answers to a request for a tunnel that say nothing of the port: RFC 4254, section 5.1."""

_ENDED: Final = (OSError, EOFError, paramiko.SSHException)


def tunnel(transport: paramiko.Transport, target: tuple[str, int], label: str) -> socket.socket:
    """A socket whose other end is ``target``, a host and a port as the host ``label`` sees them.

    Each side may end its half alone. What one side sends waits in buffers of bounded size until the other
    takes it. An end without the far side's doing, as when SSH is lost, looks like any other end here.

    Raises:
        PortClosed: when nothing answers there.
        RemoteError: when the host lets nobody through.
        OSError, EOFError, SSHException: when the connection is lost.
    """
    try:
        channel = transport.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=DEAD_AFTER_S)
    except paramiko.SSHException as error:
        # Of several refusals at once it reports one properly, and of the others nothing.
        if not transport.is_active():
            raise
        raise _refusal(error, target, label) from error
    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=_send, args=(ours, channel), name="tunnel-up", daemon=True)
    sender.start()
    threading.Thread(target=_receive, args=(channel, ours, sender), name="tunnel-down", daemon=True).start()
    return theirs


def _send(ours: socket.socket, channel: paramiko.Channel) -> None:
    with suppress(*_ENDED):
        while data := ours.recv(CHUNK):
            channel.sendall(data)
        channel.shutdown_write()
        hung_up(ours)
    channel.close()


def _receive(channel: paramiko.Channel, ours: socket.socket, sender: threading.Thread) -> None:
    with suppress(*_ENDED):
        while data := channel.recv(CHUNK):
            ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        # It has no exit status: this returns when the channel is closed.
        channel.recv_exit_status()
    channel.close()
    with suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
    sender.join()
    ours.close()


def _refusal(error: paramiko.SSHException, target: tuple[str, int], label: str) -> RemoteError:
    place = f"{target[0]}:{target[1]}"
    code = error.code if isinstance(error, paramiko.ChannelException) else None
    if code in _FORBIDDEN:
        return RemoteError(
            f"{label} lets nobody through to {place}",
            why=_FORBIDDEN[code],
            hint="set AllowTcpForwarding yes and PermitOpen any in its sshd_config",
        )
    return PortClosed(
        f"nothing answers at {place} of {label}",
        why="a connection to it was refused there" if code else "no answer came",
        hint=f"start it there; gpucloud exec {label} -- ss -ltn shows what listens",
    )
