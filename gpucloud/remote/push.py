"""Push a folder to a host: one exchange tells what differs, one stream brings it.

The helper on the host looks at what is there while we look at what is here. What an earlier push has brought
is remembered; when the host agrees, changes that are few go out at once and all is done in one round trip.
"""

from __future__ import annotations

import hashlib
import logging
import os
import queue
import threading
import time
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent import parts
from gpucloud.remote.agent.frames import Broken, Frames
from gpucloud.remote.agent.manifest import FILE, KIND, ROW, Changing, decode, digest, join, row, rows, split
from gpucloud.remote.host import Host
from gpucloud.remote.memory import Memory, Remembered
from gpucloud.remote.meter import Meter
from gpucloud.remote.outgoing import (
    ATTEMPTS,
    DELTA,
    PACK,
    RANGE,
    Lane,
    Large,
    Outgoing,
    Range,
    is_large,
)
from gpucloud.remote.plain import Plain
from gpucloud.remote.progress import Phase, Watcher, unwatched
from gpucloud.remote.session import converse
from gpucloud.remote.tree import Plan, Tree, Unseen, difference, scan

log = logging.getLogger(__name__)

MODULES: Final = ("frames", "manifest", "place", "parts", "stages", "push")

SPECULATIVE: Final = 262_144
"""Bytes that are sent before the host has said whether it is as we think; in vain when it is not."""

FAR_S: Final = 0.008
"""A round trip from which on the line is what takes the time, and not the processors."""

