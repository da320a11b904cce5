"""Bringing the books and the providers' own listings into agreement. Silence is not absence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from gpucloud.errors import NotFound, ProviderError, TeardownUnconfirmed, UsageError
from gpucloud.fleet import Fleet
from gpucloud.fleet.end import end_rental, end_twin, find, lock_name, remove_resource, settle
from gpucloud.fleet.reserve import Held, held
from gpucloud.fleet.sharing import hang_up
from gpucloud.fleet.stop import stopped_rate
from gpucloud.market import list_instances, list_side_resources
from gpucloud.model import (
    BookingState,
    Cluster,
    ClusterState,
    Event,
    Failure,
    Instance,
    InstanceState,
    Market,
    Rental,
    RentalState,
    ReservationState,
    SideResource,
    utcnow,
)
from gpucloud.provider import Fuse, Provider

LASTING: Final = {ReservationState.PENDING, ReservationState.SCHEDULED, ReservationState.ACTIVE}
"""The states of reservations that are not over."""


class FindingKind(StrEnum):
    """What an instance is, seen from the books and from the listing."""

    RUNNING = "running"
    SHOULD_BE_GONE = "should-be-gone"
    RESERVED = "reserved"
    UNKNOWN = "unknown"
    VANISHED = "vanished"
    UNASKED = "unasked"
    NOT_OURS = "not-ours"


@dataclass(frozen=True, slots=True)
class Finding:
    """One instance, what bills beside one, or a rental. ``usd_per_hour`` is ``None`` when nobody states it.

    ``RESERVED``: a reservation, paid for apart. ``UNASKED``: the books have it, and its provider could not be
    asked.
    """

    kind: FindingKind
    provider: str
    instance_id: str | None
    token: str | None
    cluster: str | None
    usd_per_hour: Decimal | None
    detail: str
    instance: Instance | None = None
    resource: SideResource | None = None

    @property
    def unexplained(self) -> bool:
        """Whether it may bill although nothing in the books wants it."""
        return self.kind in {FindingKind.SHOULD_BE_GONE, FindingKind.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Report:
    """What ``fsck`` found; ``failures`` are the providers that could not be asked."""

    findings: tuple[Finding, ...]
    failures: tuple[Failure, ...]


def refresh(fleet: Fleet, cluster: Cluster) -> Cluster:
    """Ask the providers of a cluster whether its instances are still there, and note those that are not."""
    for rental in cluster.rentals:
        if rental.ref is None:
            continue
        instance = find(fleet.provider(rental), rental.token)
        if _absent(fleet, rental, instance):
            fleet.store.journal.gone(rental.token, _reason(instance), since=_expired_at(fleet, rental))
            hang_up(fleet, rental)
        elif instance is not None and instance.ref == rental.ref and not _at_work(fleet, cluster):
            _learn(fleet, rental, instance)
    return fleet.store.clusters.by_id(cluster.id)


def fsck(fleet: Fleet) -> Report:
    """Compare every provider's listing with the books, and correct the books where it proves them wrong.

    Nothing is changed at any provider.
    """
    asked = _providers(fleet)
    timeout_s = fleet.config.duration("offers.timeout").total_seconds()
    listed, failures = list_instances(asked, timeout_s)
    beside, unlisted = list_side_resources(asked, timeout_s)
    books = {rental.token: rental for rental in fleet.store.journal.rentals(gone=True)}
    findings = [
        _judge(fleet, instance, books.get(instance.token or ""))
        for instances in listed.values()
        for instance in instances
        if instance.alive
    ]
    shown = {instance.token: instance for instances in listed.values() for instance in instances}
    silent: dict[str, Failure] = {}
    for rental in books.values():
        instance = shown.get(rental.token)
        if rental.state is RentalState.GONE or (instance and instance.alive):
            continue
        try:
            asked_now = rental.provider in listed and rental.provider not in silent
            finding = _unlisted(fleet, rental, instance) if asked_now else _unasked(fleet, rental)
        except TeardownUnconfirmed as error:
            # It has listed once, and does so no more; that must not hide what the others have told.
            silent[rental.provider] = Failure(rental.provider, error.code, error.message, True)
            finding = _unasked(fleet, rental)
        findings += [finding] if finding else []
    places, unknown = held(fleet)
    findings += [found for each in places if (found := _reserved(fleet, each))]
    # The books may have learned just now that an instance is gone.
    living: set[str | None] = {rental.token for rental in fleet.store.journal.rentals()}
    living |= {each.token for instances in listed.values() for each in instances if each.alive}
    findings += [
        _left_behind(fleet, resource)
        for resources in beside.values()
        for resource in resources
        if resource.token not in living
    ]
    close_empty_clusters(fleet)
    return Report(tuple(findings), (*failures, *unlisted, *silent.values(), *unknown))


def rebuild(fleet: Fleet) -> Report:
    """Enter every instance that carries our tag into the books, after these were lost.

    The books count as whole again only when every provider could be asked.
    """
    report = fsck(fleet)
    for finding in report.findings:
        if finding.kind is FindingKind.UNKNOWN:
            try:
                adopt(fleet, finding)
            except UsageError as error:
                fleet.tell(Event("warning", f"{error.message}: {error.why}"))
    if not report.failures:
        fleet.store.db.set_needs_rebuild(False)
    return fsck(fleet)


def end_finding(fleet: Fleet, finding: Finding) -> None:
    """End what should be gone. Raises ``TeardownUnconfirmed`` when it is still there afterwards."""
    if finding.resource is not None:
        remove_resource(fleet, finding.resource)
        return
    assert finding.token is not None
    rental = fleet.store.journal.get(finding.token)
    instance = finding.instance
    if instance is not None and rental.ref is not None and instance.ref != rental.ref:
        end_twin(fleet, rental, instance)
    else:
        end_rental(fleet, rental, "fsck")


def forget(fleet: Fleet, finding: Finding) -> None:
    """Close the books of a rental that nobody can be asked about any more, because a person says so."""
    assert finding.token is not None
    why = "forgotten: its provider could not be asked"
    if any(booking.token == finding.token for booking in fleet.store.bookings.all()):
        fleet.store.bookings.failed(finding.token, why)
        return
    fleet.store.journal.gone(finding.token, why)
    close_empty_clusters(fleet)


def adopt(fleet: Fleet, finding: Finding) -> None:
    """Enter an instance with our tag into the books, under the cluster name on its tag.

    Its lease is that of its tag, else the usual one from now on: what costs must end.

    Raises:
        UsageError: when the name is in use by a cluster that has that rank already.
    """
    instance = finding.instance
    assert instance is not None and instance.token is not None
    name = instance.cluster or instance.token
    cluster = fleet.store.clusters.get(name)
    rank = instance.rank or 0
    if cluster is None:
        cluster = fleet.store.clusters.create(name, rank + 1, ephemeral=False)
    elif any(rental.rank == rank for rental in cluster.rentals):
        raise UsageError(
            f"{instance.ref.id} cannot be adopted as {name!r}",
            why=f"the books have another instance of rank {rank} under that name",
            hint="gpucloud fsck --fix, to end one of them",
        )
    longest = fleet.config.duration("launch.max_duration") if instance.usd_per_hour else None
    until = instance.expires_at or (utcnow() + longest if longest else None)
    fleet.store.journal.intend(replace(_adopted(instance, cluster, rank), expires_at=until))
    fleet.store.journal.accept(instance.token, instance)
    nodes = max(cluster.nodes, rank + 1)
    fleet.store.clusters.resize(cluster.id, nodes)
    if len(fleet.store.clusters.by_id(cluster.id).rentals) == nodes:
        fleet.store.clusters.update(cluster.id, ClusterState.READY)


def _adopted(instance: Instance, cluster: Cluster, rank: int) -> Rental:
    assert instance.token is not None
    return Rental(
        token=instance.token,
        cluster_id=cluster.id,
        rank=rank,
        state=RentalState.INTENDED,
        provider=instance.provider,
        instance_type=instance.instance_type or "unknown",
        market=instance.market or Market.ON_DEMAND,
        intended_at=instance.created_at or utcnow(),
        usd_per_hour=instance.usd_per_hour,
        region=instance.ref.region,
    )


def _providers(fleet: Fleet) -> list[Provider]:
    """Every configured provider, and every other one of which the books know."""
    known = {provider.name: provider for provider in fleet.registry.configured()}
    for rental in fleet.store.journal.rentals(gone=True):
        if rental.provider not in known:
            known[rental.provider] = fleet.registry.get(rental.provider)
    return [known[name] for name in sorted(known)]


def _judge(fleet: Fleet, instance: Instance, rental: Rental | None) -> Finding:
    """What a listed instance is; the books learn the id of one whose launch was cut off."""
    if rental is None:
        if instance.owner == fleet.owner:
            return _finding(
                FindingKind.UNKNOWN, instance, None, "carries our tag, but the books do not have it"
            )
        return _finding(
            FindingKind.NOT_OURS, instance, None, f"belongs to {instance.owner or 'somebody else'}"
        )
    if rental.state is RentalState.GONE:
        fleet.store.journal.reappeared(rental.token, instance)
        return _finding(FindingKind.SHOULD_BE_GONE, instance, rental, "was thought gone, but is listed")
    if rental.state is RentalState.ENDING:
        return _finding(FindingKind.SHOULD_BE_GONE, instance, rental, "its end was cut off")
    if rental.ref is not None and rental.ref != instance.ref:
        detail = f"was made twice by one launch; the books have {rental.ref.id}"
        return _finding(FindingKind.SHOULD_BE_GONE, instance, rental, detail)
    cluster = fleet.store.clusters.by_id(rental.cluster_id)
    if rental.ref is None and not _at_work(fleet, cluster):
        fleet.store.journal.accept(rental.token, instance)
    if not _at_work(fleet, cluster):
        _learn(fleet, rental, instance)
    detail = "stopped" if instance.state is InstanceState.STOPPED else "up"
    if instance.waiting:
        detail = "waits in its provider's queue, and costs nothing yet"
    if cluster.state is ClusterState.LAUNCHING and not _at_work(fleet, cluster):
        detail = (
            f"its launch was cut off: gpucloud launch --name {cluster.name} or gpucloud down {cluster.name}"
        )
    return _finding(FindingKind.RUNNING, instance, rental, detail)


def _learn(fleet: Fleet, rental: Rental, instance: Instance) -> None:
    """Enter what else a listing tells of a rental: its price, and whether it waits or is stopped."""
    fleet.store.journal.left_queue(rental.token, instance)
    stopped = instance.state is InstanceState.STOPPED
    if stopped:
        fleet.store.journal.stopped(rental.token, rate=stopped_rate(fleet.provider(rental), rental, instance))
    elif rental.state is RentalState.STOPPED and instance.state is InstanceState.RUNNING:
        fleet.store.journal.starting(rental.token)
    if rental.market is Market.SPOT and instance.usd_per_hour is not None and not stopped:
        fleet.store.journal.repriced(rental.token, instance.usd_per_hour)


def _unasked(fleet: Fleet, rental: Rental) -> Finding:
    cluster = fleet.store.clusters.by_id(rental.cluster_id)
    return _rented(FindingKind.UNASKED, rental, cluster, "its provider could not be asked")


def _left_behind(fleet: Fleet, resource: SideResource) -> Finding:
    """Something that bills although its instance is gone."""
    ours = resource.owner == fleet.owner
    kind = FindingKind.SHOULD_BE_GONE if ours else FindingKind.NOT_OURS
    detail = f"a {resource.kind}, left behind" if ours else f"belongs to {resource.owner or 'somebody else'}"
    return Finding(
        kind,
        resource.provider,
        resource.ref.id,
        resource.token,
        resource.cluster,
        resource.usd_per_hour,
        detail,
        resource=resource,
    )


def _reserved(fleet: Fleet, place: Held) -> Finding | None:
    """What was reserved and is not over, or may have been reserved."""
    told, booking = place.reservation, place.booking
    if booking and booking.state is BookingState.INTENDED:
        detail = "whether it was bought is not known"
        return Finding(
            FindingKind.UNASKED, booking.block.provider, None, booking.token, place.name, None, detail
        )
    if told is None or told.state not in LASTING:
        return None
    ours = told.owner == fleet.owner
    free = "" if told.free is None else f", {told.free} of {told.nodes} machines unused"
    detail = f"{told.state}{free}" if ours else f"belongs to {told.owner or 'somebody else'}"
    kind = FindingKind.RESERVED if ours else FindingKind.NOT_OURS
    return Finding(kind, told.provider, told.ref.id, told.token, place.name, Decimal(0), detail)


def _unlisted(fleet: Fleet, rental: Rental, instance: Instance | None) -> Finding | None:
    """What an open rental is that no listing shows alive; the books learn when it is proved to be gone."""
    cluster = fleet.store.clusters.by_id(rental.cluster_id)
    if _at_work(fleet, cluster):
        return None
    if rental.ref is None:
        # Its launch was cut off; a listing that lags would hide what it made.
        late = settle(fleet.provider(rental), rental.token)
        if late is not None:
            return _judge(fleet, late, rental)
        reason = "its launch was cut off before it was made"
    elif _absent(fleet, rental, instance):
        reason = _reason(instance)
    else:
        return _rented(FindingKind.RUNNING, rental, cluster, "rented a moment ago, and not yet listed")
    fleet.store.journal.gone(rental.token, reason, since=_expired_at(fleet, rental))
    return _rented(FindingKind.VANISHED, rental, cluster, f"{reason}; the books are closed")


def _rented(kind: FindingKind, rental: Rental, cluster: Cluster, detail: str) -> Finding:
    """A finding that only the books tell of."""
    instance_id = rental.ref.id if rental.ref else None
    price = Decimal(0) if kind is FindingKind.VANISHED else rental.usd_per_hour
    return Finding(kind, rental.provider, instance_id, rental.token, cluster.name, price, detail)


def _absent(fleet: Fleet, rental: Rental, instance: Instance | None) -> bool:
    """Whether it is proved that a rental is not there: no listing shows it, nor may it only lag."""
    if instance is not None:
        return not instance.alive
    provider = fleet.provider(rental)
    lag = timedelta(seconds=provider.traits.listing_lag_s)
    # Its age is told by a clock that somebody may have set, so the provider is asked for it by itself too.
    return utcnow() - rental.intended_at > lag and not _known(provider, rental)


def _known(provider: Provider, rental: Rental) -> bool:
    """Whether its provider may still know a rental by its id. Silence is not absence."""
    assert rental.ref is not None
    try:
        return provider.get(rental.ref).alive
    except NotFound:
        return False
    except ProviderError:
        return True


def _expired_at(fleet: Fleet, rental: Rental) -> datetime | None:
    """When its provider had ended a rental that is gone, at the latest; ``None`` when nothing tells."""
    if fleet.provider(rental).traits.fuse is not Fuse.PROVIDER or rental.expires_at is None:
        return None
    return rental.expires_at if rental.expires_at < utcnow() else None


def _reason(instance: Instance | None) -> str:
    if instance is not None and instance.interrupted:
        return "its provider took it back"
    return "its provider no longer lists it"


def _at_work(fleet: Fleet, cluster: Cluster) -> bool:
    return fleet.store.db.is_locked(lock_name(cluster.name))


def close_empty_clusters(fleet: Fleet) -> None:
    """Close the books of clusters that have nothing rented, and that nobody is at work on."""
    for cluster in fleet.store.clusters.living():
        if not cluster.rentals and not _at_work(fleet, cluster):
            fleet.store.clusters.update(cluster.id, ClusterState.ENDED)


def _finding(kind: FindingKind, instance: Instance, rental: Rental | None, detail: str) -> Finding:
    price = rental.usd_per_hour if rental else instance.usd_per_hour
    price = Decimal(0) if instance.waiting else price
    return Finding(
        kind,
        instance.provider,
        instance.ref.id,
        instance.token,
        instance.cluster,
        price,
        detail,
        instance,
    )
