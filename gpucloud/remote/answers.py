"""What the helper on the host says during a push."""

from __future__ import annotations

import queue
import threading
import time
import zlib
from dataclasses import dataclass
from typing import Final

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent.frames import Broken, Frames
from gpucloud.remote.agent.manifest import decode

_STATE_LIMIT: Final = 1 << 29


class Gone(Exception):
    """The host says nothing more; why is known to whoever listened."""


@dataclass(frozen=True, slots=True)
class State:
    """What the host says of its file system, in ns how fine times are, and of this push."""

    grain: int = 1
    modes: bool = True
    cases: bool = True
    session: str = ""
    parts: frozenset[bytes] = frozenset()


class Answers:
    """Heard in one thread, and used in another."""

    def __init__(self, label: str) -> None:
        self.state = State()
        self.result: bytes | None = None
        self._label = label
        self._heard: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        self._informed = threading.Event()
        self._asked = 0.0
        self._rtt: float | None = None

    def listen(self, frames: Frames) -> None:
        """Take all that the host says; what it complains of is raised."""
        while (said := frames.receive())[0]:
            kind, data = said
            if kind == b"p":
                self._rtt = time.monotonic() - self._asked
            elif kind == b"e":
                raise failure(self._label, data)
            elif kind == b"i":
                self.state = _state(data)
                self._informed.set()
            elif kind == b"!":
                self.result = data
            else:
                self._heard.put(said)

    def hang_up(self) -> None:
        """Nothing more will be heard."""
        self._heard.put(None)
        self._informed.set()

    def next(self, kinds: bytes) -> tuple[bytes, bytes]:
        """The next that the host says, which must be of one of these kinds."""
        said = self._heard.get()
        if said is None:
            self.hang_up()
            raise Gone
        if said[0] not in kinds:
            raise Broken(f"{said[0]!r} where one of {kinds!r} was to come")
        return said

    def all_until(self, kinds: bytes) -> bytes:
        """What it says in frames of the first kind, until one of the second comes."""
        parts = []
        while (said := self.next(kinds))[0] == kinds[:1]:
            parts.append(said[1])
        return b"".join(parts)

    def there(self, known: dict[bytes, bytes] | None) -> dict[bytes, bytes]:
        """What is there: what we know, if the host agrees, else what it tells."""
        told = zlib.decompressobj()
        data: list[bytes] = []
        size = 0
        while (said := self.next(b"=ms~"))[0] == b"m":
            data.append(_inflated(told, said[1], _STATE_LIMIT - size))
            size += len(data[-1])
        if said[0] == b"=" and known is not None:
            return known
        listing = decode(b"".join(data))
        if not self._informed.is_set() or listing is None:
            raise Broken("it tells of its files what makes no sense")
        if said[0] == b"~":
            listing = (known or {}) | listing
        return {folder: block for folder, block in listing.items() if block}

    def ping(self, frames: Frames) -> None:
        """Find out how far away the host is."""
        self._asked = time.monotonic()
        frames.send(b"p")

    @property
    def measured(self) -> bool:
        """Whether it is known how far away the host is."""
        return self._rtt is not None

    def far(self, least_s: float) -> bool:
        """Tell whether a round trip is known to take longer than that."""
        waited_s = time.monotonic() - self._asked
        return (waited_s / 2 if self._rtt is None else self._rtt) > least_s

    def informed(self) -> State:
        """What the host says of itself, once it has."""
        self._informed.wait()
        return self.state


def unfinished(label: str) -> SyncFailed:
    """The error for a push whose end the host has not confirmed."""
    return SyncFailed(
        f"{label} has not said that all has come",
        why="a connection ended in the middle",
        hint="push again: what has come is not sent again",
    )


def failure(label: str, data: bytes) -> SyncFailed:
    """What the helper complains of, as our error."""
    reason, _, path = data.partition(b"\0")
    name = path.decode("utf-8", "replace")
    return SyncFailed(
        f"{name!r} could not be written on {label}" if name else f"files could not be written on {label}",
        why=reason.decode("utf-8", "replace"),
        hint="make room for it there, or move away what is in its place; then push again",
    )


def _state(data: bytes) -> State:
    head, *found = data.split(b"\0")
    try:
        grain, modes, cases, session = head.decode("ascii").split(" ")
        return State(max(1, int(grain)), modes == "1", cases == "1", session, frozenset(found))
    except ValueError as error:
        raise Broken(str(error)) from error


def _inflated(machine: zlib._Decompress, data: bytes, limit: int) -> bytes:
    try:
        out = machine.decompress(data, max(1, limit))
    except zlib.error as error:
        raise Broken(str(error)) from error
    if machine.unconsumed_tail or not limit:
        raise Broken("it tells of more files than can be")
    return out
