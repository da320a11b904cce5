"""How far files have come: live lines on a terminal, a line for each phase elsewhere, events with ``--json``.

All of it is on stderr, so that stdout has the one document of the command, whole.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

from gpucloud.cli.render import encoded, out
from gpucloud.model import Event
from gpucloud.quantities import LONGEST, format_bytes, format_count, format_duration
from gpucloud.remote.progress import Phase, Progress, Watcher

PATIENCE_S: Final = 0.3
"""What is over sooner is not shown on a terminal."""

FRAME_S: Final = 0.2
EVENT_S: Final = 1.0
"""Between two JSON events of a phase that goes on."""

RECENT_S: Final = 5.0
"""The rate is that of so many seconds before now."""

SETTLED_S: Final = 1.0
"""In a shorter time a rate means nothing."""


class _Shown(Protocol):
    """A way to show transfers. ``tell`` is called from any thread."""

    def tell(self, label: str, progress: Progress) -> None: ...

    def end(self, *, well: bool) -> None: ...


@contextmanager
def view(labels: Sequence[str]) -> Iterator[Mapping[str, Watcher]]:
    """Show transfers with these nodes in the way that suits where stderr goes; a ``progress.Viewer``."""
    shown: _Shown = _Events() if out.json else _Live(labels) if out.live else _Lines()
    well = False
    try:
        yield {label: partial(shown.tell, label) for label in labels}
        well = True
    finally:
        shown.end(well=well)


class Meter:
    """The phase that a node is in, how fast it goes, and how long it will take.

    A rate is what came in the last seconds before it is asked for, also when nothing was told since; so a
    transfer that stands still does not go on looking fast.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = progress
        self._clock = clock
        self._begun = clock()
        self._told: deque[tuple[float, int]] = deque([(self._begun, progress.bytes)])

    def tell(self, progress: Progress) -> None:
        """So far it has come now."""
        moment = self._clock()
        if progress.bytes < self.now.bytes:
            # It begins again; what was done before says nothing of how fast this goes.
            self._told.clear()
            self._begun = moment
        self.now = progress
        self._told.append((moment, progress.bytes))
        self._forget(moment)

    def _forget(self, moment: float) -> None:
        while len(self._told) > 1 and self._told[1][0] <= moment - RECENT_S:
            self._told.popleft()

    @property
    def rate(self) -> float | None:
        """Bytes a second; ``None`` while it is too early to tell."""
        moment = self._clock()
        self._forget(moment)
        if moment - self._begun < SETTLED_S:
            return None
        since, size = self._told[0]
        return (self.now.bytes - size) / (moment - since)

    @property
    def left_s(self) -> float | None:
        """Seconds until its end at this rate; ``None`` when nobody can tell."""
        rate, total = self.rate, self.now.bytes_total
        # Once all is on its way, how long the host takes to have it is not known.
        if total is None or not rate or self.now.bytes >= total:
            return None
        left = (total - self.now.bytes) / rate
        return left if left < LONGEST.total_seconds() else None

    def text(self, room: int) -> str:
        """All of it in a line, or, where that has no room, what matters most; what is not known is a dash."""
        now, rate, left = self.now, self.rate, self.left_s
        files = format_count(now.files, "file")
        if now.files_total is not None:
            files = f"{now.files} of {format_count(now.files_total, 'file')}"
        if not (now.bytes or now.bytes_total):
            return files
        size = format_bytes(now.bytes)
        total = "" if now.bytes_total is None else f" of {format_bytes(now.bytes_total)}"
        speed = f"{'-' if rate is None else format_bytes(round(rate))}/s"
        time_left = f"{'-' if left is None else format_duration(timedelta(seconds=left))} left"
        whole = f"{size}{total}  {files}  {speed}  {time_left}"
        return whole if len(whole) <= room else f"{size}{total}  {time_left}"


