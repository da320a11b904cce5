"""A tree of files as a tar stream, written while the files are read and never kept in memory."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gpucloud.remote.streams import Writer
from gpucloud.remote.tree import Entry, EntryKind

CHUNK: Final = 262_144

_NANOSECONDS: Final = 1_000_000_000
_TYPES: Final = {
    EntryKind.FILE: tarfile.REGTYPE,
    EntryKind.FOLDER: tarfile.DIRTYPE,
    EntryKind.SYMLINK: tarfile.SYMTYPE,
}


def write_tar(
    root: Path,
    entries: Iterable[Entry],
    out: Writer,
    alias: Mapping[bytes, Path] = MappingProxyType({}),
    done: Callable[[int, int], object] = lambda files, size: None,
) -> list[str]:
    """Stream exactly ``entries``, which lie below ``root``, as an archive that GNU, busybox and BSD tar read.

    ``alias`` tells of paths where they lie instead, ``done`` is told the files and bytes of each piece.

    Hard links are sent as separate files, times in whole seconds, owners not at all. Returns the paths whose
    content is no longer what the entry says, or changed while it was read; what vanished, or is no regular
    file any more, is not in the archive.
    """
    changed = []
    for entry in entries:
        if entry.kind is not EntryKind.FILE:
            out.write(header(entry))
        else:
            place = alias.get(os.fsencode(entry.path)) or root / entry.path
            if not _write_file(place, entry, out, done):
                changed.append(entry.path)
            done(1, 0)
    out.write(bytes(2 * tarfile.BLOCKSIZE))
    return changed


def header(entry: Entry) -> bytes:
    """Return the tar header of one entry; several blocks when its path, target or size is long."""
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.size = entry.size
    info.mode = entry.mode
    info.mtime = entry.mtime_ns // _NANOSECONDS
    info.linkname = entry.target
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def _write_file(place: Path, entry: Entry, out: Writer, done: Callable[[int, int], object]) -> bool:
    """Write one file as it is now; tell whether it was all the while the one that ``entry`` describes."""
    try:
        # Without O_NONBLOCK a FIFO that took the file's place would stop us here.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(place, flags)
    except OSError:
        return False
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return False
        out.write(header(replace(entry, size=before.st_size, mtime_ns=before.st_mtime_ns)))
        missing = before.st_size
        while missing and (chunk := _read(descriptor, min(CHUNK, missing))):
            out.write(chunk)
            missing -= len(chunk)
            done(0, len(chunk))
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    described = (entry.size, entry.mtime_ns)
    steady = not missing and all((now.st_size, now.st_mtime_ns) == described for now in (before, after))
    # The header has announced the size: without what is missing nothing after it could be read.
    while missing:
        filler = bytes(min(CHUNK, missing))
        out.write(filler)
        missing -= len(filler)
    out.write(bytes(-before.st_size % tarfile.BLOCKSIZE))
    return steady


def _read(descriptor: int, size: int) -> bytes:
    try:
        return os.read(descriptor, size)
    except OSError:
        return b""
