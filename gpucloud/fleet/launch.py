"""Renting: take offers in order, intent on disk before each call, until every node answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from gpucloud.errors import (
    AuthError,
    BalanceExhausted,
    GpucloudError,
    HostBusy,
    HostCheckFailed,
    NoCapacity,
    PriceAboveCap,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    RemoteError,
    StoreError,
    Unreachable,
    UsageError,
)
from gpucloud.fleet import Fleet
from gpucloud.fleet.budget import caps
from gpucloud.fleet.contact import node_label, reach
from gpucloud.fleet.end import end, end_rental, end_twins, lock_name, remove_left_behind, settle
from gpucloud.fleet.origin import Origin, admitted_anew
from gpucloud.fleet.plan import LaunchRequest, Plan
from gpucloud.fleet.quote import Quotes
from gpucloud.fleet.reconcile import refresh
from gpucloud.model import (
    Cluster,
    ClusterState,
    Event,
    Market,
    Offer,
    Rental,
    RentalState,
    utcnow,
)
from gpucloud.parallel import results, run_all
from gpucloud.provider import LaunchSpec
from gpucloud.store import new_id


def existing(fleet: Fleet, request: LaunchRequest) -> Cluster | None:
    """The cluster of that name when all of it is up, as its providers say now, and answers the request.

    Raises:
        UsageError: when there is one that is something else.
    """
    cluster = fleet.store.clusters.get(request.name)
    if cluster is None or cluster.state is not ClusterState.READY:
        return None
    if cluster.nodes != request.nodes:
        raise _differs(cluster, f"it has {cluster.nodes} node(s), {request.nodes} are asked for")
    wishes = request.requirements.gpus
    for rental in cluster.rentals:
        if wishes and not any(wish.accepts(rental.gpu, rental.gpu_count) for wish in wishes):
            raise _differs(cluster, f"it has {rental.gpu_count} x {rental.gpu or 'no GPU'}")
    cluster = refresh(fleet, cluster)
    return cluster if len(cluster.rentals) == cluster.nodes else None


def launch(fleet: Fleet, plan: Plan) -> Cluster:
    """Rent what the plan says and return when every node answers over SSH; a cluster that is up is reused.

    A launch that was cut off is taken up again where it stopped. When a node cannot be had, the others are
    ended, confirmed, before the error is raised.

    Raises:
        Locked: when another process is at work on that name.
        NoCapacity, QuotaExceeded, AuthError, Unreachable: why the last offer failed.
        HostCheckFailed: when machines were rented but none could be used.
        TeardownUnconfirmed: when one that was given up may still be billing.
    """
    request = plan.request
    with fleet.store.db.lock(lock_name(request.name)):
        ready = existing(fleet, request)
        if ready:
            return ready
        if fleet.store.db.needs_rebuild:
            raise StoreError(
                "nothing is rented until the books are rebuilt",
                why="the database was damaged, so something may be billing that it does not know",
                hint="gpucloud fsck --rebuild",
            )
        cluster = fleet.store.clusters.get(request.name)
        if cluster and cluster.state is ClusterState.STOPPED:
            raise UsageError(
                f"{cluster.name} is stopped",
                why="what is on its disk would be lost by a new launch",
                hint=f"gpucloud start {cluster.name}, or gpucloud down {cluster.name}",
            )
        if cluster and cluster.state is ClusterState.ENDING:
            end(fleet, cluster, "its end had been cut off")
            cluster = None
        return _fill(fleet, _entered(fleet, cluster, plan), plan)


def first_order(fleet: Fleet, plan: Plan) -> LaunchSpec:
    """What the provider of the best offer would be told by a launch; nothing is entered into the books.

    Raises ``ConfigError`` when it is not known from where SSH is to be reached.
    """
    request = plan.request
    cluster = Cluster(0, request.name, ClusterState.LAUNCHING, request.nodes, utcnow())
    _, spec = _Attempt(fleet, cluster, plan).order(plan.offers[0], 0)
    return spec


def _entered(fleet: Fleet, cluster: Cluster | None, plan: Plan) -> Cluster:
    """The cluster in the books, with the most that it can cost held for it. Raises ``BudgetRefused``."""
    request, limits, most = plan.request, plan.limits, plan.worst_cost
    rules = caps(fleet.config, utcnow())
    if cluster is None:
        return fleet.store.clusters.create(
            request.name,
            request.nodes,
            ephemeral=request.ephemeral,
            limits=limits,
            labels=request.labels,
            most=most,
            caps=rules,
        )
    # What was rented for it before goes on counting, and only what is missing comes to it.
    before = fleet.store.journal.worst_cost(cluster.id)
    missing = cluster.nodes - len(cluster.rentals)
    both = None if most is None or before is None else before + most * missing / cluster.nodes
    return fleet.store.clusters.hold(cluster.id, both, rules, limits)


def _fill(fleet: Fleet, cluster: Cluster, plan: Plan) -> Cluster:
    """Bring up every node, at once, or none."""
    attempt = _Attempt(fleet, cluster, plan)
    try:
        results(run_all({rank: partial(attempt.node, rank) for rank in range(cluster.nodes)}))
    except Exception:
        end(fleet, cluster, "not every node could be had" if cluster.nodes > 1 else "it could not be had")
        raise
    fleet.tell(Event("ready", f"{cluster.name}: ready"))
    most = fleet.store.journal.worst_cost(cluster.id)
    fleet.store.clusters.hold(cluster.id, most, (), plan.limits)
    return fleet.store.clusters.update(cluster.id, ClusterState.READY)


@dataclass(slots=True)
class _Attempt:
    """One launch of one cluster; its nodes are brought up by a thread each.

    ``dropped`` are providers that are asked no more in this launch, and ``wasted`` is what machines have cost
    that turned out to be no good.
    """

    fleet: Fleet
    cluster: Cluster
    plan: Plan
    dropped: set[str] = field(default_factory=set)
    wasted: Decimal = Decimal(0)
    began: datetime = field(default_factory=utcnow)
    quotes: Quotes = field(init=False)
    origin: Origin = field(init=False)

    def __post_init__(self) -> None:
        self.quotes = Quotes(self.fleet, self.plan.request.requirements)
        self.origin = Origin(self.fleet)

    def node(self, rank: int) -> Rental:
        """Take up what was rented for this rank before, or rent along the offers until a machine answers."""
        label = node_label(self.cluster, rank)
        for rental in self.cluster.rentals:
            if rental.rank == rank and (kept := self._resume(rental, label)):
                return kept
        failures: list[GpucloudError] = []
        for offer in self.plan.offers:
            if offer.provider in self.dropped or self._waits(offer) == timedelta():
                continue
            if taken := self._take(offer, rank, label, failures):
                return taken
        raise _verdict(failures, label)

    def _resume(self, rental: Rental, label: str) -> Rental | None:
        if rental.ref is None:
            provider = self.fleet.provider(rental)
            instance = settle(provider, rental.token)
            if instance is None:
                self.fleet.store.journal.gone(rental.token, "its launch was cut off before it was made")
                # What it needs may have been made before it.
                remove_left_behind(self.fleet, provider, rental.token)
                return None
            self.fleet.store.journal.accept(rental.token, instance)
            rental = self.fleet.store.journal.get(rental.token)
        if rental.state is RentalState.ENDING:
            end_rental(self.fleet, rental, "its end had been cut off")
            return None
        try:
            if rental.state is RentalState.REACHABLE:
                return rental
            admitted_anew(self.fleet, rental)
            return reach(self.fleet, rental, label)
        except (RemoteError, HostCheckFailed, NoCapacity) as error:
            self._discard(rental, label, error)
            return None

    def _take(self, offer: Offer, rank: int, label: str, failures: list[GpucloudError]) -> Rental | None:
        """Rent one offer and wait until it answers; ``None``, with the failure noted, when that fails."""
        try:
            rental = self._rent(self.quotes.fresh(offer), rank)
        except PriceAboveCap as error:
            self._refused(offer, error, failures)
            return None
        except (NoCapacity, QuotaExceeded, RateLimited) as error:
            if isinstance(error, QuotaExceeded):
                self._avoid(offer, error, "launch.quota_ttl")
            elif isinstance(error, NoCapacity) and error.lasting:
                self._avoid(offer, error, "launch.refusal_ttl")
            self._refused(offer, error, failures)
            return None
        except (AuthError, Unreachable, BalanceExhausted) as error:
            self.dropped.add(offer.provider)
            self._refused(offer, error, failures)
            return None
        try:
            rental = reach(self.fleet, rental, label)
            end_twins(self.fleet, rental)
            return rental
        except (RemoteError, HostCheckFailed, NoCapacity) as error:
            failures.append(error)
            self._discard(rental, label, error)
            if isinstance(error, HostCheckFailed):
                self._remember(offer, error)
            return None

    def _remember(self, offer: Offer, error: HostCheckFailed) -> None:
        """A bad machine is not taken again for a while, nor are any number of them paid for."""
        self._avoid(offer, error, "launch.refusal_ttl")
        budget = self.fleet.config.get("launch.audition_budget")
        if budget is not None and self.wasted > budget:
            raise HostCheckFailed(
                f"machines that were no good have cost ${self.wasted:.4f}",
                why=f"--audition-budget allows ${budget}; the last: {error.message} ({error.why})",
                hint="take another provider, or a higher --audition-budget",
            )

    def _avoid(self, offer: Offer, error: GpucloudError, ttl: str) -> None:
        self.fleet.store.refusals.add(offer, error.message, self.fleet.config.duration(ttl))

    def _refused(self, offer: Offer, error: GpucloudError, failures: list[GpucloudError]) -> None:
        self.fleet.tell(Event("refused", f"{offer.id}: {error.message}"))
        failures.append(error)

    def _discard(self, rental: Rental, label: str, error: GpucloudError) -> None:
        """Never on to the next offer while this one may still bill."""
        self.fleet.tell(Event("unusable", f"{label}: {error.message} ({error.why})"))
        end_rental(self.fleet, self.fleet.store.journal.get(rental.token), "it could not be used")
        self.wasted += self.fleet.store.ledger.cost_of(rental.token) or Decimal(0)

    def order(self, offer: Offer, rank: int) -> tuple[Rental, LaunchSpec]:
        """What the books are told before an offer is rented, and what its provider is."""
        from gpucloud.remote.keys import new_key_pair

        fleet, token = self.fleet, new_id("gc-", 20)
        traits = fleet.registry.get(offer.provider).traits
        host_key = new_key_pair() if traits.plants_host_key else None
        ssh_from = self.origin.networks() if traits.firewalled else ()
        rental = self._intended(token, rank, offer, host_key.public if host_key else None)
        spec = LaunchSpec(
            token=token,
            cluster=self.cluster.name,
            rank=rank,
            owner=fleet.owner,
            public_key=fleet.identity().public,
            host_key=host_key,
            image=self.plan.request.image,
            disk_gib=self.plan.request.disk_gib,
            max_usd_per_hour=self.plan.request.requirements.max_usd_per_hour,
            expires_at=rental.expires_at,
            ssh_from=ssh_from,
            group=_group(self.cluster, fleet.owner),
            nodes=self.cluster.nodes,
            wait=rental.waits,
            reservation=offer.ref if offer.market is Market.RESERVED else None,
        )
        return rental, spec

    def _rent(self, offer: Offer, rank: int) -> Rental:
        """Intent, call, id: whatever happens in between is found again by the token."""
        fleet, provider = self.fleet, self.fleet.registry.get(offer.provider)
        rental, spec = self.order(offer, rank)
        token = rental.token
        fleet.store.journal.intend(rental, caps(fleet.config, rental.intended_at))
        try:
            instance = provider.launch(offer, spec)
        except ProviderError as error:
            found = settle(provider, token) if error.outcome_unknown else None
            if found is None:
                fleet.store.journal.gone(token, error.message)
                if error.outcome_unknown:
                    remove_left_behind(fleet, provider, token)
                raise
            instance = found
        fleet.store.journal.accept(token, instance)
        fleet.tell(Event("rented", f"{offer.id} as {instance.ref.id}"))
        return fleet.store.journal.get(token)

    def _intended(self, token: str, rank: int, offer: Offer, planted_key: str | None) -> Rental:
        lease, now, waits = self.plan.lease(offer), utcnow(), self._waits(offer)
        return Rental(
            token=token,
            cluster_id=self.cluster.id,
            rank=rank,
            state=RentalState.INTENDED,
            provider=offer.provider,
            instance_type=offer.instance_type,
            market=offer.market,
            intended_at=now,
            usd_per_hour=offer.usd_per_hour,
            currency=offer.currency,
            amount=offer.amount,
            region=offer.region,
            zone=offer.zone,
            gpu=offer.gpu,
            gpu_count=offer.gpu_count,
            planted_key=planted_key,
            expires_at=now + (waits or timedelta()) + lease if lease is not None else None,
            disk_gib=self.plan.request.disk_gib,
            tariff=self.plan.tariff(offer),
            waits=waits,
        )

    def _waits(self, offer: Offer) -> timedelta | None:
        """How long it may wait in its provider's queue: all queues together no longer than was agreed to."""
        if offer.market is not Market.QUEUED:
            return None
        until = self.began + self.fleet.config.duration("launch.wait")
        return max(until - utcnow(), timedelta())


