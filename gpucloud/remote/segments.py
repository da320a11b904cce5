"""Large files on their way here: cut into segments, which several connections may bring at once."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from gpucloud.remote.agent import pieces
from gpucloud.remote.agent.frames import Broken, inflate
from gpucloud.remote.landing import Landing, Part
from gpucloud.remote.meter import Meter

SEGMENT: Final = 8 << 20
"""Bytes of a segment; few enough that all connections end at about the same time."""

_AT_ONCE: Final = 2
"""Segments that a connection has asked for and not yet got: while one comes, the next is made ready."""


@dataclass(slots=True)
class Large:
    """A large file that is wanted: the ranges of it that are not here, and what of it ``basis`` has."""

    number: int
    path: str
    size: int
    version: int
    mode: int
    mtime_ns: int
    ranges: list[tuple[int, int]]
    basis: int | None = None
    """The size of the older file here from which the rest is taken."""
    part: Part | None = None
    left: int = 0
    how: int = pieces.OK


@dataclass(slots=True)
class Segment:
    """A piece of a large file, from ``offset`` to ``end``; what comes of it moves ``offset`` on."""

    large: Large
    offset: int
    end: int


class Segments:
    """The segments of all large files, for whichever connection is free. ``done`` is told of each file."""

    def __init__(
        self,
        files: Iterable[Large],
        landing: Landing,
        meter: Meter,
        done: Callable[[Large, str | None], object],
    ) -> None:
        self._landing = landing
        self._meter = meter
        self._done = done
        self._lock = threading.RLock()
        self._coming = self._cut(files)
        self._returned: deque[Segment] = deque()
        self._open: set[int] = set()
        self._parts: dict[int, Part] = {}
        self._stopped = False

    def take(self) -> Segment | None:
        """The next segment; ``None`` when there is none at the moment."""
        with self._lock:
            if self._stopped:
                return None
            while self._returned:
                segment = self._returned.popleft()
                if segment.large.how == pieces.OK:
                    return segment
                self._count(segment.large)
            return next(self._coming, None)

    def put_back(self, segments: Iterable[Segment]) -> None:
        """What a connection that broke has not brought, somebody else may."""
        with self._lock:
            self._returned.extend(segments)

    def finish(self, segment: Segment, how: int) -> None:
        """A segment is here, or the file is not what it was."""
        with self._lock:
            if how != pieces.OK:
                segment.large.how = how
            self._count(segment.large)

    def store(self, segment: Segment, data: bytes | memoryview) -> None:
        """Write what came of a segment."""
        assert segment.large.part is not None
        segment.large.part.write(data, segment.offset)
        segment.offset += len(data)
        self._meter.add(size=len(data))

    def clear(self, segment: Segment, size: int) -> None:
        """Zeros came, or would have."""
        assert segment.large.part is not None
        segment.large.part.clear(segment.offset, size)
        segment.offset += size
        self._meter.add(size=size)

    def stop(self) -> None:
        """Hand out no more."""
        with self._lock:
            self._stopped = True

    def close(self) -> None:
        """What is not complete is kept for the next pull. Nobody stores anything any more."""
        with self._lock:
            for part in self._parts.values():
                part.close()
            self._parts.clear()

    def _cut(self, files: Iterable[Large]) -> Iterator[Segment]:
        for large in files:
            large.part = self._landing.part(large.path)
            self._parts[large.number] = large.part
            large.part.resize(large.size)
            if large.basis is not None:
                self._begin(large, large.part, large.basis)
            # One more, so that it is not taken for complete before all of it was handed out.
            large.left = 1
            for start, end in large.ranges:
                for offset in range(start, end, SEGMENT):
                    large.left += 1
                    yield Segment(large, offset, min(offset + SEGMENT, end))
            self._count(large)

    def _begin(self, large: Large, part: Part, size: int) -> None:
        descriptor = self._landing.open(large.path)
        if descriptor is not None:
            import os

            try:
                part.begin_with(descriptor, min(size, large.size))
            finally:
                os.close(descriptor)

    def _count(self, large: Large) -> None:
        large.left -= 1
        if large.left or self._stopped:
            return
        part = self._parts.pop(large.number)
        place = None
        if large.how == pieces.OK:
            place = self._landing.settle_part(part, large.mode, large.mtime_ns)
        part.close()
        self._done(large, place)


class Lane:
    """One connection's share of the segments; ``ask`` sends the host a question."""

    def __init__(self, segments: Segments, ask: Callable[[bytes, bytes], object]) -> None:
        self._segments = segments
        self._ask = ask
        self.asked: deque[Segment] = deque()

    def ask_more(self) -> None:
        """Ask for as much as should be on its way."""
        while len(self.asked) < _AT_ONCE and (segment := self._segments.take()):
            self.asked.append(segment)
            large = segment.large
            head = pieces.RANGE.pack(large.version, segment.offset, segment.end - segment.offset)
            self._ask(b"R", head + large.path.encode("utf-8", "surrogateescape"))

    def take(self, kind: bytes, data: bytes) -> None:
        """Take a piece of the answer. Raises ``Broken``."""
        if not self.asked:
            raise Broken("an answer to no question")
        segment = self.asked[0]
        left = segment.end - segment.offset
        if kind in {b"D", b"d"} and len(data) >= pieces.DATA.size:
            offset, digest = pieces.DATA.unpack_from(data)
            content: bytes | memoryview = memoryview(data)[pieces.DATA.size :]
            if kind == b"d":
                content = inflate(bytes(content), pieces.CHUNK)
            if offset != segment.offset or not 0 < len(content) <= left:
                raise Broken("a piece that was not asked for")
            if hashlib.sha256(content).digest() != digest:
                raise Broken("a piece that is not what its checksum says")
            self._segments.store(segment, content)
        elif kind == b"Z" and len(data) == pieces.HOLE.size:
            offset, size = pieces.HOLE.unpack(data)
            if offset != segment.offset or not 0 < size <= left:
                raise Broken("a piece that was not asked for")
            self._segments.clear(segment, size)
        elif kind == b"R" and len(data) == 1:
            if data[0] == pieces.OK and left:
                raise Broken("a piece that is too short")
            self.asked.popleft()
            self._segments.finish(segment, data[0])
            self.ask_more()
        else:
            raise Broken(f"a frame of kind {kind!r}")

    def give_up(self) -> None:
        """Let the others bring what did not come here."""
        self._segments.put_back(self.asked)
        self.asked.clear()
