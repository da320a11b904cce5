"""The two ends of a stream of bytes, and the threads that serve one so that neither side waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from gpucloud.errors import RemoteError

log = logging.getLogger(__name__)

CHUNK: Final = 65_536

LIMIT: Final = 1 << 28
"""Bytes that a host may say in one answer which is collected; a list of a million files has some 10**8."""

KEPT: Final = 1 << 16
"""Bytes that are kept of what a host complains of: its last words."""


class Writer(Protocol):
    """Something bytes can be written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""


class Reader(Protocol):
    """Something bytes can be read from."""

    def read(self, size: int = ..., /) -> bytes:
        """Up to ``size`` bytes; empty at the end."""


class ClosableWriter(Writer, Protocol):
    """One that can be told that nothing more comes."""

    def close(self) -> None:
        """No more comes."""


class InputClosed(Exception):
    """The command closed its input early. No OSError, so that it is told from failures of local files."""


class Worker(threading.Thread):
    """Serves one stream of a command; keeps what went wrong with it, and then ends the command by ``end``."""

    def __init__(self, work: Callable[[], object], end: Callable[[], object]) -> None:
        super().__init__(name="ssh-stream", daemon=True)
        self.error: BaseException | None = None
        self._work = work
        self._end = end
        self.start()

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error
            self._end()


def feed(writer: ClosableWriter, stdin: bytes | Callable[[Writer], object]) -> None:
    """Give a command its input; one that reads no more of it is no failure."""
    try:
        if callable(stdin):
            stdin(writer)
        elif stdin:
            writer.write(stdin)
        writer.close()
    except InputClosed:
        log.debug("a command closed its input early")


def drain(reader: Reader, sink: Callable[[bytes], object]) -> None:
    """Hand all of a stream on to ``sink``, piece by piece."""
    while data := reader.read():
        sink(data)


class Collected:
    """A sink that keeps all it is given, up to ``LIMIT``. Raises ``RemoteError`` beyond."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._pieces: list[bytes] = []
        self._size = 0

    def __call__(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LIMIT:
            raise too_much(self._label)
        self._pieces.append(data)

    @property
    def whole(self) -> bytes:
        """All that came."""
        return b"".join(self._pieces)


class Tail:
    """A sink that keeps the last ``KEPT`` bytes of what it is given."""

    def __init__(self) -> None:
        self.whole = b""

    def __call__(self, data: bytes) -> None:
        self.whole = (self.whole + data)[-KEPT:]


def too_much(label: str) -> RemoteError:
    """The error of a host that does not stop talking."""
    return RemoteError(
        f"{label} says more than any answer may have",
        why="it may be broken, or hostile",
        hint="do not trust it",
    )
