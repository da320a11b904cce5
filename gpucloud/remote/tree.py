"""A local tree of files: what is in it, and how it differs from what was sent last time."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gpucloud.errors import SyncFailed
from gpucloud.remote.ignore import GIT_FOLDER, IgnoreRules

_PERMISSIONS: Final = 0o777
_SPECIAL: Final = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "fifo"}
_UNREADABLE: Final = "unreadable"
_MANIFEST: Final = "gpucloud-manifest/1"


class EntryKind(StrEnum):
    """What lies at a path."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or symlink.

    ``path`` is relative to the root of the tree, with slashes; bytes that are no UTF-8 are surrogate
    escapes. ``size`` is in bytes and zero for all but files, ``mode`` the nine permission bits, ``target``
    what a symlink points to.
    """

    path: str
    kind: EntryKind
    size: int
    mtime_ns: int
    mode: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """What is to be sent, folders before what is in them; ``skipped`` are paths that cannot be, and why."""

    entries: tuple[Entry, ...]
    skipped: tuple[tuple[str, str], ...] = ()

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """The path and bytes of each regular file."""
        for entry in self.entries:
            if entry.kind is EntryKind.FILE:
                yield os.fsencode(entry.path), entry.size

    @property
    def files(self) -> int:
        """How many regular files there are."""
        return sum(entry.kind is EntryKind.FILE for entry in self.entries)

    @property
    def size(self) -> int:
        """The bytes in all regular files together."""
        return sum(entry.size for entry in self.entries)

    def biggest(self, count: int) -> list[tuple[str, int]]:
        """Return the largest files and top-level folders with their bytes; folders end in a slash."""
        sizes: Counter[str] = Counter()
        for entry in self.entries:
            if entry.kind is EntryKind.FILE:
                sizes[entry.path] += entry.size
                top, slash, _ = entry.path.partition("/")
                if slash:
                    sizes[top + slash] += entry.size
        return sizes.most_common(count)


@dataclass(frozen=True, slots=True)
class Changes:
    """What turns the tree that was sent into the one that is here.

    Removals come first: what changed its kind is both removed and sent. ``remove_folders`` has the deepest
    first, and no folder in it has anything left that was sent.
    """

    send: tuple[Entry, ...]
    remove_files: tuple[str, ...]
    remove_folders: tuple[str, ...]


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
    scanner = _Scanner(extra, git=git)
    scanner.walk(os.fspath(root), IgnoreRules.at(root) if rules else None)
    return Tree(tuple(sorted(scanner.entries, key=lambda entry: entry.path)), tuple(sorted(scanner.skipped)))


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder yet to be listed. Without ``rules`` all of it is taken, or, if ``excluded``, only extras."""

    prefix: str
    place: str
    rules: IgnoreRules | None
    excluded: bool = False


class _Scanner:
    """One walk. An excluded folder is entered only when an extra may be in it, and kept only when one is."""

    def __init__(self, extra: Sequence[str], *, git: bool) -> None:
        self._git = git
        self.entries: list[Entry] = []
        self.skipped: list[tuple[str, str]] = []
        self._extra = [PurePosixPath(glob).parts for glob in extra]
        self._passed: dict[str, Entry] = {}

    def walk(self, root: str, rules: IgnoreRules | None) -> None:
        pending = [_Folder("", root, rules)]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(folder.place) as listing:
                    found = list(listing)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                self.skipped.append((folder.prefix.rstrip("/"), _UNREADABLE))
                continue
            for item in found:
                try:
                    self._visit(item, folder, pending)
                except FileNotFoundError:
                    continue
                except OSError:
                    self.skipped.append((folder.prefix + item.name, _UNREADABLE))

    def _visit(self, item: os.DirEntry[str], folder: _Folder, pending: list[_Folder]) -> None:
        rules = folder.rules
        if item.name == GIT_FOLDER:
            if not self._git or folder.excluded:
                return
            rules = None
        path = folder.prefix + item.name
        is_folder = item.is_dir(follow_symlinks=False)
        wanted: bool | None = True
        if folder.excluded or (rules and rules.excludes(item.name, folder=is_folder)):
            rules, wanted = None, self._wanted(path)
        if wanted is False or not (wanted or is_folder):
            return
        if is_folder:
            entry = _entry(item, path, EntryKind.FOLDER)
            # Before its ignore files are asked for, which cannot be read then either.
            if entry.mode & 0o555 != 0o555 and not os.access(item.path, os.R_OK | os.X_OK):
                self.skipped.append((path, _UNREADABLE))
                return
            if wanted:
                self._take(entry)
            else:
                self._passed[path] = entry
            inner = rules.inside(item.name, item.path) if rules else None
            pending.append(_Folder(path + "/", item.path, inner, excluded=not wanted))
        elif item.is_symlink():
            self._take(_entry(item, path, EntryKind.SYMLINK))
        elif not item.is_file(follow_symlinks=False):
            kind = stat.S_IFMT(item.stat(follow_symlinks=False).st_mode)
            self.skipped.append((path, _SPECIAL.get(kind, "device")))
        else:
            entry = _entry(item, path, EntryKind.FILE)
            # What everybody may read needs no question to the system, and that is nearly every file.
            if entry.mode & 0o444 == 0o444 or os.access(item.path, os.R_OK):
                self._take(entry)
            else:
                self.skipped.append((path, _UNREADABLE))

    def _take(self, entry: Entry) -> None:
        self.entries.append(entry)
        parent = entry.path.rpartition("/")[0]
        while passed := self._passed.pop(parent, None):
            self.entries.append(passed)
            parent = parent.rpartition("/")[0]

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


