"""``gpucloud logs``."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.jobs import JobName
from gpucloud.cli.log_lines import Lines, Raw, Writer, event, form
from gpucloud.cli.render import out
from gpucloud.errors import NothingMatched, UsageError
from gpucloud.model import utcnow
from gpucloud.quantities import parse_duration

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.model import Job


All = Annotated[bool, typer.Option("--all", help="Of every node, each line with its rank.")]
Begin = Annotated[str | None, typer.Option("--since", help="What the last 15m brought, or the time since.")]


@app.command()
def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    everywhere: All = False,
    rank: Annotated[int | None, typer.Option("--rank", help="Of another node than the first.", min=0)] = None,
    since: Begin = None,
    tail: Annotated[
        int | None, typer.Option("--tail", help="Begin so many lines before the end.", min=0)
    ] = None,
    offset: Annotated[int | None, typer.Option("--offset", help="Begin at this byte.", min=0)] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="When each line was written, to a second or so; UTC.")
    ] = False,
) -> None:
    """What a job printed; -f goes on as it prints, and Ctrl-C leaves the job alone.

    Example: gpucloud logs -f train --tail 100
    """
    from gpucloud.cli.context import find_job, fleet
    from gpucloud.jobs.log_show import Asked, show

    moment = _begin(since, tail, offset)
    here = fleet()
    found = find_job(here, job)
    ranks = _ranks(here, found, everywhere, rank)
    asked = Asked(ranks, follow, timestamps or out.json, offset or 0, tail, moment)
    try:
        with closing(_writer(found, len(ranks), timestamps)) as writer:
            show(here, found, writer, asked)
    except KeyboardInterrupt:
        out.note("")
        out.note(f"{found.id} goes on: gpucloud logs -f {found.id}, gpucloud cancel {found.id}")
        raise


def _writer(job: Job, ranks: int, times: bool) -> Writer:
    if out.json:
        return Lines(event(job.id), out.raw)
    if ranks == 1 and not times:
        return Raw(out)
    return Lines(form(ranks=ranks, times=times, terminal=out.on_terminal), out.raw)


def _ranks(fleet: Fleet, job: Job, everywhere: bool, rank: int | None) -> tuple[int, ...]:
    """Whose logs are wanted. Raises ``NothingMatched`` when there is no such node."""
    nodes = fleet.store.clusters.by_id(job.cluster_id).nodes
    if everywhere and rank is not None:
        raise UsageError("--all and --rank exclude each other", why="one is of all nodes", hint="give one")
    if rank is not None and rank >= nodes:
        raise NothingMatched(
            f"{job.cluster_name} has no node {rank}", why=f"it has {nodes}", hint="gpucloud ps"
        )
    return tuple(range(nodes)) if everywhere else (rank or 0,)


def _begin(since: str | None, tail: int | None, offset: int | None) -> datetime | None:
    """The time that ``--since`` names, if it is given. Raises ``UsageError`` when there is another begin."""
    if sum(given is not None for given in (since, tail, offset)) > 1:
        raise UsageError(
            "a log can begin in one place only",
            why="--since, --tail and --offset each name one",
            hint="give one",
        )
    if since is None:
        return None
    try:
        return utcnow() - parse_duration(since)
    except ValueError:
        pass
    try:
        # A time without a zone is one of this place.
        return datetime.fromisoformat(since).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--since {since!r} is neither a duration nor a time",
            why="durations are like 90s, 15m or 2h30m, times like 2026-11-22T10:00 or 2026-11-22T09:00Z",
            hint="gpucloud logs train --since 15m",
        ) from error
