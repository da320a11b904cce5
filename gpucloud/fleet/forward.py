"""Local ports that lead to ports of a machine, for as long as somebody wants them."""

from __future__ import annotations

import errno
import logging
import re
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from gpucloud.errors import HostUnreachable, PortClosed, RemoteError, UsageError
from gpucloud.fleet.link import Link
from gpucloud.model import Event
from gpucloud.remote.ends import hung_up, is_loopback

log = logging.getLogger(__name__)

LOOPBACK: Final = ("127.0.0.1", "::1")
MOST: Final = 256
"""So many connections are carried at once; more wait until one has ended."""
CHUNK: Final = 65_536
BACKLOG: Final = 128
TRIES: Final = 20
"""How many free ports are tried until one is free at every address."""
ASK_S: Final = 0.5
"""How often a port where nothing answers yet is tried."""

_ROUTE: Final = re.compile(
    r"(?:(?P<local>\d{1,5}):)?"
    r"(?:(?P<host>\[[\w:.%]+\]|(?!\d+:)[\w.%-]+):)?"
    r"(?P<port>\d{1,5})",
    re.ASCII,
)
_NOT_HERE: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
_NOT_TO_BE_HAD: Final = {errno.EADDRINUSE, errno.EACCES, errno.EPERM}
_OVER: Final = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}


@dataclass(frozen=True, slots=True)
class Route:
    """From a local port to a host and a port as the machine sees them; ``local`` ``None`` lets any do."""

    local: int | None
    host: str
    port: int

    @property
    def target(self) -> tuple[str, int]:
        """Where it leads."""
        return self.host, self.port

    @property
    def own(self) -> bool:
        """Whether it leads to a port of the machine itself."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_route(text: str) -> Route:
    """Read ``[LOCAL:]PORT`` or ``[LOCAL:]HOST:PORT``. Raises ``UsageError``."""
    match = _ROUTE.fullmatch(text)
    local, host, port = match.group("local", "host", "port") if match else (None, None, "0")
    if not 0 < int(port) < 65536 or int(local or 0) > 65535:
        raise UsageError(
            f"{text!r} is no port to forward",
            why="it is written [LOCAL:]PORT or [LOCAL:]HOST:PORT, with ports up to 65535",
            hint="8888, 8080:8888, or 5432:db.internal:5432",
        )
    return Route(int(local) if local else None, (host or "localhost").strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class Bound:
    """A route with its local port, at every address of ``hosts``. ``moved``: another one was wanted."""

    route: Route
    hosts: tuple[str, ...]
    port: int
    moved: bool

    @property
    def place(self) -> str:
        """The address to be used."""
        return f"[{self.hosts[0]}]:{self.port}" if ":" in self.hosts[0] else f"{self.hosts[0]}:{self.port}"


class Forwarder:
    """Local ports of a ``Link``; a context manager that gives them back at its end.

    A connection that comes while SSH is lost waits until it is there again. One that cannot be carried on is
    reset, never ended as if all had come.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._listening: list[tuple[Route, socket.socket]] = []
        self._room = threading.BoundedSemaphore(MOST)
        self._pause = threading.Event()
        self._told: dict[Route, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _route, listening in self._listening:
            # Who waits for a connection is woken by this, and not by its end.
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def bind(
        self, route: Route, addresses: Sequence[str] = LOOPBACK, *, preferred: int | None = None
    ) -> Bound:
        """Take the local port of a route at each of the addresses that exist here.

        One that names none gets ``preferred``, else the number it has there, else any that is free.
        Connections wait there until ``serve``.

        Raises:
            UsageError: when the port that was asked for is not to be had.
        """
        wanted = (preferred or route.port) if route.local is None else route.local
        try:
            if self._link.at_loopback and route.own and wanted == route.port:
                raise OSError(errno.EADDRINUSE, "it would lead to itself")
            taken = _take(addresses, wanted)
        except OSError as error:
            if route.local is not None or error.errno not in _NOT_TO_BE_HAD:
                raise _refused(addresses, wanted, error) from error
            taken = _take(addresses, 0)
        self._listening += [(route, listening) for listening in taken]
        port = taken[0].getsockname()[1]
        hosts = tuple(listening.getsockname()[0] for listening in taken)
        return Bound(route, hosts, port, moved=route.local is None and port != wanted)

    def serve(self) -> None:
        """Carry what comes to the ports that were bound; returns at once."""
        for route, listening in self._listening:
            threading.Thread(
                target=self._accept, args=(route, listening), name="forward", daemon=True
            ).start()

    def await_answer(self, route: Route) -> None:
        """Return once something answers where a route leads. Raises ``RemoteError`` when it never will."""
        while True:
            try:
                _, tunnel = self._link.through(route.target)
            except PortClosed as error:
                self._tell(route, error)
                self._pause.wait(ASK_S)
            else:
                self._told.pop(route, None)
                tunnel.close()
                return

    def _accept(self, route: Route, listening: socket.socket) -> None:
        while listening.fileno() >= 0:
            self._room.acquire()
            try:
                client, _ = listening.accept()
            except OSError as error:
                self._room.release()
                if error.errno in _OVER:
                    return
                # Whoever called may have hung up already; where sockets have run out, some will be free soon.
                self._pause.wait(0.05)
                continue
            threading.Thread(target=self._serve, args=(route, client), name="forwarded", daemon=True).start()

    def _serve(self, route: Route, client: socket.socket) -> None:
        try:
            with client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._carry(route, client)
        except OSError:
            log.debug("a connection to %s was gone before it was carried", route)
        finally:
            self._room.release()

    def _carry(self, route: Route, client: socket.socket) -> None:
        try:
            connection, tunnel = self._link.through(route.target)
        except RemoteError as error:
            _reset(client)
            self._tell(route, error)
            return
        self._told.pop(route, None)
        with tunnel:
            try:
                relay(client, tunnel, connection.check)
            except HostUnreachable:
                _reset(client)
                self._link.doubt()

    def _tell(self, route: Route, error: RemoteError) -> None:
        """Say why a route leads nowhere, once until it does again."""
        if self._told.get(route) != error.message:
            self._told[route] = error.message
            self._link.tell(Event("waiting", f"{error.message}: {error.why}"))


def relay(client: socket.socket, tunnel: socket.socket, intact: Callable[[], object]) -> None:
    """Carry bytes both ways until both sides have ended, each of which may end its half first.

    ``intact`` is called before the end of what comes through the tunnel is passed on, and what it raises is
    raised here: an end because the way was lost must not look like one.
    """
    sender = threading.Thread(target=_send, args=(client, tunnel), name="forwarded-up", daemon=True)
    sender.start()
    try:
        with suppress(OSError):
            while data := tunnel.recv(CHUNK):
                client.sendall(data)
            intact()
            client.shutdown(socket.SHUT_WR)
            hung_up(tunnel)
    finally:
        with suppress(OSError):
            tunnel.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RD)
        sender.join()


