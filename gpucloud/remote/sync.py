"""Push a folder to a host: one tar stream, checked against a manifest."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from gpucloud.errors import SyncFailed
from gpucloud.remote.archive import write_tar
from gpucloud.remote.host import Host
from gpucloud.remote.ignore import GIT_FOLDER
from gpucloud.remote.progress import TELL_S, Phase, Progress, Watcher, unwatched
from gpucloud.remote.streams import Writer
from gpucloud.remote.tree import Entry, EntryKind, Manifest, Tree, changes, scan, unseen

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
