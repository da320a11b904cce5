"""Push a folder to a host: one exchange tells what differs, one stream brings it.

The helper on the host looks at what is there while we look at what is here. What an earlier push has brought
is remembered; when the host agrees, changes that are few go out at once and all is done in one round trip.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpucloud.remote.contents import MODULES
from gpucloud.remote.delivery import Delivery
from gpucloud.remote.difference import Plan
from gpucloud.remote.here import Here
from gpucloud.remote.host import Host
from gpucloud.remote.memory import Memory
from gpucloud.remote.meter import Meter
from gpucloud.remote.plain import Plain
from gpucloud.remote.progress import Phase, Watcher, unwatched
from gpucloud.remote.session import converse
from gpucloud.remote.tree import Tree, scan


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: files and bytes sent, names deleted on the host, files that would not keep still.

    Files of which only time or permissions were set count, but their bytes do not.
    """

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

    Only what differs from what is there is sent, and only what an earlier push brought is deleted, once it
    has vanished here: not what the ignore rules leave out by now, nor what cannot be read at the moment.
    Files that match ``extra`` are sent even when the rules leave them out, ``.git`` only with ``git``. What
    is alike in size and time is taken for the same, unless ``verify`` demands that contents are compared.
    ``tree`` gives the scan of the folder, for whoever pushes it to several hosts.

    Raises:
        SyncFailed: when ``source`` cannot be read or ``target`` not be written.
    """
    meter = Meter(watch)
    meter.begin(Phase.COMPARING)
    key = hashlib.sha256(target.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    memory = Memory(host.token, key)
    here = Here(Path(source), target, tree or partial(scan, Path(source), extra=extra, git=git), git=git)
    if not memory.plain:
        delivery = Delivery(host, key, here, memory, meter, verify=verify)
        if converse(host, MODULES, delivery.words, delivery):
            delivery.end()
            return _pushed(here, delivery.plan, delivery.files, delivery.size, delivery.out.changing)
    plain = Plain(host, key, here.target, here.root, here.alias, meter)
    plain.push(here.tree(), here.unseen(), verify=verify)
    meter.end()
    # It may have come there since.
    memory.plain = not plain.python
    return _pushed(here, plain.plan, plain.files, plain.size, plain.changing)


def _pushed(here: Here, plan: Plan, files: int, size: int, changing: list[bytes]) -> Pushed:
    return Pushed(
        files=files,
        size=size,
        removed=len(plan.remove_files) + len(plan.remove_folders),
        changing=tuple(sorted(map(os.fsdecode, changing))),
        skipped=here.tree().skipped,
    )
