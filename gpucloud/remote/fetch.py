"""A pull by our helper on the host: it lists, we say what we lack, it sends that, and both check."""

from __future__ import annotations

import hashlib
import os
import queue
import stat
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final

from gpucloud.errors import SyncFailed
from gpucloud.quantities import format_bytes, printable
from gpucloud.remote.agent import pieces
from gpucloud.remote.agent.frames import Broken, Frames, inflate
from gpucloud.remote.catalogue import Catalogue, State
from gpucloud.remote.host import Host
from gpucloud.remote.landing import Landing
from gpucloud.remote.lanes import Lanes
from gpucloud.remote.meter import Meter
from gpucloud.remote.progress import Phase
from gpucloud.remote.segments import Lane, Large, Segments
from gpucloud.remote.session import converse

MODULES: Final = ("frames", "pieces", "globs", "pull")
"""What the helper is made of."""

ATTEMPTS: Final = 3
"""How often files are asked for that change while they are read."""

_ASKED: Final = 1024
"""Files that are asked for at once."""

_STATES: Final = {
    pieces.CHANGED: State.CHANGED,
    pieces.GONE: State.GONE,
    pieces.UNREADABLE: State.UNREADABLE,
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a pull goes about it.

    With ``trusting`` a file with the size and the time of the host's counts as the host's; otherwise their
    checksums are compared. So does one whose size is the same and whose size and mtime on the host are
    ``known``. ``ready`` tells of a file, by path, size and mtime in ns, whether it is taken now.
    """

    trusting: bool = False
    ready: Callable[[str, int, int], bool] | None = None
    known: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def fetch(
    host: Host, patterns: Sequence[str], landing: Landing, meter: Meter, wishes: Wishes
) -> Catalogue | None:
    """Pull what matches by our helper; ``None`` when the host has no Python to run it.

    Raises:
        SyncFailed: when the host cannot tell, or says what makes no sense; when something cannot be written.
    """
    ours = _Fetch(host, patterns, landing, meter, wishes)
    if not converse(host, MODULES, (), ours):
        return None
    if not ours.complete:
        raise SyncFailed(
            f"{host.label} ended the pull too early", why="its helper just stopped", hint="pull again"
        )
    return ours.catalogue


class _Fetch:
    """Our side of the conversation. What comes is an answer to what was asked for, in that order."""

    def __init__(
        self, host: Host, patterns: Sequence[str], landing: Landing, meter: Meter, wishes: Wishes
    ) -> None:
        self.catalogue = Catalogue(patterns, host.label)
        self.complete = False
        self._host = host
        self._patterns = patterns
        self._landing = landing
        self._meter = meter
        self._wishes = wishes
        self._questions: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        self._greeted = False

    def talk(self, frames: Frames, /) -> None:
        """Ask what there is, and then all that ``listen`` wants to know."""
        frames.send(b"Q", "\0".join(self._patterns).encode("utf-8", "surrogateescape"))
        while question := self._questions.get():
            frames.send(*question)

    def hang_up(self) -> None:
        """Nothing more is asked."""
        self._questions.put(None)

    def listen(self, frames: Frames, /) -> None:
        """Take the list, and the files that are not here, again when they have changed meanwhile."""
        try:
            self._list(frames)
            for attempt in range(ATTEMPTS):
                if attempt and not self._look_again(frames):
                    break
                self._bring(frames, self.catalogue.having(State.WANTED))
            self.complete = True
        except _Ended:
            # Its status tells more.
            return

    def _ask(self, kind: bytes, data: bytes) -> None:
        self._questions.put((kind, data))

    def _ask_of(self, kind: bytes, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), _ASKED):
            packed = array("I", numbers[start : start + _ASKED])
            if sys.byteorder == "little":
                packed.byteswap()
            self._ask(kind, packed.tobytes())

    def _receive(self, frames: Frames) -> tuple[bytes, bytes]:
        kind, data = frames.receive()
        if kind == b"P" and not self._greeted:
            self._greeted = True
            self._ask(b"P", b"")
            return self._receive(frames)
        if kind == b"X":
            raise SyncFailed(
                f"the outputs on {self._host.label} could not be listed",
                why=printable(data[:1000].decode("utf-8", "replace")),
                hint="gpucloud ssh, to look there",
            )
        if not kind:
            raise _Ended
        return kind, data

    # -- what there is ------------------------------------------------------------------------------

    def _list(self, frames: Frames) -> None:
        self._meter.begin(Phase.COMPARING)
        while True:
            kind, data = self._receive(frames)
            if kind == b"E":
                self._meter.add(files=self.catalogue.add(inflate(data, pieces.BATCH_LIMIT)))
            elif kind == b"n":
                self.catalogue.next_round()
            elif kind == b"N":
                break
            else:
                raise Broken(f"a frame of kind {kind!r}")
        if self._landing.folds_case():
            self.catalogue.refuse_clashes()

    def _look_again(self, frames: Frames) -> bool:
        """Ask after what has changed; false when nothing has."""
        changed = self.catalogue.having(State.CHANGED)
        self._ask_of(b"A", changed)
        for start in range(0, len(changed), _ASKED):
            self.catalogue.renew(changed[start : start + _ASKED], self._announcements(frames))
        return bool(changed)

    def _announcements(self, frames: Frames) -> Iterator[bytes]:
        while (kind := (answer := self._receive(frames))[0]) == b"E":
            yield inflate(answer[1], pieces.BATCH_LIMIT)
        if kind != b"N":
            raise Broken(f"a frame of kind {kind!r}")

    # -- what of it is not here ---------------------------------------------------------------------

    def _bring(self, frames: Frames, numbers: Sequence[int]) -> None:
        whole: list[int] = []
        large: list[Large] = []
        unsure: list[tuple[int, bool]] = []
        for number in numbers:
            self._sort_out(number, whole, large, unsure)
        self._compare(frames, unsure, whole, large)
        self._check_room(whole, large)
        size = sum(self.catalogue.sizes[number] for number in whole)
        size += sum(end - start for file in large for start, end in file.ranges)
        if whole or large:
            self._meter.begin(Phase.RECEIVING, files=len(whole) + len(large), size=size)
        self._take_whole(frames, whole)
        self._take_large(frames, large)
        self._meter.end()

    def _sort_out(
        self, number: int, whole: list[int], large: list[Large], unsure: list[tuple[int, bool]]
    ) -> None:
        """Tell what is to be done about an entry; of those that are ``unsure`` a part may be here."""
        listed = self.catalogue
        path, size = listed.paths[number], listed.sizes[number]
        if number in listed.targets:
            self.catalogue.is_here(number, self._landing.link(path, listed.targets[number]))
            return
        if self._wishes.ready and not self._wishes.ready(path, size, listed.mtimes[number]):
            listed.states[number] = State.GROWING
            return
        here = self._landing.look(path)
        if here is not None and not stat.S_ISREG(here.st_mode):
            here = None
        if here is not None and here.st_size == size:
            known = self._wishes.known.get(path) == (size, listed.mtimes[number])
            if known or (self._wishes.trusting and here.st_mtime_ns == listed.mtimes[number]):
                listed.states[number] = State.HERE
            else:
                unsure.append((number, False))
        elif size <= pieces.SMALL:
            whole.append(number)
        elif self._landing.part_size(path) is not None:
            unsure.append((number, True))
        elif here is not None and here.st_size >= pieces.block_of(size):
            unsure.append((number, False))
        else:
            large.append(self._large(number, [(0, size)]))

    def _large(self, number: int, ranges: list[tuple[int, int]], basis: int | None = None) -> Large:
        listed = self.catalogue
        return Large(
            number,
            listed.paths[number],
            listed.sizes[number],
            listed.versions[number],
            listed.modes[number],
            listed.mtimes[number],
            ranges,
            basis,
        )

    def _compare(
        self, frames: Frames, unsure: Sequence[tuple[int, bool]], whole: list[int], large: list[Large]
    ) -> None:
        """Let the host checksum what may be here, and do so meanwhile; enter what of it is not the same."""
        self._ask_of(b"S", [number for number, _ in unsure])
        told = self._told_sums(frames)
        for number, in_part in unsure:
            path, size = self.catalogue.paths[number], self.catalogue.sizes[number]
            with self._to_compare(path, in_part) as descriptor:
                ranges = self._differing(number, descriptor, told)
                held = os.fstat(descriptor).st_size if descriptor is not None else 0
            if ranges is None:
                continue
            if not ranges and not in_part and held == size:
                self.catalogue.is_here(number, path)
            elif size <= pieces.SMALL:
                whole.append(number)
            else:
                large.append(self._large(number, ranges, None if in_part else held))

    @contextmanager
    def _to_compare(self, path: str, in_part: bool) -> Iterator[int | None]:
        if in_part:
            part = self._landing.part(path)
            try:
                yield part.descriptor
            finally:
                part.close()
            return
        descriptor = self._landing.open(path)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _told_sums(self, frames: Frames) -> Iterator[tuple[int, int, list[bytes]]]:
        """What the host tells of the digests of files: the number, how it went, digests in a row."""
        while True:
            kind, data = self._receive(frames)
            if kind != b"S":
                raise Broken(f"a frame of kind {kind!r}")
            offset, step = 0, pieces.DIGEST
            while offset < len(data):
                number, how, count = _unpacked(pieces.SUMS, data, offset)
                start = offset + pieces.SUMS.size
                offset = start + count * step
                if offset > len(data):
                    raise Broken("half an answer")
                yield number, how, [data[at : at + step] for at in range(start, offset, step)]

    def _differing(
        self, number: int, descriptor: int | None, told: Iterator[tuple[int, int, list[bytes]]]
    ) -> list[tuple[int, int]] | None:
        """The ranges of a file that are not the same here; ``None`` when the host could not read it."""
        size = self.catalogue.sizes[number]
        block = pieces.block_of(size)
        ranges: list[tuple[int, int]] = []
        offset, how = 0, pieces.MORE
        while how == pieces.MORE:
            about, how, digests = next(told)
            if about != number or (how == pieces.MORE and not digests):
                raise Broken("an answer to another question")
            for digest in digests:
                length = min(block, size - offset)
                if length <= 0:
                    raise Broken("an answer that is too long")
                if _digest_of(descriptor, offset, length) != digest:
                    start = ranges.pop()[0] if ranges and ranges[-1][1] == offset else offset
                    ranges.append((start, offset + length))
                offset += length
        if how != pieces.OK:
            self._is_not(number, how)
            return None
        if offset != size:
            raise Broken("an answer that is too short")
        self._meter.add(files=1, size=size)
        return ranges

    def _check_room(self, whole: Sequence[int], large: Sequence[Large]) -> None:
        listed = self.catalogue
        # Of a sparse file only what is in it takes room, here as there.
        need = sum(
            listed.held[n] if listed.held[n] < listed.sizes[n] // 2 else listed.sizes[n] for n in whole
        )
        for file in large:
            size, held = file.size, listed.held[file.number]
            need += held if held < size // 2 else size
            need -= self._landing.part_size(file.path) or 0
        room = self._landing.room
        if need > room:
            raise SyncFailed(
                "there is no room here for what is to come",
                why=f"No space left: {format_bytes(need)} are needed, {format_bytes(room)} are free",
                hint="make room, or pull to another disk with --to",
            )

    # -- what comes ---------------------------------------------------------------------------------

    def _take_whole(self, frames: Frames, numbers: Sequence[int]) -> None:
        self._ask_of(b"W", numbers)
        content = b""
        offset = 0
        for number in numbers:
            if offset == len(content):
                kind, content = self._receive(frames)
                offset = 0
                if kind == b"f":
                    content = inflate(content, pieces.BATCH_LIMIT)
                elif kind != b"F":
                    raise Broken(f"a frame of kind {kind!r}")
            offset = self._take_one(number, content, offset)
        if offset != len(content):
            raise Broken("an answer to no question")

    def _take_one(self, number: int, batch: bytes, offset: int) -> int:
        """Put one small file of a batch in place; returns where the next begins."""
        listed = self.catalogue
        about, how, size, digest = _unpacked(pieces.WHOLE, batch, offset)
        start: int = offset + pieces.WHOLE.size
        content = batch[start : start + size]
        if about != number or len(content) != size:
            raise Broken("an answer to another question")
        if how != pieces.OK:
            self._is_not(number, how)
        elif size != listed.sizes[number] or hashlib.sha256(content).digest() != digest:
            raise Broken("a file that is not what its checksum says")
        else:
            place = self._landing.put(
                listed.paths[number], content, listed.modes[number], listed.mtimes[number]
            )
            self.catalogue.is_here(number, place)
        self._meter.add(files=1, size=size)
        return start + len(content)

    def _take_large(self, frames: Frames, files: Sequence[Large]) -> None:
        segments = Segments(files, self._landing, self._meter, self._is_done)
        lane = Lane(segments, self._ask)
        others = Lanes(self._host, MODULES, segments)
        try:
            lane.ask_more()
            asked_at = time.monotonic()
            while lane.asked:
                lane.take(*self._receive(frames))
                if not others.decided:
                    left = sum(end - start for file in files for start, end in file.ranges)
                    others.decide(left, time.monotonic() - asked_at)
                if not lane.asked:
                    # What others could not bring is left to us.
                    others.wait()
                    lane.ask_more()
        finally:
            segments.stop()
            others.end()
            segments.close()

    def _is_done(self, file: Large, place: str | None) -> None:
        if place is None:
            self._is_not(file.number, file.how)
        else:
            self.catalogue.is_here(file.number, place)
        self._meter.add(files=1)

    def _is_not(self, number: int, how: int) -> None:
        state = _STATES.get(how)
        if state is None:
            raise Broken(f"a file that is {how}")
        self.catalogue.states[number] = state


class _Ended(Exception):
    """The helper has ended before all was said."""


def _unpacked(layout: Struct, data: bytes, offset: int) -> tuple[Any, ...]:
    if len(data) - offset < layout.size:
        raise Broken("half an answer")
    return layout.unpack_from(data, offset)


def _digest_of(descriptor: int | None, offset: int, length: int) -> bytes:
    """The digest of a block of a file here; of what cannot be read it is that of nothing."""
    data = b""
    if descriptor is not None:
        with suppress(OSError):
            data = os.pread(descriptor, length, offset)
    return hashlib.sha256(data).digest()
