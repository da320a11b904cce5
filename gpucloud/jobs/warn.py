"""What a person should hear of a tree before, and after, it is sent."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from gpucloud.model import Event
from gpucloud.remote.ignore import GPUCLOUDIGNORE, included
from gpucloud.remote.suspects import Suspect, suspects
from gpucloud.remote.tree import Tree, matches

MOST: Final = 5
"""So many of a kind are named; the others are counted."""

Tell = Callable[[Event], object]


def of_tree(tell: Tell, folder: str, tree: Tree, extra: Sequence[str] = ()) -> None:
    """Warn of what looks secret before a tree is sent.

    No word of what was asked for: by ``extra``, or by a rule that includes it again.
    """
    found = [
        s for s in suspects(Path(folder), tree.sizes()) if not any(matches(glob, s.path) for glob in extra)
    ]
    wanted = included(Path(folder), [suspect.path for suspect in found])
    _of_suspects(tell, folder, [suspect for suspect in found if suspect.path not in wanted])


def of_skipped(tell: Tell, skipped: Iterable[tuple[str, str]]) -> None:
    """Tell what could not be sent, and why."""
    _each(tell, [f"{spelled(path)} was left out: {why}" for path, why in skipped])


def of_changing(tell: Tell, changing: Iterable[str]) -> None:
    """Tell what did not keep still."""
    lines = [f"{spelled(path)} changed while it was read; push again when it is still" for path in changing]
    _each(tell, lines)


def spelled(path: str) -> str:
    """A path so that a terminal shows it, and does nothing else."""
    return path if path.isprintable() else repr(path)


def _of_suspects(tell: Tell, folder: str, found: Sequence[Suspect]) -> None:
    if not found:
        return
    _each(tell, [f"{spelled(s.path)} looks like {s.what}, and is sent" for s in found])
    file = os.path.relpath(f"{folder}/{GPUCLOUDIGNORE}")
    rules = [rule_for(suspect.path) for suspect in found[:MOST]]
    them = "it" if len(rules) == 1 else "them"
    for purpose, mark in (f"to leave {them} here", ""), (f"to send {them} without a word", "!"):
        lines = shlex.join(mark + rule for rule in rules)
        # The line before may not be ended yet.
        tell(Event("hint", rf"{purpose}: printf '\n%s' {lines} >> {shlex.quote(file)}"))


def rule_for(path: str) -> str:
    """A line for an ignore file that means just this path."""
    plain = re.sub(r"([*?\[\\])", r"\\\1", path)
    # What cannot be written in a line, or not be shown, is any one character; a last space would be cut off.
    shown = "".join(character if character.isprintable() else "?" * _bytes(character) for character in plain)
    return "/" + (f"{shown[:-1]}\\ " if shown.endswith(" ") else shown)


def _bytes(character: str) -> int:
    """How many bytes it is on the disk; for the rules each is one character."""
    return len(os.fsencode(character))


def _each(tell: Tell, lines: Sequence[str]) -> None:
    for line in lines[:MOST]:
        tell(Event("warning", line))
    if len(lines) > MOST:
        tell(Event("warning", f"and {len(lines) - MOST} more like these"))
