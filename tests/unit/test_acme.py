"""The vendor acme of the tests: its adapter keeps the contract, and each of its faults does what it says."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from gpucloud.config import load
from gpucloud.errors import (
    AuthError,
    BadReply,
    NoCapacity,
    NotFound,
    NothingMatched,
    ProviderError,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.fleet import Fleet
from gpucloud.http import HttpClient
from gpucloud.model import Instance, InstanceState, Requirements, SideResource, SshAddress
from gpucloud.provider import Provider, Reach
from gpucloud.remote.keys import identity
from gpucloud.store import Store
from gpucloud.testing import ProviderConformance, Responses
from tests.harness.acme import (
    DIES_AT,
    EVERY_FAULT,
    KEY,
    PATIENCE,
    READS,
    TYPES,
    Acme,
    DiesAt,
    Fault,
    Killed,
    Moment,
    Only,
    Server,
    Trouble,
    Vendor,
    Verb,
    an_acme,
    install_acme,
    serving,
)
from tests.harness.acme.faults import OF_FEW
from tests.harness.catalogs import Clock
from tests.harness.cli import installation
from tests.providers.rented import a_spec, an_offer

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = "gc-token-of-the-test"
IMPATIENT_S = 0.3

NOTHING_DONE = {
    Trouble.DROPPED_CONNECTION,
    Trouble.ERROR,
    Trouble.HTML,
    Trouble.THROTTLED,
    Trouble.UNAUTHORIZED,
    Trouble.REFUSED,
    Trouble.NOT_FOUND,
}

PASSING = {
    Trouble.DROPPED_CONNECTION,
    Trouble.ERROR,
    Trouble.HTML,
    Trouble.THROTTLED,
    Trouble.LOST_REPLY,
    Trouble.ERROR_BUT_DONE,
    Trouble.TIMEOUT,
}
"""What a read gets over by being tried again."""

ANSWERED = [f for f in EVERY_FAULT if f.trouble not in OF_FEW or f.trouble is Trouble.NOT_FOUND]
"""The faults by which the client does not get its answer."""

ERRORS: dict[Trouble, type[ProviderError]] = {
    Trouble.DROPPED_CONNECTION: Unreachable,
    Trouble.ERROR: Unreachable,
    Trouble.HTML: Unreachable,
    Trouble.THROTTLED: RateLimited,
    Trouble.UNAUTHORIZED: AuthError,
    Trouble.REFUSED: Rejected,
    Trouble.NOT_FOUND: NotFound,
    Trouble.LOST_REPLY: Unreachable,
    Trouble.ERROR_BUT_DONE: Unreachable,
    Trouble.TIMEOUT: Unreachable,
    Trouble.TRUNCATED: BadReply,
}


class VendorTime:
    """The vendor's clock, which tests put forward."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def passes(self, **time: float) -> None:
        """Let it pass at the vendor."""
        self.now += timedelta(**time)


@pytest.fixture
def time() -> VendorTime:
    return VendorTime()


@pytest.fixture
def server(time: VendorTime) -> Iterator[Server]:
    with serving(Vendor(time)) as server:
        yield server


@pytest.fixture
def acme(server: Server, tmp_path: Path) -> Acme:
    return an_acme(server, tmp_path)


def launch(acme: Provider, token: str = TOKEN, **given: object) -> Instance:
    """An instance of the dearer kind, with that token."""
    key = identity(acme.settings.state_dir)
    return acme.launch(an_offer(acme, region="west"), a_spec(key, token=token, **given))


def disk_left_behind(server: Server, acme: Acme) -> SideResource:
    """A disk whose instance is gone."""
    server.strike(Fault(Verb.TERMINATE, Trouble.LEFT_BEHIND))
    acme.terminate(launch(acme, "gc-of-the-disk").ref)
    left = [resource for resource in acme.side_resources() if resource.token == "gc-of-the-disk"]
    return next(resource for resource in left if resource.kind == "disk")


