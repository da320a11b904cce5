"""``gpucloud plan`` and ``gpucloud apply``."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from gpucloud import redact
from gpucloud.cli.app import app
from gpucloud.cli.consent import agreed, rehearse, show, show_plan, used_again, write_plan
from gpucloud.cli.launch import start
from gpucloud.cli.options import (
    RENT,
    Searching,
    Typed,
    Yes,
    folder_to_push,
    parsed,
    secret_names,
    secrets,
    variables,
)
from gpucloud.cli.render import out
from gpucloud.errors import UsageError
from gpucloud.quantities import parse_duration

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.plan import Plan
    from gpucloud.fleet.planfile import PlanFile, PlannedJob


class Planning(Searching):
    """A command with the options of ``launch``, of which it does nothing."""

    shared = tuple(option for option in RENT if option[0] not in {"--yes", "--dry-run"})

    def only_shows(self, ctx: click.Context) -> bool:
        """Always."""
        return True


@app.command(cls=Planning)
def plan(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="A command to start there.", metavar="[-- CMD]")] = [],  # noqa: B006
    file: Annotated[str, typer.Option("-o", metavar="FILE", help="Write the plan there; - for stdout.")] = "",
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long the file is good for.")
    ] = "24h",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Show what launch would rent; -o FILE fixes it, for gpucloud apply.

    Example: gpucloud plan --gpu H100 --max-duration 6h -o plan.json -- python train.py
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.plan import plan as ask
    from gpucloud.fleet.planfile import dump, write

    typed = Typed.of(ctx)
    here = fleet(typed.flags)
    request, job = typed.request(here.config), _job(typed, words)
    if not file:
        show_plan(here, request, typed.provider)
        return
    good_for = _good_for(expires)
    used_again(here, request, dry_run=True)
    made = ask(here, request, typed.provider)
    rehearse(here, made)
    planned = _fixed(here, made, typed, job, good_for)
    text = dump(planned)
    _keep_secrets_out(text, job)
    if file == "-":
        out.raw(text.encode())
        return
    write(text, Path(file), force=force)
    write_plan(made)
    out.note(f"good until {planned.expires_at:%Y-%m-%d %H:%M} UTC: gpucloud apply {file}")


def _job(typed: Typed, words: list[str]) -> PlannedJob:
    """What is to be done, as it was typed. Raises ``UsageError`` for what a launch would refuse."""
    from gpucloud.fleet.planfile import PlannedJob
    from gpucloud.jobs.script import command_text

    return PlannedJob(
        command=command_text(words) if words else "",
        workdir=(typed.workdir or ".") if typed.folder else None,
        outputs=typed.outputs,
        envs=variables(typed.env),
        secrets=secret_names(typed.secret),
    )


def _good_for(expires: str) -> timedelta:
    """``--expires``. Raises ``UsageError``."""
    good_for = parsed("--expires", expires, parse_duration)
    if not good_for:
        raise UsageError("--expires makes no sense", why="the plan would never be good", hint="--expires 24h")
    return good_for


def _fixed(fleet: Fleet, made: Plan, typed: Typed, job: PlannedJob, good_for: timedelta) -> PlanFile:
    """A plan with all that goes with it into the file."""
    from gpucloud.cli.context import user
    from gpucloud.fleet.planfile import SETTINGS, fixed
    from gpucloud.model import utcnow

    return fixed(
        made,
        typed.provider,
        job,
        by=user(),
        made_at=utcnow(),
        good_for=good_for,
        price_tolerance=fleet.config.get("launch.price_tolerance"),
        settings={name: text for name, text in typed.flags.items() if name in SETTINGS},
    )


def _keep_secrets_out(text: str, job: PlannedJob) -> None:
    """Refuse a plan with the value of a secret in it, and warn of what may be one."""
    for name in job.secrets:
        redact.add(os.environ.get(name, ""))
    if redact.scrub(text) != text:
        raise UsageError(
            "a secret would be written into the plan",
            why="a variable or the command has the value of a --secret in it, or a private key",
            hint="let the job read it from its environment: quote '$NAME' so that this shell leaves it",
        )
    for name in filter(redact.is_secret, job.envs):
        out.note(f"the plan has the value of {name}; --secret {name} would keep it out")


@app.command()
def apply(
    file: Annotated[str, typer.Argument(help="What gpucloud plan -o has written.", metavar="FILE")],
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, and do nothing.")] = False,
) -> None:
    """Launch what a plan has fixed, unless it was edited, has expired, or its prices have moved.

    Example: gpucloud apply plan.json --yes
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.apply import at_planned_prices, requote, settings
    from gpucloud.fleet.planfile import read
    from gpucloud.model import JobSpec, utcnow

    planned = read(Path(file), utcnow())
    job, here = planned.job, fleet(settings(planned))
    spec = JobSpec(
        run=job.command,
        workdir=None if job.workdir is None else folder_to_push(job.workdir),
        envs=job.envs,
        secrets=secrets(job.secrets),
        outputs=job.outputs,
    )
    _introduce(planned, spec.workdir)
    cluster = used_again(here, planned.request, dry_run=dry_run)
    if dry_run:
        if not cluster:
            show(here, requote(here, planned))
        return
    if cluster:
        start(here, cluster, spec)
        return
    start(here, at_planned_prices(planned, agreed(here, requote(here, planned), yes=yes)), spec)


def _introduce(planned: PlanFile, folder: str | None) -> None:
    """What is about to be done, for who has not made the plan, and where, for who applies it elsewhere."""
    job = planned.job
    out.note(f"made by {planned.by}, {planned.made_at:%Y-%m-%d %H:%M} UTC")
    out.note(f" job: {job.command or 'none'}" + (f", in {folder}" if folder else ", without any files"))
