"""The built-in SSH client: paramiko, for machines without OpenSSH and for what that cannot do."""

from __future__ import annotations

import logging
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, cast

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm

from gpucloud.errors import HostUnreachable, RemoteError
from gpucloud.model import SshAddress
from gpucloud.remote.channel import ChannelReader, ChannelWriter
from gpucloud.remote.connection import (
    KILLED,
    Completed,
    Connection,
    Endpoint,
    KeyRefused,
    changed,
    fingerprint,
    forbidden,
    lost,
    no_way,
    refused,
    unreachable,
)
from gpucloud.remote.liveness import DEAD_AFTER_S, Line, Watch
from gpucloud.remote.streams import Reader, Worker, Writer, drain, feed
from gpucloud.remote.tunnel import carry

# paramiko reports each failed attempt there, with a traceback; what matters is in the errors raised here.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

INSTALL_KEY: Final = (
    "umask 077; mkdir -p ~/.ssh && IFS= read -r key && f=~/.ssh/authorized_keys && "
    '{ [ -f "$f" ] && grep -qxF "$key" "$f" || printf "\\n%s\\n" "$key" >>"$f"; }'
)
"""Adds the line on stdin to those that may log in; the file may lack its last line's end."""

FORBIDDEN: Final = {1: "its SSH server forbids it", 3: "its SSH server does not know how"}
"""Answers to the wish for a way through that say nothing of the place: RFC 4254, section 5.1."""

_BAD_KEY: Final = (OSError, ValueError, TypeError, UnsupportedAlgorithm, paramiko.pkey.UnknownKeyType)


