"""What nodes have written, kept until all have ended: little in memory, more in a file, never too much."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from typing import Final

from gpucloud.errors import GpucloudError

MOST: Final = 16 * 1024 * 1024
"""So many bytes of each stream are kept, the last ones."""

HELD: Final = 128 * 1024
"""So many of them in memory."""


class Transcripts:
    """The file that transcripts share; it has no name, so nothing of it stays behind."""

    def __init__(self, most: int = MOST, held: int = HELD) -> None:
        self.most = most
        self.held = held
        self._count = 0
        self._file = -1

    def new(self) -> Transcript:
        """An empty transcript."""
        self._count += 1
        return Transcript(self, (self._count - 1) * self.most)

    def write(self, data: bytes, at: int) -> None:
        """Write all of ``data`` at an offset. Raises ``GpucloudError`` when there is no room."""
        try:
            if self._file < 0:
                with tempfile.TemporaryFile() as file:
                    self._file = os.dup(file.fileno())
            while data:
                done = os.pwrite(self._file, data, at)
                data, at = data[done:], at + done
        except OSError as error:
            raise GpucloudError(
                "the output of the nodes cannot be kept until they have ended",
                why=f"{tempfile.gettempdir()}: {error.strerror}",
                hint="set TMPDIR to a folder with room, or leave out --group and --json",
            ) from error

    def read(self, size: int, at: int) -> bytes:
        """Up to ``size`` bytes at an offset."""
        return os.pread(self._file, size, at)


class Transcript:
    """The end of a stream. ``size`` is how many bytes there were in all."""

    def __init__(self, store: Transcripts, base: int) -> None:
        self.size = 0
        self._store = store
        self._base = base
        self._held = bytearray()
        self._filed = 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, data: bytes) -> None:
        """Keep what was written next. Raises ``GpucloudError`` when there is no room for it."""
        self.size += len(data)
        self._digest.update(data)
        self._held += data
        if len(self._held) > self._store.held:
            self._file_away()

    @property
    def digest(self) -> bytes:
        """The same for the same bytes, whether all of them are kept or not."""
        return self._digest.digest()

    @property
    def left_out(self) -> int:
        """How many bytes at the beginning are not kept."""
        return max(0, self._filed - self._store.most)

    def pieces(self) -> Iterator[bytes]:
        """What is kept, in order."""
        most = self._store.most
        at = self.left_out
        while at < self._filed:
            place = at % most
            data = self._store.read(min(self._store.held, most - place, self._filed - at), self._base + place)
            yield data
            at += len(data)
        yield bytes(self._held)

    def _file_away(self) -> None:
        data, most = memoryview(bytes(self._held)), self._store.most
        while data:
            place = self._filed % most
            part = data[: most - place]
            self._store.write(bytes(part), self._base + place)
            self._filed += len(part)
            data = data[len(part) :]
        self._held.clear()
