"""The host's side of a pull: lists what patterns match, and reads and checksums what is asked for of it.

A file's version is made of all that changes when it is written to. It is told with the file, and looked at
before and after each reading, so that what is sent is what lay there at one moment.
"""

from __future__ import annotations

import array
import hashlib
import os
import queue
import stat
import struct
import sys
import threading
import time
import zlib

from gpucloud.remote.agent import frames as wire
from gpucloud.remote.agent import globs, pieces

TYPE_CHECKING = False  # The module typing takes longer to import than all of the others.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")
    Frame = tuple[bytes, bytes]

TICK_NS = 20000000
"""Two changes of a file within that may leave it with one time."""

COARSE_NS = 2000000000
"""The same on file systems that keep whole seconds."""

NEAR_S = 0.01
"""A link that answers faster carries bytes faster than they are compressed."""

AHEAD = 4
"""Frames that are made ready before they can be sent."""

_VERSION = struct.Struct(">QQQqq")
_ZEROS = bytes(pieces.CHUNK)
_TRIED = 1 << 14


def main(words: list[str]) -> int:
    """Serve one pull from the working directory below ``words[0]``."""
    os.chdir(os.fsencode(words[0]) + b"/work")
    try:
        _Helper().serve()
    except BrokenPipeError:
        # Nobody listens any more; what is still buffered need not be written.
        os._exit(1)
    return 0


class _Helper:
    def __init__(self) -> None:
        self._frames = wire.Frames(sys.stdin.buffer.read, _write)
        self._commands: queue.Queue[Frame] = queue.Queue()
        self._near = True
        self._asked = time.monotonic()
        self._entries: list[tuple[bytes, int, int]] = []

    def serve(self) -> None:
        # The answer to this tells how far away the other side is.
        self._frames.send(b"P")
        threading.Thread(target=self._listen, daemon=True).start()
        serving: dict[bytes, Callable[[bytes], None]] = {
            b"Q": self._find,
            b"A": self._look_again,
            b"W": self._whole,
            b"S": self._sums,
            b"R": self._range,
        }
        while True:
            kind, data = self._commands.get()
            if not kind:
                return
            serving[kind](data)

    def _listen(self) -> None:
        kind = b"?"
        while kind:
            try:
                kind, data = self._frames.receive()
            except (wire.Broken, OSError):
                kind = data = b""
            if kind == b"P":
                self._near = time.monotonic() - self._asked < NEAR_S
            else:
                self._commands.put((kind, data))

    # -- what there is ------------------------------------------------------------------------------

    def _find(self, data: bytes) -> None:
        """List what patterns match, and then what the links lead to that they name."""
        patterns = {globs.parts_of(_text(pattern)) for pattern in data.split(b"\0")}
        before: list[globs.Globs] = []
        found: set[str] = set()
        try:
            while patterns:
                wanted = globs.Globs(patterns)
                led: set[str] = set()
                self._announce(self._new(wanted, before, found, led))
                self._frames.send(b"n")
                before.append(wanted)
                patterns = {
                    globs.parts_of(globs.escaped(there)) for there in led if not _covered(there, found)
                }
        except OSError as error:
            self._frames.send(b"X", _told(error))
        self._frames.send(b"N")

    def _new(
        self, wanted: globs.Globs, before: list[globs.Globs], found: set[str], led: set[str]
    ) -> Iterator[bytes]:
        for path, status in _walk(wanted):
            name = _text(path)
            if any(earlier.takes(name) for earlier in before):
                continue
            found.add(name)
            entry = self._entry(path, status)
            if entry[:1] == pieces.LINK and wanted.names(name):
                led.add(globs.led_to(name, _text(os.readlink(path))))
            yield entry
        led.discard("")

    def _entry(self, path: bytes, status: os.stat_result) -> bytes:
        """Announce a file or link, which so gets the next number."""
        target, kind, size = b"", pieces.FILE, status.st_size
        if stat.S_ISLNK(status.st_mode):
            kind, size, target = pieces.LINK, 0, os.readlink(path)
        version = _version(status)
        self._entries.append((path, size, version))
        return _announcement(kind, path, target, status, size, version)

    def _look_again(self, data: bytes) -> None:
        """Announce files that changed once more; they keep their numbers."""

        def entries() -> Iterator[bytes]:
            for number in _numbers(data):
                path = self._entries[number][0]
                try:
                    status = os.lstat(path)
                except OSError:
                    status = None
                if status is None or not stat.S_ISREG(status.st_mode):
                    yield pieces.ENTRY.pack(pieces.LOST, len(path), 0, 0, 0, 0, 0, 0) + path
                    continue
                self._entries[number] = (path, status.st_size, _version(status))
                yield _announcement(pieces.FILE, path, b"", status, *self._entries[number][1:])

        self._announce(entries())
        self._frames.send(b"N")

    def _announce(self, entries: Iterable[bytes]) -> None:
        for batch in _batches(entries):
            self._frames.send(b"E", zlib.compress(batch, 1))

    # -- what is in it ------------------------------------------------------------------------------

    def _whole(self, data: bytes) -> None:
        """Send small files."""

        def files() -> Iterator[bytes]:
            for number in _numbers(data):
                path, size, version = self._entries[number]
                how, content = _content(path, size, version)
                digest = hashlib.sha256(content).digest()
                yield pieces.WHOLE.pack(number, how, len(content), digest) + content

        for kind, batch in _ahead(self._packed(b"F", batch) for batch in _batches(files())):
            self._frames.send(kind, batch)

    def _sums(self, data: bytes) -> None:
        """Send the digests of the blocks of files."""

        def digests() -> Iterator[bytes]:
            for number in _numbers(data):
                for how, sums in _block_sums(*self._entries[number]):
                    yield pieces.SUMS.pack(number, how, len(sums)) + b"".join(sums)

        for batch in _ahead(_batches(digests())):
            self._frames.send(b"S", batch)

    def _range(self, data: bytes) -> None:
        """Send a range of a large file."""
        version, offset, size = pieces.RANGE.unpack_from(data)
        path = data[pieces.RANGE.size :]
        for kind, content in _ahead(self._chunks(path, version, offset, size)):
            self._frames.send(kind, content)

    def _chunks(self, path: bytes, version: int, offset: int, size: int) -> Iterator[Frame]:
        how = pieces.OK
        try:
            with _Reading(path, version) as file:
                end = offset + size
                while offset < end and not file.changed:
                    upto = min(end, file.data_from(offset))
                    if upto > offset:
                        yield b"Z", pieces.HOLE.pack(offset, upto - offset)
                        offset = upto
                        continue
                    data = os.pread(file.descriptor, min(pieces.CHUNK, end - offset), offset)
                    if not data:
                        break
                    if not data[0] and data == _ZEROS[: len(data)]:
                        yield b"Z", pieces.HOLE.pack(offset, len(data))
                    else:
                        digest = hashlib.sha256(data).digest()
                        yield self._packed(b"D", data, pieces.DATA.pack(offset, digest))
                    offset += len(data)
                how = pieces.CHANGED if offset < end or file.has_changed() else pieces.OK
        except OSError as error:
            how = _failure(error)
        yield b"R", bytes([how])

    def _packed(self, kind: bytes, data: bytes, head: bytes = b"") -> Frame:
        """A frame, with its data compressed when that saves time on this link."""
        if not self._near and len(zlib.compress(data[:_TRIED], 1)) < 0.9 * len(data[:_TRIED]):
            return kind.lower(), head + zlib.compress(data, 1)
        return kind, head + data


