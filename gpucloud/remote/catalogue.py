"""What a host says that it has of what was asked for: looked through, and kept small."""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent import globs, pieces
from gpucloud.remote.agent.frames import Broken

ROOM: Final = 400_000_000
"""Bytes of memory that a list may take up; that is more than a million files."""

_EACH: Final = 160
"""Bytes that an entry takes up besides its name and its target."""

_BIGGEST: Final = 1 << 60


class State(IntEnum):
    """How far a pull is with a file or a link."""

    WANTED = 0
    HERE = 1
    CHANGED = 2
    GONE = 3
    REFUSED = 4
    UNREADABLE = 5
    CLASHING = 6
    GROWING = 7


class Catalogue:
    """The files and links of a pull, by number.

    The host lists what the patterns match, then, round by round, what the links lead to that are named. In
    each round paths come in the order of their bytes, so that none comes twice. ``where`` holds the places
    of those that are not where they belong.

    Raises:
        Broken: from what takes the host's words, when they make no sense.
        SyncFailed: when it names what it was not asked for, or more than can be kept here.
    """

    def __init__(self, patterns: Iterable[str], label: str) -> None:
        self.paths: list[str] = []
        self.sizes = array("Q")
        self.held = array("Q")
        self.mtimes = array("q")
        self.modes = array("H")
        self.versions = array("Q")
        self.targets: dict[int, str] = {}
        self.states = bytearray()
        self.where: dict[str, str] = {}
        self._label = label
        self._room = ROOM
        self._last = b""
        self._wanted: globs.Globs | None = globs.Globs(map(globs.parts_of, patterns))
        self._led: set[str] = set()

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, data: bytes) -> int:
        """Take an announcement; returns how many entries were in it."""
        before = len(self)
        for kind, name, target, mode, size, mtime_ns, held, version in _entries(data):
            if self._wanted is None or name <= self._last:
                raise Broken("a list that is out of order")
            path = _text(name)
            if not _plain(name) or not self._wanted.takes(path):
                raise SyncFailed(
                    f"{self._label} names an output that it was not asked for, or one outside its working"
                    " directory",
                    why=repr(path),
                    hint="do not trust it",
                )
            self._last = name
            self._room -= _EACH + len(name) + len(target)
            if self._room < 0:
                raise SyncFailed(
                    f"{self._label} has more outputs than can be listed here",
                    why=f"{len(self)} files and more match",
                    hint="name fewer, or pack them into an archive there",
                )
            state = State.WANTED
            if kind == pieces.LINK:
                state = self._add_link(path, _text(target))
            elif kind != pieces.FILE or target:
                raise Broken(f"an entry of kind {kind!r}")
            self.paths.append(path)
            self.sizes.append(size)
            self.held.append(min(held, size))
            self.mtimes.append(mtime_ns)
            self.modes.append(mode)
            self.versions.append(version)
            self.states.append(state)
        if len(self) == before:
            raise Broken("an empty list")
        return len(self) - before

    def next_round(self) -> None:
        """The host has listed all that the patterns match; now comes what the links lead to."""
        if self._wanted is None:
            raise Broken("a list without an end")
        led, self._led, self._last = self._led, set(), b""
        patterns = [globs.parts_of(globs.escaped(there)) for there in led if there]
        self._wanted = globs.Globs(patterns) if patterns else None

    def renew(self, numbers: Iterable[int], data: Iterable[bytes]) -> None:
        """Take the announcements of files that had changed; those that are no more are ``GONE``."""
        entries = (entry for batch in data for entry in _entries(batch))
        for number in numbers:
            found = next(entries, None)
            if found is None or _text(found[1]) != self.paths[number] or found[2]:
                raise Broken("an answer to another question")
            kind, _, _, mode, size, mtime_ns, held, version = found
            self.states[number] = State.WANTED if kind == pieces.FILE else State.GONE
            self.sizes[number], self.held[number] = size, min(held, size)
            self.mtimes[number], self.modes[number], self.versions[number] = mtime_ns, mode, version
        if next(entries, None) is not None:
            raise Broken("an answer to no question")

    def refuse_clashes(self) -> None:
        """Of names that are one on a disk which does not tell their case apart, only take the first."""
        taken: dict[str, str] = {}
        for number, path in enumerate(self.paths):
            parts = path.split("/")
            for end in range(1, len(parts) + 1):
                above = "/".join(parts[:end])
                if taken.setdefault(_folded(above), above) != above:
                    self.states[number] = State.CLASHING
                    break

    def enter(self, path: str, state: State) -> None:
        """Enter a path that somebody else has looked through."""
        self.paths.append(path)
        for field in (self.sizes, self.held, self.mtimes, self.modes, self.versions):
            field.append(0)
        self.states.append(state)

    def is_here(self, number: int, place: str) -> None:
        """An entry has come, to where it belongs or beside it."""
        self.states[number] = State.HERE
        if place != self.paths[number]:
            self.where[self.paths[number]] = place

    def matched(self, pattern: str) -> bool:
        """Tell whether a pattern takes anything that is there and may come."""
        pattern_alone = globs.Globs([globs.parts_of(pattern)])
        nothing = {State.GONE, State.REFUSED}
        return any(
            state not in nothing and pattern_alone.takes(path)
            for path, state in zip(self.paths, self.states, strict=True)
        )

    def having(self, *states: State) -> list[int]:
        """The numbers of what is in one of these states."""
        return [number for number, state in enumerate(self.states) if state in states]

    def names(self, *states: State) -> tuple[str, ...]:
        """The paths of what is in one of these states."""
        return tuple(self.paths[number] for number in self.having(*states))

    def _add_link(self, path: str, target: str) -> State:
        assert self._wanted is not None
        self.targets[len(self)] = target
        if not globs.stays_inside(path, target):
            return State.REFUSED
        if self._wanted.names(path):
            self._led.add(globs.led_to(path, target))
        return State.WANTED


_Entry = tuple[bytes, bytes, bytes, int, int, int, int, int]


def _entries(data: bytes) -> Iterator[_Entry]:
    """The entries of an announcement: kind, name, target, mode, size, mtime, bytes held, version."""
    offset = 0
    while offset < len(data):
        head = data[offset : offset + pieces.ENTRY.size]
        if len(head) < pieces.ENTRY.size:
            raise Broken("half an entry")
        kind, name_size, target_size, mode, size, mtime_ns, held, version = pieces.ENTRY.unpack(head)
        start = offset + pieces.ENTRY.size
        middle = start + name_size
        offset = middle + target_size
        if offset > len(data) or not name_size:
            raise Broken("half an entry")
        if size > _BIGGEST:
            raise Broken(f"a file of {size} bytes")
        yield kind, data[start:middle], data[middle:offset], mode, size, mtime_ns, held, version


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _plain(name: bytes) -> bool:
    return b"\0" not in name and not {b"", b".", b".."} & set(name.split(b"/"))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
