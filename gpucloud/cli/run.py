"""``gpucloud run``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import WORDS_GIVEN, app
from gpucloud.cli.consent import obtain, show_plan
from gpucloud.cli.log_lines import Lines, Raw, Writer
from gpucloud.cli.options import Renting, Typed, secrets, variables
from gpucloud.cli.render import money, out
from gpucloud.cli.terminal_text import clean
from gpucloud.errors import UsageError

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.plan import LaunchRequest
    from gpucloud.jobs.logs import Piece
    from gpucloud.jobs.run import RunResult
    from gpucloud.model import JobSpec

RESTARTS = 10
"""How many interruptions ``--recover`` survives."""


@app.command(cls=Renting)
def run(
    ctx: typer.Context,
    words: Annotated[
        list[str], typer.Argument(help="A task file, or a command after --.", metavar="[FILE.yaml | -- CMD]")
    ] = [],  # noqa: B006
    recover: Annotated[
        bool, typer.Option("--recover", help="Go on elsewhere after an interruption.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the machine when the job is over.")] = False,
) -> None:
    """Rent, push, run, follow, bring the outputs home, end the machine; returns the job's own exit status.

    Example: gpucloud run --gpu H100 --output model.pt -- python train.py
    """
    from gpucloud.cli.context import fleet
    from gpucloud.jobs.run import RunOptions
    from gpucloud.jobs.run import run as whole_cycle

    typed = Typed.of(ctx)
    here = fleet(typed.flags)
    read = _from_words if ctx.meta[WORDS_GIVEN] else _from_file
    request, spec, references = read(typed, words, typed.request(here.config, ephemeral=not keep))
    if typed.dry_run:
        show_plan(here, request, references)
        return
    target = obtain(here, request, references, yes=typed.yes)
    options = RunOptions(keep=keep, restarts=RESTARTS if recover else 0, references=references)
    try:
        with log_sink() as sink:
            result = whole_cycle(here, target, spec, options, sink)
    except KeyboardInterrupt:
        _detached(here, request.name)
        raise
    _summarize(result)
    raise typer.Exit(result.exit_code)


def _from_words(
    typed: Typed, words: list[str], request: LaunchRequest
) -> tuple[LaunchRequest, JobSpec, tuple[str, ...]]:
    """A job out of the command line alone."""
    from gpucloud.jobs.script import command_text
    from gpucloud.model import JobSpec

    if not words:
        raise UsageError(
            "there is no command after --", why="nothing would run", hint="gpucloud run -- python train.py"
        )
    spec = JobSpec(
        run=command_text(words),
        workdir=typed.folder,
        envs=variables(typed.env),
        secrets=secrets(typed.secret),
        outputs=typed.outputs,
    )
    return request, spec, typed.provider


def _from_file(
    typed: Typed, words: list[str], asked: LaunchRequest
) -> tuple[LaunchRequest, JobSpec, tuple[str, ...]]:
    """A job out of a task file; options that were given replace what the file says."""
    from dataclasses import replace

    from gpucloud.cli.context import check_name
    from gpucloud.taskfile import load

    if len(words) != 1:
        raise UsageError(
            "run takes one task file, or a command after --",
            why=f"{len(words)} words were given before any --",
            hint=f"gpucloud run -- {' '.join(words)}" if words else "gpucloud run -- python train.py",
        )
    task = load(Path(words[0]), environ=os.environ, overrides=variables(typed.env))
    wanted = task.requirements
    request = replace(
        asked,
        name=asked.name if typed.name or not task.job.name else check_name(task.job.name),
        requirements=replace(
            asked.requirements,
            gpus=asked.requirements.gpus or wanted.gpus,
            markets=asked.requirements.markets if typed.spot or typed.market else wanted.markets,
            regions=asked.requirements.regions or wanted.regions,
            instance_types=wanted.instance_types,
            max_usd_per_hour=asked.requirements.max_usd_per_hour
            if typed.max_price
            else wanted.max_usd_per_hour,
            min_vcpus=asked.requirements.min_vcpus or wanted.min_vcpus,
            min_memory_gib=asked.requirements.min_memory_gib or wanted.min_memory_gib,
            min_disk_gib=asked.requirements.min_disk_gib or wanted.min_disk_gib,
        ),
        nodes=task.nodes if typed.nodes == 1 else typed.nodes,
        max_duration=asked.max_duration or task.max_duration,
        max_cost=asked.max_cost if typed.max_cost else task.max_cost,
        disk_gib=asked.disk_gib or task.disk_gib,
    )
    spec = replace(
        task.job,
        workdir=typed.folder if typed.workdir or typed.no_push else task.job.workdir,
        secrets={**task.job.secrets, **secrets(typed.secret)},
        outputs=typed.outputs or task.job.outputs,
    )
    return request, spec, typed.provider or ((task.infra,) if task.infra else ())


@contextmanager
def log_sink() -> Iterator[Callable[[Piece], None]]:
    """Where a job's log goes: stdout, or stderr beside a JSON document; a closed pipe ends nothing."""
    writer: Writer = Lines(lambda line: line.data + b"\n", _beside) if out.json else Raw(out)
    closed = False

    def sink(piece: Piece) -> None:
        nonlocal closed
        try:
            if not closed:
                writer(piece)
        except BrokenPipeError:
            closed = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    try:
        yield sink
    finally:
        with suppress(BrokenPipeError):
            writer.close()


def _beside(lines: bytes) -> None:
    """Write lines of a log to stderr."""
    out.note((clean(lines) if sys.stderr.isatty() else lines.decode("utf-8", "replace")).removesuffix("\n"))


def _detached(fleet: Fleet, name: str) -> None:
    """What an interrupt from the keyboard leaves behind, in a sentence."""
    cluster = fleet.store.clusters.get(name)
    if cluster is None:
        return
    price = cluster.usd_per_hour
    rate = f"${price:.2f}/h" if price is not None else "an unknown price"
    out.note("")
    out.note(
        f"{name} goes on for {rate}: gpucloud logs -f {name}, gpucloud pull {name}, gpucloud down {name}"
    )


def _summarize(result: RunResult) -> None:
    cost = "an unknown amount" if result.cost is None else f"${result.cost:.4f}"
    if out.json:
        out.document(
            "run",
            job=result.job.id,
            cluster=result.cluster.name,
            state=result.job.state,
            exit_code=result.exit_code,
            code_from="job",
            attempts=result.job.attempts,
            outputs_verified_at=result.job.outputs_verified_at,
            kept=result.kept,
            cost=money(result.cost),
            currency="USD",
            failures=[],
        )
    ending = "kept" if result.kept else "gone, confirmed"
    out.note(
        f"{result.job.id} {result.job.state}, exit status {result.exit_code}; machine {ending}; cost {cost}"
    )
