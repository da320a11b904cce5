"""``gpucloud config``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from gpucloud.cli.app import group
from gpucloud.cli.render import out
from gpucloud.errors import UsageError
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
    remove: Annotated[bool, typer.Option("--remove", help="Include it there no more.")] = False,
) -> None:
    """Write a configuration with which ssh, scp, rsync and editors reach the clusters by name.

    NAME.gpucloud is always a cluster of that name; NAME alone is, unless ~/.ssh/config has a NAME of yours.

    Example: gpucloud config ssh --install && ssh train
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.ssh_config import user_config, write_config
    from gpucloud.remote.openssh import install_include, remove_include

    if install and remove:
        raise UsageError("--install or --remove?", why="they contradict each other", hint="give one of them")
    ours, theirs = write_config(fleet()), user_config()
    if install:
        changed = install_include(theirs, ours)
        out.note(f"{theirs} {'now includes it' if changed else 'includes it already'}")
    if remove:
        changed = remove_include(theirs)
        out.note(f"{theirs} {'no longer includes it' if changed else 'does not include it'}")
    if out.json:
        out.document("config-ssh", path=str(ours), installed=install, removed=remove, failures=[])
    else:
        out.line(str(ours))


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", HIDDEN if is_secret(key) else str(value)
