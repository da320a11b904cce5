"""Bring contents to a host: only what differs, over as many connections as carry more than one."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gpucloud.remote.agent import parts
from gpucloud.remote.agent.frames import Frames
from gpucloud.remote.agent.manifest import FILE, KIND, ROW, join, row, rows, split
from gpucloud.remote.answers import Answers, failure, unfinished
from gpucloud.remote.difference import Plan
from gpucloud.remote.host import Host
from gpucloud.remote.outgoing import ATTEMPTS, DELTA, RANGE, Lane, Large, Outgoing, Range, is_large
from gpucloud.remote.session import converse
from gpucloud.remote.tree import Tree

log = logging.getLogger(__name__)

MODULES: Final = ("frames", "manifest", "place", "parts", "stages", "push")

SPECULATIVE: Final = 262_144
"""Bytes that may be sent in vain to save a round trip."""

FAR_S: Final = 0.02
"""A round trip from which on the line is what takes the time, and not the processors."""

LANES: Final = 8
_NEAR_LANES: Final = 2
_LANE_BYTES: Final = 1 << 23
_SMALL_LANE_BYTES: Final = 3 << 23
_NEAR_BYTES: Final = 1 << 26
_QUESTIONS: Final = 20_000


@dataclass(slots=True)
class Contents:
    """What is to be sent over the main connection, and over further ones."""

    host: Host
    words: list[str]
    answers: Answers
    frames: Frames
    out: Outgoing
    plan: Plan
    decided: bool = False
    lanes: list[ExtraLane] = field(default_factory=list)

    def compare(self, tree: Tree, *, verify: bool) -> None:
        """Settle by their checksums which files differ that may, or may not."""
        plan = self.plan
        doubtful = [
            (folder, one)
            for folder, found in plan.alike.items()
            for one in found
            if not is_delta(ROW.unpack_from(one)[2])
        ]
        size = sum(ROW.unpack_from(one)[2] for _, one in doubtful)
        if not verify:
            if size > SPECULATIVE:
                self._settle(doubtful)
            plan.settle()
            return
        settled = {join(folder, _name(one)) for folder, found in plan.send.items() for one in found}
        same = [
            (folder, row(*one))
            for folder, block in tree.listing.items()
            for one in rows(block)
            if one[1] & KIND == FILE and join(folder, one[0]) not in settled
        ]
        self._settle(same, verify=True)
        plan.settle()

    def _settle(self, doubtful: list[tuple[bytes, bytes]], verify: bool = False) -> None:
        """Send what differs, and only touch what does not."""
        paths = [join(folder, _name(one)) for folder, one in doubtful]
        differing: set[bytes] = set()
        for start in range(0, len(paths), _QUESTIONS):
            batch = paths[start : start + _QUESTIONS]
            self.frames.send(b"q", b"\0".join(batch))
            answers = self.answers.all_until(b"aA")

            def look(number: int, batch: list[bytes] = batch, answers: bytes = answers) -> bytes:
                ours = parts.whole(self.out.place(batch[number]))
                return b"" if ours == answers[number * 16 : number * 16 + 16] else b"x"

            def take(number: int, found: bytes, batch: list[bytes] = batch) -> None:
                if found:
                    differing.add(batch[number])

            parts.in_order(len(batch), look, take)
        plan = self.plan
        for folder, one in doubtful:
            path = join(folder, _name(one))
            if path in differing:
                plan.resend(folder, one)
            elif not verify:
                plan.only_touch(folder, one)

    def send(self) -> None:
        """Send the files of the plan."""
        lane = Lane(0, self.out, self.frames)
        small, ranges = self._sorted()
        self.out.offer(small, ranges)
        while piece := self.out.take(0):
            lane.compress = self.answers.far(FAR_S)
            self._widen(ranges)
            lane.send(piece)
            if isinstance(piece, Range) and self.out.sent(piece):
                self._close(lane, piece.file)
        self._join(lane)

    def _sorted(self) -> tuple[dict[bytes, list[bytes]], list[Range]]:
        """Small files, and what of large ones must be sent."""
        plan = self.plan
        small: dict[bytes, list[bytes]] = {}
        ranges: list[Range] = []
        for folder, found in plan.send.items():
            for one in found:
                length, mode, size, mtime_ns = ROW.unpack_from(one)
                if not is_large(mode, size):
                    small.setdefault(folder, []).append(one)
                    continue
                file = Large(join(folder, one[ROW.size : ROW.size + length]), mode, size, mtime_ns)
                self.out.large.append(file)
                if file.part in self.answers.state.parts or (file.path in plan.changed and is_delta(size)):
                    ranges += self._differing(file)
                else:
                    ranges += [Range(file, at, min(at + RANGE, size)) for at in range(0, size, RANGE)]
        return small, ranges

    def _differing(self, file: Large) -> list[Range]:
        """Where a large file is not what the host has of it."""
        self.frames.send(b"o", file.part + b"\0" + file.path)
        ours: list[bytes] = []
        try:
            descriptor = os.open(self.out.place(file.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
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
        return list(_stretches(file, b"".join(ours), self.answers.all_until(b"kK")))

    def _widen(self, ranges: list[Range]) -> None:
        """Open more connections where one cannot carry enough."""
        if self.decided or not self.answers.measured:
            return
        self.decided = True
        far = self.answers.far(FAR_S)
        large = sum(one.end - one.start for one in ranges)
        small = self.plan.totals()[1] - large
        if far:
            count = min(LANES, large // _LANE_BYTES + small // _SMALL_LANE_BYTES + 1)
        else:
            count = _NEAR_LANES if large >= _NEAR_BYTES and (os.cpu_count() or 1) > 1 else 1
        session = self.answers.state.session
        self.lanes = [
            ExtraLane(self.host, [*self.words, str(number), session], self.out, far)
            for number in range(1, count)
        ]

    def _join(self, lane: Lane) -> None:
        """Wait for the other connections, and complete what they have brought."""
        for other in self.lanes:
            other.finish()
        for file in self.out.large:
            self._close(lane, file)

    def _close(self, lane: Lane, file: Large) -> None:
        if file.closed:
            return
        file.closed = True
        folder, name = split(file.path)
        for _ in range(ATTEMPTS - 1):
            if not file.unsteady or file.gone:
                break
            self._again(lane, file)
        if file.gone:
            self.out.deviate(folder, name, b"")
            return
        if file.unsteady:
            self.out.changing.append(file.path)
        self.frames.send(b"c", file.part + b"\0" + file.row())
        self.out.meter.add(1, 0)
        self.out.deviate(folder, name, file.row_of(name))

    def _again(self, lane: Lane, file: Large) -> None:
        """Send what has changed of a file while it was sent."""
        try:
            status = os.lstat(self.out.place(file.path))
        except OSError:
            file.gone = True
            return
        file.size, file.mtime_ns, file.unsteady = status.st_size, status.st_mtime_ns, False
        file.gone = status.st_mode & KIND != FILE
        for stretch in self._differing(file) if not file.gone else ():
            lane.send(stretch)


class ExtraLane(threading.Thread):
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
        raise self._error or unfinished(self._host.label)


def is_delta(size: int) -> bool:
    """Tell whether it pays to compare blocks of a file."""
    return size >= DELTA


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


def _name(one: bytes) -> bytes:
    return one[ROW.size : ROW.size + ROW.unpack_from(one)[0]]
