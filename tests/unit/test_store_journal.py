"""The journal: each step is kept, no step is metered twice, and only a listing brings back what is gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.model import (
    Cluster,
    Gpu,
    HostKeySource,
    InstanceRef,
    Market,
    Rental,
    RentalState,
    SshAddress,
    utcnow,
)
from gpucloud.store import Store
from tests.harness.books import START, a_rental, an_instance, opened

SSH = SshAddress(
    "192.0.2.7", 2222, "ubuntu", "/keys/id", SshAddress("jump.example", jump=SshAddress("first"))
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as store:
        yield store


@pytest.fixture
def cluster(store: Store) -> Cluster:
    return store.clusters.create("train", 2, ephemeral=False)


def events(store: Store, token: str = "gc-1") -> list[tuple[str, str]]:
    return [(event, detail) for _, event, detail in store.journal.events(token)]


def meters(store: Store, token: str = "gc-1") -> list[int | None]:
    rows = store.db.read("SELECT usd_micros_per_hour FROM ledger WHERE token = ? ORDER BY id", token)
    return [row[0] for row in rows]


FULL: dict[str, Any] = {
    "rank": 1,
    "region": "us-east",
    "zone": "us-east-1a",
    "gpu": Gpu("H100", 80, "SXM"),
    "gpu_count": 8,
    "currency": "EUR",
    "amount": Decimal("3.30"),
    "planted_key": "ssh-ed25519 AAAA planted",
    "expires_at": START + timedelta(hours=24),
    "waits": timedelta(hours=2),
}


def test_an_intent_is_read_back_with_all_that_was_known(store: Store, cluster: Cluster) -> None:
    full, bare = a_rental(cluster, "gc-1", **FULL), a_rental(cluster, "gc-2", rank=2, usd_per_hour=None)
    store.journal.intend(full)
    store.journal.intend(bare)
    assert store.journal.rentals() == [full, bare]
    assert store.journal.get("gc-2") == bare
    assert store.clusters.by_id(cluster.id).rentals == (full, bare)


@pytest.mark.parametrize(
    "gpu",
    [
        Gpu("RadeonVII", 16),
        Gpu("Trainium"),
        Gpu("RTX 4090", 24, "PCIe"),
        Gpu("A100 80GB", 80),
        Gpu("80GB"),
        Gpu("Grâce"),
    ],
)
def test_whatever_a_provider_calls_its_gpu_the_books_can_be_read(
    store: Store, cluster: Cluster, gpu: Gpu
) -> None:
    store.journal.intend(a_rental(cluster, gpu=gpu, gpu_count=1))
    assert store.journal.get("gc-1").gpu == gpu


@pytest.mark.parametrize("price", ["0", "0.000001", "0.0034", "3.99", "98.320001", "1234567.891234"])
def test_no_micro_dollar_of_a_price_is_lost(store: Store, cluster: Cluster, price: str) -> None:
    store.journal.intend(a_rental(cluster, usd_per_hour=Decimal(price)))
    assert store.journal.get("gc-1").usd_per_hour == Decimal(price)


def test_half_a_micro_dollar_is_rounded_up(store: Store, cluster: Cluster) -> None:
    store.journal.intend(a_rental(cluster, usd_per_hour=Decimal("0.0000005")))
    assert store.journal.get("gc-1").usd_per_hour == Decimal("0.000001")


def test_a_token_is_intended_once(store: Store, cluster: Cluster) -> None:
    store.journal.intend(a_rental(cluster))
    with pytest.raises(sqlite3.IntegrityError):
        store.journal.intend(a_rental(cluster, rank=5))
    assert [rental.rank for rental in store.journal.rentals()] == [0]
    assert len(events(store)) == 1


def test_the_life_of_a_rental_step_by_step(store: Store, cluster: Cluster) -> None:
    journal = store.journal
    journal.intend(a_rental(cluster))
    journal.accept("gc-1", an_instance(slots=4))
    accepted = journal.get("gc-1")
    assert (accepted.state, accepted.ref) == (RentalState.ACCEPTED, InstanceRef("i-gc-1", "us-east"))
    assert accepted.slots == 4
    journal.reached("gc-1", SSH, "ssh-ed25519 AAAA", HostKeySource.FIRST_CONTACT)
    reached = journal.get("gc-1")
    assert (reached.state, reached.ssh) == (RentalState.REACHABLE, SSH)
    assert (reached.host_key, reached.host_key_source) == ("ssh-ed25519 AAAA", HostKeySource.FIRST_CONTACT)
    journal.ending("gc-1", "down")
    assert journal.get("gc-1").state is RentalState.ENDING
    assert journal.rentals() != []
    before = utcnow()
    journal.gone("gc-1", "not listed")
    gone = journal.get("gc-1")
    assert (gone.state, gone.reason) == (RentalState.GONE, "down")
    assert gone.gone_at is not None and before <= gone.gone_at <= utcnow()
    assert journal.rentals() == []
    assert journal.rentals(gone=True) == [gone]
    assert store.clusters.by_id(cluster.id).rentals == ()
    assert events(store) == [
        ("intended", "acme big"),
        ("accepted", "i-gc-1"),
        ("reachable", "192.0.2.7:2222"),
        ("ending", "down"),
        ("gone", "not listed"),
    ]
    times = [at for at, _, _ in journal.events("gc-1")]
    assert times == sorted(times)
    assert all(at.utcoffset() == timedelta(0) for at in times)
    assert meters(store) == [3_600_000, 0]


def test_accepting_twice_meters_once_and_changes_nothing(store: Store, cluster: Cluster) -> None:
    store.journal.intend(a_rental(cluster))
    store.journal.accept("gc-1", an_instance())
    store.journal.reached("gc-1", SSH, "key", HostKeySource.PLANTED)
    before = store.journal.get("gc-1")
    store.journal.accept("gc-1", an_instance(ref=InstanceRef("i-other")))
    assert store.journal.get("gc-1") == before
    assert meters(store) == [3_600_000]
    assert [event for event, _ in events(store)] == ["intended", "accepted", "reachable"]


def test_the_meter_runs_from_when_the_provider_says_that_it_made_the_instance(
    store: Store, cluster: Cluster
) -> None:
    store.journal.intend(a_rental(cluster))
    store.journal.accept("gc-1", an_instance())
    assert store.ledger.cost(cluster.id, START + timedelta(hours=1)) == Decimal("3.60")


def test_the_meter_runs_from_now_when_the_provider_says_nothing(store: Store, cluster: Cluster) -> None:
    store.journal.intend(a_rental(cluster))
    before = utcnow()
    store.journal.accept("gc-1", an_instance(created_at=None))
    cost = store.ledger.cost(cluster.id, before + timedelta(hours=1))
    assert cost is not None and Decimal("3.5") < cost <= Decimal("3.60")


def queued(store: Store, cluster: Cluster) -> None:
    """In its provider's queue for at most two hours, and then to run for one."""
    until = START + timedelta(hours=3)
    store.journal.intend(a_rental(cluster, waits=timedelta(hours=2), expires_at=until))
    store.journal.accept("gc-1", an_instance(waiting=True))


