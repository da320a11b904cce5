"""``gpucloud launch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.consent import obtain, show_plan
from gpucloud.cli.options import Renting, Typed, secrets, variables
from gpucloud.cli.render import failures, out

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.plan import Plan
    from gpucloud.model import Cluster, JobSpec


@app.command(cls=Renting)
def launch(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="A command to start there.", metavar="[-- CMD]")] = [],  # noqa: B006
) -> None:
    """Rent machines, push this folder, start a command there and return.

    Example: gpucloud launch --gpu H100 --name train --max-duration 6h -- python train.py
    """
    from gpucloud.cli.context import fleet
    from gpucloud.jobs.script import command_text
    from gpucloud.model import JobSpec

    typed = Typed.of(ctx)
    here = fleet(typed.flags)
    request = typed.request(here.config)
    spec = JobSpec(
        run=command_text(words) if words else "",
        workdir=typed.folder,
        envs=variables(typed.env),
        secrets=secrets(typed.secret),
        outputs=typed.outputs,
    )
    if typed.dry_run:
        show_plan(here, request, typed.provider)
        return
    start(here, obtain(here, request, typed.provider, yes=typed.yes), spec)


def start(fleet: Fleet, target: Cluster | Plan, spec: JobSpec) -> None:
    """Rent what is planned, push, start the command if there is one, and tell what there is now."""
    from gpucloud.cli.clusters import to_json
    from gpucloud.cli.jobs import to_json as job_to_json
    from gpucloud.fleet.contact import Contacts
    from gpucloud.fleet.launch import launch as rent
    from gpucloud.fleet.plan import Plan
    from gpucloud.jobs.submit import send, submit

    cluster = rent(fleet, target) if isinstance(target, Plan) else target
    with Contacts(fleet, cluster) as contacts:
        send(contacts, spec)
        job = submit(contacts, spec) if spec.run else None
    if out.json:
        out.document(
            "launch",
            clusters=[to_json(fleet, cluster)],
            jobs=[job_to_json(job)] if job else [],
            failures=failures(target.failures) if isinstance(target, Plan) else [],
        )
        return
    out.line(job.id if job else cluster.name)
    follow = f"gpucloud logs -f {job.id}, " if job else ""
    out.note(f"next: {follow}gpucloud ssh {cluster.name}, gpucloud down {cluster.name}")
