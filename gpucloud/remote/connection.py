"""SSH connections: what they can do, and which client makes them.

The user's own keys, agent and known_hosts are never consulted: a connection offers exactly one key, and
accepts exactly one host key once that is pinned.
"""

from __future__ import annotations

import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gpucloud.errors import HostKeyChanged, HostUnreachable, PortClosed, RemoteError
from gpucloud.model import SshAddress
from gpucloud.remote.streams import Reader, Writer

KILLED: Final = 255
"""The status of a command that a signal ended: SSH's own convention."""

HOST_KEY_ALGORITHMS: Final = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
"""By the type of a pinned host key, how the host may prove that it has it."""


class Client(StrEnum):
    """Which SSH client makes connections; ``auto`` takes OpenSSH where there is one."""

    AUTO = "auto"
    OPENSSH = "openssh"
    BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, with which key, and which host key must answer; ``None`` pins on first contact.

    ``label`` is how messages name the host. ``jump`` is the endpoint of a jump host.
    """

    address: SshAddress
    identity: Path
    label: str
    pinned: str | None = None
    jump: Endpoint | None = None

    @property
    def identity_file(self) -> Path:
        """The private key that is offered."""
        given = self.address.identity_file
        return Path(given).expanduser() if given else self.identity

    def algorithms(self) -> tuple[str, ...]:
        """How the host may prove that it has the pinned key; empty when none is pinned.

        Raises:
            RemoteError: when that is a key of a type that cannot be checked.
        """
        if not self.pinned:
            return ()
        kind = self.pinned.split()[0]
        if kind not in HOST_KEY_ALGORITHMS:
            raise RemoteError(
                f"the host key that is known of {self.label} cannot be checked",
                why=f"keys of type {kind} are not supported",
                hint="let the host show an ssh-ed25519 key",
            )
        return HOST_KEY_ALGORITHMS[kind]


@dataclass(frozen=True, slots=True)
class Completed:
    """How a remote command ended: its status and what it wrote where no sink took it."""

    status: int
    stdout: bytes
    stderr: bytes


class KeyRefused(RemoteError):
    """The host does not let us in with our key."""


class Incompatible(Exception):
    """OpenSSH cannot do what is wanted here, and the built-in client can; the text says what."""


class Connection(ABC):
    """An open connection; use as a context manager.

    ``host_key`` is the public line the host showed, ``jump`` the connection to the jump host. Once it is
    lost it stays so; another one is made with ``connect``.

    Raises:
        HostUnreachable: from every method, when there is no connection (any more).
    """

    endpoint: Endpoint
    host_key: str
    jump: Connection | None

    @abstractmethod
    def run(
        self,
        command: str,
        *,
        stdin: bytes | Callable[[Writer], object] = b"",
        stdout: Callable[[bytes], object] | None = None,
        stderr: Callable[[bytes], object] | None = None,
        consume: Callable[[Reader], object] | None = None,
        endless_stdin: bool = False,
    ) -> Completed:
        """Run a command to its end.

        ``stdin`` is bytes, or a function that writes to the command. ``stdout`` and ``stderr`` take each
        piece as it comes, ``consume`` reads the output as a stream; without them it is collected. What
        these functions raise is raised here. With ``endless_stdin`` the end of the command is not held up
        by a ``stdin`` that has not ended, such as a person's keyboard.
        """

    @abstractmethod
    def interact(self, command: str) -> int:
        """Run a command in a terminal on the host until it ends; returns its status.

        Needs a terminal here; every key, Ctrl-C too, goes to the host.
        """

    @abstractmethod
    def through(self, target: tuple[str, int]) -> socket.socket:
        """A socket whose other end leads to host and port ``target``, as seen from the host.

        Either way may be closed by itself, as of TCP. It stays open when this connection object is closed
        only as long as something else keeps the connection.

        Raises:
            PortClosed: when nothing answers there.
            RemoteError: when the host lets nobody through.
        """

    @abstractmethod
    def extra(self, lane: int) -> Connection:
        """Another connection to the same host, with a TCP stream of its own; ``lane`` counts from 1.

        Whoever asked closes it. Raises what ``connect`` raises.
        """

    @abstractmethod
    def check(self) -> None:
        """Return when the host answers."""

    @abstractmethod
    def close(self) -> None:
        """End the use of the connection, and of the one to the jump host."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(
    endpoint: Endpoint, *, timeout_s: float, persist_s: int = 0, client: str = Client.AUTO
) -> Connection:
    """Open a connection, or take part in one that an earlier command has left open.

    OpenSSH leaves it open for ``persist_s`` seconds after its last use; with 0 it ends with this object.
    Where the host refuses our key but its address carries a password, the key is installed there with it.

    Raises:
        HostUnreachable: when no connection comes about within ``timeout_s``.
        HostKeyChanged: when the host shows another key than the pinned one.
        RemoteError: when the host refuses our key, or the key or the client cannot be used.
    """
    # Said before anything is sent, whichever client it is.
    endpoint.algorithms()
    if uses_openssh(client):
        from gpucloud.remote.multiplexed import Multiplexed

        try:
            return Multiplexed(endpoint, timeout_s=timeout_s, persist_s=persist_s)
        except Incompatible as error:
            if client == Client.OPENSSH:
                raise RemoteError(
                    f"OpenSSH cannot be used for {endpoint.label}",
                    why=str(error),
                    hint="set ssh.client to auto",
                ) from error
        except KeyRefused:
            if not endpoint.address.password:
                raise
            with _builtin(endpoint, timeout_s) as first:
                same = replace(endpoint, pinned=first.host_key)
                return Multiplexed(same, timeout_s=timeout_s, persist_s=persist_s)
    return _builtin(endpoint, timeout_s)


