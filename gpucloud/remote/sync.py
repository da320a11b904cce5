"""Push a folder to a host, pull outputs back: one tar stream each way, checked against manifests."""

from __future__ import annotations

import glob
import hashlib
import os
import posixpath
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

from gpucloud.errors import SyncFailed, UsageError
from gpucloud.remote.archive import write_tar
from gpucloud.remote.host import Host
from gpucloud.remote.ignore import GIT_FOLDER
from gpucloud.remote.progress import TELL_S, Phase, Progress, Watcher, unwatched
from gpucloud.remote.streams import Reader, Writer
from gpucloud.remote.tree import Entry, EntryKind, Manifest, Tree, changes, matches, scan, unseen
from gpucloud.remote.unpack import LINK, stays_inside, unpack

ATTEMPTS: Final = 3
"""How often files are sent again that changed while they were read."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: files and bytes sent, names deleted on the host, files that would not keep still."""

    files: int
    size: int
    removed: int
    changing: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


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


def push(
    host: Host,
    source: str | Path,
    target: str,
    *,
    extra: Sequence[str] = (),
    verify: bool = False,
    git: bool = False,
    tree: Callable[[], Tree] | None = None,
    watch: Watcher = unwatched,
) -> Pushed:
    """Make ``target`` on the host what ``source``, a folder or a file, is here.

    Only what differs from the last push is sent, and only what an earlier push brought is deleted, once it
    has vanished here: not what the ignore rules leave out by now, nor what cannot be read at the moment.
    Files that match ``extra`` are sent even when the rules leave them out, and ``.git`` with ``git``. With
    ``verify`` what was sent earlier is compared by checksum with what is on the host now. ``tree`` gives the
    scan of the folder, for whoever pushes it to several hosts.

    Raises:
        SyncFailed: when ``source`` cannot be read or ``target`` not be written.
    """
    root = Path(source)
    key = hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    if root.is_dir():
        watch(Progress(Phase.COMPARING))
        scanned = tree() if tree else scan(root, extra=extra, git=git)
        watch(Progress(Phase.COMPARING, scanned.files, 0, scanned.files))
        return _push_tree(host, key, root, target, scanned, verify=verify, git=git, watch=watch)
    with tempfile.TemporaryDirectory(prefix="gpucloud-") as folder:
        # A single file is a folder with nothing else in it, where it has the name that it gets.
        place = PurePosixPath(target)
        try:
            shutil.copy2(root, Path(folder) / place.name)
        except OSError as error:
            raise SyncFailed(
                f"the file {source} cannot be sent",
                why=error.strerror or str(error),
                hint="give the path of a file or folder that exists and that you may read",
            ) from error
        single = scan(Path(folder), rules=False)
        return _push_tree(
            host, key, Path(folder), f"{place.parent}/", single, verify=verify, git=False, watch=watch
        )


def _push_tree(
    host: Host, key: str, root: Path, target: str, tree: Tree, *, verify: bool, git: bool, watch: Watcher
) -> Pushed:
    """Bring a folder up to date; ``key`` names on the host what an earlier push of it sent."""
    sent = Manifest.decode(host.sent(key))
    if verify:
        watch(Progress(Phase.VERIFYING))
        sent = _as_sent(host, root, target, sent)
        watch(Progress(Phase.VERIFYING, len(sent), 0, len(sent)))
    hidden = unseen(root, tree, sent.values())
    if git:
        hidden = {path for path in hidden if GIT_FOLDER not in path.split("/")}
    todo = changes({path: entry for path, entry in sent.items() if path not in hidden}, tree)
    removals = [*todo.remove_files, *(f"{name}/" for name in todo.remove_folders)]
    if not todo.send and not removals:
        return Pushed(0, 0, 0, (), tree.skipped)
    there = {entry.path: entry for entry in tree.entries}
    # Should this be cut off, the next push sends all of it again, and knows what it may have to delete.
    unsure = [*todo.send, *(sent[path.rstrip("/")] for path in removals)]
    host.keep(key, Manifest.encode((there | {entry.path: _unsure(entry) for entry in unsure}).values()))
    if removals:
        host.remove(target, removals)
    if todo.send:
        files, size = Tree(todo.send).files, Tree(todo.send).size
        watch(Progress(Phase.SENDING, 0, 0, files, size))
        there |= _send(host, root, target, todo.send, watch)
        watch(Progress(Phase.SENDING, files, size, files, size))
    host.keep(key, Manifest.encode(there.values()))
    return Pushed(
        files=sum(entry.kind is EntryKind.FILE for entry in todo.send),
        size=sum(entry.size for entry in todo.send),
        removed=len(removals),
        changing=tuple(sorted(p for p, e in there.items() if e == _unsure(e) and os.path.lexists(root / p))),
        skipped=tree.skipped,
    )


