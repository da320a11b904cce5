"""Ending with proof: a rental is gone only when a listing no longer shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

from gpucloud.errors import (
    BadReply,
    ProviderError,
    RateLimited,
    RemoteError,
    TeardownUnconfirmed,
    Unreachable,
)
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import connect, on_host, poll
from gpucloud.fleet.sharing import hang_up
from gpucloud.fleet.ssh_config import update_config
from gpucloud.model import Cluster, ClusterState, Event, Instance, Rental, SideResource, utcnow
from gpucloud.parallel import results, run_all
from gpucloud.provider import HasSideResources, Provider

T = TypeVar("T")

PASSING = (Unreachable, RateLimited, BadReply)
"""Failures of a provider that may be over a moment later."""

BY_HAND: Final = "end it in the provider's console"

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
    cluster = fleet.store.clusters.update(cluster.id, ClusterState.ENDED)
    update_config(fleet)
    return cluster


def end_rental(fleet: Fleet, rental: Rental, reason: str) -> None:
    """End one instance and wait until a listing no longer shows it.

    Raises:
        TeardownUnconfirmed: when there is no such proof within ``launch.end_timeout``.
    """
    provider = fleet.provider(rental)
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
    _prove(fleet, _Ending(provider, rental).attempt, partial(_unconfirmed, provider, rental))
    hang_up(fleet, rental)
    fleet.store.journal.gone(rental.token, reason)
    fleet.tell(Event("gone", f"{label}: gone, and no longer listed"))


def settle(provider: Provider, token: str) -> Instance | None:
    """Find out by listing whether a create whose answer was lost has made an instance.

    Returns ``None`` only when listings went on not to show it for longer than they may lag.

    Raises:
        TeardownUnconfirmed: when the listing could not be had, so that an instance may be billing.
    """
    return listed(provider, partial(find, provider, token), f"whether {token} was launched")


def listed(provider: Provider, look: Callable[[], T | None], doubt: str) -> T | None:
    """What ``look`` finds in a listing; ``None`` only once a listing could not lack it any more.

    Raises:
        TeardownUnconfirmed: when the listing could not be had, which leaves the ``doubt``.
    """
    lag = timedelta(seconds=provider.traits.listing_lag_s)
    try:
        # The last look must begin after the lag has passed.
        return poll(look, lag) or look()
    except ProviderError as error:
        raise TeardownUnconfirmed(
            f"{provider.name}: {doubt} is not known: it may be billing",
            why=f"the listing failed: {error.message}",
            hint="gpucloud fsck, as soon as the provider answers",
        ) from error


def find(provider: Provider, token: str) -> Instance | None:
    """The instance with that token in one listing; of several one that lives."""
    found = [instance for instance in provider.instances() if instance.token == token]
    return next((instance for instance in found if instance.alive), found[0] if found else None)


def beside(provider: Provider, token: str) -> list[SideResource]:
    """What bills beside the instance with that token, in one listing."""
    if not isinstance(provider, HasSideResources):
        return []
    return [resource for resource in provider.side_resources() if resource.token == token]


@dataclass(slots=True)
class _Ending:
    """Attempts to end a rental until listings show nothing of it; ``seen``: one has shown it.

    A vendor may have made two instances by one launch, may leave behind what it made for them, and may not
    list, or not know, what it has just made.
    """

    provider: Provider
    rental: Rental
    seen: bool = False

    def attempt(self) -> list[str]:
        """End what there is; returns what is still there, in words."""
        assert self.rental.ref is not None
        before = self._listed()
        self.seen = self.seen or bool(before)
        for ref in {self.rental.ref, *(instance.ref for instance in before)}:
            self.provider.terminate(ref)
        alive = [instance for instance in self._listed() if instance.alive]
        if alive:
            return [f"{each.ref.id} is still listed as {each.state}" for each in alive]
        lag = timedelta(seconds=self.provider.traits.listing_lag_s)
        if not self.seen and utcnow() - self.rental.intended_at <= lag:
            return ["it was launched a moment ago, and may not be listed yet"]
        return self._remove_rest()

    def _remove_rest(self) -> list[str]:
        if not isinstance(self.provider, HasSideResources):
            return []
        for resource in beside(self.provider, self.rental.token):
            self.provider.remove(resource)
        rest = beside(self.provider, self.rental.token)
        return [f"its {each.kind} {each.ref.id} is still listed" for each in rest]

    def _listed(self) -> list[Instance]:
        return [instance for instance in self.provider.instances() if instance.token == self.rental.token]


def end_twins(fleet: Fleet, rental: Rental) -> None:
    """End what else one launch may have made, if it is listed already. Raises ``TeardownUnconfirmed``."""
    try:
        listed = [each for each in fleet.provider(rental).instances() if each.token == rental.token]
    except ProviderError as error:
        fleet.tell(Event("warning", f"whether {rental.token} was made twice is not known: {error.message}"))
        return
    for instance in listed:
        if instance.ref != rental.ref and instance.alive:
            fleet.tell(Event("twice", f"one launch has made {instance.ref.id} too, which is ended"))
            end_twin(fleet, rental, instance)


def end_twin(fleet: Fleet, rental: Rental, instance: Instance) -> None:
    """End a second instance that one launch has made. Raises ``TeardownUnconfirmed``."""
    provider = fleet.provider(rental)
    fleet.store.journal.note(rental.token, "ending-twin", instance.ref.id)

    def attempt() -> list[str]:
        provider.terminate(instance.ref)
        shown = (each for each in provider.instances() if each.ref == instance.ref and each.alive)
        return [f"{each.ref.id} is still listed as {each.state}" for each in shown]

    _prove(fleet, attempt, partial(_unconfirmed, provider, replace(rental, ref=instance.ref)))


def remove_left_behind(fleet: Fleet, provider: Provider, token: str) -> None:
    """Delete what a launch that failed has made beside its instance. Raises ``TeardownUnconfirmed``."""
    try:
        resources = beside(provider, token)
    except ProviderError as error:
        fleet.tell(Event("warning", f"whether {token} left anything behind is not known: {error.message}"))
        return
    for resource in resources:
        fleet.tell(
            Event("removing", f"the {resource.kind} {resource.ref.id} that a failed launch left behind")
        )
        remove_resource(fleet, resource)


def remove_resource(fleet: Fleet, resource: SideResource) -> None:
    """Delete what bills beside an instance that is gone. Raises ``TeardownUnconfirmed``."""
    provider = fleet.registry.get(resource.provider)
    assert isinstance(provider, HasSideResources)

    def attempt() -> list[str]:
        provider.remove(resource)
        shown = any(each.ref == resource.ref for each in provider.side_resources())
        return ["it is still listed"] if shown else []

    def unconfirmed(why: str) -> TeardownUnconfirmed:
        what = f"the {resource.kind} {resource.ref.id} of {resource.provider} may still be billing"
        return TeardownUnconfirmed(what, why=why, hint=f"gpucloud fsck --fix, or {BY_HAND}")

    _prove(fleet, attempt, unconfirmed)


def _prove(
    fleet: Fleet, attempt: Callable[[], list[str]], unconfirmed: Callable[[str], TeardownUnconfirmed]
) -> None:
    """Repeat an attempt to end something until it finds nothing left. Raises what ``unconfirmed`` makes."""
    deadline, left = fleet.config.duration("launch.end_timeout"), list[str]()

    def over() -> bool | None:
        try:
            left[:] = attempt()
        except PASSING as error:
            left[:] = [error.message]
        except ProviderError as error:
            raise unconfirmed(f"{error.message}: {error.why}") from error
        return None if left else True

    if poll(over, deadline) is None:
        raise unconfirmed(f"{', '.join(left)} after {deadline}")


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


def _unconfirmed(provider: Provider, rental: Rental, why: str) -> TeardownUnconfirmed:
    """What to do when nothing proves the end: our command, the vendor's own, and the page for it."""
    assert rental.ref is not None
    place = {"id": rental.ref.id, "region": rental.ref.region or ""}
    traits = provider.traits
    ways = [text.format(**place) for text in (traits.end_command, traits.console) if text]
    return TeardownUnconfirmed(
        f"{rental.provider} {rental.ref.id}: it may still be billing",
        why=why,
        hint=", or ".join(["gpucloud fsck --fix", *ways] if ways else ["gpucloud fsck --fix", BY_HAND]),
    )
