"""One SSH connection: setup, pinned host key, timeouts, commands.

The user's own keys, agent and known_hosts are never consulted: a connection offers exactly one key, and
accepts exactly one host key once that is pinned.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

from gpucloud.errors import HostKeyChanged, HostUnreachable, RemoteError
from gpucloud.model import SshAddress
from gpucloud.remote.channel import ChannelReader, Worker, drain, feed
from gpucloud.remote.liveness import DEAD_AFTER_S, Line, Watch
from gpucloud.remote.streams import Reader, Writer

# paramiko reports each failed attempt there, with a traceback; what matters is in the errors raised here.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

log = logging.getLogger(__name__)

EXTRA_TIMEOUT_S: Final = 15
"""How long to try for one connection more to a host that answers."""

KILLED: Final = 255
"""The status of a command that a signal ended: SSH's own convention."""

_RSA_SIGNATURES: Final = ("rsa-sha2-512", "rsa-sha2-256")
_BAD_KEY: Final = (OSError, ValueError, TypeError, UnsupportedAlgorithm, paramiko.pkey.UnknownKeyType)


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


@dataclass(frozen=True, slots=True)
class Completed:
    """How a remote command ended: its status and what it wrote where no sink took it."""

    status: int
    stdout: bytes
    stderr: bytes


