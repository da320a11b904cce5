"""``gpucloud ps`` and ``gpucloud down``: what is rented, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.consent import agree
from gpucloud.cli.options import Yes
from gpucloud.cli.render import money, out
from gpucloud.errors import UsageError
from gpucloud.model import Cluster, Rental, utcnow
from gpucloud.quantities import format_duration

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
        out.document("ps", clusters=[to_json(here, cluster) for cluster in clusters], failures=[])
    else:
        out.table(COLUMNS, [_to_row(here, cluster) for cluster in clusters])


@app.command()
def down(
    names: Annotated[list[str], typer.Argument(help="Clusters.", metavar="NAME...")] = [],  # noqa: B006
    everything: Annotated[bool, typer.Option("--all", help="Every cluster.")] = False,
    discard_outputs: Annotated[
        bool, typer.Option("--discard-outputs", help="Do not bring declared outputs home first.")
    ] = False,
    yes: Yes = False,
) -> None:
    """End machines and wait for the proof that they are gone; outputs come home first.

    Example: gpucloud down train --yes
    """
    from gpucloud.cli.context import find_cluster, fleet

    here = fleet()
    if bool(names) == everything:
        raise UsageError("which clusters?", why="give names, or --all", hint="gpucloud ps")
    clusters = here.store.clusters.living() if everything else [find_cluster(here, name) for name in names]
    for cluster in clusters:
        out.note(_plan(here, cluster))
    if clusters:
        agree("End them and delete what is on them?" if len(clusters) > 1 else "End it?", yes=yes)
    ended = [_end(here, cluster, discard_outputs=discard_outputs) for cluster in clusters]
    if out.json:
        out.document("down", clusters=[to_json(here, cluster) for cluster in ended], failures=[])


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
        "usd_per_hour": money(cluster.usd_per_hour),
        "cost": money(fleet.store.ledger.cost(cluster.id)),
        "currency": "USD",
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
    price, cost = cluster.usd_per_hour, fleet.store.ledger.cost(cluster.id)
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