def test_what_waits_in_a_queue_costs_nothing_and_can_cost_its_lease(store: Store, cluster: Cluster) -> None:
    queued(store, cluster)
    store.journal.left_queue("gc-1", an_instance(waiting=True))
    assert store.ledger.cost(cluster.id, START + timedelta(hours=2)) == 0
    assert store.journal.worst_cost(cluster.id) == Decimal("3.60")
    store.journal.gone("gc-1", "no capacity came")
    assert store.ledger.cost(cluster.id, START + timedelta(hours=2)) == 0


def test_meter_and_lease_begin_when_the_turn_comes_and_once(store: Store, cluster: Cluster) -> None:
    queued(store, cluster)
    started = an_instance(started_at=START + timedelta(minutes=90))
    for _ in range(2):
        store.journal.left_queue("gc-1", started)
    rental = store.journal.get("gc-1")
    assert rental.waits is None
    assert rental.expires_at == START + timedelta(minutes=150)
    assert store.ledger.cost(cluster.id, START + timedelta(minutes=150)) == Decimal("3.60")
    assert events(store)[-1][0] == "left-queue"
    assert meters(store) == [3_600_000]


def test_whose_turn_has_come_before_it_was_seen_to_wait_is_metered_at_once(
    store: Store, cluster: Cluster
) -> None:
    store.journal.intend(a_rental(cluster, waits=timedelta(hours=2)))
    store.journal.accept("gc-1", an_instance(started_at=START))
    assert (meters(store), store.journal.get("gc-1").waits) == ([3_600_000], None)