class Connection:
    """An open connection; use as a context manager. ``host_key`` is the public line the host showed.

    Raises:
        HostUnreachable: from every method, when there is no connection (any more).
        HostKeyChanged: from the constructor, when the host shows another key than the pinned one.
        RemoteError: from the constructor, when the host refuses our key.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.jump = Connection(endpoint.jump, timeout_s=timeout_s) if endpoint.jump else None
        try:
            self._transport, line = self._connect(timeout_s)
        except BaseException:
            if self.jump:
                self.jump.close()
            raise
        self._watch = Watch(self._transport, line)
        self.host_key = _public_line(self._transport.get_remote_server_key())

    def _connect(self, timeout_s: float) -> tuple[paramiko.Transport, Line]:
        deadline = time.monotonic() + timeout_s
        try:
            line = Line(self._socket(timeout_s))
            # It is a socket in all that is asked of it.
            transport = paramiko.Transport(cast(socket.socket, line))
        except (OSError, UnicodeError, paramiko.SSHException) as error:
            raise _unreachable(self.endpoint, _reason(error)) from error
        # Its own limits would end the wait for a slow host earlier.
        transport.banner_timeout = transport.handshake_timeout = timeout_s
        try:
            self._expect_key(transport)
            transport.start_client(timeout=timeout_s)
            if not transport.initial_kex_done:
                raise paramiko.SSHException(f"no SSH server has answered within {timeout_s:g} s")
            self._check_key(transport)
            self._log_in(transport, max(0.0, deadline - time.monotonic()))
        except (OSError, EOFError, paramiko.SSHException) as error:
            transport.close()
            if self.endpoint.pinned and "no acceptable host key" in str(error):
                raise self._changed("a key of another type") from error
            raise _unreachable(self.endpoint, _reason(error)) from error
        except BaseException:
            transport.close()
            # One that was never started does not do that.
            line.close()
            raise
        return transport, line

    def _socket(self, timeout_s: float) -> socket.socket | paramiko.Channel:
        address = self.endpoint.address
        if self.jump:
            return self.jump._transport.open_channel(
                "direct-tcpip", (address.host, address.port), ("127.0.0.1", 0), timeout=timeout_s
            )
        connected = socket.create_connection((address.host, address.port), timeout_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def _expect_key(self, transport: paramiko.Transport) -> None:
        """Let a host that has keys of several types show the pinned one."""
        if not self.endpoint.pinned:
            return
        kind = self.endpoint.pinned.split()[0]
        try:
            transport.get_security_options().key_types = _RSA_SIGNATURES if kind == "ssh-rsa" else (kind,)
        except ValueError as error:
            raise RemoteError(
                f"the host key that is known of {self.endpoint.label} cannot be checked",
                why=f"keys of type {kind} are not supported",
                hint="let the host show an ssh-ed25519 key",
            ) from error

    def _check_key(self, transport: paramiko.Transport) -> None:
        pinned = self.endpoint.pinned
        shown = _public_line(transport.get_remote_server_key())
        if pinned and pinned.split()[:2] != shown.split():
            raise self._changed(_short(shown))

    def _changed(self, shown: str) -> HostKeyChanged:
        return HostKeyChanged(
            f"{self.endpoint.label} showed another SSH host key than before",
            why=f"pinned {_short(self.endpoint.pinned or '')}, shown {shown}:"
            " it is not the same machine, or somebody is in between",
            hint="gpucloud fsck shows what the provider knows of it; nothing was sent",
        )

    def _log_in(self, transport: paramiko.Transport, timeout_s: float) -> None:
        address = self.endpoint.address
        answered = threading.Event()
        transport.auth_publickey(address.user, self._key(), answered)
        if not answered.wait(timeout_s):
            raise paramiko.SSHException("it did not answer when we logged in")
        if transport.is_authenticated():
            return
        reason = transport.get_exception()
        if not (transport.is_active() or isinstance(reason, paramiko.AuthenticationException)):
            raise reason or EOFError
        raise RemoteError(
            f"{self.endpoint.label} refused our SSH key",
            why=f"{address.user}@{address.host}:{address.port} does not accept {self.identity_file}",
            hint=f"add its public key to ~/.ssh/authorized_keys of {address.user} there",
        ) from reason

    @property
    def identity_file(self) -> Path:
        """The private key that is offered."""
        given = self.endpoint.address.identity_file
        return Path(given).expanduser() if given else self.endpoint.identity

    def _key(self) -> paramiko.PKey:
        try:
            return paramiko.PKey.from_path(self.identity_file)
        except (*_BAD_KEY, paramiko.SSHException) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise RemoteError(
                f"the key for {self.endpoint.label} cannot be used",
                why=f"{self.identity_file}: {reason}",
                hint="name a private key without a passphrase as its identity_file",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and the one to the jump host."""
        self._transport.close()
        self._watch.stop()
        if self.jump:
            self.jump.close()

    def extra(self, lane: int) -> Connection:
        """One more connection to the same host, with a stream of its own; ``lane`` tells them apart."""
        log.debug("lane %d to %s", lane, self.endpoint.label)
        return Connection(replace(self.endpoint, pinned=self.host_key), timeout_s=EXTRA_TIMEOUT_S)

    def open_channel(self) -> paramiko.Channel:
        """A fresh session channel."""
        try:
            return self._transport.open_session(timeout=DEAD_AFTER_S)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost(error) from error

    def execute(
        self, channel: paramiko.Channel, command: str, *, terminal: tuple[str, int, int] | None = None
    ) -> None:
        """Start a command in a fresh channel, maybe in a terminal of that type, width and height."""
        try:
            if terminal:
                channel.get_pty(*terminal)
            channel.exec_command(command)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost(error) from error

    def status(self, channel: paramiko.Channel) -> int:
        """Wait for the exit status of a command; ``KILLED`` when it has none."""
        status = channel.recv_exit_status()
        if status != -1:
            return status
        self.check()
        return KILLED

    def check(self) -> None:
        """Return when the host answers. Raises ``HostUnreachable`` when the connection is lost."""
        if not self._watch.alive():
            raise self._lost(self._transport.get_exception())

    def _lost(self, error: Exception | None) -> HostUnreachable:
        return _unreachable(self.endpoint, f"the connection was lost: {_reason(error or EOFError())}")

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
        out: list[bytes] = []
        err: list[bytes] = []
        with self.open_channel() as channel:
            self.execute(channel, command)
            complaints = ChannelReader(channel, channel.recv_stderr)
            output = ChannelReader(channel, channel.recv, self.check)
            feeder = Worker(channel, partial(feed, channel, stdin))
            workers = [feeder, Worker(channel, partial(drain, complaints, stderr or err.append))]
            try:
                if consume:
                    consume(output)
                drain(output, stdout or out.append)
            except BaseException:
                channel.close()
                raise
            finally:
                for worker in workers[endless_stdin:]:
                    worker.join()
            for worker in workers:
                if worker.error:
                    raise worker.error
            status = self.status(channel)
        return Completed(status, b"".join(out), b"".join(err))


def _unreachable(endpoint: Endpoint, why: str) -> HostUnreachable:
    address = endpoint.address
    return HostUnreachable(
        f"{endpoint.label} does not answer over SSH",
        why=f"{address.user}@{address.host}:{address.port}: {why}",
        hint="gpucloud ps --refresh asks its provider how it is",
    )


def _reason(error: Exception) -> str:
    return "it hung up" if isinstance(error, EOFError) else str(error) or type(error).__name__


def _public_line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def _short(key: str) -> str:
    import base64
    import hashlib

    kind, blob = key.split()[:2]
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"
