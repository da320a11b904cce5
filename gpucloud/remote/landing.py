"""The folder that files come into: nothing is written outside it, nothing half is seen in it.

Names are looked up from open folders, so that no symlink is followed. What is not complete has a hidden
name, is readable for its owner alone, and is locked for as long as somebody is at work on it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from gpucloud.errors import SyncFailed

TEMPORARY: Final = ".gpucloud-"
"""Begins the name of a file that is not complete."""

KEPT_S: Final = 14 * 86_400
"""The part of a large file that nobody has asked for again is forgotten after so long."""

_PART: Final = "-part"
_RANDOM_DIGITS: Final = 16
_STALE: Final = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{16}}-[0-9a-f]{{{_RANDOM_DIGITS}}}")
_PARTS: Final = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{16}}{_PART}")
_PERMISSIONS: Final = 0o777
_CLOSED: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | _CLOSED
_NO_FOLDER: Final = (FileNotFoundError, NotADirectoryError)
_COPIED: Final = 1 << 20


class Landing:
    """A folder here, open for what comes; use as a context manager. Its methods may be called from threads.

    A file that was changed here after ``newer_than`` is kept; what comes in its place lies beside it, with
    the suffix ``beside``. Paths have slashes and were looked through before: no ``..``, no empty parts.

    Raises:
        SyncFailed: from every method, when something cannot be written.
    """

    def __init__(self, into: Path, *, newer_than: datetime | None = None, beside: str = "") -> None:
        self._newer_than = newer_than.timestamp() if newer_than else None
        self._beside = beside
        self._lock = threading.RLock()
        self._folder: tuple[str, int] | None = None
        self._swept: set[str] = set()
        try:
            into.mkdir(parents=True, exist_ok=True)
            self._root = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unwritable(os.fspath(into), error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._leave()
            os.close(self._root)

    @property
    def room(self) -> int:
        """Bytes that can still be written here."""
        disk = os.fstatvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def folds_case(self) -> bool:
        """Tell whether names that differ only by case, or in how their accents are coded, are one here."""
        with self._lock, suppress(OSError), self.temporary("case", self._root) as (name, _):
            return self._lies_at(name.upper())
        return False

    def _lies_at(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._root, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def look(self, path: str) -> os.stat_result | None:
        """What lies at a path, if anything does and no symlink is on the way to it."""
        with self._lock, suppress(OSError):
            return os.stat(_name(path), dir_fd=self._enter(path), follow_symlinks=False)
        return None

    def target(self, path: str) -> str | None:
        """Where the symlink at a path leads, if there is one."""
        with self._lock, suppress(OSError):
            return os.readlink(_name(path), dir_fd=self._enter(path))
        return None

    def open(self, path: str) -> int | None:
        """A descriptor to read the regular file at a path, if there is one that may be read."""
        with self._lock, suppress(OSError):
            flags = os.O_RDONLY | os.O_NONBLOCK | _CLOSED
            descriptor = os.open(_name(path), flags, dir_fd=self._enter(path))
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        return None

    def put(self, path: str, content: bytes, mode: int, mtime_ns: int | None) -> str:
        """Put a whole file in place; returns where it is now."""
        with self._writing(path) as folder:
            while True:
                with self.temporary(path, folder) as (name, descriptor):
                    write_all(descriptor, content)
                    finish(descriptor, mode, mtime_ns)
                    try:
                        return self.settle(path, name, folder)
                    except FileNotFoundError:
                        # Another pull took it for a stale one in the moment before it was locked.
                        if os.fstat(folder).st_nlink == 0:
                            raise

    def link(self, path: str, target: str) -> str:
        """Put a symlink in place, unless it is there; returns where it is now."""
        if self.target(path) == target:
            return path
        with self._writing(path) as folder:
            name = _prefix(path) + "-" + secrets.token_hex(_RANDOM_DIGITS // 2)
            os.symlink(target, name, dir_fd=folder)
            try:
                return self.settle(path, name, folder)
            except BaseException:
                os.unlink(name, dir_fd=folder)
                raise

    def settle(self, path: str, temporary: str, folder: int) -> str:
        """Move what is complete to where it belongs, unless somebody has been at work there."""
        name = _name(path)
        if self._newer_than is not None:
            with suppress(FileNotFoundError):
                present = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if present.st_mtime > self._newer_than:
                    path, name = path + self._beside, name + self._beside
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        return path

    @contextmanager
    def temporary(self, path: str, folder: int) -> Iterator[tuple[str, int]]:
        """A new file in an open folder; when it still has its name at the end it is removed."""
        name = _prefix(path) + "-" + secrets.token_hex(_RANDOM_DIGITS // 2)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _CLOSED, 0o600, dir_fd=folder)
        try:
            _is_ours_alone(descriptor)
            yield name, descriptor
        finally:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)

    def part_size(self, path: str) -> int | None:
        """Bytes that the part of a large file takes up, if an earlier pull has left one."""
        with self._lock, suppress(OSError):
            found = os.stat(_prefix(path) + _PART, dir_fd=self._enter(path), follow_symlinks=False)
            return found.st_blocks * 512
        return None

    def part(self, path: str) -> Part:
        """The part of a large file, as an earlier pull has left it, or empty."""
        with self._writing(path) as folder:
            name = _prefix(path) + _PART
            descriptor = _own_file(name, folder)
            if descriptor is None:
                # Somebody else fetches the same file at the same time.
                name = _prefix(path) + "-" + secrets.token_hex(_RANDOM_DIGITS // 2)
                descriptor = _own_file(name, folder)
                assert descriptor is not None
            return Part(self, path, name, descriptor)

    def settle_part(self, part: Part, mode: int, mtime_ns: int) -> str:
        """Put a part that is complete in place; returns where it is now."""
        with self._writing(part.path) as folder:
            finish(part.descriptor, mode, mtime_ns)
            place = self.settle(part.path, part.name, folder)
            part.close()
            return place

    @contextmanager
    def writing(self, path: str) -> Iterator[int]:
        """The open folder of a path, made where it is missing; every step must be a real folder."""
        with self._writing(path) as folder:
            yield folder

    @contextmanager
    def _writing(self, path: str) -> Iterator[int]:
        with self._lock:
            try:
                folder = self._enter(path, make=True)
                self._sweep(path.rpartition("/")[0], folder)
                yield folder
            except OSError as error:
                raise unwritable(path, error) from error

    def _enter(self, path: str, *, make: bool = False) -> int:
        """Open the folder of a path; it stays open until another is wanted."""
        parent = path.rpartition("/")[0]
        if not parent:
            return self._root
        if self._folder and self._folder[0] == parent:
            return self._folder[1]
        self._leave()
        folder = self._root
        for name in parent.split("/"):
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
            try:
                inner = os.open(name, _FOLDER, dir_fd=folder)
            finally:
                if folder != self._root:
                    os.close(folder)
            folder = inner
        self._folder = parent, folder
        return folder

    def _leave(self) -> None:
        if self._folder:
            os.close(self._folder[1])
            self._folder = None

    def _sweep(self, parent: str, folder: int) -> None:
        """Remove what pulls that were killed have left in a folder, and parts that nobody came back for."""
        if parent in self._swept:
            return
        self._swept.add(parent)
        with os.scandir(folder) as listing:
            ours = [item.name for item in listing if item.name.startswith(TEMPORARY)]
        for name in ours:
            with suppress(OSError):
                kept = _PARTS.fullmatch(name)
                age = time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                if (_STALE.fullmatch(name) or (kept and age > KEPT_S)) and not _in_use(name, folder):
                    os.unlink(name, dir_fd=folder)


class Part:
    """A large file that is not complete, locked for us. ``fresh``: nothing was in it."""

    def __init__(self, landing: Landing, path: str, name: str, descriptor: int) -> None:
        self.path = path
        self.name = name
        self.descriptor = descriptor
        self.fresh = os.fstat(descriptor).st_size == 0
        self._landing = landing
        self._open = True

    def resize(self, size: int) -> None:
        """Make it as long as the file; what is added is a hole."""
        try:
            os.ftruncate(self.descriptor, size)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def begin_with(self, descriptor: int, size: int) -> None:
        """Copy the first bytes of a file that is already here."""
        try:
            _copy(descriptor, self.descriptor, size)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.fresh = False

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write a piece to where it belongs."""
        try:
            while data:
                done = os.pwrite(self.descriptor, data, offset)
                data, offset = data[done:], offset + done
        except OSError as error:
            raise unwritable(self.path, error) from error

    def clear(self, offset: int, size: int) -> None:
        """Make a piece zeros."""
        if self.fresh:
            return
        end = offset + size
        while offset < end:
            if hasattr(os, "SEEK_DATA"):
                try:
                    offset = max(offset, os.lseek(self.descriptor, offset, os.SEEK_DATA))
                except OSError:
                    return
            length = min(_COPIED, end - offset)
            if length > 0 and any(os.pread(self.descriptor, length, offset)):
                self.write(bytes(length), offset)
            offset += length if length > 0 else 1

    def discard(self) -> None:
        """Close it and remove it."""
        with self._landing.writing(self.path) as folder:
            self.close()
            with suppress(FileNotFoundError):
                os.unlink(self.name, dir_fd=folder)

    def close(self) -> None:
        """Keep it for the next pull."""
        if self._open:
            self._open = False
            os.close(self.descriptor)


