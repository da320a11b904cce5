"""What lies in a tree, packed: for each folder the rows of what is in it; the same on both sides.

A tree is a dict from the path of a folder (bytes, relative, ``b""`` for the root) to its rows. A folder in
which nothing lies has no rows, and is only a row of the folder that it is in.
"""

from __future__ import annotations

import struct
from _blake2 import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Listing = dict[bytes, bytes]
    Row = tuple[bytes, int, int, int, bytes]

ROW = struct.Struct(">HHQq")
"""Of a row: the length of the name, mode with kind, size in bytes, time of the last change in nanoseconds.

The name follows, and the target of a symlink, whose length is the size. Times are those of files alone.
"""

KIND = 0o170000
FILE = 0o100000
FOLDER = 0o040000
LINK = 0o120000
PERMISSIONS = 0o777

_MAGIC = b"gpucloud-manifest/2\n"
_HEAD = struct.Struct(">HI")
_DIGEST = 16


def row(name: bytes, mode: int, size: int, mtime_ns: int, target: bytes = b"") -> bytes:
    """One row; ``mode`` has the kind in it."""
    return ROW.pack(len(name), mode, size, mtime_ns) + name + target


def rows(block: bytes) -> Iterator[Row]:
    """Each row of a folder: name, mode, size, time and target. Raises ``ValueError`` for nonsense."""
    unpack, head, end, at = ROW.unpack_from, ROW.size, len(block), 0
    while at < end:
        if end - at < head:
            raise ValueError("a row is cut off")
        length, mode, size, mtime_ns = unpack(block, at)
        at += head
        name = block[at : at + length]
        at += length
        target = b""
        if mode & KIND == LINK:
            target = block[at : at + size]
            at += size
        if at > end or not name or b"/" in name or b"\0" in name or name == b"." or name == b"..":
            raise ValueError("a name that cannot be")
        yield name, mode, size, mtime_ns, target


def block_of(found: Iterable[bytes]) -> bytes:
    """The rows of a folder from single ones, always in the same order."""
    return b"".join(sorted(found))


def join(folder: bytes, name: bytes) -> bytes:
    """The path of what lies in a folder."""
    return folder + b"/" + name if folder else name


def split(path: bytes) -> tuple[bytes, bytes]:
    """Folder and name of a path."""
    folder, _, name = path.rpartition(b"/")
    return folder, name


def is_inside(path: bytes) -> bool:
    """Tell whether a path surely leads to something below the folder that it starts from."""
    return bool(path) and b"\0" not in path and not {b"", b".", b".."}.intersection(path.split(b"/"))


def digest(listing: Listing) -> bytes:
    """What two trees have in common only when all is the same in them."""
    machine = blake2b(digest_size=_DIGEST)
    for folder in sorted(listing):
        machine.update(_HEAD.pack(len(folder), len(listing[folder])) + folder)
        machine.update(listing[folder])
    return machine.digest()


def encode(listing: Listing) -> bytes:
    """A listing as it is kept in a file, its digest last."""
    parts = [_MAGIC]
    for folder in sorted(listing):
        parts += (_HEAD.pack(len(folder), len(listing[folder])), folder, listing[folder])
    parts.append(digest(listing))
    return b"".join(parts)


def decode(data: bytes) -> Listing | None:
    """What ``encode`` wrote, or ``None`` when anything is wrong with it. Of its rows nothing is said yet."""
    listing = {}
    at, end = len(_MAGIC), len(data) - _DIGEST
    if not data.startswith(_MAGIC) or end < at:
        return None
    while at < end:
        if end - at < _HEAD.size:
            return None
        length, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        folder = data[at : at + length]
        at += length
        if at + size > end or (folder and not is_inside(folder)):
            return None
        listing[folder] = data[at : at + size]
        at += size
    return listing if digest(listing) == data[end:] else None


class Changing:
    """A listing that is being changed, without being taken apart where it is not."""

    def __init__(self, listing: Listing) -> None:
        self._listing = dict(listing)
        self._added: dict[bytes, list[bytes]] = {}
        self._dropped: dict[bytes, set[bytes]] = {}

    def put(self, folder: bytes, new: bytes) -> None:
        """Add a row to a folder, or replace the one of that name."""
        found = self._added.get(folder)
        if found is None:
            found = self._added[folder] = []
        found.append(new)

    def drop(self, folder: bytes, name: bytes) -> None:
        """Take out what lies there; what is put in later stays."""
        if folder in self._added:
            self._settle(folder)
        self._dropped.setdefault(folder, set()).add(name)

    def listing(self) -> Listing:
        """What it is by now."""
        for folder in set(self._added) | set(self._dropped):
            self._settle(folder)
        return self._listing

    def _settle(self, folder: bytes) -> None:
        dropped = self._dropped.pop(folder, ())
        named = {}
        for name, mode, size, mtime_ns, target in rows(self._listing.pop(folder, b"")):
            if name not in dropped:
                named[name] = row(name, mode, size, mtime_ns, target)
        for new in self._added.pop(folder, ()):
            name = new[ROW.size : ROW.size + ROW.unpack_from(new)[0]]
            named[name] = new
        if named:
            self._listing[folder] = block_of(named.values())