class _Reading:
    """A file that is read, and whether it was ``changed`` since it was announced as a version."""

    def __init__(self, path: bytes, version: int) -> None:
        self._version = version
        # It may have become a pipe meanwhile, and whoever opens one waits for somebody to write into it.
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
        status = os.fstat(self.descriptor)
        age = time.time() * 1e9 - status.st_ctime_ns
        tick = TICK_NS if status.st_ctime_ns % 1000000000 else COARSE_NS
        if 0 <= age < tick:
            # One more change now would go unnoticed.
            time.sleep((tick - age) / 1e9)
        self.changed = self.has_changed()
        self._sparse = status.st_blocks * 512 < status.st_size and hasattr(os, "SEEK_DATA")

    def has_changed(self) -> bool:
        status = os.fstat(self.descriptor)
        return not stat.S_ISREG(status.st_mode) or _version(status) != self._version

    def data_from(self, offset: int) -> int:
        """Where the next bytes are that a hole does not stand for."""
        if not self._sparse:
            return offset
        try:
            return os.lseek(self.descriptor, offset, os.SEEK_DATA)
        except OSError:
            # There are no more.
            return 1 << 63

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _content(path: bytes, size: int, version: int) -> tuple[int, bytes]:
    try:
        with _Reading(path, version) as file:
            content = b"" if file.changed else os.pread(file.descriptor, size + 1, 0)
            if len(content) == size and not file.has_changed():
                return pieces.OK, content
    except OSError as error:
        return _failure(error), b""
    return pieces.CHANGED, b""


