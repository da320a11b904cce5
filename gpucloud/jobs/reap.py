"""End what must end: when a lease is over, the money spent, a machine idle, or an end was cut off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from gpucloud.errors import GpucloudError, OutputsNotVerified, ProviderError, RemoteError
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import MARGIN_S, Contacts
from gpucloud.fleet.end import end_cluster, lock_name
from gpucloud.fleet.reconcile import close_empty_clusters, refresh
from gpucloud.jobs.wrap_up import close_jobs, rescue_outputs
from gpucloud.model import Cluster, ClusterState, Event, Market, utcnow
from gpucloud.parallel import results, run_all

if TYPE_CHECKING:
    from gpucloud.remote.host import Vitals

GRACE = timedelta(minutes=5)
"""How long a ``run`` that is at work may take to end its own cluster once its lease is over."""


@dataclass(frozen=True, slots=True)
class Due:
    """A cluster that must end, and why."""

    cluster: Cluster
    reason: str


def due(fleet: Fleet) -> list[Due]:
    """What must end now. Machines and providers are asked only where idleness or a spot price is in question.

    Raises nothing for a machine that cannot be asked: its lease will end it.
    """
    close_empty_clusters(fleet)
    now = utcnow()
    left_alone = [each for each in fleet.store.clusters.living() if not _looked_after(fleet, each, now)]
    reasons = results(run_all({each.id: partial(_reason, fleet, each, now) for each in left_alone}))
    return [Due(each, reasons[each.id]) for each in left_alone if reasons[each.id]]


def reap(fleet: Fleet, what: list[Due]) -> list[GpucloudError]:
    """End these, at once, outputs first; returns what went wrong with some of them."""
    done = run_all({each.cluster.id: partial(_end, fleet, each) for each in what})
    errors = []
    for error in done.values():
        if isinstance(error, GpucloudError):
            errors.append(error)
        elif isinstance(error, BaseException):
            raise error
    return errors


def _end(fleet: Fleet, each: Due) -> None:
    """The limit was agreed on, so it holds also for a machine that cannot tell its outputs any more."""
    fleet.tell(Event("reaping", f"{each.cluster.name}: {each.reason}"))
    try:
        rescue_outputs(fleet, each.cluster)
    except (OutputsNotVerified, ProviderError, RemoteError) as error:
        fleet.tell(Event("warning", f"{each.cluster.name} ends without its outputs: {error.why}"))
    close_jobs(fleet, end_cluster(fleet, each.cluster, each.reason))


def _reason(fleet: Fleet, cluster: Cluster, now: datetime) -> str:
    """Why it must end, the surest reason first; empty when it need not."""
    if cluster.state is ClusterState.ENDING:
        return "its end had been cut off"
    if any(end <= now for end in _ends(cluster)):
        return "its lease is over"
    limit = cluster.limits.max_cost
    if limit is not None:
        if any(rental.market is Market.SPOT for rental in cluster.rentals):
            cluster = _repriced(fleet, cluster)
        cost = fleet.store.ledger.cost(cluster.id)
        if cost is not None and cost >= limit:
            return f"it has cost its ${limit:f}"
    idle = cluster.limits.idle
    if idle is not None and cluster.state is ClusterState.READY and now - cluster.created_at >= idle:
        return _idle(fleet, cluster, idle)
    return ""


def _ends(cluster: Cluster) -> Iterator[datetime]:
    """A little before their providers end them, so that what is on them can still be brought home."""
    for rental in cluster.rentals:
        if rental.expires_at is not None and rental.lease is not None:
            yield rental.expires_at - min(timedelta(seconds=MARGIN_S), rental.lease / 10)


def _repriced(fleet: Fleet, cluster: Cluster) -> Cluster:
    try:
        return refresh(fleet, cluster)
    except ProviderError as error:
        fleet.tell(Event("warning", f"{cluster.name}: its price now is not known: {error.message}"))
        return cluster


def _idle(fleet: Fleet, cluster: Cluster, limit: timedelta) -> str:
    """Whether no machine of it has done anything for so long."""
    try:
        with Contacts(fleet, cluster) as contacts:
            idled = idle_for(contacts.host(rank).vitals() for rank in contacts.ranks)
    except RemoteError as error:
        fleet.tell(Event("warning", f"{cluster.name}: whether it idles is not known: {error.message}"))
        return ""
    return f"it has done nothing for {idled}" if idled >= limit else ""


def idle_for(nodes: Iterable[Vitals]) -> timedelta:
    """For how long none has done anything; where sessions cannot be seen, somebody may be at work."""
    idled = (vitals.idle_for_s if vitals.sessions_known else 0 for vitals in nodes)
    return timedelta(seconds=min(idled, default=0))


def _looked_after(fleet: Fleet, cluster: Cluster, now: datetime) -> bool:
    """Whether somebody is at work on it who will end it, unless that takes too long."""
    if fleet.store.db.is_locked(lock_name(cluster.name)):
        return True
    late = all(rental.expires_at and rental.expires_at + GRACE < now for rental in cluster.rentals)
    return fleet.store.db.is_locked(f"run-{cluster.name}") and not (cluster.rentals and late)
