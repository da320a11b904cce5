"""A local tree of files: what is in it, and how it differs from what lies on a host."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent import manifest
from gpucloud.remote.agent.manifest import FILE, FOLDER, KIND, LINK, ROW, block_of, join, row, rows
from gpucloud.remote.ignore import GIT_FOLDER, IgnoreRules

_SPECIAL: Final = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "fifo"}
_UNREADABLE: Final = "unreadable"


class EntryKind(StrEnum):
    """What lies at a path."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"


_KINDS: Final = {FILE: EntryKind.FILE, FOLDER: EntryKind.FOLDER, LINK: EntryKind.SYMLINK}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or symlink.

    ``path`` is relative to the root of the tree, with slashes; bytes that are no UTF-8 are surrogate
    escapes. ``size`` is in bytes and ``mtime_ns`` the time of the last change, both zero for all but files,
    ``mode`` the nine permission bits, ``target`` what a symlink points to.
    """

    path: str
    kind: EntryKind
    size: int
    mtime_ns: int
    mode: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is to be sent, packed as ``agent.manifest`` says; ``skipped`` cannot be: paths and why."""

    listing: Mapping[bytes, bytes]
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of it, folders before what is in them."""
        found = (
            Entry(
                os.fsdecode(join(folder, name)),
                _KINDS[mode & KIND],
                size if mode & KIND == FILE else 0,
                mtime_ns,
                mode & manifest.PERMISSIONS,
                os.fsdecode(target),
            )
            for folder, block in self.listing.items()
            for name, mode, size, mtime_ns, target in rows(block)
        )
        return tuple(sorted(found, key=lambda entry: entry.path))

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """The path and bytes of each regular file."""
        for folder, block in self.listing.items():
            for name, mode, size, _, _ in rows(block):
                if mode & KIND == FILE:
                    yield join(folder, name), size

    @property
    def files(self) -> int:
        """How many regular files there are."""
        return sum(1 for _ in self.sizes())

    @property
    def size(self) -> int:
        """The bytes in all regular files together."""
        return sum(size for _, size in self.sizes())

    def biggest(self, count: int) -> list[tuple[str, int]]:
        """Return the largest files and top-level folders with their bytes; folders end in a slash."""
        sizes: Counter[bytes] = Counter()
        for path, size in self.sizes():
            sizes[path] += size
            top, slash, _ = path.partition(b"/")
            if slash:
                sizes[top + slash] += size
        return [(os.fsdecode(path), size) for path, size in sizes.most_common(count)]


def scan(root: Path, *, rules: bool = True, extra: Sequence[str] = (), git: bool = False) -> Tree:
    """List the tree below ``root`` without following symlinks; what vanishes meanwhile is left out.

    ``rules`` leaves out what the ignore files exclude. ``extra`` are globs (``*``, ``?``, ``[]``, ``**``)
    relative to ``root`` of what is taken all the same; one that names a folder takes all that is in it.
    ``.git`` is part of the tree only with ``git``, and then all of it.

    Raises:
        SyncFailed: when ``root`` is no folder or cannot be listed, or an ignore file cannot be read.
    """
    try:
        os.scandir(root).close()
    except OSError as error:
        raise SyncFailed(
            f"the folder {os.fspath(root)!r} cannot be sent",
            why=error.strerror or str(error),
            hint="give the path of a folder that exists and that you may read",
        ) from error
    scanner = _Scanner(extra, git)
    scanner.walk(os.fspath(root), IgnoreRules.at(root) if rules else None)
    return Tree(scanner.listing(), tuple(sorted(scanner.skipped)))


@dataclass(slots=True)
class _Folder:
    """A folder yet to be listed. Without ``rules`` all of it is taken, or, if ``excluded``, only extras."""

    prefix: str
    place: str
    rules: IgnoreRules | None
    excluded: bool = False
    found: list[bytes] = field(default_factory=list)


class _Scanner:
    """One walk. An excluded folder is entered only when an extra may be in it, and kept only when one is."""

    def __init__(self, extra: Sequence[str], git: bool) -> None:
        self.skipped: list[tuple[str, str]] = []
        self._git = git
        self._extra = [PurePosixPath(glob).parts for glob in extra]
        self._passed: dict[str, bytes] = {}
        self._late: dict[bytes, list[bytes]] = {}
        self._blocks: dict[bytes, bytes] = {}

    def walk(self, root: str, rules: IgnoreRules | None) -> None:
        pending = [_Folder("", root, rules)]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder.place) as listing:
                    items = list(listing)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                self.skipped.append((folder.prefix.rstrip("/"), _UNREADABLE))
                continue
            for item in items:
                try:
                    self._visit(item, folder, pending)
                except FileNotFoundError:
                    continue
                except OSError:
                    self.skipped.append((folder.prefix + item.name, _UNREADABLE))
            if folder.found:
                self._blocks[os.fsencode(folder.prefix[:-1])] = block_of(folder.found)
                if self._passed:
                    self._keep(folder.prefix[:-1])

    def listing(self) -> dict[bytes, bytes]:
        """All that was found."""
        for path, found in self._late.items():
            more = [row(*one) for one in rows(self._blocks.get(path, b""))]
            self._blocks[path] = block_of(more + found)
        return self._blocks

    def _visit(self, item: os.DirEntry[str], folder: _Folder, pending: list[_Folder]) -> None:
        name = item.name
        is_folder = item.is_dir(follow_symlinks=False)
        rules = folder.rules
        wanted: bool | None = True
        if name == GIT_FOLDER:
            if not self._git or folder.excluded:
                return
            rules = None
        if folder.excluded or (rules and rules.excludes(name, folder=is_folder)):
            rules, wanted = None, self._wanted(folder.prefix + name)
        if wanted is False or not (wanted or is_folder):
            return
        status = item.stat(follow_symlinks=False)
        mode = status.st_mode & (KIND | manifest.PERMISSIONS)
        kind = mode & KIND
        if kind == FILE:
            # What everybody may read needs no question to the system, and that is nearly every file.
            if mode & 0o444 == 0o444 or os.access(item.path, os.R_OK):
                folder.found.append(row(os.fsencode(name), mode, status.st_size, status.st_mtime_ns))
            else:
                self.skipped.append((folder.prefix + name, _UNREADABLE))
        elif kind == FOLDER:
            path = folder.prefix + name
            # Before its ignore files are asked for, which cannot be read then either.
            if mode & 0o555 != 0o555 and not os.access(item.path, os.R_OK | os.X_OK):
                self.skipped.append((path, _UNREADABLE))
                return
            found = row(os.fsencode(name), mode, 0, 0)
            if wanted:
                folder.found.append(found)
            else:
                self._passed[path] = found
            inner = rules.inside(name, item.path) if rules else None
            pending.append(_Folder(path + "/", item.path, inner, excluded=not wanted))
        elif kind == LINK:
            # Its own permissions mean nothing, and differ between systems; nor does its time.
            target = os.fsencode(os.readlink(item.path))  # noqa: PTH115 - a Path takes its time
            folder.found.append(row(os.fsencode(name), LINK | 0o777, len(target), 0, target))
        else:
            self.skipped.append((folder.prefix + name, _SPECIAL.get(kind, "device")))

    def _keep(self, path: str) -> None:
        """Take the folders that were only passed through to one in which something was found."""
        while passed := self._passed.pop(path, None):
            path = path.rpartition("/")[0]
            self._late.setdefault(os.fsencode(path), []).append(passed)

    def _wanted(self, path: str) -> bool | None:
        verdicts = {_matches(glob, tuple(path.split("/"))) for glob in self._extra}
        return True if True in verdicts else None if None in verdicts else False


def matches(glob: str, path: str) -> bool:
    """Tell whether a glob, as in ``scan``, takes a path: itself, or a folder that it is in."""
    return _matches(PurePosixPath(glob).parts, tuple(path.split("/"))) is True


def _matches(glob: tuple[str, ...], parts: tuple[str, ...]) -> bool | None:
    """Tell whether ``glob`` matches these parts of a path or a folder above; ``None``: perhaps one below."""
    if not glob:
        return True
    if not parts:
        return None
    if glob[0] == "**":
        return True if _matches(glob[1:], parts) or _matches(glob, parts[1:]) else None
    return fnmatchcase(parts[0], glob[0]) and _matches(glob[1:], parts[1:])


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
        self._unreadable = {path for path, reason in tree.skipped if reason == _UNREADABLE}
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
