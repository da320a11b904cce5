"""The suite for adapter authors against adapters broken on purpose: the right tests fail, and only they."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpucloud.testing import RENTING_TESTS, ProviderConformance
from gpucloud.testing.conformance import ABILITY_TESTS

CLASS_TESTS = {
    "test_name_is_one_word",
    "test_facts_are_dated",
    "test_traits_are_facts",
    "test_configured_needs_no_network",
    "test_what_a_stopped_instance_bills_is_told_by_who_can_stop",
    "test_who_opens_ssh_to_some_alone_can_let_in_more",
}

ADAPTER = '''
"""A vendor in memory, honest and otherwise."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

from gpucloud.calls import sending
from gpucloud.errors import NotFound, Rejected
from gpucloud.model import Availability, Block, Gpu, Instance, InstanceRef, InstanceState, Market, Offer
from gpucloud.model import Reservation, ReservationState, SideResource, SshAddress, utcnow
from gpucloud.provider import Fuse, Kind, Provider, Reach, StoppedBilling, Traits

TRAITS = Traits(
    kind=Kind.VM, markets=frozenset({Market.ON_DEMAND}), reach=Reach.SSH_KEY, fuse=Fuse.CLIENT,
    billing_grain_s=1, billing_minimum_s=0, billed_while_stopped=StoppedBilling.UNSUPPORTED,
    name_length=63, idempotent_launch=True, listing_lag_s=0,
)
WALLED = replace(TRAITS, firewalled=True)
STOPPABLE = replace(WALLED, billed_while_stopped=StoppedBilling.STORAGE)


class Toy(Provider):
    name = "toy"
    as_of = date(2026, 11, 21)
    traits = TRAITS

    def __init__(self, settings):
        super().__init__(settings)
        self.rented = {}

    @classmethod
    def configured(cls, settings):
        return True

    def offers(self, requirements):
        yield Offer(
            provider="toy", instance_type="toy.1", market=Market.ON_DEMAND, usd_per_hour=Decimal(1),
            as_of=utcnow(), source="toy", gpu=Gpu("H100"), gpu_count=1, availability=Availability.UNKNOWN,
        )

    def launch(self, offer, spec):
        ref = InstanceRef(f"i-{spec.token}")
        self.rented.setdefault(ref, Instance(
            "toy", ref, InstanceState.RUNNING, spec.token, spec.cluster, spec.rank, spec.owner,
            SshAddress("127.0.0.1"), market=offer.market, usd_per_hour=offer.usd_per_hour,
        ))
        return self.rented[ref]

    def get(self, ref):
        if ref not in self.rented:
            raise NotFound("toy: no such instance", provider="toy")
        return self.rented[ref]

    def instances(self):
        return list(self.rented.values())

    def terminate(self, ref):
        self.rented.pop(ref, None)


class Forgetful(Toy):
    def instances(self):
        return [replace(instance, token=None) for instance in super().instances()]


class Clinging(Toy):
    def terminate(self, ref):
        pass


class Strict(Toy):
    def terminate(self, ref):
        if ref not in self.rented:
            raise NotFound("toy: no such instance", provider="toy")
        del self.rented[ref]


class Optimist(Toy):
    def offers(self, requirements):
        for offer in super().offers(requirements):
            yield replace(offer, availability="plenty")


class Floating(Toy):
    def offers(self, requirements):
        for offer in super().offers(requirements):
            yield replace(offer, amount=1.1)


class Stale(Toy):
    def offers(self, requirements):
        for offer in super().offers(requirements):
            yield replace(offer, as_of=offer.as_of.replace(year=2020))


class Empty(Toy):
    def offers(self, requirements):
        return []


class SoldOut(Toy):
    def offers(self, requirements):
        for offer in super().offers(requirements):
            yield replace(offer, availability=Availability.UNAVAILABLE)


