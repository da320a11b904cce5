"""Vultr against the contract of all adapters, and what is its own beside the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import AuthError, NoCapacity, ProviderError, QuotaExceeded, Rejected
from gpucloud.model import (
    Availability,
    GpuWish,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
)
from gpucloud.parallel import results, run_all
from gpucloud.provider import LaunchSpec, Provider
from gpucloud.testing import ProviderConformance
from gpucloud_vultr import Vultr
from tests.harness.acme.faults import Verb
from tests.harness.rental.market import Served, Thing, serving
from tests.harness.rental.vultr import VultrCloud
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, identity_in

A100 = "vcg-a100-12c-120g-80vram"
H100 = "vcg-h100-216c-1914gb-640vram"
MI300X = "vbm-256c-2048gb-8-mi300x-gpu"
HERE = ("203.0.113.7/32", "2001:db8::7/128")


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(VultrCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Vultr:
    return adapter_at(Vultr, served, tmp_path)


class TestVultr(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Vultr) -> Vultr:
        return provider


class TestVultrBehindAFirewall(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Vultr) -> Vultr:
        return provider

    def spec(self, provider: Provider) -> LaunchSpec:
        """Of one who wants to be the only one to reach SSH."""
        return replace(super().spec(provider), ssh_from=HERE)


class TestVultrBareMetal(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Vultr) -> Vultr:
        return provider

    def cheapest(self, provider: Provider) -> Offer:
        """The only one of bare metal."""
        return an_offer(provider, instance_type=MI300X)


def launched(provider: Vultr, folder: Path, plan: str = H100, **given: Any) -> Instance:
    offer = an_offer(provider, instance_type=plan, availability=Availability.AVAILABLE)
    return provider.launch(offer, a_spec(identity_in(folder), **given))


def the_things(served: Served, kind: str) -> list[Thing]:
    return [thing for thing in served.market.beside() if thing.kind == kind]


def let_in(group: Thing) -> list[str]:
    return sorted(f"{rule['subnet']}/{rule['subnet_size']}" for rule in group.more["rules"])


def test_offers_are_told_with_what_each_location_has_left(provider: Vultr) -> None:
    found = {(offer.instance_type, offer.region): offer for offer in provider.offers(Requirements())}
    a100 = found[A100, "ewr"]
    assert (a100.usd_per_hour, a100.amount, a100.currency) == (Decimal("2.397"), Decimal("2.397"), "USD")
    assert (str(a100.gpu), a100.gpu_count, a100.vcpus, a100.country) == ("A100-80", 1, 12, "US")
    assert (a100.availability, a100.confidence) == (Availability.AVAILABLE, "live")
    sold_out = found[A100, "fra"]
    assert (sold_out.availability, sold_out.availability_detail) == (Availability.UNAVAILABLE, "none left")
    nowhere = found["vcg-l40s-16c-180g-48vram", None]
    assert (nowhere.availability, nowhere.availability_detail) == (Availability.UNAVAILABLE, "in no location")
    assert str(found[MI300X, "ord"].gpu) == "MI300X-OAM-192"
    assert {name for name, _ in found} == {A100, H100, MI300X, "vcg-l40s-16c-180g-48vram"}


def test_dedicated_machines_are_where_they_are_left(served: Served, provider: Vultr) -> None:
    offer = an_offer(provider, instance_type=H100)
    assert (offer.region, offer.usd_per_hour, offer.gpu_count) == ("ewr", Decimal("23.92"), 8)
    served.market.stock["ewr"] = {A100}
    offer = an_offer(provider, instance_type=H100)
    assert (offer.region, offer.availability) == (None, Availability.UNAVAILABLE)


def test_what_is_preemptible_cannot_be_asked_for(provider: Vultr) -> None:
    assert {offer.market for offer in provider.offers(Requirements(markets=()))} == {Market.ON_DEMAND}


def test_only_what_may_matter_is_asked_for(served: Served, provider: Vultr) -> None:
    wanted = Requirements(gpus=(GpuWish.parse("A100"),), regions=("EWR",))
    assert {offer.instance_type for offer in provider.offers(wanted)} == {A100}
    asked = [r.path for r in served.market.requests if "availability" in r.path]
    assert asked == ["/v2/regions/ewr/availability"]


@pytest.mark.parametrize(
    "wanted", [Requirements(gpus=(GpuWish.parse("RTX-4090"),)), Requirements(regions=("nowhere",))]
)
def test_nothing_may_be_found_although_a_plan_cannot_be_understood(
    provider: Vultr, wanted: Requirements
) -> None:
    assert list(provider.offers(wanted)) == []


def test_all_pages_are_read(served: Served, provider: Vultr, tmp_path: Path) -> None:
    whole = {offer.id for offer in provider.offers(Requirements())}
    served.market.most = 1
    assert {offer.id for offer in provider.offers(Requirements())} == whole
    refs = {launched(provider, tmp_path).ref for _ in range(3)}
    assert {instance.ref for instance in provider.instances()} == refs


def test_an_instance_has_an_address_when_it_is_no_longer_nothing(
    served: Served, provider: Vultr, tmp_path: Path
) -> None:
    served.market.states = ("pending", "pending too", "active")
    instance = launched(provider, tmp_path, nodes=2)
    assert provider.get(instance.ref).ssh is None
    up = running(provider, instance)
    assert up.ssh is not None
    assert (up.ssh.host, up.ssh.port, up.ssh.user, up.ssh.inside) == ("203.0.113.5", 22, "root", "10.1.96.3")
    assert (up.instance_type, up.ref.region) == (H100, "ewr")


@pytest.mark.parametrize(
    ("status", "power", "health", "state"),
    [
        ("active", "running", "ok", InstanceState.RUNNING),
        ("active", "running", "installingbooting", InstanceState.PENDING),
        ("active", "stopped", "locked", InstanceState.PENDING),
        ("active", "stopped", "none", InstanceState.PENDING),
        ("active", "stopped", "ok", InstanceState.STOPPED),
        ("resizing", "running", "ok", InstanceState.PENDING),
        ("suspended", "stopped", "ok", InstanceState.STOPPED),
        ("of-tomorrow", "running", "ok", InstanceState.UNKNOWN),
    ],
)
def test_a_state_is_of_three_words(
    served: Served,
    provider: Vultr,
    tmp_path: Path,
    status: str,
    power: str,
    health: str,
    state: InstanceState,
) -> None:
    instance = launched(provider, tmp_path)
    thing = served.market.things[instance.ref.id]
    thing.state = status
    thing.more |= {"power": power, "health": health}
    assert provider.get(instance.ref).state is state
    assert [one.state for one in provider.instances()] == [state]


def test_bare_metal_is_ended_as_such(served: Served, provider: Vultr, tmp_path: Path) -> None:
    instance = launched(provider, tmp_path, MI300X, ssh_from=HERE, nodes=2)
    asked = served.market.asked("POST", "/v2/bare-metals")[0]
    # These it has for virtual machines only.
    assert not {"firewall_group_id", "enable_vpc"} & set(asked)
    provider.admit(instance.ref, HERE)
    provider.terminate(instance.ref)
    assert not served.market.billing()


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (None, ("os_id", 1743)),
        ("2284", ("os_id", 2284)),
        ("cb676a46-66fd-4dfb-b839-443f2e6c0b60", ("snapshot_id", "cb676a46-66fd-4dfb-b839-443f2e6c0b60")),
        ("docker", ("image_id", "docker")),
    ],
)
def test_an_image_is_a_system_a_snapshot_or_an_application(
    served: Served, provider: Vultr, tmp_path: Path, wanted: str | None, sent: tuple[str, object]
) -> None:
    launched(provider, tmp_path, image=wanted)
    asked = served.market.asked("POST", "/v2/instances")[0]
    kinds = {"os_id", "snapshot_id", "image_id", "app_id"}
    assert [(kind, asked[kind]) for kind in kinds & set(asked)] == [sent]


def test_machines_of_others_are_not_ours(served: Served, provider: Vultr, tmp_path: Path) -> None:
    instance = launched(provider, tmp_path)
    thing = served.market.things[instance.ref.id]
    thing.asked = {**thing.asked, "label": "web", "tags": ["env:prod"]}
    assert not list(provider.instances())


@pytest.mark.parametrize("lost", ["label", "tags"])
def test_a_machine_is_known_by_its_label_or_by_its_tags(
    served: Served, provider: Vultr, tmp_path: Path, lost: str
) -> None:
    instance = launched(provider, tmp_path)
    thing = served.market.things[instance.ref.id]
    thing.asked = {**thing.asked, lost: type(thing.asked[lost])()}
    (found,) = provider.instances()
    assert (found.token, found.cluster, found.rank, found.owner) == (instance.token, "test", 0, "me")


def test_a_key_is_added_once_and_nobody_else_s_is_touched(
    served: Served, provider: Vultr, tmp_path: Path
) -> None:
    served.market.put("ssh-key", {}, bills=False, name="theirs", ssh_key="ssh-ed25519 AAAAtheirs")
    served.market.put("group", {}, bills=False, description="theirs", rules=[])
    offer, key = an_offer(provider, instance_type=H100), identity_in(tmp_path)
    launches = {
        rank: lambda rank=rank: provider.launch(offer, a_spec(key, rank=rank, ssh_from=HERE))
        for rank in range(4)
    }
    for instance in results(run_all(launches)).values():
        provider.terminate(instance.ref)
    assert (len(the_things(served, "ssh-key")), len(the_things(served, "group"))) == (2, 2)
    for resource in list(provider.shared_resources()):
        provider.remove_shared(resource)
    left = [*the_things(served, "ssh-key"), *the_things(served, "group")]
    assert [thing.more.get("name") or thing.more["description"] for thing in left] == ["theirs", "theirs"]


def test_ssh_is_open_to_the_caller_alone(served: Served, provider: Vultr, tmp_path: Path) -> None:
    instance = launched(provider, tmp_path, ssh_from=HERE)
    (group,) = the_things(served, "group")
    assert {(rule["ip_type"], rule["protocol"], rule["port"]) for rule in group.more["rules"]} == {
        ("v4", "tcp", "22"),
        ("v6", "tcp", "22"),
    }
    assert let_in(group) == sorted(HERE)
    assert served.market.things[instance.ref.id].more["group"] == group.id


def test_a_group_that_is_not_complete_is_completed(served: Served, provider: Vultr, tmp_path: Path) -> None:
    launched(provider, tmp_path, ssh_from=HERE)
    (group,) = the_things(served, "group")
    del group.more["rules"][0]
    launched(provider, tmp_path, ssh_from=HERE)
    assert let_in(group) == sorted(HERE)


def test_more_networks_are_let_in_to_that_instance_alone(
    served: Served, provider: Vultr, tmp_path: Path
) -> None:
    first, second = (launched(provider, tmp_path, ssh_from=HERE) for _ in range(2))
    groups = []
    for networks in (("203.0.113.9/32",), HERE, ()):
        provider.admit(first.ref, networks)
        group = served.market.things[first.ref.id].more["group"]
        groups.append(let_in(served.market.things[group]))
    wide = sorted([*HERE, "203.0.113.9/32"])
    assert groups == [wide, wide, ["0.0.0.0/0", "::/0"]]
    second_group = served.market.things[second.ref.id].more["group"]
    assert let_in(served.market.things[second_group]) == sorted(HERE)


@pytest.mark.parametrize("whose", ["", "theirs"])
def test_who_lets_everybody_in_or_has_a_group_of_their_own_is_left_alone(
    served: Served, provider: Vultr, tmp_path: Path, whose: str
) -> None:
    instance = launched(provider, tmp_path)
    theirs = served.market.put("group", {}, bills=False, description="theirs", rules=[])
    served.market.things[instance.ref.id].more["group"] = theirs.id if whose else ""
    provider.admit(instance.ref, HERE)
    assert served.market.things[instance.ref.id].more["group"] == (theirs.id if whose else "")
    assert the_things(served, "group") == [theirs]


def test_a_group_is_not_taken_from_a_machine_that_runs(
    served: Served, provider: Vultr, tmp_path: Path
) -> None:
    instance = launched(provider, tmp_path, ssh_from=HERE)
    (group,) = (one for one in provider.shared_resources() if one.kind == "firewall-group")
    with pytest.raises(Rejected) as refused:
        provider.remove_shared(group)
    assert "in use" in refused.value.message
    provider.terminate(instance.ref)
    provider.remove_shared(group)
    assert not the_things(served, "group")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "Selected plan is not available due to capacity in this region", NoCapacity),
        (400, "Plan is not available in the selected region.", NoCapacity),
        (400, "Invalid plan.", NoCapacity),
        (
            400,
            "Server add failed: You have reached the maximum number of active instances for this account.",
            QuotaExceeded,
        ),
        (401, "Unauthorized IP address: 203.0.113.7", AuthError),
        (400, "Invalid hostname.", Rejected),
    ],
)
def test_vultr_says_no_in_prose(
    served: Served, provider: Vultr, tmp_path: Path, status: int, message: str, kind: type[ProviderError]
) -> None:
    served.market.refuse(Verb.CREATE, status, {"error": message, "status": status})
    with pytest.raises(kind) as refused:
        launched(provider, tmp_path)
    assert type(refused.value) is kind
    assert refused.value.vendor_text == message
    assert not refused.value.outcome_unknown
    assert not served.market.instances()


def test_an_address_that_is_not_allowed_is_told_how_to_be(served: Served, provider: Vultr) -> None:
    body = {"error": "Unauthorized IP address: 203.0.113.7", "status": 401}
    served.market.refuse(Verb.GET, 401, body)
    with pytest.raises(AuthError) as refused:
        provider.get(InstanceRef("any"))
    assert "settingsapi" in refused.value.hint
