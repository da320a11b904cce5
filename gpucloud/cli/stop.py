"""``gpucloud stop`` and ``gpucloud start``: a cluster that is kept for later, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gpucloud.cli.app import app
from gpucloud.cli.clusters import to_json
from gpucloud.cli.consent import agree
from gpucloud.cli.options import Yes
from gpucloud.cli.render import local_time, money, out
from gpucloud.errors import NothingMatched, UsageError
from gpucloud.model import Cluster, utcnow

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.stop import Saving

Names = Annotated[list[str], typer.Argument(help="Clusters.", metavar="NAME...")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]

INDENT: Final = " " * 6


@dataclass(frozen=True, slots=True)
class Halt:
    """What a stop of one cluster would do: to its bill, and to the jobs that run there."""

    cluster: Cluster
    savings: tuple[Saving, ...]
    jobs: tuple[str, ...]

    @property
    def running(self) -> Decimal | None:
        """What it bills per hour while it runs."""
        return _sum([saving.running for saving in self.savings])

    @property
    def stopped(self) -> Decimal | None:
        """What it bills per hour while it is stopped."""
        return _sum([saving.stopped for saving in self.savings])


@app.command()
def stop(
    names: Names,
    cancel: Annotated[
        list[str], typer.Option("--cancel", help="End this job, which still runs there.", metavar="JOB")
    ] = [],  # noqa: B006
    force: Annotated[
        bool, typer.Option("--force", help="Also where nobody knows whether it saves anything.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Stop machines where that saves money, and keep their disks; outputs come home first.

    Example: gpucloud stop train --dry-run
    """
    from gpucloud.cli.context import fleet

    here = fleet()
    clusters = _named(here, names)
    plans = [_halt(here, cluster, force=force) for cluster in clusters]
    for plan in plans:
        for line in _told(plan):
            out.note(line)
    if not dry_run:
        jobs = [job for plan in plans for job in plan.jobs]
        _agree(plans, jobs, cancel, yes=yes)
        clusters = [_stop(here, plan, force=force) for plan in plans]
    elif out.explain:
        from gpucloud.cli.calls import remark
        from gpucloud.fleet import rehearsal

        remark(rehearsal.stop(here, clusters))
    if out.json:
        out.document(
            "stop",
            dry_run=dry_run,
            clusters=[to_json(here, cluster) for cluster in clusters],
            plans=[_plan_to_json(plan) for plan in plans],
            failures=[],
        )


