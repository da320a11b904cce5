"""How the files of a pull are cut up and announced on the wire; the same on both sides."""

from __future__ import annotations

import struct

SMALL = 1 << 20
"""Bytes of a file that is sent whole, at most; a larger one comes in chunks, which can be resumed."""

CHUNK = 1 << 20
"""Bytes of a large file that are sent, and checked, at once."""

BATCH = 1 << 18
"""Bytes of small files, of an announcement or of digests that are collected for one frame."""

BATCH_LIMIT = 1 << 22
"""Bytes of such a frame at most, unpacked."""

DIGEST = 32

OK, CHANGED, GONE, UNREADABLE, MORE = range(5)
"""How it went with a file: it was read and kept still, or not, or more of it is to come."""

FILE, LINK, LOST = b"f", b"l", b"-"

ENTRY = struct.Struct(">cHHHQqQQ")
"""An announcement: kind, bytes of its name and of its target, mode, size, mtime in ns, bytes that it takes
up on the disk, version. The name and the target follow."""

WHOLE = struct.Struct(">IBI32s")
"""A small file: its number, how it went, its size, its digest. The content follows."""

SUMS = struct.Struct(">IBI")
"""Digests of the blocks of a file, one after the other: its number, how it went, how many follow."""

RANGE = struct.Struct(">QQQ")
"""What is asked for of a large file: the version, from where and how much. Its name follows."""

DATA = struct.Struct(">Q32s")
"""A chunk: where it belongs and its digest. The content follows."""

HOLE = struct.Struct(">QQ")
"""Zeros: from where and how many."""

_MOST_SUMS = 1 << 14


def block_of(size: int) -> int:
    """The bytes of which each digest is made that are compared of a file of this size."""
    block = 1 << 18
    while block * _MOST_SUMS < size and block < 1 << 22:
        block <<= 1
    return block