class Scene:
    """What each verb needs to be asked is there: a running instance, a stopped one, a disk of nobody."""

    def __init__(self, server: Server, acme: Acme, asking: Acme) -> None:
        self.vendor = server.vendor
        self.asking = asking
        self.offer = an_offer(acme, region="west")
        self.spec = a_spec(identity(acme.settings.state_dir), token="gc-of-the-scene")
        self.running = launch(acme).ref
        self.stopped = launch(acme, "gc-stopped").ref
        acme.stop(self.stopped)
        self.disk = disk_left_behind(server, acme)

    def ask(self, verb: Verb) -> object:
        """Ask it of the adapter."""
        acme, ref = self.asking, self.running
        asks: dict[Verb, Callable[[], object]] = {
            Verb.OFFERS: lambda: list(acme.offers(Requirements(markets=()))),
            Verb.CREATE: lambda: acme.launch(self.offer, self.spec),
            Verb.GET: lambda: acme.get(ref),
            Verb.LIST: lambda: list(acme.instances()),
            Verb.TERMINATE: lambda: acme.terminate(ref),
            Verb.STOP: lambda: acme.stop(ref),
            Verb.START: lambda: acme.start(self.stopped),
            Verb.EXPIRE: lambda: acme.expire(ref, START + timedelta(days=1)),
            Verb.LIST_RESOURCES: lambda: list(acme.side_resources()),
            Verb.REMOVE: lambda: acme.remove(self.disk),
        }
        return asks[verb]()

    def done(self, verb: Verb) -> bool:
        """Whether the vendor has done what only this verb does here."""
        looks: dict[Verb, Callable[[], bool]] = {
            Verb.CREATE: lambda: bool(self.vendor.instances(self.spec.token)),
            Verb.TERMINATE: lambda: self.vendor.thing(self.running.id).status == "gone",
            Verb.STOP: lambda: self.vendor.thing(self.running.id).status == "stopped",
            Verb.START: lambda: self.vendor.thing(self.stopped.id).status == "running",
            Verb.EXPIRE: lambda: self.vendor.thing(self.running.id).expires_at is not None,
            Verb.REMOVE: lambda: self.vendor.thing(self.disk.ref.id).status == "gone",
        }
        return looks[verb]()


# -- the contract ------------------------------------------------------------------------------------

NOT_A_PACKAGE = {"test_name_is_one_word": "it is a module of the tests and no package of its own"}


class TestAcme(ProviderConformance):
    deviations = NOT_A_PACKAGE

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[Provider]:
        with serving() as server:
            yield an_acme(server, tmp_path)


class TestAcmeWithSsh(ProviderConformance):
    deviations = NOT_A_PACKAGE

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[Provider]:
        with serving(Vendor(address=SshAddress("192.0.2.1", 2222, "ubuntu"))) as server:
            yield an_acme(server, tmp_path)


class TestAcmeThatIsLateWithEverything(ProviderConformance):
    deviations = NOT_A_PACKAGE

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[Provider]:
        with serving() as server:
            server.strike(
                Fault(Verb.CREATE, Trouble.LAG, times=100, listings=3),
                Fault(Verb.TERMINATE, Trouble.LINGER, times=100, listings=3),
                Fault(Verb.REMOVE, Trouble.LINGER, times=100, listings=3),
            )
            yield an_acme(server, tmp_path)


def test_an_instance_has_the_address_that_the_test_has_chosen(tmp_path: Path) -> None:
    where = SshAddress("192.0.2.1", 2222, "ubuntu")
    with serving(Vendor(address=where)) as server:
        acme = an_acme(server, tmp_path)
        assert acme.traits.reach is Reach.SSH_KEY
        instance = launch(acme)
        assert acme.get(instance.ref).ssh == where
        acme.stop(instance.ref)
        assert acme.get(instance.ref).ssh is None


