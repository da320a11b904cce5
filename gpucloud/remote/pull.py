"""Pull files from a host's working directory: by our helper where it has Python, else by its shell."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from gpucloud.errors import UsageError
from gpucloud.remote.catalogue import Catalogue, State
from gpucloud.remote.fetch import Wishes, fetch
from gpucloud.remote.host import Host
from gpucloud.remote.landing import Landing
from gpucloud.remote.meter import Meter
from gpucloud.remote.progress import Watcher, unwatched
from gpucloud.remote.pull_tar import fetch_tar


class Places(Mapping[str, Path]):
    """Where files are here, by their paths on the host, in the order of these."""

    def __init__(self, into: Path, names: Sequence[str], moved: Mapping[str, str]) -> None:
        self._into = into
        self._names = sorted(names)
        self._moved = moved

    def __getitem__(self, name: str) -> Path:
        if name not in self:
            raise KeyError(name)
        return self._into / self._moved.get(name, name)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        at = bisect_left(self._names, name)
        return at < len(self._names) and self._names[at] == name

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull found.

    ``files`` are the verified outputs and where each is here, ``size`` the bytes in them. ``unverified`` are
    those that kept changing or cannot be read, ``refused`` the links that lead out of the folder,
    ``missing`` the patterns that match nothing else. ``clashing`` cannot be here beside others whose names
    differ only by case. ``growing`` were not taken yet.
    """

    files: Mapping[str, Path]
    size: int
    unverified: tuple[str, ...]
    missing: tuple[str, ...]
    refused: tuple[str, ...]
    clashing: tuple[str, ...] = ()
    growing: tuple[str, ...] = ()


def pull(
    host: Host,
    patterns: Sequence[str],
    into: Path,
    *,
    newer_than: datetime | None = None,
    beside: str = "",
    watch: Watcher = unwatched,
    wishes: Wishes = Wishes(),  # noqa: B008 - it is frozen
) -> Pulled:
    """Bring what matches ``patterns`` in the host's working directory to the same places below ``into``.

    A pattern is a path or a glob; one that names a folder takes all that is in it, one that names a link also
    what that leads to inside the working directory. A file is put into place only when its checksums are
    those that the host computed, and is not brought again when it is here already. One that was changed here
    after ``newer_than`` is kept; the host's lies beside it, with suffix ``beside``. What is cut off goes on
    where it was when it is done again.

    Raises:
        UsageError: when a pattern leads out of the working directory.
        SyncFailed: when the host cannot tell, or sends what was not asked for; when there is no room here,
            or something cannot be written.
    """
    wanted = [_pattern(pattern) for pattern in patterns]
    meter = Meter(watch)
    with Landing(into, newer_than=newer_than, beside=beside) as landing:
        found = fetch(host, wanted, landing, meter, wishes)
        if found is None:
            found = fetch_tar(host, wanted, into, meter, newer_than=newer_than, beside=beside)
        meter.end()
    return _pulled(found, wanted, into)


def _pulled(found: Catalogue, wanted: Sequence[str], into: Path) -> Pulled:
    here = found.names(State.HERE)
    return Pulled(
        files=Places(into, here, found.where),
        size=sum(found.sizes[n] for n in found.having(State.HERE)),
        unverified=found.names(State.CHANGED, State.UNREADABLE),
        missing=tuple(pattern for pattern in wanted if not found.matched(pattern)),
        refused=tuple(sorted(found.names(State.REFUSED))),
        clashing=found.names(State.CLASHING),
        growing=found.names(State.GROWING),
    )


def _pattern(text: str) -> str:
    pattern = PurePosixPath(text)
    if pattern.is_absolute() or ".." in pattern.parts or "\0" in text:
        raise UsageError(
            f"{text!r} cannot be pulled",
            why="only what is below the working directory on the host can",
            hint="give a path from there, or copy it there with gpucloud exec first",
        )
    return str(pattern)
