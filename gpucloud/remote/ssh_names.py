"""Which names the user's own SSH configuration has a meaning for, so that ours need not take them away."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LINE: Final = re.compile(r"\s*(host|include)(?:\s*=\s*|\s+)(.*)", re.IGNORECASE)


class OwnNames:
    """The patterns after ``Host`` in a configuration and in what it includes, but for ``skip``.

    What cannot be read has none: ``ssh`` would complain of it, too.
    """

    def __init__(self, user_config: Path, *, skip: Path) -> None:
        self._read_already = {skip.resolve()}
        self._lists = list(self._read(user_config))

    def have(self, name: str) -> bool:
        """Whether a name is one that the user has settings for; what she has for all names does not count."""
        return any(_fits(name, patterns) for patterns in self._lists)

    def _read(self, file: Path) -> Iterator[list[str]]:
        try:
            place = file.resolve()
            if place in self._read_already:
                return
            self._read_already.add(place)
            lines = file.read_text("utf-8", "surrogateescape").splitlines()
        except (OSError, RuntimeError):
            return
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:
                continue
            if match[1].lower() == "host":
                yield _words(match[2])
                continue
            for word in _words(match[2]):
                place = _located(word)
                for found in Path(place.anchor).glob(str(place.relative_to(place.anchor))):
                    yield from self._read(found)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()


def _located(word: str) -> Path:
    """Where an Include leads: without a folder of its own, to ``~/.ssh``."""
    try:
        return Path.home() / ".ssh" / Path(word).expanduser()
    except RuntimeError:
        return Path(word)


def _fits(name: str, patterns: list[str]) -> bool:
    if any(pattern[0] == "!" and fnmatch.fnmatchcase(name, pattern[1:]) for pattern in patterns if pattern):
        return False
    return any(pattern.strip("*?") and fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
