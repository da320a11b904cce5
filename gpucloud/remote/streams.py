"""The two ends of a stream of bytes."""

from __future__ import annotations

from typing import Protocol


class Writer(Protocol):
    """Something bytes can be written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""


class Reader(Protocol):
    """Something bytes can be read from."""

    def read(self, size: int = ..., /) -> bytes:
        """Up to ``size`` bytes; empty at the end."""