class _Lines:
    """A line for each phase of each node, when it begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, Phase] = {}

    def tell(self, label: str, progress: Progress) -> None:
        """Tell of a phase that has begun."""
        with self._lock:
            if self._phases.get(label) is progress.phase:
                return
            self._phases[label] = progress.phase
        known = []
        if progress.files_total is not None:
            known.append(format_count(progress.files_total, "file"))
        if progress.bytes_total is not None:
            known.append(format_bytes(progress.bytes_total))
        out.event(Event(progress.phase, f"{label}: {', '.join(known)}" if known else label))

    def end(self, *, well: bool) -> None:
        """Nothing is left to be told."""


class _Events:
    """JSON lines, each as the schema ``gpucloud.progress/1`` has it.

    For every phase of every node there is one when it begins, at most one a second while it goes on, and a
    last one, the only one that is ``done``, when it is over; what breaks off is never ``done``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meters: dict[str, Meter] = {}
        self._due: dict[str, float] = {}

    def tell(self, label: str, progress: Progress) -> None:
        """Write what is due."""
        with self._lock:
            meter = self._meters.get(label)
            if meter and meter.now.phase is progress.phase:
                meter.tell(progress)
            else:
                if meter:
                    self._write(label, meter, done=True)
                self._meters[label] = meter = Meter(progress)
                self._due[label] = 0
            if time.monotonic() >= self._due[label]:
                self._due[label] = time.monotonic() + EVENT_S
                self._write(label, meter)

    def end(self, *, well: bool) -> None:
        """Write how it ended."""
        with self._lock:
            for label, meter in self._meters.items():
                self._write(label, meter, done=well)

    def _write(self, label: str, meter: Meter, *, done: bool = False) -> None:
        now, rate, left = meter.now, meter.rate, meter.left_s
        event = {
            "schema": "gpucloud.progress/1",
            "node": label,
            "phase": now.phase,
            "files": now.files,
            "files_total": now.files_total,
            "bytes": now.bytes,
            "bytes_total": now.bytes_total,
            "bytes_per_second": None if rate is None else round(rate),
            "seconds_left": None if left is None else round(left),
            "done": done,
        }
        out.note(encoded(event))


class _Live:
    """A line for each node on a terminal, drawn again a few times a second, and taken back at the end."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._width = max(map(len, labels), default=0)
        self._lock = threading.RLock()
        self._meters: dict[str, Meter] = {}
        self._drawn: list[str] = []
        self._over = threading.Event()
        self._artist = threading.Thread(target=self._draw_on, daemon=True)
        self._artist.start()

    def tell(self, label: str, progress: Progress) -> None:
        """Remember it for the next frame."""
        with self._lock:
            meter = self._meters.get(label)
            if meter and meter.now.phase is progress.phase:
                meter.tell(progress)
            else:
                self._meters[label] = Meter(progress)

    def end(self, *, well: bool) -> None:
        """Leave the terminal as it would be without."""
        self._over.set()
        self._artist.join()
        out.aside = nullcontext()
        with self._lock:
            out.draw(self._erased())

    def __enter__(self) -> None:
        """Somebody writes a line now."""
        self._lock.acquire()
        out.draw(self._erased())

    def __exit__(self, *_: object) -> None:
        """Where we were there is a line now, and we go on below."""
        self._lock.release()

    def _draw_on(self) -> None:
        if self._over.wait(PATIENCE_S):
            return
        out.aside = self
        while True:
            self._draw()
            if self._over.wait(FRAME_S):
                return

    def _draw(self) -> None:
        size = out.live
        if size is None:
            return
        with self._lock:
            lines = [self._line(label, meter, size.columns - 1) for label, meter in self._meters.items()]
            most = max(1, size.lines - 1)
            if len(lines) > most:
                hidden = len(lines) - most + 1
                lines = [*lines[: most - 1], f"and {format_count(hidden, 'more node')}"]
            erased = self._erased()
            # A line that fills the terminal would be two.
            self._drawn = [line[: size.columns - 1] for line in lines]
            out.draw(erased + "\n".join(self._drawn))

    def _line(self, label: str, meter: Meter, room: int) -> str:
        head = f"{label:{self._width}}  {meter.now.phase:<9}  "
        return head + meter.text(room - len(head))

    def _erased(self) -> str:
        """What goes back over the last frame; a terminal that became narrower has wrapped its lines."""
        if not self._drawn:
            return ""
        size = out.live or os.terminal_size((80, 24))
        rows = sum(max(1, -(-len(line) // size.columns)) for line in self._drawn)
        self._drawn = []
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        return f"\r{up}\x1b[J"
