"""One command on several nodes at once: connect, run, and end what is to end.

Each node has a thread of its own, which only ever waits. What they have to tell comes out in one place, in
the order in which it happened; who does not take it stops the nodes' output, not their ends.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from gpucloud.errors import GpucloudError, HostUnreachable, RemoteError
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import connect, node_label
from gpucloud.fleet.node_events import TIMED_OUT, How, NodeEnd, Piece
from gpucloud.model import Cluster
from gpucloud.remote.ending import GRACE_S, Outcome, Running, endable

if TYPE_CHECKING:
    from gpucloud.remote.connection import Connection
    from gpucloud.remote.streams import Writer

AT_ONCE: Final = 64
"""So many connections are being opened at the same time, and to one server so many:"""
AT_ONE_SERVER: Final = 8
"""sshd refuses at random from ten that have not logged in; a jump host sees all of a cluster."""

UNTOLD: Final = 256
"""So many pieces of output may wait to be taken."""

CONFIRM_S: Final = 20
"""How much longer than its grace the end of a command may take until it is given up."""

LAST_WORDS_S: Final = 2
"""How long what it wrote before its end may take to arrive."""

Input = bytes | Callable[["Writer"], object]


class _Why(StrEnum):
    """Why a node was told to end."""

    TIMEOUT = "timeout"
    ANOTHER = "another"
    PERSON = "person"


@dataclass(slots=True, eq=False)
class _Node:
    rank: int
    label: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)
    told: _Why | None = None
    connecting: bool = False
    connection: Connection | None = None
    running: Running | None = None
    timer: threading.Timer | None = None
    status: int | None = None
    drained: threading.Event = field(default_factory=threading.Event)


class FanOut:
    """A command on some nodes of a cluster; iterate for its ``Piece`` and ``NodeEnd``, one of these for each.

    ``command`` makes the shell text for a rank. ``stdin`` is what each node gets, ``timeout_s`` how long it
    may take there, connecting included. With ``fail_fast`` the first that fails ends the others.

    Leaving the iteration ends nothing: call ``end`` and iterate on where the commands are to end.
    """

    def __init__(
        self,
        fleet: Fleet,
        cluster: Cluster,
        command: Callable[[int], str],
        ranks: Iterable[int],
        *,
        stdin: Input = b"",
        timeout_s: float | None = None,
        fail_fast: bool = False,
    ) -> None:
        self._fleet = fleet
        self._cluster = cluster
        self._command = command
        self._stdin = stdin
        self._timeout_s = timeout_s
        self._fail_fast = fail_fast
        self._nodes = [_Node(rank, node_label(cluster, rank)) for rank in ranks]
        self._left = len(self._nodes)
        self._events: queue.Queue[Piece | NodeEnd] = queue.Queue(UNTOLD)
        # A signal handler may call end at any moment, even while the main thread holds a lock.
        self._orders: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._turns = threading.Semaphore(AT_ONCE)
        self._servers: dict[tuple[str, int], threading.Semaphore] = {}
        for node in self._nodes:
            self._servers.setdefault(self._server(node), threading.Semaphore(AT_ONE_SERVER))

    def start(self) -> None:
        """Begin on all nodes."""
        threading.Thread(target=self._obey, name="fan-out", daemon=True).start()
        for node in self._nodes:
            threading.Thread(target=self._serve, args=(node,), name=node.label, daemon=True).start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece | NodeEnd:
        if not self._left:
            raise StopIteration
        event = self._events.get()
        if isinstance(event, NodeEnd):
            self._left -= 1
        return event

    def end(self) -> None:
        """Have it end on all nodes: SIGTERM, then SIGKILL. Iterating tells how it went.

        Returns at once, and may be called in a signal handler.
        """
        self._orders.put(None)

    def _obey(self) -> None:
        self._orders.get()
        for node in self._nodes:
            self._tell(node, _Why.PERSON)

    def _server(self, node: _Node) -> tuple[str, int]:
        """The address that a connection to a node logs in at first."""
        address = self._cluster.rentals[node.rank].ssh
        while address and address.jump:
            address = address.jump
        return (address.host, address.port) if address else (node.label, 0)

    def _serve(self, node: _Node) -> None:
        """All that happens on a node; each end of it is told."""
        try:
            self._run(node, self._connect(node))
        except GpucloudError as error:
            self._finish(node, How.FAILED, error=error)
        except BaseException as error:  # noqa: BLE001 - told where everything is told
            why = f"{type(error).__name__}: {error}"
            self._finish(node, How.FAILED, error=RemoteError(f"{node.label} failed", why=why))
        finally:
            node.drained.set()
            if node.told:
                # Its end still uses the connection.
                node.over.wait()
            if node.connection:
                node.connection.close()

    def _connect(self, node: _Node) -> Connection | None:
        """Connect, in turn; ``None`` when it was told to end meanwhile."""
        with ExitStack() as turn:
            # First the narrower place: who waits there takes no turn from others.
            turn.enter_context(self._servers[self._server(node)])
            turn.enter_context(self._turns)
            with node.lock:
                if node.told:
                    return None
                node.began, node.connecting = time.monotonic(), True
            if self._timeout_s is not None:
                node.timer = _later(self._timeout_s, partial(self._tell, node, _Why.TIMEOUT))
            connection = connect(self._fleet, self._cluster.rentals[node.rank], node.label)
        with node.lock:
            node.connection = connection
            if node.told:
                return None
            node.running = Running(partial(self._piece, node, True))
        return connection

    def _run(self, node: _Node, connection: Connection | None) -> None:
        if connection is None or node.running is None:
            return
        done = connection.run(
            endable(self._command(node.rank)),
            stdin=self._stdin,
            stdout=partial(self._piece, node, False),
            stderr=node.running.take,
            endless_stdin=True,
        )
        node.running.close()
        with node.lock:
            node.status, told = done.status, node.told
        # Who has told it to end knows how that went.
        if not told:
            self._finish(node, How.EXITED, done.status)

    def _piece(self, node: _Node, stderr: bool, data: bytes) -> None:
        if not node.over.is_set():
            self._events.put(Piece(node.rank, stderr, data))

    def _tell(self, node: _Node, why: _Why) -> None:
        """Begin to end it on a node, unless it is over or ending already."""
        with node.lock:
            if node.told or node.over.is_set():
                return
            node.told = why
        threading.Thread(target=self._end, args=(node,), name=f"end {node.label}", daemon=True).start()
        _later(GRACE_S + CONFIRM_S, partial(self._give_up, node))

    def _end(self, node: _Node) -> None:
        if node.connection is None or node.running is None:
            self._finish_told(node, None)
            return
        try:
            outcome = node.running.end(node.connection, wait_s=GRACE_S)
        except GpucloudError:
            outcome = Outcome.LEFT
        # Its last words are told before its end.
        node.drained.wait(LAST_WORDS_S)
        self._finish_told(node, outcome)
        # What has left its session may keep the streams open.
        with suppress(GpucloudError, OSError, EOFError):
            node.connection.close()

    def _give_up(self, node: _Node) -> None:
        """The end is not confirmed in time."""
        self._finish_told(node, Outcome.LEFT)

    def _finish_told(self, node: _Node, outcome: Outcome | None) -> None:
        if outcome is Outcome.NONE and node.status is not None:
            self._finish(node, How.EXITED, node.status)
        elif node.told is _Why.TIMEOUT:
            if node.connection is None:
                self._finish(node, How.FAILED, error=self._late(node))
            else:
                self._finish(node, How.TIMED_OUT, TIMED_OUT, outcome=outcome)
        elif outcome is None:
            self._finish(node, How.NOT_STARTED)
        else:
            self._finish(node, How.ENDED, outcome=outcome)

    def _late(self, node: _Node) -> HostUnreachable:
        return HostUnreachable(
            f"{node.label} does not answer over SSH",
            why=f"there was no connection within {self._timeout_s:g} s",
            hint="gpucloud ps --refresh asks its provider how it is",
        )

    def _finish(
        self,
        node: _Node,
        how: How,
        status: int | None = None,
        *,
        error: GpucloudError | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        """Tell how it ended on a node, once."""
        with node.lock:
            if node.over.is_set():
                return
            node.over.set()
        if node.timer:
            node.timer.cancel()
        end = NodeEnd(node.rank, how, status, time.monotonic() - node.began, error, outcome)
        if self._fail_fast and not end.good:
            for other in self._nodes:
                self._tell(other, _Why.ANOTHER)
        self._events.put(end)


def _later(seconds: float, act: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer
