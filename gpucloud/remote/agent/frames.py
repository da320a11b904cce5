"""Framed messages over a pair of byte streams; the same code speaks on both sides, on Python 3.7 or later."""

from __future__ import annotations

import struct
import zlib

TYPE_CHECKING = False  # The module typing takes longer to import than all of the others.
if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = struct.Struct(">cI")
LIMIT = 1 << 24
"""Bytes of a frame at most; whoever sends a longer one is not to be trusted."""


class Broken(Exception):
    """The other side stopped in the middle of a frame, or said what is no frame."""


class Frames:
    """Reads and writes frames: a kind of one byte, and bytes.

    ``read`` is that of a raw or buffered binary file: up to so many bytes, empty at the end. ``write`` takes
    all that it is given.
    """

    def __init__(self, read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
        self._read = read
        self._write = write

    def send(self, kind: bytes, *parts: bytes) -> None:
        """Send one frame of at most ``LIMIT`` bytes, made of these parts."""
        size = sum(map(len, parts))
        header = HEADER.pack(kind, size)
        if size < 65536:
            self._write(b"".join((header, *parts)))
        else:
            # Long ones are not copied.
            self._write(b"".join((header, *parts[:-1])))
            self._write(parts[-1])

    def receive(self) -> tuple[bytes, bytes]:
        """The next frame; the kind is empty once the other side has ended. Raises ``Broken``."""
        head = self._exactly(HEADER.size, or_none=True)
        if not head:
            return b"", b""
        kind, size = HEADER.unpack(head)
        if size > LIMIT:
            raise Broken("a frame of %d bytes" % size)
        return kind, self._exactly(size)

    def _exactly(self, size: int, or_none: bool = False) -> bytes:
        data = self._read(size) if size else b""
        if len(data) == size or (or_none and not data):
            return data
        parts = [data]
        got = len(data)
        while got < size:
            data = self._read(min(size - got, 1 << 20))
            if not data:
                raise Broken("cut off after %d of %d bytes" % (got, size))
            parts.append(data)
            got += len(data)
        return b"".join(parts)


def inflate(data: bytes, limit: int) -> bytes:
    """What zlib compressed, unless it is longer than ``limit``. Raises ``Broken``."""
    machine = zlib.decompressobj()
    try:
        whole = machine.decompress(data, limit)
    except zlib.error as error:
        raise Broken(str(error)) from error
    if machine.unconsumed_tail or not machine.eof:
        raise Broken("compressed bytes that are cut off or longer than announced")
    return whole
