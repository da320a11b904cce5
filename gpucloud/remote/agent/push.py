"""The receiving end of a push, on the host."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from contextlib import suppress

from gpucloud.remote.agent.frames import LIMIT, Broken, Frames, inflate
from gpucloud.remote.agent.manifest import (
    FILE,
    FOLDER,
    KIND,
    LINK,
    ROW,
    Changing,
    decode,
    digest,
    encode,
    is_inside,
    row,
    split,
)
from gpucloud.remote.agent.parts import CHECKSUM, Parts, in_order, part_of, whole
from gpucloud.remote.agent.place import Place, write_all
from gpucloud.remote.agent.stages import Journal, Stages, entries, journals, known, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpucloud.remote.agent.manifest import Listing

_CHUNK = 1 << 20
_FINE = 1_234_567_891_234_567_891
_GRAINS = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)


def main(words: list[str]) -> int:
    """Serve one connection.

    ``words`` are the folder of the on-host program, key and target, and for a lane its number and session.
    """
    os.umask(0)
    frames = Frames(sys.stdin.buffer.read, lambda data: write_all(1, memoryview(data)))
    try:
        _Receiver(frames, *words).serve()
    except Broken:
        # Whoever has sent it is gone, and the next push goes on from here.
        return 1
    except OSError as error:
        name = error.filename if error.filename is not None else ""
        where = name if isinstance(name, bytes) else os.fsencode(str(name))
        frames.send(b"e", (error.strerror or str(error)).encode() + b"\0" + where)
    except (ValueError, KeyError, struct.error) as error:
        frames.send(b"e", b"it was told what makes no sense: " + str(error).encode() + b"\0")
    return 0


class _Receiver:
    def __init__(
        self, frames: Frames, root: str, key: str, target: str, number: str = "0", session: str = ""
    ) -> None:
        self._frames = frames
        self._number = int(number)
        self._manifest = os.path.join(root, "sent", key)
        self._path = b""
        os.chdir(_made(root, target))
        self._target = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stages = Stages(root, key, self._target)
        self._name = os.fsencode(session)
        self._begun = False
        self._kept: bytes = b""
        self._listing: Listing = {}
        self._changing = Changing({})
        self._skipping = False

    # -- the conversation

    def serve(self) -> None:
        if self._number:
            self._begin()
        else:
            self._look()
        acts = {
            b"h": self._hello,
            b"i": self._info,
            b"p": self._ping,
            b"x": self._remove,
            b"f": self._files,
            b"z": self._packed,
            b"t": self._touch,
            b"o": self._open,
            b"b": self._piece,
            b"B": self._packed_piece,
            b"c": self._close,
            b"q": self._question,
        }
        while True:
            kind, data = self._frames.receive()
            if kind == b"g":
                self._skipping = False
            elif not kind:
                raise Broken("the push has ended in the middle")
            elif self._skipping and kind not in b"ip":
                continue
            elif kind == b".":
                self._end()
                return
            else:
                acts[kind](data)

    def _look(self) -> None:
        with suppress(OSError), open(self._manifest, "rb") as file:
            self._kept = file.read()
        listing = (decode(self._kept) if self._kept else None) or {}
        known(listing, self._stages.recovered())
        self._listing = listing
        self._actual, self._different = look(listing)

    def _hello(self, expected: bytes) -> None:
        """Tell whether what the client expects is here, else what is."""
        kept = self._kept[-len(expected) :] if expected else b""
        if expected and not self._different and digest(self._actual) == expected:
            self._frames.send(b"=")
        else:
            self._skipping = True
            self._info(b"")
            patch = bool(expected) and kept == expected and not self._stages.dead
            changed = self._different if patch else sorted(self._actual)
            self._tell(b"~" if patch else b"s", {name: self._actual.get(name, b"") for name in changed})
        self._changing = Changing(self._actual)

    def _tell(self, kind: bytes, listing: Listing) -> None:
        data = zlib.compress(encode(listing), 1)
        for at in range(0, len(data), _CHUNK):
            self._frames.send(b"m", data[at : at + _CHUNK])
        self._frames.send(kind)

    def _info(self, _data: bytes) -> None:
        """Tell what this file system can hold, and what is left of an earlier push."""
        self._begin()
        grain, modes, cases = _abilities(self._session)
        parts = b"".join(b"\0" + name for name in self._parts.found())
        self._frames.send(b"i", b"%d %d %d " % (grain, modes, cases) + self._name + parts)

    def _ping(self, data: bytes) -> None:
        self._frames.send(b"p", data)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if self._number:
            self._session = self._stages.join(self._name)
        else:
            self._name, self._session = self._stages.new()
        self._journal = Journal(self._session, self._number)
        self._place = Place(self._target, self._session, self._number)
        self._parts = Parts(self._session)
        if not self._number:
            self._stages.adopt(self._session)

    # -- what changes something

    def _remove(self, data: bytes) -> None:
        self._begin()
        for path in data.split(b"\0"):
            if not is_inside(path.rstrip(b"/")):
                raise ValueError("a path leads out of the target")
            self._path = path
            with _named(path):
                self._place.remove(path)
            self._changing.drop(*split(path.rstrip(b"/")))

    def _packed(self, data: bytes) -> None:
        self._files(inflate(data, LIMIT))

    def _files(self, data: bytes) -> None:
        """Folders, small files and links, one behind the other."""
        self._begin()
        found, notes, at = [], [], 0
        while at < len(data):
            length, mode, size, mtime_ns = ROW.unpack_from(data, at)
            start = at + ROW.size + length
            path = data[at + ROW.size : start]
            if not is_inside(path):
                raise ValueError("a path leads out of the target")
            found.append((path, mode, mtime_ns, start, start + size))
            end = start + size
            notes.append(data[at : end if mode & KIND == LINK else start])
            at = end
        if at != len(data):
            raise ValueError("files that are cut off")
        self._journal.note(notes)
        view = memoryview(data)
        place = self._place
        for path, mode, mtime_ns, start, end in found:
            kind = mode & KIND
            try:
                if kind == FILE:
                    place.put(path, mode, mtime_ns, view[start:end])
                elif kind == FOLDER:
                    place.make_folder(path, mode)
                elif kind == LINK:
                    place.link(path, data[start:end])
                else:
                    raise ValueError("neither file, folder nor link")
            except OSError as error:
                raise _at(path, error) from error
            if not self._number:
                self._note(path, mode, end - start, mtime_ns, data[start:end] if kind == LINK else b"")

    def _note(self, path: bytes, mode: int, size: int, mtime_ns: int, target: bytes = b"") -> None:
        folder, name = split(path)
        self._changing.put(folder, row(name, mode, size, mtime_ns, target))

    def _touch(self, data: bytes) -> None:
        """Times and permissions alone."""
        self._begin()
        at = 0
        while at < len(data):
            path, mode, size, mtime_ns, at = _entry(data, at)
            with _named(path):
                if not self._place.touch(path, mode, size, mtime_ns):
                    raise OSError(0, "it was changed there while this push was going on", path)
            self._note(path, mode, size, mtime_ns)

    def _open(self, data: bytes) -> None:
        """Tell the checksums of what a large file can be made of."""
        self._begin()
        name, _, path = data.partition(b"\0")
        if not is_inside(path):
            raise ValueError("a path leads out of the target")
        above, file = split(path)
        folder = None
        with suppress(OSError):
            folder = self._place.folder(above)[0]
        with _named(path):
            size = self._parts.begin(name, folder, file, lambda _, found: self._frames.send(b"k", found))
        self._frames.send(b"K", b"%d" % size)

    def _piece(self, data: bytes) -> None:
        """A piece of a large file."""
        self._begin()
        name, offset, start = part_of(data)
        with _named(b""):
            self._parts.write(name, offset, memoryview(data)[start:])

    def _packed_piece(self, data: bytes) -> None:
        self._begin()
        name, offset, start = part_of(data)
        with _named(b""):
            self._parts.write(name, offset, memoryview(inflate(data[start:], LIMIT)))

    def _close(self, data: bytes) -> None:
        """A large file is complete."""
        self._begin()
        name, _, entry = data.partition(b"\0")
        path, mode, size, mtime_ns, _ = _entry(entry, 0)
        self._journal.note([entry])
        with _named(path):
            self._parts.complete(name, mode, size, mtime_ns)
            above, file = split(path)
            folder, _ = self._place.folder(above)
            self._place.settle(name, folder, file)
        self._note(path, mode, size, mtime_ns)

    def _question(self, data: bytes) -> None:
        """Tell the checksum of each file."""
        paths = data.split(b"\0")

        def work(number: int) -> bytes:
            return b"".join(
                whole(path).ljust(CHECKSUM, b"\0") for path in paths[number * 64 : number * 64 + 64]
            )

        in_order(-(-len(paths) // 64), work, lambda _, found: self._frames.send(b"a", found))
        self._frames.send(b"A")

    def _end(self) -> None:
        """All has come: let it be seen, and write down what is here."""
        if self._number:
            self._frames.send(b"!")
            return
        if self._begun:
            with _named(b""):
                self._place.publish()
            self._parts.close()
            for name in journals(self._session):
                for path, entry in entries(self._session, name) if name != b"journal-0" else ():
                    self._changing.put(split(path)[0], entry)
        listing = self._changing.listing()
        if self._begun or self._different or digest(listing) != self._kept[-16:]:
            self._keep(listing)
            self._stages.clear(*([self._name] if self._begun else []))
        self._frames.send(b"!", digest(listing))

    def _keep(self, listing: Listing) -> None:
        draft = self._manifest + ".%d" % os.getpid()
        with open(draft, "wb") as file:
            file.write(encode(listing))
        os.replace(draft, self._manifest)


def _made(root: str, target: str) -> str:
    if target.startswith("~/"):
        target = os.path.join(os.environ.get("HOME") or root, target[2:])
    place = os.path.join(root, target)
    os.makedirs(place, mode=0o755, exist_ok=True)
    return place


def _entry(data: bytes, at: int) -> tuple[bytes, int, int, int, int]:
    length, mode, size, mtime_ns = ROW.unpack_from(data, at)
    end = at + ROW.size + length
    path = data[at + ROW.size : end]
    if not is_inside(path):
        raise ValueError("a path leads out of the target")
    return path, mode, size, mtime_ns, end


def _abilities(session: int) -> tuple[int, bool, bool]:
    """How fine times are in nanoseconds, whether permissions are kept, and whether case matters in names."""
    name = b"probe-a"
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640, dir_fd=session)
    try:
        os.utime(descriptor, ns=(_FINE, _FINE))
        status = os.fstat(descriptor)
        os.fchmod(descriptor, 0o751)
        modes = os.fstat(descriptor).st_mode & 0o777 == 0o751
    finally:
        os.close(descriptor)
    grain = next((g for g in _GRAINS if _FINE - _FINE % g == status.st_mtime_ns), _GRAINS[-1])
    try:
        os.stat(b"PROBE-A", dir_fd=session)
        cases = False
    except OSError:
        cases = True
    os.unlink(name, dir_fd=session)
    return grain, modes, cases


class _named:  # noqa: N801
    """Says of an error to which path it belongs."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if isinstance(error, OSError):
            raise _at(self._path, error) from error


def _at(path: bytes, error: OSError) -> OSError:
    return OSError(error.errno, error.strerror, path or error.filename)
