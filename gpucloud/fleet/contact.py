"""From a rental to an open SSH connection: wait for the address, pin the host key, take the machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Self, TypeVar

from gpucloud.errors import (
    HostKeyChanged,
    HostUnreachable,
    NoCapacity,
    NotFound,
    ProviderError,
    RateLimited,
    RemoteError,
    Unreachable,
)
from gpucloud.fleet import Fleet
from gpucloud.fleet.origin import admitted_anew
from gpucloud.model import (
    Cluster,
    Event,
    HostKeySource,
    Instance,
    InstanceState,
    Rental,
    RentalState,
    SshAddress,
    utcnow,
)
from gpucloud.provider import Fuse, Reach, ReportsHostKeys
from gpucloud.quantities import format_duration

if TYPE_CHECKING:
    from gpucloud.remote.connection import Connection, Endpoint
    from gpucloud.remote.host import Host

T = TypeVar("T")
QUEUE_PAUSE_S: Final = 30
MARGIN_S: Final = 300
"""How long before the end of its machine a job is told to end, at most."""
POWER_OFF: Final = "sudo -n poweroff || poweroff"
"""What a machine that can end itself no better does when its lease is over."""
OVER: Final = {InstanceState.FAILED, InstanceState.TERMINATED, InstanceState.STOPPED}


def connect(fleet: Fleet, rental: Rental, label: str, *, wait: bool = True) -> Connection:
    """Open a connection to a node that was reached before, or with ``wait`` reach it first.

    Raises:
        HostUnreachable: when it does not answer.
        HostKeyChanged: when it shows another key than the pinned one.
    """
    if rental.state is RentalState.STOPPED:
        name = fleet.store.clusters.by_id(rental.cluster_id).name
        raise HostUnreachable(
            f"{label} is stopped", why="only its disk is there", hint=f"gpucloud start {name}"
        )
    if rental.ssh is None and wait:
        rental = reach(fleet, rental, label)
    instance = None if rental.ssh else _addressed(fleet, rental, label)
    address = instance.ssh if instance else rental.ssh
    if address is None:
        raise HostUnreachable(
            f"{label} has no address", why="its provider gives none", hint="gpucloud ps --refresh"
        )
    known = _known_key(fleet, rental, address)
    endpoint = endpoint_of(fleet, address, label, known[0] if known else None)
    try:
        connection = _open(fleet, endpoint)
    except (HostUnreachable, HostKeyChanged) as error:
        moved = _moved_to(fleet, rental)
        # Somebody else's machine may have the old address by now.
        if not moved and (isinstance(error, HostKeyChanged) or not admitted_anew(fleet, rental)):
            raise
        endpoint = endpoint_of(fleet, moved or address, label, known[0] if known else None)
        connection = _open(fleet, endpoint)
        if moved and known:
            fleet.store.journal.reached(rental.token, moved, *known)
    _remember_jump(fleet, connection)
    return connection


def _moved_to(fleet: Fleet, rental: Rental) -> SshAddress | None:
    """Where a machine is now that has another address than when it was reached, if its provider tells."""
    try:
        instance = look(fleet, rental) if rental.host_key else None
    except ProviderError:
        return None
    told = instance.ssh if instance and instance.alive else None
    if told is None or rental.ssh is None or replace(told, inside=rental.ssh.inside) == rental.ssh:
        return None
    return told


class Contacts:
    """The open connections to the nodes of one cluster, each made on first use and made again once lost."""

    def __init__(self, fleet: Fleet, cluster: Cluster) -> None:
        self.fleet = fleet
        self.cluster = cluster
        self._open: dict[int, Connection] = {}

    @property
    def ranks(self) -> range:
        """The ranks of the cluster's nodes."""
        return range(len(self.cluster.rentals))

    def rental(self, rank: int) -> Rental:
        """A node as the books have it now; its address may have changed, and it may have ended."""
        return self.fleet.store.journal.get(self.cluster.rentals[rank].token)

    def host(self, rank: int) -> Host:
        """The on-host program of a node. Raises what ``connect`` raises."""
        rental = self.rental(rank)
        if rank not in self._open:
            self._open[rank] = connect(self.fleet, rental, node_label(self.cluster, rank))
        return on_host(self._open[rank], rental)

    def drop(self, rank: int) -> None:
        """Forget a connection that was lost."""
        connection = self._open.pop(rank, None)
        if connection:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for rank in list(self._open):
            self.drop(rank)


def node_label(cluster: Cluster, rank: int) -> str:
    """How messages name a node: the cluster, with the rank when there are several."""
    return cluster.name if cluster.nodes == 1 else f"{cluster.name}-{rank}"


def on_host(connection: Connection, rental: Rental) -> Host:
    """The on-host program behind a connection."""
    from gpucloud.remote.host import Host

    return Host(connection, rental.token)


