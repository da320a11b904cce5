"""Fleets of this process before the vendor acme, in a time that passes only while somebody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import time_machine

from gpucloud.config import load
from gpucloud.errors import GpucloudError
from gpucloud.fleet import Fleet
from gpucloud.fleet.end import end_cluster
from gpucloud.fleet.launch import launch
from gpucloud.fleet.plan import LaunchRequest, plan
from gpucloud.fleet.reconcile import Finding, FindingKind, Report, adopt, end_finding, fsck
from gpucloud.model import Cluster, GpuWish, Market, Requirements
from gpucloud.remote.keys import Identity, identity
from gpucloud.store import Store
from gpucloud.store.database import Database
from tests.harness.acme import Acme, DiesAt, Hook, Killed, Moment, Only, Server, an_acme
from tests.harness.books import START
from tests.harness.catalogs import Clock

OWNER: Final = "me"
CALL_S: Final = 0.001
"""How long each call takes, so that no two things happen at the same moment."""

WANTED: Final = Requirements(gpus=(GpuWish.parse("H100"),), markets=(Market.ON_DEMAND, Market.SPOT))


class Time(Clock):
    """The time of day and the time since the boot; ``jump`` is somebody who sets the first of them."""

    def __init__(self, travel: Callable[[datetime], None]) -> None:
        super().__init__()
        self._travel = travel
        self._today = START
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self.now += seconds
            self._set(self._today + timedelta(seconds=seconds))

    def jump(self, by: timedelta) -> None:
        """Set this computer's time of day, which passes nowhere else for that."""
        with self._lock:
            self._set(self._today + by)

    def elsewhere(self) -> datetime:
        """The time of day on computers that nobody has set, such as the vendor's."""
        return START + timedelta(seconds=self.now)

    def _set(self, today: datetime) -> None:
        self._today = today
        self._travel(today)


@contextmanager
def virtual_time() -> Iterator[Time]:
    """Let nobody wait for real: not for the polls of the fleet, and not between two calls."""
    with time_machine.travel(START, tick=False) as traveller, pytest.MonkeyPatch.context() as patch:
        time = Time(traveller.move_to)
        waits = SimpleNamespace(monotonic=lambda: time.now, sleep=time.sleep)
        patch.setattr("tenacity.time", waits)
        patch.setattr("tenacity.nap.time", waits)
        patch.setattr("gpucloud.store.clock.ticks", lambda: round(time.now * 1_000_000))
        yield time


@dataclass
class World:
    """A vendor, a computer with its books, and one process after another that uses both."""

    server: Server
    folder: Path
    time: Time
    settings: dict[str, str] = field(default_factory=dict)
    patience_s: float = 30
    _dies: DiesAt | None = None

    @cached_property
    def acme(self) -> Acme:
        """The adapter, which all processes share because it is slow to make and remembers nothing."""
        return an_acme(
            self.server, self.folder, clock=self.time, patience_s=self.patience_s, hook=self._called
        )

    @cached_property
    def identity(self) -> Identity:
        """The key of this computer."""
        return identity(self.folder / "ssh")

    @contextmanager
    def process(self, dies: DiesAt | None = None) -> Iterator[Fleet]:
        """A fleet as a new process has it, which may die at one of its calls or writes."""

        config = load(self.settings, {"HOME": str(self.folder)}, self.folder)
        store = Store(self.folder / "books")
        if dies:
            let_die(store.db, dies)
        try:
            self._dies = dies
            yield Fleet(
                store, Only(config, self.acme), config, OWNER, lambda: self.identity, lambda event: None
            )
        finally:
            self._dies = None
            store.db.close()

    def _called(self, moment: Moment, call: str) -> None:
        self.time.sleep(CALL_S)
        if self._dies:
            self._dies(moment, call)

    def unseen(self, report: Report) -> list[str]:
        """What bills at the vendor and is not in a report.

        What is beside an instance is seen with it while the books have it running.
        """
        ids = {finding.instance_id for finding in report.findings}
        running = {finding.token for finding in report.findings if finding.kind is FindingKind.RUNNING}
        return [
            thing.id
            for thing in self.server.vendor.billing()
            if thing.id not in ids
            and thing.token not in running
            and not (thing.instance_id and thing.instance_id in ids)
        ]

    def rented_twice(self) -> list[tuple[str, str]]:
        """Instances of one name that were there at the same time, by more than one launch."""
        made = self.server.vendor.instances()
        return [
            (one.id, other.id)
            for one, other in combinations(made, 2)
            if one.tags["gpucloud-name"] == other.tags["gpucloud-name"]
            and one.token != other.token
            and (one.ended_at is None or one.ended_at > other.created_at)
        ]

    def explained(self) -> Report:
        """What ``fsck`` says, which must be all that bills; who failed is asked again when calm."""
        with self.process() as fleet:
            report = fsck(fleet)
            if report.failures:
                self.server.calm()
                report = fsck(fleet)
        assert not report.failures, report
        assert not self.unseen(report), (self.unseen(report), report)
        assert not self.rented_twice()
        return report

    def cleaned_up(self) -> None:
        """End all there is, as ``down --all`` and ``fsck --fix`` do; then nothing may bill."""
        self.server.calm()
        with self.process() as fleet:
            for cluster in fleet.store.clusters.living():
                end_cluster(fleet, cluster, "down")
            for finding in fsck(fleet).findings:
                if finding.unexplained:
                    fix(fleet, finding)
            report = fsck(fleet)
            assert not report.failures
            assert not any(finding.unexplained for finding in report.findings), report
            assert not self.server.vendor.billing()
            assert not fleet.store.journal.rentals()
            assert not fleet.store.clusters.living()


def request(name: str = "x", **limits: Any) -> LaunchRequest:
    """An H100 under that name."""
    return LaunchRequest(name, WANTED, **limits)


def rent(fleet: Fleet, wanted: LaunchRequest) -> Cluster:
    """What ``gpucloud launch`` does. Raises what it raises."""
    return launch(fleet, plan(fleet, wanted, ["acme"]))


def give_back(fleet: Fleet, name: str) -> None:
    """What ``gpucloud down`` does. Raises what it raises."""
    cluster = fleet.store.clusters.get(name)
    if cluster:
        end_cluster(fleet, cluster, "down")


def fix(fleet: Fleet, finding: Finding) -> None:
    """End something that nobody wants, as a person who is asked would."""
    if finding.kind is FindingKind.UNKNOWN:
        adopt(fleet, finding)
    end_finding(fleet, finding)


def attempt(act: Callable[[], object]) -> GpucloudError | Killed | None:
    """Do something that may fail or be cut off; returns by what."""
    try:
        act()
    except (GpucloudError, Killed) as error:
        return error
    return None


def let_die(db: Database, dies: Hook) -> None:
    """Let whoever writes into this database die on one side of a transaction."""
    write = db.write

    @contextmanager
    def mortal() -> Iterator[Any]:
        dies(Moment.BEFORE, "write")
        with write() as connection:
            yield connection
        dies(Moment.AFTER, "write")

    db.write = mortal  # type: ignore[method-assign]
