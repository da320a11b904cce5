"""Plans are shown before anything is spent or deleted, and somebody has to agree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from gpucloud.cli.render import ask, failures, interactive, money, out
from gpucloud.errors import UsageError
from gpucloud.model import Market
from gpucloud.quantities import format_duration

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.plan import LaunchRequest, Plan
    from gpucloud.model import Cluster, Failure, Offer


def obtain(fleet: Fleet, request: LaunchRequest, references: Sequence[str], *, yes: bool) -> Cluster | Plan:
    """The cluster of that name if it is up; otherwise a plan that the person has agreed to."""
    from gpucloud.fleet.plan import plan

    return used_again(fleet, request) or agreed(fleet, plan(fleet, request, references), yes=yes)


def used_again(fleet: Fleet, request: LaunchRequest, *, dry_run: bool = False) -> Cluster | None:
    """The cluster of that name if it is up, which is told. Raises ``UsageError`` if it is something else."""
    from gpucloud.fleet.launch import existing

    cluster = existing(fleet, request)
    if cluster:
        out.note(f"{cluster.name} is up and {'would be' if dry_run else 'is'} used again")
    return cluster


def agreed(fleet: Fleet, made: Plan, *, yes: bool) -> Plan:
    """A plan, once the person has seen it and has agreed to it. Raises ``UsageError``."""
    _tell(fleet, made)
    if not made.free:
        worst = made.worst_cost
        agree(
            "Rent it, without any limit?" if worst is None else f"Rent it, for at most ${worst:.2f}?", yes=yes
        )
    return made


def show_plan(fleet: Fleet, request: LaunchRequest, references: Sequence[str]) -> None:
    """What would be rented, without renting it; refused as the launch would be."""
    from gpucloud.fleet.plan import plan

    if not used_again(fleet, request, dry_run=True):
        show(fleet, plan(fleet, request, references))
    elif out.json:
        _write(request.nodes, (), Decimal(0), ())


def show(fleet: Fleet, made: Plan) -> None:
    """What a plan would rent; as ``rehearse``."""
    rehearse(fleet, made)
    write_plan(made)


def write_plan(made: Plan) -> None:
    """A plan as the schema ``gpucloud.plan/1`` has it, where JSON is wanted."""
    if out.json:
        _write(made.request.nodes, made.offers, made.worst_cost, made.failures)


def _write(nodes: int, offers: Sequence[Offer], worst: Decimal | None, failed: Sequence[Failure]) -> None:
    from gpucloud.cli.offer_view import to_json

    out.document(
        "plan",
        offers=[to_json(offer) for offer in offers],
        nodes=nodes,
        worst_cost=money(worst),
        currency="USD",
        failures=failures(failed),
    )


def rehearse(fleet: Fleet, made: Plan) -> None:
    """Tell what a plan would rent. Raises ``BudgetRefused`` where the caps would not allow it now."""
    from gpucloud.fleet.budget import caps
    from gpucloud.model import utcnow

    rules = caps(fleet.config, utcnow())
    request = made.request
    fleet.store.budget.check(request.name, request.labels.project, made.worst_cost, rules)
    _tell(fleet, made)
    if out.explain:
        from gpucloud.cli.calls import remark
        from gpucloud.fleet.rehearsal import launch

        remark(launch(fleet, made))


def _tell(fleet: Fleet, made: Plan) -> None:
    for failure in made.failures:
        out.failure(failure)
    for line in describe(fleet, made):
        out.note(line)


def describe(fleet: Fleet, plan: Plan) -> list[str]:
    """What would be rented, what it can cost at worst, and who stops the meter if this computer dies."""
    from gpucloud.provider import Fuse

    best = plan.offers[0]
    others = f", else {len(plan.offers) - 1} other offers" if len(plan.offers) > 1 else ""
    lines = [f"plan: {plan.request.nodes} x {best.id} at ${best.usd_per_hour:.2f}/h{others}"]
    if best.availability_detail:
        lines.append(f"      its provider says: {best.availability_detail}")
    if best.minimum_s:
        least = format_duration(timedelta(seconds=best.minimum_s))
        lines.append(f"      billed for {least} at least, also if it ends before")
    lease = plan.lease(best)
    if lease is None:
        if plan.limits.lifted and not plan.free:
            lines.append("      NO LIMIT: it goes on, and costs, until gpucloud down")
        else:
            lines.append("      no limit: it goes on until gpucloud down")
        return lines
    if best.market is Market.RESERVED:
        lines.append("      it is paid for with its reservation, used or not")
    if best.market is Market.QUEUED:
        wait = format_duration(fleet.config.duration("launch.wait"))
        lines.append(f"      waits for capacity for at most {wait}, which costs nothing")
    fuse = fleet.registry.get(best.provider).traits.fuse
    without_us = {
        Fuse.PROVIDER: "its provider ends it, even if this computer dies",
        Fuse.HOST: "it ends itself, even if this computer dies",
        Fuse.POWER_OFF: "it powers itself off, but its disk may go on billing",
        Fuse.CLIENT: "its jobs end by themselves, but only gpucloud gives it back: put gpucloud reap in cron",
    }[fuse]
    limit = f"ends after {format_duration(lease)} at the latest, at worst for ${plan.worst_cost:.2f}"
    if plan.limits.idle is not None:
        limit += f", or when idle for {format_duration(plan.limits.idle)}"
    return [*lines, f"      {limit}", f"      level {fuse}: {without_us}"]


def agree(question: str, *, yes: bool) -> None:
    """Go on only when the person says yes. Raises ``UsageError`` when nobody can be asked, or says no."""
    if yes:
        return
    if not interactive():
        raise UsageError(
            "this needs somebody's consent",
            why="it spends or deletes something, and there is no terminal to ask at",
            hint="add --yes",
        )
    if not ask(question):
        raise UsageError(
            "nothing was done", why="the answer was no", hint="repeat it when you have made up your mind"
        )
