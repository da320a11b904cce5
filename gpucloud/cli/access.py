"""``gpucloud ssh``."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING

import typer

from gpucloud.cli.app import app
from gpucloud.cli.nodes import STRAIGHT, NodeName, Words, command_words, find_node, in_workdir
from gpucloud.errors import UsageError

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.model import Cluster


@app.command(context_settings=STRAIGHT)
def ssh(name: NodeName, words: Words = []) -> None:  # noqa: B006
    """A shell on a machine, in the folder that was pushed there.

    Example: gpucloud ssh train
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.contact import node_label
    from gpucloud.fleet.ssh_config import SUFFIX, write_config
    from gpucloud.jobs.script import command_text

    here = fleet()
    cluster, rank = find_node(here, name)
    inside = in_workdir(cluster, rank, command_text(command_words(words)) if words else "")
    command = f"exec sh -c {shlex.quote(inside)}"
    program = shutil.which("ssh")
    if program and cluster.rentals[rank].ssh and here.config.get("ssh.client") != "builtin":
        terminal = ["-t"] if sys.stdin.isatty() and not words else []
        _look_first(here, cluster, rank)
        node = node_label(cluster, rank) + SUFFIX
        os.execv(program, [program, "-F", str(write_config(here)), *terminal, node, command])
    raise typer.Exit(_own_terminal(here, cluster, rank, command))


def _look_first(fleet: Fleet, cluster: Cluster, rank: int) -> None:
    """Leave a connection for ``ssh`` that surely answers, or say why there is none better than it would."""
    from gpucloud.fleet.contact import connect, node_label, persist_s

    if persist_s(fleet):
        with connect(fleet, cluster.rentals[rank], node_label(cluster, rank)) as connection:
            connection.check()


def _own_terminal(fleet: Fleet, cluster: Cluster, rank: int, command: str) -> int:
    """The way without an ``ssh`` on this machine."""
    from gpucloud.fleet.contact import connect, node_label

    if not sys.stdin.isatty():
        raise UsageError(
            "ssh needs a terminal", why="stdin is none", hint=f"gpucloud exec {cluster.name} -- CMD"
        )
    with connect(fleet, cluster.rentals[rank], node_label(cluster, rank)) as connection:
        return connection.interact(command)
