"""``gpucloud extend`` and ``gpucloud reap``: when machines end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.consent import agree
from gpucloud.cli.options import DryRun, Yes, parsed
from gpucloud.cli.render import local_time, money, out
from gpucloud.quantities import parse_duration, parse_usd

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.extend import Extension


@app.command()
def extend(
    name: Annotated[str, typer.Argument(help="A cluster.")],
    by: Annotated[str, typer.Argument(help="How much longer: 30m, 2h, 1d.", metavar="TIME")],
    max_cost: Annotated[
        str, typer.Option("--max-cost", metavar="USD", help="Let it cost so much in all.")
    ] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Let a cluster go on for longer, within the budgets.

    Example: gpucloud extend train 2h
    """
    from gpucloud.cli.clusters import to_json
    from gpucloud.cli.context import find_cluster, fleet
    from gpucloud.fleet.extend import extend as move
    from gpucloud.fleet.extend import extension

    here = fleet()
    cluster = find_cluster(here, name)
    longer, most = parsed("TIME", by, parse_duration), parsed("--max-cost", max_cost, parse_usd)
    assert longer is not None
    plan = extension(here, cluster, longer, most)
    _tell(plan)
    if not dry_run:
        if plan.worst_cost:
            agree("Extend it?", yes=yes)
        cluster = move(here, cluster, longer, most)
    elif out.explain:
        _show_calls(here, plan)
    if out.json:
        out.document(
            "extend",
            clusters=[to_json(here, cluster)],
            worst_cost=money(plan.worst_cost),
            currency="USD",
            failures=[],
        )


def _show_calls(fleet: Fleet, plan: Extension) -> None:
    from gpucloud.cli.calls import remark
    from gpucloud.fleet import rehearsal

    remark(rehearsal.extend(fleet, plan))


def _tell(plan: Extension) -> None:
    end = local_time(min(plan.ends.values()))
    worst = "without a bound" if plan.worst_cost is None else f"for ${plan.worst_cost:.2f} in all at worst"
    out.note(f"plan: {plan.cluster.name} ends at {end}, {worst}")


@app.command()
def reap(dry_run: DryRun = False) -> None:
    """End what is due: leases that are over, money that is spent, idle machines, ends that were cut off.

    It does only what was agreed on, so it does not ask; put it in cron.

    Example: gpucloud reap --json
    """
    from gpucloud.cli.context import config
    from gpucloud.store import Store

    folder = config().data_dir
    if not Store.exists(folder) or not Store(folder).clusters.living():
        _report([], [])
        return
    from gpucloud.cli.context import fleet
    from gpucloud.jobs.reap import due
    from gpucloud.jobs.reap import reap as end

    here = fleet()
    with here.store.db.lock("reap"):
        found = due(here)
        for each in found if dry_run else ():
            out.note(f"would end {each.cluster.name}: {each.reason}")
        if dry_run and out.explain:
            from gpucloud.cli.calls import remark
            from gpucloud.fleet import rehearsal

            remark(rehearsal.end(here, [each.cluster for each in found]))
        errors = [] if dry_run else end(here, found)
    _report([(each.cluster.name, each.reason) for each in found], [error.message for error in errors])
    for error in errors:
        raise error


def _report(found: list[tuple[str, str]], errors: list[str]) -> None:
    if out.json:
        due = [{"cluster": name, "reason": reason} for name, reason in found]
        out.document("reap", due=due, failures=errors)
    else:
        out.table(("CLUSTER", "WHY IT ENDS"), found)
