"""Clusters, jobs, refusals and pins."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gpucloud.errors import Locked, NothingMatched
from gpucloud.model import Cluster, ClusterState, HostKeySource, JobSpec, JobState, Market, utcnow
from gpucloud.store import Store, new_id
from tests.harness.adapters import an_offer
from tests.harness.books import a_rental, opened, rented

HOUR = timedelta(hours=1)
OVER = timedelta(seconds=-1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as store:
        yield store


@pytest.fixture
def cluster(store: Store) -> Cluster:
    return store.clusters.create("train", 2, ephemeral=False)


def test_a_new_cluster_is_launching_and_empty(store: Store) -> None:
    before = utcnow()
    cluster = store.clusters.create("train", 2, ephemeral=True)
    assert (cluster.name, cluster.nodes, cluster.state) == ("train", 2, ClusterState.LAUNCHING)
    assert (cluster.ephemeral, cluster.ended_at, cluster.rentals) == (True, None, ())
    assert before <= cluster.created_at <= utcnow()
    assert store.clusters.get("train") == cluster == store.clusters.by_id(cluster.id)


def test_a_name_is_used_by_one_living_cluster(store: Store, cluster: Cluster) -> None:
    for state in (ClusterState.LAUNCHING, ClusterState.READY, ClusterState.ENDING):
        store.clusters.update(cluster.id, state)
        with pytest.raises(Locked) as caught:
            store.clusters.create("train", 1, ephemeral=False)
        assert "'train'" in caught.value.message and caught.value.why and caught.value.hint
    assert [found.id for found in store.clusters.living()] == [cluster.id]


def test_the_end_of_a_cluster_frees_its_name(store: Store, cluster: Cluster) -> None:
    ended = store.clusters.update(cluster.id, ClusterState.ENDED)
    assert ended.ended_at is not None
    assert store.clusters.get("train") is None
    assert store.clusters.living() == []
    second = store.clusters.create("train", 1, ephemeral=False)
    assert second.id != cluster.id
    assert store.clusters.get("train") == second
    assert store.clusters.by_id(cluster.id) == ended


@pytest.mark.parametrize("state", list(ClusterState))
def test_a_cluster_that_has_ended_stays_so_also_for_who_does_not_know_yet(
    store: Store, cluster: Cluster, state: ClusterState
) -> None:
    ended = store.clusters.update(cluster.id, ClusterState.ENDED)
    second = store.clusters.create("train", 1, ephemeral=False)
    assert store.clusters.update(cluster.id, state) == ended
    assert store.clusters.get("train") == second


def test_what_is_not_said_about_a_cluster_stays_as_it_was(store: Store) -> None:
    cluster = store.clusters.create("train", 1, ephemeral=True)
    assert store.clusters.update(cluster.id, ClusterState.READY).ephemeral
    assert not store.clusters.update(cluster.id, ClusterState.READY, ephemeral=False).ephemeral
    assert not store.clusters.update(cluster.id, ClusterState.ENDING).ephemeral
    assert store.clusters.update(cluster.id, ClusterState.READY, ephemeral=True).ephemeral


def test_a_cluster_is_given_another_size(store: Store, cluster: Cluster) -> None:
    other = store.clusters.create("other", 1, ephemeral=False)
    store.clusters.resize(cluster.id, 5)
    assert [found.nodes for found in store.clusters.living()] == [5, 1]
    assert store.clusters.by_id(other.id) == other


def test_the_living_clusters_are_told_oldest_first_with_what_is_not_gone(
    store: Store, cluster: Cluster
) -> None:
    other = store.clusters.create("another", 1, ephemeral=False)
    rented(store, cluster, "gc-1")
    rented(store, cluster, "gc-2", rank=1)
    rented(store, other, "gc-3")
    store.journal.gone("gc-1", "taken back")
    living = store.clusters.living()
    assert [(found.name, [rental.token for rental in found.rentals]) for found in living] == [
        ("train", ["gc-2"]),
        ("another", ["gc-3"]),
    ]


@pytest.mark.parametrize("name", ["train-1", "x" * 40, "'; DROP TABLE clusters; --", "ünïcode", ""])
def test_no_name_breaks_the_books(store: Store, name: str) -> None:
    cluster = store.clusters.create(name, 1, ephemeral=False)
    assert store.clusters.get(name) == cluster
    assert store.clusters.get(name + "x") is None


SPEC = JobSpec(
    run="python train.py",
    setup="pip install torch",
    name="sweep",
    workdir="/home/me/project",
    envs={"LEVEL": "v4lu3-of-env"},
    secrets={"HF_TOKEN": "hf_s3cr3t"},
    outputs=("out/*.pt", "logs"),
)


def test_a_job_is_entered_with_what_is_needed_to_find_it_again(store: Store, cluster: Cluster) -> None:
    job = store.jobs.create(cluster, SPEC)
    assert (job.cluster_id, job.cluster_name, job.name) == (cluster.id, "train", "sweep")
    assert (job.command, job.workdir, job.outputs) == ("python train.py", SPEC.workdir, SPEC.outputs)
    assert (job.state, job.attempts, job.exit_code) == (JobState.QUEUED, 1, None)
    assert (job.started_at, job.ended_at, job.outputs_verified_at) == (None, None, None)
    assert store.jobs.get(job.id) == job


def test_a_job_without_a_name_is_named_after_its_cluster(store: Store, cluster: Cluster) -> None:
    assert store.jobs.create(cluster, JobSpec("true")).name == "train"


def test_neither_secrets_nor_other_variables_of_a_job_are_stored(store: Store, cluster: Cluster) -> None:
    store.jobs.create(cluster, SPEC)
    files = [path.read_bytes() for path in store.db.folder.iterdir() if path.is_file()]
    assert any(b"python train.py" in content for content in files)
    assert not any(b"s3cr3t" in content or b"v4lu3" in content for content in files)


def test_the_columns_of_a_job_change_one_by_one(store: Store, cluster: Cluster) -> None:
    job, other = store.jobs.create(cluster, SPEC), store.jobs.create(cluster, SPEC)
    now = utcnow()
    running = store.jobs.update(job.id, state=JobState.RUNNING, started_at=now)
    assert (running.state, running.started_at, running.attempts) == (JobState.RUNNING, now, 1)
    over = store.jobs.update(job.id, state=JobState.FAILED, exit_code=0, ended_at=now + HOUR, attempts=3)
    assert (over.state, over.exit_code, over.ended_at, over.attempts) == (
        JobState.FAILED,
        0,
        now + HOUR,
        3,
    )
    assert over.started_at == now
    verified = store.jobs.update(job.id, outputs_verified_at=now, exit_code=None)
    assert (verified.outputs_verified_at, verified.exit_code) == (now, None)
    assert store.jobs.get(other.id) == other


def test_jobs_are_told_oldest_first(store: Store, cluster: Cluster) -> None:
    other = store.clusters.create("other", 1, ephemeral=False)
    jobs = [store.jobs.create(owner, SPEC) for owner in (cluster, other, cluster, other, cluster)]
    assert store.jobs.all() == jobs
    assert store.jobs.of(cluster) == jobs[::2]
    assert store.jobs.of(other) == jobs[1::2]


def test_the_jobs_of_a_cluster_outlive_it_and_are_not_those_of_its_successor(
    store: Store, cluster: Cluster
) -> None:
    job = store.jobs.create(cluster, SPEC)
    store.clusters.update(cluster.id, ClusterState.ENDED)
    second = store.clusters.create("train", 1, ephemeral=False)
    assert store.jobs.get(job.id) == job
    assert store.jobs.of(second) == []


def test_a_job_that_is_not_in_the_books_matches_nothing(store: Store, cluster: Cluster) -> None:
    for act in (store.jobs.get, lambda job_id: store.jobs.update(job_id, exit_code=1)):
        with pytest.raises(NothingMatched) as caught:
            act("j-nobody")
        assert "'j-nobody'" in caught.value.message and caught.value.why and caught.value.hint
    assert store.jobs.all() == []


def test_a_job_of_no_cluster_is_not_entered(store: Store, cluster: Cluster) -> None:
    with store.db.write() as db:
        db.execute("DELETE FROM clusters")
    with pytest.raises(sqlite3.IntegrityError):
        store.jobs.create(cluster, SPEC)


def test_a_refused_offer_is_remembered_with_the_reason(store: Store) -> None:
    refused, other = an_offer(), an_offer(instance_type="small")
    store.refusals.add(refused, "no capacity", HOUR)
    assert store.refusals.among([refused, other]) == {refused.id: "no capacity"}
    assert store.refusals.among([other]) == {}
    assert store.refusals.among([]) == {}


def test_a_refusal_is_forgotten_when_its_time_is_over(store: Store) -> None:
    store.refusals.add(an_offer(), "no capacity", OVER)
    assert store.refusals.among([an_offer()]) == {}


def test_a_new_refusal_takes_the_place_of_the_old_one(store: Store) -> None:
    store.refusals.add(an_offer(), "old", HOUR)
    store.refusals.add(an_offer(), "new", 2 * HOUR)
    assert store.refusals.among([an_offer()]) == {an_offer().id: "new"}
    store.refusals.add(an_offer(), "over", OVER)
    assert store.refusals.among([an_offer()]) == {}


def test_forgotten_refusals_are_swept_out(store: Store) -> None:
    for number in range(3):
        store.refusals.add(an_offer(instance_type=f"t{number}"), "no capacity", OVER)
    store.refusals.add(an_offer(), "no capacity", HOUR)
    assert len(store.db.read("SELECT * FROM refusals")) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": "best"},
        {"instance_type": "small"},
        {"region": "eu"},
        {"zone": "z"},
        {"market": Market.SPOT},
    ],
)
def test_a_refusal_is_of_one_provider_type_place_and_market(store: Store, changes: dict[str, str]) -> None:
    store.refusals.add(an_offer(), "no capacity", HOUR)
    assert store.refusals.among([an_offer(**changes)]) == {}


def test_a_refusal_holds_whatever_the_price_is_now(store: Store) -> None:
    offer = an_offer(region=None, zone=None)
    store.refusals.add(offer, "no capacity", HOUR)
    assert store.refusals.among([an_offer(region=None, ref="other", vcpus=9)]) == {offer.id: "no capacity"}


def test_a_pinned_key_is_never_replaced(store: Store) -> None:
    assert store.pins.get("host:22") is None
    store.pins.add("host:22", "ssh-ed25519 AAAA", HostKeySource.FIRST_CONTACT)
    store.pins.add("host:22", "ssh-ed25519 BBBB", HostKeySource.PROVIDER)
    store.pins.add("other:22", "ssh-rsa CCCC", HostKeySource.PLANTED)
    assert store.pins.get("host:22") == ("ssh-ed25519 AAAA", HostKeySource.FIRST_CONTACT)
    assert store.pins.all() == {"host:22": "ssh-ed25519 AAAA", "other:22": "ssh-rsa CCCC"}


def test_new_names_are_random_and_have_no_letters_that_look_alike() -> None:
    names = {new_id("gc-", 20) for _ in range(500)}
    assert len(names) == 500
    assert {len(name) for name in names} == {23}
    assert all(name.startswith("gc-") for name in names)
    assert not set("".join(name.removeprefix("gc-") for name in names)) & set("01ilo")


def test_everything_is_there_again_when_the_books_are_opened_again(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        cluster = store.clusters.create("train", 1, ephemeral=True)
        store.journal.intend(a_rental(cluster))
        job = store.jobs.create(cluster, SPEC)
        store.refusals.add(an_offer(), "no capacity", HOUR)
        store.pins.add("host:22", "key", HostKeySource.PROVIDER)
        cluster = store.clusters.by_id(cluster.id)
    with opened(tmp_path) as again:
        assert again.clusters.living() == [cluster]
        assert again.jobs.all() == [job]
        assert again.refusals.among([an_offer()])
        assert again.pins.all() == {"host:22": "key"}
