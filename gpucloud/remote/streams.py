"""The two ends of a stream of bytes."""

from __future__ import annotations

from typing import Final, Protocol

from gpucloud.errors import RemoteError

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