def test_only_what_carries_our_tag_is_ours(server: Server, acme: Acme) -> None:
    line = TYPES[0]
    asked = {"type": line.name, "region": line.region, "market": line.market, "tags": {"owner": "else"}}
    server.vendor.answer(Verb.CREATE, "", asked, {})
    ours = launch(acme)
    assert [instance.ref for instance in acme.instances()] == [ours.ref]
    assert {resource.token for resource in acme.side_resources()} == {TOKEN}


def test_a_listing_is_all_its_pages_or_an_error(server: Server, acme: Acme) -> None:
    tokens = [f"gc-{number}" for number in range(7)]
    for token in tokens:
        launch(acme, token)
    assert [instance.token for instance in acme.instances()] == tokens
    assert len(list(acme.side_resources())) == 2 * len(tokens)
    server.strike(Fault(Verb.LIST, Trouble.TRUNCATED, after=1))
    with pytest.raises(BadReply):
        list(acme.instances())


def test_a_reply_to_a_launch_that_makes_no_sense_leaves_open_whether_it_was_made(
    server: Server, acme: Acme
) -> None:
    offer = an_offer(acme, region="west")
    replies = Responses()
    replies.add("POST", "/v1/instances", {"id": "i-1"})
    odd = Acme(acme.settings)
    odd.client = partial(HttpClient, transport=replies)
    with pytest.raises(BadReply) as caught:
        odd.launch(offer, a_spec(identity(acme.settings.state_dir)))
    assert caught.value.outcome_unknown


def test_pages_that_go_in_a_circle_are_an_error(acme: Acme) -> None:
    replies = Responses()
    replies.add("GET", "/v1/instances", {"items": [], "next": "again"}, repeat=True)
    acme.client = partial(HttpClient, transport=replies)
    with pytest.raises(BadReply, match="cannot be read"):
        list(acme.instances())


# -- the truth ---------------------------------------------------------------------------------------


def test_what_bills_is_known_and_what_it_has_cost(server: Server, acme: Acme, time: VendorTime) -> None:
    instance = launch(acme)
    beside = Decimal("0.015")
    assert sum(thing.usd_per_hour for thing in server.vendor.billing()) == Decimal("2.60") + beside
    time.passes(hours=1)
    acme.stop(instance.ref)
    assert {thing.kind for thing in server.vendor.billing()} == {"disk", "address"}
    time.passes(hours=1)
    acme.start(instance.ref)
    time.passes(hours=1)
    acme.terminate(instance.ref)
    time.passes(hours=1)
    assert server.vendor.billing() == ()
    assert server.vendor.cost(TOKEN) == 2 * Decimal("2.60") + 3 * beside
    (made,) = server.vendor.instances(TOKEN)
    assert (made.created_at, made.ended_at) == (START, START + timedelta(hours=3))


def test_an_instance_expires_by_the_vendors_own_clock(server: Server, acme: Acme, time: VendorTime) -> None:
    expires_at = START + timedelta(hours=1)
    instance = launch(acme, expires_at=expires_at)
    time.passes(minutes=59)
    assert acme.get(instance.ref).state is InstanceState.RUNNING
    time.passes(minutes=5)
    with pytest.raises(NotFound):
        acme.get(instance.ref)
    assert server.vendor.instances()[0].ended_at == expires_at
    assert server.vendor.billing() == ()
    assert server.vendor.cost() == Decimal("2.60") + Decimal("0.015")


def test_an_instance_can_be_taken_back(server: Server, acme: Acme) -> None:
    instance = launch(acme)
    server.vendor.take_back(instance.ref.id)
    assert list(acme.instances()) == []
    assert server.vendor.billing() == ()


def test_what_is_sold_out_is_refused(server: Server, acme: Acme) -> None:
    offer = an_offer(acme, instance_type="a1.8xh100")
    with pytest.raises(NoCapacity):
        acme.launch(offer, a_spec(identity(acme.settings.state_dir)))
    assert server.vendor.things() == ()


