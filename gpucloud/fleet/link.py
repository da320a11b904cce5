"""A connection to one node that is made again whenever it is lost, for whoever needs it for hours."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Final, Self

from gpucloud.errors import GpucloudError, HostUnreachable, Interrupted
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import connect, node_label, on_host, poll
from gpucloud.fleet.reconnect import over
from gpucloud.model import Cluster, Event, Rental, RentalState
from gpucloud.remote.ends import is_loopback

if TYPE_CHECKING:
    from gpucloud.remote.connection import Connection
    from gpucloud.remote.host import Host

LOOK_S: Final = 10.0
"""How often a connection is asked whether it is still one while nobody doubts it."""

_OVER: Final = {RentalState.ENDING, RentalState.GONE}

WAIT_S: Final = 60.0
"""How long who needs a connection waits for one that was lost."""


class Link:
    """The connection to a node; use as a context manager, and let a thread ``hold`` it.

    Raises, from the constructor, what ``connect`` raises.
    """

    def __init__(self, fleet: Fleet, cluster: Cluster, rank: int) -> None:
        self._fleet = fleet
        self.tell = fleet.tell
        self._token = cluster.rentals[rank].token
        self.label = node_label(cluster, rank)
        self._changed = threading.Condition()
        self._doubtful = threading.Event()
        self._failure: GpucloudError | None = None
        self._current: Connection | None = connect(fleet, cluster.rentals[rank], self.label)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._replace(None)

    @property
    def at_loopback(self) -> bool:
        """Whether the node is reached at this computer, of which it may be a part."""
        ssh = self._rental().ssh
        return ssh is not None and ssh.jump is None and is_loopback(ssh.host)

    def through(self, target: tuple[str, int]) -> tuple[Connection, socket.socket]:
        """The connection as it is, and a socket that leads to ``target`` as the node sees it.

        Raises:
            PortClosed: when nothing answers there.
            RemoteError: when the node lets nobody through.
            HostUnreachable: when a lost connection did not come back in time.
        """
        until, lost = time.monotonic() + WAIT_S, None
        while True:
            connection = self._other_than(lost, until)
            try:
                return connection, connection.through(target)
            except HostUnreachable:
                lost = connection
                self.doubt()

    def host(self) -> Host:
        """The on-host program behind the connection as it is. Raises ``HostUnreachable``."""
        return on_host(self._other_than(None, time.monotonic()), self._rental())

    def doubt(self) -> None:
        """Have the connection looked at now."""
        self._doubtful.set()

    def hold(self) -> None:
        """Look after the connection for ever, and make it again when it is lost.

        Raises:
            Interrupted: when the machine is no longer there.
            HostUnreachable: when it could not be reached for ``ssh.reconnect_timeout``.
            RemoteError: when it is not to be reached like this, as with another host key.
        """
        try:
            while True:
                self._doubtful.wait(LOOK_S)
                self._doubtful.clear()
                self._look_after()
        except GpucloudError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            raise

    def _look_after(self) -> None:
        assert self._current is not None
        self._insist()
        try:
            self._current.check()
        except HostUnreachable:
            self._replace(None)
            self.tell(Event("disconnected", f"{self.label}: the connection was lost; trying again"))
            self._replace(self._reconnect())
            self.tell(Event("connected", f"{self.label}: the connection is back"))

    def _reconnect(self) -> Connection:
        last: list[HostUnreachable] = []

        def attempt() -> Connection | None:
            self._ask()
            try:
                return connect(self._fleet, self._rental(), self.label, wait=False)
            except HostUnreachable as error:
                last[:] = [error]
                return None

        connection = poll(attempt, self._fleet.config.duration("ssh.reconnect_timeout"))
        if connection is None:
            raise last[0]
        return connection

    def _rental(self) -> Rental:
        """As the books have it now: started again it may be elsewhere."""
        return self._fleet.store.journal.get(self._token)

    def _insist(self) -> None:
        """Raise ``Interrupted`` when the books say that the machine is gone, or about to go."""
        rental = self._rental()
        if rental.state in _OVER:
            raise self._gone(rental.reason or "it was ended")

    def _ask(self) -> None:
        """Raise ``Interrupted`` when the machine is gone, as far as its provider tells."""
        if ended := over(self._fleet, self._rental()):
            raise self._gone(ended.why)

    def _gone(self, why: str) -> Interrupted:
        return Interrupted(f"{self.label} is gone", why=why, hint="gpucloud ps")

    def _other_than(self, lost: Connection | None, until: float) -> Connection:
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure or self._current not in (None, lost), max(0.0, until - time.monotonic())
            )
            if self._current is None or self._current is lost:
                raise self._failure or HostUnreachable(
                    f"{self.label} does not answer over SSH",
                    why=f"the connection was lost, and not there again within {WAIT_S:g} s",
                    hint="gpucloud ps --refresh asks its provider how it is",
                )
            return self._current

    def _replace(self, connection: Connection | None) -> None:
        with self._changed:
            before, self._current = self._current, connection
            self._changed.notify_all()
        if before is not None:
            before.close()
