"""How a local tree differs from what lies on a host."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpucloud.remote.agent.manifest import FILE, FOLDER, KIND, ROW, block_of, join, row, rows
from gpucloud.remote.ignore import GIT_FOLDER, IgnoreRules
from gpucloud.remote.tree import UNREADABLE, Tree


@dataclass(slots=True)
class Plan:
    """What turns what is there into the tree that is here. Folders and files are rows with their whole path.

    ``remove_folders`` has the deepest first. ``alike`` are files that are there in the same size, but with
    another time. ``there`` is what the host has when it is done, if all goes well.
    """

    there: dict[bytes, bytes]
    remove_files: list[bytes] = field(default_factory=list)
    remove_folders: list[bytes] = field(default_factory=list)
    folders: list[bytes] = field(default_factory=list)
    send: dict[bytes, list[bytes]] = field(default_factory=dict)
    alike: dict[bytes, list[bytes]] = field(default_factory=dict)
    touch: dict[bytes, list[bytes]] = field(default_factory=dict)
    changed: set[bytes] = field(default_factory=set)

    def settle(self) -> None:
        """Nothing is in doubt any more: what is only alike is sent."""
        for folder, found in self.alike.items():
            self.send.setdefault(folder, []).extend(found)
        self.alike = {}

    def only_touch(self, folder: bytes, one: bytes) -> None:
        """A file that is alike is the same but for its time."""
        self.alike[folder].remove(one)
        self.touch.setdefault(folder, []).append(one)

    def resend(self, folder: bytes, one: bytes) -> None:
        """A file differs in its content."""
        for found in (self.alike.get(folder, []), self.touch.get(folder, [])):
            if one in found:
                found.remove(one)
        self.changed.add(join(folder, one[ROW.size :]))
        self.send.setdefault(folder, []).append(one)

    def totals(self) -> tuple[int, int]:
        """How many files are set right, and how many bytes are in those that are sent."""
        sent = [ROW.unpack_from(one) for found in self.send.values() for one in found]
        files = [size for _, mode, size, _ in sent if mode & KIND == FILE]
        return len(files) + sum(map(len, self.touch.values())), sum(files)


def difference(
    there: Mapping[bytes, bytes],
    tree: Tree,
    unseen: Callable[[bytes, bool], bool],
    grain: int = 1,
    modes: bool = True,
) -> Plan:
    """Tell what to do where ``there`` lies, so that ``tree`` lies there.

    What is there and not in ``tree`` stays when ``unseen`` says so, which is told its path and whether it is
    a folder. Times are compared in steps of ``grain`` ns, permissions only with ``modes``. Raises
    ``ValueError`` when ``there`` makes no sense.
    """
    plan = Plan(dict(tree.listing) if grain == 1 else {f: coarse(b, grain) for f, b in tree.listing.items()})
    for folder in sorted(tree.listing):
        block, old = plan.there[folder], there.get(folder, b"")
        if block != old:
            _compare(plan, folder, block if modes else _like(block, old), old, unseen)
    for folder in there.keys() - tree.listing.keys():
        _compare(plan, folder, b"", there[folder], unseen)
    plan.remove_files.sort()
    plan.remove_folders.sort(key=lambda path: (-path.count(b"/"), path))
    plan.folders.sort(key=lambda entry: entry[ROW.size :])
    return plan


def coarse(block: bytes, grain: int) -> bytes:
    """The rows of a folder with times in steps of so many nanoseconds."""
    return block_of(row(n, mode, size, time - time % grain, to) for n, mode, size, time, to in rows(block))


def _like(block: bytes, old: bytes) -> bytes:
    """The same with the permissions that are there, as others cannot be."""
    before = {name: mode for name, mode, *_ in rows(old)}
    found = []
    for name, mode, size, mtime_ns, target in rows(block):
        was = before.get(name, 0)
        found.append(row(name, was if was & KIND == mode & KIND else mode, size, mtime_ns, target))
    return block_of(found)


def _compare(
    plan: Plan, folder: bytes, block: bytes, old: bytes, unseen: Callable[[bytes, bool], bool]
) -> None:
    before = {name: (mode, size, mtime_ns, to) for name, mode, size, mtime_ns, to in rows(old)}
    stays = []
    for name, mode, size, mtime_ns, target in rows(block):
        was = before.pop(name, None)
        if was == (mode, size, mtime_ns, target):
            continue
        kind = mode & KIND
        if was and was[0] & KIND != kind:
            _remove(plan, folder, name, was[0])
            was = None
        if kind == FOLDER:
            plan.folders.append(row(join(folder, name), mode, 0, 0))
            continue
        which = plan.send
        if kind == FILE and was and was[1] == size:
            which = plan.touch if was[2] == mtime_ns else plan.alike
        if kind == FILE and was:
            plan.changed.add(join(folder, name))
        which.setdefault(folder, []).append(row(name, mode, size, mtime_ns, target))
    for name, (mode, size, mtime_ns, target) in before.items():
        if unseen(join(folder, name), mode & KIND == FOLDER):
            stays.append(row(name, mode, size, mtime_ns, target))
        else:
            _remove(plan, folder, name, mode)
    if stays:
        now = [row(*one) for one in rows(plan.there.get(folder, b""))]
        plan.there[folder] = block_of(now + stays)


def _remove(plan: Plan, folder: bytes, name: bytes, mode: int) -> None:
    if mode & KIND == FOLDER:
        plan.remove_folders.append(join(folder, name))
    else:
        plan.remove_files.append(join(folder, name))


class Unseen:
    """Tells of what is not in a tree, a scan of ``root``, whether that is for another reason than being gone.

    So it is with what the ignore rules leave out, be it there or not, and what lies where nothing could be
    read.
    """

    def __init__(self, root: Path, tree: Tree, *, rules: bool = True, git: bool = False) -> None:
        self._root = root
        self._git = git
        self._ruled = rules
        self._unreadable = {path for path, reason in tree.skipped if reason == UNREADABLE}
        self._rules: dict[str, IgnoreRules | None] = {}

    def __call__(self, path: bytes, is_folder: bool) -> bool:
        """Raises ``SyncFailed`` when an ignore file cannot be read."""
        if not self._ruled:
            return False
        text = os.fsdecode(path)
        if self._git and GIT_FOLDER in text.split("/"):
            return any(text == no or text.startswith(no + "/") for no in self._unreadable)
        above, _, name = text.rpartition("/")
        inner = self._rules_in(above)
        return inner is None or text in self._unreadable or inner.excludes(name, folder=is_folder)

    def _rules_in(self, folder: str) -> IgnoreRules | None:
        """The rules in a folder; ``None`` when it is left out."""
        if folder not in self._rules:
            above, _, name = folder.rpartition("/")
            outer = self._rules_in(above) if folder else None
            if not folder:
                self._rules[folder] = IgnoreRules.at(self._root)
            elif outer is None or folder in self._unreadable or outer.excludes(name, folder=True):
                self._rules[folder] = None
            else:
                self._rules[folder] = outer.inside(name, self._root / folder)
        return self._rules[folder]