class Doubling(Toy):
    def launch(self, offer, spec):
        instance = super().launch(offer, spec)
        ref = InstanceRef(f"{instance.ref.id}-{len(self.rented)}")
        self.rented[ref] = replace(self.rented.pop(instance.ref), ref=ref)
        return self.rented[ref]


class Sharing(Toy):
    def launch(self, offer, spec):
        for instance in self.rented.values():
            return instance
        return super().launch(offer, spec)


class Anonymous(Toy):
    def instances(self):
        return [replace(instance, owner=None) for instance in super().instances()]


class Inventive(Toy):
    def get(self, ref):
        return self.rented.get(ref) or Instance("toy", ref, InstanceState.UNKNOWN)


class Unreachable(Toy):
    def get(self, ref):
        return replace(super().get(ref), ssh=None)


class Eager(Toy):
    def __init__(self, settings):
        super().__init__(settings)
        if not settings.table:
            raise Rejected("toy: no key", provider="toy")


class Undecided(Toy):
    @classmethod
    def configured(cls, settings):
        return settings.table.get("key")


class Misnamed(Toy):
    name = "To-y"


class Nowhere(Toy):
    traits = replace(TRAITS, markets=frozenset())


class WrongMarket(Toy):
    traits = replace(TRAITS, markets=frozenset({Market.SPOT}))


class Buggy(Toy):
    def get(self, ref):
        raise KeyError(ref)


class Deviating(Unreachable):
    pass


class Addressless(Unreachable):
    traits = replace(TRAITS, reach=Reach.NONE)


class Boastful(Toy):
    traits = replace(STOPPABLE, firewalled=False)


class Able(Toy):
    """It can do everything, at once."""

    traits = STOPPABLE
    rehearsable = True

    def tell(self):
        sending("POST", "https://toy.example/", {}, b"", changes=True)

    def __init__(self, settings):
        super().__init__(settings)
        self.ends = {}
        self.disks = {}
        self.admitted = set()
        self.shared = {}
        self.reserved = []

    def launch(self, offer, spec):
        self.tell()
        instance = super().launch(offer, spec)
        self.shared["wall"] = SideResource("toy", "firewall", InstanceRef("wall"))
        ref = InstanceRef(f"d-{spec.token}")
        self.disks[ref] = SideResource("toy", "disk", ref, spec.token, spec.cluster, spec.owner, Decimal(0))
        return instance

    def instances(self):
        for ref, at in self.ends.items():
            if at <= utcnow():
                self.terminate(ref)
        return super().instances()

    def terminate(self, ref):
        self.tell()
        if ref in self.rented:
            self.disks.pop(InstanceRef(f"d-{self.rented[ref].token}"), None)
        super().terminate(ref)

    def become(self, ref, state):
        self.rented[ref] = replace(Toy.get(self, ref), state=state)

    def stop(self, ref):
        self.become(ref, InstanceState.STOPPED)

    def start(self, ref):
        self.become(ref, InstanceState.RUNNING)

    def expire(self, ref, at):
        self.get(ref)
        self.ends[ref] = at

    def side_resources(self):
        return list(self.disks.values())

    def remove(self, resource):
        self.disks.pop(resource.ref, None)

    def admit(self, ref, networks):
        self.get(ref)
        self.admitted.update(networks)

    def shared_resources(self):
        return list(self.shared.values())

    def remove_shared(self, resource):
        self.shared.pop(resource.ref.id, None)


    def blocks(self, wanted, window):
        start, usd = window.earliest, Decimal(24)
        end = start + window.lasting
        return [Block("toy", "b-1", "toy", window.nodes, "here", "here-a", start, end, usd, usd)]

    def reserve(self, block, spec):
        self.reserved.append(
            Reservation(
                "toy",
                InstanceRef(f"r-{spec.token}"),
                ReservationState.SCHEDULED,
                block.instance_type,
                block.nodes,
                block.zone,
                token=spec.token,
                name=spec.cluster,
                owner=spec.owner,
            )
        )
        return self.reserved[-1]

    def reservations(self):
        return list(self.reserved)


