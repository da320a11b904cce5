"""Lambda against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.errors import AuthError, BalanceExhausted, NoCapacity, ProviderError, QuotaExceeded, Rejected
from gpucloud.model import Availability, Requirements
from gpucloud.testing import ProviderConformance
from gpucloud_lambda import Lambda
from tests.harness.acme.faults import Verb
from tests.harness.rental.lambda_cloud import LambdaCloud
from tests.harness.rental.market import Served, serving
from tests.providers.rented import a_spec, an_offer
from tests.providers.renting import adapter_at, identity_in


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(LambdaCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Lambda:
    return adapter_at(Lambda, served, tmp_path)


class TestLambda(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Lambda) -> Lambda:
        return provider


def test_offers_are_told_as_lambda_means_them(provider: Lambda) -> None:
    found = {(offer.instance_type, offer.region): offer for offer in provider.offers(Requirements())}
    h100 = found["gpu_8x_h100_sxm5", "us-west-1"]
    assert (h100.usd_per_hour, h100.amount, h100.currency) == (Decimal("23.92"), Decimal("23.92"), "USD")
    assert (str(h100.gpu), h100.gpu_count, h100.interconnect) == ("H100-SXM-80", 8, "nvlink")
    assert (h100.vcpus, h100.memory_gib, h100.disk_gib) == (208, Decimal(1800), Decimal(22528))
    assert h100.availability is Availability.AVAILABLE
    assert str(found["gpu_1x_gh200", "us-east-3"].gpu) == "GH200-96"
    assert found["gpu_1x_a10", None].availability is Availability.UNAVAILABLE
    assert found["cpu_4x_general", None].gpu is None


def test_a_key_is_added_once_and_nobody_else_s_is_touched(
    served: Served, provider: Lambda, tmp_path: Path
) -> None:
    served.market.put("ssh-key", {}, bills=False, name="theirs", public_key="ssh-ed25519 AAAAtheirs")
    key = identity_in(tmp_path)
    offer = an_offer(provider, gpu_count=8)
    for _ in range(2):
        provider.launch(offer, a_spec(key))
    assert [thing.more["name"] == "theirs" for thing in served.market.beside()] == [True, False]
    assert len({tuple(one.asked["ssh_key_names"]) for one in served.market.instances()}) == 1
    for resource in list(provider.shared_resources()):
        provider.remove_shared(resource)
    assert [thing.more["name"] for thing in served.market.beside()] == ["theirs"]


@pytest.mark.parametrize(("wanted", "sent"), [("lambda-stack-24-04", "family"), ("0" * 32, "id")])
def test_an_image_is_a_family_or_an_id(
    served: Served, provider: Lambda, tmp_path: Path, wanted: str, sent: str
) -> None:
    provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path), image=wanted))
    assert served.market.instances()[0].asked["image"] == {sent: wanted}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "instance-operations/launch/insufficient-capacity", NoCapacity),
        (400, "global/quota-exceeded", QuotaExceeded),
        (400, "global/invalid-parameters", Rejected),
        (403, "global/invalid-address", BalanceExhausted),
        (403, "global/account-inactive", AuthError),
    ],
)
def test_lambda_says_no_in_codes(
    served: Served, provider: Lambda, tmp_path: Path, status: int, code: str, kind: type[ProviderError]
) -> None:
    offer = an_offer(provider, gpu_count=8)
    message = {"code": code, "message": "No.", "suggestion": "Do something else."}
    served.market.refuse(Verb.CREATE, status, {"error": message})
    with pytest.raises(kind) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert refused.value.vendor_code == code
    assert not refused.value.outcome_unknown
    assert not served.market.instances()
