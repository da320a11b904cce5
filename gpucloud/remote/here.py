"""What a push starts from on this machine."""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent.manifest import FILE, join, row, rows
from gpucloud.remote.difference import Unseen
from gpucloud.remote.tree import Tree


class Here:
    """The local side of a push; it is looked at in a thread, as from the beginning there is time for that."""

    def __init__(self, source: Path, target: str, look: Callable[[], Tree], *, git: bool) -> None:
        self.target = target
        self.alias: dict[bytes, Path] = {}
        self.root = source
        self.single = not source.is_dir()
        if self.single:
            # A single file is a folder with nothing else in it, where it has the name that it gets.
            place = PurePosixPath(target)
            self.root, self.target = source.parent, f"{place.parent}/"
            self.alias[os.fsencode(place.name)] = source
        self._scan = look
        self._git = git
        self._tree: Tree | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._look, name="scan", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        try:
            self._tree = self._alone() if self.single else self._scan()
        except BaseException as error:  # noqa: BLE001 - raised again where the tree is asked for
            self._error = error

    def _alone(self) -> Tree:
        [(name, place)] = self.alias.items()
        try:
            with place.open("rb"):
                status = place.stat()
        except OSError as error:
            raise SyncFailed(
                f"the file {place} cannot be sent",
                why=error.strerror or str(error),
                hint="give the path of a file or folder that exists and that you may read",
            ) from error
        return Tree({b"": row(name, FILE | (status.st_mode & 0o777), status.st_size, status.st_mtime_ns)})

    def tree(self) -> Tree:
        """What is here. Raises ``SyncFailed`` when it cannot be read."""
        self._thread.join()
        if self._error:
            raise self._error
        assert self._tree is not None
        return self._tree

    def unseen(self) -> Unseen:
        """Tells of what is not here whether it is gone."""
        return Unseen(self.root, self.tree(), rules=not self.single, git=self._git)


def refuse_twins(tree: Tree, label: str) -> None:
    """Two names that the host cannot tell apart would be one file there, and the other lost."""
    for folder, block in tree.listing.items():
        seen: dict[str, bytes] = {}
        for name, *_ in rows(block):
            alike = unicodedata.normalize("NFC", os.fsdecode(name)).casefold()
            if alike in seen:
                first, second = (os.fsdecode(join(folder, one)) for one in sorted((seen[alike], name)))
                raise SyncFailed(
                    f"{first!r} and {second!r} cannot both be on {label}",
                    why="its file system does not tell small letters from capital ones",
                    hint="rename one of them, or leave it out with .gpucloudignore",
                )
            seen[alike] = name
