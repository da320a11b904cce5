"""``gpucloud jobs`` and ``cancel``."""

from __future__ import annotations

from typing import Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.render import out
from gpucloud.model import Job, utcnow
from gpucloud.quantities import format_duration

COLUMNS = ("ID", "NAME", "CLUSTER", "STATE", "EXIT", "TRIES", "STARTED", "TOOK", "COMMAND")

JobName = Annotated[str, typer.Argument(help="A job, or a cluster for its latest job.", metavar="JOB")]


@app.command()
def jobs(
    cached: Annotated[bool, typer.Option("--cached", help="Do not ask the machines.")] = False,
) -> None:
    """What was run, and how it is or ended.

    Example: gpucloud jobs --json
    """
    from gpucloud.cli.context import fleet

    here = fleet()
    found = here.store.jobs.all()
    failures = []
    if not cached and not all(job.state.over for job in found):
        from gpucloud.jobs.status import update_all

        failures = update_all(here)
        found = here.store.jobs.all()
    for failure in failures:
        out.note(failure)
    if out.json:
        out.document("jobs", jobs=[to_json(job) for job in found], failures=failures)
    else:
        out.table(COLUMNS, [_to_row(job) for job in found])


@app.command()
def cancel(
    job: JobName,
    grace: Annotated[int, typer.Option("--grace", help="Seconds between SIGTERM and SIGKILL.", min=0)] = 30,
) -> None:
    """End a job; its machine stays.

    Example: gpucloud cancel j-abc123
    """
    from gpucloud.cli.context import find_job, fleet
    from gpucloud.jobs.status import cancel_job

    here = fleet()
    found = find_job(here, job)
    if found.state.over:
        out.note(f"{found.id} is over already: {found.state}")
    else:
        found = cancel_job(here, found, grace_s=grace)
        out.note(f"{found.id} {found.state}")
    if out.json:
        out.document("cancel", jobs=[to_json(found)], failures=[])


def to_json(job: Job) -> dict[str, object]:
    """One job as the schema ``gpucloud.jobs/1`` has it."""
    return {
        "id": job.id,
        "name": job.name,
        "cluster": job.cluster_name,
        "state": job.state,
        "exit_code": job.exit_code,
        "attempts": job.attempts,
        "command": job.command,
        "workdir": job.workdir,
        "outputs": list(job.outputs),
        "outputs_verified_at": job.outputs_verified_at,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
    }


def _to_row(job: Job) -> tuple[object, ...]:
    took = (job.ended_at or utcnow()) - job.started_at if job.started_at else None
    return (
        job.id,
        job.name,
        job.cluster_name,
        job.state,
        job.exit_code,
        job.attempts,
        job.started_at,
        format_duration(took) if took else None,
        " ".join(job.command.split())[:60],
    )
