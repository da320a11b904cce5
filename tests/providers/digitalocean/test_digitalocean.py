"""DigitalOcean against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import BadReply, NoCapacity, ProviderError, QuotaExceeded, Rejected
from gpucloud.labels import firewall_name
from gpucloud.model import Availability, InstanceState, Requirements
from gpucloud.parallel import results, run_all
from gpucloud.provider import LaunchSpec, Provider
from gpucloud.testing import ProviderConformance
from gpucloud_digitalocean import Digitalocean
from tests.harness.acme.faults import Verb
from tests.harness.rental.digitalocean import DigitalOceanCloud
from tests.harness.rental.market import Served, serving
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, identity_in

H100 = "gpu-h100x8-640gb"
HERE = ("203.0.113.7/32", "2001:db8::7/128")


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(DigitalOceanCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Digitalocean:
    return adapter_at(Digitalocean, served, tmp_path)


class TestDigitalOcean(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Digitalocean) -> Digitalocean:
        return provider


class TestDigitalOceanBehindAFirewall(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Digitalocean) -> Digitalocean:
        return provider

    def spec(self, provider: Provider) -> LaunchSpec:
        """Of one who wants to be the only one to reach SSH."""
        return replace(super().spec(provider), ssh_from=HERE)


def the_things(served: Served, kind: str) -> list[dict[str, Any]]:
    return [thing.more for thing in served.market.beside() if thing.kind == kind]


def test_offers_are_told_as_digitalocean_means_them(provider: Digitalocean) -> None:
    found = {(offer.instance_type, offer.region): offer for offer in provider.offers(Requirements())}
    h100 = found["gpu-h100x8-640gb", "nyc2"]
    assert (h100.usd_per_hour, h100.amount, h100.currency) == (Decimal("23.92"), Decimal("23.92"), "USD")
    assert (str(h100.gpu), h100.gpu_count, h100.interconnect) == ("H100-SXM-80", 8, "nvlink")
    assert (h100.vcpus, h100.memory_gib, h100.disk_gib) == (160, Decimal(1920), Decimal(2048))
    assert (h100.availability, h100.country) == (Availability.AVAILABLE, "US")
    one = found["gpu-h100x1-80gb", "tor1"]
    assert (str(one.gpu), one.interconnect, one.country) == ("H100-80", None, "CA")
    assert str(found["gpu-mi300x1-192gb", "atl1"].gpu) == "MI300X-OAM-192"
    assert found["gpu-l40sx1-48gb", None].availability is Availability.UNAVAILABLE
    assert found["gpu-l40sx1-48gb", None].availability_detail == "in no region"
    assert found["gpu-h200x8-1128gb", None].availability_detail == "not available"
    assert not any(name.startswith("s-") for name, _ in found)


def test_all_pages_are_read(served: Served, provider: Digitalocean) -> None:
    whole = {offer.id for offer in provider.offers(Requirements())}
    served.market.most = 2
    assert {offer.id for offer in provider.offers(Requirements())} == whole
    assert [r.args.get("page") for r in served.market.requests] == [None, None, "2", "3", "4"]


def test_pages_without_end_are_told(served: Served, provider: Digitalocean) -> None:
    around = {"pages": {"next": "https://elsewhere.example/v2/sizes?page=1"}}
    body = {"sizes": [], "links": around, "meta": {"total": 0}}
    served.market.refuse(Verb.OFFERS, 200, body, times=2)
    with pytest.raises(BadReply) as raised:
        list(provider.offers(Requirements()))
    assert "in a circle" in raised.value.why
    assert len(served.market.requests) == 2


@pytest.mark.parametrize(
    ("slug", "image"),
    [
        ("gpu-h100x1-80gb", "gpu-h100x1-base"),
        ("gpu-h100x8-640gb", "gpu-h100x8-base"),
        ("gpu-mi300x1-192gb", "gpu-amd-base"),
    ],
)
def test_the_image_has_the_drivers_of_the_gpus(
    served: Served, provider: Digitalocean, tmp_path: Path, slug: str, image: str
) -> None:
    provider.launch(an_offer(provider, instance_type=slug), a_spec(identity_in(tmp_path)))
    assert served.market.instances()[0].asked["image"] == image


@pytest.mark.parametrize(("wanted", "sent"), [("ubuntu-24-04-x64", "ubuntu-24-04-x64"), ("123", 123)])
def test_an_image_is_a_slug_or_a_number(
    served: Served, provider: Digitalocean, tmp_path: Path, wanted: str, sent: str | int
) -> None:
    provider.launch(an_offer(provider, instance_type=H100), a_spec(identity_in(tmp_path), image=wanted))
    assert served.market.asked("POST", "/v2/droplets")[0]["image"] == sent


def test_an_instance_has_its_public_and_its_private_address(
    served: Served, provider: Digitalocean, tmp_path: Path
) -> None:
    instance = provider.launch(an_offer(provider, instance_type=H100), a_spec(identity_in(tmp_path)))
    assert provider.get(instance.ref).ssh is not None
    up = running(provider, instance)
    assert up.ssh is not None
    assert (up.ssh.host, up.ssh.port, up.ssh.user, up.ssh.inside) == ("203.0.113.5", 22, "root", "10.128.0.7")
    assert (up.usd_per_hour, up.instance_type) == (Decimal("23.92"), "gpu-h100x8-640gb")
    assert up.created_at is not None


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("off", InstanceState.STOPPED),
        ("archive", InstanceState.UNKNOWN),
    ],
)
def test_states_that_no_launch_leads_to(
    served: Served, provider: Digitalocean, tmp_path: Path, word: str, state: InstanceState
) -> None:
    instance = provider.launch(an_offer(provider, instance_type=H100), a_spec(identity_in(tmp_path)))
    served.market.things[instance.ref.id].state = word
    assert provider.get(instance.ref).state is state
    assert [one.state for one in provider.instances()] == [state]


def test_machines_of_others_are_not_ours(served: Served, provider: Digitalocean, tmp_path: Path) -> None:
    instance = provider.launch(an_offer(provider, instance_type=H100), a_spec(identity_in(tmp_path)))
    served.market.things[instance.ref.id].more["words"] = ["web", "env:prod"]
    assert not list(provider.instances())


def test_a_key_is_added_once_and_nobody_else_s_is_touched(
    served: Served, provider: Digitalocean, tmp_path: Path
) -> None:
    served.market.put("ssh-key", {}, bills=False, name="theirs", public_key="ssh-ed25519 AAAAtheirs")
    key, offer = identity_in(tmp_path), an_offer(provider, instance_type=H100)
    launches = {rank: lambda rank=rank: provider.launch(offer, a_spec(key, rank=rank)) for rank in range(4)}
    assert len(results(run_all(launches))) == 4
    assert len(the_things(served, "ssh-key")) == 2
    for resource in list(provider.shared_resources()):
        provider.remove_shared(resource)
    assert [key["name"] for key in the_things(served, "ssh-key")] == ["theirs"]


def test_ssh_is_open_to_the_caller_and_all_else_to_the_other_nodes(
    served: Served, provider: Digitalocean, tmp_path: Path
) -> None:
    key, offer = identity_in(tmp_path), an_offer(provider, instance_type=H100)
    for rank in range(2):
        provider.launch(offer, a_spec(key, rank=rank, ssh_from=HERE))
    (firewall,) = the_things(served, "firewall")
    ssh, *among = firewall["asked"]["inbound_rules"]
    assert (ssh["ports"], ssh["sources"]) == ("22", {"addresses": sorted(HERE)})
    assert {(rule["protocol"], *rule["sources"]["tags"]) for rule in among} == {
        (protocol, firewall["name"]) for protocol in ("tcp", "udp", "icmp")
    }
    assert {rule["protocol"] for rule in firewall["asked"]["outbound_rules"]} == {"tcp", "udp", "icmp"}
    for machine in served.market.instances():
        assert set(firewall["asked"]["tags"]) <= set(machine.more["words"])


def test_more_networks_are_one_more_firewall_for_that_instance_alone(
    served: Served, provider: Digitalocean, tmp_path: Path
) -> None:
    key, offer = identity_in(tmp_path), an_offer(provider, instance_type=H100)
    first, second = (provider.launch(offer, a_spec(key, ssh_from=HERE)) for _ in range(2))
    provider.admit(first.ref, ("203.0.113.9/32",))
    provider.admit(first.ref, ())
    ours = [
        [firewall for firewall in the_things(served, "firewall") if firewall["name"] in thing.more["words"]]
        for thing in (served.market.things[one.ref.id] for one in (first, second))
    ]
    sources = [
        [rules["asked"]["inbound_rules"][0]["sources"]["addresses"] for rules in each] for each in ours
    ]
    assert sources == [[sorted(HERE), ["203.0.113.9/32"], ["0.0.0.0/0", "::/0"]], [sorted(HERE)]]


def test_who_lets_everybody_in_is_under_no_firewall(
    served: Served, provider: Digitalocean, tmp_path: Path
) -> None:
    instance = provider.launch(an_offer(provider, instance_type=H100), a_spec(identity_in(tmp_path)))
    provider.admit(instance.ref, ("203.0.113.9/32",))
    assert not the_things(served, "firewall")


def test_a_firewall_is_not_taken_from_a_machine_that_runs(
    served: Served, provider: Digitalocean, tmp_path: Path
) -> None:
    spec = a_spec(identity_in(tmp_path), ssh_from=HERE)
    instance = provider.launch(an_offer(provider, instance_type=H100), spec)
    (firewall,) = (one for one in provider.shared_resources() if one.kind == "firewall")
    with pytest.raises(Rejected) as refused:
        provider.remove_shared(firewall)
    assert "in use" in refused.value.message
    provider.terminate(instance.ref)
    provider.remove_shared(firewall)
    assert not the_things(served, "firewall")


def test_a_firewall_goes_with_its_tag(served: Served, provider: Digitalocean, tmp_path: Path) -> None:
    spec = a_spec(identity_in(tmp_path), ssh_from=HERE)
    provider.terminate(provider.launch(an_offer(provider, instance_type=H100), spec).ref)
    (guard,) = the_things(served, "firewall")
    shared = list(provider.shared_resources())
    assert guard["name"] not in {one.ref.id for one in shared}
    for resource in shared:
        provider.remove_shared(resource)
    assert not served.market.beside()


def test_a_firewall_is_made_under_a_tag_that_is_there_already(
    served: Served, provider: Digitalocean, tmp_path: Path
) -> None:
    served.market.put("tag", {}, bills=False, name=firewall_name(HERE))
    provider.launch(an_offer(provider, instance_type=H100), a_spec(identity_in(tmp_path), ssh_from=HERE))
    assert [one["name"] for one in the_things(served, "firewall")] == [firewall_name(HERE)]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Size is not available in this region.", NoCapacity),
        ("Region is not available", NoCapacity),
        (
            "The size you selected is temporarily unavailable because of High CPU server capacity",
            NoCapacity,
        ),
        ("You specified an invalid size for Droplet creation.", NoCapacity),
        ("creating this/these droplet(s) will exceed your droplet limit", QuotaExceeded),
        ("This size is currently restricted please send an additional payment to unlock.", QuotaExceeded),
        ("You specified an invalid image for Droplet creation.", Rejected),
    ],
)
def test_digitalocean_says_no_in_prose(
    served: Served, provider: Digitalocean, tmp_path: Path, message: str, kind: type[ProviderError]
) -> None:
    offer = an_offer(provider, instance_type=H100)
    served.market.refuse(Verb.CREATE, 422, {"id": "unprocessable_entity", "message": message})
    with pytest.raises(kind) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert refused.value.vendor_text == message
    assert not refused.value.outcome_unknown
    assert not served.market.instances()
