"""Which paths the patterns of a pull take; asked on the host to list them and here to check its list."""

from __future__ import annotations

import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Rest = tuple[str, ...]
    """What is left of a pattern behind the folders passed so far; nothing once it takes all below."""
    State = frozenset[Rest]

TAKEN = frozenset([()])
"""The state below what a pattern has taken."""

_WILD = frozenset("*?[")


class Globs:
    """Patterns of ``*``, ``?``, ``[]`` and ``**``, each a tuple of the parts between its slashes.

    A pattern takes a path for itself, or because of a folder that the path is in.
    """

    def __init__(self, patterns: Iterable[Rest]) -> None:
        self.start = frozenset(patterns)
        self._plain = {
            rest[n:] for rest in self.start if not any(map(is_wild, rest)) for n in range(len(rest))
        }
        self._parts: dict[str, Callable[[str], object]] = {}
        self._folder: str | None = None
        self._state = self.start

    def step(self, state: State, name: str) -> State:
        """The state behind ``name`` in a folder of this state; empty when nothing there can be taken."""
        if state is TAKEN:
            return TAKEN
        found: set[Rest] = set()
        for rest in state:
            self._after(rest, name, found)
        return TAKEN if () in found else frozenset(found)

    def takes(self, path: str) -> bool:
        """Tell whether a pattern takes a path."""
        above, _, name = path.rpartition("/")
        return self.step(self._at(above), name) is TAKEN

    def names(self, path: str) -> bool:
        """Tell whether a pattern takes a path for itself, and not because of a folder that it is in."""
        above, _, name = path.rpartition("/")
        state = self._at(above)
        return state is not TAKEN and self.step(state, name) is TAKEN

    def literal(self, state: State) -> list[str] | None:
        """The names that may be taken or entered next, when no wildcard asks for all of them."""
        if state is TAKEN or () in state or any(is_wild(rest[0]) for rest in state):
            return None
        return sorted({rest[0] for rest in state})

    def plain(self, state: State) -> State:
        """What of a state comes from patterns without any wildcard; these are followed through links."""
        return frozenset(rest for rest in state if rest in self._plain)

    def _at(self, folder: str) -> State:
        # Paths come folder by folder.
        if folder != self._folder:
            state = TAKEN if () in self.start else self.start
            for name in folder.split("/") if folder else ():
                state = self.step(state, name)
            self._folder, self._state = folder, state
        return TAKEN if () in self._state else self._state

    def _after(self, rest: Rest, name: str, found: set[Rest]) -> None:
        if not rest:
            found.add(())
        elif rest[0] == "**":
            found.add(rest)
            self._after(rest[1:], name, found)
        elif self._matches(rest[0], name):
            found.add(rest[1:])

    def _matches(self, part: str, name: str) -> bool:
        if not is_wild(part):
            return part == name
        if part not in self._parts:
            import fnmatch
            import re

            self._parts[part] = re.compile(fnmatch.translate(part)).match
        return self._parts[part](name) is not None


def is_wild(part: str) -> bool:
    """Tell whether a part of a pattern has a wildcard."""
    return not _WILD.isdisjoint(part)


def parts_of(pattern: str) -> Rest:
    """The parts of a pattern; none of ``.``, which takes everything."""
    return tuple(part for part in pattern.split("/") if part not in {"", "."})


def stays_inside(path: str, target: str) -> bool:
    """Tell whether a symlink at ``path`` to ``target`` leads nowhere above the root that ``path`` is below.

    ``..`` counts only before the first name: behind one it would depend on where other symlinks lead.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    steps = [step for step in target.split("/") if step not in {"", "."}]
    names = [step for step in steps if step != ".."]
    climbs = len(steps) - len(names)
    return steps[climbs:] == names and climbs <= path.count("/")


def led_to(path: str, target: str) -> str:
    """Where a symlink leads that stays inside; empty when it does not, or to a folder that it is in."""
    if not stays_inside(path, target):
        return ""
    there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return "" if there == "." or path.startswith(there + "/") else there


def escaped(path: str) -> str:
    """The pattern that takes just this path and what is below it."""
    return "".join("[" + letter + "]" if letter in _WILD else letter for letter in path)
