"""Stopping and starting at a vendor whose own meters tell what is true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pytest

from gpucloud.config import load
from gpucloud.errors import (
    BudgetRefused,
    NoCapacity,
    NothingMatched,
    TeardownUnconfirmed,
    Unsupported,
    UsageError,
)
from gpucloud.fleet import Fleet
from gpucloud.fleet.launch import launch
from gpucloud.fleet.plan import LaunchRequest, plan
from gpucloud.fleet.stop import check_start, check_stop, savings, start, stop, stopped_rate
from gpucloud.model import (
    Cluster,
    ClusterState,
    Instance,
    InstanceRef,
    InstanceState,
    RentalState,
    Requirements,
    Tariff,
    utcnow,
)
from gpucloud.provider import LaunchSpec, Provider, StoppedBilling
from gpucloud.remote.keys import identity
from gpucloud.store import Store
from tests.harness.acme import Acme, Fault, Only, Server, Trouble, Verb, an_acme, serving
from tests.harness.adapters import stated
from tests.harness.books import a_rental

NODES = 2
HOURS = timedelta(hours=2)
HERE = "203.0.113.7"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as vendor:
        yield vendor


@pytest.fixture
def fleet(server: Server, tmp_path: Path) -> Iterator[Fleet]:
    yield from a_fleet(tmp_path, an_acme(server, tmp_path))


def a_fleet(folder: Path, provider: Provider) -> Iterator[Fleet]:
    config = load(
        {"launch.end_timeout": "1s", "budget.day": "100", "launch.ssh_from": HERE},
        {"HOME": str(folder)},
        folder,
    )
    store = Store(folder / "books")
    try:
        yield Fleet(store, Only(config, provider), config, "me", lambda: identity(folder), lambda event: None)
    finally:
        store.db.close()


def rented(fleet: Fleet, nodes: int = NODES, *, up: bool = True) -> Cluster:
    """A cluster that is up, or whose launch was cut off when all was rented."""
    provider = fleet.registry.get("acme")
    offer = next(offer for offer in provider.offers(Requirements()) if offer.usd_per_hour)
    cluster = fleet.store.clusters.create("x", nodes, ephemeral=False)
    for rank in range(nodes):
        token = f"gc-{rank}"
        rental = a_rental(
            cluster,
            token,
            rank=rank,
            intended_at=utcnow(),
            market=offer.market,
            usd_per_hour=offer.usd_per_hour,
            expires_at=utcnow() + HOURS,
        )
        fleet.store.journal.intend(rental)
        spec = LaunchSpec(token=token, cluster="x", rank=rank, owner="me", public_key="ssh-ed25519 AAAA")
        fleet.store.journal.accept(token, provider.launch(offer, spec))
        if up:
            fleet.store.journal.runs(token)
    return fleet.store.clusters.update(cluster.id, ClusterState.READY if up else cluster.state)


class Walled(Acme):
    """Lets nobody in but those that it was told of."""

    admitted: ClassVar[set[tuple[InstanceRef | None, tuple[str, ...]]]]

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Remember it."""
        self.admitted.add((ref, tuple(networks)))


