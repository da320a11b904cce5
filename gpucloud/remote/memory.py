"""What this machine remembers of a host, so that a push need not ask: nothing is lost with it.

What it says is never believed: the host compares it with what is there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gpucloud.remote.agent.manifest import decode, encode

_FORMAT: Final = b"gpucloud-memory/1"
_KEPT: Final = 64
"""So many files are kept, the newest."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What lies there, how fine its times are in ns, whether it keeps permissions and tells case."""

    listing: dict[bytes, bytes]
    grain: int = 1
    modes: bool = True
    cases: bool = True


class Memory:
    """The memory of one target on one host."""

    def __init__(self, token: str, key: str) -> None:
        from platformdirs import user_cache_path

        self._folder = user_cache_path("gpucloud", appauthor=False) / "sync"
        self._file = self._folder / _name(f"{token} {key}")
        self._bare = self._folder / f"{_name(token)}.plain"

    def recall(self) -> Remembered | None:
        """What is remembered of the target."""
        try:
            head, _, rest = self._file.read_bytes().partition(b"\n")
            word, grain, modes, cases = head.split(b" ")
            listing = decode(rest)
            if word == _FORMAT and listing is not None:
                return Remembered(listing, int(grain), modes == b"1", cases == b"1")
        except (OSError, ValueError):
            pass
        return None

    def remember(self, known: Remembered) -> None:
        """Replace what is remembered of the target; that it cannot be written does not matter."""
        head = b"%s %d %d %d\n" % (_FORMAT, known.grain, known.modes, known.cases)
        with suppress(OSError):
            self._write(self._file, head + encode(known.listing))
            self._sweep()

    def forget(self) -> None:
        """Remember nothing of the target."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    @property
    def plain(self) -> bool:
        """Whether the host had no Python when it was last asked."""
        return os.path.exists(self._bare)  # noqa: PTH110 - that of a Path raises what this does not

    @plain.setter
    def plain(self, bare: bool) -> None:
        with suppress(OSError):
            if bare:
                self._write(self._bare, b"")
            else:
                self._bare.unlink(missing_ok=True)

    def _write(self, file: Path, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, draft = tempfile.mkstemp(dir=self._folder, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(data)
            Path(draft).replace(file)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        files = sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[_KEPT:]:
            file.unlink(missing_ok=True)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
