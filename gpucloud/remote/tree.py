"""A local tree of files: what is in it, and how it differs from what lies on a host."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent import manifest
from gpucloud.remote.agent.manifest import FILE, FOLDER, KIND, LINK, block_of, join, row, rows
from gpucloud.remote.ignore import GIT_FOLDER, IgnoreRules

_SPECIAL: Final = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "fifo"}
UNREADABLE: Final = "unreadable"
"""Why something is skipped that is there but cannot be read."""


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
                self.skipped.append((folder.prefix.rstrip("/"), UNREADABLE))
                continue
            for item in items:
                try:
                    self._visit(item, folder, pending)
                except FileNotFoundError:
                    continue
                except OSError:
                    self.skipped.append((folder.prefix + item.name, UNREADABLE))
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
                self.skipped.append((folder.prefix + name, UNREADABLE))
        elif kind == FOLDER:
            path = folder.prefix + name
            # Before its ignore files are asked for, which cannot be read then either.
            if mode & 0o555 != 0o555 and not os.access(item.path, os.R_OK | os.X_OK):
                self.skipped.append((path, UNREADABLE))
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