def test_what_reappears_in_a_queue_is_not_metered(store: Store, cluster: Cluster) -> None:
    queued(store, cluster)
    store.journal.gone("gc-1", "no listing shows it")
    store.journal.reappeared("gc-1", an_instance(waiting=True))
    assert (meters(store), store.journal.get("gc-1").state) == ([], RentalState.ENDING)


def test_what_reappears_when_its_turn_has_come_has_been_billing_since(store: Store, cluster: Cluster) -> None:
    queued(store, cluster)
    store.journal.gone("gc-1", "no listing shows it")
    store.journal.reappeared("gc-1", an_instance(started_at=START + timedelta(hours=1)))
    assert store.ledger.cost(cluster.id, START + timedelta(hours=2)) == Decimal("3.60")
    assert store.journal.get("gc-1").state is RentalState.ENDING


def test_going_twice_is_going_once(store: Store, cluster: Cluster) -> None:
    store.journal.intend(a_rental(cluster))
    store.journal.accept("gc-1", an_instance())
    store.journal.gone("gc-1", "first")
    before = store.journal.get("gc-1")
    store.journal.gone("gc-1", "second")
    assert store.journal.get("gc-1") == before
    assert meters(store) == [3_600_000, 0]
    assert [event for event, _ in events(store)] == ["intended", "accepted", "gone"]


def test_what_was_never_made_costs_nothing(store: Store, cluster: Cluster) -> None:
    store.journal.intend(a_rental(cluster))
    store.journal.gone("gc-1", "no capacity")
    assert meters(store) == []
    assert store.ledger.cost(cluster.id) == 0
    assert store.journal.get("gc-1").reason == "no capacity"


def test_what_is_gone_is_neither_reached_nor_ending(store: Store, cluster: Cluster) -> None:
    store.journal.intend(a_rental(cluster))
    store.journal.accept("gc-1", an_instance())
    store.journal.gone("gc-1", "not listed")
    before, told = store.journal.get("gc-1"), events(store)
    store.journal.reached("gc-1", SSH, "key", HostKeySource.PLANTED)
    store.journal.ending("gc-1", "down")
    assert store.journal.get("gc-1") == before
    assert events(store) == told


def test_an_instance_that_was_given_up_before_its_provider_made_it_is_open_again(
    store: Store, cluster: Cluster
) -> None:
    store.journal.intend(a_rental(cluster))
    store.journal.gone("gc-1", "its launch was cut off")
    store.journal.accept("gc-1", an_instance())
    assert [rental.state for rental in store.journal.rentals()] == [RentalState.ACCEPTED]
    assert store.journal.get("gc-1").gone_at is None
    assert meters(store) == [3_600_000]


def gone_after_an_hour(store: Store, cluster: Cluster) -> Rental:
    store.journal.intend(a_rental(cluster))
    store.journal.accept("gc-1", an_instance(created_at=utcnow() - timedelta(hours=1)))
    store.journal.gone("gc-1", "not listed")
    return store.journal.get("gc-1")