def test_every_request_is_kept(server: Server, acme: Acme) -> None:
    instance = launch(acme)
    acme.terminate(instance.ref)
    (made,) = server.made(Verb.CREATE)
    assert made.json["tags"]["gpucloud-token"] == TOKEN
    assert made.headers["authorization"] == f"Bearer {KEY}"
    assert [str(request) for request in server.requests] == [
        "GET /v1/types",
        "POST /v1/instances",
        f"DELETE /v1/instances/{instance.ref.id}",
    ]


def test_many_clients_at_once_are_served(server: Server, acme: Acme) -> None:
    tokens = {f"gc-{number}" for number in range(20)}
    threads = [threading.Thread(target=launch, args=(acme, token)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {instance.token for instance in acme.instances()} == tokens
    assert len({thing.id for thing in server.vendor.things()}) == 3 * len(tokens)


# -- faults ------------------------------------------------------------------------------------------


def _asking(server: Server, folder: Path, fault: Fault) -> Acme:
    """A client that loses patience soon where that is what the fault is about."""
    return an_acme(server, folder, patience_s=IMPATIENT_S if fault.trouble is Trouble.TIMEOUT else 30)


@pytest.mark.parametrize("fault", [f for f in ANSWERED if f.verb not in READS], ids=str)
def test_a_write_is_lost_done_or_not(server: Server, tmp_path: Path, fault: Fault) -> None:
    scene = Scene(server, an_acme(server, tmp_path), _asking(server, tmp_path, fault))
    assert not scene.done(fault.verb)
    before = len(server.requests)
    server.strike(fault)
    if fault.trouble is Trouble.NOT_FOUND and fault.verb in {Verb.TERMINATE, Verb.REMOVE}:
        scene.ask(fault.verb)
    else:
        wanted = ERRORS[fault.trouble]
        if fault.trouble is Trouble.REFUSED and fault.verb in {Verb.CREATE, Verb.START}:
            wanted = NoCapacity
        with pytest.raises(wanted) as caught:
            scene.ask(fault.verb)
        assert caught.value.outcome_unknown is issubclass(wanted, Unreachable | BadReply)
    assert server.struck[-1] == fault
    assert len(server.requests) == before + 1, "a write is never repeated"
    assert scene.done(fault.verb) is (fault.trouble not in NOTHING_DONE)
    scene.ask(fault.verb)
    assert scene.done(fault.verb)


@pytest.mark.parametrize("fault", [f for f in ANSWERED if f.verb in READS], ids=str)
def test_a_read_is_tried_again_where_that_helps(server: Server, tmp_path: Path, fault: Fault) -> None:
    scene = Scene(server, an_acme(server, tmp_path), _asking(server, tmp_path, fault))
    wanted = scene.ask(fault.verb)
    before = len(server.made(fault.verb))
    server.strike(fault)
    if fault.trouble not in PASSING:
        with pytest.raises(ERRORS[fault.trouble]):
            scene.ask(fault.verb)
        assert len(server.made(fault.verb)) == before + 1
    found = scene.ask(fault.verb)
    assert len(server.made(fault.verb)) >= before + 2
    assert server.struck[-1] == fault
    if fault.verb is not Verb.OFFERS:  # which differ in when they were read
        assert found == wanted


def test_who_asks_too_often_is_told_how_long_to_wait(server: Server, tmp_path: Path) -> None:
    clock = Clock()
    server.strike(Fault(Verb.LIST, Trouble.THROTTLED, times=3))
    assert list(an_acme(server, tmp_path, clock=clock).instances()) == []
    assert clock.now >= 3


def test_a_create_can_make_two(server: Server, acme: Acme) -> None:
    server.strike(Fault(Verb.CREATE, Trouble.TWICE))
    told = launch(acme)
    first, second = server.vendor.instances(TOKEN)
    assert told.ref.id == second.id
    assert [instance.ref.id for instance in acme.instances()] == [first.id, second.id]


def test_a_new_instance_can_be_missing_from_listings(server: Server, acme: Acme) -> None:
    server.strike(Fault(Verb.CREATE, Trouble.LAG, listings=3))
    launch(acme)
    launch(acme, "gc-other")
    shown = [[instance.token for instance in acme.instances()] for _ in range(4)]
    assert shown == [["gc-other"], ["gc-other"], ["gc-other"], [TOKEN, "gc-other"]]
    beside = [{resource.token for resource in acme.side_resources()} for _ in range(4)]
    assert beside == [{"gc-other"}, {"gc-other"}, {"gc-other"}, {TOKEN, "gc-other"}]


def test_what_was_terminated_can_linger_and_bill_on(server: Server, acme: Acme, time: VendorTime) -> None:
    instance = launch(acme)
    server.strike(Fault(Verb.TERMINATE, Trouble.LINGER, listings=2))
    for _ in range(2):
        acme.terminate(instance.ref)
        time.passes(hours=1)
        assert [shown.state for shown in acme.instances()] == [InstanceState.TERMINATING]
        assert {thing.kind for thing in server.vendor.billing()} == {"instance", "disk", "address"}
    acme.terminate(instance.ref)
    assert list(acme.instances()) == []
    assert server.vendor.billing() == ()
    assert server.vendor.cost() == 2 * (Decimal("2.60") + Decimal("0.015"))


def test_what_was_removed_can_linger(server: Server, acme: Acme) -> None:
    disk = disk_left_behind(server, acme)
    server.strike(Fault(Verb.REMOVE, Trouble.LINGER, listings=1))
    acme.remove(disk)
    assert disk in acme.side_resources()
    assert disk not in acme.side_resources()


def test_what_is_in_use_cannot_be_removed(server: Server, acme: Acme) -> None:
    launch(acme)
    for resource in acme.side_resources():
        with pytest.raises(Rejected, match="refused"):
            acme.remove(resource)
    assert len(server.vendor.billing()) == 3


@pytest.mark.parametrize("verb", [Verb.CREATE, Verb.TERMINATE])
def test_a_disk_and_an_address_can_be_left_behind(server: Server, acme: Acme, verb: Verb) -> None:
    server.strike(Fault(verb, Trouble.LEFT_BEHIND))
    if verb is Verb.CREATE:
        with pytest.raises(Unreachable) as caught:
            launch(acme)
        assert caught.value.outcome_unknown
        assert server.vendor.instances() == ()
    else:
        acme.terminate(launch(acme).ref)
    assert list(acme.instances()) == []
    left = list(acme.side_resources())
    assert {(resource.kind, resource.token) for resource in left} == {("disk", TOKEN), ("address", TOKEN)}
    assert {thing.id for thing in server.vendor.billing()} == {resource.ref.id for resource in left}
    for resource in left:
        acme.remove(resource)
    assert list(acme.side_resources()) == []
    assert server.vendor.billing() == ()


def test_a_fault_strikes_as_often_and_as_late_as_it_says(server: Server, acme: Acme) -> None:
    instance = launch(acme)
    server.strike(Fault(Verb.STOP, Trouble.REFUSED, times=2, after=1))
    outcomes = []
    for _ in range(4):
        try:
            acme.stop(instance.ref)
            outcomes.append("went well")
        except Rejected:
            outcomes.append("refused")
    assert outcomes == ["went well", "refused", "refused", "went well"]
    assert len(server.struck) == 2


def test_faults_of_one_request_add_up(server: Server, acme: Acme) -> None:
    server.strike(
        Fault(Verb.CREATE, Trouble.TWICE),
        Fault(Verb.CREATE, Trouble.LAG, listings=1),
        Fault(Verb.CREATE, Trouble.LOST_REPLY),
    )
    with pytest.raises(Unreachable):
        launch(acme)
    assert len(server.vendor.instances(TOKEN)) == 2
    assert [len(list(acme.instances())) for _ in range(2)] == [0, 2]


def test_no_fault_happens_once_it_is_calm(server: Server, acme: Acme) -> None:
    server.strike(Fault(Verb.CREATE, Trouble.ERROR, times=100))
    server.calm()
    launch(acme)
    assert server.struck == []


@pytest.mark.parametrize(
    ("verb", "trouble"),
    [(v, t) for v, t in itertools.product(Verb, Trouble) if v not in OF_FEW.get(t, frozenset(Verb))],
)
def test_a_fault_that_could_never_strike_is_a_mistake(verb: Verb, trouble: Trouble) -> None:
    with pytest.raises(ValueError, match=f"{verb} cannot have {trouble}"):
        Fault(verb, trouble)


# -- a client that dies ------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", list(Moment))
def test_a_client_can_die_on_both_sides_of_a_call(server: Server, tmp_path: Path, moment: Moment) -> None:
    dies = DiesAt(2, moment)
    dying = an_acme(server, tmp_path, hook=dies)
    with pytest.raises(Killed, match=f"{moment} POST /v1/instances"):
        launch(dying)
    assert len(server.vendor.instances(TOKEN)) == (moment is Moment.AFTER)
    with pytest.raises(Killed):
        list(dying.instances())
    assert server.made(Verb.LIST) == [], "who is dead asks for nothing"
    assert dies.dead


def test_a_client_is_killed_at_every_call_until_it_survives(server: Server, tmp_path: Path) -> None:
    deaths = []
    for number in itertools.count(1):
        try:
            launch(an_acme(server, tmp_path, hook=DiesAt(number, Moment.BEFORE)), f"gc-{number}")
            break
        except Killed as killed:
            deaths.append(str(killed))
    assert deaths == ["before GET /v1/types", "before POST /v1/instances"]
    assert [thing.token for thing in server.vendor.instances()] == ["gc-3"]


# -- in a fleet, and on the command line -------------------------------------------------------------


def test_a_fleet_of_this_process_can_have_it(acme: Acme, tmp_path: Path) -> None:
    config = load({}, {"HOME": str(tmp_path)}, tmp_path)
    store = Store(tmp_path / "books")
    fleet = Fleet(store, Only(config, acme), config, "me", lambda: identity(tmp_path), lambda event: None)
    try:
        assert fleet.registry.get("acme") is acme
        assert fleet.registry.configured() == [acme]
        assert fleet.registry.select(()) == [acme]
        assert fleet.registry.asks("acme")
        assert not fleet.registry.asks("sim")
        with pytest.raises(NothingMatched):
            fleet.registry.get("sim")
    finally:
        store.db.close()


def test_the_command_line_can_have_it(server: Server, tmp_path: Path) -> None:
    environ = install_acme(server, tmp_path / "plugins")
    with installation(tmp_path) as cli:
        died = cli("offers", "--provider", "acme", env={**environ, DIES_AT: "before 1"})
        assert died.code == -signal.SIGKILL
        assert server.requests == []
        died = cli("offers", "--provider", "acme", env={**environ, DIES_AT: "after 1"})
        assert died.code == -signal.SIGKILL
        assert len(server.requests) == 1
        shown = cli.ok("offers", "--provider", "acme", "--json", env=environ).json
        assert {Decimal(offer["usd_per_hour"]) for offer in shown["offers"]} >= {TYPES[1].usd_per_hour}


def test_an_installed_adapter_can_have_little_patience(server: Server, tmp_path: Path) -> None:
    environ = install_acme(server, tmp_path / "plugins")
    server.strike(Fault(Verb.OFFERS, Trouble.TIMEOUT))
    with installation(tmp_path) as cli:
        cli.ok("offers", "--provider", "acme", env={**environ, PATIENCE: "0.3"})
    assert len(server.made(Verb.OFFERS)) == 2
