"""From where SSH may reach a machine: what is asked, how often, and what the machine's provider is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from pytest_httpserver import HTTPServer

from gpucloud.config import load
from gpucloud.errors import ConfigError, HostUnreachable, NoCapacity
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import connect
from gpucloud.fleet.launch import launch
from gpucloud.fleet.origin import Origin
from gpucloud.fleet.plan import LaunchRequest, plan
from gpucloud.model import (
    HostKeySource,
    Instance,
    InstanceRef,
    Offer,
    Requirements,
    SshAddress,
    utcnow,
)
from gpucloud.provider import LaunchSpec, ProviderSettings, Traits
from gpucloud.remote.keys import Identity, identity
from gpucloud.store import Store
from tests.harness.acme import Only
from tests.harness.adapters import Stated, an_offer
from tests.harness.books import opened, rented
from tests.harness.sshd import SshHost, openssh_host, restart, stop

HERE = "93.184.216.34"
HERE_TOO = "2606:2800:220:1:248:1893:25c8:1946"

Build = Callable[..., Fleet]


class Full(Stated):
    """Has no capacity, and remembers what it was to launch."""

    name: ClassVar[str] = "acme"
    traits = Traits(**{**{key: getattr(Stated.traits, key) for key in Traits.__slots__}, "firewalled": True})

    def __init__(self) -> None:
        super().__init__(ProviderSettings(self.name, Path("/nonexistent")))
        self.specs: list[LaunchSpec] = []

    def offers(self, requirements: Requirements) -> list[Offer]:
        return [an_offer(as_of=utcnow())]

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        self.specs.append(spec)
        raise NoCapacity("acme is full", provider=self.name, lasting=False)


@pytest.fixture
def fleet(home: Path, tmp_path: Path) -> Iterator[Build]:
    store = Store(tmp_path / "books")

    def build(*adapters: Full, **settings: str) -> Fleet:
        config = load({f"launch.{name}": text for name, text in settings.items()}, {}, home)
        key = identity(tmp_path / "ssh")
        return Fleet(store, Only(config, *adapters), config, "me", lambda: key, lambda event: None)

    yield build
    store.db.close()


def services(httpserver: HTTPServer, *answers: object) -> str:
    """The addresses of services that answer so; ``None`` is one that fails."""
    for number, answer in enumerate(answers):
        request = httpserver.expect_request(f"/{number}", query_string="format=json")
        if answer is None:
            request.respond_with_data("no", status=400)
        else:
            request.respond_with_json(answer)
    return ",".join(httpserver.url_for(f"/{number}") for number in range(len(answers)))


def test_both_kinds_of_address_are_let_in(fleet: Build, httpserver: HTTPServer) -> None:
    urls = services(httpserver, {"ip": HERE}, {"ip": HERE_TOO})
    assert Origin(fleet(address_urls=urls)).networks() == (f"{HERE_TOO}/128", f"{HERE}/32")


def test_one_address_will_do_and_is_looked_up_once(fleet: Build, httpserver: HTTPServer) -> None:
    origin = Origin(fleet(address_urls=services(httpserver, {"ip": HERE}, None)))
    assert [origin.networks() for _ in range(3)] == [(f"{HERE}/32",)] * 3
    assert len(httpserver.log) == 2


@pytest.mark.parametrize("answer", [None, {"ip": "10.0.0.7"}, {"ip": "here"}, {}, [HERE]])
def test_without_a_public_address_nothing_is_opened(
    fleet: Build, httpserver: HTTPServer, answer: object
) -> None:
    with pytest.raises(ConfigError) as caught:
        Origin(fleet(address_urls=services(httpserver, answer))).networks()
    assert "--ssh-from" in caught.value.hint
    assert httpserver.url_for("/0") in caught.value.why


@pytest.mark.parametrize(
    ("typed", "networks"),
    [
        ("anywhere", ()),
        ("203.0.113.7", ("203.0.113.7/32",)),
        ("203.0.113.0/24, 2001:db8::/32", ("203.0.113.0/24", "2001:db8::/32")),
    ],
)
def test_what_the_person_says_is_not_looked_up(
    fleet: Build, httpserver: HTTPServer, typed: str, networks: tuple[str, ...]
) -> None:
    urls = services(httpserver, {"ip": HERE})
    assert Origin(fleet(ssh_from=typed, address_urls=urls)).networks() == networks
    assert not httpserver.log


@pytest.mark.parametrize("typed", ["", "home", "203.0.113.7/24", "auto,203.0.113.7"])
def test_what_is_no_network_is_a_wrong_setting(fleet: Build, typed: str) -> None:
    with pytest.raises(ConfigError, match=r"launch\.ssh_from"):
        Origin(fleet(ssh_from=typed)).networks()


def test_the_provider_is_told_who_may_come_in_and_what_belongs_together(fleet: Build) -> None:
    full = Full()
    here = fleet(full, ssh_from="203.0.113.7")
    for name, nodes in (("one", 1), ("two", 2), ("three", 2)):
        request = LaunchRequest(name, Requirements(markets=()), nodes=nodes, image="img-1")
        with pytest.raises(NoCapacity):
            launch(here, plan(here, request, ["acme"]))
    assert {spec.ssh_from for spec in full.specs} == {("203.0.113.7/32",)}
    assert {spec.image for spec in full.specs} == {"img-1"}
    groups = {
        name: {(spec.group, spec.nodes) for spec in full.specs if spec.cluster == name}
        for name in ("one", "two", "three")
    }
    assert groups["one"] == {(None, 1)}
    assert len(groups["two"]) == len(groups["three"]) == 1
    assert groups["two"] != groups["three"]


def test_who_opens_ssh_to_all_anyway_needs_no_address(fleet: Build, httpserver: HTTPServer) -> None:
    class Open(Full):
        """A provider without firewall."""

        traits = Stated.traits

    here = fleet(Open(), address_urls=services(httpserver, {"ip": HERE}))
    with pytest.raises(NoCapacity):
        launch(here, plan(here, LaunchRequest("x", Requirements(markets=())), ["acme"]))
    assert not httpserver.log


class Gate(Stated):
    """Lets SSH in by starting the server there."""

    name: ClassVar[str] = "acme"

    def __init__(self, host: SshHost) -> None:
        super().__init__(ProviderSettings(self.name, Path("/nonexistent")))
        self.host = host
        self.opened: list[tuple[InstanceRef, tuple[str, ...]]] = []

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Open it, unless only somebody else may come in."""
        self.opened.append((ref, tuple(networks)))
        if "203.0.113.7/32" in networks:
            restart(self.host)


