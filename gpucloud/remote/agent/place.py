"""The folder that a push fills, on the host: names are looked up from open folders, so no link is followed.

Nothing is under its own name there before it is complete.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from gpucloud.remote.agent.manifest import FOLDER, KIND, LINK, PERMISSIONS, join, split

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = b"new"
"""Below it in the folder of a session grow the folders that are not in the target yet."""

_TEMPORARY = b"file"
_HELD = 64


class Place:
    """The target of a push, and the folder of its session, which is on the same file system."""

    def __init__(self, target: int, session: int, number: int) -> None:
        self.target = target
        self.session = session
        self._device = os.fstat(session).st_dev
        self._temporary = _TEMPORARY + b"%d" % number
        self._held: dict[bytes, tuple[int, bool]] = {}
        self._roots: list[bytes] = []
        self._modes: list[tuple[bytes, int]] = []

    def folder(self, path: bytes) -> tuple[int, bool]:
        """An open folder, and whether nobody sees it before ``publish``."""
        found = self._held.get(path)
        if found is None:
            if len(self._held) >= _HELD:
                self._forget()
            found = self._held[path] = self._opened(path)
        return found

    def _opened(self, path: bytes) -> tuple[int, bool]:
        if not path:
            return os.dup(self.target), False
        with suppress(FileNotFoundError, NotADirectoryError):
            return _walk(self.session, _new(path)), True
        return _walk(self.target, path), False

    def _forget(self) -> None:
        for descriptor, _ in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def make_folder(self, path: bytes, mode: int) -> None:
        """Make a folder with these permissions, or give them to the one that is there.

        A file or link in its place goes.
        """
        above, name = split(path)
        mode &= PERMISSIONS
        parent, hidden = self.folder(above)
        # Until all is in it, it must be one that we may write to.
        if mode & 0o700 != 0o700:
            self._modes.append((path, mode))
        if hidden or not self._is_new(parent, name):
            _make(parent, name, mode | 0o700)
            return
        self._roots.append(path)
        parent = self._staged(above)
        try:
            _make(parent, name, mode | 0o700)
        finally:
            os.close(parent)

    def _is_new(self, parent: int, name: bytes) -> bool:
        """Tell whether a folder can come by renaming; a file or link in its place goes."""
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            # What is mounted below the target gets nothing that way.
            return os.fstat(parent).st_dev == self._device
        if there & KIND != FOLDER:
            os.unlink(name, dir_fd=parent)
        return False

    def _staged(self, path: bytes) -> int:
        """Make the folders above what is new, and open the last one."""
        folder = os.dup(self.session)
        for name in _new(path).split(b"/"):
            try:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
                inner = os.open(name, OPEN_FOLDER, dir_fd=folder)
            finally:
                os.close(folder)
            folder = inner
        return folder

    def put(self, path: bytes, mode: int, mtime_ns: int, content: memoryview) -> None:
        """Put a file into place."""
        above, name = split(path)
        folder, hidden = self.folder(above)
        mode &= PERMISSIONS
        where, temporary = (folder, name) if hidden else (self.session, self._temporary)
        try:
            descriptor = os.open(temporary, NEW_FILE, mode, dir_fd=where)
        except FileExistsError:
            os.unlink(temporary, dir_fd=where)
            descriptor = os.open(temporary, NEW_FILE, mode, dir_fd=where)
        try:
            write_all(descriptor, content)
            # Last, for by its time a complete file is known.
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        except OSError:
            os.unlink(temporary, dir_fd=where)
            raise
        finally:
            os.close(descriptor)
        if not hidden:
            self.settle(temporary, folder, name)

    def link(self, path: bytes, target: bytes) -> None:
        """Put a symlink into place."""
        above, name = split(path)
        folder, _ = self.folder(above)
        with suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self.session)
        os.symlink(target, self._temporary, dir_fd=self.session)
        self.settle(self._temporary, folder, name)

    def settle(self, temporary: bytes, folder: int, name: bytes) -> None:
        """Move what is complete from the session's folder to where it belongs."""
        try:
            os.rename(temporary, name, src_dir_fd=self.session, dst_dir_fd=folder)
        except OSError as error:
            if error.errno == errno.EXDEV:
                # Another file system is mounted on this folder.
                self._carry(temporary, folder, name)
            else:
                os.unlink(temporary, dir_fd=self.session)
                raise

    def _carry(self, temporary: bytes, folder: int, name: bytes) -> None:
        status = os.stat(temporary, dir_fd=self.session, follow_symlinks=False)
        beside = b".gpucloud-%d" % os.getpid()
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder)
        try:
            if status.st_mode & KIND == LINK:
                os.symlink(os.readlink(temporary, dir_fd=self.session), beside, dir_fd=folder)
            else:
                source = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.session)
                copy = os.open(beside, NEW_FILE, 0o600, dir_fd=folder)
                try:
                    while True:
                        data = os.read(source, 1 << 20)
                        if not data:
                            break
                        write_all(copy, memoryview(data))
                    os.fchmod(copy, status.st_mode & PERMISSIONS)
                    os.utime(copy, ns=(status.st_mtime_ns, status.st_mtime_ns))
                finally:
                    os.close(source)
                    os.close(copy)
            os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=folder)
            os.unlink(temporary, dir_fd=self.session)

    def touch(self, path: bytes, mode: int, size: int, mtime_ns: int) -> bool:
        """Give a file its time and permissions; ``False`` when it is not there in that size."""
        above, name = split(path)
        folder, _ = self.folder(above)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=folder)
        except OSError:
            return False
        try:
            status = os.fstat(descriptor)
            if status.st_mode & KIND != 0o100000 or status.st_size != size:
                return False
            os.fchmod(descriptor, mode & PERMISSIONS)
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(descriptor)
        return True

    def remove(self, path: bytes) -> None:
        """Remove a file or link, or, when the name ends in a slash, a folder if nothing is in it."""
        is_folder = path.endswith(b"/")
        above, name = split(path.rstrip(b"/"))
        try:
            folder, _ = self.folder(above)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            # A job has put a link in the place of a folder.
            if error.errno == errno.ELOOP:
                return
            raise
        if is_folder:
            self._held.pop(path.rstrip(b"/"), None)
            with suppress(OSError):
                os.rmdir(name, dir_fd=folder)
            return
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if status.st_mode & KIND != FOLDER:
                os.unlink(name, dir_fd=folder)

    def publish(self) -> None:
        """Let everything be seen, each new folder at once."""
        self._forget()
        for path in self._roots:
            above, name = split(path)
            staged = _walk(self.session, _new(above))
            folder = _walk(self.target, above) if above else os.dup(self.target)
            try:
                merge(staged, name, folder)
            finally:
                os.close(staged)
                os.close(folder)
        self._roots = []
        for path, mode in reversed(self._modes):
            above, name = split(path)
            folder, _ = self.folder(above)
            # No link is there: we have made it, or seen that it is a folder.
            os.chmod(name, mode, dir_fd=folder)
        self._forget()


