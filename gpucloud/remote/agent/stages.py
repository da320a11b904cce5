"""Where a push keeps on the host what is not complete, and what it leaves when it is cut off.

Each push has a folder, its session, with a journal of what it is about to write. Whoever holds the lock on
the journal is alive; what a dead one has left is taken over by the next push of the same folder.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from gpucloud.remote.agent.manifest import (
    FILE,
    FOLDER,
    KIND,
    LINK,
    PERMISSIONS,
    ROW,
    block_of,
    is_inside,
    join,
    row,
    rows,
    split,
)
from gpucloud.remote.agent.place import NEW, OPEN_FOLDER, merge, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpucloud.remote.agent.manifest import Listing

STALE_S = 7 * 86_400
"""After so long what nobody has taken over is removed."""

YOUNG_S = 600
"""For so long somebody may be about to use a session that has no journal."""

JOURNAL = b"journal"
_PREFIX = b".gpucloud-"


class Stages:
    """The sessions of all pushes under one key to one target."""

    def __init__(self, root: str, key: str, target: int) -> None:
        self._prefix = _PREFIX + key.encode() + b"-"
        self._target = target
        base = os.path.join(root, "stage")
        os.makedirs(base, mode=0o700, exist_ok=True)
        self.base = os.open(base, OPEN_FOLDER)
        if os.fstat(self.base).st_dev != os.fstat(target).st_dev:
            # What is to be renamed to its place must be on the same file system.
            os.close(self.base)
            self.base = os.dup(target)
        self.dead: list[bytes] = []
        self.alive: list[bytes] = []
        for item in os.listdir(self.base):
            name = os.fsencode(item)
            if name.startswith(self._prefix):
                (self.alive if self._lives(name) else self.dead).append(name)
            elif name.startswith(_PREFIX):
                self._sweep(name)

    def _sweep(self, name: bytes) -> None:
        with suppress(OSError):
            status = os.stat(name, dir_fd=self.base, follow_symlinks=False)
            if time.time() - status.st_mtime > STALE_S and not self._lives(name):
                remove_all(name, self.base)

    def _lives(self, name: bytes) -> bool:
        try:
            folder = os.open(name, OPEN_FOLDER, dir_fd=self.base)
        except OSError:
            return False
        try:
            found = journals(folder)
            if not found:
                # It may be about to begin.
                return time.time() - os.fstat(folder).st_mtime < YOUNG_S
            return not all(_free(folder, item) for item in found)
        finally:
            os.close(folder)

    def recovered(self) -> list[bytes]:
        """What pushes that did not end have brought, or were about to.

        What those had complete that are dead is in place from now on.
        """
        found = []
        for name in self.dead + self.alive:
            with suppress(OSError, ValueError):
                folder = os.open(name, OPEN_FOLDER, dir_fd=self.base)
                try:
                    brought = [one for item in journals(folder) for one in entries(folder, item)]
                    found += [path for path, _ in brought]
                    if name in self.dead:
                        self._place(folder, brought)
                finally:
                    os.close(folder)
        return found

    def _place(self, session: int, brought: list[tuple[bytes, bytes]]) -> None:
        """Let be seen what a dead push has completed in new folders; what is not complete goes."""
        try:
            new = os.open(NEW, OPEN_FOLDER, dir_fd=session)
        except OSError:
            return
        try:
            _prune(new, b"", dict(brought))
            for item in os.listdir(new):
                _graft(new, os.fsencode(item), self._target)
        finally:
            os.close(new)

    def adopt(self, session: int) -> None:
        """Take over the parts of dead pushes."""
        for name in self.dead:
            with suppress(OSError):
                folder = os.open(name, OPEN_FOLDER, dir_fd=self.base)
                try:
                    for item in os.listdir(folder):
                        if item.startswith("part-"):
                            os.rename(item, item, src_dir_fd=folder, dst_dir_fd=session)
                finally:
                    os.close(folder)

    def new(self) -> tuple[bytes, int]:
        """Make a session: its name and its open folder."""
        name = self._prefix + b"%d-" % os.getpid() + os.urandom(4).hex().encode()
        os.mkdir(name, 0o700, dir_fd=self.base)
        return name, os.open(name, OPEN_FOLDER, dir_fd=self.base)

    def join(self, name: bytes) -> int:
        """Open the session of another process of the same push."""
        if not name.startswith(self._prefix) or b"/" in name:
            raise ValueError("no name of a session")
        return os.open(name, OPEN_FOLDER, dir_fd=self.base)

    def clear(self, *more: bytes) -> None:
        """Remove what dead pushes have left, and these sessions."""
        for name in (*self.dead, *more):
            with suppress(OSError):
                remove_all(name, self.base)


class Journal:
    """What one process of a push is about to write, for the push that comes after it when it is cut off."""

    def __init__(self, session: int, number: int) -> None:
        name = JOURNAL + b"-%d" % number
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        # Under its name it is seen only when it is locked.
        draft = b"draft-" + name
        self._file = os.open(draft, flags, 0o600, dir_fd=session)
        _lock(self._file)
        os.rename(draft, name, src_dir_fd=session, dst_dir_fd=session)

    def note(self, found: list[bytes]) -> None:
        """Write down rows whose names are whole paths."""
        write_all(self._file, memoryview(b"".join(found)))


def journals(session: int) -> list[bytes]:
    """The names of all journals of a session."""
    return [name for name in map(os.fsencode, os.listdir(session)) if name.startswith(JOURNAL)]


def entries(session: int, name: bytes) -> list[tuple[bytes, bytes]]:
    """Each path of a journal, and its row; a last one that is cut off does not count."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=session)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read()
    found, at = [], 0
    while len(data) - at >= ROW.size:
        length, mode, size, mtime_ns = ROW.unpack_from(data, at)
        end = at + ROW.size + length + (size if mode & KIND == LINK else 0)
        path = data[at + ROW.size : at + ROW.size + length]
        if end > len(data) or not is_inside(path):
            break
        target = data[at + ROW.size + length : end]
        found.append((path, row(split(path)[1], mode, size, mtime_ns, target)))
        at = end
    return found