def _send(client: socket.socket, tunnel: socket.socket) -> None:
    how = socket.SHUT_WR
    while True:
        try:
            data = client.recv(CHUNK)
        except OSError:
            data, how = b"", socket.SHUT_RDWR
        try:
            if not data:
                tunnel.shutdown(how)
                return
            tunnel.sendall(data)
        except OSError:
            # The far side takes no more; what it has sent is still carried.
            return


def _reset(client: socket.socket) -> None:
    """Let a connection end by a reset once it is closed."""
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def addresses_of(name: str) -> list[str]:
    """The addresses of this computer that a name or an address means. Raises ``UsageError``."""
    try:
        found = socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"{name!r} is no address to listen at", why=str(error), hint="--bind 127.0.0.1, or 0.0.0.0"
        ) from error
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def exposed(address: str) -> bool:
    """Whether others than this computer reach an address."""
    return not is_loopback(address)


def _take(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Listen at one port of every address that exists here; 0 means any. Raises ``OSError``."""
    for tries_left in reversed(range(TRIES)):
        try:
            return _listen(addresses, port)
        except OSError as error:
            # What is free at the first address need not be so at the next.
            if port or not tries_left or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("the last try returns or raises")


def _listen(addresses: Sequence[str], port: int) -> list[socket.socket]:
    taken: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for address in addresses:
            try:
                taken.append(_listen_at(address, port))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
            else:
                port = taken[0].getsockname()[1]
        if missing and not taken:
            raise missing
    except BaseException:
        for listening in taken:
            listening.close()
        raise
    return taken


def _listen_at(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _refused(addresses: Sequence[str], port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        why, hint = "another program listens there", "leave the local port out, and a free one is taken"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        why, hint = "ports below 1024 are for root", f"{port + 8000}:{port}, as in 8080:80"
    else:
        why, hint = error.strerror or str(error), "--bind 127.0.0.1"
    return UsageError(f"port {port} of {addresses[0]} cannot be used here", why=why, hint=hint)
