"""How far several reads have come: one line for each on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gpucloud.cli.render import colour

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Reads:
    """Lines on stderr that vanish at the end, one for each name. ``tell`` may be called from any thread."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names
        self._progress: Progress | None = None
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(24),
                DownloadColumn(),
                TransferSpeedColumn(),
            )
            console = Console(stderr=True, no_color=not colour())
            self._progress = Progress(*columns, console=console, transient=True)
            self._progress.start()
            self._lines = {name: self._progress.add_task(name, total=None) for name in self._names}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def tell(self, name: str, part: str, read: int, total: int | None) -> None:
        """So many bytes of so many of a part have been read."""
        if not self._progress:
            return
        line, what = self._lines[name], f"{name} {part}" if part else name
        if self._progress.tasks[line].description != what:
            self._progress.reset(line, description=what, total=None)
        self._progress.update(line, completed=read, total=total)

    def done(self, name: str) -> None:
        """Nothing more will be read of it."""
        if self._progress:
            self._progress.update(self._lines[name], visible=False)
