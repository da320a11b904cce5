"""CloudRift against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import (
    AuthError,
    BadReply,
    BalanceExhausted,
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    Rejected,
    Unreachable,
)
from gpucloud.model import Availability, InstanceState, Requirements, SshAddress
from gpucloud.testing import ProviderConformance
from gpucloud_cloudrift import Cloudrift, api
from tests.harness.acme.faults import Verb
from tests.harness.rental.cloudrift import CloudRift
from tests.harness.rental.market import Served, replies, serving
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, identity_in

RENT = "/api/v1/instances/rent"
IMAGES = "https://storage.googleapis.com/cloudrift-vm-disks/"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(CloudRift()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Cloudrift:
    return adapter_at(Cloudrift, served, tmp_path)


class TestCloudrift(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Cloudrift) -> Cloudrift:
        return provider


def test_offers_are_those_of_the_catalogue_and_live(provider: Cloudrift) -> None:
    found = {(offer.instance_type, offer.region): offer for offer in provider.offers(Requirements())}
    two = found["rtx49-12-60-500.2", "ustx1a_a01"]
    assert (two.usd_per_hour, two.gpu_count, two.confidence) == (Decimal("0.78"), 2, "live")
    assert (two.availability, two.availability_detail) == (Availability.AVAILABLE, "1 of 2 nodes free")
    assert found["v100-6-52-400.1", "ustx1a_a01"].availability is Availability.UNAVAILABLE


def test_what_cannot_be_reached_cannot_be_had(provider: Cloudrift) -> None:
    (taiwan,) = [each for each in provider.offers(Requirements()) if each.country == "TW"]
    assert taiwan.availability is Availability.UNAVAILABLE
    assert taiwan.availability_detail == "1 of 1 nodes free, no public addresses"


def test_lines_of_one_name_are_not_offered(
    provider: Cloudrift, monkeypatch: pytest.MonkeyPatch, served: Served
) -> None:
    body = replies("cloudrift/instance-types.json")
    first = body["instance_types"][0]["variants"][0]
    body["instance_types"][0]["variants"].append({**first, "mig_profile": "1g.10gb", "cost_per_hour": 9})
    monkeypatch.setattr("tests.harness.rental.cloudrift.replies", lambda name: body)
    names = {offer.instance_type for offer in provider.offers(Requirements())}
    assert first["name"] not in names
    assert "rtx49-12-60-500.2" in names


@pytest.mark.parametrize(
    ("kind", "wanted", "image"),
    [
        ("rtx49-12-60-500.2", None, f"{IMAGES}noble.img"),
        ("v100-6-52-400.8", None, f"{IMAGES}noble-closed.img"),
        ("rtx49-12-60-500.2", "ubuntu 22.04 server (nvidia)", f"{IMAGES}jammy.img"),
        ("rtx49-12-60-500.2", "https://example.com/own.img", "https://example.com/own.img"),
    ],
)
def test_an_image_has_a_driver_that_starts_there(
    served: Served, provider: Cloudrift, tmp_path: Path, kind: str, wanted: str | None, image: str
) -> None:
    offer = an_offer(provider, instance_type=kind)
    provider.launch(offer, a_spec(identity_in(tmp_path), image=wanted))
    (asked,) = served.market.asked("POST", RENT)
    assert asked["data"]["config"]["VirtualMachine"]["image_url"] == image


def test_an_image_that_nobody_knows_is_refused_before_anything_is_made(
    served: Served, provider: Cloudrift, tmp_path: Path
) -> None:
    offer = an_offer(provider, gpu_count=2)
    with pytest.raises(Rejected):
        provider.launch(offer, a_spec(identity_in(tmp_path), image="Plan 9"))
    assert not served.market.asked("POST", RENT)


def test_the_tags_and_the_key_go_with_the_rent(served: Served, provider: Cloudrift, tmp_path: Path) -> None:
    spec = a_spec(identity_in(tmp_path))
    provider.launch(an_offer(provider, gpu_count=2), spec)
    (asked,) = served.market.asked("POST", RENT)
    assert f"gpucloud-token:{spec.token}" in asked["data"]["tags"]
    assert asked["data"]["config"]["VirtualMachine"]["ssh_key"] == {"PublicKeys": [spec.public_key]}
    assert asked["version"] == api.VERSION
    assert "team_id" not in asked["data"]


def test_without_tags_a_rental_is_known_by_its_name(
    served: Served, provider: Cloudrift, tmp_path: Path
) -> None:
    spec = a_spec(identity_in(tmp_path))
    made = provider.launch(an_offer(provider, gpu_count=2), spec)
    served.market.things[made.ref.id].more = {"tags": []}
    (found,) = provider.instances()
    assert (found.token, found.cluster, found.rank, found.owner) == (spec.token, "test", 0, "me")


def test_a_team_pays_when_the_settings_name_one(served: Served, tmp_path: Path) -> None:
    provider = adapter_at(Cloudrift, served, tmp_path, team="team-1")
    provider.launch(an_offer(provider, gpu_count=2), a_spec(identity_in(tmp_path)))
    assert served.market.asked("POST", RENT)[0]["data"]["team_id"] == "team-1"


@pytest.mark.parametrize(
    ("more", "address"),
    [
        ({}, SshAddress("203.0.113.5", 22, "riftuser")),
        ({"port_mappings": [[2201, 22], [8080, 80]]}, SshAddress("203.0.113.5", 2201, "riftuser")),
        ({"port_mappings": [[22, 2202]]}, SshAddress("203.0.113.5", 2202, "riftuser")),
        ({"port_mappings": [[22, 22]]}, SshAddress("203.0.113.5", 22, "riftuser")),
        (
            {"internal_host_address": "10.0.0.4"},
            SshAddress("203.0.113.5", 22, "riftuser", inside="10.0.0.4"),
        ),
    ],
)
def test_ssh_is_where_the_ports_lead_to(
    served: Served, provider: Cloudrift, tmp_path: Path, more: dict[str, Any], address: SshAddress
) -> None:
    made = provider.launch(an_offer(provider, gpu_count=2), a_spec(identity_in(tmp_path)))
    served.market.things[made.ref.id].more |= more
    assert running(provider, made).ssh == address


@pytest.mark.parametrize(
    ("status", "machine", "state"),
    [
        ("Initializing", None, InstanceState.PENDING),
        ("Active", None, InstanceState.PENDING),
        ("Active", {"ready": False, "state": "Running"}, InstanceState.PENDING),
        ("Active", {"ready": True, "state": "Running"}, InstanceState.RUNNING),
        ("Active", {"ready": True, "state": "Paused"}, InstanceState.STOPPED),
        ("Active", {"ready": True, "state": "Shutoff"}, InstanceState.STOPPED),
        ("Active", {"ready": True, "state": "Crashed"}, InstanceState.FAILED),
        ("Deactivating", {"ready": True, "state": "Running"}, InstanceState.TERMINATING),
        ("Failed", None, InstanceState.TERMINATED),
    ],
)
def test_states_are_in_our_words(
    served: Served,
    provider: Cloudrift,
    tmp_path: Path,
    status: str,
    machine: dict[str, Any] | None,
    state: InstanceState,
) -> None:
    made = provider.launch(an_offer(provider, gpu_count=2), a_spec(identity_in(tmp_path)))
    machines = [{"vmid": 1, "name": "vm", **machine}] if machine else []
    served.market.things[made.ref.id].more = {"status": status, "virtual_machines": machines}
    assert provider.get(made.ref).state is state
    assert [instance.state for instance in provider.instances()] == [state]


def test_a_state_of_tomorrow_is_unknown(tmp_path: Path, provider: Cloudrift) -> None:
    assert provider._instance(api.Instance(id="a", status="Dreaming")).state is InstanceState.UNKNOWN


def test_what_is_over_is_not_found(served: Served, provider: Cloudrift, tmp_path: Path) -> None:
    made = provider.launch(an_offer(provider, gpu_count=2), a_spec(identity_in(tmp_path)))
    served.market.things[made.ref.id].more = {"status": "Inactive"}
    assert not list(provider.instances())
    with pytest.raises(NotFound):
        provider.get(made.ref)


def test_a_rental_tells_its_price_and_type(provider: Cloudrift, tmp_path: Path) -> None:
    made = provider.launch(an_offer(provider, gpu_count=2), a_spec(identity_in(tmp_path)))
    found = provider.get(made.ref)
    assert (found.usd_per_hour, found.instance_type) == (Decimal("0.78"), "rtx49-12-60-500.2")


def test_a_listing_that_may_not_be_whole_is_no_listing(
    provider: Cloudrift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "MOST_LISTED", 1)
    provider.launch(an_offer(provider, gpu_count=2), a_spec(identity_in(tmp_path)))
    with pytest.raises(BadReply):
        list(provider.instances())


@pytest.mark.parametrize("changes", [{"usd_per_hour": Decimal("0.5")}, {"instance_type": "gone.1"}])
def test_an_offer_that_is_no_more_as_it_was_is_not_taken(
    served: Served, provider: Cloudrift, tmp_path: Path, changes: dict[str, Any]
) -> None:
    offer = replace(an_offer(provider, gpu_count=2), **changes)
    with pytest.raises(NoCapacity) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert ("the price of" in refused.value.message) == ("usd_per_hour" in changes)
    assert not served.market.asked("POST", RENT)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (503, "Service Unavailable: NodeAllocationModeMixed", NoCapacity),
        (400, "not enough resources on the node", NoCapacity),
        (400, "Insufficient balance to rent the instance", BalanceExhausted),
        (402, "", BalanceExhausted),
        (400, "the resource quota does not cover this rental", QuotaExceeded),
        (400, "unknown image", Rejected),
        (401, "Not authorized", AuthError),
        (403, "Forbidden", AuthError),
    ],
)
def test_cloudrift_says_no_in_prose(
    served: Served, provider: Cloudrift, tmp_path: Path, status: int, text: str, kind: type[ProviderError]
) -> None:
    offer = an_offer(provider, gpu_count=2)
    served.market.refuse(Verb.CREATE, status, text)
    with pytest.raises(kind) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert refused.value.vendor_text == text
    assert not refused.value.outcome_unknown
    assert not served.market.instances()


def test_an_outage_is_no_lack_of_nodes(served: Served, provider: Cloudrift, tmp_path: Path) -> None:
    offer = an_offer(provider, gpu_count=2)
    served.market.refuse(Verb.CREATE, 503, "<html>upstream is gone</html>")
    with pytest.raises(Unreachable) as failed:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert failed.value.outcome_unknown


def test_a_rent_of_nothing_is_no_capacity_once_a_listing_agrees(
    served: Served, provider: Cloudrift, tmp_path: Path
) -> None:
    offer = an_offer(provider, gpu_count=2)
    served.market.refuse(Verb.CREATE, 201, {"version": api.VERSION, "data": {"instance_ids": []}})
    with pytest.raises(NoCapacity) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert refused.value.outcome_unknown


def test_a_key_is_checked_before_it_is_stored(served: Served, provider: Cloudrift, tmp_path: Path) -> None:
    stranger = adapter_at(Cloudrift, served, tmp_path, api_key="")
    assert stranger.check_credentials(served.market.credentials) == "me@example.com"
    with pytest.raises(AuthError):
        stranger.check_credentials({"api_key": "another"})
