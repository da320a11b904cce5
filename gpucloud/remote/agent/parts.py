"""Large files on the host: they grow as parts in the folder of a session, from what is there already."""

from __future__ import annotations

import os
from _blake2 import blake2b
from contextlib import suppress

from gpucloud.remote.agent.manifest import FILE, KIND
from gpucloud.remote.agent.place import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 131_072
"""Bytes of which each side computes a checksum."""

CHECKSUM = 16
GROUP = 64
"""Blocks whose checksums are sent together."""

THREADS = 4

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_CLONE = 0x40049409
_PIECE = 1 << 26


def name_of(path: bytes) -> bytes:
    """The name of the part that becomes the file of that path."""
    return b"part-" + blake2b(path, digest_size=12).hexdigest().encode()


def header(name: bytes, offset: int) -> bytes:
    """What comes before a piece of a part."""
    return name + b"\0" + offset.to_bytes(8, "big")


def part_of(data: bytes) -> tuple[bytes, int, int]:
    """Name and offset that ``header`` told, and where the piece begins."""
    at = data.index(b"\0", 0, 64) + 1
    return data[: at - 1], int.from_bytes(data[at : at + 8], "big"), at + 8


def checksum(data: bytes) -> bytes:
    """That of one block."""
    return blake2b(data, digest_size=CHECKSUM).digest()


def checksums(descriptor: int, size: int, take: Callable[[int, bytes], object]) -> None:
    """Compute those of all blocks of a file; ``take`` gets each group and its number, in order.

    Raises ``OSError``.
    """

    def work(number: int) -> bytes:
        start = number * BLOCK * GROUP
        places = range(start, min(size, start + BLOCK * GROUP), BLOCK)
        return b"".join(checksum(os.pread(descriptor, min(BLOCK, size - at), at)) for at in places)

    in_order(-(-size // (BLOCK * GROUP)), work, take)


def whole(place: bytes, folder: int | None = None) -> bytes:
    """The checksum of a whole file; empty when it cannot be read."""
    machine = blake2b(digest_size=CHECKSUM)
    try:
        descriptor = os.open(place, _READ, dir_fd=folder)
        try:
            if os.fstat(descriptor).st_mode & KIND != FILE:
                return b""
            while True:
                data = os.read(descriptor, 1 << 20)
                if not data:
                    return machine.digest()
                machine.update(data)
        finally:
            os.close(descriptor)
    except OSError:
        return b""


def in_order(count: int, work: Callable[[int], bytes], take: Callable[[int, bytes], object]) -> None:
    """Do so many pieces of work in several threads; ``take`` gets number and result of each, in order."""
    import threading

    done: dict[int, bytes | OSError] = {}
    turn = threading.Condition()
    numbers = iter(range(count))
    over: list[bool] = []
    taken = [0]

    def serve() -> None:
        while True:
            with turn:
                number = next(numbers, None)
                # Not far ahead of whoever takes it.
                while number is not None and number > taken[0] + 4 * THREADS and not over:
                    turn.wait()
                if number is None or over:
                    return
            try:
                result: bytes | OSError = work(number)
            except OSError as error:
                result = error
            with turn:
                done[number] = result
                turn.notify_all()

    threads = [
        threading.Thread(target=serve, daemon=True) for _ in range(min(count, THREADS, os.cpu_count() or 1))
    ]
    for thread in threads:
        thread.start()
    try:
        for number in range(count):
            with turn:
                while number not in done:
                    turn.wait()
                result = done.pop(number)
                taken[0] = number
                turn.notify_all()
            if isinstance(result, OSError):
                raise result
            take(number, result)
    finally:
        with turn:
            over.append(True)
            turn.notify_all()
        for thread in threads:
            thread.join()


class Parts:
    """The parts in one folder."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._open: dict[bytes, int] = {}

    def found(self) -> list[bytes]:
        """The parts that an earlier push has left."""
        return [name for name in map(os.fsencode, os.listdir(self._session)) if name.startswith(b"part-")]

    def begin(self, name: bytes, folder: int | None, file: bytes, say: Callable[[int, bytes], object]) -> int:
        """Let a part be what it was when a push broke off, or else a copy of a file.

        ``say`` gets the checksums of its blocks, as they are then. Returns their size in bytes together.
        """
        descriptor = self._part(name)
        size = os.fstat(descriptor).st_size
        if size or folder is None:
            checksums(descriptor, size, say)
            return size
        try:
            source = os.open(file, _READ, dir_fd=folder)
        except OSError:
            return 0
        try:
            status = os.fstat(source)
            if status.st_mode & KIND != FILE:
                return 0
            return self._from(source, status.st_size, name, say)
        finally:
            os.close(source)

    def _from(self, source: int, size: int, name: bytes, say: Callable[[int, bytes], object]) -> int:
        # A copy that was cut off must not pass for a part.
        os.close(self._open.pop(name))
        os.unlink(name, dir_fd=self._session)
        draft = b"draft-" + name
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=self._session)
        copy = os.open(draft, _WRITE | os.O_EXCL, 0o600, dir_fd=self._session)
        self._open[name] = copy
        failed: list[OSError] = []

        def work() -> None:
            try:
                clone(source, copy, size)
            except OSError as error:
                failed.append(error)

        import threading

        thread = threading.Thread(target=work)
        thread.start()
        try:
            checksums(source, size, say)
        finally:
            thread.join()
        if failed:
            os.unlink(draft, dir_fd=self._session)
            raise failed[0]
        os.rename(draft, name, src_dir_fd=self._session, dst_dir_fd=self._session)
        return size

    def _part(self, name: bytes) -> int:
        found = self._open.get(name)
        if found is None:
            if b"/" in name or not name.startswith(b"part-"):
                raise ValueError("no name of a part")
            if len(self._open) > 16:
                self.close()
            found = self._open[name] = os.open(name, _WRITE, 0o600, dir_fd=self._session)
        return found

    def write(self, name: bytes, offset: int, data: memoryview) -> None:
        """Write a piece of a part."""
        descriptor = self._part(name)
        while data:
            done = os.pwrite(descriptor, data, offset)
            data = data[done:]
            offset += done

    def complete(self, name: bytes, mode: int, size: int, mtime_ns: int) -> None:
        """Give a part its size, permissions and time; then it can be moved into place."""
        descriptor = self._part(name)
        os.ftruncate(descriptor, size)
        os.fchmod(descriptor, mode & 0o777)
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        os.close(self._open.pop(name))

    def close(self) -> None:
        """Close what is open."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


def clone(source: int, copy: int, size: int) -> None:
    """Copy a file within the host: sharing its blocks where the file system can, else keeping its holes."""
    with suppress(OSError, ImportError):
        import fcntl

        fcntl.ioctl(copy, _CLONE, source)
        return
    os.ftruncate(copy, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
            end = os.lseek(source, at, os.SEEK_HOLE)
        except OSError:
            # Nothing but a hole is left.
            return
        at = _copy(source, copy, at, min(end, size))


def _copy(source: int, copy: int, at: int, end: int) -> int:
    while at < end:
        try:
            done = os.copy_file_range(source, copy, min(end - at, _PIECE), at, at)
        except (OSError, AttributeError):
            done = 0
        if not done:
            data = os.pread(source, min(end - at, 1 << 20), at)
            if not data:
                return end
            os.lseek(copy, at, os.SEEK_SET)
            write_all(copy, memoryview(data))
            done = len(data)
        at += done
    return at
