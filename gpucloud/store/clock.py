"""When something happened, by two clocks: the one that people set, and one that counts since the boot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

from gpucloud.model import MICROSECOND, utcnow

JUMP: Final = timedelta(seconds=1)
"""When the two clocks disagree by more, somebody has set the time of day."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Reading:
    """A moment. ``ticks`` are microseconds since the boot of that name, which is empty when not known."""

    at: datetime
    boot: str
    ticks: int

    def moved(self, at: datetime) -> Reading:
        """The same clocks at another time of day."""
        return Reading(at, self.boot, self.ticks + (at - self.at) // MICROSECOND)

    def until(self, other: Reading) -> timedelta:
        """How long it lasted, whatever somebody did to the time of day meanwhile; never less than nothing."""
        told = other.at - self.at
        counted = (other.ticks - self.ticks) * MICROSECOND
        # The two are not read in the same instant, so a little difference means nothing.
        jumped = self.boot and self.boot == other.boot and abs(counted - told) > JUMP
        return max(counted if jumped else told, timedelta())


def reading() -> Reading:
    """This moment."""
    return Reading(utcnow(), _boot(), ticks())


def ticks() -> int:
    """Microseconds since the boot, also those in which the computer slept."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1000


@cache
def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