@app.command()
def start(names: Names, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Start stopped machines again and wait until they answer; the lease does not become longer.

    Example: gpucloud start train
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.stop import check_start
    from gpucloud.fleet.stop import start as bring_up

    here = fleet()
    clusters = _named(here, names)
    for cluster in clusters:
        check_start(cluster, utcnow())
        out.note(_start_plan(cluster))
    plans = [_start_to_json(cluster) for cluster in clusters]
    if not dry_run:
        agree("Start them?" if len(clusters) > 1 else "Start it?", yes=yes)
        clusters = [bring_up(here, cluster) for cluster in clusters]
        for cluster in clusters:
            out.note(f"{cluster.name} is up: gpucloud ssh {cluster.name}, gpucloud stop {cluster.name}")
    elif out.explain:
        from gpucloud.cli.calls import remark
        from gpucloud.fleet import rehearsal

        remark(rehearsal.start(here, clusters))
    if out.json:
        documents = [to_json(here, cluster) for cluster in clusters]
        out.document("start", dry_run=dry_run, clusters=documents, plans=plans, failures=[])


def _named(fleet: Fleet, names: Sequence[str]) -> list[Cluster]:
    from gpucloud.cli.context import find_cluster

    return [find_cluster(fleet, name) for name in dict.fromkeys(names)]


def _halt(fleet: Fleet, cluster: Cluster, *, force: bool) -> Halt:
    """What stopping a cluster would do. Raises ``Unsupported`` where it makes no sense."""
    from gpucloud.fleet.stop import savings
    from gpucloud.jobs.status import update_all

    found = savings(fleet, cluster, force=force)
    if any(not job.state.over for job in fleet.store.jobs.of(cluster)):
        for line in update_all(fleet):
            out.note(line)
    jobs = tuple(job.id for job in fleet.store.jobs.of(cluster) if not job.state.over)
    return Halt(cluster, found, jobs)


def _told(plan: Halt) -> Iterator[str]:
    """A plan in lines: what is saved, what bills on and who says so, and what else it means."""
    where = ", ".join(f"{s.rental.provider} {s.rental.ref.id if s.rental.ref else ''}" for s in plan.savings)
    saved = _sum([saving.saved for saving in plan.savings])
    much = "an unknown part" if saved is None else _rate(saved)
    yield f"stop {plan.cluster.name}: {where}; saves {much} of {_rate(plan.running)}"
    beside = [f"{each.kind} {_rate(each.usd_per_hour)}" for s in plan.savings for each in s.beside]
    listed = f": {', '.join(beside)}" if beside else ""
    yield f"{INDENT}goes on billing {_rate(plan.stopped)}{listed}"
    for provider in sorted({saving.rental.provider for saving in plan.savings}):
        yield from _card_lines(provider)
    expiry = min((s.rental.expires_at for s in plan.savings if s.rental.expires_at), default=None)
    if expiry is not None:
        yield f"{INDENT}its lease goes on: at {local_time(expiry)} it ends, and its files with it"
    if plan.jobs:
        yield f"{INDENT}ends {', '.join(plan.jobs)}"


def _card_lines(provider: str) -> Iterator[str]:
    """What the billing card of a provider says of stopped instances, if there is one."""
    from gpucloud.catalog.cards import card
    from gpucloud.cli.explain import TOLD, Act, sentence

    try:
        facts = card(provider).facts
    except NothingMatched:
        return
    sentences = [sentence(key, facts[key]) for key in TOLD[Act.STOP] if key in facts]
    yield f"{INDENT}{provider}: {' '.join(filter(None, sentences))}"


def _agree(plans: Sequence[Halt], jobs: Sequence[str], cancel: Sequence[str], *, yes: bool) -> None:
    """Somebody has to agree, and to name the jobs that a stop would end, or see them named."""
    unnamed = [job for job in jobs if job not in cancel]
    if yes and unnamed:
        raise UsageError(
            f"{', '.join(plan.cluster.name for plan in plans if set(plan.jobs) & set(unnamed))} is at work",
            why=f"a stop would end {', '.join(unnamed)}",
            hint=f"wait for it, or add {' '.join(f'--cancel {job}' for job in unnamed)}",
        )
    what = "Stop them" if len(plans) > 1 else "Stop it"
    agree(f"{what}, and end {', '.join(jobs)}?" if jobs else f"{what}?", yes=yes)


def _stop(fleet: Fleet, plan: Halt, *, force: bool) -> Cluster:
    """Bring outputs home, stop it, and say what it has cost and goes on costing."""
    from gpucloud.fleet.ssh_config import update_config
    from gpucloud.fleet.stop import stop as halt
    from gpucloud.jobs.wrap_up import close_jobs, rescue_outputs

    rescue_outputs(fleet, plan.cluster)
    stopped = halt(fleet, plan.cluster, force=force)
    update_config(fleet)
    close_jobs(fleet, stopped)
    cost = fleet.store.ledger.cost(stopped.id)
    spent = "unknown" if cost is None else f"${cost:.4f}"
    out.note(f"{stopped.name} is stopped, confirmed; cost so far {spent}; bills on {_rate(plan.stopped)}")
    out.note(f"next: gpucloud start {stopped.name}, gpucloud down {stopped.name}")
    return stopped


def _plan_to_json(plan: Halt) -> dict[str, object]:
    return {
        "name": plan.cluster.name,
        "usd_per_hour": money(plan.running),
        "stopped_usd_per_hour": money(plan.stopped),
        "saved_usd_per_hour": money(_sum([saving.saved for saving in plan.savings])),
        "currency": "USD",
        "bills_on": [
            {"kind": each.kind, "id": each.ref.id, "usd_per_hour": money(each.usd_per_hour)}
            for saving in plan.savings
            for each in saving.beside
        ],
        "jobs": list(plan.jobs),
    }


def _start_plan(cluster: Cluster) -> str:
    from gpucloud.fleet.stop import cost_to_come

    expiry = min((r.expires_at for r in cluster.rentals if r.expires_at), default=None)
    most = cost_to_come(cluster, utcnow())
    until = f"until {local_time(expiry)}" if expiry else "without an end"
    limit = "" if most is None else f", at worst for ${most:.2f} more"
    return f"start {cluster.name}: {_rate(cluster.usd_per_hour)} {until}{limit}"


def _start_to_json(cluster: Cluster) -> dict[str, object]:
    from gpucloud.fleet.stop import cost_to_come

    most = cost_to_come(cluster, utcnow())
    return {
        "name": cluster.name,
        "usd_per_hour": money(cluster.usd_per_hour),
        "worst_cost": money(None if most is None else round(most, 6)),
        "currency": "USD",
        "expires_at": min((r.expires_at for r in cluster.rentals if r.expires_at), default=None),
    }


def _sum(amounts: Sequence[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return None if len(known) < len(amounts) else sum(known, Decimal(0))


def _rate(usd_per_hour: Decimal | None) -> str:
    return "an unknown price" if usd_per_hour is None else f"${usd_per_hour:.4f}/h"