def _entry(item: os.DirEntry[str], path: str, kind: EntryKind) -> Entry:
    status = item.stat(follow_symlinks=False)
    if kind is EntryKind.SYMLINK:
        # Its own permissions mean nothing, and differ between systems.
        return Entry(path, kind, 0, status.st_mtime_ns, _PERMISSIONS, str(Path(item.path).readlink()))
    size = status.st_size if kind is EntryKind.FILE else 0
    return Entry(path, kind, size, status.st_mtime_ns, status.st_mode & _PERMISSIONS)


class Manifest:
    """The ASCII text in which a host keeps what was sent to it: a header, then one JSON list per entry."""

    @staticmethod
    def encode(entries: Iterable[Entry]) -> bytes:
        """Write a manifest of ``entries``."""
        lines = [
            json.dumps([entry.path, entry.kind, entry.size, entry.mtime_ns, entry.mode, entry.target])
            for entry in entries
        ]
        return "\n".join([f"{_MANIFEST} {len(lines)}", *lines, ""]).encode("ascii")

    @staticmethod
    def decode(data: bytes) -> dict[str, Entry]:
        """Read a manifest; empty, so that everything is sent again, when anything is wrong with it."""
        try:
            header, *lines = data.decode("ascii").splitlines()
            entries = [_decoded(json.loads(line)) for line in lines]
        except (ValueError, TypeError, RecursionError):
            return {}
        return {entry.path: entry for entry in entries} if header == f"{_MANIFEST} {len(lines)}" else {}


def _decoded(fields: list[Any]) -> Entry:
    path, kind, size, mtime_ns, mode, target = fields
    if [type(field) for field in fields] != [str, str, int, int, int, str]:
        raise TypeError("a field of the manifest has the wrong type")
    # What a manifest lists may be removed on the host, so it must not lead out of the tree.
    if not path or "\0" in path or {"", ".", ".."} & set(path.split("/")):
        raise ValueError("a path of the manifest is not inside the tree")
    return Entry(path, EntryKind(kind), size, mtime_ns, mode, target)


def changes(old: Mapping[str, Entry], new: Tree) -> Changes:
    """Tell what to send and what to remove where ``old`` lies, so that ``new`` lies there."""
    now = {entry.path: entry for entry in new.entries}
    gone = [entry for path, entry in old.items() if path not in now or now[path].kind is not entry.kind]
    folders = [entry.path for entry in gone if entry.kind is EntryKind.FOLDER]
    return Changes(
        send=tuple(entry for entry in new.entries if _differs(entry, old.get(entry.path))),
        remove_files=tuple(sorted(entry.path for entry in gone if entry.kind is not EntryKind.FOLDER)),
        remove_folders=tuple(sorted(folders, key=lambda path: (-path.count("/"), path))),
    )


def unseen(root: Path, tree: Tree, entries: Iterable[Entry]) -> set[str]:
    """Tell which of ``entries`` are not in ``tree``, a scan of ``root``, for another reason than being gone.

    They are what the ignore rules leave out, be it there or not, and what lies where nothing could be read.

    Raises:
        SyncFailed: when an ignore file cannot be read.
    """
    now = {entry.path for entry in tree.entries}
    unreadable = {path for path, reason in tree.skipped if reason == _UNREADABLE}
    rules: dict[str, IgnoreRules | None] = {}

    def rules_in(folder: str) -> IgnoreRules | None:
        """The rules in a folder; ``None`` when it is left out."""
        if folder not in rules:
            above, _, name = folder.rpartition("/")
            outer = rules_in(above) if folder else None
            if not folder:
                rules[folder] = IgnoreRules.at(root)
            elif outer is None or folder in unreadable or outer.excludes(name, folder=True):
                rules[folder] = None
            else:
                rules[folder] = outer.inside(name, root / folder)
        return rules[folder]

    found = set()
    for entry in entries:
        if entry.path not in now:
            above, _, name = entry.path.rpartition("/")
            inner = rules_in(above)
            is_folder = entry.kind is EntryKind.FOLDER
            if inner is None or entry.path in unreadable or inner.excludes(name, folder=is_folder):
                found.add(entry.path)
    return found


def _differs(entry: Entry, sent: Entry | None) -> bool:
    if sent is None or entry.kind is not EntryKind.FOLDER:
        return entry != sent
    # A folder's time changes with what is in it, which is sent anyway.
    return (entry.kind, entry.mode) != (sent.kind, sent.mode)