LANES: Final = 8
_NEAR_LANES: Final = 2
_LANE_BYTES: Final = 1 << 23
_SMALL_LANE_BYTES: Final = 3 << 23
_NEAR_BYTES: Final = 1 << 26
_STATE_LIMIT: Final = 1 << 29
_QUESTIONS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: files and bytes sent, names deleted on the host, files that would not keep still.

    Files of which only time or permissions were set count, but their bytes do not.
    """

    files: int
    size: int
    removed: int
    changing: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def push(
    host: Host,
    source: str | Path,
    target: str,
    *,
    extra: Sequence[str] = (),
    verify: bool = False,
    git: bool = False,
    watch: Watcher = unwatched,
) -> Pushed:
    """Make ``target`` on the host what ``source``, a folder or a file, is here.

    Only what differs from what is there is sent, and only what an earlier push brought is deleted, once it
    has vanished here: not what the ignore rules leave out by now, nor what cannot be read at the moment.
    Files that match ``extra`` are sent even when the rules leave them out, ``.git`` only with ``git``. What
    is alike in size and time is taken for the same, unless ``verify`` demands that contents are compared.

    Raises:
        SyncFailed: when ``source`` cannot be read or ``target`` not be written.
    """
    meter = Meter(watch)
    meter.begin(Phase.COMPARING)
    key = hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    memory = Memory(host.token, key)
    here = _Here(Path(source), target, extra, git)
    if not memory.plain:
        talk = _Push(host, key, here, memory, verify, meter)
        if converse(host, MODULES, [key, here.target], talk):
            return talk.pushed()
        memory.plain = True
    plain = Plain(host, key, here.target, here.root, here.alias, meter)
    plain.push(here.tree(), here.unseen())
    # It may have come there since.
    memory.plain = not plain.python
    meter.end()
    return Pushed(
        files=plain.files,
        size=plain.size,
        removed=len(plain.plan.remove_files) + len(plain.plan.remove_folders),
        changing=tuple(sorted(map(os.fsdecode, plain.changing))),
        skipped=here.tree().skipped,
    )


class _Here:
    """The local side; it is looked at in a thread, as from the beginning there is time for that."""

    def __init__(self, source: Path, target: str, extra: Sequence[str], git: bool) -> None:
        self.target = target
        self.alias: dict[bytes, Path] = {}
        self.root = source
        self.single = not source.is_dir()
        if self.single:
            # A single file is a folder with nothing else in it, where it has the name that it gets.
            place = PurePosixPath(target)
            self.root, self.target = source.parent, f"{place.parent}/"
            self.alias[os.fsencode(place.name)] = source
        self._extra = extra
        self._git = git
        self._tree: Tree | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._look, name="scan", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            self._tree = self._alone() if self.single else scan(self.root, extra=self._extra, git=self._git)
        except BaseException as error:  # noqa: BLE001 - raised again where the tree is asked for
            self._error = error

    def _alone(self) -> Tree:
        [(name, place)] = self.alias.items()
        try:
            with place.open("rb"):
                status = place.stat()
        except OSError as error:
            raise SyncFailed(
                f"the file {place} cannot be sent",
                why=error.strerror or str(error),
                hint="give the path of a file or folder that exists and that you may read",
            ) from error
        return Tree({b"": row(name, FILE | (status.st_mode & 0o777), status.st_size, status.st_mtime_ns)})

    def tree(self) -> Tree:
        """What is here. Raises ``SyncFailed`` when it cannot be read."""
        self._thread.join()
        if self._error:
            raise self._error
        assert self._tree is not None
        return self._tree

    def unseen(self) -> Unseen:
        """Tells of what is not here whether it is gone."""
        return Unseen(self.root, self.tree(), rules=not self.single, git=self._git)


class _Gone(Exception):
    """The host says nothing more; why is known to whoever listened."""


@dataclass(frozen=True, slots=True)
class _State:
    """What the host says of its file system and of this push."""

    grain: int = 1
    modes: bool = True
    cases: bool = True
    session: str = ""
    parts: frozenset[bytes] = frozenset()


class _Push:
    """The conversation over the main connection."""

    def __init__(self, host: Host, key: str, here: _Here, memory: Memory, verify: bool, meter: Meter) -> None:
        self._host = host
        self._words = [key, here.target]
        self._here = here
        self._memory = memory
        self._verify = verify
        self._meter = meter
        self._heard: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        self._informed = threading.Event()
        self._rtt: float | None = None
        self._asked = 0.0
        self._state = _State()
        self._plan = Plan({})
        self._known: dict[bytes, bytes] | None = None
        self._out = Outgoing(here.root, here.alias, meter)
        self._lanes: list[_ExtraLane] = []
        self._result: bytes | None = None

    # -- what the host says

    def listen(self, frames: Frames) -> None:
        """Hand on what the host says; what it complains of is raised."""
        while True:
            kind, data = frames.receive()
            if not kind:
                return
            if kind == b"p":
                self._rtt = time.monotonic() - self._asked
            elif kind == b"e":
                raise failure(self._host.label, data)
            elif kind == b"i":
                self._state = _state(data)
                self._informed.set()
            elif kind == b"!":
                self._result = data
            else:
                self._heard.put((kind, data))

    def hang_up(self) -> None:
        """Nothing more will be heard."""
        self._heard.put(None)
        self._informed.set()

    def _next(self, kinds: bytes) -> tuple[bytes, bytes]:
        """The next that the host says, one of these kinds."""
        said = self._heard.get()
        if said is None:
            self.hang_up()
            raise _Gone
        if said[0] not in kinds:
            raise Broken(f"{said[0]!r} where one of {kinds!r} was to come")
        return said

    # -- what we say

    def talk(self, frames: Frames) -> None:
        """Make what is there what is here."""
        try:
            self._talk(frames)
        except _Gone:
            log.debug("the host has ended the conversation")

    def _talk(self, frames: Frames) -> None:
        known = self._memory.recall()
        if known:
            self._state = _State(known.grain, known.modes, known.cases)
        frames.send(b"h", digest(known.listing) if known else b"")
        tree = self._here.tree()
        quick = False
        if known:
            self._compare(known.listing, tree)
            quick = not self._verify and _is_quick(self._plan)
            if quick:
                self._send_quick(frames)
            else:
                frames.send(b"i")
        if not self._agreed(known) and known:
            # What was sent on the chance of it has been passed over.
            self._out = Outgoing(self._here.root, self._here.alias, self._meter)
            quick = False
        if quick:
            return
        if self._known is not (known.listing if known else None):
            frames.send(b"g")
            self._compare(self._known or {}, tree)
        self._asked = time.monotonic()
        frames.send(b"p")
        self._informed.wait()
        self._ask(frames, tree)
        self._send(frames)
        frames.send(b".")

    def _compare(self, listing: dict[bytes, bytes], tree: Tree) -> None:
        if not self._state.cases:
            _refuse_twins(tree, self._host.label)
        self._known = listing
        try:
            self._plan = difference(listing, tree, self._here.unseen(), self._state.grain, self._state.modes)
        except ValueError as error:
            raise Broken(str(error)) from error

    def _agreed(self, known: Remembered | None) -> bool:
        """Hear whether what we remember is there; if not, what is."""
        told = zlib.decompressobj()
        data: list[bytes] = []
        size = 0
        while True:
            kind, more = self._next(b"=ms~")
            if kind == b"m":
                data.append(_inflated(told, more, _STATE_LIMIT - size))
                size += len(data[-1])
            elif kind == b"=":
                return True
            else:
                break
        listing = decode(b"".join(data))
        if not self._informed.is_set() or listing is None:
            raise Broken("it tells of its files what makes no sense")
        if kind == b"~" and known:
            listing = known.listing | listing
        self._known = {folder: block for folder, block in listing.items() if block}
        return False

    def _send_quick(self, frames: Frames) -> None:
        """Send few changes before the host has said that they are all."""
        plan = self._plan
        plan.settle()
        self._begin(plan)
        self._prepare(frames, plan)
        self._out.offer(plan.send, [])
        self._lane = Lane(0, self._out, frames)
        self._lane.compress = True
        while piece := self._out.take(0):
            self._lane.send(piece)
        frames.send(b".")

    def _begin(self, plan: Plan) -> None:
        files, size = plan.totals()
        self._files, self._size = files, size
        self._meter.begin(Phase.SENDING, files=files, size=size)

    def _prepare(self, frames: Frames, plan: Plan) -> None:
        """Send all but contents."""
        removals = [*plan.remove_files, *(path + b"/" for path in plan.remove_folders)]
        for names in _batches(removals):
            frames.send(b"x", b"\0".join(names))
        for entries in _batches(plan.folders):
            frames.send(b"f", b"".join(entries))
        touched = [_whole(folder, one) for folder, found in plan.touch.items() for one in found]
        for entries in _batches(touched):
            frames.send(b"t", b"".join(entries))
        self._meter.add(len(touched), 0)

    # -- what is compared by content

    def _ask(self, frames: Frames, tree: Tree) -> None:
        """Settle by their checksums which files differ that may, or may not."""
        plan = self._plan
        doubtful = [
            (folder, one)
            for folder, found in plan.alike.items()
            for one in found
            if not is_delta(ROW.unpack_from(one)[2])
        ]
        size = sum(ROW.unpack_from(one)[2] for _, one in doubtful)
        if not self._verify:
            if size > SPECULATIVE:
                self._settle(frames, doubtful)
            plan.settle()
            return
        self._meter.begin(Phase.VERIFYING)
        settled = {join(folder, _name(one)) for folder, found in plan.send.items() for one in found}
        same = [
            (folder, row(*one))
            for folder, block in tree.listing.items()
            for one in rows(block)
            if one[1] & KIND == FILE and join(folder, one[0]) not in settled
        ]
        self._settle(frames, same, verify=True)
        plan.settle()

    def _settle(self, frames: Frames, doubtful: list[tuple[bytes, bytes]], verify: bool = False) -> None:
        """Send what differs, and only touch what does not."""
        paths = [join(folder, _name(one)) for folder, one in doubtful]
        differing: set[bytes] = set()
        for start in range(0, len(paths), _QUESTIONS):
            batch = paths[start : start + _QUESTIONS]
            frames.send(b"q", b"\0".join(batch))
            theirs: list[bytes] = []
            while (said := self._next(b"aA"))[0] == b"a":
                theirs.append(said[1])
            answers = b"".join(theirs)

            def look(number: int, batch: list[bytes] = batch, answers: bytes = answers) -> bytes:
                ours = parts.whole(self._out.place(batch[number]))
                return b"" if ours == answers[number * 16 : number * 16 + 16] else b"x"

            def take(number: int, found: bytes, batch: list[bytes] = batch) -> None:
                if found:
                    differing.add(batch[number])

            parts.in_order(len(batch), look, take)
        plan = self._plan
        for folder, one in doubtful:
            path = join(folder, _name(one))
            if path in differing:
                plan.resend(folder, one)
            elif not verify:
                plan.only_touch(folder, one)

    # -- contents

    def _send(self, frames: Frames) -> None:
        plan = self._plan
        self._begin(plan)
        self._prepare(frames, plan)
        lane = Lane(0, self._out, frames)
        small, ranges = self._sorted(frames, plan)
        self._out.offer(small, ranges)
        while piece := self._out.take(0):
            lane.compress = self._is_far()
            self._widen(ranges)
            lane.send(piece)
            if isinstance(piece, Range) and self._out.sent(piece):
                self._close(frames, lane, piece.file)
        self._join(frames, lane)

    def _sorted(self, frames: Frames, plan: Plan) -> tuple[dict[bytes, list[bytes]], list[Range]]:
        """Small files, and what of large ones must be sent."""
        small: dict[bytes, list[bytes]] = {}
        ranges: list[Range] = []
        for folder, found in plan.send.items():
            for one in found:
                length, mode, size, mtime_ns = ROW.unpack_from(one)
                if not is_large(mode, size):
                    small.setdefault(folder, []).append(one)
                    continue
                file = Large(join(folder, one[ROW.size : ROW.size + length]), mode, size, mtime_ns)
                self._out.large.append(file)
                if file.part in self._state.parts or (file.path in plan.changed and is_delta(size)):
                    ranges += self._differing(frames, file)
                else:
                    ranges += [Range(file, at, min(at + RANGE, size)) for at in range(0, size, RANGE)]
        return small, ranges

    def _differing(self, frames: Frames, file: Large) -> list[Range]:
        """Where a large file is not what the host has of it."""
        frames.send(b"o", file.part + b"\0" + file.path)
        ours: list[bytes] = []
        try:
            descriptor = os.open(self._out.place(file.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            file.gone = True
            descriptor = -1
        try:
            if descriptor >= 0:
                try:
                    parts.checksums(descriptor, file.size, lambda _, found: ours.append(found))
                except OSError:
                    file.unsteady = True
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        answers: list[bytes] = []
        while (said := self._next(b"kK"))[0] == b"k":
            answers.append(said[1])
        here, there = b"".join(ours), b"".join(answers)
        return list(_stretches(file, here, there))

    def _is_far(self) -> bool:
        rtt = self._rtt if self._rtt is not None else time.monotonic() - self._asked
        return rtt > FAR_S

    def _widen(self, ranges: list[Range]) -> None:
        """Open more connections where one cannot carry enough."""
        if self._lanes or self._rtt is None or not self._state.session:
            return
        large = sum(one.end - one.start for one in ranges)
        small = self._size - large
        if self._is_far():
            count = min(LANES, large // _LANE_BYTES + small // _SMALL_LANE_BYTES + 1)
        else:
            count = _NEAR_LANES if large >= _NEAR_BYTES and (os.cpu_count() or 1) > 1 else 1
        words = [*self._words]
        self._lanes = [
            _ExtraLane(self._host, [*words, str(number), self._state.session], self._out, self._is_far())
            for number in range(1, count)
        ]

    def _join(self, frames: Frames, lane: Lane) -> None:
        """Wait for the other connections, and complete what they have brought."""
        for other in self._lanes:
            other.finish()
        for file in self._out.large:
            self._close(frames, lane, file)

    def _close(self, frames: Frames, lane: Lane, file: Large) -> None:
        if file.closed:
            return
        file.closed = True
        folder, name = split(file.path)
        for _ in range(ATTEMPTS - 1):
            if not file.unsteady or file.gone:
                break
            self._again(frames, lane, file)
        if file.gone:
            self._out.deviate(folder, name, b"")
            return
        if file.unsteady:
            self._out.changing.append(file.path)
        frames.send(b"c", file.part + b"\0" + file.row())
        self._meter.add(1, 0)
        self._out.deviate(folder, name, file.row_of(name))

    def _again(self, frames: Frames, lane: Lane, file: Large) -> None:
        """Send what has changed of a file while it was sent."""
        try:
            status = os.lstat(self._out.place(file.path))
        except OSError:
            file.gone = True
            return
        file.size, file.mtime_ns, file.unsteady = status.st_size, status.st_mtime_ns, False
        file.gone = status.st_mode & KIND != FILE
        for stretch in self._differing(frames, file) if not file.gone else ():
            lane.send(stretch)

    # -- the end

    def pushed(self) -> Pushed:
        """What was done. Raises ``SyncFailed`` when the host has not said that it is complete."""
        if self._result is None:
            raise SyncFailed(
                f"{self._host.label} has not said that all has come",
                why="it ended in the middle",
                hint="push again: what has come is not sent again",
            )
        self._meter.end()
        now = self._plan.there
        if self._out.told:
            changing = Changing(now)
            for (folder, name), found in self._out.told.items():
                if found:
                    changing.put(folder, found)
                else:
                    changing.drop(folder, name)
            now = changing.listing()
        if self._result == digest(now):
            self._memory.remember(Remembered(now, self._state.grain, self._state.modes, self._state.cases))
        else:
            self._memory.forget()
        plan = self._plan
        return Pushed(
            files=self._files,
            size=self._size,
            removed=len(plan.remove_files) + len(plan.remove_folders),
            changing=tuple(sorted(map(os.fsdecode, self._out.changing))),
            skipped=self._here.tree().skipped,
        )


class _ExtraLane(threading.Thread):
    """Another connection, which takes its share of what is to be sent."""

    def __init__(self, host: Host, words: list[str], outgoing: Outgoing, far: bool) -> None:
        super().__init__(name="push-lane", daemon=True)
        self._host = host
        self._words = words
        self._outgoing = outgoing
        self._far = far
        self._began = False
        self._done = False
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Carry pieces until none is left."""
        try:
            beside = self._host.extra(int(self._words[2]))
            with beside.connection:
                converse(beside, MODULES, self._words, self)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._error = error

    def talk(self, frames: Frames) -> None:
        """Send pieces."""
        lane = Lane(int(self._words[2]), self._outgoing, frames)
        lane.compress = self._far
        while piece := self._outgoing.take(lane.number):
            self._began = True
            lane.send(piece)
            if isinstance(piece, Range):
                self._outgoing.sent(piece)
        frames.send(b".")

    def listen(self, frames: Frames) -> None:
        """Hear that all has come."""
        while (said := frames.receive())[0]:
            if said[0] == b"e":
                raise failure(self._host.label, said[1])
            self._done = self._done or said[0] == b"!"

    def hang_up(self) -> None:
        """Nobody waits for anything here."""

    def finish(self) -> None:
        """Wait until all has come. Raises what went wrong, if anything was lost by it."""
        self.join()
        if self._done or not self._began:
            if self._error:
                log.info("a further connection came to nothing: %s", self._error)
            return
        raise self._error or SyncFailed(
            f"{self._host.label} has not said that all has come",
            why="one of several connections ended in the middle",
            hint="push again: what has come is not sent again",
        )


