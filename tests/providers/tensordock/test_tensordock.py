"""TensorDock against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import BalanceExhausted, NoCapacity, ProviderError, Rejected
from gpucloud.model import InstanceState, Requirements
from gpucloud.testing import ProviderConformance
from gpucloud_tensordock import Tensordock
from tests.harness.acme.faults import Verb
from tests.harness.rental.market import Served, serving
from tests.harness.rental.tensordock import TensorDock
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, identity_in


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(TensorDock()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Tensordock:
    return adapter_at(Tensordock, served, tmp_path)


class TestTensordock(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Tensordock) -> Tensordock:
        return provider


def test_a_price_is_the_sum_of_all_parts(provider: Tensordock) -> None:
    offer = an_offer(provider, ref="h100-sxm5-80gb", gpu_count=2)
    parts = (2 * Decimal("2.2"), 16 * Decimal("0.003"), 64 * Decimal("0.002"), 100 * Decimal("0.00005"))
    assert offer.usd_per_hour == sum(parts)
    assert (str(offer.gpu), offer.vcpus) == ("H100-SXM-80", 16)
    assert (offer.memory_gib, offer.disk_gib) == (Decimal(64), Decimal(100))
    small = an_offer(provider, ref="geforcertx4090-pcie-24gb")
    assert (small.vcpus, small.memory_gib) == (4, Decimal(20))


def test_as_much_disk_as_is_asked_for_is_in_the_price(
    served: Served, provider: Tensordock, tmp_path: Path
) -> None:
    wanted = Requirements(min_disk_gib=500)
    offers = [offer for offer in provider.offers(wanted) if offer.gpu_count == 1]
    assert [(offer.ref, offer.disk_gib) for offer in offers] == [("h100-sxm5-80gb", Decimal(500))]
    usual = an_offer(provider, ref="h100-sxm5-80gb", gpu_count=1)
    assert offers[0].usd_per_hour - usual.usd_per_hour == 400 * Decimal("0.00005")
    provider.launch(offers[0], a_spec(identity_in(tmp_path)))
    assert served.market.instances()[0].asked["resources"]["storage_gb"] == 500


def test_where_machines_have_no_address_none_is_offered(provider: Tensordock) -> None:
    assert "rtxa4000-pcie-16gb" not in {offer.ref for offer in provider.offers(Requirements())}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, {"error": "No available nodes found", "status": 404}, NoCapacity),
        (201, {"error": "Invalid image", "status": 400}, Rejected),
        (400, {"errors": [{"status": "400", "detail": "Requested resources not available"}]}, NoCapacity),
        (400, {"error": "Your balance is below $1"}, BalanceExhausted),
    ],
)
def test_it_says_no_in_prose_and_sometimes_as_if_it_had_said_yes(
    served: Served, provider: Tensordock, tmp_path: Path, status: int, body: Any, kind: type[ProviderError]
) -> None:
    offer = an_offer(provider, gpu_count=8)
    served.market.refuse(Verb.CREATE, status, body)
    with pytest.raises(ProviderError) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert not refused.value.outcome_unknown


def test_states_come_in_any_case(served: Served, provider: Tensordock, tmp_path: Path) -> None:
    instance = provider.launch(an_offer(provider, gpu_count=8), a_spec(identity_in(tmp_path)))
    running(provider, instance)
    (machine,) = served.market.instances()
    for word, state in ("StoppedDisassociated", InstanceState.STOPPED), ("Waking", InstanceState.UNKNOWN):
        machine.state = word
        assert provider.get(instance.ref).state is state