class Silent(Able):
    def tell(self):
        pass


class Reckless(Silent):
    """It tells of what it has done already."""

    def launch(self, offer, spec):
        instance = super().launch(offer, spec)
        Able.tell(self)
        return instance

    def terminate(self, ref):
        super().terminate(ref)
        Able.tell(self)


class Brief(Able):
    def blocks(self, wanted, window):
        (block,) = super().blocks(wanted, window)
        return [replace(block, ends_at=block.ends_at - window.lasting / 2)]


class Cheating(Able):
    def reservations(self):
        return [replace(each, token=None) for each in self.reserved]


class Open(Able):
    traits = replace(STOPPABLE, firewalled=False)


class Particular(Able):
    def admit(self, ref, networks):
        if self.admitted & set(networks):
            raise Rejected("toy: they are in already", provider="toy")
        super().admit(ref, networks)


class Welcoming(Able):
    def admit(self, ref, networks):
        self.admitted.update(networks)


class Littering(Able):
    def remove_shared(self, resource):
        pass


class Unpriced(Able):
    traits = WALLED


class Unstoppable(Able):
    def stop(self, ref):
        self.get(ref)


class Restless(Able):
    def instances(self):
        shown = super().instances()
        for instance in shown:
            self.start(instance.ref)
        return shown


class StopsOnce(Able):
    def stop(self, ref):
        if self.get(ref).state is InstanceState.STOPPED:
            raise Rejected("toy: it is stopped", provider="toy")
        super().stop(ref)


class StartsStopped(Able):
    def start(self, ref):
        if self.get(ref).state is InstanceState.RUNNING:
            raise Rejected("toy: it runs", provider="toy")
        super().start(ref)


class Inert(Able):
    def start(self, ref):
        self.get(ref)


class Nameless(Able):
    def start(self, ref):
        self.rented[ref] = replace(self.get(ref), state=InstanceState.RUNNING, token="gc-other")


class Tenacious(Able):
    def terminate(self, ref):
        if ref not in self.rented or self.rented[ref].state is not InstanceState.STOPPED:
            super().terminate(ref)


class Credulous(Able):
    def become(self, ref, state):
        if ref in self.rented:
            super().become(ref, state)

    def expire(self, ref, at):
        self.ends[ref] = at


class Endless(Able):
    def expire(self, ref, at):
        self.get(ref)


class Hasty(Able):
    def expire(self, ref, at):
        super().expire(ref, utcnow())


class Stubborn(Able):
    def expire(self, ref, at):
        self.get(ref)
        self.ends.setdefault(ref, at)


class Secretive(Able):
    def side_resources(self):
        return []


class Unowned(Able):
    def side_resources(self):
        return [replace(disk, owner=None) for disk in super().side_resources()]


class Hoarding(Able):
    def terminate(self, ref):
        self.tell()
        Toy.terminate(self, ref)


class Keeping(Hoarding):
    def remove(self, resource):
        pass


class Exact(Able):
    def remove(self, resource):
        if resource.ref not in self.disks:
            raise NotFound("toy: no such disk", provider="toy")
        super().remove(resource)


class Sweeping(Able):
    def remove(self, resource):
        self.disks.clear()