def failure(label: str, data: bytes) -> SyncFailed:
    """What the helper complains of, as our error."""
    reason, _, path = data.partition(b"\0")
    name = path.decode("utf-8", "replace")
    return SyncFailed(
        f"{name!r} could not be written on {label}" if name else f"files could not be written on {label}",
        why=reason.decode("utf-8", "replace"),
        hint="make room for it there, or move away what is in its place; then push again",
    )


def is_delta(size: int) -> bool:
    """Tell whether it pays to compare blocks of a file."""
    return size >= DELTA


def _is_quick(plan: Plan) -> bool:
    """Tell whether so little changed that it may be sent on the chance of it."""
    size = sum(map(len, plan.remove_files)) + sum(map(len, plan.remove_folders)) + sum(map(len, plan.folders))
    for found in (*plan.send.values(), *plan.alike.values(), *plan.touch.values()):
        for one in found:
            size += ROW.unpack_from(one)[2] + len(one)
    return size <= SPECULATIVE


def _refuse_twins(tree: Tree, label: str) -> None:
    """Two names that the host cannot tell apart would be one file there, and the other lost."""
    for folder, block in tree.listing.items():
        seen: dict[str, bytes] = {}
        for name, *_ in rows(block):
            alike = unicodedata.normalize("NFC", os.fsdecode(name)).casefold()
            if alike in seen:
                first, second = (os.fsdecode(join(folder, one)) for one in sorted((seen[alike], name)))
                raise SyncFailed(
                    f"{first!r} and {second!r} cannot both be on {label}",
                    why="its file system does not tell small letters from capital ones",
                    hint="rename one of them, or leave it out with .gpucloudignore",
                )
            seen[alike] = name