def unwritable(path: str, error: OSError) -> SyncFailed:
    """The error of a file that cannot be written here."""
    return SyncFailed(
        f"{path!r} cannot be written",
        why=error.strerror or str(error),
        hint="make room for it, or move away what is in its place; then pull again",
    )


def finish(descriptor: int, mode: int, mtime_ns: int | None) -> None:
    """Give a file its permissions, no others than those, and the time of its last change."""
    os.fchmod(descriptor, mode & _PERMISSIONS)
    if mtime_ns is not None:
        # A time that this file system cannot hold is not worth failing for.
        with suppress(OverflowError, OSError):
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of it."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _prefix(path: str) -> str:
    name = _name(path).encode(errors="surrogatepass")
    return TEMPORARY + hashlib.sha256(name).hexdigest()[:16]


def _own_file(name: str, folder: int) -> int | None:
    """Open a file of ours, or a new one, and lock it; ``None`` when somebody else is at work on it."""
    for _ in range(3):
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | _CLOSED
        try:
            descriptor = os.open(name, flags, 0o600, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            os.unlink(name, dir_fd=folder)
            continue
        status = os.fstat(descriptor)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
        if not ours:
            os.close(descriptor)
            os.unlink(name, dir_fd=folder)
        elif not _is_ours_alone(descriptor):
            os.close(descriptor)
            return None
        elif not _is_at(name, folder, status):
            # Whoever had it until now has just put it in place.
            os.close(descriptor)
        else:
            os.fchmod(descriptor, 0o600)
            return descriptor
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _is_at(name: str, folder: int, status: os.stat_result) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), status)
    return False


def _is_ours_alone(descriptor: int) -> bool:
    """Lock a file, where its file system can; false when somebody else has done so."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _in_use(name: str, folder: int) -> bool:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _CLOSED, dir_fd=folder)
    except OSError as error:
        # A symlink is never locked.
        return error.errno != errno.ELOOP
    try:
        return not _is_ours_alone(descriptor)
    finally:
        os.close(descriptor)


def _copy(source: int, target: int, size: int) -> None:
    offset = 0
    while offset < size:
        done = 0
        if hasattr(os, "copy_file_range"):
            with suppress(OSError):
                done = os.copy_file_range(source, target, min(size - offset, 1 << 30), offset, offset)
        if not done:
            data = os.pread(source, min(_COPIED, size - offset), offset)
            if not data:
                return
            done = os.pwrite(target, data, offset)
        offset += done
