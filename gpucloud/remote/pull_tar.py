"""A pull by the shell of a host without Python: a list, checksums, then one tar stream."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent.globs import Globs, escaped, is_wild, led_to, parts_of, stays_inside
from gpucloud.remote.catalogue import Catalogue, State
from gpucloud.remote.host import Host
from gpucloud.remote.landing import Landing
from gpucloud.remote.meter import Meter
from gpucloud.remote.progress import Phase
from gpucloud.remote.streams import Reader
from gpucloud.remote.unpack import LINK, unpack

ATTEMPTS: Final = 3
"""How often files are sent again that changed while they were read."""


def fetch_tar(
    host: Host,
    patterns: Sequence[str],
    into: Path,
    meter: Meter,
    *,
    newer_than: datetime | None = None,
    beside: str = "",
) -> Catalogue:
    """Pull what matches with nothing but the on-host program.

    Raises:
        SyncFailed: when the host cannot tell, or sends what was not asked for; when something cannot be
            written here.
    """
    meter.begin(Phase.COMPARING)
    digests = _found(host, patterns)
    listed = Catalogue(patterns, host.label)
    with Landing(into) as landing:
        for name in sorted(digests):
            listed.enter(name, State.WANTED if _harmless(name, digests[name]) else State.REFUSED)
        if landing.folds_case():
            listed.refuse_clashes()
        for number in listed.having(State.WANTED):
            name = listed.paths[number]
            if _digest_here(landing, name) == digests[name]:
                listed.states[number] = State.HERE
            meter.add(files=1)
        meter.begin(Phase.RECEIVING)
        for _ in range(ATTEMPTS):
            if State.WANTED in listed.states:
                _bring(host, into, listed, digests, meter, newer_than, beside)
        for number in listed.having(State.HERE):
            path = listed.paths[number]
            found = landing.look(listed.where.get(path, path))
            listed.sizes[number] = found.st_size if found else 0
    for number in listed.having(State.WANTED):
        listed.states[number] = State.CHANGED
    return listed


def _bring(
    host: Host,
    into: Path,
    listed: Catalogue,
    digests: dict[str, str],
    meter: Meter,
    newer_than: datetime | None,
    beside: str,
) -> None:
    """Unpack what is wanted; what changed between checksum and archive gets a new checksum."""
    wanted = listed.having(State.WANTED)
    expected = {listed.paths[number]: digests[listed.paths[number]] for number in wanted}
    placed: dict[str, str] = {}

    def take(stream: Reader) -> None:
        placed.update(unpack(_Metered(stream, meter), into, expected, newer_than=newer_than, beside=beside))

    host.pack(sorted(expected), take)
    left = [number for number in wanted if listed.paths[number] not in placed]
    digests.update(dict.fromkeys((listed.paths[number] for number in left), "gone"))
    digests.update(_digests(host, [listed.paths[number] for number in left]))
    for number in wanted:
        path = listed.paths[number]
        if path in placed:
            listed.is_here(number, placed[path])
        elif digests[path] == "gone":
            listed.states[number] = State.GONE
    meter.add(files=len(placed))


class _Metered:
    """The stream, while its bytes are counted."""

    def __init__(self, stream: Reader, meter: Meter) -> None:
        self._stream = stream
        self._meter = meter

    def read(self, size: int = 65_536, /) -> bytes:
        data = self._stream.read(size)
        self._meter.add(size=len(data))
        return data


def _found(host: Host, patterns: Sequence[str]) -> dict[str, str]:
    """The digests of what patterns match, and of what the links that they name lead to."""
    digests: dict[str, str] = {}
    while patterns:
        globs = Globs(map(parts_of, patterns))
        names = [_inside(host, name) for name in host.files(sorted({_literal(p) for p in patterns}))]
        found = _digests(host, sorted({name for name in names if name not in digests and globs.takes(name)}))
        digests |= found
        named = {name: digest for name, digest in found.items() if globs.names(name)}
        patterns = [escaped(target) for target in _led_to(named) if not _covered(target, digests)]
    return digests


def _led_to(digests: Mapping[str, str]) -> Iterator[str]:
    for name, digest in digests.items():
        if digest.startswith(LINK) and (target := led_to(name, digest.removeprefix(LINK))):
            yield target


def _covered(target: str, digests: Mapping[str, str]) -> bool:
    """Tell whether a path, or a link on the way to it, is among what was found."""
    while target and target not in digests:
        target = target.rpartition("/")[0]
    return bool(target)


def _harmless(name: str, digest: str) -> bool:
    return not digest.startswith(LINK) or stays_inside(name, digest.removeprefix(LINK))


def _digests(host: Host, names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    return {name: digest for name, digest in host.digest(names).items() if digest != "gone"}


def _digest_here(landing: Landing, path: str) -> str | None:
    target = landing.target(path)
    if target is not None:
        return LINK + target
    descriptor = landing.open(path)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None


def _literal(pattern: str) -> str:
    """The part of a pattern before its first wildcard, as a path to search from."""
    parts = pattern.split("/")
    plain = next((i for i, part in enumerate(parts) if is_wild(part)), len(parts))
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