def _stretches(file: Large, here: bytes, there: bytes) -> Iterator[Range]:
    """The ranges of a file whose blocks differ, none longer than ``RANGE``."""
    step = parts.CHECKSUM
    start: int | None = None
    for number in range(len(here) // step + 1):
        at = number * parts.BLOCK
        differs = at < file.size and here[number * step :][:step] != there[number * step :][:step]
        if start is not None and (not differs or at - start >= RANGE):
            yield Range(file, start, min(at, file.size))
            start = None
        if differs and start is None:
            start = at
    if start is not None:
        yield Range(file, start, file.size)


def _batches(items: Sequence[bytes]) -> Iterator[list[bytes]]:
    """In portions of about a mebibyte."""
    batch: list[bytes] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(item) + 1
        if size > PACK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _name(one: bytes) -> bytes:
    return one[ROW.size : ROW.size + ROW.unpack_from(one)[0]]


def _whole(folder: bytes, one: bytes) -> bytes:
    """A row with its whole path for a name."""
    [(name, mode, size, mtime_ns, target)] = rows(one)
    return row(join(folder, name), mode, size, mtime_ns, target)


def _state(data: bytes) -> _State:
    head, *found = data.split(b"\0")
    try:
        grain, modes, cases, session = head.decode("ascii").split(" ")
        return _State(max(1, int(grain)), modes == "1", cases == "1", session, frozenset(found))
    except ValueError as error:
        raise Broken(str(error)) from error


def _inflated(machine: zlib._Decompress, data: bytes, limit: int) -> bytes:
    try:
        out = machine.decompress(data, max(1, limit))
    except zlib.error as error:
        raise Broken(str(error)) from error
    if machine.unconsumed_tail or not limit:
        raise Broken("it tells of more files than can be")
    return out