@pytest.fixture
def walled(server: Server, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet whose provider has a firewall."""
    Walled.admitted = set()
    yield from a_fleet(tmp_path, an_acme(server, tmp_path, kind=Walled))


def stopped_at(fleet: Fleet, usd_per_hour: str) -> Cluster:
    """A stopped cluster of which the books know what it bills on, which the listing of acme does not tell."""
    cluster, provider = rented(fleet, 1), fleet.registry.get("acme")
    assert isinstance(provider, Acme)
    assert cluster.rentals[0].ref
    provider.stop(cluster.rentals[0].ref)
    fleet.store.journal.stopped("gc-0", rate=Decimal(usd_per_hour))
    return stop(fleet, cluster)


def states(fleet: Fleet) -> set[RentalState]:
    return {rental.state for rental in fleet.store.journal.rentals()}


def instances_bill(server: Server) -> list[bool]:
    return [instance.billing for instance in server.vendor.instances()]


def test_where_it_is_started_from_is_let_in(walled: Fleet) -> None:
    again = start(walled, stop(walled, rented(walled)))
    assert Walled.admitted == {(rental.ref, (f"{HERE}/32",)) for rental in again.rentals}


def test_where_a_launch_is_taken_up_from_is_let_in(walled: Fleet) -> None:
    cut_off = rented(walled, up=False)
    request = LaunchRequest("x", Requirements(markets=()), nodes=NODES)
    again = launch(walled, plan(walled, request, ["acme"]))
    assert again.state is ClusterState.READY
    assert Walled.admitted == {(rental.ref, (f"{HERE}/32",)) for rental in cut_off.rentals}


def test_a_stop_ends_the_meters_of_all_nodes_and_a_start_goes_on_with_them(
    fleet: Fleet, server: Server
) -> None:
    cluster = rented(fleet)
    halted = stop(fleet, cluster)
    assert halted.state is ClusterState.STOPPED
    assert states(fleet) == {RentalState.STOPPED}
    assert instances_bill(server) == [False, False]
    again = start(fleet, halted)
    assert again.state is ClusterState.READY
    assert states(fleet) == {RentalState.REACHABLE}
    assert instances_bill(server) == [True, True]
    assert [rental.ref for rental in again.rentals] == [rental.ref for rental in cluster.rentals]


@pytest.mark.parametrize(
    "trouble", [Trouble.ERROR, Trouble.HTML, Trouble.LOST_REPLY, Trouble.ERROR_BUT_DONE, Trouble.TRUNCATED]
)
def test_an_answer_that_is_none_is_settled_by_the_listing(
    fleet: Fleet, server: Server, trouble: Trouble
) -> None:
    cluster = rented(fleet)
    server.strike(Fault(Verb.STOP, trouble))
    stop(fleet, cluster)
    assert instances_bill(server) == [False, False]
    server.strike(Fault(Verb.START, trouble))
    start(fleet, cluster)
    assert instances_bill(server) == [True, True]
    assert len(server.struck) == 2


def test_a_stop_without_proof_is_not_one(fleet: Fleet, server: Server) -> None:
    cluster = rented(fleet, 1)
    server.strike(Fault(Verb.STOP, Trouble.ERROR, times=1000))
    with pytest.raises(TeardownUnconfirmed) as caught:
        stop(fleet, cluster)
    assert "gpucloud stop x again" in caught.value.hint
    assert fleet.store.clusters.by_id(cluster.id).state is ClusterState.READY
    assert states(fleet) == {RentalState.REACHABLE}
    server.calm()
    stop(fleet, cluster)
    assert instances_bill(server) == [False]


def test_when_one_node_cannot_be_started_none_goes_on_billing(fleet: Fleet, server: Server) -> None:
    cluster = stop(fleet, rented(fleet))
    server.strike(Fault(Verb.START, Trouble.REFUSED))
    with pytest.raises(NoCapacity) as caught:
        start(fleet, cluster)
    assert "cannot be started" in caught.value.message
    assert "gpucloud start x later" in caught.value.hint
    assert states(fleet) == {RentalState.STOPPED}
    assert instances_bill(server) == [False, False]
    assert fleet.store.clusters.by_id(cluster.id).state is ClusterState.STOPPED
    assert start(fleet, cluster).state is ClusterState.READY


def test_a_refused_start_costs_nothing(fleet: Fleet, server: Server) -> None:
    cluster = stopped_at(fleet, "0.25")
    hour = timedelta(hours=1)
    server.strike(Fault(Verb.START, Trouble.REFUSED))
    begun = utcnow()
    with pytest.raises(NoCapacity):
        start(fleet, cluster)
    spent = sum(c.usd or 0 for c in fleet.store.ledger.charges(begun, begun + hour, now=begun + hour))
    assert spent == Decimal("0.25")


def test_a_machine_that_somebody_started_elsewhere_is_stopped_again(fleet: Fleet, server: Server) -> None:
    cluster = stop(fleet, rented(fleet, 1))
    provider = fleet.registry.get("acme")
    assert isinstance(provider, Acme)
    assert cluster.rentals[0].ref
    provider.start(cluster.rentals[0].ref)
    stop(fleet, cluster)
    assert instances_bill(server) == [False]
    assert [event for _, event, _ in fleet.store.journal.events("gc-0")].count("starting") == 1


def test_a_machine_that_is_gone_is_neither_stopped_nor_started(fleet: Fleet, server: Server) -> None:
    cluster = rented(fleet, 1)
    server.vendor.take_back(server.vendor.instances()[0].id)
    for act in (stop, start):
        with pytest.raises(NothingMatched) as caught:
            act(fleet, cluster)
        assert "gpucloud fsck" in caught.value.hint


def test_what_is_not_up_is_neither_stopped_nor_started(fleet: Fleet) -> None:
    cluster = fleet.store.clusters.create("x", 1, ephemeral=False)
    for act in (stop, start):
        with pytest.raises(UsageError) as caught:
            act(fleet, cluster)
        assert caught.value.why == "it is launching, with 0 of its machines"


def test_a_start_is_refused_when_the_lease_is_over(fleet: Fleet, server: Server) -> None:
    cluster = stop(fleet, rented(fleet, 1))
    fleet.store.journal.extended("gc-0", utcnow() - timedelta(minutes=1))
    with pytest.raises(BudgetRefused) as caught:
        start(fleet, cluster)
    assert caught.value.hint.startswith("gpucloud extend x")
    assert instances_bill(server) == [False]
    check_start(rentals_until(cluster, utcnow() + HOURS), utcnow())


def rentals_until(cluster: Cluster, moment: object) -> Cluster:
    return replace(cluster, rentals=tuple(replace(r, expires_at=moment) for r in cluster.rentals))  # type: ignore[arg-type]


def test_a_stop_gives_back_what_is_held_and_a_start_holds_it_again(fleet: Fleet) -> None:
    halted = stopped_at(fleet, "0.01")
    price = halted.rentals[0].usd_per_hour
    assert price
    assert Decimal("0.019") < halted.held < Decimal("0.021")
    assert round(start(fleet, halted).held, 2) == 2 * price


def test_a_start_is_refused_by_a_cap(fleet: Fleet, server: Server, tmp_path: Path) -> None:
    halted = stopped_at(fleet, "0.01")
    poor = replace(fleet, config=load({"budget.launch": "0.03"}, {"HOME": str(tmp_path)}, tmp_path))
    with pytest.raises(BudgetRefused):
        start(poor, halted)
    assert states(fleet) == {RentalState.STOPPED}
    assert instances_bill(server) == [False]


# -- where it saves nothing ---------------------------------------------------------------------------


class Billed(Acme):
    """A vendor with other terms."""

    terms = StoppedBilling.FULL

    def __init_subclass__(cls, terms: StoppedBilling) -> None:
        cls.traits = replace(Acme.traits, billed_while_stopped=terms)


class BilledInFull(Billed, terms=StoppedBilling.FULL):
    """Bills a stopped instance as if it ran."""


class BilledSomehow(Billed, terms=StoppedBilling.UNKNOWN):
    """Does not say what it bills."""


class Free(Billed, terms=StoppedBilling.NONE):
    """Bills nothing."""


def selling(kind: type[Acme], server: Server, folder: Path) -> Iterator[Fleet]:
    plain = an_acme(server, folder)
    provider = kind(plain.settings)
    provider.client = plain.client
    yield from a_fleet(folder, provider)


def test_a_stop_that_saves_nothing_is_refused_even_by_force(server: Server, tmp_path: Path) -> None:
    for fleet in selling(BilledInFull, server, tmp_path):
        cluster = rented(fleet, 1)
        with pytest.raises(Unsupported) as caught:
            stop(fleet, cluster, force=True)
        assert "saves nothing" in caught.value.message
        assert f"${cluster.rentals[0].usd_per_hour:.4f}/h" in caught.value.why
        assert caught.value.hint == "gpucloud down x"
        assert not server.made(Verb.STOP)


def test_a_stop_of_which_nobody_knows_what_it_saves_needs_force(server: Server, tmp_path: Path) -> None:
    for fleet in selling(BilledSomehow, server, tmp_path):
        cluster = rented(fleet, 1)
        with pytest.raises(Unsupported) as caught:
            check_stop(fleet, cluster)
        assert caught.value.hint == "gpucloud down x, or gpucloud stop x --force"
        assert stop(fleet, cluster, force=True).state is ClusterState.STOPPED


def test_a_provider_without_stop_is_told_of(tmp_path: Path) -> None:
    for fleet in a_fleet(tmp_path, stated("acme")):
        cluster = fleet.store.clusters.create("x", 1, ephemeral=False)
        fleet.store.journal.intend(a_rental(cluster))
        fleet.store.journal.accept("gc-1", Instance("acme", InstanceRef("i"), InstanceState.RUNNING, "gc-1"))
        with pytest.raises(Unsupported) as caught:
            check_stop(fleet, fleet.store.clusters.update(cluster.id, ClusterState.READY))
        assert caught.value.message == "x cannot be stopped"
        assert caught.value.why == "acme can only end it; until then it bills $3.6000/h"


# -- what goes on billing -----------------------------------------------------------------------------


def test_what_is_listed_beside_an_instance_goes_on_billing(fleet: Fleet, server: Server) -> None:
    (found,) = savings(fleet, rented(fleet, 1))
    beside = [thing.usd_per_hour for thing in server.vendor.billing() if thing.instance_id]
    assert found.stopped == sum(beside)
    assert found.saved == found.running - found.stopped  # type: ignore[operator]
    assert {resource.kind for resource in found.beside} == {"disk", "address"}


def test_what_goes_on_billing_is_unknown_when_nobody_can_be_asked(fleet: Fleet, server: Server) -> None:
    cluster = rented(fleet, 1)
    server.strike(Fault(Verb.LIST_RESOURCES, Trouble.ERROR, times=1000))
    (found,) = savings(fleet, cluster)
    assert (found.stopped, found.saved, found.beside) == (None, None, ())


def test_what_costs_no_less_when_it_is_stopped_is_not_stopped(fleet: Fleet) -> None:
    cluster = rented(fleet, 1)
    fleet.store.journal.repriced("gc-0", Decimal("0.001"))
    with pytest.raises(Unsupported) as caught:
        savings(fleet, fleet.store.clusters.by_id(cluster.id))
    assert caught.value.why == "it costs $0.0010/h, and what is kept of it costs no less"


@pytest.mark.parametrize(
    ("kind", "told", "disk", "expected"),
    [
        (Acme, "0.01", None, "0.01"),
        (Acme, "0.03", "0.01", "0.02"),
        (Acme, "0.01", "0.02", "0"),
        (Acme, "3.60", None, None),
        (Acme, "3.60", "0.01", "0"),
        (Acme, None, "0.01", "0"),
        (Acme, None, None, None),
        (Free, None, None, "0"),
        (Free, "3.60", None, "0"),
        (BilledSomehow, None, "0.01", None),
        (BilledSomehow, "3.60", None, "3.60"),
    ],
)
def test_the_price_of_a_stopped_instance(
    kind: type[Acme], told: str | None, disk: str | None, expected: str | None, server: Server, tmp_path: Path
) -> None:
    provider = kind(an_acme(server, tmp_path).settings)
    cluster = Cluster(1, "x", ClusterState.READY, 1, utcnow())
    rental = a_rental(cluster, tariff=Tariff(disk_usd_per_hour=Decimal(disk) if disk else None))
    price = Decimal(told) if told else None
    instance = Instance("acme", InstanceRef("i"), InstanceState.STOPPED, usd_per_hour=price)
    assert stopped_rate(provider, rental, instance) == (Decimal(expected) if expected else None)
