"""Faults between the program and each cloud: what bills is in fsck's report, and nothing is rented twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import pytest

from gpucloud.config import load
from gpucloud.fleet import Fleet
from gpucloud.fleet.end import end_cluster
from gpucloud.fleet.launch import launch
from gpucloud.fleet.plan import LaunchRequest, plan
from gpucloud.fleet.reconcile import FindingKind, Report, fsck
from gpucloud.http import HttpClient
from gpucloud.model import GpuWish, Requirements
from gpucloud.provider import Provider, Reach
from gpucloud.registry import load as adapter_of
from gpucloud.remote.keys import identity
from gpucloud.store import Store
from tests.harness.acme import Fault, Only, Trouble, Verb
from tests.harness.clouds import RIGS, Rig
from tests.harness.faulty import GENERIC
from tests.harness.fleets import attempt, fix

WANTED = Requirements(gpus=(GpuWish.parse("H100:8"),))
SETTINGS = {
    "launch.end_timeout": "20s",
    "launch.ready_timeout": "20s",
    "launch.ssh_from": "203.0.113.7",
    "launch.max_cost": "500",
}
# What fails while something is only read is the same everywhere; the matrix of acme has all of that.
CASES = (
    *((verb, trouble) for verb in (Verb.CREATE, Verb.TERMINATE) for trouble in GENERIC),
    *((verb, Trouble.ERROR) for verb in (Verb.OFFERS, Verb.GET, Verb.LIST, Verb.LIST_RESOURCES)),
)


@dataclass
class World:
    """One cloud, and one process after another that rents there; nobody logs in."""

    rig: Rig
    folder: Path

    @cached_property
    def provider(self) -> Provider:
        """The adapter, which all processes share because its SDK is slow to make."""
        base = adapter_of(self.rig.name)
        assert issubclass(base, Provider)
        traits = replace(base.traits, reach=Reach.NONE, listing_lag_s=0.5)
        unreached: type[Provider] = type(base.__name__, (base,), {"traits": traits})
        provider = unreached(self.rig.settings(self.folder))
        provider.client = partial(HttpClient, sleep=lambda seconds: None)
        return provider

    def act(self, do: Callable[[Fleet], object]) -> None:
        """Do something in a new process, whatever comes of it."""
        config = load(SETTINGS, {"HOME": str(self.folder)}, self.folder)
        store = Store(self.folder / "books")
        key = identity(self.folder / "ssh")
        fleet = Fleet(store, Only(config, self.provider), config, "me", lambda: key, lambda event: None)
        try:
            attempt(lambda: do(fleet))
        finally:
            store.db.close()

    def report(self) -> Report:
        """What ``fsck`` says; who failed is asked again when calm."""
        found: list[Report] = []
        self.act(lambda fleet: found.append(fsck(fleet)))
        if not found or found[-1].failures:
            self.rig.faults.calm()
            self.act(lambda fleet: found.append(fsck(fleet)))
        return found[-1]

    def explained(self) -> None:
        """All that bills is in the report, or belongs to an instance that is."""
        report = self.report()
        assert not report.failures, report
        shown = {(finding.instance_id or "").lower() for finding in report.findings}
        running = {finding.token for finding in report.findings if finding.kind is FindingKind.RUNNING}
        unseen = [
            id
            for id in self.rig.state.billing()
            if id.rpartition("/")[2].lower() not in {name.rpartition("/")[2] for name in shown}
            and self.rig.token(id) not in running
        ]
        assert not unseen, (unseen, report)
        living = [machine for machine in self.rig.state.instances() if machine.ended_at is None]
        rented = Counter(machine.tags["gpucloud-name"] for machine in living)
        assert not [name for name, times in rented.items() if times > 1]

    def cleaned_up(self) -> None:
        """End all there is, as ``down --all`` and ``fsck --fix`` do; then nothing bills."""
        self.rig.faults.calm()
        self.act(_end_all)
        report = self.report()
        assert not [finding for finding in report.findings if finding.unexplained], report
        assert not self.rig.state.billing()


def _end_all(fleet: Fleet) -> None:
    for cluster in fleet.store.clusters.living():
        end_cluster(fleet, cluster, "down")
    for finding in fsck(fleet).findings:
        if finding.unexplained and finding.kind is not FindingKind.UNKNOWN:
            fix(fleet, finding)


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with RIGS[request.param](tmp_path) as rig:
        yield World(rig, tmp_path)


def rent(fleet: Fleet) -> None:
    request = LaunchRequest("x", WANTED)
    launch(fleet, plan(fleet, request, [fleet.registry.configured()[0].name]))


def give_back(fleet: Fleet) -> None:
    cluster = fleet.store.clusters.get("x")
    if cluster:
        end_cluster(fleet, cluster, "down")


@pytest.mark.parametrize(("verb", "trouble"), CASES, ids=str)
@pytest.mark.parametrize("world", RIGS, indirect=True)
def test_a_fault_hides_nothing_that_bills(world: World, verb: Verb, trouble: Trouble) -> None:
    for act in (rent, give_back, rent):
        world.rig.faults.strike(Fault(verb, trouble))
        world.act(act)
        world.explained()
    assert world.rig.faults.struck
    world.rig.faults.calm()
    world.act(rent)
    assert [machine for machine in world.rig.state.instances() if machine.ended_at is None]
    world.cleaned_up()


@pytest.mark.parametrize(("world", "lag"), [("aws", "listing_lag"), ("gcp", "lag")], indirect=["world"])
def test_what_is_listed_late_is_neither_lost_nor_rented_again(world: World, lag: str) -> None:
    setattr(world.rig.state, lag, 2)
    world.rig.faults.strike(Fault(Verb.CREATE, Trouble.LOST_REPLY))
    for act in (rent, rent, give_back):
        world.act(act)
        world.explained()
    world.cleaned_up()
    assert len(world.rig.state.instances()) == 1