class Builtin(Connection):
    """A connection of paramiko's, which lasts as long as this object.

    Raises:
        HostUnreachable: from every method, when there is no connection (any more).
        HostKeyChanged: from the constructor, when the host shows another key than the pinned one.
        RemoteError: from the constructor, when the host refuses our key.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self.jump: Builtin | None = Builtin(endpoint.jump, timeout_s=timeout_s) if endpoint.jump else None
        self.host_key = " ".join((endpoint.pinned or "").split()[:2])
        try:
            self._transport, line = self._come_in(timeout_s)
        except BaseException:
            if self.jump:
                self.jump.close()
            raise
        self._watch = Watch(self._transport, line)

    def _come_in(self, timeout_s: float) -> tuple[paramiko.Transport, Line]:
        password = self.endpoint.address.password
        try:
            return self._connect(timeout_s, self._show_key)
        except KeyRefused:
            if not password:
                raise
        # Some servers take only one way to log in on one connection.
        return self._connect(timeout_s, partial(self._tell_password, password))

    def _connect(
        self, timeout_s: float, log_in: Callable[[paramiko.Transport, float], None]
    ) -> tuple[paramiko.Transport, Line]:
        deadline = time.monotonic() + timeout_s
        try:
            line = Line(self._socket(timeout_s))
            # It is a socket in all that is asked of it.
            transport = paramiko.Transport(cast(socket.socket, line))
        except (OSError, UnicodeError, paramiko.SSHException) as error:
            raise unreachable(self.endpoint, _reason(error)) from error
        # Its own limits would end the wait for a slow host earlier.
        transport.banner_timeout = transport.handshake_timeout = timeout_s
        try:
            self._expect_key(transport)
            transport.start_client(timeout=timeout_s)
            if not transport.initial_kex_done:
                raise paramiko.SSHException(f"no SSH server has answered within {timeout_s:g} s")
            self._check_key(transport)
            log_in(transport, max(0.0, deadline - time.monotonic()))
        except (OSError, EOFError, paramiko.SSHException) as error:
            transport.close()
            if self.endpoint.pinned and "no acceptable host key" in str(error):
                raise changed(self.endpoint, "a key of another type") from error
            raise unreachable(self.endpoint, _reason(error)) from error
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
        if address.proxy:
            return proxied(address)
        connected = socket.create_connection((address.host, address.port), timeout_s)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def _expect_key(self, transport: paramiko.Transport) -> None:
        """Let a host that has keys of several types show the pinned one."""
        if algorithms := self.endpoint.algorithms():
            transport.get_security_options().key_types = algorithms

    def _check_key(self, transport: paramiko.Transport) -> None:
        shown = _public_line(transport.get_remote_server_key())
        if self.host_key and self.host_key != shown:
            raise changed(replace(self.endpoint, pinned=self.host_key), fingerprint(shown))
        self.host_key = shown

    def _show_key(self, transport: paramiko.Transport, timeout_s: float) -> None:
        address = self.endpoint.address
        answered = threading.Event()
        transport.auth_publickey(address.user, load_key(self.endpoint), answered)
        if not answered.wait(timeout_s):
            raise paramiko.SSHException("it did not answer when we logged in")
        if transport.is_authenticated():
            return
        reason = transport.get_exception()
        if not (transport.is_active() or isinstance(reason, paramiko.AuthenticationException)):
            raise reason or EOFError
        raise refused(self.endpoint) from reason

    def _tell_password(self, password: str, transport: paramiko.Transport, timeout_s: float) -> None:
        """Log in with the password, and let our key in from now on, so that it is not needed again."""
        began = time.monotonic()
        transport.auth_timeout = timeout_s
        try:
            transport.auth_password(self.endpoint.address.user, password)
        except paramiko.AuthenticationException as error:
            if not transport.is_active() or time.monotonic() - began >= timeout_s:
                raise unreachable(self.endpoint, "it did not answer when we logged in") from error
            raise refused(self.endpoint) from error
        self._install_key(transport, max(0.0, timeout_s - (time.monotonic() - began)))

    def _install_key(self, transport: paramiko.Transport, timeout_s: float) -> None:
        key = load_key(self.endpoint)
        with transport.open_session(timeout=timeout_s) as channel:
            channel.settimeout(timeout_s)
            channel.exec_command(f"exec sh -c {shlex.quote(INSTALL_KEY)}")
            channel.sendall(f"{_public_line(key)} gpucloud\n".encode())
            channel.shutdown_write()
            if not channel.status_event.wait(timeout_s) or channel.recv_exit_status() != 0:
                raise RemoteError(
                    f"our SSH key could not be installed on {self.endpoint.label}",
                    why=f"~/.ssh/authorized_keys of {self.endpoint.address.user} cannot be written",
                    hint="make its home folder one that it may write to",
                )

    def close(self) -> None:
        """End the connection, and the one to the jump host."""
        self._transport.close()
        self._watch.stop()
        if self.jump:
            self.jump.close()

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
        return lost(self.endpoint, _reason(error or EOFError()))

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
        """As described by ``Connection``."""
        out: list[bytes] = []
        err: list[bytes] = []
        with self.open_channel() as channel:
            self.execute(channel, command)
            complaints = ChannelReader(channel, channel.recv_stderr)
            output = ChannelReader(channel, channel.recv, self.check)
            feeder = Worker(partial(feed, ChannelWriter(channel), stdin), channel.close)
            workers = [feeder, Worker(partial(drain, complaints, stderr or err.append), channel.close)]
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

    def interact(self, command: str) -> int:
        """As described by ``Connection``."""
        from gpucloud.remote.terminal import interact

        return interact(self, command)

    def through(self, target: tuple[str, int]) -> socket.socket:
        """As described by ``Connection``."""
        try:
            channel = self._transport.open_channel(
                "direct-tcpip", target, ("127.0.0.1", 0), timeout=self._timeout_s
            )
        except (OSError, EOFError, paramiko.SSHException) as error:
            # Of several refusals at once it reports one properly, and of the others nothing.
            if not self._transport.is_active():
                raise self._lost(error) from error
            code = error.code if isinstance(error, paramiko.ChannelException) else None
            if code in FORBIDDEN:
                raise forbidden(self.endpoint, target, FORBIDDEN[code]) from error
            why = "a connection to it was refused there" if code else "no answer came"
            raise no_way(self.endpoint, target, why) from error
        return carry(channel)

    def extra(self, lane: int) -> Connection:
        """As described by ``Connection``."""
        return Builtin(replace(self.endpoint, pinned=self.host_key), timeout_s=self._timeout_s)


def load_key(endpoint: Endpoint) -> paramiko.PKey:
    """The key that is offered. Raises ``RemoteError`` when it is of no use."""
    try:
        return paramiko.PKey.from_path(endpoint.identity_file)
    except (*_BAD_KEY, paramiko.SSHException) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RemoteError(
            f"the key for {endpoint.label} cannot be used",
            why=f"{endpoint.identity_file}: {reason}",
            hint="name a private key without a passphrase as its identity_file",
        ) from error


def proxied(address: SshAddress) -> socket.socket:
    """The connection that the command of an address makes. Raises ``OSError`` when it cannot be started."""
    words = [word.replace("%h", address.host).replace("%p", str(address.port)) for word in address.proxy]
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            # It ends when its stdin does.
            process = subprocess.Popen(
                words,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            threading.Thread(target=process.wait, name="ssh-proxy", daemon=True).start()
        except OSError:
            ours.close()
            raise
    return ours


def _reason(error: Exception) -> str:
    return "it hung up" if isinstance(error, EOFError) else str(error) or type(error).__name__


def _public_line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"
