"""Ending with proof: a rental is gone only when a listing no longer shows it."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Final

from gpucloud.errors import (
    NotFound,
    ProviderError,
    RateLimited,
    RemoteError,
    TeardownUnconfirmed,
    Unreachable,
)
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import connect, on_host, poll
from gpucloud.model import Cluster, ClusterState, Event, Instance, Rental
from gpucloud.parallel import results, run_all
from gpucloud.provider import Provider

PASSING = (Unreachable, RateLimited)
"""Failures of a provider that may be over a moment later."""


LOCK_WAIT_S: Final = 60
"""How long an end waits for another process that is at work on the cluster, perhaps ending it too."""


def lock_name(name: str) -> str:
    """The lock that whoever launches or ends the cluster of that name must hold."""
    return f"cluster-{name}"


def end_cluster(fleet: Fleet, cluster: Cluster, reason: str) -> Cluster:
    """End a cluster, or find that somebody else just has. Raises what ``end`` raises, and ``Locked``."""
    with fleet.store.db.lock(lock_name(cluster.name), wait_s=LOCK_WAIT_S):
        current = fleet.store.clusters.by_id(cluster.id)
        return current if current.state is ClusterState.ENDED else end(fleet, current, reason)


def end(fleet: Fleet, cluster: Cluster, reason: str) -> Cluster:
    """End every instance of a cluster, at once, and wait for the proof. The caller holds the cluster's lock.

    Raises:
        TeardownUnconfirmed: when at least one may still be billing.
    """
    cluster = fleet.store.clusters.update(cluster.id, ClusterState.ENDING)
    results(run_all({r.token: partial(end_rental, fleet, r, reason) for r in cluster.rentals}))
    return fleet.store.clusters.update(cluster.id, ClusterState.ENDED)


def end_rental(fleet: Fleet, rental: Rental, reason: str) -> None:
    """End one instance and wait until a listing no longer shows it.

    Raises:
        TeardownUnconfirmed: when there is no such proof within ``launch.end_timeout``.
    """
    provider = fleet.provider(rental)
    deadline = fleet.config.duration("launch.end_timeout")
    label = f"{rental.provider} {rental.ref.id if rental.ref else rental.token}"
    if rental.ref is None:
        instance = settle(provider, rental.token)
        if instance is None:
            fleet.store.journal.gone(rental.token, "it was never there")
            return
        fleet.store.journal.accept(rental.token, instance)
        rental = fleet.store.journal.get(rental.token)
    fleet.store.journal.ending(rental.token, reason)
    fleet.tell(Event("ending", f"{label}: ending ({reason})"))
    if provider.traits.outlives_instance:
        _clean(fleet, rental, label)
    if poll(lambda: _ended(provider, rental), deadline) is None:
        raise _unconfirmed(label, f"it is still listed after {deadline}")
    fleet.store.journal.gone(rental.token, reason)
    fleet.tell(Event("gone", f"{label}: gone, and no longer listed"))


def settle(provider: Provider, token: str) -> Instance | None:
    """Find out by listing whether a create whose answer was lost has made an instance.

    Returns ``None`` only when listings went on not to show it for longer than they may lag.

    Raises:
        TeardownUnconfirmed: when the listing could not be had, so that an instance may be billing.
    """
    lag = timedelta(seconds=provider.traits.listing_lag_s)
    try:
        found = poll(lambda: find(provider, token), lag)
        # The last look must begin after the lag has passed.
        return found or find(provider, token)
    except ProviderError as error:
        raise _unconfirmed(
            f"{provider.name}: whether {token} was launched is not known",
            f"the listing failed: {error.message}",
        ) from error


def find(provider: Provider, token: str) -> Instance | None:
    """The instance with that token in one listing."""
    return next((instance for instance in provider.instances() if instance.token == token), None)


def _ended(provider: Provider, rental: Rental) -> bool | None:
    assert rental.ref is not None
    try:
        provider.terminate(rental.ref)
        instance = find(provider, rental.token)
    except NotFound:
        instance = None
    except PASSING:
        return None
    return True if instance is None or not instance.alive else None


def _clean(fleet: Fleet, rental: Rental, label: str) -> None:
    """Take our jobs and files off a machine that goes on without us."""
    try:
        with connect(fleet, rental, label, wait=False) as connection:
            on_host(connection, rental).clean()
    except RemoteError as error:
        if rental.host_key is None:
            return  # we never got in, so there is nothing of ours
        raise TeardownUnconfirmed(
            f"{label} could not be cleaned up, so it stays taken",
            why=f"{error.message}: {error.why}",
            hint="bring it back up and repeat, or take it out of your configuration and run gpucloud fsck",
        ) from error


def _unconfirmed(what: str, why: str) -> TeardownUnconfirmed:
    return TeardownUnconfirmed(
        f"{what}: it may still be billing",
        why=why,
        hint="gpucloud fsck --fix, or end it in the provider's console",
    )
