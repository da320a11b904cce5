"""Verda against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
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
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.model import Availability, InstanceRef, InstanceState, Market, Requirements
from gpucloud.provider import ProviderSettings, Stops
from gpucloud.testing import ProviderConformance
from gpucloud_verda import Verda
from gpucloud_verda.adapter import STATES
from tests.harness.acme.faults import Fault, Trouble, Verb
from tests.harness.rental.market import Served, serving
from tests.harness.rental.verda_cloud import SECRETS, VerdaCloud
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, forgive, identity_in

ALL = Requirements(markets=())


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(VerdaCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Verda:
    return adapter_at(Verda, served, tmp_path)


class TestVerda(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Verda) -> Verda:
        return provider


def test_offers_are_told_as_verda_means_them(provider: Verda) -> None:
    found = {(o.instance_type, o.region, o.market): o for o in provider.offers(ALL)}
    h100 = found["8H100.80S.176V", "FIN-03", Market.ON_DEMAND]
    assert (h100.usd_per_hour, h100.amount, h100.currency) == (Decimal("25.592"), Decimal("25.592"), "USD")
    assert (str(h100.gpu), h100.gpu_count, h100.interconnect) == ("H100-SXM-80", 8, "nvlink")
    assert (h100.vcpus, h100.memory_gib, h100.disk_gib) == (176, Decimal(1480), None)
    assert (h100.country, h100.disk_usd_per_gib_month, h100.confidence) == ("FI", Decimal("0.2"), "live")
    assert h100.availability is Availability.AVAILABLE
    assert found["8H100.80S.176V", "FIN-02", Market.ON_DEMAND].availability is Availability.AVAILABLE
    spot = found["8H100.80S.176V", "FIN-03", Market.SPOT]
    assert (spot.usd_per_hour, spot.availability) == (Decimal("12.796"), Availability.AVAILABLE)
    assert found["1L40S.20V", None, Market.SPOT].availability is Availability.UNAVAILABLE
    assert found["4B200.120V", None, Market.ON_DEMAND].availability is Availability.UNAVAILABLE
    assert len(found) == 6


def test_only_markets_that_are_wanted_are_asked_about(served: Served, provider: Verda) -> None:
    assert {offer.market for offer in provider.offers(Requirements())} == {Market.ON_DEMAND}
    asked = [r.args["is_spot"] for r in served.market.requests if r.path == "/v1/instance-availability"]
    assert asked == ["false"]


def test_one_token_serves_many_requests(served: Served, provider: Verda) -> None:
    list(provider.offers(ALL))
    list(provider.instances())
    assert len(served.market.asked("POST", "/v1/oauth2/token")) == 1


def test_a_token_that_is_about_to_end_is_replaced(served: Served, provider: Verda) -> None:
    served.market.lasts_s = 30
    for _ in range(2):
        list(provider.instances())
    assert len(served.market.asked("POST", "/v1/oauth2/token")) == 2


def test_credentials_that_are_wrong_are_told(served: Served, tmp_path: Path) -> None:
    provider = adapter_at(Verda, served, tmp_path, client_secret="another-secret")
    with pytest.raises(AuthError) as refused:
        list(provider.instances())
    assert refused.value.hint == "gpucloud login verda"
    assert "another-secret" not in f"{refused.value} {refused.value.why} {refused.value.vendor_text}"


@pytest.mark.parametrize("lacking", SECRETS)
def test_one_credential_alone_is_not_enough(tmp_path: Path, lacking: str) -> None:
    table = {key: value for key, value in SECRETS.items() if key != lacking}
    assert not Verda.configured(ProviderSettings("verda", tmp_path, table))
    assert Verda.configured(ProviderSettings("verda", tmp_path, SECRETS))


def test_a_launch_asks_for_what_verda_wants(served: Served, provider: Verda, tmp_path: Path) -> None:
    offer = an_offer(provider, gpu_count=8, region="FIN-03", market=Market.ON_DEMAND)
    spec = a_spec(identity_in(tmp_path), cluster="train", rank=1)
    provider.launch(offer, spec)
    (machine,) = served.market.instances()
    assert machine.asked["contract"] == "PAY_AS_YOU_GO"
    assert machine.asked["hostname"] == "train-1"
    assert machine.asked["image"] == "ubuntu-24.04-cuda-13.0-open"
    assert machine.asked["os_volume"] == {"name": f"{spec.token}.1.train.me", "size": 100}


def test_a_spot_instance_takes_its_disk_with_it(served: Served, provider: Verda, tmp_path: Path) -> None:
    offer = an_offer(provider, gpu_count=8, market=Market.SPOT)
    provider.launch(offer, a_spec(identity_in(tmp_path), image="ubuntu-22.04", disk_gib=250))
    (machine,) = served.market.instances()
    assert machine.asked["is_spot"]
    assert "contract" not in machine.asked
    assert machine.asked["image"] == "ubuntu-22.04"
    assert machine.asked["os_volume"]["size"] == 250
    assert machine.asked["os_volume"]["on_spot_discontinue"] == "delete_permanently"


def test_a_whole_instance_as_the_answer_is_understood_too(
    served: Served, provider: Verda, tmp_path: Path
) -> None:
    served.market.wordy = True
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    assert provider.get(made.ref).token == made.token
    forgive(served, "text/plain")


@pytest.mark.parametrize("trouble", [Trouble.LOST_REPLY, Trouble.TRUNCATED, Trouble.ERROR_BUT_DONE])
def test_a_create_that_fails_although_it_was_done_is_found_by_its_token(
    served: Served, provider: Verda, tmp_path: Path, trouble: Trouble
) -> None:
    offer, spec = an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path))
    served.faults.strike(Fault(Verb.CREATE, trouble))
    with pytest.raises(ProviderError) as failed:
        provider.launch(offer, spec)
    assert failed.value.outcome_unknown
    assert [instance.token for instance in provider.instances()] == [spec.token]
    assert len(served.market.asked("POST", "/v1/instances")) == 1


def test_a_key_is_added_once_and_nobody_else_s_is_touched(
    served: Served, provider: Verda, tmp_path: Path
) -> None:
    served.market.put("ssh-key", {}, bills=False, name="theirs", key="ssh-ed25519 AAAAtheirs")
    offer, key = an_offer(provider, gpu_count=8), identity_in(tmp_path)
    for _ in range(2):
        provider.launch(offer, a_spec(key))
    keys = [thing for thing in served.market.beside() if thing.kind == "ssh-key"]
    assert [thing.more["name"] == "theirs" for thing in keys] == [True, False]
    assert {tuple(one.asked["ssh_key_ids"]) for one in served.market.instances()} == {(keys[1].id,)}


def test_the_end_of_an_instance_is_that_of_its_disk_and_of_no_other(
    served: Served, provider: Verda, tmp_path: Path
) -> None:
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    theirs = served.market.put("volume", {}, name="data", size=500)
    theirs.beside = made.ref.id
    (ours,) = provider.side_resources()
    assert (ours.token, ours.usd_per_hour) == (made.token, Decimal("0.0273972602739726"))
    provider.terminate(made.ref)
    assert served.market.billing() == [theirs.id]
    assert served.market.asked("PUT", "/v1/instances") == [
        {
            "action": "delete",
            "id": [made.ref.id],
            "volume_ids": [ours.ref.id],
            "delete_permanently": True,
        }
    ]


def test_a_disk_that_lost_its_name_is_left_to_verda(served: Served, provider: Verda, tmp_path: Path) -> None:
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    (disk,) = [thing for thing in served.market.beside() if thing.kind == "volume"]
    disk.more["name"] = "renamed"
    provider.terminate(made.ref)
    assert served.market.asked("PUT", "/v1/instances") == [{"action": "delete", "id": [made.ref.id]}]
    assert not served.market.billing()


def test_what_is_being_provisioned_is_to_be_ended_a_little_later(
    served: Served, provider: Verda, tmp_path: Path
) -> None:
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    told = {"code": "invalid_request", "message": "Can't discontinue a provisioning instance"}
    served.market.refuse(Verb.TERMINATE, 400, told)
    with pytest.raises(RateLimited) as refused:
        provider.terminate(made.ref)
    assert refused.value.retryable
    provider.terminate(made.ref)
    assert not served.market.billing()


@pytest.mark.parametrize(
    ("error", "kind"),
    [("Invalid instance id", None), ("Can't discontinue a discontinued instance", None), ("No", Rejected)],
)
def test_an_end_that_was_refused_in_part_is_not_taken_for_success(
    served: Served, provider: Verda, tmp_path: Path, error: str, kind: type[ProviderError] | None
) -> None:
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    result = {"action": "delete", "instanceId": made.ref.id, "status": "error", "error": error}
    served.market.refuse(Verb.TERMINATE, 207, [{**result, "statusCode": 400}])
    if kind is None:
        provider.terminate(made.ref)
    else:
        with pytest.raises(kind):
            provider.terminate(made.ref)


LATER = {word: state for word, state in STATES.items() if word not in VerdaCloud.states}


@pytest.mark.parametrize(("word", "state"), [*LATER.items(), ("of tomorrow", InstanceState.UNKNOWN)])
def test_each_word_of_verda_s_has_a_state(
    served: Served, provider: Verda, tmp_path: Path, word: str, state: InstanceState
) -> None:
    offer = an_offer(provider, gpu_count=8, market=Market.SPOT)
    made = provider.launch(offer, a_spec(identity_in(tmp_path)))
    served.market.things[made.ref.id].state = word
    told = provider.get(made.ref)
    assert told.state is state
    assert told.interrupted == (word == "discontinued")
    forgive(served, "of tomorrow")


def test_root_logs_in_at_the_address_that_comes_later(
    served: Served, provider: Verda, tmp_path: Path
) -> None:
    made = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    assert provider.get(made.ref).ssh is None
    up = running(provider, made)
    assert up.ssh is not None
    assert (up.ssh.user, up.ssh.port) == ("root", 22)
    assert up.created_at == served.market.things[made.ref.id].created_at
    # In which currency the instance's own price is, Verda does not tell.
    assert up.usd_per_hour is None


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (503, "service_unavailable", "Service is currently unavailable", NoCapacity),
        (503, "", "upstream failed", Unreachable),
        (400, "insufficient_funds", "Insufficient funds", BalanceExhausted),
        (402, "insufficient_funds", "Insufficient funds", BalanceExhausted),
        (400, "invalid_request", "Operating system is not valid for this instance type", Rejected),
        (401, "unauthorized_request", "Access token is expired", AuthError),
        (403, "forbidden_action", "Not permitted", AuthError),
    ],
)
def test_verda_says_no_in_codes(
    served: Served,
    provider: Verda,
    tmp_path: Path,
    status: int,
    code: str,
    message: str,
    kind: type[ProviderError],
) -> None:
    offer = an_offer(provider, gpu_count=8)
    served.market.refuse(Verb.CREATE, status, {"code": code, "message": message})
    with pytest.raises(ProviderError) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert refused.value.vendor_code == code
    assert refused.value.vendor_text == message
    assert refused.value.outcome_unknown == (kind is Unreachable)


def test_sold_out_since_the_offer_is_no_capacity(served: Served, provider: Verda, tmp_path: Path) -> None:
    offer = an_offer(provider, gpu_count=8)
    served.market.full.add(offer.instance_type)
    with pytest.raises(NoCapacity):
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert not served.market.billing()


def test_a_listing_that_is_busy_is_no_lack_of_capacity(served: Served, provider: Verda) -> None:
    busy: dict[str, Any] = {"code": "service_unavailable", "message": "Service is currently unavailable"}
    served.market.refuse(Verb.LIST, 503, busy)
    assert list(provider.instances()) == []


def test_an_instance_that_is_not_there_is_not_found(provider: Verda) -> None:
    with pytest.raises(NotFound):
        provider.get(InstanceRef("c01dd00d-0000-480b-ae4e-d429115d055b"))


def test_nothing_is_stopped_that_bills_in_full_all_the_same(provider: Verda) -> None:
    assert not isinstance(provider, Stops)
