"""One input for many readers, each at its own pace: a slow one neither stalls others nor fills the memory."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gpucloud.remote.streams import Writer

CHUNK: Final = 65_536
AHEAD: Final = 64 * 1024 * 1024
"""How far the input is read ahead of the fastest reader: what nobody reads must not fill the disk."""


class SharedInput:
    """What ``read`` returns, until it is empty, spooled to a file without a name.

    What ``read`` or the disk fails with is raised in every reader.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._file = -1
        self._change = threading.Condition()
        self._size = 0
        self._fastest = 0
        self._over = False
        self._error: OSError | None = None
        threading.Thread(target=self._spool, name="shared-input", daemon=True).start()

    def feed(self, command: Writer) -> None:
        """Write all of it to a command. Raises what the command's input raises, and ``OSError``."""
        done = 0
        while True:
            with self._change:
                while self._size == done and not self._over:
                    self._change.wait()
                if self._error:
                    raise self._error
                if self._size == done:
                    return
            data = os.pread(self._file, CHUNK, done)
            command.write(data)
            done += len(data)
            with self._change:
                if done > self._fastest:
                    self._fastest = done
                    self._change.notify_all()

    def _spool(self) -> None:
        try:
            while data := self._read(CHUNK):
                self._keep(data)
                with self._change:
                    self._size += len(data)
                    self._change.notify_all()
                    self._change.wait_for(lambda: self._size - self._fastest < AHEAD)
        except OSError as error:
            self._error = error
        finally:
            with self._change:
                self._over = True
                self._change.notify_all()

    def _keep(self, data: bytes) -> None:
        if self._file < 0:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
        os.lseek(self._file, self._size, os.SEEK_SET)
        while data:
            data = data[os.write(self._file, data) :]
