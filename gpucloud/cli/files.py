"""``gpucloud push`` and ``gpucloud pull``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.options import folder_to_push
from gpucloud.cli.render import out
from gpucloud.errors import OutputsNotVerified, UsageError
from gpucloud.quantities import format_bytes, format_count

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.remote.pull import Pulled

BIGGEST = 10


@app.command()
def push(
    name: Annotated[str | None, typer.Argument(help="A cluster; not needed when there is one.")] = None,
    workdir: Annotated[str, typer.Option("--workdir", help="The folder to push.", metavar="DIR")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent.")] = False,
) -> None:
    """Bring this folder to a cluster's machines; what vanished here is deleted there.

    Example: gpucloud push train --dry-run
    """
    from gpucloud.cli.context import fleet, one_cluster
    from gpucloud.fleet.contact import Contacts
    from gpucloud.jobs.submit import send
    from gpucloud.model import JobSpec

    folder = folder_to_push(workdir)
    if dry_run:
        _preview(folder)
        return
    here = fleet()
    cluster = one_cluster(here, name)
    with Contacts(here, cluster) as contacts:
        sent = send(contacts, JobSpec(run="", workdir=folder))
    if out.json:
        pushed = [{"files": p.files, "bytes": p.size, "removed": p.removed} for p in sent]
        out.document("push", pushed=pushed, failures=[])


def _preview(folder: str) -> None:
    """What an empty host would be sent, and what makes it big."""
    from gpucloud.remote.sync import preview

    tree = preview(folder)
    biggest = tree.biggest(BIGGEST)
    for path, reason in tree.skipped:
        out.note(f"left out: {path} ({reason})")
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
) -> None:
    """Bring files home from a cluster's first machine, verified by checksum.

    Example: gpucloud pull train 'checkpoints/*.pt' --to results
    """
    from gpucloud.cli.context import fleet

    here = fleet()
    pulled = _pull_paths(here, name, paths, to) if paths else _pull_outputs(here, name, to)
    found = sorted(str(path) for path in pulled.files.values())
    if out.json:
        out.document("pull", files=found, missing=pulled.missing, unverified=pulled.unverified, failures=[])
    else:
        for path in found:
            out.line(path)
    for pattern in pulled.missing:
        out.note(f"{pattern!r} matches nothing there")
    for link in pulled.refused:
        out.note(f"the link {link} leads out of the folder and was left there")
    if pulled.unverified or pulled.missing:
        raise OutputsNotVerified(
            "not everything came home",
            why=f"{len(pulled.missing)} matched nothing, {len(pulled.unverified)} kept changing",
            hint="look there with gpucloud ssh, and pull again",
        )


def _pull_paths(fleet: Fleet, name: str | None, paths: list[str], to: str) -> Pulled:
    """What was named, from a cluster."""
    from gpucloud.cli.context import one_cluster
    from gpucloud.fleet.contact import Contacts
    from gpucloud.jobs.outputs import pull_home

    with Contacts(fleet, one_cluster(fleet, name)) as contacts:
        return pull_home(contacts, paths, Path(to or "."))


def _pull_outputs(fleet: Fleet, name: str | None, to: str) -> Pulled:
    """What a job declared, to where it was pushed from."""
    from gpucloud.cli.context import find_cluster, find_job, one_cluster
    from gpucloud.fleet.contact import Contacts
    from gpucloud.jobs.outputs import collect, pull_home

    job = find_job(fleet, name or one_cluster(fleet, None).name)
    if not job.outputs:
        raise UsageError(
            f"job {job.id} declared no outputs",
            why="so it is not known what to bring",
            hint="name PATHs to pull",
        )
    with Contacts(fleet, find_cluster(fleet, job.cluster_name)) as contacts:
        if to:
            return pull_home(contacts, job.outputs, Path(to))
        return collect(contacts, job)
