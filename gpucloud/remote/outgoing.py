"""What a push sends, cut into pieces that any of several connections can carry."""

from __future__ import annotations

import os
import stat
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpucloud.remote.agent import parts
from gpucloud.remote.agent.frames import Frames
from gpucloud.remote.agent.manifest import FILE, KIND, LINK, ROW, join, row, rows
from gpucloud.remote.meter import Meter

PACK: Final = 1 << 20
"""Bytes of small files that go together; a file of more is sent in pieces of as many."""

RANGE: Final = 1 << 23
"""Bytes of a large file that one connection takes at a time."""

DELTA: Final = 1 << 23
"""From so many bytes on it pays to compare blocks with what is there."""

ATTEMPTS: Final = 3
"""How often a file is read again that changed while it was read."""

_FILES: Final = 1000
_INCOMPRESSIBLE: Final = 0.9
_SKIP: Final = 16
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Large:
    """A file that is sent in pieces: its row, and what became of it on the way."""

    path: bytes
    mode: int
    size: int
    mtime_ns: int
    left: int = 0
    lanes: set[int] = field(default_factory=set)
    unsteady: bool = False
    gone: bool = False
    closed: bool = False

    @property
    def part(self) -> bytes:
        """What it is called there until it is complete."""
        return parts.name_of(self.path)

    def row(self) -> bytes:
        """Its row, with its whole path."""
        return self.row_of(self.path)

    def row_of(self, name: bytes) -> bytes:
        """Its row under a name."""
        # What changed while it was read must differ from what it is by the next time.
        return row(name, self.mode, self.size, self.mtime_ns ^ self.unsteady)


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of a large file."""

    file: Large
    start: int
    end: int


Pack = list[tuple[bytes, list[bytes]]]
"""Folders, and rows of small files and links in them."""


@dataclass(slots=True)
class Outgoing:
    """What is left to be sent; lanes take from it until nothing is left.

    ``told`` are the rows, by folder and name, that differ from the plan because files changed meanwhile;
    empty for what is gone.
    """

    root: Path
    alias: dict[bytes, Path]
    meter: Meter
    told: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    changing: list[bytes] = field(default_factory=list)
    large: list[Large] = field(default_factory=list)
    files: int = 0
    size: int = 0
    _pieces: Iterator[Pack | Range] = field(default_factory=lambda: iter(()))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def place(self, path: bytes) -> bytes:
        """Where it lies here."""
        if path in self.alias:
            return os.fsencode(self.alias[path])
        return os.fsencode(self.root) + b"/" + path

    def offer(self, small: dict[bytes, list[bytes]], ranges: list[Range]) -> None:
        """Let lanes take these."""
        for piece in ranges:
            piece.file.left += 1
        self._pieces = self._cut(small, ranges)

    def _cut(self, small: dict[bytes, list[bytes]], ranges: list[Range]) -> Iterator[Pack | Range]:
        pack: Pack = []
        size = files = 0
        for folder in sorted(small):
            chosen: list[bytes] = []
            for one in small[folder]:
                chosen.append(one)
                size += ROW.unpack_from(one)[2]
                files += 1
                if size >= PACK or files >= _FILES:
                    yield [*pack, (folder, chosen)]
                    pack, chosen, size, files = [], [], 0, 0
            if chosen:
                pack.append((folder, chosen))
        if pack:
            yield pack
        yield from ranges

    def take(self, lane: int) -> Pack | Range | None:
        """The next piece for a lane, or ``None`` when there is none."""
        with self._lock:
            piece = next(self._pieces, None)
            if isinstance(piece, Range):
                piece.file.lanes.add(lane)
            return piece

    def sent(self, piece: Range) -> bool:
        """A piece of a large file is on its way; tells whether that was all of it, and on one lane."""
        with self._lock:
            piece.file.left -= 1
            return piece.file.left == 0 and len(piece.file.lanes) == 1

    def deviate(self, folder: bytes, name: bytes, now: bytes) -> None:
        """What was sent is not what the plan says."""
        with self._lock:
            self.told[folder, name] = now


class Lane:
    """Sends pieces over one connection."""

    def __init__(self, number: int, outgoing: Outgoing, frames: Frames) -> None:
        self.number = number
        self.compress = False
        self._outgoing = outgoing
        self._frames = frames
        self._raw = 0

    def send(self, piece: Pack | Range) -> None:
        """Send one piece."""
        if isinstance(piece, Range):
            if not piece.file.gone:
                self._range(piece)
        else:
            self._pack(piece)

    def _pack(self, pack: Pack) -> None:
        out: list[bytes] = []
        files = size = 0
        for folder, found in pack:
            for name, mode, was, mtime_ns, target in rows(b"".join(found)):
                path = join(folder, name)
                if mode & KIND == LINK:
                    out.append(row(path, mode, was, mtime_ns, target))
                    continue
                read = self._read(folder, name, path, (mode, was, mtime_ns))
                if read is not None:
                    out += read
                    files += 1
                    size += len(read[1])
        if out:
            data = b"".join(out)
            packed = self._packed(data)
            self._frames.send(*((b"z", packed) if packed else (b"f", data)))
        self._outgoing.meter.add(files, size)

    def _read(
        self, folder: bytes, name: bytes, path: bytes, known: tuple[int, int, int]
    ) -> tuple[bytes, bytes] | None:
        """The row and content of a small file, whole and still; ``None`` when it is gone."""
        mode, size, mtime_ns = known
        for attempt in range(ATTEMPTS):
            try:
                descriptor = os.open(self._outgoing.place(path), _READ)
                try:
                    before = os.fstat(descriptor) if attempt else None
                    data = _all(descriptor, size)
                    after = os.fstat(descriptor)
                finally:
                    os.close(descriptor)
            except OSError:
                break
            if not stat.S_ISREG(after.st_mode) or after.st_size > RANGE:
                break
            if before:
                size, mtime_ns = before.st_size, before.st_mtime_ns
            steady = len(data) == size == after.st_size and mtime_ns == after.st_mtime_ns
            if steady or attempt == ATTEMPTS - 1:
                if not steady:
                    self._outgoing.changing.append(path)
                    mtime_ns ^= 1
                found = (mode, len(data), mtime_ns)
                if found != known:
                    self._outgoing.deviate(folder, name, row(name, *found))
                return row(path, *found), data
            size = after.st_size
        # It is gone, or something else by now: the next push will see.
        self._outgoing.deviate(folder, name, b"")
        return None

    def _packed(self, data: bytes) -> bytes | None:
        if not self.compress or len(data) < 256:
            return None
        if self._raw:
            self._raw -= 1
            return None
        packed = zlib.compress(data, 1)
        if len(packed) < _INCOMPRESSIBLE * len(data):
            return packed
        self._raw = _SKIP
        return None

    def _range(self, piece: Range) -> None:
        file = piece.file
        try:
            descriptor = os.open(self._outgoing.place(file.path), _READ)
        except OSError:
            file.gone = True
            return
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                file.gone = True
                return
            sparse = status.st_blocks * 512 < status.st_size
            for start, end in (
                _data(descriptor, piece.start, piece.end) if sparse else [(piece.start, piece.end)]
            ):
                self._stretch(descriptor, file, start, end)
            for now in (status, os.fstat(descriptor)):
                if (now.st_size, now.st_mtime_ns) != (file.size, file.mtime_ns):
                    file.unsteady = True
        finally:
            os.close(descriptor)

    def _stretch(self, descriptor: int, file: Large, start: int, end: int) -> None:
        while start < end:
            data = os.pread(descriptor, min(PACK, end - start), start)
            if not data:
                break
            head = parts.header(file.part, start)
            packed = self._packed(data)
            self._frames.send(*((b"B", head, packed) if packed else (b"b", head, data)))
            start += len(data)
            self._outgoing.meter.add(0, len(data))


def _all(descriptor: int, size: int) -> bytes:
    """All of a file that should have so many bytes, and one more if it has."""
    data = os.read(descriptor, size + 1)
    if len(data) != size and data:
        while more := os.read(descriptor, PACK):
            data += more
            if len(data) > RANGE:
                break
    return data


def _data(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where between two offsets there is no hole."""
    while start < end:
        try:
            start = os.lseek(descriptor, start, os.SEEK_DATA)
            stop = os.lseek(descriptor, start, os.SEEK_HOLE)
        except OSError:
            return
        if start < end:
            yield start, min(stop, end)
        start = stop


def is_large(mode: int, size: int) -> bool:
    """Tell whether it is sent in pieces."""
    return mode & KIND == FILE and size >= PACK