def test_what_reappears_in_a_listing_is_to_be_ended(store: Store, cluster: Cluster) -> None:
    gone_after_an_hour(store, cluster)
    store.journal.reappeared("gc-1", an_instance(ref=InstanceRef("i-new", "eu")))
    rental = store.journal.get("gc-1")
    assert (rental.state, rental.gone_at, rental.ref) == (
        RentalState.ENDING,
        None,
        InstanceRef("i-new", "eu"),
    )
    assert store.journal.rentals() == [rental]
    assert [event for event, _ in events(store)] == ["intended", "accepted", "gone", "ending"]
    store.journal.gone("gc-1", "now really")
    assert store.journal.rentals() == []


def test_what_reappears_has_been_billing_all_the_time_and_no_hour_counts_twice(
    store: Store, cluster: Cluster
) -> None:
    gone = gone_after_an_hour(store, cluster)
    assert gone.gone_at is not None
    store.journal.reappeared("gc-1", an_instance(created_at=gone.gone_at - timedelta(hours=1)))
    cost = store.ledger.cost(cluster.id, gone.gone_at + timedelta(hours=1))
    assert cost is not None and abs(cost - Decimal("7.20")) < Decimal("0.01")


@pytest.mark.parametrize(("created_at", "hours"), [(START + timedelta(hours=1), 1), (None, 2)])
def test_what_appears_after_it_was_given_up_is_metered_from_when_it_was_made_or_else_intended(
    store: Store, cluster: Cluster, created_at: object, hours: int
) -> None:
    store.journal.intend(a_rental(cluster))
    store.journal.gone("gc-1", "its launch was cut off")
    store.journal.reappeared("gc-1", an_instance(created_at=created_at))
    assert store.ledger.cost(cluster.id, START + timedelta(hours=2)) == Decimal("3.60") * hours


def test_what_is_not_gone_cannot_reappear(store: Store, cluster: Cluster) -> None:
    gone_after_an_hour(store, cluster)
    for _ in range(2):
        store.journal.reappeared("gc-1", an_instance())
    assert len(meters(store)) == 3
    store.journal.intend(a_rental(cluster, "gc-2"))
    store.journal.reappeared("gc-2", an_instance("gc-2"))
    assert store.journal.get("gc-2").state is RentalState.INTENDED
    assert meters(store, "gc-2") == []


def test_the_rentals_of_a_cluster_are_in_order_of_rank(store: Store, cluster: Cluster) -> None:
    other = store.clusters.create("other", 1, ephemeral=False)
    for rank in (2, 0, 1):
        store.journal.intend(a_rental(cluster, f"gc-{rank}", rank=rank))
    store.journal.intend(a_rental(other, "gc-other"))
    assert [rental.rank for rental in store.clusters.by_id(cluster.id).rentals] == [0, 1, 2]
    assert [rental.token for rental in store.journal.rentals()] == ["gc-0", "gc-1", "gc-2", "gc-other"]
    assert [rental.token for rental in store.clusters.by_id(other.id).rentals] == ["gc-other"]


def test_steps_of_one_rental_leave_the_others_alone(store: Store, cluster: Cluster) -> None:
    for rank, token in enumerate(("gc-1", "gc-2")):
        store.journal.intend(a_rental(cluster, token, rank=rank))
    untouched = store.journal.get("gc-2")
    store.journal.accept("gc-1", an_instance())
    store.journal.reached("gc-1", SSH, "key", HostKeySource.PROVIDER)
    store.journal.ending("gc-1", "down")
    store.journal.gone("gc-1", "down")
    store.journal.reappeared("gc-1", an_instance())
    assert store.journal.get("gc-2") == untouched
    assert events(store, "gc-2") == [("intended", "acme big")]
    assert events(store, "gc-nobody") == []


@pytest.mark.parametrize("market", Market)
def test_every_market_can_be_entered(store: Store, cluster: Cluster, market: Market) -> None:
    store.journal.intend(a_rental(cluster, market=market))
    assert store.journal.get("gc-1").market is market