def _block_sums(path: bytes, size: int, version: int) -> Iterator[tuple[int, list[bytes]]]:
    block, offset = pieces.block_of(size), 0
    sums: list[bytes] = []
    try:
        with _Reading(path, version) as file:
            while offset < size and not file.changed:
                data = os.pread(file.descriptor, min(block, size - offset), offset)
                if not data:
                    break
                sums.append(hashlib.sha256(data).digest())
                offset += len(data)
                if len(sums) == 1024:
                    yield pieces.MORE, sums
                    sums = []
            changed = offset < size or file.has_changed()
    except OSError as error:
        yield _failure(error), []
    else:
        yield (pieces.CHANGED, []) if changed else (pieces.OK, sums)


def _walk(wanted: globs.Globs) -> Iterator[tuple[bytes, os.stat_result]]:
    """Every file and link that is taken, in the order of the bytes of their paths."""
    stack = [_visit(wanted, b"", globs.TAKEN if () in wanted.start else wanted.start)]
    while stack:
        for path, status, state in stack[-1]:
            if status is not None:
                yield path, status
            else:
                stack.append(_visit(wanted, path + b"/", state))
                break
        else:
            stack.pop()


def _visit(
    wanted: globs.Globs, prefix: bytes, state: globs.State
) -> Iterator[tuple[bytes, os.stat_result | None, globs.State]]:
    """What is taken of a folder, and without a status the folders to enter."""
    found: list[tuple[bytes, bytes, os.stat_result | None, globs.State]] = []
    for name, status in _folder(prefix, wanted.literal(state)):
        path, below = prefix + name, wanted.step(state, _text(name))
        if not below:
            continue
        if stat.S_ISLNK(status.st_mode) and below is not globs.TAKEN:
            # A path that was spelled out leads through links, as for everybody.
            below = wanted.plain(below)
            if below and os.path.isdir(path):
                found.append((path + b"/", path, None, below))
        elif stat.S_ISDIR(status.st_mode):
            found.append((path + b"/", path, None, below))
        elif below is globs.TAKEN and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            found.append((path, path, status, below))
    for _, path, taken, below in sorted(found, key=lambda item: item[0]):
        yield path, taken, below


def _folder(prefix: bytes, names: list[str] | None) -> Iterator[tuple[bytes, os.stat_result]]:
    if names is not None:
        for name in names:
            raw = name.encode("utf-8", "surrogateescape")
            try:
                yield raw, os.lstat(prefix + raw)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return
    try:
        listing = os.scandir(prefix or b".")
    except (FileNotFoundError, NotADirectoryError):
        return
    with listing:
        for item in listing:
            try:
                yield item.name, item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue


def _covered(target: str, found: set[str]) -> bool:
    """Tell whether a path, or a link on the way to it, is among what was found."""
    while target and target not in found:
        target = target.rpartition("/")[0]
    return bool(target)


def _announcement(
    kind: bytes, path: bytes, target: bytes, status: os.stat_result, size: int, version: int
) -> bytes:
    mode = stat.S_IMODE(status.st_mode)
    held = min(size, status.st_blocks * 512)
    lengths = len(path), len(target)
    return pieces.ENTRY.pack(kind, *lengths, mode, size, status.st_mtime_ns, held, version) + path + target


def _version(status: os.stat_result) -> int:
    made_of = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return int.from_bytes(hashlib.sha256(_VERSION.pack(*made_of)).digest()[:8], "big")


def _batches(items: Iterable[bytes]) -> Iterator[bytes]:
    batch, size = [], 0
    for item in items:
        batch.append(item)
        size += len(item)
        if size >= pieces.BATCH:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


def _ahead(items: Iterable[T]) -> Iterator[T]:
    """Make the next few items in a thread while one is in use: reading, hashing and sending overlap."""
    ready: queue.Queue[Any] = queue.Queue(AHEAD)
    end = object()

    def work() -> None:
        try:
            for item in items:
                ready.put(item)
            ready.put(end)
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            ready.put(_Failed(error))

    threading.Thread(target=work, daemon=True).start()
    while True:
        item = ready.get()
        if item is end:
            return
        if isinstance(item, _Failed):
            raise item.error
        yield item


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _numbers(data: bytes) -> array.array[int]:
    numbers = array.array("I")
    numbers.frombytes(data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _failure(error: OSError) -> int:
    gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
    return pieces.GONE if gone else pieces.UNREADABLE


def _told(error: OSError) -> bytes:
    place = os.fsencode(error.filename) if isinstance(error.filename, (str, bytes)) else b"."
    return place + b": " + (error.strerror or "?").encode("utf-8", "replace")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _write(data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]
