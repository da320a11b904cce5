"""Every fault of a vendor: what bills is always in fsck's report, and nothing is rented twice."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from gpucloud.config import load
from gpucloud.fleet import Fleet
from gpucloud.fleet.end import end_cluster
from gpucloud.fleet.launch import launch
from gpucloud.fleet.plan import plan
from gpucloud.fleet.reconcile import FindingKind, fsck
from gpucloud.fleet.stop import start, stop
from gpucloud.model import ClusterState, over_time
from gpucloud.provider import ProviderSettings, Reach
from gpucloud.remote.keys import identity
from gpucloud_local import api as local
from gpucloud_sim import Sim
from tests.harness.acme import (
    DIES_AT,
    EVERY_FAULT,
    DiesAt,
    Fault,
    Moment,
    Only,
    Trouble,
    Vendor,
    Verb,
    install_acme,
    serving,
)
from tests.harness.books import opened
from tests.harness.cli import installation, kill_all_below
from tests.harness.fleets import World, attempt, fix, give_back, rent, request, virtual_time

IMPATIENT_S = 0.2
SHORT = {"launch.end_timeout": "30s", "launch.ready_timeout": "30s"}
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

HALTING = {Verb.STOP, Verb.START}
MOVED = [fault for fault in EVERY_FAULT if fault.verb is not Verb.EXPIRE]

COMBINED = [
    (Fault(Verb.CREATE, Trouble.LOST_REPLY), Fault(Verb.CREATE, Trouble.LAG)),
    (Fault(Verb.CREATE, Trouble.TWICE), Fault(Verb.CREATE, Trouble.LOST_REPLY)),
    (
        Fault(Verb.CREATE, Trouble.TWICE),
        Fault(Verb.CREATE, Trouble.ERROR_BUT_DONE),
        Fault(Verb.CREATE, Trouble.LAG),
    ),
    (Fault(Verb.CREATE, Trouble.TWICE), Fault(Verb.TERMINATE, Trouble.LEFT_BEHIND, times=2)),
    (Fault(Verb.CREATE, Trouble.TWICE), Fault(Verb.TERMINATE, Trouble.ERROR, times=3)),
    (Fault(Verb.CREATE, Trouble.TWICE), Fault(Verb.GET, Trouble.NOT_FOUND, times=9)),
    (Fault(Verb.CREATE, Trouble.LAG), Fault(Verb.GET, Trouble.NOT_FOUND, times=9)),
    (Fault(Verb.CREATE, Trouble.ERROR_BUT_DONE), Fault(Verb.TERMINATE, Trouble.ERROR, times=3)),
    (Fault(Verb.CREATE, Trouble.ERROR_BUT_DONE), Fault(Verb.LIST, Trouble.ERROR, times=50)),
    (Fault(Verb.CREATE, Trouble.TRUNCATED), Fault(Verb.LIST, Trouble.UNAUTHORIZED, times=9)),
    (Fault(Verb.TERMINATE, Trouble.LEFT_BEHIND), Fault(Verb.REMOVE, Trouble.ERROR, times=3)),
    (
        Fault(Verb.TERMINATE, Trouble.LEFT_BEHIND),
        Fault(Verb.LIST_RESOURCES, Trouble.ERROR, times=50),
    ),
    (
        Fault(Verb.TERMINATE, Trouble.LEFT_BEHIND),
        Fault(Verb.REMOVE, Trouble.LINGER, times=2, listings=5),
    ),
    (Fault(Verb.TERMINATE, Trouble.LINGER, listings=10), Fault(Verb.LIST, Trouble.HTML, times=9)),
]

Act = Callable[[Fleet], object]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with virtual_time() as time, serving(Vendor(time.elsewhere)) as server:
        yield World(server, tmp_path, time, dict(SHORT))


def launched(fleet: Fleet) -> None:
    rent(fleet, request())


def ended(fleet: Fleet) -> None:
    give_back(fleet, "x")


def halted(fleet: Fleet) -> None:
    cluster = fleet.store.clusters.get("x")
    if cluster:
        stop(fleet, cluster)


def started(fleet: Fleet) -> None:
    cluster = fleet.store.clusters.get("x")
    if cluster:
        start(fleet, cluster)


def through(world: World, faults: tuple[Fault, ...], *acts: Act) -> None:
    """Each act among these faults, whatever comes of it; then all that bills is explained."""
    if any(fault.trouble is Trouble.TIMEOUT for fault in faults):
        world.patience_s = IMPATIENT_S
    for act in acts:
        world.server.strike(*faults)
        with world.process() as fleet:
            attempt(lambda act=act: act(fleet))  # type: ignore[misc]
        world.explained()
    world.cleaned_up()


@pytest.mark.parametrize("fault", [fault for fault in MOVED if fault.verb not in HALTING], ids=str)
def test_a_fault_hides_nothing_that_bills(world: World, fault: Fault) -> None:
    through(world, (fault,), launched, ended, launched)
    assert fault.verb is Verb.REMOVE or world.server.struck


@pytest.mark.parametrize(
    "fault", [f for f in MOVED if f.verb not in HALTING and f.trouble is not Trouble.TIMEOUT], ids=str
)
def test_a_fault_that_stays_hides_nothing_that_bills(world: World, fault: Fault) -> None:
    many = Fault(fault.verb, fault.trouble, times=9)
    through(world, (many,), launched, ended)


@pytest.mark.parametrize("fault", [fault for fault in MOVED if fault.verb in HALTING], ids=str)
def test_a_fault_of_stopping_hides_nothing_that_bills(world: World, fault: Fault) -> None:
    world.patience_s = IMPATIENT_S if fault.trouble is Trouble.TIMEOUT else world.patience_s
    with world.process() as fleet:
        rent(fleet, request())
    through(world, (fault,), halted, started, halted)
    assert world.server.struck


@pytest.mark.parametrize("faults", COMBINED, ids=lambda faults: "+".join(map(str, faults)))
def test_faults_together_hide_nothing_that_bills(world: World, faults: tuple[Fault, ...]) -> None:
    through(world, faults, launched, ended, launched)
    assert {fault.trouble for fault in world.server.struck} == {fault.trouble for fault in faults}


TROUBLED: list[tuple[Fault, ...]] = [
    (),
    (Fault(Verb.CREATE, Trouble.LOST_REPLY), Fault(Verb.CREATE, Trouble.LAG)),
    (Fault(Verb.CREATE, Trouble.TWICE), Fault(Verb.CREATE, Trouble.ERROR_BUT_DONE)),
]


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("faults", TROUBLED, ids=lambda faults: "+".join(map(str, faults)) or "calm")
def test_a_launch_that_dies_anywhere_is_explained_and_taken_up(
    world: World, faults: tuple[Fault, ...], moment: Moment
) -> None:
    for number in itertools.count(1):
        world.server.strike(*faults)
        dies = DiesAt(number, moment)
        with world.process(dies) as fleet:
            outcome = attempt(lambda: rent(fleet, request()))
        assert dies.dead or outcome is None
        world.explained()
        world.server.calm()
        before = {thing.token for thing in world.server.vendor.billing()}
        with world.process() as fleet:
            rent(fleet, request())
            after = {thing.token for thing in world.server.vendor.billing()}
            assert len(after) == 1
            # An instance that is there is taken up, not replaced.
            assert before <= after
            give_back(fleet, "x")
        assert not world.rented_twice()
        world.cleaned_up()
        if not dies.dead:
            break
    assert number > 8, "the walk found hardly any steps to die at"


ENDINGS: list[tuple[Fault, ...]] = [
    (),
    (Fault(Verb.TERMINATE, Trouble.LOST_REPLY), Fault(Verb.TERMINATE, Trouble.LINGER)),
    (Fault(Verb.TERMINATE, Trouble.LEFT_BEHIND),),
]


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("faults", ENDINGS, ids=lambda faults: "+".join(map(str, faults)) or "calm")
def test_an_end_that_dies_anywhere_is_explained_and_finished(
    world: World, faults: tuple[Fault, ...], moment: Moment
) -> None:
    for number in itertools.count(1):
        with world.process() as fleet:
            rent(fleet, request())
        world.server.strike(*faults)
        dies = DiesAt(number, moment)
        with world.process(dies) as fleet:
            attempt(lambda: give_back(fleet, "x"))
        world.explained()
        world.cleaned_up()
        if not dies.dead:
            break
    assert number > 6, "the walk found hardly any steps to die at"


@pytest.mark.parametrize("moment", list(Moment))
def test_a_comparison_that_dies_anywhere_hides_nothing(world: World, moment: Moment) -> None:
    for number in itertools.count(1):
        # One whose launch was cut off, made twice, and one whose end was.
        world.server.strike(Fault(Verb.CREATE, Trouble.TWICE))
        for name, last in (("x", 4), ("y", 0)):
            with world.process(DiesAt(last, Moment.AFTER) if last else None) as fleet:
                attempt(lambda name=name: rent(fleet, request(name)))  # type: ignore[misc]
        with world.process(DiesAt(4, Moment.AFTER)) as fleet:
            attempt(lambda: give_back(fleet, "y"))
        dies = DiesAt(number, moment)
        with world.process(dies) as fleet:
            attempt(lambda: fsck(fleet))
        world.explained()
        world.cleaned_up()
        if not dies.dead:
            break
    assert number > 3


@pytest.mark.parametrize("jumps", [*itertools.product((DAY, -DAY), repeat=2)], ids=str)
def test_a_clock_that_jumps_changes_neither_the_bill_nor_what_lives(
    world: World, jumps: tuple[timedelta, timedelta]
) -> None:
    with world.process() as fleet:
        rent(fleet, request(no_limit=True))
    for jump in jumps:
        world.time.jump(jump)
        world.time.sleep(HOUR.total_seconds())
        report = world.explained()
        assert [finding.kind for finding in report.findings] == [FindingKind.RUNNING]
    with world.process() as fleet:
        cluster = fleet.store.clusters.get("x")
        assert cluster
        assert cluster.state is ClusterState.READY
        world.time.jump(-jumps[0])
        give_back(fleet, "x")
        booked = fleet.store.ledger.cost(cluster.id)
    (made,) = world.server.vendor.instances()
    billed = made.cost(world.time.elsewhere())
    assert booked is not None
    # The books round up to the second, which is what acme's traits say.
    assert 0 <= booked - billed <= over_time(made.usd_per_hour, timedelta(seconds=1))
    assert billed > 2 * made.usd_per_hour
    world.cleaned_up()


def test_a_clock_that_jumps_does_not_prove_that_what_is_not_listed_yet_is_gone(world: World) -> None:
    world.server.strike(Fault(Verb.CREATE, Trouble.LAG))
    with world.process() as fleet:
        rent(fleet, request())
    world.time.jump(HOUR)
    for _ in range(4):
        assert [finding.kind for finding in world.explained().findings] == [FindingKind.RUNNING]
    world.cleaned_up()


def test_a_listing_that_breaks_during_a_comparison_is_a_failure_beside_the_rest(
    world: World,
) -> None:
    with world.process() as fleet:
        rent(fleet, request("y"))
    # Only the intent is on disk, so the comparison lists again for its token.
    with world.process(DiesAt(4, Moment.BEFORE)) as fleet:
        attempt(lambda: rent(fleet, request("x")))
        assert any(rental.ref is None for rental in fleet.store.journal.rentals())
    world.server.strike(Fault(Verb.LIST, Trouble.ERROR, times=200, after=2))
    with world.process() as fleet:
        report = fsck(fleet)
    assert report.failures
    assert not world.unseen(report)
    world.cleaned_up()


# -- processes that are killed for real ---------------------------------------------------------------


@pytest.mark.parametrize("command", ["launch", "fsck"])
def test_a_command_killed_at_any_call_leaves_nothing_unseen(tmp_path: Path, command: str) -> None:
    words = {
        "launch": ["launch", "--name", "x", "--provider", "acme", "--gpu", "H100", "--yes"],
        "fsck": ["fsck"],
    }
    with serving() as server, installation(tmp_path) as cli:
        environ = install_acme(server, tmp_path / "plugins")
        for number in itertools.count(1):
            if command == "fsck":
                cli(*words["launch"], env=environ)
                assert server.vendor.billing()
            died = cli(*words[command], env={**environ, DIES_AT: f"after {number}"})
            report = cli("fsck", "--json", env=environ)
            assert not report.json["failures"]
            shown = {finding["instance_id"] for finding in report.json["findings"]}
            billing = {thing.instance_id or thing.id for thing in server.vendor.billing()}
            assert billing <= shown
            assert len(billing) <= 1
            cli("fsck", "--fix", "--yes", env=environ)
            cli("down", "x", "--yes", env=environ)
            assert not server.vendor.billing()
            assert cli.ok("ps", env=environ).out == ""
            if died.code != -signal.SIGKILL:
                break
        assert number > 2, "the walk found hardly any calls to die at"


# -- the simulated market, whose faults come from its script, and whose machines take their time -----


SIM_SCRIPTS = [
    "stockout=1",
    "quota=1",
    "throttle=2",
    "api500=3",
    "lost-reply=1,slow-list=2",
    "error-but-created=1",
    "twice=1",
    "twice=1,lost-reply=1,terminate500=1",
    "forget=2",
    "nolist=2,lost-reply=1",
    "slow-list=3",
    "terminate500=2",
    "lost-terminate=1",
    "stuck=2",
    "leak=1",
    "twice=1,leak=1,stuck=1",
]


class Unreached(Sim):
    """The simulated market without SSH, which is not what this is about."""

    traits = replace(Sim.traits, reach=Reach.NONE, listing_lag_s=0.5)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    kill_all_below(tmp_path)


def bills_at_sim(provider: Sim, folder: Path) -> tuple[set[str], set[str]]:
    """The ids of the instances that bill, and of the disks that were left behind, whatever is listed."""
    machines = {machine.folder.name for machine in local.machines(folder / "instances") if not machine.ended}
    market = json.loads((folder / "market.json").read_text())
    return machines, set(market["leaked"])


@pytest.mark.parametrize("script", SIM_SCRIPTS)
def test_a_fault_of_the_simulated_market_hides_nothing_that_bills(sim: Path, script: str) -> None:
    folder = sim / "sim"
    config = load({"launch.end_timeout": "20s", "launch.ready_timeout": "20s"}, {"HOME": str(sim)}, sim)
    market = Unreached(ProviderSettings("sim", folder, script=script))
    with opened(sim / "books") as store:
        fleet = Fleet(store, Only(config, market), config, "me", lambda: identity(sim), lambda event: None)

        def explained() -> None:
            report = fsck(fleet)
            if report.failures:
                report = fsck(fleet)
            assert not report.failures
            shown = {finding.instance_id for finding in report.findings}
            running = {f.token for f in report.findings if f.kind is FindingKind.RUNNING}
            machines, leaked = bills_at_sim(market, folder)
            tokens = {name.removesuffix("-twin") for name in machines}
            assert machines <= shown or tokens <= running
            # What a twin has left behind goes with the one that is kept.
            assert leaked <= shown | {f"disk-{token}-twin" for token in running}
            assert len(tokens) <= 1, "rented twice"

        attempt(lambda: launch(fleet, plan(fleet, request(), ["sim"])))
        explained()
        attempt(lambda: give_back(fleet, "x"))
        explained()
        for cluster in store.clusters.living():
            end_cluster(fleet, cluster, "down")
        for finding in fsck(fleet).findings:
            if finding.unexplained:
                fix(fleet, finding)
        assert bills_at_sim(market, folder) == (set(), set())
        assert not any(finding.unexplained for finding in fsck(fleet).findings)
        assert not store.journal.rentals()
