"""The door to what brings files to a host and back."""

from __future__ import annotations

from pathlib import Path

from gpucloud.remote.pull import Pulled, pull
from gpucloud.remote.push import Pushed, push
from gpucloud.remote.tree import Tree, scan

__all__ = ["Pulled", "Pushed", "preview", "pull", "push"]


def preview(source: str | Path) -> Tree:
    """What a push of a folder would send to an empty host."""
    return scan(Path(source))
