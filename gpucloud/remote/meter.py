"""Counts what a pull has done, and tells whoever watches it, but not too often."""

from __future__ import annotations

import threading
import time

from gpucloud.remote.progress import TELL_S, Phase, Progress, Watcher


class Meter:
    """The progress of one phase after the other. May be used from several threads."""

    def __init__(self, watch: Watcher) -> None:
        self._watch = watch
        self._lock = threading.Lock()
        self._now: Progress | None = None
        self._told_at = 0.0
        self._untold = False

    def begin(self, phase: Phase, *, files: int | None = None, size: int | None = None) -> None:
        """A phase begins, and with it another ends; ``files`` and ``size`` are all that there will be."""
        with self._lock:
            self._finish()
            self._now = Progress(phase, files_total=files, bytes_total=size)
            self._tell()

    def add(self, files: int = 0, size: int = 0) -> None:
        """So much more is done."""
        with self._lock:
            now = self._now
            if now is None:
                return
            self._now = Progress(
                now.phase, now.files + files, now.bytes + size, now.files_total, now.bytes_total
            )
            self._untold = True
            if time.monotonic() - self._told_at >= TELL_S:
                self._tell()

    def end(self) -> None:
        """The last phase is over."""
        with self._lock:
            self._finish()
            self._now = None

    def _finish(self) -> None:
        if self._untold:
            self._tell()

    def _tell(self) -> None:
        assert self._now is not None
        self._told_at = time.monotonic()
        self._untold = False
        self._watch(self._now)
