"""What a command on several nodes has to tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gpucloud.errors import GpucloudError
from gpucloud.remote.ending import Outcome

TIMED_OUT: Final = 124
"""The status of a command that took too long, as timeout(1) has it."""


class How(StrEnum):
    """How it ended on a node."""

    EXITED = "exited"
    TIMED_OUT = "timed-out"
    ENDED = "ended"
    NOT_STARTED = "not-started"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes that a node has written to stdout or, with ``stderr``, to stderr."""

    rank: int
    stderr: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class NodeEnd:
    """How a command ended on a node; nothing more comes from there.

    ``status`` is that of the command where it has one, or 124 after a timeout. ``error`` is why it
    failed. ``outcome`` is what it took to end it, ``None`` where nothing was ended, and ``LEFT`` where
    something of it may go on.
    """

    rank: int
    how: How
    status: int | None
    seconds: float
    error: GpucloudError | None = None
    outcome: Outcome | None = None

    @property
    def good(self) -> bool:
        """Whether the command has run to its end and succeeded."""
        return self.how is How.EXITED and self.status == 0
