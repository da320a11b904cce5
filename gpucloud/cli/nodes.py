"""What ``gpucloud ssh``, ``exec`` and ``check`` share: a node by its name, and a command for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.errors import NothingMatched

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.model import Cluster

NodeName = Annotated[
    str, typer.Argument(help="A cluster, or NAME-RANK for one of its nodes.", metavar="NAME")
]
Words = Annotated[list[str], typer.Argument(help="A command.", metavar="[--] CMD")]
STRAIGHT = {"allow_interspersed_args": False}
"""What follows the name belongs to the command, options and all."""


def find_node(fleet: Fleet, name: str) -> tuple[Cluster, int]:
    """A cluster's first node, or with NAME-RANK another one."""
    from gpucloud.cli.context import find_cluster

    head, _, tail = name.rpartition("-")
    cluster = fleet.store.clusters.get(name) or (fleet.store.clusters.get(head) if tail.isdigit() else None)
    if cluster is None:
        cluster = find_cluster(fleet, name)
    rank = 0 if cluster.name == name else int(tail)
    if rank >= len(cluster.rentals):
        raise NothingMatched(
            f"{cluster.name} has no node {rank}", why=f"it has {len(cluster.rentals)}", hint="gpucloud ps"
        )
    return cluster, rank


def command_words(words: list[str]) -> list[str]:
    """The words without the ``--`` that may stand between the name and them."""
    return words[1:] if words[:1] == ["--"] else words


def in_workdir(cluster: Cluster, rank: int, command: str) -> str:
    """Shell text that runs a command, or a login shell, where the folder was pushed to."""
    work = f'"$HOME/.gpucloud/{cluster.rentals[rank].token}/work"'
    what = command or 'exec "${SHELL:-/bin/sh}" -l'
    return f"cd {work} 2>/dev/null; {what}"
