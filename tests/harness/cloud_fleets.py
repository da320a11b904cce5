"""Fleets of this process before the fake of a vendor, where nobody logs in and any moment may be the last."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, wraps
from inspect import getmembers, isfunction
from pathlib import Path
from typing import Any, Final

import pytest

from gpucloud.config import load
from gpucloud.fleet import Fleet
from gpucloud.fleet.end import end_cluster
from gpucloud.fleet.launch import launch
from gpucloud.fleet.plan import LaunchRequest, Plan, plan
from gpucloud.fleet.reconcile import FindingKind, Report, fsck
from gpucloud.http import HttpClient
from gpucloud.model import GpuWish, Requirements
from gpucloud.provider import Provider, Reach
from gpucloud.registry import load as adapter_of
from gpucloud.remote.keys import identity
from gpucloud.store import Store
from tests.harness.acme import DiesAt, Killed, Moment, Only, Verb
from tests.harness.books import opened
from tests.harness.catalogs import Clock
from tests.harness.fleets import attempt, fix, let_die
from tests.harness.rig import Rig

SETTINGS: Final = {
    "launch.end_timeout": "20s",
    "launch.ready_timeout": "20s",
    "launch.ssh_from": "203.0.113.7",
    "launch.max_cost": "500",
}


@dataclass
class World:
    """One vendor, and one process after another that rents there; nobody logs in."""

    rig: Rig
    folder: Path
    lag_s: float = 0.5
    """For how long a listing may lack what is there."""
    _dies: DiesAt | None = field(default=None, init=False)

    @cached_property
    def provider(self) -> Provider:
        """The adapter, which processes share because its SDK is slow to make, except with one that dies."""
        base = adapter_of(self.rig.name)
        assert issubclass(base, Provider)
        traits = replace(base.traits, reach=Reach.NONE, listing_lag_s=self.lag_s)
        verbs = {name: verb for name, verb in getmembers(base, isfunction) if not name.startswith("_")}
        own = {name: self._of_mortals(verb) for name, verb in verbs.items()}
        unreached: type[Provider] = type(base.__name__, (base,), {**own, "traits": traits})
        provider = unreached(self.rig.settings(self.folder))
        time = Clock()

        def sleep(seconds: float) -> None:
            self._alive()
            time.sleep(seconds)

        provider.client = partial(HttpClient, sleep=sleep, clock=lambda: time.now)
        return provider

    def act(self, do: Callable[[Fleet], object], dies: DiesAt | None = None) -> None:
        """Do something in a new process, whatever comes of it.

        From the moment at which it dies its calls reach the cloud no more, nor its writes the books. What its
        adapter remembers dies with it.
        """
        config = load(SETTINGS, {"HOME": str(self.folder)}, self.folder)
        key = identity(self.folder / "ssh")
        with opened(self.folder / "books") as store, self._mortal(store, dies) if dies else nullcontext():
            registry = Only(config, self.provider)
            attempt(lambda: do(Fleet(store, registry, config, "me", lambda: key, lambda event: None)))

    def planned(self) -> Plan:
        """What ``gpucloud launch`` shows before it asks."""
        made: list[Plan] = []
        self.act(lambda fleet: made.append(self.plan_of(fleet)))
        return made[0]

    def plan_of(self, fleet: Fleet) -> Plan:
        """What is to be rented under the name of ``x``. Raises what ``plan`` raises."""
        wanted = Requirements(gpus=(GpuWish.parse(self.rig.gpu),))
        return plan(fleet, LaunchRequest("x", wanted), [self.rig.name])

    def rent(self, fleet: Fleet) -> None:
        """What ``gpucloud launch`` does. Raises what it raises."""
        launch(fleet, self.plan_of(fleet))

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
        seen = {f.token for f in report.findings if f.kind is FindingKind.RUNNING or f.instance}
        unseen = [
            id
            for id in self.rig.state.billing()
            if id.rpartition("/")[2].lower() not in {name.rpartition("/")[2] for name in shown}
            and self.rig.token(id) not in seen
        ]
        assert not unseen, (unseen, report)
        rented = Counter(machine.tags["gpucloud-name"] for machine in self.living())
        assert not [name for name, times in rented.items() if times > 1]

    def cleaned_up(self) -> None:
        """End all there is, as ``down --all`` and ``fsck --fix`` do; then nothing bills."""
        self.rig.faults.calm()
        self.act(_end_all)
        report = self.report()
        assert not [finding for finding in report.findings if finding.unexplained], report
        assert not self.rig.state.billing()

    def living(self) -> list[Any]:
        """The instances that the cloud has now, whatever it lists."""
        return [machine for machine in self.rig.state.instances() if machine.ended_at is None]

    def runs(self) -> bool:
        """Whether an instance bills in full at the cloud, and not only its disk."""
        billing = {id.removeprefix("instances/") for id in self.rig.state.billing()}
        return any(machine.id in billing for machine in self.living())

    def booked_in_full(self) -> bool:
        """Whether by the books the sole instance bills all of its price at this moment."""
        with opened(self.folder / "books") as store:
            (rental,) = store.journal.rentals()
            rate = store.ledger.rate(rental.cluster_id)
        assert rental.usd_per_hour is not None
        # What is kept of one that is stopped may have a price that nobody tells.
        return rate is not None and rate >= rental.usd_per_hour

    @contextmanager
    def _mortal(self, store: Store, dies: DiesAt) -> Iterator[None]:
        """Let the process inside die where it calls, writes, waits, or comes back from its adapter."""

        def called(moment: str, verb: Verb | None) -> None:
            try:
                dies(Moment(moment), str(verb))
            except Killed:
                raise ConnectionAbortedError from None

        def waits(seconds: float, wait: Callable[[float], None] = time.sleep) -> None:
            self._alive()
            wait(seconds)

        def ended(
            thread: threading.ExceptHookArgs, told: Callable[..., object] = threading.excepthook
        ) -> None:
            if thread.exc_type is not Killed:
                told(thread)

        self.__dict__.pop("provider", None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self, "_dies", dies)
            patch.setattr(self.rig.faults, "called", called)
            # All SDKs wait by it before they try again, which would take minutes.
            patch.setattr(time, "sleep", waits)
            # Azure's does so in a thread of its own.
            patch.setattr(threading, "excepthook", ended)
            let_die(store.db, dies)
            yield
        self.__dict__.pop("provider", None)

    def _alive(self) -> None:
        """Raise ``Killed`` in a process that is dead."""
        if self._dies and self._dies.dead:
            raise Killed

    def _of_mortals(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        """A verb of an adapter, from which the dead do not come back."""

        @wraps(verb)
        def mortal(*arguments: Any, **settings: Any) -> Any:
            try:
                answer = verb(*arguments, **settings)
                # A generator does its work when it is read.
                return list(answer) if isinstance(answer, Iterator) else answer
            finally:
                self._alive()

        return mortal


def give_back(fleet: Fleet) -> None:
    """What ``gpucloud down`` does. Raises what it raises."""
    cluster = fleet.store.clusters.get("x")
    if cluster:
        end_cluster(fleet, cluster, "down")


def _end_all(fleet: Fleet) -> None:
    for cluster in fleet.store.clusters.living():
        end_cluster(fleet, cluster, "down")
    for finding in fsck(fleet).findings:
        if finding.unexplained and finding.kind is not FindingKind.UNKNOWN:
            fix(fleet, finding)
