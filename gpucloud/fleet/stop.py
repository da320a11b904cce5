"""Stopping where that saves money, and starting again: the disk stays, and so do name and lease."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

from gpucloud.errors import (
    BalanceExhausted,
    BudgetRefused,
    HostUnreachable,
    NoCapacity,
    NothingMatched,
    ProviderError,
    QuotaExceeded,
    TeardownUnconfirmed,
    Unsupported,
    UsageError,
)
from gpucloud.fleet import Fleet
from gpucloud.fleet.budget import caps
from gpucloud.fleet.contact import node_label, poll, reach
from gpucloud.fleet.end import PASSING, beside, find, lock_name
from gpucloud.fleet.origin import admitted_anew
from gpucloud.fleet.sharing import hang_up
from gpucloud.model import (
    Cluster,
    ClusterState,
    Event,
    Instance,
    InstanceState,
    Rental,
    RentalState,
    SideResource,
    over_time,
    utcnow,
)
from gpucloud.parallel import results, run_all
from gpucloud.provider import Provider, StoppedBilling, Stops

HALTED: Final = frozenset({InstanceState.STOPPING, InstanceState.STOPPED})
SAVING: Final = frozenset({StoppedBilling.NONE, StoppedBilling.STORAGE})
REFUSALS: Final = (NoCapacity, QuotaExceeded, BalanceExhausted)
"""By these a provider says that it has started nothing."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What a rental bills per hour while it runs, and while it is stopped. ``None`` is not known.

    ``beside`` is what its provider lists by itself, such as its disk, and goes on billing for.
    """

    rental: Rental
    running: Decimal | None
    stopped: Decimal | None
    beside: tuple[SideResource, ...] = ()

    @property
    def saved(self) -> Decimal | None:
        """What a stop saves per hour."""
        if self.running is None or self.stopped is None:
            return None
        return max(self.running - self.stopped, Decimal(0))


def savings(fleet: Fleet, cluster: Cluster, *, force: bool = False) -> tuple[Saving, ...]:
    """What stopping each node would save. Raises as ``check_stop`` does, and where that is nothing."""
    check_stop(fleet, cluster, force=force)
    found = tuple(_saving(fleet, rental) for rental in cluster.rentals)
    for each in found:
        if each.saved == 0:
            raise Unsupported(
                f"stopping {node_label(cluster, each.rental.rank)} saves nothing",
                provider=each.rental.provider,
                why=f"it costs {_price(each.rental)}, and what is kept of it costs no less",
                hint=f"gpucloud down {cluster.name}",
            )
    return found


def _saving(fleet: Fleet, rental: Rental) -> Saving:
    provider = fleet.provider(rental)
    billed, disk = provider.traits.billed_while_stopped, rental.tariff.disk_usd_per_hour
    listed: list[SideResource] = []
    # Without that listing the plan says less, and is no less true.
    with suppress(*PASSING):
        listed = beside(provider, rental.token)
    prices = [resource.usd_per_hour for resource in listed if resource.usd_per_hour is not None]
    stopped: Decimal | None = None
    if billed in SAVING and listed:
        stopped = sum(prices, Decimal(0)) if len(prices) == len(listed) else None
    elif billed in SAVING:
        stopped = Decimal(0) if billed is StoppedBilling.NONE else disk
    running = None if rental.usd_per_hour is None else rental.usd_per_hour + (disk or 0)
    return Saving(rental, running, stopped, tuple(listed))


def stopped_rate(provider: Provider, rental: Rental, instance: Instance) -> Decimal | None:
    """What of its own price a stopped instance bills per hour, beside its disk; ``None`` when not known."""
    disk, agreed = rental.tariff.disk_usd_per_hour, rental.usd_per_hour
    billed, told = provider.traits.billed_while_stopped, instance.usd_per_hour
    # Some list what an instance costs when it runs, whether it does or not.
    if told is not None and not (billed in SAVING and agreed is not None and told >= agreed):
        # That is all of it, and the disk has a line of its own in the ledger.
        return max(told - (disk or 0), Decimal(0))
    known = billed is StoppedBilling.NONE or (billed is StoppedBilling.STORAGE and disk is not None)
    return Decimal(0) if known else None


def check_stop(fleet: Fleet, cluster: Cluster, *, force: bool = False) -> None:
    """Refuse to stop what cannot be stopped, or where that saves nothing; ``force`` allows what is unknown.

    Raises:
        UsageError: when the cluster is not up.
        Unsupported: with what would go on billing.
    """
    _check_up(cluster)
    for rental in cluster.rentals:
        provider, label = fleet.provider(rental), node_label(cluster, rental.rank)
        billed, instead = provider.traits.billed_while_stopped, f"gpucloud down {cluster.name}"
        if billed is StoppedBilling.FULL:
            what = f"stopping {label} saves nothing"
            why = f"{provider.name} goes on billing all of its {_price(rental)}"
        elif not isinstance(provider, Stops) or billed is StoppedBilling.UNSUPPORTED:
            what = f"{label} cannot be stopped"
            why = f"{provider.name} can only end it; until then it bills {_price(rental)}"
        elif billed is StoppedBilling.UNKNOWN and not force:
            what = f"whether stopping {label} saves anything is not known"
            why = f"{provider.name} may go on billing all of its {_price(rental)}"
            instead += f", or gpucloud stop {cluster.name} --force"
        else:
            continue
        raise Unsupported(what, provider=provider.name, why=why, hint=instead)


def stop(fleet: Fleet, cluster: Cluster, *, force: bool = False) -> Cluster:
    """Stop every instance of a cluster, at once, and wait until the listing shows it. Its files stay.

    A stop that was cut off is finished by the next one. What runs there is to be ended before.

    Raises:
        Locked: when another process is at work on that name.
        UsageError, Unsupported: as ``check_stop`` does.
        NothingMatched: when an instance is not listed any more.
        TeardownUnconfirmed: when at least one may still be billing in full.
    """
    with fleet.store.db.lock(lock_name(cluster.name)):
        current = _current(fleet, cluster)
        check_stop(fleet, current, force=force)
        _halt_all(fleet, current, "stop")
        _hold_less(fleet, current)
        return fleet.store.clusters.update(current.id, ClusterState.STOPPED)


def check_start(cluster: Cluster, now: datetime) -> None:
    """Refuse to start what has no time left.

    Raises:
        UsageError: when the cluster is not up.
        BudgetRefused: when its lease is over.
    """
    _check_up(cluster)
    ended = [r.expires_at for r in cluster.rentals if r.expires_at is not None and r.expires_at <= now]
    if ended:
        raise BudgetRefused(
            f"the time of {cluster.name} is up",
            why=f"its lease ended at {min(ended):%Y-%m-%d %H:%M} UTC",
            hint=f"gpucloud extend {cluster.name} 2h, then gpucloud start {cluster.name}",
        )


def cost_to_come(cluster: Cluster, now: datetime) -> Decimal | None:
    """The most that a cluster costs from now until its lease ends, if it runs; ``None`` without a bound."""
    most = Decimal(0)
    for rental in cluster.rentals:
        rate = (rental.usd_per_hour or Decimal(0)) + (rental.tariff.disk_usd_per_hour or Decimal(0))
        if not rate:
            continue
        if rental.expires_at is None:
            return None
        most += over_time(rate, rental.tariff.billed(max(rental.expires_at - now, timedelta())))
    return most


def start(fleet: Fleet, cluster: Cluster) -> Cluster:
    """Hold what a cluster may cost, start every instance of it, and return when each answers over SSH.

    A start that was cut off is finished by the next one. When one does not come up, all are stopped again,
    confirmed, before the error is raised.

    Raises:
        Locked: when another process is at work on that name.
        UsageError, BudgetRefused: as ``check_start`` does, and when a cap does not allow it.
        NothingMatched: when an instance is not listed any more.
        NoCapacity, QuotaExceeded, BalanceExhausted: when the provider refuses; the disk is kept.
        RemoteError: when a machine cannot be used.
        TeardownUnconfirmed: when one of those that were stopped again may still be billing in full.
    """
    with fleet.store.db.lock(lock_name(cluster.name)):
        current = _current(fleet, cluster)
        check_start(current, utcnow())
        _hold_all(fleet, current)
        try:
            results(run_all({r.token: partial(_bring_up, fleet, current, r) for r in current.rentals}))
        except Exception:
            _halt_all(fleet, fleet.store.clusters.by_id(current.id), "not everything came up")
            _hold_less(fleet, current)
            raise
        fleet.tell(Event("ready", f"{current.name}: ready"))
        return fleet.store.clusters.update(current.id, ClusterState.READY)


def _check_up(cluster: Cluster) -> None:
    if cluster.state in {ClusterState.READY, ClusterState.STOPPED} and len(cluster.rentals) >= cluster.nodes:
        return
    there = "" if len(cluster.rentals) >= cluster.nodes else f", with {len(cluster.rentals)} of its machines"
    again = f"gpucloud launch --name {cluster.name} to take it up, or " if cluster.rentals else ""
    raise UsageError(
        f"{cluster.name} is not up",
        why=f"it is {cluster.state}{there}",
        hint=f"{again}gpucloud down {cluster.name}",
    )


def _price(rental: Rental) -> str:
    return "unknown price" if rental.usd_per_hour is None else f"${rental.usd_per_hour:.4f}/h"


def _current(fleet: Fleet, cluster: Cluster) -> Cluster:
    """The cluster as it is now, and not as a command that was cut off, or somebody else, left the books.

    Only for who holds the cluster's lock: anybody else would see what is half done.
    """
    cluster = fleet.store.clusters.by_id(cluster.id)
    _check_up(cluster)
    for rental in cluster.rentals:
        instance = _listed(fleet, rental)
        if instance is None or not instance.alive:
            raise NothingMatched(
                f"{node_label(cluster, rental.rank)} is not there",
                why=f"{rental.provider} does not list it",
                hint="gpucloud fsck closes its books when it is gone",
            )
        if instance.state is InstanceState.STOPPED:
            _note_stopped(fleet, rental, instance)
        elif instance.state is not InstanceState.STOPPING:
            fleet.store.journal.starting(rental.token)
    return fleet.store.clusters.by_id(cluster.id)


def _listed(fleet: Fleet, rental: Rental) -> Instance | None:
    """An instance as a listing shows it, as soon as there is one. Raises ``ProviderError``."""
    failures: list[ProviderError] = []

    def listing() -> tuple[Instance | None] | None:
        try:
            return (find(fleet.provider(rental), rental.token),)
        except PASSING as error:
            failures.append(error)
            return None

    shown = poll(listing, fleet.config.duration("launch.end_timeout"))
    if shown is None:
        raise failures[-1]
    return shown[0]


def _note_stopped(fleet: Fleet, rental: Rental, instance: Instance) -> None:
    rate = stopped_rate(fleet.provider(rental), rental, instance)
    fleet.store.journal.stopped(rental.token, rate=rate)


def _halt_all(fleet: Fleet, cluster: Cluster, reason: str) -> None:
    running = [rental for rental in cluster.rentals if rental.state is not RentalState.STOPPED]
    results(run_all({r.token: partial(_halt, fleet, cluster, r, reason) for r in running}))


def _halt(fleet: Fleet, cluster: Cluster, rental: Rental, reason: str) -> None:
    """Stop one instance. Raises ``TeardownUnconfirmed`` without proof within ``launch.end_timeout``."""
    label = node_label(cluster, rental.rank)
    fleet.store.journal.stopping(rental.token, reason)
    fleet.tell(Event("stopping", f"{label}: stopping ({reason})"))
    deadline = fleet.config.duration("launch.end_timeout")
    attempt = _Attempt(fleet.provider(rental), rental)
    instance = poll(attempt.stopped, deadline)
    if instance is None:
        raise TeardownUnconfirmed(
            f"{label} is not stopped: it may still be billing in full",
            why=f"{attempt.last} after {deadline}",
            hint=f"gpucloud stop {cluster.name} again, or gpucloud down {cluster.name}",
        )
    if not instance.alive:
        fleet.store.journal.gone(rental.token, "it was ended while it was being stopped")
        return
    hang_up(fleet, rental)
    _note_stopped(fleet, rental, instance)
    fleet.tell(Event("stopped", f"{label}: stopped, and listed so"))


def _bring_up(fleet: Fleet, cluster: Cluster, rental: Rental) -> None:
    """Start one instance if it is stopped, and wait until it can be used."""
    label, journal = node_label(cluster, rental.rank), fleet.store.journal
    if rental.state is not RentalState.REACHABLE:
        journal.starting(rental.token)
        fleet.tell(Event("starting", f"{label}: starting"))
    deadline = fleet.config.duration("launch.end_timeout")
    attempt = _Attempt(fleet.provider(rental), rental)
    try:
        instance = poll(attempt.started, deadline)
    except REFUSALS as error:
        journal.not_started(rental.token, error.message)
        raise type(error)(
            f"{label} cannot be started: {error.message}",
            provider=error.provider,
            why=error.why,
            hint=f"gpucloud start {cluster.name} later, or gpucloud down {cluster.name}: its disk bills on",
        ) from error
    if instance is None:
        raise HostUnreachable(
            f"{label} did not start",
            why=f"{attempt.last} after {deadline}",
            hint=f"gpucloud start {cluster.name} again",
        )
    if rental.state is RentalState.REACHABLE and not attempt.asked:
        return
    # Whoever looked at it meanwhile may have taken it for stopped.
    journal.starting(rental.token)
    # It may be started from another place than it was launched from.
    admitted_anew(fleet, rental)
    reach(fleet, journal.get(rental.token), label)


@dataclass(slots=True)
class _Attempt:
    """Attempts to stop or to start one instance, and whether its provider had to be ``asked`` for it.

    Both may be asked for again and again, so a lost answer or a listing that lags does no harm. ``last`` is
    what was in the way at the last attempt.
    """

    provider: Provider
    rental: Rental
    asked: bool = False
    last: str = ""

    def stopped(self) -> Instance | None:
        """Stop it, unless a listing shows that it is; the instance as that shows it."""
        return self._until(lambda state: state is InstanceState.STOPPED, self._stop)

    def started(self) -> Instance | None:
        """Start it, unless a listing shows that it was; the instance as that shows it."""
        return self._until(lambda state: state not in HALTED, self._start)

    def _until(self, over: Callable[[InstanceState], bool], act: Callable[[], None]) -> Instance | None:
        try:
            instance = find(self.provider, self.rental.token)
            if instance is not None and (over(instance.state) or not instance.alive):
                return instance
            self.last = f"it is listed as {instance.state}" if instance else "it is not listed"
            if instance is None or instance.state is not InstanceState.STOPPING:
                self.asked = True
                act()
        except PASSING as error:
            self.last = error.message
        return None

    def _stop(self) -> None:
        assert self.rental.ref is not None and isinstance(self.provider, Stops)
        self.provider.stop(self.rental.ref)

    def _start(self) -> None:
        assert self.rental.ref is not None and isinstance(self.provider, Stops)
        self.provider.start(self.rental.ref)


def _hold_all(fleet: Fleet, cluster: Cluster) -> None:
    """Hold what a cluster has cost and can cost until its lease ends. Raises ``BudgetRefused``."""
    now = utcnow()
    spent, to_come = fleet.store.ledger.cost(cluster.id, now), cost_to_come(cluster, now)
    most = fleet.store.journal.worst_cost(cluster.id)
    if spent is not None and to_come is not None:
        most = spent + to_come
    fleet.store.clusters.hold(cluster.id, most, caps(fleet.config, now), cluster.limits)


def _hold_less(fleet: Fleet, cluster: Cluster) -> None:
    """Hold only what a stopped cluster comes to by the end of its lease, where that is known."""
    ends = [rental.expires_at for rental in cluster.rentals if rental.expires_at is not None]
    if len(ends) < len(cluster.rentals):
        return
    # The ledger goes on at the rates of now.
    most = fleet.store.ledger.cost(cluster.id, max([utcnow(), *ends]))
    if most is not None:
        fleet.store.clusters.hold(cluster.id, most, (), cluster.limits)
