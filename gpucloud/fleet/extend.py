"""More time for a cluster: agreed with the budgets first, then with the provider, then with the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from gpucloud.errors import BudgetRefused, RemoteError, Unsupported, UsageError
from gpucloud.fleet import Fleet
from gpucloud.fleet.budget import caps
from gpucloud.fleet.contact import connect, node_label, on_host, set_limits
from gpucloud.fleet.end import lock_name
from gpucloud.model import Cluster, Event, Limits, Rental, RentalState, utcnow
from gpucloud.provider import Fuse, MovesExpiry


@dataclass(frozen=True, slots=True)
class Extension:
    """What an extension comes to: when each rental ends, by token, and the most that all of it can cost."""

    cluster: Cluster
    ends: dict[str, datetime]
    limits: Limits
    worst_cost: Decimal | None


def extension(fleet: Fleet, cluster: Cluster, by: timedelta, max_cost: Decimal | None) -> Extension:
    """What it would come to.

    Raises:
        UsageError: when the cluster has no end that could be moved.
        Unsupported: when its provider ends it, and cannot be told another moment.
        BudgetRefused: when its own limit on the cost does not allow it.
    """
    if not cluster.rentals or any(rental.expires_at is None for rental in cluster.rentals):
        raise UsageError(
            f"{cluster.name} has no end that could be moved", why="it has no lease", hint="gpucloud ps"
        )
    for rental in cluster.rentals:
        provider = fleet.provider(rental)
        if provider.traits.fuse is Fuse.PROVIDER and not isinstance(provider, MovesExpiry):
            raise Unsupported(
                f"{cluster.name} cannot be extended",
                provider=provider.name,
                why=f"{provider.name} ends it at the moment that was agreed at its launch",
                hint="bring home what is on it, and launch anew with a longer --max-duration",
            )
    now = utcnow()
    ends = {rental.token: max(rental.expires_at or now, now) + by for rental in cluster.rentals}
    worst = _worst(fleet, cluster, ends)
    limit = max_cost if max_cost is not None else cluster.limits.max_cost
    if worst is not None and limit is not None and worst > limit:
        raise BudgetRefused(
            f"{cluster.name} could cost ${worst:.4f} then",
            why=f"its limit is ${limit:f}",
            hint=f"add --max-cost {worst.quantize(Decimal(1)) + 1}",
        )
    longest = cluster.limits.max_duration
    limits = replace(cluster.limits, max_cost=limit, max_duration=longest + by if longest else None)
    return Extension(cluster, ends, limits, worst)


def extend(fleet: Fleet, cluster: Cluster, by: timedelta, max_cost: Decimal | None) -> Cluster:
    """Move the end of a cluster. Raises what ``extension`` raises, ``Locked``, and ``ProviderError``."""
    with fleet.store.db.lock(lock_name(cluster.name)):
        agreed = extension(fleet, fleet.store.clusters.by_id(cluster.id), by, max_cost)
        rules = caps(fleet.config, utcnow())
        fleet.store.clusters.hold(cluster.id, agreed.worst_cost, rules, agreed.limits)
        for rental in agreed.cluster.rentals:
            _move(fleet, rental, agreed.ends[rental.token])
        cluster = fleet.store.clusters.by_id(cluster.id)
        for rental in cluster.rentals:
            _tell_host(fleet, cluster, rental)
        return cluster


def _worst(fleet: Fleet, cluster: Cluster, ends: dict[str, datetime]) -> Decimal | None:
    """The most that the cluster can cost in all; ``None`` when nothing bounds it."""
    most = fleet.store.journal.worst_cost(cluster.id)
    for rental in cluster.rentals:
        before, after = rental.worst_cost, replace(rental, expires_at=ends[rental.token]).worst_cost
        if most is None or before is None or after is None:
            return None
        most += after - before
    return most


def _move(fleet: Fleet, rental: Rental, until: datetime) -> None:
    provider = fleet.provider(rental)
    if isinstance(provider, MovesExpiry) and rental.ref is not None:
        provider.expire(rental.ref, until)
    # A crash before this leaves an end in the books that is too early, which costs nothing.
    fleet.store.journal.extended(rental.token, until)


def _tell_host(fleet: Fleet, cluster: Cluster, rental: Rental) -> None:
    if rental.state is not RentalState.REACHABLE or rental.ssh is None:
        return
    label = node_label(cluster, rental.rank)
    try:
        with connect(fleet, rental, label) as connection:
            set_limits(on_host(connection, rental), rental.expires_at, cluster.limits.idle)
    except RemoteError as error:
        warning = f"{label} ends its jobs at the old time, as it could not be told: {error.message}"
        fleet.tell(Event("warning", warning))
