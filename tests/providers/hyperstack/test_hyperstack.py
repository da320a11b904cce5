"""Hyperstack against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import (
    AuthError,
    BalanceExhausted,
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
    Unsupported,
)
from gpucloud.model import Availability, InstanceState, Market, Offer, Requirements, utcnow
from gpucloud.testing import ProviderConformance
from gpucloud_hyperstack import Hyperstack
from gpucloud_hyperstack.adapter import STATES
from gpucloud_hyperstack.api import Flavor, FlavorGroup, Line
from gpucloud_hyperstack.offers import offers_of
from tests.harness.acme.faults import Fault, Trouble, Verb
from tests.harness.rental import hyperstack_cloud
from tests.harness.rental.market import Served, serving
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, forgive, identity_in

ALL = Requirements(markets=())


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(hyperstack_cloud.Hyperstack()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Hyperstack:
    return adapter_at(Hyperstack, served, tmp_path)


def eight(provider: Hyperstack) -> Offer:
    """The machine with eight GPUs of which some are left."""
    return an_offer(provider, instance_type="n3-H100-SXM5x8")


class TestHyperstack(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Hyperstack) -> Hyperstack:
        return provider


def test_a_price_is_that_of_all_gpus_of_a_flavor(provider: Hyperstack) -> None:
    found = {offer.instance_type: offer for offer in provider.offers(ALL)}
    h100 = found["n3-H100-SXM5x8"]
    assert (h100.usd_per_hour, h100.amount, h100.currency) == (Decimal("19.2"), Decimal("19.2"), "USD")
    assert (str(h100.gpu), h100.gpu_count, h100.interconnect) == ("H100-SXM-80", 8, "nvlink")
    assert (h100.vcpus, h100.memory_gib, h100.disk_gib) == (192, Decimal(1800), Decimal(100))
    assert (h100.region, h100.country, h100.market) == ("CANADA-1", "CA", Market.ON_DEMAND)
    assert (h100.availability, h100.availability_detail) == (Availability.AVAILABLE, "3 left")
    norway = found["n3-H100x8-NVLink"]
    assert (str(norway.gpu), norway.interconnect, norway.country) == ("H100-PCIe-80", "nvlink", "NO")
    # What this account pays, not what is printed.
    assert norway.usd_per_hour == 8 * Decimal("1.755")
    assert (norway.availability, norway.availability_detail) == (Availability.UNAVAILABLE, "0 left")


def test_a_gpu_with_spot_in_its_name_is_sold_on_spot(provider: Hyperstack) -> None:
    spot = an_offer(provider, instance_type="n3-RTX-PRO6000-SEx4-spot")
    assert (str(spot.gpu), spot.market, spot.usd_per_hour) == ("RTXPRO6000-96", Market.SPOT, Decimal("5.76"))
    assert (spot.availability, spot.availability_detail) == (Availability.AVAILABLE, None)


def test_what_the_price_book_does_not_have_is_no_offer(provider: Hyperstack) -> None:
    assert {offer.instance_type for offer in provider.offers(ALL)} == {
        "n3-H100-SXM5x8",
        "n3-H100x8-NVLink",
        "n3-L40x1",
        "n3-RTX-PRO6000-SEx4-spot",
    }


def test_a_flavor_whose_gpu_is_told_in_two_ways_is_no_offer() -> None:
    flavor = Flavor(name="n3-L40x1", region_name="CANADA-1", gpu="L40", gpu_count=1)
    group = FlavorGroup(gpu="H100-80G-SXM5", flavors=[])
    with pytest.raises(ValueError, match="L40"):
        list(offers_of(group, flavor, {"L40": Decimal(1)}, {}, utcnow()))


@pytest.mark.parametrize(
    ("start", "end", "holds"),
    [
        (None, None, True),
        ("2026-01-01T00:00:00", None, True),
        ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", True),
        ("2026-12-01T00:00:00+00:00", None, False),
        (None, "2026-11-20T23:59:59", False),
    ],
)
def test_a_line_of_the_price_book_holds_for_its_time(start: str | None, end: str | None, holds: bool) -> None:
    line = Line.model_validate({"name": "L40", "value": 1, "start_time": start, "end_time": end})
    assert line.holds(datetime(2026, 11, 21, tzinfo=UTC)) is holds


def test_a_launch_asks_for_an_address_at_which_ssh_answers(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    offer = eight(provider)
    networks = ("203.0.113.7/32", "2001:db8::7/128")
    expires = utcnow() + timedelta(hours=2)
    spec = a_spec(identity_in(tmp_path), cluster="x" * 60, ssh_from=networks, expires_at=expires)
    made = provider.launch(offer, spec)
    (machine,) = served.market.instances()
    assert machine.asked["assign_floating_ip"]
    assert machine.asked["enable_port_randomization"] is False
    assert machine.asked["environment_name"] == "gpucloud-CANADA-1"
    assert machine.asked["image_name"] == "Ubuntu Server 24.04 LTS R570 CUDA 12.8"
    assert machine.asked["name"].startswith(f"{spec.token}-xxx")
    assert len(machine.asked["name"]) == 50
    rules = machine.asked["security_rules"]
    assert [(rule["remote_ip_prefix"], rule["ethertype"]) for rule in rules] == [
        ("203.0.113.7/32", "IPv4"),
        ("2001:db8::7/128", "IPv6"),
    ]
    assert {(rule["port_range_min"], rule["port_range_max"]) for rule in rules} == {(22, 22)}
    found = provider.get(made.ref)
    assert (found.expires_at, found.cluster) == (expires.replace(microsecond=0), "x" * 60)
    assert found.created_at == machine.created_at.replace(microsecond=0)


def test_without_networks_everybody_reaches_ssh(served: Served, provider: Hyperstack, tmp_path: Path) -> None:
    provider.launch(eight(provider), a_spec(identity_in(tmp_path), image="mine"))
    (machine,) = served.market.instances()
    assert [rule["remote_ip_prefix"] for rule in machine.asked["security_rules"]] == ["0.0.0.0/0", "::/0"]
    assert machine.asked["image_name"] == "mine"


def test_a_network_that_is_admitted_already_is_not_admitted_again(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    spec = a_spec(identity_in(tmp_path), ssh_from=("203.0.113.7/32",))
    made = provider.launch(eight(provider), spec)
    provider.admit(made.ref, ("203.0.113.7/32", "203.0.113.8/32"))
    (machine,) = served.market.instances()
    prefixes = [rule["remote_ip_prefix"] for rule in machine.more["rules"]]
    assert prefixes == ["203.0.113.7/32", "203.0.113.8/32"]


def test_ubuntu_logs_in_at_the_address_that_comes_later(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    made = provider.launch(eight(provider), a_spec(identity_in(tmp_path)))
    assert provider.get(made.ref).ssh is None
    up = running(provider, made)
    assert up.ssh is not None
    assert (up.ssh.user, up.ssh.port, up.ssh.inside) == ("ubuntu", 22, "10.0.0.5")
    served.market.instances()[0].asked["enable_port_randomization"] = True
    assert provider.get(made.ref).ssh is None, "at which port it answers, nobody tells"


def test_launches_share_one_environment_of_a_region_and_one_key_in_it(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    theirs = served.market.put("environment", {}, bills=False, name="default-US-1", region="US-1")
    key = identity_in(tmp_path)
    for name in ("n3-L40x1", "n3-H100-SXM5x8", "n3-RTX-PRO6000-SEx4-spot"):
        provider.launch(an_offer(provider, instance_type=name), a_spec(key))
    made = [(one.kind, one.more["name"]) for one in served.market.beside() if one is not theirs]
    assert sorted(name for kind, name in made if kind == "environment") == [
        "gpucloud-CANADA-1",
        "gpucloud-US-1",
    ]
    assert len([name for kind, name in made if kind == "key-pair"]) == 2
    for instance in list(provider.instances()):
        provider.terminate(instance.ref)
    for resource in list(provider.shared_resources()):
        provider.remove_shared(resource)
    assert served.market.beside() == [theirs]


def test_an_environment_that_is_in_use_is_not_removed(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    provider.launch(eight(provider), a_spec(identity_in(tmp_path)))
    environment = next(one for one in provider.shared_resources() if one.kind == "environment")
    with pytest.raises(Rejected):
        provider.remove_shared(environment)


def test_what_another_launch_has_made_in_between_is_used(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    market, key = served.market, identity_in(tmp_path)
    offer, spec = eight(provider), a_spec(key)
    asked: list[str] = []

    def another_is_faster(moment: str, verb: Verb | None) -> None:
        posts = [request.path for request in market.requests if request.method == "POST"]
        if moment == "before" and market.requests[-1].path.endswith("environments") and not posts:
            asked.append("environment")
            market.put("environment", {}, bills=False, name="gpucloud-CANADA-1", region="CANADA-1")

    served.faults.called = another_is_faster
    provider.launch(offer, spec)
    assert asked == ["environment"]
    assert len([one for one in market.beside() if one.kind == "environment"]) == 1


@pytest.mark.parametrize("size", ["own", "asked", "none"])
def test_all_pages_are_read(served: Served, provider: Hyperstack, tmp_path: Path, size: str) -> None:
    key = identity_in(tmp_path)
    tokens = {
        provider.launch(an_offer(provider, instance_type="n3-L40x1"), a_spec(key)).token for _ in range(5)
    }
    served.market.page_size = 2
    served.market.tells_size = size
    assert {instance.token for instance in provider.instances()} == tokens
    assert len([r for r in served.market.requests if r.args.get("page") == "3"]) == 1


def test_a_machine_is_stopped_by_hibernation_and_woken(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    made = provider.launch(eight(provider), a_spec(identity_in(tmp_path)))
    running(provider, made)
    provider.stop(made.ref)
    (machine,) = served.market.instances()
    assert machine.state == "HIBERNATED"
    stopped = provider.get(made.ref)
    assert (stopped.state, stopped.ssh) == (InstanceState.STOPPED, None)
    provider.start(made.ref)
    assert machine.state == "ACTIVE"


def test_a_machine_that_shut_itself_down_bills_so_stopping_hibernates_it(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    made = provider.launch(eight(provider), a_spec(identity_in(tmp_path)))
    (machine,) = served.market.instances()
    machine.state = "SHUTOFF"
    provider.start(made.ref)
    assert machine.state == "ACTIVE"
    machine.state = "SHUTOFF"
    provider.stop(made.ref)
    assert machine.state == "HIBERNATED"


def test_a_flavor_that_cannot_hibernate_is_not_stopped(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    made = provider.launch(eight(provider), a_spec(identity_in(tmp_path)))
    (machine,) = served.market.instances()
    machine.more["features"] = {"no_hibernation": True}
    with pytest.raises(Unsupported, match="n3-H100-SXM5x8"):
        provider.stop(made.ref)
    assert machine.state != "HIBERNATED"
    forgive(served, "no_hibernation")


@pytest.mark.parametrize("trouble", [Trouble.ERROR, Trouble.THROTTLED, Trouble.LOST_REPLY])
def test_what_changes_a_state_is_sent_once_although_it_is_a_get(
    served: Served, provider: Hyperstack, tmp_path: Path, trouble: Trouble
) -> None:
    made = provider.launch(eight(provider), a_spec(identity_in(tmp_path)))
    running(provider, made)
    served.faults.strike(Fault(Verb.STOP, trouble, times=5))
    with pytest.raises(ProviderError):
        provider.stop(made.ref)
    assert len(served.faults.struck) == 1


@pytest.mark.parametrize(
    ("word", "state"),
    [
        *((word, state) for word, state in STATES.items() if word not in hyperstack_cloud.Hyperstack.states),
        ("OF_TOMORROW", InstanceState.UNKNOWN),
    ],
)
def test_each_word_of_hyperstack_s_has_a_state(
    served: Served, provider: Hyperstack, tmp_path: Path, word: str, state: InstanceState
) -> None:
    made = provider.launch(eight(provider), a_spec(identity_in(tmp_path)))
    served.market.things[made.ref.id].state = word
    assert provider.get(made.ref).state is state


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "Insufficient balance to create the resource", BalanceExhausted),
        (400, "Not enough stock for the requested flavor", NoCapacity),
        (400, "No valid host was found", NoCapacity),
        (404, "Flavor n3-H100x8 does not exist", NoCapacity),
        (400, "Quota exceeded for instances", QuotaExceeded),
        (409, "Virtual machine name already exists", Rejected),
        (400, "user_data is too long", Rejected),
        (400, "Key pair not found", NotFound),
        (401, "Invalid API key", AuthError),
        (500, "Internal Server Error", Unreachable),
    ],
)
def test_hyperstack_says_no_in_prose(
    served: Served, provider: Hyperstack, tmp_path: Path, status: int, message: str, kind: type[ProviderError]
) -> None:
    offer = eight(provider)
    told: dict[str, Any] = {"status": False, "message": message, "error_reason": "bad_request"}
    served.market.refuse(Verb.CREATE, status, told)
    with pytest.raises(ProviderError) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert refused.value.vendor_text == message
    assert refused.value.outcome_unknown == (kind is Unreachable)
    forgive(served, " 500: ")
    assert not served.market.billing()


def test_a_machine_that_is_busy_is_to_be_ended_a_little_later(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    made = provider.launch(eight(provider), a_spec(identity_in(tmp_path)))
    told = {"status": False, "message": "Virtual machine is HIBERNATING", "error_reason": "conflict"}
    served.market.refuse(Verb.TERMINATE, 409, told)
    with pytest.raises(RateLimited) as refused:
        provider.terminate(made.ref)
    assert refused.value.retryable
    provider.terminate(made.ref)
    assert not served.market.billing()


def test_sold_out_since_the_offer_is_no_capacity(
    served: Served, provider: Hyperstack, tmp_path: Path
) -> None:
    offer = eight(provider)
    served.market.full.add(offer.instance_type)
    with pytest.raises(NoCapacity):
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert not served.market.billing()