@pytest.mark.needs_sshd
@pytest.mark.parametrize(("address", "comes_in"), [("203.0.113.7", True), ("203.0.113.8", False)])
def test_who_has_another_address_than_at_the_launch_is_let_in_once(
    home: Path, tmp_path: Path, address: str, comes_in: bool
) -> None:
    with openssh_host(tmp_path / "host") as host, opened(tmp_path / "books") as store:
        gate = Gate(host)
        stop(host)
        config = load({"launch.ssh_from": address, "ssh.persist": "0"}, {}, home)
        key = Identity(host.identity, "")
        fleet = Fleet(store, Only(config, gate), config, "me", lambda: key, lambda event: None)
        rental = rented(store, store.clusters.create("x", 1, ephemeral=False))
        where = SshAddress(host.host, host.port, host.user)
        store.journal.reached(rental.token, where, host.host_key, HostKeySource.PLANTED)
        rental = store.journal.get(rental.token)
        for _ in range(2):
            if comes_in:
                with connect(fleet, rental, "x") as connection:
                    assert connection.run("echo in").stdout == b"in\n"
                stop(host)
            with pytest.raises(HostUnreachable):
                connect(fleet, rental, "x")
            comes_in = False
        assert gate.opened == [(rental.ref, (f"{address}/32",))]