def _group(cluster: Cluster, owner: str) -> str | None:
    """A name that all nodes of a cluster have in common with nothing else, also when it is taken up again."""
    if cluster.nodes == 1:
        return None
    text = f"{owner}/{cluster.name}/{cluster.created_at.isoformat()}"
    return f"gc-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _differs(cluster: Cluster, why: str) -> UsageError:
    return UsageError(
        f"there is a cluster {cluster.name!r} already, and it is something else",
        why=why,
        hint=f"take another --name, or gpucloud down {cluster.name}",
    )


def _verdict(failures: Sequence[GpucloudError], label: str) -> GpucloudError:
    """One error for a node that could not be had, of the kind that says most about what to do next."""
    why = "; ".join(dict.fromkeys(error.message for error in failures))
    moved = [error for error in failures if isinstance(error, PriceAboveCap)]
    if moved:
        return PriceAboveCap(f"{label}: prices have moved", why=moved[0].why, hint=moved[0].hint)
    full = [error for error in failures if isinstance(error, NoCapacity | HostBusy)]
    if full or not failures:
        return NoCapacity(
            f"{label}: nobody had capacity",
            provider=_provider(full),
            why=why,
            hint="try again later, or widen --gpu",
        )
    unusable = [error for error in failures if isinstance(error, RemoteError | HostCheckFailed)]
    if unusable:
        return HostCheckFailed(
            f"{label}: machines were rented but none could be used",
            why="; ".join(f"{error.message} ({error.why})" for error in unusable),
            hint="they are gone again; try another provider or region",
        )
    return failures[-1]


def _provider(failures: Sequence[GpucloudError]) -> str:
    return next((error.provider for error in failures if isinstance(error, ProviderError)), "")
