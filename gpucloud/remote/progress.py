"""How far a push or pull has come, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What is being done."""

    COMPARING = "comparing"
    SENDING = "sending"
    RECEIVING = "receiving"
    VERIFYING = "verifying"


@dataclass(frozen=True, slots=True)
class Progress:
    """So many files and bytes of a phase are done; a total is ``None`` while it is not known.

    Bytes are those of the files, not of the wire.
    """

    phase: Phase
    files: int = 0
    bytes: int = 0
    files_total: int | None = None
    bytes_total: int | None = None


Watcher = Callable[[Progress], object]
"""Told of progress at most every ``TELL_S``, and at the begin and end of each phase, from any thread."""

TELL_S = 0.1


def unwatched(progress: Progress) -> None:
    """Stands for a watcher where nobody looks."""


Viewer = Callable[[Sequence[str]], AbstractContextManager[Mapping[str, Watcher]]]
"""Shows what goes on with these nodes, by their labels, while its context lasts; gives each its watcher."""


@contextmanager
def unviewed(labels: Sequence[str]) -> Iterator[Mapping[str, Watcher]]:
    """Stands for a viewer where nobody looks."""
    yield dict.fromkeys(labels, unwatched)
