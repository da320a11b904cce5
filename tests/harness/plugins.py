"""Third-party adapters as a user may have installed them."""

from __future__ import annotations

from pathlib import Path


def write_plugin(folder: Path, name: str, source: str) -> None:
    """Put a package with the adapter ``name`` into a folder, which is to be on ``PYTHONPATH``."""
    info = folder / f"gpucloud_{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: gpucloud-{name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[gpucloud.providers]\n{name} = gpucloud_{name}:{name.capitalize()}\n"
    )
    (folder / f"gpucloud_{name}.py").write_text(source)
