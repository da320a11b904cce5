"""Who may read a file, and how a person writes its path."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

POSIX: Final = os.name == "posix"
"""Elsewhere a file has no mode that says who may read it."""


def open_to_others(mode: int) -> bool:
    """Whether anybody but its owner may read or change a file of this mode."""
    return POSIX and bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


def shown(path: Path) -> str:
    """A path with ``~`` for home."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