def merge(source: int, name: bytes, folder: int) -> None:
    """Move a folder to another; where something of that name came there meanwhile, what is in it."""
    try:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=folder)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    try:
        os.mkdir(name, 0o755, dir_fd=folder)
    except FileExistsError:
        if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode & KIND != FOLDER:
            os.unlink(name, dir_fd=folder)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=folder)
            return
    inner = os.open(name, OPEN_FOLDER, dir_fd=source)
    outer = os.open(name, OPEN_FOLDER, dir_fd=folder)
    try:
        for item in os.listdir(inner):
            raw = os.fsencode(item)
            if os.stat(raw, dir_fd=inner, follow_symlinks=False).st_mode & KIND == FOLDER:
                merge(inner, raw, outer)
            else:
                os.rename(raw, raw, src_dir_fd=inner, dst_dir_fd=outer)
    finally:
        os.close(inner)
        os.close(outer)
    os.rmdir(name, dir_fd=source)


def _new(path: bytes) -> bytes:
    return join(NEW, path) if path else NEW


def _make(parent: int, name: bytes, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        os.chmod(name, mode, dir_fd=parent)


def _walk(start: int, path: bytes) -> int:
    folder = os.dup(start)
    for name in path.split(b"/") if path else ():
        try:
            inner = os.open(name, OPEN_FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


def write_all(descriptor: int, data: memoryview) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(descriptor, data) :]