def _unsure(entry: Entry) -> Entry:
    """Stands in a manifest for what may have come to the host, or not; it differs from all that is here."""
    return replace(entry, mtime_ns=-1, mode=-1)


def _as_sent(host: Host, root: Path, target: str, sent: dict[str, Entry]) -> dict[str, Entry]:
    """Mark as unsure what does not have on the host the checksum that it has here."""
    if not f"{target}/".startswith("work/"):
        return {path: _unsure(entry) for path, entry in sent.items()}
    below = target.rstrip("/").removeprefix("work").removeprefix("/")
    names = {posixpath.join(below, p): p for p, e in sent.items() if e.kind is not EntryKind.FOLDER}
    now = {names[name]: digest for name, digest in _digests(host, list(names)).items()}
    return {
        path: entry
        if entry.kind is EntryKind.FOLDER or now.get(path) == _digest_here(root / path)
        else _unsure(entry)
        for path, entry in sent.items()
    }


def _send(host: Host, root: Path, target: str, entries: Sequence[Entry], watch: Watcher) -> dict[str, Entry]:
    """Send entries, and again those that changed meanwhile; returns what then is on the host."""
    there = {}
    pending = list(entries)
    for _ in range(ATTEMPTS):
        changed: set[str] = set()

        def write(out: Writer, batch: list[Entry] = pending, changed: set[str] = changed) -> None:
            changed.update(write_tar(root, _told(batch, watch), out))

        host.receive(target, write)
        there.update({e.path: _unsure(e) if e.path in changed else e for e in pending})
        pending = [e for e in scan(root, rules=False).entries if e.path in changed] if changed else []
        if not pending:
            break
    return there


def _told(batch: Sequence[Entry], watch: Watcher) -> Iterator[Entry]:
    """The same entries, while it is told which of them have gone."""
    tree, done, files, told = Tree(tuple(batch)), 0, 0, time.monotonic()
    total, size = tree.files, tree.size
    for entry in batch:
        yield entry
        done, files = done + entry.size, files + (entry.kind is EntryKind.FILE)
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            watch(Progress(Phase.SENDING, files, done, total, size))


def pull(
    host: Host,
    patterns: Sequence[str],
    into: Path,
    *,
    newer_than: datetime | None = None,
    beside: str = "",
    watch: Watcher = unwatched,
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
    watch(Progress(Phase.COMPARING))
    digests = _found(host, wanted)
    refused = {name for name, digest in digests.items() if not _harmless(name, digest)}
    expected = {name: digest for name, digest in digests.items() if name not in refused}
    files = {name: into / name for name in expected if _digest_here(into / name) == expected[name]}
    watch(Progress(Phase.COMPARING, len(expected), 0, len(expected)))
    if coming := len(expected) - len(files):
        watch(Progress(Phase.RECEIVING, files_total=coming))
    here = set(files)
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
    if coming:
        size = sum(path.lstat().st_size for name, path in files.items() if name not in here)
        watch(Progress(Phase.RECEIVING, len(files) - len(here), size, coming, size))
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
