"""A mirror of what a job writes, while it runs and after its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from gpucloud.config import load
from gpucloud.fleet.contact import Contacts
from gpucloud.jobs.mirror import mirror
from gpucloud.jobs.submit import on_host_id
from gpucloud.model import Event, Job, JobState, utcnow
from gpucloud.remote.host import Host
from tests.integration.synced import There, names, put

SOON = timedelta(seconds=0.02)


def free_of_charge() -> Any:
    """A cluster of one machine whose traffic costs nothing."""
    return SimpleNamespace(rentals=[SimpleNamespace(tariff=SimpleNamespace(egress_usd_per_gib=None))])


@dataclass
class One:
    """The contacts of a cluster with one node; ``meddle`` is called at each use."""

    there: There
    fleet: Any
    meddle: Callable[[], object] = lambda: None
    cluster: Any = field(default_factory=free_of_charge)

    def host(self, rank: int) -> Host:
        assert rank == 0
        self.meddle()
        return self.there.host


def started(there: There, script: str) -> Job:
    job = Job("job-1", 1, "it", "it", script, JobState.RUNNING, utcnow())
    there.host.start(on_host_id(job), {"run": script, "env": ""})
    return job


def test_what_a_job_writes_comes_while_it_runs_and_the_rest_at_its_end(there: There, tmp_path: Path) -> None:
    into = tmp_path / "into"
    put(there.work, "ckpt/1.pt", "other")
    job = started(
        there, f"cd {there.work}; until [ -e gate ]; do sleep 0.05; done; echo done >ckpt/last.pt\n"
    )
    told: list[Event] = []

    def grow() -> None:
        with (there.work / "ckpt" / "log").open("a") as log:
            log.write("one line more\n")

    def told_of(event: Event) -> None:
        told.append(event)
        if len(told) == 1:
            # Complete files are here, and nothing of the one that grows at each look.
            assert names(into) == {"ckpt", "ckpt/1.pt"}
            put(there.work, "gate")
            contacts.meddle = lambda: None

    contacts = One(there, SimpleNamespace(config=load({}, {}, tmp_path), tell=told_of), grow)
    found = mirror(cast(Contacts, contacts), job, ["ckpt"], into, every=SOON)
    assert set(found.files) == {"ckpt/1.pt", "ckpt/log", "ckpt/last.pt"}
    assert all((into / name).read_bytes() == (there.work / name).read_bytes() for name in found.files)
    assert told[0].message == "1 file, 7 B"
    assert found.growing == ()


def test_a_job_that_is_over_is_pulled_once(there: There, tmp_path: Path) -> None:
    put(there.work, "a")
    job = Job("job-never", 1, "it", "it", "true", JobState.RUNNING, utcnow())
    told: list[Event] = []
    contacts = One(there, SimpleNamespace(config=load({}, {}, tmp_path), tell=told.append))
    found = mirror(cast(Contacts, contacts), job, ["a"], tmp_path / "into", every=timedelta(days=1))
    assert (set(found.files), [event.kind for event in told]) == ({"a"}, ["mirrored"])