def _lock(file: int) -> bool:
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def _free(session: int, name: bytes) -> bool:
    """Tell whether the lock on a journal is free, and take it for as long as it is open here."""
    try:
        file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=session)
    except OSError:
        return True
    try:
        return _lock(file)
    finally:
        os.close(file)


def _prune(folder: int, path: bytes, brought: dict[bytes, bytes]) -> None:
    for item in os.listdir(folder):
        name = os.fsencode(item)
        here = join(path, name)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if status.st_mode & KIND == FOLDER:
            inner = os.open(name, OPEN_FOLDER, dir_fd=folder)
            try:
                _prune(inner, here, brought)
            finally:
                os.close(inner)
        elif status.st_mode & KIND == FILE:
            found = row(name, FILE | (status.st_mode & PERMISSIONS), status.st_size, status.st_mtime_ns)
            if brought.get(here) != found:
                os.unlink(name, dir_fd=folder)


def _graft(source: int, name: bytes, target: int) -> None:
    """Move a grown folder into the target; those above it, which are there already, only lead to it."""
    with suppress(OSError):
        merge(source, name, target)


def remove_all(name: bytes, above: int) -> None:
    """Remove a folder of ours and all that is in it, following no link."""
    folder = os.open(name, OPEN_FOLDER, dir_fd=above)
    try:
        for item in os.listdir(folder):
            raw = os.fsencode(item)
            if os.stat(raw, dir_fd=folder, follow_symlinks=False).st_mode & KIND == FOLDER:
                remove_all(raw, folder)
            else:
                os.unlink(raw, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=above)


def look(listing: Listing) -> tuple[Listing, list[bytes]]:
    """What of a listing is really in the current folder, and in which folders that is something else."""
    real = {b""}
    actual: Listing = {}
    different = []
    for folder in sorted(listing):
        block = listing[folder]
        if folder not in real:
            different.append(folder)
            continue
        start = folder + b"/" if folder else b""
        found = []
        same = True
        for name, *said in rows(block):
            path = start + name
            try:
                now = _seen(path)
            except OSError:
                same = False
                continue
            if now[0] & KIND == FOLDER:
                real.add(path)
            same = same and now == said
            found.append((name, now))
        if same:
            actual[folder] = block
        else:
            different.append(folder)
            if found:
                actual[folder] = block_of(row(name, *now) for name, now in found)
    return actual, different


def _seen(path: bytes) -> list[Any]:
    """Of what lies at a path all that a row has behind the name."""
    status = os.lstat(path)
    mode = status.st_mode & (KIND | PERMISSIONS)
    kind = mode & KIND
    if kind == FILE:
        return [mode, status.st_size, status.st_mtime_ns, b""]
    if kind == LINK:
        target = os.readlink(path)
        return [LINK | PERMISSIONS, len(target), 0, target]
    return [mode, 0, 0, b""]


def known(listing: Listing, paths: list[bytes]) -> None:
    """Add paths of which only the names matter to a listing."""
    more: dict[bytes, set[bytes]] = {}
    for path in paths:
        folder, name = split(path)
        more.setdefault(folder, set()).add(name)
    for folder, names in more.items():
        old = listing.get(folder, b"")
        names.difference_update(found[0] for found in rows(old))
        listing[folder] = old + b"".join(row(name, FILE, 0, -1) for name in sorted(names))
