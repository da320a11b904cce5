"""``gpucloud config``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gpucloud.cli.app import group
from gpucloud.cli.render import out
from gpucloud.redact import HIDDEN, is_secret

config = group("config", "Settings, and SSH for other programs.")


@config.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Also where each was set.")] = False,
) -> None:
    """Every setting as it is in force here; secrets are not shown.

    Example: gpucloud config show --origin
    """
    from gpucloud.cli.context import config as load
    from gpucloud.registry import names

    settings = load()
    rows = [(name, setting.text, setting.origin) for name, setting in sorted(settings.settings.items())]
    for provider in sorted({*settings.tables, *names()}):
        variables = settings.overrides(provider)
        rows += [
            (f"providers.{provider}.{key}", value, variables.get(key, settings.table_origin))
            for key, value in _flatten(settings.provider(provider).table)
        ]
    if out.json:
        listing = [{"name": name, "value": value, "origin": where} for name, value, where in rows]
        out.document("config", config=listing, failures=[])
    else:
        out.table(("NAME", "VALUE", "ORIGIN"), [row if origin else row[:2] for row in rows])


@config.command()
def ssh(
    install: Annotated[bool, typer.Option("--install", help="Include it in ~/.ssh/config.")] = False,
) -> None:
    """Write a configuration with which ssh, scp, rsync and editors reach the clusters by name.

    Example: gpucloud config ssh --install && ssh train
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.ssh_config import write_config
    from gpucloud.remote.openssh import install_include

    ours = write_config(fleet())
    if install:
        theirs = Path.home() / ".ssh" / "config"
        changed = install_include(theirs, ours)
        out.note(f"{theirs} {'now includes it' if changed else 'includes it already'}")
    if out.json:
        out.document("config-ssh", path=str(ours), installed=install, failures=[])
    else:
        out.line(str(ours))


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", HIDDEN if is_secret(key) else str(value)
