"""When the bytes of a log were written, from samples of how long it was at what time.

The host takes a sample a second while the log grows, so a time is right to a second or so; of a job of many
hours it is right to a thousandth of how long ago it was. All times are of this computer's clock.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

SKEW_S: Final = 2.0
"""A host's clock that differs by no more is taken for ours: it tells whole seconds, and that takes time."""

_MOST: Final = 20_000


class Times:
    """Samples ``(seconds since the epoch, bytes)``: so long was the log then.

    ``horizon``: what lies beyond that byte comes while we listen; ``None`` when that is not known.
    """

    def __init__(self, samples: Iterable[tuple[float, int]] = (), horizon: int | None = None) -> None:
        self._at: list[float] = []
        self._sizes: list[int] = []
        self.horizon = horizon
        for at, size in samples:
            self._add(at, size)

    @classmethod
    def told(cls, report: bytes, heard_at: float) -> Self:
        """From what the host told at ``heard_at``: its samples, and last how long the log is there now.

        Raises:
            ValueError: when there is no last one.
        """
        samples = _parsed(report)
        if not samples:
            raise ValueError("the host told no time at all")
        now, size = samples.pop()
        skew = heard_at - now if abs(heard_at - now) > SKEW_S else 0.0
        return cls(((at + skew, length) for at, length in samples if at <= now), size)

    @classmethod
    def load(cls, file: Path) -> Self:
        """From a file, which may be missing or damaged."""
        with suppress(OSError):
            return cls(_parsed(file.read_bytes()))
        return cls()

    def save(self, file: Path) -> None:
        """To a file, unless that knows as much already; nobody ever sees a part of it."""
        if not self._sizes or self._sizes[-1] < max(Times.load(file)._sizes, default=0):
            return
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        lines = (f"{at:.3f} {size}\n" for at, size in zip(self._at, self._sizes, strict=True))
        draft.write_text("".join(lines))
        draft.replace(file)

    def arrived(self, end: int, now: float) -> None:
        """What lies before the byte ``end`` has come by ``now``."""
        if self.horizon is None or end <= self.horizon:
            return
        if self._at and now - self._at[-1] < 1 and end > self._sizes[-1] > self.horizon:
            self._sizes[-1] = end
        else:
            self._add(now, end)
        if len(self._at) > _MOST:
            del self._at[: _MOST // 2], self._sizes[: _MOST // 2]

    def of(self, offset: int) -> datetime | None:
        """When the byte at ``offset`` was written, if that is known."""
        place = bisect_right(self._sizes, offset)
        return datetime.fromtimestamp(self._at[place], UTC) if place < len(self._at) else None

    def since(self, moment: datetime) -> int | None:
        """Where what was written from a moment on begins; ``None`` when nothing is known."""
        place = bisect_left(self._at, moment.timestamp())
        if not self._sizes:
            return None
        return self._sizes[place - 1] if place else 0

    def _add(self, at: float, size: int) -> None:
        """Add a sample unless it makes no sense after the one before."""
        if size > (self._sizes[-1] if self._sizes else 0) and (not self._at or at >= self._at[-1]):
            self._at.append(at)
            self._sizes.append(size)


def _parsed(report: bytes) -> list[tuple[float, int]]:
    """The samples among these lines; a full disk may have cut some off."""
    samples = []
    for line in report.splitlines():
        with suppress(ValueError):
            at, size = line.split()
            samples.append((float(at), int(size)))
    return samples
