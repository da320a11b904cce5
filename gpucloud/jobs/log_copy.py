"""The copy on this machine of what a job printed; it outlives the machine that the job ran on.

A log is copied in parts without holes: one from its first byte on, and others from wherever somebody began to
read it who wanted only its end. Each is a file of its own, ``NAME`` and ``NAME@OFFSET``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from gpucloud.fleet import Fleet
from gpucloud.jobs.log_times import Times
from gpucloud.model import Job

CHUNK: Final = 1 << 20
LOOK_BACK: Final = 1 << 16
"""So far back the begin of a line is looked for."""


class Part(NamedTuple):
    """The bytes from ``begin`` up to ``end``."""

    begin: int
    end: int
    file: Path


class LogCopy:
    """The copy of one attempt's log on one node.

    Each byte is written at its own place, so two readers at once write the same thing and none is lost.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._begin = 0
        self._descriptor: int | None = None
        self._tidy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def size(self) -> int:
        """How far what is here goes from the first byte on."""
        return self.reach(0)

    def reach(self, offset: int) -> int:
        """How far what is here goes from ``offset`` on without a hole."""
        for part in self.parts():
            if part.begin <= offset < part.end:
                offset = part.end
        return offset

    def parts(self) -> list[Part]:
        """What is here, in order; parts may overlap."""
        found = []
        for file in [self._file, *self._file.parent.glob(f"{self._file.name}@*")]:
            begin = file.name.removeprefix(self._file.name).removeprefix("@") or "0"
            with suppress(FileNotFoundError, ValueError):
                found.append(Part(int(begin), int(begin) + file.stat().st_size, file))
        return sorted(found)

    def write(self, data: bytes, offset: int) -> None:
        """Store what was read at ``offset``. Raises ``OSError``."""
        if self._descriptor is None or not self._continues(self._descriptor, offset):
            self._descriptor = self._open(offset)
        while data:
            written = os.pwrite(self._descriptor, data, offset - self._begin)
            data, offset = data[written:], offset + written

    def replay(self, offset: int, sink: Callable[[bytes, int], object]) -> int:
        """Hand what is here from ``offset`` on, piece by piece with its place, to ``sink``, up to a hole.

        Returns the place that was reached.
        """
        while part := self._part_at(offset):
            with part.file.open("rb") as file:
                file.seek(offset - part.begin)
                while data := file.read(CHUNK):
                    sink(data, offset)
                    offset += len(data)
        return offset

    def last(self, lines: int) -> tuple[int, int]:
        """Where the last lines begin that are here without a hole, and how many they are."""
        parts = self.parts()
        end = max((part.end for part in parts), default=0)
        begin = min((part.begin for part in parts if self.reach(part.begin) == end), default=0)
        if lines == 0 or begin == end:
            return end, 0
        # The newline at the end ends the last line, each other one begins a line.
        found, place = 0, end - 1
        while place > begin:
            step = min(CHUNK, place - begin)
            place -= step
            block = self._read(place, step)
            newlines = block.count(b"\n")
            if found + newlines >= lines:
                at = len(block)
                for _ in range(lines - found):
                    at = block.rindex(b"\n", 0, at)
                return place + at + 1, lines
            found += newlines
        return begin, found + 1

    def after(self, offset: int) -> int | None:
        """Where the next part begins, if ``offset`` is in a hole."""
        return min((part.begin for part in self.parts() if part.begin > offset), default=None)

    def line_at(self, offset: int) -> int:
        """Where the line begins that the byte at ``offset`` is in, unless that is far back or not here."""
        begin = max(0, offset - LOOK_BACK)
        return (
            begin + self._read(begin, offset - begin).rfind(b"\n") + 1
            if self.reach(begin) >= offset
            else offset
        )

    @property
    def times(self) -> Times:
        """When what is here was written, as far as that was asked for."""
        return Times.load(self._beside("times"))

    def keep_times(self, times: Times) -> None:
        """Store when it was written. Raises ``OSError``."""
        times.save(self._beside("times"))

    @property
    def touched_at(self) -> float | None:
        """When the last of it came, in seconds since the epoch."""
        return max((part.file.stat().st_mtime for part in self.parts()), default=None)

    @property
    def whole(self) -> bool:
        """Whether the job was over when the last of it came, and nothing is missing before."""
        return self._beside("whole").exists()

    def finish(self, size: int) -> None:
        """Note that the job is over and has printed ``size`` bytes."""
        if self.size >= size:
            self._beside("whole").touch(0o600)

    def _beside(self, what: str) -> Path:
        return self._file.with_name(f"{self._file.name}.{what}")

    def _continues(self, descriptor: int, offset: int) -> bool:
        """Whether the part that is open goes on at ``offset``, and nobody has deleted it."""
        status = os.fstat(descriptor)
        return status.st_nlink > 0 and 0 <= offset - self._begin <= status.st_size

    def _part_at(self, offset: int) -> Part | None:
        return next((part for part in self.parts() if part.begin <= offset < part.end), None)

    def _open(self, offset: int) -> int:
        """The part that goes on at ``offset``, or a new one."""
        self._close()
        begin, _, file = next(
            (part for part in self.parts() if part.begin <= offset <= part.end),
            Part(
                offset, offset, self._file.with_name(f"{self._file.name}@{offset}") if offset else self._file
            ),
        )
        self._begin = begin
        return os.open(file, os.O_CREAT | os.O_RDWR, 0o600)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self, offset: int, size: int) -> bytes:
        """So many bytes of what is here, from one part or several."""
        pieces: list[bytes] = []
        end = offset + size
        while offset < end and (part := self._part_at(offset)):
            with part.file.open("rb") as file:
                file.seek(offset - part.begin)
                pieces.append(file.read(min(end, part.end) - offset))
            offset += len(pieces[-1])
        return b"".join(pieces)

    def _tidy(self) -> None:
        """Delete the parts that others have as well."""
        reached = -1
        for part in self.parts():
            if part.end <= reached:
                part.file.unlink(missing_ok=True)
            reached = max(reached, part.end)


def log_copy(fleet: Fleet, job: Job, attempt: int, rank: int = 0) -> LogCopy:
    """The copy of the log of one attempt at a job on one node."""
    name = f"log.{attempt}" if rank == 0 else f"log.{attempt}.rank{rank}"
    return LogCopy(fleet.config.data_dir / "jobs" / job.id / name)