def reach(fleet: Fleet, rental: Rental, label: str) -> Rental:
    """Wait until a node answers over SSH, pin its host key, take the machine and set its lease.

    Raises:
        HostUnreachable: when it failed, vanished, or did not answer within ``launch.ready_timeout``.
        HostKeyChanged: when a key that is known already is not the one shown.
        HostBusy: when somebody else has taken the last slot of a shared machine.
        HostCheckFailed: when it is not what was rented.
        NoCapacity: when it waits in its provider's queue and its turn does not come.
    """
    from gpucloud.fleet.check import inspect, require

    if rental.waits is not None:
        rental = _out_of_queue(fleet, rental, label)
    if fleet.provider(rental).traits.reach is Reach.NONE:
        return _running(fleet, rental, label)
    from gpucloud.fleet.ssh_config import update_config

    fleet.tell(Event("waiting", f"{label}: waiting for SSH"))
    instance, connection = _answering(fleet, rental, label)
    assert instance.ssh is not None
    with connection:
        _remember_jump(fleet, connection)
        host = _take(fleet, rental, connection, instance)
        # Of a machine that was promised neither GPUs nor disk nothing can be wrong.
        if rental.gpu or rental.disk_gib:
            require(inspect(fleet, rental, host, label=label))
        known = _known_key(fleet, rental, instance.ssh)
        source = known[1] if known else HostKeySource.FIRST_CONTACT
        if fleet.provider(rental).traits.outlives_instance:
            fleet.store.pins.add(alias(instance.ssh), connection.host_key, source)
        fleet.store.journal.reached(rental.token, instance.ssh, connection.host_key, source)
    update_config(fleet)
    return fleet.store.journal.get(rental.token)


def _out_of_queue(fleet: Fleet, rental: Rental, label: str) -> Rental:
    """Wait until its provider has capacity for a rental. Raises ``NoCapacity``."""
    assert rental.waits is not None
    until = rental.intended_at + rental.waits
    longest = format_duration(rental.waits)
    fleet.tell(Event("queued", f"{label}: waits for capacity, at most {longest}; that costs nothing"))

    def started() -> bool | None:
        instance = _state(fleet, rental, label)
        if instance is None or instance.waiting:
            return None
        fleet.store.journal.left_queue(rental.token, instance)
        return True

    lost = ""
    try:
        if poll(started, max(until - utcnow(), timedelta()), pause_s=QUEUE_PAUSE_S):
            return fleet.store.journal.get(rental.token)
    except HostUnreachable as error:
        lost = error.why
    raise NoCapacity(
        f"{label}: no capacity came",
        provider=rental.provider,
        why=lost or f"it has waited for {longest}",
        hint="try again later, or a longer --wait",
    )


def _running(fleet: Fleet, rental: Rental, label: str) -> Rental:
    """Wait until a machine that nobody can log in to runs. Raises ``HostUnreachable``."""

    def runs() -> bool | None:
        instance = _state(fleet, rental, label)
        return True if instance and instance.state is InstanceState.RUNNING else None

    deadline = fleet.config.duration("launch.ready_timeout")
    if poll(runs, deadline) is None:
        raise HostUnreachable(
            f"{label} did not come up", why=f"it does not run after {deadline}", hint="gpucloud ps"
        )
    fleet.store.journal.runs(rental.token)
    return fleet.store.journal.get(rental.token)


def poll(question: Callable[[], T | None], at_most: timedelta, *, pause_s: float = 5) -> T | None:
    """Ask until there is an answer, ever less often, at last each ``pause_s``; ``None`` after ``at_most``."""
    from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_random_exponential

    waiting = Retrying(
        retry=retry_if_result(lambda answer: answer is None),
        stop=stop_after_delay(at_most.total_seconds()),
        wait=wait_random_exponential(multiplier=0.1, max=pause_s, min=0.05),
    )
    try:
        return waiting(question)
    except RetryError:
        return None


def look(fleet: Fleet, rental: Rental) -> Instance | None:
    """What the provider says of a rental now; ``None`` when it cannot be asked at the moment.

    Raises:
        NotFound: when the provider does not know it.
    """
    assert rental.ref is not None
    try:
        return fleet.provider(rental).get(rental.ref)
    except NotFound:
        raise
    except ProviderError as error:
        if not isinstance(error, Unreachable | RateLimited):
            raise
        return None


def _addressed(fleet: Fleet, rental: Rental, label: str) -> Instance | None:
    """The instance once its provider gives an address. Raises ``HostUnreachable`` when it never will."""
    instance = _state(fleet, rental, label)
    return instance if instance and instance.ssh else None


def _state(fleet: Fleet, rental: Rental, label: str) -> Instance | None:
    """The instance as it is now, if its provider tells. Raises ``HostUnreachable`` when it is over."""
    lag = timedelta(seconds=fleet.provider(rental).traits.listing_lag_s)
    try:
        instance = look(fleet, rental)
    except NotFound as error:
        if utcnow() - rental.intended_at < lag:
            return None
        raise HostUnreachable(f"{label} is gone", why=error.message, hint="gpucloud fsck") from error
    if instance and instance.state in OVER:
        reason = "its provider took it back" if instance.interrupted else f"it is {instance.state}"
        raise HostUnreachable(
            f"{label} did not come up", why=f"{rental.provider}: {reason}", hint="gpucloud ps"
        )
    return instance


