"""Push a folder to a host, pull outputs back: one tar stream each way, checked against manifests."""

from __future__ import annotations

import glob
import hashlib
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

from gpucloud.errors import SyncFailed, UsageError
from gpucloud.remote.host import Host
from gpucloud.remote.push import Pushed, push
from gpucloud.remote.streams import Reader
from gpucloud.remote.tree import Tree, matches, scan
from gpucloud.remote.unpack import LINK, stays_inside, unpack

__all__ = ["Pulled", "Pushed", "preview", "pull", "push"]

ATTEMPTS: Final = 3
"""How often files are sent again that changed while they were read."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull found.

    ``files`` are the verified outputs and where each is here, ``unverified`` those that kept changing,
    ``refused`` the links that lead out of the folder, ``missing`` the patterns that match nothing else.
    """

    files: dict[str, Path]
    size: int
    unverified: tuple[str, ...]
    missing: tuple[str, ...]
    refused: tuple[str, ...]


def pull(
    host: Host, patterns: Sequence[str], into: Path, *, newer_than: datetime | None = None, beside: str = ""
) -> Pulled:
    """Bring what matches ``patterns`` in the host's working directory to the same places below ``into``.

    A pattern is a path or a glob; one that names a folder takes all that is in it, one that names a link also
    what that leads to inside the working directory. A file is put into place only when its sha256 is the one
    that the host computed, and is not brought again when it is here already. One that was changed here after
    ``newer_than`` is kept; the host's lies beside it, with suffix ``beside``.

    Raises:
        UsageError: when a pattern leads out of the working directory.
        SyncFailed: when the host cannot tell, or sends what was not asked for.
    """
    wanted = [_pattern(pattern) for pattern in patterns]
    digests = _found(host, wanted)
    refused = {name for name, digest in digests.items() if not _harmless(name, digest)}
    expected = {name: digest for name, digest in digests.items() if name not in refused}
    files = {name: into / name for name in expected if _digest_here(into / name) == expected[name]}
    for _ in range(ATTEMPTS):
        rest = {name: digest for name, digest in expected.items() if name not in files}
        if not rest:
            break

        def take(stream: Reader, rest: dict[str, str] = rest) -> None:
            placed = unpack(stream, into, rest, newer_than=newer_than, beside=beside)
            files.update({name: into / place for name, place in placed.items()})

        host.pack(sorted(rest), take)
        # What changed between checksum and archive is compared with what it is now; what is gone is not here.
        left = [name for name in rest if name not in files]
        now = _digests(host, left)
        expected = {
            name: now.get(name, expected[name]) for name in expected if name in now or name not in left
        }
    return Pulled(
        files=files,
        size=sum(path.lstat().st_size for path in files.values()),
        unverified=tuple(name for name in expected if name not in files),
        missing=tuple(p for p in wanted if not any(matches(p, name) for name in expected)),
        refused=tuple(sorted(refused)),
    )


def _pattern(text: str) -> str:
    pattern = PurePosixPath(text)
    if pattern.is_absolute() or ".." in pattern.parts:
        raise UsageError(
            f"{text!r} cannot be pulled",
            why="only what is below the working directory on the host can",
            hint="give a path from there, or copy it there with gpucloud exec first",
        )
    return str(pattern)


def _found(host: Host, patterns: Sequence[str]) -> dict[str, str]:
    """The digests of what patterns match, and of what the links that they name lead to."""
    digests: dict[str, str] = {}
    while patterns:
        names = [_inside(host, name) for name in host.files(sorted({_literal(p) for p in patterns}))]
        new = {name for name in names if name not in digests and any(matches(p, name) for p in patterns)}
        found = _digests(host, sorted(new))
        digests |= found
        named = {name: found[name] for name in found if any(_names(p, name) for p in patterns)}
        patterns = [glob.escape(target) for target in _led_to(named) if not _covered(target, digests)]
    return digests


def _names(pattern: str, name: str) -> bool:
    """Tell whether a pattern takes a path for itself, and not because of a folder that it is in."""
    return matches(pattern, name) and not matches(pattern, posixpath.dirname(name) or ".")


def _led_to(digests: Mapping[str, str]) -> Iterator[str]:
    """Where those links lead that stay inside, but for those that lead to a folder they are in."""
    for name, digest in digests.items():
        if digest.startswith(LINK) and _harmless(name, digest):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), digest.removeprefix(LINK)))
            if PurePosixPath(target) not in PurePosixPath(name).parents:
                yield target


def _covered(target: str, digests: Mapping[str, str]) -> bool:
    """Tell whether a path, or a link on the way to it, is among what was found."""
    return target in digests or any(str(above) in digests for above in PurePosixPath(target).parents)


def _harmless(name: str, digest: str) -> bool:
    return not digest.startswith(LINK) or stays_inside(name, digest.removeprefix(LINK))


def preview(source: str | Path) -> Tree:
    """What a push of a folder would send to an empty host."""
    return scan(Path(source))


def _digests(host: Host, names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    return {name: digest for name, digest in host.digest(names).items() if digest != "gone"}


def _digest_here(path: Path) -> str | None:
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return f"{LINK}{path.readlink()}"
        # Whoever opens a FIFO waits for somebody to write into it.
        if not stat.S_ISREG(mode):
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _literal(pattern: str) -> str:
    """The part of a pattern before its first wildcard, as a path to search from."""
    parts = pattern.split("/")
    plain = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
    return "/".join(parts[:plain]) or "."


def _inside(host: Host, name: str) -> str:
    clean = name.removeprefix("./")
    if not clean or clean.startswith("/") or ".." in clean.split("/"):
        raise SyncFailed(
            f"{host.label} names an output outside its working directory",
            why=repr(name),
            hint="do not trust it",
        )
    return clean
