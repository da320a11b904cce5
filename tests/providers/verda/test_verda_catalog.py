"""Verda's price list, as its API tells it, against the contract of public catalogues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from gpucloud.errors import BadReply, Unreachable
from gpucloud.model import Availability, Market
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_verda import Verda
from tests.harness.catalogs import an_adapter, answer, edition, read

Serve = Callable[..., Verda]

PATH = "/v1/instance-types"


def a_type(instance_type: str = "1H100.80S.30V", **other: Any) -> dict[str, Any]:
    """One row as Verda writes it."""
    return {
        "id": "c01dd00d-0000-480b-ae4e-d429115d055b",
        "instance_type": instance_type,
        "name": "H100 SXM5 80GB",
        "model": "H100",
        "manufacturer": "NVIDIA",
        "description": "Dedicated Hardware Instance",
        "best_for": ["Gargantuan ML models", "Multi-GPU training", "NVLINK"],
        "gpu": {"description": "1x H100 SXM5 80GB", "number_of_gpus": 1},
        "gpu_memory": {"description": "80GB GPU RAM", "size_in_gigabytes": 80},
        "cpu": {"description": "30 CPU", "number_of_cores": 30},
        "memory": {"description": "120GB RAM", "size_in_gigabytes": 120},
        "storage": {"description": "dynamic"},
        "price_per_hour": "3.555",
        "spot_price": "1.7775",
        "dynamic_price": "1.98",
        "serverless_price": "4.10",
        "currency": "usd",
        "deploy_warning": None,
        "p2p": None,
        "supported_os": ["ubuntu-24.04-cuda-13.0-open"],
        **other,
    }


def gpus(description: str, count: int, total_gb: int) -> dict[str, Any]:
    """The fields about GPUs; their memory is the sum, as Verda tells it."""
    return {
        "gpu": {"description": f"{count}x {description}", "number_of_gpus": count},
        "gpu_memory": {"description": f"{total_gb}GB GPU RAM", "size_in_gigabytes": total_gb},
    }


EIGHT = a_type(
    "8B300.240V",
    **gpus("B300 SXM6 268GB", 8, 2144),
    cpu={"description": "240 CPU", "number_of_cores": 240},
    memory={"description": "2200GB RAM", "size_in_gigabytes": 2200},
    price_per_hour="67.616",
    spot_price="33.808",
)
CPU = a_type("CPU.4V.16G", gpu={"description": "", "number_of_gpus": 0}, price_per_hour="0.0279")


@pytest.fixture
def serve(httpserver: HTTPServer, tmp_path: Path) -> Serve:
    """``serve(rows)`` is the adapter before a server that tells these rows in US dollars."""

    def make(body: Any, rates: Mapping[str, Decimal] | None = None) -> Verda:
        expected = httpserver.expect_request(PATH, method="GET", query_string={"currency": "usd"})
        expected.respond_with_handler(answer(body))
        return an_adapter(Verda, httpserver, tmp_path, rates=rates)

    return make


class TestVerdaCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, serve: Serve) -> Verda:
        return serve([a_type(), EIGHT, CPU])

    def test_it_has_editions(self, catalog: Verda) -> None:
        assert edition(catalog).validator is not None


def test_a_type_is_sold_on_demand_and_spot(serve: Serve) -> None:
    on_demand, spot = read(serve([a_type()]))
    assert (on_demand.market, on_demand.usd_per_hour) == (Market.ON_DEMAND, Decimal("3.555"))
    assert (spot.market, spot.usd_per_hour) == (Market.SPOT, Decimal("1.7775"))
    assert on_demand.id == "verda/1H100.80S.30V/-/on-demand"
    assert str(on_demand.gpu) == "H100-SXM-80"
    assert (on_demand.vcpus, on_demand.memory_gib, on_demand.disk_gib) == (30, Decimal(120), None)
    assert on_demand.availability is Availability.UNKNOWN
    assert (on_demand.currency, on_demand.amount) == ("USD", Decimal("3.555"))
    assert on_demand.source == "api.verda.com"


def test_prices_are_of_the_whole_instance_and_its_memory_is_of_all_gpus(serve: Serve) -> None:
    on_demand, _ = read(serve([EIGHT]))
    assert (on_demand.gpu_count, str(on_demand.gpu)) == (8, "B300-SXM-288")
    assert on_demand.usd_per_hour == Decimal("67.616")
    assert on_demand.usd_per_gpu_hour == Decimal("8.452")


def test_the_memory_of_one_gpu_tells_two_editions_of_a_chip_apart(serve: Serve) -> None:
    offers = read(serve([a_type("4A100.88V", **gpus("A100 SXM4", 4, 160))]))
    assert {str(offer.gpu) for offer in offers} == {"A100-SXM-40"}


def test_nvlink_is_told_only_of_several_gpus_that_have_it(serve: Serve) -> None:
    pcie = a_type("2A6000.20V", best_for=["Affordable"], **gpus("RTX A6000 48GB", 2, 96))
    told = {offer.instance_type: offer.interconnect for offer in read(serve([a_type(), EIGHT, pcie]))}
    assert told == {"1H100.80S.30V": None, "8B300.240V": "nvlink", "2A6000.20V": None}


def test_numbers_are_prices_as_well_as_strings(serve: Serve) -> None:
    offers = read(serve([a_type(price_per_hour=2.29, spot_price=0.8015)]))
    assert [offer.usd_per_hour for offer in offers] == [Decimal("2.29"), Decimal("0.8015")]


@pytest.mark.parametrize("price", [None, "0", "0.00", 0, "", "on request", "-1", "NaN", "Infinity", True])
def test_what_is_no_price_is_no_offer(serve: Serve, price: Any) -> None:
    offers = read(serve([a_type(spot_price=price)]))
    assert [offer.market for offer in offers] == [Market.ON_DEMAND]


def test_a_type_of_processors_only_is_no_offer(serve: Serve) -> None:
    assert read(serve([CPU])) == []
    assert read(serve([a_type(gpu=None)])) == []


def test_an_empty_list_is_an_empty_catalogue(serve: Serve) -> None:
    assert read(serve([])) == []


def test_a_gpu_that_nobody_knows_keeps_its_name(serve: Serve) -> None:
    offer, _ = read(serve([a_type("2X.20V", **gpus("AMD 7900XTX", 2, 48))]))
    assert (str(offer.gpu), offer.gpu_count) == ("AMD7900XTX-24", 2)


def test_without_a_description_the_name_of_the_type_tells_the_gpu(serve: Serve) -> None:
    row = a_type(gpu={"description": "", "number_of_gpus": 1}, name="L40S 48GB", gpu_memory=None)
    assert {str(offer.gpu) for offer in read(serve([row]))} == {"L40S-48"}


def test_another_currency_is_converted_and_kept(serve: Serve) -> None:
    offer, _ = read(serve([a_type(price_per_hour="3.00", currency="eur")], {"EUR": Decimal("1.2")}))
    assert (offer.currency, offer.amount, offer.usd_per_hour) == ("EUR", Decimal("3.00"), Decimal("3.6"))


def test_without_a_currency_it_is_the_one_that_was_asked_for(serve: Serve) -> None:
    assert {offer.currency for offer in read(serve([a_type(currency=None)]))} == {"USD"}


@pytest.mark.parametrize(
    "broken",
    [
        {},
        None,
        "1H100.80S.30V",
        a_type(""),
        a_type("broken", gpu={"description": "1x H100"}),
        a_type("broken", gpu={"description": "1x H100", "number_of_gpus": -1}),
        a_type("broken", price_per_hour=None, spot_price=None),
        a_type("broken", currency="XXX"),
        a_type("broken", memory={"size_in_gigabytes": "much"}),
    ],
)
def test_a_malformed_row_does_not_cost_the_others(serve: Serve, broken: Any) -> None:
    assert {offer.instance_type for offer in read(serve([broken, a_type()]))} == {"1H100.80S.30V"}


def test_fields_and_values_that_are_new_change_nothing(serve: Serve) -> None:
    assert len(read(serve([a_type(best_for=None, manufacturer="Unheard", colour={"of": ["money"]})]))) == 2


def test_of_lines_that_cannot_be_told_apart_the_dearer_counts(serve: Serve) -> None:
    offers = read(serve([a_type(price_per_hour="4"), a_type(price_per_hour="3")]))
    assert [offer.usd_per_hour for offer in offers] == [4, Decimal("1.7775")]


@pytest.mark.parametrize("body", [{"error": "gone"}, None, "busy", 7, [{"instance_type": 7}], [{}, {}]])
def test_what_cannot_be_read_at_all_is_a_bad_reply(serve: Serve, body: Any) -> None:
    with pytest.raises(BadReply) as caught:
        read(serve(body))
    assert caught.value.provider == "verda"
    assert "pydantic.dev" not in caught.value.why


def test_prices_that_are_none_at_all_do_not_empty_the_catalogue(serve: Serve) -> None:
    with pytest.raises(BadReply, match="verda"):
        read(serve([a_type(price_per_hour="ask", spot_price="ask"), CPU]))


def test_too_many_requests_are_repeated(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_ordered_request(PATH).respond_with_json({}, status=429, headers={"Retry-After": "0"})
    httpserver.expect_ordered_request(PATH).respond_with_json([a_type()])
    assert len(read(an_adapter(Verda, httpserver, tmp_path))) == 2


def test_a_server_that_fails_for_ever_cannot_be_reached(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_data("", status=500)
    with pytest.raises(Unreachable):
        read(an_adapter(Verda, httpserver, tmp_path))
