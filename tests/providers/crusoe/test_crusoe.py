"""Crusoe against the contract of all adapters, and what is its own."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

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
)
from gpucloud.model import Availability, InstanceRef, InstanceState, Market, Requirements, SshAddress
from gpucloud.testing import ProviderConformance
from gpucloud_crusoe import Crusoe
from gpucloud_crusoe.offers import PRICES, prices
from gpucloud_crusoe.signing import signed
from tests.harness.acme.faults import Fault, Trouble, Verb
from tests.harness.rental.crusoe import MACHINES, SECRET, CrusoeCloud
from tests.harness.rental.market import Served, serving
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, identity_in

EIGHT = "h100-80gb-sxm-ib.8x"


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(CrusoeCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Crusoe:
    return adapter_at(Crusoe, served, tmp_path)


class TestCrusoe(ProviderConformance):
    deviations: ClassVar[Mapping[str, str]] = {
        "test_offers_are_live": "prices are of the day of the list that ships with it: the API tells none"
    }

    @pytest.fixture
    def provider(self, provider: Crusoe) -> Crusoe:
        return provider


# -- offers ------------------------------------------------------------------------------------------


def test_offers_have_the_published_price_of_all_their_gpus(provider: Crusoe) -> None:
    found = {(offer.instance_type, offer.region): offer for offer in provider.offers(Requirements())}
    eight = found[EIGHT, "us-east1-a"]
    assert (eight.usd_per_hour, eight.amount, eight.currency) == (Decimal("31.20"), Decimal("31.20"), "USD")
    assert (eight.confidence, eight.as_of, eight.source) == (
        "published",
        datetime(2026, 10, 20, tzinfo=UTC),
        "gpuhunt 0.1.34, after crusoe.ai/cloud/pricing",
    )
    assert (str(eight.gpu), eight.gpu_count, eight.interconnect) == ("H100-SXM-80", 8, "infiniband")
    assert (eight.vcpus, eight.memory_gib, eight.disk_gib) == (176, Decimal(960), Decimal("27939.68"))


def test_what_has_no_known_price_is_not_offered(provider: Crusoe) -> None:
    told = {offer.instance_type for offer in provider.offers(Requirements())}
    assert told == {EIGHT, "l40s-48gb.1x", "mi300x-192gb.8x", "a40-48gb.1x"}


@pytest.mark.parametrize(
    ("kind", "place", "availability", "detail"),
    [
        (EIGHT, "us-east1-a", Availability.AVAILABLE, "4 free"),
        (EIGHT, "eu-iceland1-a", Availability.UNAVAILABLE, "0 free"),
        ("l40s-48gb.1x", "us-east1-a", Availability.AVAILABLE, "9 free"),
        ("mi300x-192gb.8x", "us-east1-a", Availability.NO_QUOTA, "1 free"),
        ("a40-48gb.1x", None, Availability.UNAVAILABLE, None),
    ],
)
def test_availability_is_what_is_free_and_what_the_quota_leaves(
    provider: Crusoe, kind: str, place: str | None, availability: Availability, detail: str | None
) -> None:
    (offer,) = [o for o in provider.offers(Requirements()) if (o.instance_type, o.region) == (kind, place)]
    assert (offer.availability, offer.availability_detail) == (availability, detail)


def test_the_price_list_is_dated_and_sourced() -> None:
    with PRICES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["gpu_type"] for row in rows] == sorted({row["gpu_type"] for row in rows})
    for row in rows:
        assert prices()[row["gpu_type"]].usd > 0
        assert date(2026, 1, 1) < date.fromisoformat(row["as_of"]) <= date(2026, 11, 21)
        assert row["source"]


# -- signatures and projects -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "signature"),
    [
        (
            "https://api.cloud.crusoe.ai/v1/capacities",
            "wNPORWlMND3i_-eWtfHwMhaic__ZEdUsHsWy5VAPLqs",
        ),
        (
            "https://api.cloud.crusoe.ai/v1/projects/p/compute/vms/instances"
            "?next_token=x%3D&names=a%20b%2Fc&limit=50",
            "eNLwTAoJkU1zNHdF9lWKZarSQP-307uugHhB0Nrp6r4",
        ),
    ],
)
def test_a_signature_is_as_openssl_makes_it(address: str, signature: str) -> None:
    """By ``openssl dgst -sha256 -mac HMAC`` over path, sorted query, method and time, each on its line."""
    told = signed("AK", SECRET, "GET", address, lambda: datetime(2026, 11, 21, 10, 20, 30, tzinfo=UTC))
    assert told == {
        "X-Crusoe-Timestamp": "2026-11-21T10:20:30Z",
        "Authorization": f"Bearer 1.0:AK:{signature}",
    }


@pytest.mark.parametrize("secret", ["not base64!", "YSBz*"])
def test_a_secret_that_cannot_be_one_is_refused_before_anything_is_asked(
    served: Served, tmp_path: Path, secret: str
) -> None:
    with pytest.raises(AuthError) as refused:
        list(adapter_at(Crusoe, served, tmp_path, secret_key=secret).offers(Requirements()))
    assert secret not in f"{refused.value.message} {refused.value.why}"
    assert not served.market.requests


def test_a_wrong_secret_is_refused(served: Served, tmp_path: Path) -> None:
    with pytest.raises(AuthError):
        list(adapter_at(Crusoe, served, tmp_path, secret_key=SECRET.swapcase()).offers(Requirements()))


def test_keys_are_checked_before_they_are_stored(served: Served, provider: Crusoe, tmp_path: Path) -> None:
    stranger = adapter_at(Crusoe, served, tmp_path, access_key="", secret_key="")
    good = dict(served.market.credentials)
    assert stranger.check_credentials(good) == "me@example.com"
    with pytest.raises(AuthError):
        stranger.check_credentials({**good, "access_key": "another"})


def test_both_keys_are_needed(provider: Crusoe) -> None:
    settings = provider.settings
    assert Crusoe.configured(settings)
    for key in ("access_key", "secret_key"):
        table = {name: value for name, value in settings.table.items() if name != key}
        assert not Crusoe.configured(type(settings)(settings.name, settings.state_dir, table=table))


@pytest.mark.parametrize("chosen", ["research", "09ae8411-0fbb-411c-898c-2b8f19622ae1"])
def test_a_project_is_chosen_by_name_or_id(served: Served, tmp_path: Path, chosen: str) -> None:
    served.market.projects.append(("other", "ffffffff-0fbb-411c-898c-2b8f19622ae1"))
    assert list(adapter_at(Crusoe, served, tmp_path, project=chosen).offers(Requirements()))


def test_of_several_projects_the_person_chooses(served: Served, provider: Crusoe) -> None:
    served.market.projects.append(("other", "ffffffff-0fbb-411c-898c-2b8f19622ae1"))
    with pytest.raises(Rejected) as refused:
        list(provider.offers(Requirements()))
    assert refused.value.why == "there are other, research"
    assert refused.value.hint == "set project below [providers.crusoe]"


# -- launch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "wanted", "image"),
    [
        (EIGHT, None, "ubuntu22.04-nvidia-sxm-docker:latest"),
        ("l40s-48gb.1x", None, "ubuntu22.04-nvidia-pcie-docker"),
        (EIGHT, "ubuntu24.04:1.0", "ubuntu24.04:1.0"),
    ],
)
def test_an_image_has_the_drivers_and_is_there(
    served: Served, provider: Crusoe, tmp_path: Path, kind: str, wanted: str | None, image: str
) -> None:
    offer = an_offer(provider, instance_type=kind, region="us-east1-a")
    provider.launch(offer, a_spec(identity_in(tmp_path), image=wanted))
    assert served.market.instances()[0].asked["image"] == image


def test_without_an_image_nothing_is_made(served: Served, provider: Crusoe, tmp_path: Path) -> None:
    offer = an_offer(provider, instance_type="mi300x-192gb.8x")
    with pytest.raises(Rejected) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert "rocm" in refused.value.message
    assert not served.market.asked("POST", MACHINES)


def test_the_tags_are_in_a_name_that_a_host_may_have(
    served: Served, provider: Crusoe, tmp_path: Path
) -> None:
    spec = a_spec(identity_in(tmp_path), cluster="My_job", owner="a.b@c")
    made = provider.launch(an_offer(provider, instance_type=EIGHT, region="us-east1-a"), spec)
    name = served.market.instances()[0].asked["name"]
    assert name == f"{spec.token}--0---4dy-5fjob--a-2eb-40c"
    found = provider.get(made.ref)
    assert (found.token, found.cluster, found.rank, found.owner) == (spec.token, "My_job", 0, "a.b@c")


def test_what_does_not_fit_into_a_name_is_left_out(provider: Crusoe, tmp_path: Path) -> None:
    spec = a_spec(identity_in(tmp_path), cluster="a-very-long-name-of-a-cluster", owner="somebody")
    made = provider.launch(an_offer(provider, instance_type=EIGHT, region="us-east1-a"), spec)
    found = provider.get(made.ref)
    assert (found.token, found.rank, found.cluster, found.owner) == (spec.token, 0, None, None)


def test_a_lack_that_the_operation_tells_is_no_capacity(
    served: Served, provider: Crusoe, tmp_path: Path
) -> None:
    served.market.full.add(EIGHT)
    offer = an_offer(provider, instance_type=EIGHT, region="us-east1-a")
    with pytest.raises(NoCapacity) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert refused.value.vendor_code == "out_of_stock"
    assert not refused.value.outcome_unknown


def test_an_operation_that_fails_later_leaves_nothing(
    served: Served, provider: Crusoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_badly(monkeypatch, {"code": "internal", "message": "host failure"})
    offer = an_offer(provider, instance_type=EIGHT, region="us-east1-a")
    with pytest.raises(Rejected) as failed:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert failed.value.why == "host failure"
    assert not failed.value.outcome_unknown
    assert not served.market.billing()


def test_a_failed_machine_that_cannot_be_deleted_may_be_there(
    served: Served, provider: Crusoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_badly(monkeypatch, {"code": "out_of_stock", "message": "out of stock"})
    offer = an_offer(provider, instance_type=EIGHT, region="us-east1-a")
    served.faults.strike(Fault(Verb.TERMINATE, Trouble.ERROR))
    with pytest.raises(NoCapacity) as failed:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert failed.value.outcome_unknown


def ends_badly(monkeypatch: pytest.MonkeyPatch, result: Any) -> None:
    """Let operations fail, so, when they are looked at."""
    begin = CrusoeCloud._operation

    def operation(market: CrusoeCloud, about: str, state: str, told: Any) -> Any:
        begun = begin(market, about, state, result)
        market.operations[begun["operation"]["operation_id"]]["ends"] = "FAILED"
        return begun

    monkeypatch.setattr(CrusoeCloud, "_operation", operation)


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"),
    [
        (400, "bad_request", "project quota exceeded for H100", QuotaExceeded),
        (403, "unauthorized", "quota limit reached", QuotaExceeded),
        (400, "out_of_stock", "no hosts", NoCapacity),
        (400, "bad_request", "the requested type is out of stock", NoCapacity),
        (400, "bad_request", "no payment method on file", BalanceExhausted),
        (400, "bad_request", "an instance of that name exists already", Rejected),
        (401, "bad_credential", "bad credential", AuthError),
        (403, "unauthorized", "not allowed", AuthError),
    ],
)
def test_crusoe_says_no(
    served: Served,
    provider: Crusoe,
    tmp_path: Path,
    status: int,
    code: str,
    text: str,
    kind: type[ProviderError],
) -> None:
    offer = an_offer(provider, instance_type=EIGHT, region="us-east1-a")
    served.market.refuse(Verb.CREATE, status, {"code": code, "message": text})
    with pytest.raises(kind) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert (refused.value.vendor_code, refused.value.vendor_text) == (code, text)
    assert not refused.value.outcome_unknown
    assert not served.market.instances()


# -- instances ---------------------------------------------------------------------------------------


def test_ssh_is_at_the_public_address(served: Served, provider: Crusoe, tmp_path: Path) -> None:
    made = provider.launch(
        an_offer(provider, instance_type=EIGHT, region="us-east1-a"), a_spec(identity_in(tmp_path))
    )
    assert running(provider, made).ssh == SshAddress("203.0.113.5", 22, "ubuntu", inside="10.1.2.3")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("STATE_DEFINING", InstanceState.PENDING),
        ("STATE_RUNNING", InstanceState.RUNNING),
        ("RUNNING", InstanceState.RUNNING),
        ("STATE_RUNNING_DEGRADED", InstanceState.RUNNING),
        ("STATE_SHUTDOWN", InstanceState.STOPPING),
        ("STATE_SHUTOFF", InstanceState.STOPPED),
        ("STATE_CRASHED", InstanceState.FAILED),
        ("STATE_DELETING", InstanceState.TERMINATING),
        ("STATE_DELETED", InstanceState.TERMINATED),
        ("STATE_OF_TOMORROW", InstanceState.UNKNOWN),
    ],
)
def test_states_are_in_our_words(
    served: Served, provider: Crusoe, tmp_path: Path, word: str, state: InstanceState
) -> None:
    made = provider.launch(
        an_offer(provider, instance_type=EIGHT, region="us-east1-a"), a_spec(identity_in(tmp_path))
    )
    served.market.things[made.ref.id].more = {"state": word, "billing_type": "Spot"}
    found = provider.get(made.ref)
    assert (found.state, found.market, found.instance_type) == (state, Market.SPOT, EIGHT)


def test_all_pages_are_read(served: Served, provider: Crusoe, tmp_path: Path) -> None:
    offer, key = an_offer(provider, instance_type=EIGHT, region="us-east1-a"), identity_in(tmp_path)
    tokens = {provider.launch(offer, a_spec(key)).token for _ in range(5)}
    assert {instance.token for instance in provider.instances()} == tokens
    queries = [request.args.get("next_token") for request in served.market.requests]
    assert [query for query in queries if query] == ["2", "4"]


def test_pages_that_go_in_a_circle_are_no_listing(provider: Crusoe, monkeypatch: pytest.MonkeyPatch) -> None:
    method = CrusoeCloud.listing

    def circle(market: CrusoeCloud, request: Any) -> Any:
        return {"items": [], "next_page_token": "2"}

    circle.routes = method.routes  # type: ignore[attr-defined]
    monkeypatch.setattr(CrusoeCloud, "listing", circle)
    with pytest.raises(BadReply):
        list(provider.instances())


def test_what_is_not_ours_is_not_listed(served: Served, provider: Crusoe, tmp_path: Path) -> None:
    made = provider.launch(
        an_offer(provider, instance_type=EIGHT, region="us-east1-a"), a_spec(identity_in(tmp_path))
    )
    served.market.things[made.ref.id].more = {"name": "gc-of-somebody-else"}
    assert not list(provider.instances())


def test_what_ends_already_is_not_deleted_again(served: Served, provider: Crusoe, tmp_path: Path) -> None:
    made = provider.launch(
        an_offer(provider, instance_type=EIGHT, region="us-east1-a"), a_spec(identity_in(tmp_path))
    )
    served.market.things[made.ref.id].more = {"state": "STATE_DELETING"}
    provider.terminate(made.ref)
    assert not served.market.asked("DELETE", ".*")


def test_a_start_without_a_free_machine_is_no_capacity(
    served: Served, provider: Crusoe, tmp_path: Path
) -> None:
    made = provider.launch(
        an_offer(provider, instance_type=EIGHT, region="us-east1-a"), a_spec(identity_in(tmp_path))
    )
    running(provider, made)
    provider.stop(made.ref)
    served.market.full.add(EIGHT)
    with pytest.raises(NoCapacity):
        provider.start(made.ref)
    assert provider.get(made.ref).state is InstanceState.STOPPED


def test_an_instance_of_another_project_is_not_found(provider: Crusoe) -> None:
    with pytest.raises(NotFound):
        provider.get(InstanceRef("ca39e669-47ee-456b-968d-303234fbf99f"))
