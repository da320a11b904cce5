"""A fake vendor as tests of the whole program use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from gpucloud.provider import ProviderSettings
from tests.harness.acme.faults import Verb
from tests.harness.faulty import Faulty


@dataclass(frozen=True, slots=True)
class Rig:
    """One vendor. ``state`` is what is true there: ``instances``, ``billing`` and what it refuses."""

    name: str
    state: Any
    faults: Faulty
    table: Mapping[str, Any]
    environ: Mapping[str, str] = field(repr=False)
    tags: Callable[[str], Mapping[str, str]] = lambda id: {}
    """The tags of what bills and does not have its token in its name."""
    gpu: str = "H100:8"
    """What tests rent there."""
    gpus: str = "h100-sxm-8"
    """The machine of the fixtures that it is."""
    verbs: frozenset[Verb] = frozenset(Verb)
    """What it can be asked for."""

    def settings(self, folder: Path) -> ProviderSettings:
        """What the adapter is given, with ``folder`` for its own files."""
        return ProviderSettings(self.name, folder / self.name, table=self.table, environ=self.environ)

    def token(self, id: str) -> str | None:
        """The token of what bills under that id, which most have in their name."""
        found = re.search(r"gc-[a-z0-9]{20}", id.lower())
        return found[0] if found else self.tags(id).get("gpucloud-token")


def configure(file: Path, *rigs: Rig) -> dict[str, str]:
    """Write the file by which a person would use these vendors; returns the environment of the commands."""
    tables = {rig.name: dict(rig.table) for rig in rigs}
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {"launch": {"ssh_from": "203.0.113.7"}, "offers": {"timeout": "2m"}, "providers": tables}
    file.write_text(tomlkit.dumps(settings))
    return {name: value for rig in rigs for name, value in rig.environ.items()}