'''

TESTS = """
import pytest
from gpucloud.provider import ProviderSettings
from gpucloud.testing import ProviderConformance
import gpucloud_toy as toy


class Base(ProviderConformance):
    deadline_s = 0.2
    adapter = toy.Toy

    @pytest.fixture
    def provider(self, tmp_path):
        return self.adapter(ProviderSettings("toy", tmp_path, table={"key": "k"}))


def conformance(adapter, **more):
    return type(f"Test{adapter.__name__}", (Base,), {"adapter": adapter, **more})


for each in list(vars(toy).values()):
    if isinstance(each, type) and issubclass(each, toy.Toy):
        globals()[f"Test{each.__name__}"] = conformance(each)

ADDRESS = "test_an_instance_comes_up_with_an_address"
TestDeviating = conformance(toy.Deviating, deviations={ADDRESS: "it has no address"})
TestHonestDeviation = conformance(toy.Toy, deviations={ADDRESS: "it was not written when this was"})
TestBuggyDeviation = conformance(toy.Buggy, deviations={ADDRESS: "a bug is no deviation"})
TestSoldOutDeviation = conformance(
    toy.SoldOut, deviations={"test_terminate_twice_succeeds": "fails in a fixture"}
)
"""

REPORTER = """
import json

def pytest_runtest_logreport(report):
    why = getattr(report, "wasxfail", "") or str(report.longrepr or "")
    how = "deviated" if report.skipped and hasattr(report, "wasxfail") else report.outcome
    with open("report", "a") as file:
        print(json.dumps([*report.nodeid.split("::")[1:], report.when, how, why]), file=file)
"""

SOLD_OUT = {
    "test_launch_returns_an_instance_with_our_token",
    "test_a_launched_instance_is_listed",
    "test_get_agrees_with_the_listing",
    "test_an_instance_comes_up_with_an_address",
    "test_two_launches_make_two_instances",
    "test_one_token_makes_one_instance",
    "test_instances_carry_a_token",
    "test_terminate_takes_it_off_the_listing",
    "test_terminate_twice_succeeds",
}

STOPPING = {
    "test_a_stopped_instance_is_listed_as_stopped_and_stays_so",
    "test_stop_twice_succeeds",
    "test_a_started_instance_comes_up_as_the_one_it_was",
    "test_a_stopped_instance_can_be_terminated",
}

KEEPING = {
    "test_what_launch_made_beside_an_instance_is_listed",
    "test_terminate_leaves_nothing_beside_the_instance",
    "test_remove_twice_succeeds",
    "test_remove_of_a_missing_resource_succeeds",
}

REHEARSED = {"test_a_rehearsed_launch_makes_nothing", "test_a_rehearsed_end_leaves_the_instance"}

BROKEN = {
    "Toy": set(),
    "Forgetful": {
        "test_a_launched_instance_is_listed",
        "test_get_agrees_with_the_listing",
        "test_instances_carry_a_token",
        "test_two_launches_make_two_instances",
        "test_one_token_makes_one_instance",
        "test_terminate_takes_it_off_the_listing",
    },
    "Clinging": {"test_terminate_takes_it_off_the_listing", "test_terminate_twice_succeeds"},
    "Strict": {"test_terminate_of_a_missing_instance_succeeds", "test_terminate_twice_succeeds"},
    "Optimist": {"test_offers_are_complete"},
    "Floating": {"test_offers_are_complete"},
    "Stale": {"test_offers_are_live"},
    "Empty": SOLD_OUT | {"test_offers_are_complete"},
    "SoldOut": SOLD_OUT,
    "Doubling": {"test_one_token_makes_one_instance"},
    "Sharing": {"test_two_launches_make_two_instances"},
    "Anonymous": {"test_a_launched_instance_is_listed", "test_instances_carry_a_token"},
    "Inventive": {"test_get_of_a_missing_instance_is_not_found"},
    "Unreachable": {"test_an_instance_comes_up_with_an_address"},
    "Eager": {"test_configured_needs_no_network"},
    "Undecided": {"test_configured_needs_no_network"},
    "Misnamed": {
        "test_name_is_one_word",
        "test_offers_are_complete",
        "test_launch_returns_an_instance_with_our_token",
    },
    "Nowhere": {"test_traits_are_facts", "test_offers_are_complete"},
    "WrongMarket": {"test_offers_are_complete"},
    "Buggy": {
        "test_get_agrees_with_the_listing",
        "test_an_instance_comes_up_with_an_address",
        "test_get_of_a_missing_instance_is_not_found",
    },
    "Addressless": set(),
    "Boastful": {"test_what_a_stopped_instance_bills_is_told_by_who_can_stop"},
    "Able": set(),
    "Silent": REHEARSED,
    "Reckless": REHEARSED,
    "Open": {"test_who_opens_ssh_to_some_alone_can_let_in_more"},
    "Particular": {"test_a_network_is_admitted_to_an_instance_again_and_again"},
    "Welcoming": {"test_admit_to_a_missing_instance_is_not_found"},
    "Littering": {"test_what_is_shared_stays_for_the_next_launch_and_can_be_removed"},
    "Brief": {"test_blocks_tell_when_for_how_long_and_for_how_much"},
    "Cheating": {"test_what_was_reserved_is_listed_with_its_token"},
    "Unpriced": {"test_what_a_stopped_instance_bills_is_told_by_who_can_stop"},
    "Unstoppable": STOPPING,
    "Restless": {"test_a_stopped_instance_is_listed_as_stopped_and_stays_so"},
    "StopsOnce": {"test_stop_twice_succeeds"},
    "StartsStopped": {"test_start_of_a_running_instance_succeeds"},
    "Inert": {"test_a_started_instance_comes_up_as_the_one_it_was"},
    "Nameless": {"test_a_started_instance_comes_up_as_the_one_it_was"},
    "Tenacious": {"test_a_stopped_instance_can_be_terminated"},
    "Credulous": {
        "test_stop_and_start_of_a_missing_instance_are_not_found",
        "test_expire_of_a_missing_instance_is_not_found",
    },
    "Endless": {"test_the_last_expiry_counts"},
    "Hasty": {"test_the_last_expiry_counts"},
    "Stubborn": {"test_the_last_expiry_counts"},
    "Secretive": KEEPING,
    "Unowned": {"test_what_launch_made_beside_an_instance_is_listed"},
    "Hoarding": {"test_terminate_leaves_nothing_beside_the_instance"},
    "Keeping": {"test_terminate_leaves_nothing_beside_the_instance", "test_remove_twice_succeeds"},
    "Exact": {"test_remove_twice_succeeds", "test_remove_of_a_missing_resource_succeeds"},
    "Sweeping": {"test_remove_of_a_missing_resource_succeeds"},
}
"""Adapter -> the tests that must fail."""


def pytest_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as an author of adapters does, with warnings as errors."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one phase of a test ended, and why if not well."""

    when: str
    how: str
    why: str


Outcomes = dict[str, dict[str, list[Outcome]]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Class -> test -> its phases, for all adapters in one run."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "gpucloud_toy.py").write_text(ADAPTER)
    (folder / "test_toys.py").write_text(TESTS)
    (folder / "conftest.py").write_text(REPORTER)
    done = pytest_in(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    found: Outcomes = {}
    for line in (folder / "report").read_text().splitlines():
        adapter, test, *phase = json.loads(line)
        found.setdefault(adapter.removeprefix("Test"), {}).setdefault(test, []).append(Outcome(*phase))
    return found


def failed(tests: dict[str, list[Outcome]]) -> set[str]:
    """The tests that fail, or cannot begin; what fails while cleaning up is another matter."""
    return {
        name
        for name, phases in tests.items()
        if any(phase.how == "failed" and phase.when != "teardown" for phase in phases)
    }


def expected(tests: dict[str, list[Outcome]]) -> dict[str, str]:
    """The tests that are expected to fail and do, with the reason."""
    return {name: p.why for name, phases in tests.items() for p in phases if p.how == "deviated"}


def skipped(tests: dict[str, list[Outcome]]) -> dict[str, str]:
    """The tests that were left out, with the reason."""
    return {name: p.why for name, phases in tests.items() for p in phases if p.how == "skipped"}


@pytest.mark.parametrize(("adapter", "wanted"), BROKEN.items(), ids=list(BROKEN))
def test_a_broken_adapter_fails_the_tests_of_what_is_broken(
    outcomes: Outcomes, adapter: str, wanted: set[str]
) -> None:
    assert failed(outcomes[adapter]) == wanted


def test_what_an_adapter_leaves_running_is_told(outcomes: Outcomes) -> None:
    left = {name for name, phases in outcomes["Clinging"].items() if phases[-1].how == "failed"}
    assert left >= {"test_launch_returns_an_instance_with_our_token", "test_a_launched_instance_is_listed"}


def test_a_deviation_is_an_expected_failure(outcomes: Outcomes) -> None:
    assert failed(outcomes["Deviating"]) == set()
    assert expected(outcomes["Deviating"]) == {
        "test_an_instance_comes_up_with_an_address": "it has no address"
    }


def test_a_deviation_that_passes_fails_the_suite(outcomes: Outcomes) -> None:
    assert failed(outcomes["HonestDeviation"]) == {"test_an_instance_comes_up_with_an_address"}
    phases = outcomes["HonestDeviation"]["test_an_instance_comes_up_with_an_address"]
    assert "XPASS(strict)" in "".join(phase.why for phase in phases)


def test_a_bug_is_not_hidden_by_a_deviation(outcomes: Outcomes) -> None:
    assert "test_an_instance_comes_up_with_an_address" in failed(outcomes["BuggyDeviation"])


def test_a_deviation_also_covers_what_fails_before_the_test_begins(outcomes: Outcomes) -> None:
    assert failed(outcomes["SoldOutDeviation"]) == SOLD_OUT - {"test_terminate_twice_succeeds"}
    assert expected(outcomes["SoldOutDeviation"]) == {"test_terminate_twice_succeeds": "fails in a fixture"}


def test_a_deviation_does_not_change_the_suite_of_others(outcomes: Outcomes) -> None:
    assert expected(outcomes["Toy"]) == {}


def test_what_an_adapter_cannot_do_is_left_out_with_the_reason(outcomes: Outcomes) -> None:
    left_out = skipped(outcomes["Toy"])
    assert set(left_out) == set(ABILITY_TESTS)
    assert "toy cannot stop an instance" in left_out["test_stop_twice_succeeds"]
    assert "toy cannot be told when to end an instance" in left_out["test_the_last_expiry_counts"]
    assert "toy lists nothing that bills beside an instance" in left_out["test_remove_twice_succeeds"]
    assert "toy lets everybody reach SSH" in left_out["test_admit_to_a_missing_instance_is_not_found"]
    assert "toy does not tell of all that it sends" in left_out["test_a_rehearsed_launch_makes_nothing"]
    assert "toy sells no reservations" in left_out["test_what_was_reserved_is_listed_with_its_token"]
    assert skipped(outcomes["Able"]) == {}


def test_every_test_of_the_suite_is_run_for_every_adapter(outcomes: Outcomes) -> None:
    suite = {name for name in vars(ProviderConformance) if name.startswith("test_")}
    assert suite == {*RENTING_TESTS, *ABILITY_TESTS, *CLASS_TESTS}
    assert all(set(tests) == suite for tests in outcomes.values())


def test_a_deviation_from_no_test_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="'test_ofers_are_live', which is no test"):
        type("Typo", (ProviderConformance,), {"deviations": {"test_ofers_are_live": "a typing error"}})
    with pytest.raises(TypeError, match="'deadline_s', which is no test"):
        type("NoTest", (ProviderConformance,), {"deviations": {"deadline_s": "no test"}})


def test_a_suite_without_a_provider_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "test_bare.py").write_text(
        "from gpucloud.testing import ProviderConformance\nclass TestBare(ProviderConformance): pass\n"
    )
    done = pytest_in(tmp_path)
    assert done.returncode == 1
    assert "give the suite a provider fixture" in done.stdout
