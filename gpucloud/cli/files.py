"""``gpucloud push`` and ``gpucloud pull``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gpucloud.cli.app import app
from gpucloud.cli.options import folder_to_push, parsed
from gpucloud.cli.render import out
from gpucloud.errors import NothingMatched, OutputsNotVerified, UsageError
from gpucloud.quantities import format_bytes, format_count, parse_duration, printable

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.jobs.submit import SendOptions
    from gpucloud.model import Cluster, Job
    from gpucloud.remote.pull import Pulled
    from gpucloud.remote.push import Pushed

BIGGEST: Final = 10
EVERY: Final = "30s"
LEAST_PAUSE: Final = timedelta(seconds=1)


@app.command()
def push(
    name: Annotated[str | None, typer.Argument(help="A cluster; not needed when there is one.")] = None,
    workdir: Annotated[str, typer.Option("--workdir", help="The folder to push.", metavar="DIR")] = "",
    extra: Annotated[
        list[str], typer.Option("--extra", help="Send what matches, though ignored.", metavar="GLOB")
    ] = [],  # noqa: B006
    with_git: Annotated[bool, typer.Option("--with-git", help="Send .git too.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare by checksum what was sent before.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent.")] = False,
) -> None:
    """Bring this folder to a cluster's machines; what vanished here is deleted there.

    Example: gpucloud push train --dry-run
    """
    from gpucloud.cli.context import fleet, one_cluster
    from gpucloud.fleet.contact import Contacts, node_label
    from gpucloud.jobs.submit import SendOptions, send
    from gpucloud.model import JobSpec

    folder = folder_to_push(workdir)
    options = SendOptions(extra=tuple(extra), git=with_git, verify=verify)
    if dry_run:
        _preview(folder, options)
        return
    here = fleet()
    cluster = one_cluster(here, name)
    with Contacts(here, cluster) as contacts:
        (sent,) = send(contacts, JobSpec(run="", workdir=folder), options)
    if out.json:
        nodes = [_to_json(rank, node_label(cluster, rank), pushed) for rank, pushed in sent.items()]
        out.document("push", pushed=nodes, failures=[])


def _to_json(rank: int, label: str, pushed: Pushed) -> dict[str, object]:
    """What came to a node as the schema ``gpucloud.push/1`` has it."""
    return {
        "rank": rank,
        "node": label,
        "files": pushed.files,
        "bytes": pushed.size,
        "removed": pushed.removed,
        "changing": pushed.changing,
        "skipped": [{"path": path, "reason": reason} for path, reason in pushed.skipped],
    }


def _preview(folder: str, options: SendOptions) -> None:
    """What an empty host would be sent, and what makes it big."""
    from gpucloud.jobs.submit import preview
    from gpucloud.jobs.warn import spelled

    tree = preview(folder, options, out.event)
    biggest = tree.biggest(BIGGEST)
    for path, reason in tree.skipped:
        out.note(f"left out: {spelled(path)} ({reason})")
    if out.json:
        listing = [{"path": path, "bytes": size} for path, size in biggest]
        out.document("push", files=tree.files, bytes=tree.size, biggest=listing, failures=[])
        return
    out.note(f"{format_count(tree.files, 'file')}, {format_bytes(tree.size)} would be sent; the biggest:")
    out.table(("$ SIZE", "PATH"), [(format_bytes(size), path) for path, size in biggest])


@app.command()
def pull(
    name: Annotated[
        str | None, typer.Argument(help="A cluster or a job; not needed for one cluster.")
    ] = None,
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or globs there; the declared outputs without.", metavar="[PATH...]"
        ),
    ] = [],  # noqa: B006
    to: Annotated[str, typer.Option("--to", help="Put them below this folder.", metavar="DIR")] = "",
    rank: Annotated[int, typer.Option("--rank", help="From this machine of several.", min=0)] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until the job is over.")] = False,
    every: Annotated[str, typer.Option("--every", help="How often; 30s without.", metavar="TIME")] = "",
) -> None:
    """Bring files home from a cluster's machine, verified by checksum.

    Example: gpucloud pull train 'checkpoints/*.pt' --to results
    """
    from gpucloud.cli.context import fleet

    here = fleet()
    wanted = _Wanted(name, tuple(paths), to, rank)
    if every and not watch:
        raise UsageError("--every needs --watch", why="a pull is done once", hint="--watch --every 30s")
    _report(_mirror(here, wanted, every) if watch else _pull(here, wanted))


def _report(pulled: Pulled) -> None:
    """What came home. Raises ``OutputsNotVerified`` when that is not everything."""
    found = sorted(str(path) for path in pulled.files.values())
    if out.json:
        out.document("pull", files=found, missing=pulled.missing, unverified=pulled.unverified, failures=[])
    else:
        for path in found:
            # A script gets the name as it is; a terminal would obey what is in it.
            out.line(printable(path) if out.screen else path)
    for pattern in pulled.missing:
        out.note(f"{pattern!r} matches nothing there")
    for link in pulled.refused:
        out.note(f"the link {printable(link)} leads out of the folder and was left there")
    for name_there in pulled.clashing:
        out.note(f"{printable(name_there)} was left there: another name differs from it only by case")
    if pulled.unverified or pulled.missing or pulled.clashing:
        raise OutputsNotVerified(
            "not everything came home",
            why=f"{len(pulled.missing)} matched nothing, {len(pulled.unverified)} kept changing or cannot be"
            f" read, {len(pulled.clashing)} have no place here",
            hint="look there with gpucloud ssh, and pull again",
        )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was typed: from where, what, and where to."""

    name: str | None
    paths: tuple[str, ...]
    to: str
    rank: int