def forget(endpoint: Endpoint) -> None:
    """End the connections to a host that earlier commands have left open, once nobody uses them."""
    if endpoint.pinned and uses_openssh(Client.AUTO):
        from gpucloud.remote.sockets import end_shared

        end_shared(endpoint)


def uses_openssh(client: str) -> bool:
    """Whether OpenSSH makes the connections. Raises ``RemoteError`` when it must, but is not there."""
    there = os.name == "posix" and shutil.which("ssh") is not None
    if client == Client.OPENSSH and not there:
        raise RemoteError(
            "there is no ssh on this machine",
            why="ssh.client asks for OpenSSH, and PATH has none",
            hint="install OpenSSH, or set ssh.client to builtin",
        )
    return there and client != Client.BUILTIN


def _builtin(endpoint: Endpoint, timeout_s: float) -> Connection:
    from gpucloud.remote.builtin import Builtin

    return Builtin(endpoint, timeout_s=timeout_s)


def unreachable(endpoint: Endpoint, why: str) -> HostUnreachable:
    """The error for a host that does not answer."""
    return HostUnreachable(
        f"{endpoint.label} does not answer over SSH",
        why=f"{_where(endpoint)}: {why}",
        hint="gpucloud ps --refresh asks its provider how it is",
    )


def lost(endpoint: Endpoint, why: str) -> HostUnreachable:
    """The error for a connection that broke off."""
    return unreachable(endpoint, f"the connection was lost: {why}")


def changed(endpoint: Endpoint, shown: str) -> HostKeyChanged:
    """The error for a host that showed another key; ``shown`` is its type and fingerprint."""
    return HostKeyChanged(
        f"{endpoint.label} showed another SSH host key than before",
        why=f"pinned {fingerprint(endpoint.pinned or '')}, shown {shown}:"
        " it is not the same machine, or somebody is in between",
        hint="gpucloud fsck shows what the provider knows of it; nothing was sent",
    )


def refused(endpoint: Endpoint) -> KeyRefused:
    """The error for a host that does not let us in."""
    return KeyRefused(
        f"{endpoint.label} refused our SSH key",
        why=f"{_where(endpoint)} does not accept {endpoint.identity_file}",
        hint=f"add its public key to ~/.ssh/authorized_keys of {endpoint.address.user} there",
    )


def no_way(endpoint: Endpoint, target: tuple[str, int], why: str) -> PortClosed:
    """The error for a place at which nothing answers, as far as the host can say."""
    return PortClosed(
        f"nothing answers at {target[0]}:{target[1]} of {endpoint.label}",
        why=why,
        hint=f"start it there; gpucloud exec {endpoint.label} -- ss -ltn shows what listens",
    )


def forbidden(endpoint: Endpoint, target: tuple[str, int], why: str) -> RemoteError:
    """The error for a host that lets nobody through to other places."""
    return RemoteError(
        f"{endpoint.label} lets nobody through to {target[0]}:{target[1]}",
        why=why,
        hint="set AllowTcpForwarding yes and PermitOpen any in its sshd_config",
    )


def _where(endpoint: Endpoint) -> str:
    address = endpoint.address
    return f"{address.user}@{address.host}:{address.port}"


def fingerprint(key: str) -> str:
    """The type and the fingerprint of a public key, as people compare them."""
    import base64
    import hashlib

    kind, blob = key.split()[:2]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"
