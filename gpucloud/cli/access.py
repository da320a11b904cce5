"""``gpucloud ssh`` and ``gpucloud exec``."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.render import out
from gpucloud.errors import NothingMatched, UsageError

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.model import Cluster
    from gpucloud.remote.connection import Completed
    from gpucloud.remote.streams import Writer

NodeName = Annotated[
    str, typer.Argument(help="A cluster, or NAME-RANK for one of its nodes.", metavar="NAME")
]
Words = Annotated[list[str], typer.Argument(help="A command.", metavar="[--] CMD")]
STRAIGHT = {"allow_interspersed_args": False}
"""What follows the name belongs to the command, options and all."""


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
    command = _in_workdir(cluster, rank, command_text(_command(words)) if words else "")
    program = shutil.which("ssh")
    if program and cluster.rentals[rank].ssh:
        terminal = ["-t"] if sys.stdin.isatty() and not words else []
        node = node_label(cluster, rank) + SUFFIX
        os.execv(program, [program, "-F", str(write_config(here)), *terminal, node, command])
    raise typer.Exit(_own_terminal(here, cluster, rank, command))


def _own_terminal(fleet: Fleet, cluster: Cluster, rank: int, command: str) -> int:
    """The way without an ``ssh`` on this machine."""
    from gpucloud.fleet.contact import connect, node_label
    from gpucloud.remote.terminal import interact

    if not sys.stdin.isatty():
        raise UsageError(
            "ssh needs a terminal", why="stdin is none", hint=f"gpucloud exec {cluster.name} -- CMD"
        )
    with connect(fleet, cluster.rentals[rank], node_label(cluster, rank)) as connection:
        return interact(connection, command)


@app.command("exec", context_settings=STRAIGHT)
def exec_(
    name: NodeName,
    words: Words,
    everywhere: Annotated[bool, typer.Option("--all", help="On every node, one after the other.")] = False,
) -> None:
    """Run a command on a machine and return its exit status.

    Example: gpucloud exec train -- nvidia-smi
    """
    from gpucloud.cli.context import fleet
    from gpucloud.jobs.script import command_text

    here = fleet()
    cluster, rank = find_node(here, name)
    command = command_text(_command(words))
    ranks = range(cluster.nodes) if everywhere else range(rank, rank + 1)
    done = {rank: _run(here, cluster, rank, command) for rank in ranks}
    if out.json:
        out.document(
            "exec", nodes=[_to_json(rank, d) for rank, d in done.items()], code_from="job", failures=[]
        )
    raise typer.Exit(max(d.status for d in done.values()))


def _command(words: list[str]) -> list[str]:
    """The words without the ``--`` that may stand between the name and them."""
    return words[1:] if words[:1] == ["--"] else words


def _run(fleet: Fleet, cluster: Cluster, rank: int, command: str) -> Completed:
    from gpucloud.fleet.contact import connect, node_label

    with connect(fleet, cluster.rentals[rank], node_label(cluster, rank)) as connection:
        return connection.run(
            _in_workdir(cluster, rank, command),
            stdin=b"" if sys.stdin is None or sys.stdin.isatty() else _pass_stdin,
            stdout=None if out.json else out.raw,
            stderr=None if out.json else out.raw_error,
            endless_stdin=True,
        )


def _pass_stdin(remote: Writer) -> None:
    while data := os.read(sys.stdin.fileno(), 65_536):
        remote.write(data)


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


def _in_workdir(cluster: Cluster, rank: int, command: str) -> str:
    """Shell text that runs a command, or a login shell, where the folder was pushed to."""
    work = f'"$HOME/.gpucloud/{cluster.rentals[rank].token}/work"'
    what = command or 'exec "${SHELL:-/bin/sh}" -l'
    return f"exec sh -c {shlex.quote(f'cd {work} 2>/dev/null; {what}')}"


def _to_json(rank: int, done: Completed) -> dict[str, object]:
    return {
        "rank": rank,
        "exit_code": done.status,
        "stdout": done.stdout.decode("utf-8", "replace"),
        "stderr": done.stderr.decode("utf-8", "replace"),
    }