def _pull(fleet: Fleet, wanted: _Wanted) -> Pulled:
    """What was named, from a cluster, or what a job declared, to where it was pushed from."""
    from gpucloud.cli.context import find_cluster, one_cluster
    from gpucloud.fleet.contact import Contacts
    from gpucloud.jobs.outputs import collect, pull_home

    if wanted.paths:
        cluster = one_cluster(fleet, wanted.name)
        with Contacts(fleet, cluster) as contacts:
            return pull_home(contacts, wanted.paths, Path(wanted.to or "."), rank=_node(cluster, wanted))
    job = _declaring(fleet, wanted)
    with Contacts(fleet, find_cluster(fleet, job.cluster_name)) as contacts:
        if wanted.to:
            rank = _node(contacts.cluster, wanted)
            return pull_home(contacts, job.outputs, Path(wanted.to), rank=rank)
        return collect(contacts, job)


def _mirror(fleet: Fleet, wanted: _Wanted, every: str) -> Pulled:
    """The same again and again while the job runs, and once more when it is over."""
    from gpucloud.cli.context import find_cluster, find_job, one_cluster
    from gpucloud.fleet.contact import Contacts
    from gpucloud.jobs.mirror import mirror

    if wanted.rank:
        raise UsageError(
            "--watch follows the first machine", why="a job is over when it is there", hint="leave out --rank"
        )
    pause = max(parsed("--every", every or EVERY, parse_duration) or LEAST_PAUSE, LEAST_PAUSE)
    if wanted.paths:
        job = find_job(fleet, wanted.name or one_cluster(fleet, None).name)
    else:
        job = _declaring(fleet, wanted)
    into = Path(wanted.to or ("." if wanted.paths else job.workdir or "."))
    with Contacts(fleet, find_cluster(fleet, job.cluster_name)) as contacts:
        try:
            return mirror(contacts, job, wanted.paths or job.outputs, into, every=pause)
        except KeyboardInterrupt:
            out.note("")
            out.note(f"{job.id} goes on: gpucloud pull {job.cluster_name} --watch")
            raise


def _declaring(fleet: Fleet, wanted: _Wanted) -> Job:
    """The job whose outputs are meant. Raises ``UsageError`` when it declared none, or they are not clear."""
    from gpucloud.cli.context import find_job, one_cluster

    job = find_job(fleet, wanted.name or one_cluster(fleet, None).name)
    if not job.outputs:
        raise UsageError(
            f"job {job.id} declared no outputs",
            why="so it is not known what to bring",
            hint="name PATHs to pull",
        )
    if wanted.rank and not wanted.to:
        raise UsageError(
            f"where should the outputs of node {wanted.rank} go?",
            why="those of the first node belong to where the job was pushed from",
            hint="add --to DIR",
        )
    return job


def _node(cluster: Cluster, wanted: _Wanted) -> int:
    """The rank that was asked for. Raises ``NothingMatched`` when the cluster has no such node."""
    if wanted.rank >= len(cluster.rentals):
        raise NothingMatched(
            f"{cluster.name} has no node {wanted.rank}",
            why=f"it has {format_count(len(cluster.rentals), 'node')}, from 0 on",
            hint="gpucloud ps",
        )
    return wanted.rank
