"""``gpucloud ps`` and ``gpucloud down``: what is rented, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.consent import agree
from gpucloud.cli.options import DryRun, Yes, parsed
from gpucloud.cli.render import money, out
from gpucloud.errors import UsageError
from gpucloud.model import Cluster, Rental, utcnow
from gpucloud.quantities import format_duration, parse_duration

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet

COLUMNS = ("NAME", "STATE", "NODES", "PROVIDER", "TYPE", "GPU", "$/H", "$ SPENT", "UP", "ENDS IN")


@app.command()
def ps(
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the providers whether it is still so.")
    ] = False,
) -> None:
    """What is rented, what it costs, and until when.

    Example: gpucloud ps --json
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.reconcile import refresh as look

    here = fleet()
    clusters = here.store.clusters.living()
    if refresh:
        clusters = [look(here, cluster) for cluster in clusters]
    if out.json:
        out.document(
            "ps",
            clusters=[to_json(here, cluster) for cluster in clusters],
            usd_per_hour=money(total_rate(here, clusters)),
            failures=[],
        )
    else:
        out.table(COLUMNS, [_to_row(here, cluster) for cluster in clusters])
        if clusters:
            out.note(_burning(here, clusters))


@app.command()
def down(
    names: Annotated[
        list[str], typer.Argument(help="Clusters; 'eval-*' for all of such names.", metavar="NAME...")
    ] = [],  # noqa: B006
    everything: Annotated[bool, typer.Option("--all", help="Every cluster.")] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="Of these, only what is older: 90m, 2d.")
    ] = "",
    discard_outputs: Annotated[
        bool, typer.Option("--discard-outputs", help="Do not bring declared outputs home first.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """End machines and wait for the proof that they are gone; outputs come home first.

    Example: gpucloud down train --yes
    """
    from gpucloud.cli.context import find_clusters, fleet

    here = fleet()
    if bool(names) == everything:
        raise UsageError("which clusters?", why="give names, or --all", hint="gpucloud ps")
    age = parsed("--older-than", older_than, parse_duration) or timedelta()
    found = here.store.clusters.living() if everything else find_clusters(here, names)
    clusters = [cluster for cluster in found if utcnow() - cluster.created_at >= age]
    for cluster in clusters:
        out.note(_plan(here, cluster))
    if clusters and not dry_run:
        agree("End them and delete what is on them?" if len(clusters) > 1 else "End it?", yes=yes)
        clusters = _end_all(here, clusters, discard_outputs=discard_outputs)
    elif out.explain:
        from gpucloud.cli.calls import remark
        from gpucloud.fleet import rehearsal

        remark(rehearsal.end(here, clusters))
    if out.json:
        out.document("down", clusters=[to_json(here, cluster) for cluster in clusters], failures=[])


def _end_all(fleet: Fleet, clusters: Sequence[Cluster], *, discard_outputs: bool) -> list[Cluster]:
    """End each, also when another could not be ended; the first failure is raised at last."""
    from gpucloud.errors import GpucloudError

    ended, failed = [], []
    for cluster in clusters:
        try:
            ended.append(_end(fleet, cluster, discard_outputs=discard_outputs))
        except GpucloudError as error:
            failed.append(error)
    for other in failed[1:]:
        out.note(f"{other.message}: {other.why}")
    if failed:
        raise failed[0]
    return ended


def total_rate(fleet: Fleet, clusters: Sequence[Cluster]) -> Decimal | None:
    """What all of them bill an hour now; ``None`` when a price is not known."""
    rates = [fleet.store.ledger.rate(cluster.id) for cluster in clusters]
    return None if None in rates else sum((rate for rate in rates if rate is not None), Decimal(0))


def _burning(fleet: Fleet, clusters: Sequence[Cluster]) -> str:
    rate = total_rate(fleet, clusters)
    return "together an unknown amount an hour" if rate is None else f"together ${rate:.2f} an hour"


def _plan(fleet: Fleet, cluster: Cluster) -> str:
    running = [job.id for job in fleet.store.jobs.of(cluster) if not job.state.over]
    jobs = f"; ends {', '.join(running)}" if running else ""
    where = ", ".join(f"{r.provider} {r.ref.id if r.ref else 'not yet made'}" for r in cluster.rentals)
    return f"down {cluster.name}: {where or 'nothing is rented'}; its files there are deleted{jobs}"


def _end(fleet: Fleet, cluster: Cluster, *, discard_outputs: bool) -> Cluster:
    """Bring outputs home, end it, and say what it has cost."""
    from gpucloud.fleet.end import end_cluster
    from gpucloud.jobs.wrap_up import close_jobs, rescue_outputs

    if not discard_outputs:
        rescue_outputs(fleet, cluster)
    ended = end_cluster(fleet, cluster, "down")
    close_jobs(fleet, ended)
    cost = fleet.store.ledger.cost(ended.id)
    out.note(f"{ended.name} is gone, confirmed; cost {'unknown' if cost is None else f'${cost:.4f}'}")
    return ended


def to_json(fleet: Fleet, cluster: Cluster) -> dict[str, object]:
    """One cluster as the schema ``gpucloud.ps/1`` has it."""
    return {
        "name": cluster.name,
        "state": cluster.state,
        "created_at": cluster.created_at,
        "ended_at": cluster.ended_at,
        "usd_per_hour": money(fleet.store.ledger.rate(cluster.id)),
        "cost": money(fleet.store.ledger.cost(cluster.id)),
        "held": money(cluster.held),
        "currency": "USD",
        "project": cluster.labels.project or None,
        "user": cluster.labels.user or None,
        "tags": cluster.labels.tags,
        "max_cost": money(cluster.limits.max_cost),
        "idle_s": cluster.limits.idle and round(cluster.limits.idle.total_seconds()),
        "nodes": [_node(rental) for rental in cluster.rentals],
        "jobs": [job.id for job in fleet.store.jobs.of(cluster)],
    }


def _node(rental: Rental) -> dict[str, object]:
    return {
        "rank": rental.rank,
        "state": rental.state,
        "provider": rental.provider,
        "instance_id": rental.ref.id if rental.ref else None,
        "instance_type": rental.instance_type,
        "region": rental.region,
        "zone": rental.zone,
        "market": rental.market,
        "gpu": str(rental.gpu) if rental.gpu else None,
        "gpu_count": rental.gpu_count,
        "usd_per_hour": money(rental.usd_per_hour),
        "currency": rental.currency,
        "amount": money(rental.amount),
        "token": rental.token,
        "expires_at": rental.expires_at,
        "ssh": {"host": rental.ssh.host, "port": rental.ssh.port, "user": rental.ssh.user}
        if rental.ssh
        else None,
        "host_key": rental.host_key,
        "host_key_source": rental.host_key_source,
    }


def _to_row(fleet: Fleet, cluster: Cluster) -> tuple[object, ...]:
    first = cluster.rentals[0] if cluster.rentals else None
    price, cost = fleet.store.ledger.rate(cluster.id), fleet.store.ledger.cost(cluster.id)
    expiry = min((r.expires_at for r in cluster.rentals if r.expires_at), default=None)
    return (
        cluster.name,
        cluster.state,
        cluster.nodes,
        first.provider if first else None,
        first.instance_type if first else None,
        f"{first.gpu_count} x {first.gpu}" if first and first.gpu else None,
        None if price is None else f"{price:.2f}",
        None if cost is None else f"{cost:.2f}",
        format_duration(utcnow() - cluster.created_at),
        format_duration(expiry - utcnow()) if expiry else None,
    )