def _answering(fleet: Fleet, rental: Rental, label: str) -> tuple[Instance, Connection]:
    """Connect as soon as the host lets us in; while it boots it may refuse, or not know our key yet."""
    connect_s = fleet.config.duration("ssh.connect_timeout").total_seconds()
    boots = not fleet.provider(rental).traits.outlives_instance
    deadline = fleet.config.duration("launch.ready_timeout") if boots else timedelta(seconds=connect_s)
    last: list[RemoteError] = []

    def attempt() -> tuple[Instance, Connection] | None:
        instance = _addressed(fleet, rental, label)
        if instance is None or instance.ssh is None:
            return None
        known = _known_key(fleet, rental, instance.ssh)
        endpoint = endpoint_of(fleet, instance.ssh, label, known[0] if known else None)
        try:
            return instance, _open(fleet, endpoint)
        except RemoteError as error:
            if isinstance(error, HostKeyChanged) or not (boots or isinstance(error, HostUnreachable)):
                raise
            last[:] = [error]
            return None

    answer = poll(attempt, deadline)
    if answer is None:
        raise (
            last[0]
            if last
            else HostUnreachable(
                f"{label} did not come up",
                why=f"its provider gave no address within {deadline}",
                hint="gpucloud ps",
            )
        )
    return answer


def _take(fleet: Fleet, rental: Rental, connection: Connection, instance: Instance) -> Host:
    """Install the on-host program, claim the machine where it is shared, and set its limits."""
    host, traits = on_host(connection, rental), fleet.provider(rental).traits
    host.install(
        slots=instance.slots or 0,
        claim=f"{instance.cluster or rental.token} of {fleet.owner}",
        notice_probe=traits.notice_probe,
        at_end=traits.self_end or (POWER_OFF if traits.fuse is Fuse.POWER_OFF else ""),
    )
    set_limits(host, rental.expires_at, fleet.store.clusters.by_id(rental.cluster_id).limits.idle)
    return host


def set_limits(host: Host, expires_at: datetime | None, idle: timedelta | None) -> None:
    """Let a machine end its jobs, and itself if it can, at the end of its lease or when it has been idle."""
    if expires_at is not None:
        left = (expires_at - utcnow()).total_seconds()
        # The jobs end a little before the machine does, so that what they leave can still be brought home.
        host.lease(max(0, round(left - min(MARGIN_S, left / 10))))
    if idle is not None:
        host.idle(round(idle.total_seconds()))


def _known_key(fleet: Fleet, rental: Rental, address: SshAddress) -> tuple[str, HostKeySource] | None:
    """The host key that is known before the first contact, from the surest source there is."""
    if rental.host_key and rental.host_key_source:
        return rental.host_key, rental.host_key_source
    if rental.planted_key:
        return rental.planted_key, HostKeySource.PLANTED
    provider = fleet.provider(rental)
    if isinstance(provider, ReportsHostKeys) and rental.ref:
        keys = provider.host_keys(rental.ref)
        if keys:
            return keys[0], HostKeySource.PROVIDER
    return fleet.store.pins.get(alias(address)) if provider.traits.outlives_instance else None


def endpoint_of(fleet: Fleet, address: SshAddress, label: str, pinned: str | None) -> Endpoint:
    """Where and how to connect to an address, over its jump host if it has one."""
    from gpucloud.remote.connection import Endpoint

    jump = None
    if address.jump:
        known = fleet.store.pins.get(alias(address.jump))
        jump = endpoint_of(fleet, address.jump, f"the jump host of {label}", known[0] if known else None)
    return Endpoint(address, fleet.identity_file(), label, pinned, jump)


def _open(fleet: Fleet, endpoint: Endpoint) -> Connection:
    from gpucloud.remote.connection import connect

    return connect(
        endpoint,
        timeout_s=fleet.config.duration("ssh.connect_timeout").total_seconds(),
        persist_s=persist_s(fleet),
        client=fleet.config.get("ssh.client"),
    )


def persist_s(fleet: Fleet) -> int:
    """For how many seconds a connection stays open for later commands."""
    return round(fleet.config.duration("ssh.persist").total_seconds())


def _remember_jump(fleet: Fleet, connection: Connection) -> None:
    jump = connection.jump
    while jump:
        fleet.store.pins.add(alias(jump.endpoint.address), jump.host_key, HostKeySource.FIRST_CONTACT)
        jump = jump.jump


def alias(address: SshAddress) -> str:
    """The name under which the host key of a lasting machine is pinned."""
    return f"{address.host}:{address.port}"
