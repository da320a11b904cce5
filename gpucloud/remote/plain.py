"""Push to a host without Python: its shell tells what differs, and one tar stream brings it."""

from __future__ import annotations

import hashlib
import os
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpucloud.remote.agent.manifest import (
    FILE,
    FOLDER,
    KIND,
    PERMISSIONS,
    ROW,
    Changing,
    decode,
    encode,
    join,
    row,
    rows,
    split,
)
from gpucloud.remote.archive import write_tar
from gpucloud.remote.difference import Plan, Unseen, difference
from gpucloud.remote.host import Host
from gpucloud.remote.meter import Meter
from gpucloud.remote.outgoing import ATTEMPTS
from gpucloud.remote.progress import Phase
from gpucloud.remote.streams import Writer
from gpucloud.remote.tree import Entry, EntryKind, Tree

FAR_S: Final = 0.06
"""What takes longer to answer is so far away that it pays to compress."""

_GZIP: Final = 31


@dataclass(slots=True)
class Plain:
    """A push through the shell of the host; what was done is in its fields."""

    host: Host
    key: str
    target: str
    root: Path
    alias: Mapping[bytes, Path]
    meter: Meter
    plan: Plan = field(default_factory=lambda: Plan({}))
    files: int = 0
    size: int = 0
    changing: list[bytes] = field(default_factory=list)
    gzip: bool = False
    python: bool = False

    def push(self, tree: Tree, unseen: Unseen, *, verify: bool) -> None:
        """Make what is there what is here; with ``verify`` contents are compared. Raises ``SyncFailed``."""
        began = time.monotonic()
        sent = decode(self.host.sent(self.key)) or {}
        answered_s = time.monotonic() - began
        if verify:
            self.meter.begin(Phase.VERIFYING)
            sent = self._verified(sent)
        plan = self.plan = difference(sent, tree, unseen)
        plan.settle()
        for folder, found in plan.touch.items():
            plan.send.setdefault(folder, []).extend(found)
        plan.touch = {}
        self.files, self.size = plan.totals()
        removals = [*plan.remove_files, *(path + b"/" for path in plan.remove_folders)]
        entries = sorted(self._entries(), key=lambda entry: entry.path)
        if not entries and not removals:
            return
        # Should this be cut off, the next push sends all of it again, and knows what it may have to delete.
        unsure = Changing(plan.there)
        doubtful = [(os.fsencode(entry.path), entry.kind is EntryKind.FOLDER) for entry in entries]
        doubtful += [(path, False) for path in plan.remove_files]
        doubtful += [(path, True) for path in plan.remove_folders]
        for path, is_folder in doubtful:
            folder, name = split(path)
            unsure.put(folder, row(name, FOLDER, 0, 0) if is_folder else row(name, FILE, 0, -1))
        began = time.monotonic()
        has = self.host.keep(self.key, encode(unsure.listing()))
        self.python = b"python" in has
        # Neither exchange is longer than two round trips, but for what it carries.
        self.gzip = b"gzip" in has and min(answered_s, time.monotonic() - began) > FAR_S
        if removals:
            self.host.remove(self.target, [os.fsdecode(path) for path in removals])
        if entries:
            self.meter.begin(Phase.SENDING, files=self.files, size=self.size)
            known = [entry for entry in entries if entry.kind is EntryKind.FOLDER and _has(sent, entry.path)]
            if known:
                self.host.receive(self.target, lambda out: write_tar(self.root, known, out), "folders")
            self._send([entry for entry in entries if entry not in known])
        self.host.keep(self.key, encode(self.plan.there))

    def _verified(self, sent: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """What was sent, of which is doubted what there is not what is here."""
        paths = [
            os.fsdecode(join(folder, name))
            for folder, block in sent.items()
            for name, mode, *_ in rows(block)
            if mode & KIND != FOLDER
        ]
        now = Changing(sent)
        for path, digest in self.host.digest(paths, self.target).items():
            name = os.fsencode(path)
            if digest != _digest(self.alias.get(name, self.root / path)):
                folder, last = split(name)
                now.put(folder, row(last, FILE, 0, -1))
        return now.listing()

    def _entries(self) -> Iterator[Entry]:
        for one in self.plan.folders:
            length, mode, _, _ = ROW.unpack_from(one)
            path = os.fsdecode(one[ROW.size : ROW.size + length])
            yield Entry(path, EntryKind.FOLDER, 0, 0, mode & PERMISSIONS)
        for folder, found in self.plan.send.items():
            for name, mode, size, mtime_ns, target in rows(b"".join(found)):
                path = os.fsdecode(join(folder, name))
                if mode & KIND == FILE:
                    yield Entry(path, EntryKind.FILE, size, mtime_ns, mode & PERMISSIONS)
                else:
                    yield Entry(path, EntryKind.SYMLINK, 0, 0, PERMISSIONS, os.fsdecode(target))

    def _send(self, entries: list[Entry]) -> None:
        """Send entries, and again those that changed meanwhile."""
        pending = entries
        for _ in range(ATTEMPTS):
            changed: list[str] = []

            def write(out: Writer, pending: list[Entry] = pending, changed: list[str] = changed) -> None:
                packed = _Gzip(out) if self.gzip else out
                changed.extend(write_tar(self.root, pending, packed, self.alias, self.meter.add))
                if isinstance(packed, _Gzip):
                    packed.close()

            self.host.receive(self.target, write, "gzip" if self.gzip else "plain")
            pending = [entry for path in changed if (entry := self._again(path))]
            if not pending:
                return
        for entry in pending:
            path = os.fsencode(entry.path)
            self.changing.append(path)
            self._note(path, row(split(path)[1], FILE, 0, -1))

    def _again(self, path: str) -> Entry | None:
        """What a file is by now that changed while it was sent; it is noted that it is to be so there."""
        name = os.fsencode(path)
        try:
            status = Path(self.alias.get(name, self.root / path)).lstat()
        except OSError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):
            # The next push will see what has become of it.
            self._note(name, row(split(name)[1], FILE, 0, -1))
            return None
        mode, mtime_ns = status.st_mode & PERMISSIONS, status.st_mtime_ns
        self._note(name, row(split(name)[1], FILE | mode, status.st_size, mtime_ns))
        return Entry(path, EntryKind.FILE, status.st_size, mtime_ns, mode)

    def _note(self, path: bytes, found: bytes) -> None:
        changing = Changing(self.plan.there)
        changing.put(split(path)[0], found)
        self.plan.there = changing.listing()


def _has(listing: Mapping[bytes, bytes], path: str) -> bool:
    """Tell whether a folder is in a listing."""
    folder, name = split(os.fsencode(path))
    return any(one[0] == name and one[1] & KIND == FOLDER for one in rows(listing.get(folder, b"")))


def _digest(place: Path) -> str:
    """What ``Host.digest`` says of the same; empty when it cannot be read."""
    try:
        if place.is_symlink():
            return f"link:{place.readlink()}"
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


class _Gzip:
    """Compresses what is written."""

    def __init__(self, out: Writer) -> None:
        self._out = out
        self._machine = zlib.compressobj(1, zlib.DEFLATED, _GZIP)

    def write(self, data: bytes, /) -> None:
        if packed := self._machine.compress(data):
            self._out.write(packed)

    def close(self) -> None:
        """Write the end."""
        self._out.write(self._machine.flush())
