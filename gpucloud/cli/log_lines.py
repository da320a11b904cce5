"""A job's log as it is written out: as it is, or line by line with rank and time, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from gpucloud.cli.render import Output, colour
from gpucloud.cli.terminal_text import Cleaner, clean_line

if TYPE_CHECKING:
    from gpucloud.jobs.logs import Piece

LONGEST: Final = 65_536
"""A line that is longer is written as several, so that one without end takes no memory."""

UNKNOWN: Final = "unknown".ljust(len("2026-11-22T05:18:48Z"))


class Writer(Protocol):
    """Writes pieces of a log out."""

    def __call__(self, piece: Piece) -> None:
        """Write a piece, as far as that can be done yet."""

    def close(self) -> None:
        """Write what is left."""


class Line(NamedTuple):
    """A line without its end, or a part of one that is longer than ``LONGEST`` or has not ended."""

    rank: int
    attempt: int
    offset: int
    data: bytes
    ended: bool
    time: datetime | None


class Raw:
    """Every byte as it is, but on a terminal what is safe for one."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._cleaner = Cleaner(colours=colour()) if out.on_terminal else None

    def __call__(self, piece: Piece) -> None:
        """Write it."""
        if self._cleaner:
            self._out.text(self._cleaner.feed(piece.data))
        else:
            self._out.raw(piece.data)

    def close(self) -> None:
        """Write what was held back, and end any colour."""
        if self._cleaner:
            self._out.text(self._cleaner.end())


class Lines:
    """Whole lines, so that those of several ranks are never mixed; ``write`` gets each as ``form`` made it.

    All lines of a piece are written at once.
    """

    def __init__(self, form: Callable[[Line], bytes], write: Callable[[bytes], object]) -> None:
        self._form = form
        self._write = write
        self._splitters: dict[int, Splitter] = {}

    def __call__(self, piece: Piece) -> None:
        """Write the lines that end in it."""
        splitter = self._splitters.setdefault(piece.rank, Splitter())
        self._put(splitter.feed(piece))

    def close(self) -> None:
        """Write the lines that have not ended."""
        for splitter in self._splitters.values():
            self._put(splitter.end())

    def _put(self, lines: Iterator[Line]) -> None:
        if text := b"".join(map(self._form, lines)):
            self._write(text)


class Splitter:
    """Makes lines of the pieces of one rank's log."""

    def __init__(self) -> None:
        self._last: Piece | None = None
        self._held = b""
        self._begin = 0

    def feed(self, piece: Piece) -> Iterator[Line]:
        """The lines that end in the next piece, and the parts of one that is too long."""
        last = self._last
        if last and (last.attempt, last.offset + len(last.data)) != (piece.attempt, piece.offset):
            yield from self.end()
        self._last = piece
        if not self._held:
            self._begin = piece.offset
        *ended, held = piece.data.split(b"\n")
        for data in ended:
            yield from self._cut(self._held + data, ended=True)
            self._held = b""
        # What is too long for a line is not kept, so no byte is copied more often than a few times.
        self._held += held
        if len(self._held) > LONGEST:
            keep = len(self._held) % LONGEST or LONGEST
            yield from self._cut(self._held[:-keep], ended=False)
            self._held = self._held[-keep:]

    def end(self) -> Iterator[Line]:
        """What has not ended, as if it had."""
        if self._held:
            yield from self._cut(self._held, ended=False)
        self._held = b""

    def _cut(self, data: bytes, *, ended: bool) -> Iterator[Line]:
        """One line, or the parts of one; what comes next begins behind it."""
        assert self._last
        for place in range(0, max(1, len(data)), LONGEST):
            part = data[place : place + LONGEST]
            begin = self._begin + place
            last = place + LONGEST >= len(data)
            time = self._last.time_of(begin)
            yield Line(self._last.rank, self._last.attempt, begin, part, ended and last, time)
        self._begin += len(data) + ended


def form(*, ranks: int, times: bool, terminal: bool) -> Callable[[Line], bytes]:
    """How a line is written: with its rank among several, its time if wanted, and safe for a terminal."""
    width = len(str(ranks - 1))
    colours = colour()

    def formed(line: Line) -> bytes:
        head = f"{line.rank:>{width}}| " if ranks > 1 else ""
        head += f"{stamp(line.time) or UNKNOWN} " if times else ""
        data = (
            clean_line(line.data, colours=colours).encode("utf-8", "backslashreplace")
            if terminal
            else line.data
        )
        return head.encode() + data + b"\n"

    return formed


def event(job: str) -> Callable[[Line], bytes]:
    """A line of a job as a JSON document of its own; bytes that are no UTF-8 are told as hex as well."""

    def formed(line: Line) -> bytes:
        text = line.data.decode("utf-8", "replace")
        fields: dict[str, object] = {
            "schema": "gpucloud.logs/1",
            "job": job,
            "rank": line.rank,
            "attempt": line.attempt,
            "offset": line.offset,
            "time": stamp(line.time),
            "text": text,
            "ended": line.ended,
        }
        if text.encode() != line.data:
            fields["hex"] = line.data.hex()
        # It may be a terminal all the same, so nothing but ASCII goes out.
        return json.dumps(fields).encode() + b"\n"

    return formed


def stamp(time: datetime | None) -> str | None:
    """A time as it stands before a line."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ") if time else None
