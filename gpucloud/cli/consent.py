"""Plans are shown before anything is spent or deleted, and somebody has to agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpucloud.cli.render import ask, interactive, out
from gpucloud.errors import UsageError
from gpucloud.quantities import format_duration

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.plan import LaunchRequest, Plan
    from gpucloud.model import Cluster


def obtain(fleet: Fleet, request: LaunchRequest, references: Sequence[str], *, yes: bool) -> Cluster | Plan:
    """The cluster of that name if it is up; otherwise a plan that the person has agreed to."""
    from gpucloud.fleet.launch import existing
    from gpucloud.fleet.plan import plan

    cluster = existing(fleet, request)
    if cluster:
        out.note(f"{cluster.name} is up and is used again")
        return cluster
    made = plan(fleet, request, references)
    for failure in made.failures:
        out.failure(failure)
    for line in describe(fleet, made):
        out.note(line)
    if not made.free:
        agree(f"Rent it, for at most ${made.worst_cost:.2f}?", yes=yes)
    return made


def describe(fleet: Fleet, plan: Plan) -> list[str]:
    """What would be rented, what it can cost at worst, and who stops the meter if this computer dies."""
    from gpucloud.provider import Fuse

    best = plan.offers[0]
    others = f", else {len(plan.offers) - 1} other offers" if len(plan.offers) > 1 else ""
    lines = [f"plan: {plan.request.nodes} x {best.id} at ${best.usd_per_hour:.2f}/h{others}"]
    lease = plan.lease(best)
    if lease is None:
        return [*lines, "      no limit: it goes on until gpucloud down"]
    fuse = fleet.registry.get(best.provider).traits.fuse
    without_us = {
        Fuse.PROVIDER: "its provider ends it, even if this computer dies",
        Fuse.HOST: "it ends itself, even if this computer dies",
        Fuse.POWER_OFF: "it powers itself off, but its disk may go on billing",
        Fuse.CLIENT: "its jobs end by themselves, but only gpucloud down gives it back",
    }[fuse]
    limit = f"ends after {format_duration(lease)} at the latest, at worst for ${plan.worst_cost:.2f}"
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
