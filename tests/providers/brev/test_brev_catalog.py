"""Brev's instance types, as its API tells them, against the contract of public catalogues."""

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
from gpucloud_brev import Brev
from tests.harness.catalogs import an_adapter, answer, edition, read

Serve = Callable[..., Brev]

PATH = "/v1/instance/types"


def a_gpu(
    name: str = "A10G", count: int = 1, memory: str | None = "22GiB360MiB", **other: Any
) -> dict[str, Any]:
    """GPUs as Brev writes them; the memory is that of one."""
    return {"count": count, "name": name, "manufacturer": "NVIDIA", "memory": memory, **other}


def dollars(amount: str) -> dict[str, str]:
    """Money as Brev writes it."""
    return {"currency": "USD", "amount": amount}


def a_type(type_: str = "g5.xlarge", **other: Any) -> dict[str, Any]:
    """One row as Brev writes it."""
    return {
        "type": type_,
        "provider": "aws",
        "supported_gpus": [a_gpu()],
        "supported_storage": [
            {
                "count": 1,
                "size": "0B",
                "type": "gp3",
                "min_size": "10GiB",
                "max_size": "16TiB",
                "size_bytes": {"value": 0, "unit": "B"},
                "price_per_gb_hr": dollars("0.00014"),
            }
        ],
        "memory": "16GiB",
        "vcpu": 4,
        "base_price": dollars("1.2072"),
        "location": "us-east-1",
        "sub_location": "use1-az1",
        "available_locations": ["us-east-1", "us-west-2"],
        "estimated_deploy_time": "7m0s",
        "stoppable": True,
        "rebootable": True,
        "can_modify_firewall_rules": True,
        **other,
    }


def in_reply(*types: Any) -> dict[str, Any]:
    """The envelope."""
    return {"items": list(types)}


EIGHT = a_type(
    "hyperstack_H100",
    provider="shadeform",
    supported_gpus=[a_gpu("H100", 8, "80GiB", memory_bytes={"value": 81920, "unit": "MiB"})],
    supported_storage=[{"count": 2, "size": "3TiB512GiB", "type": "ssd"}],
    memory="1TiB416GiB",
    vcpu=252,
    base_price=dollars("23.92"),
    location="canada-1",
    available_locations=["canada-1"],
)
CPU = a_type("m5.xlarge", supported_gpus=[], base_price=dollars("0.192"))


@pytest.fixture
def serve(httpserver: HTTPServer, tmp_path: Path) -> Serve:
    """``serve(reply)`` is the adapter before a server that gives this reply to anybody."""

    def make(body: Any, rates: Mapping[str, Decimal] | None = None) -> Brev:
        httpserver.expect_request(PATH, method="GET").respond_with_handler(answer(body))
        return an_adapter(Brev, httpserver, tmp_path, rates=rates)

    return make


class TestBrevCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, serve: Serve) -> Brev:
        return serve(in_reply(a_type(), EIGHT, CPU))

    def test_it_has_editions(self, catalog: Brev) -> None:
        assert edition(catalog).validator is not None


def test_each_location_is_an_offer_of_the_cloud_behind_it(serve: Serve) -> None:
    east, west = read(serve(in_reply(a_type())))
    assert east.id == "brev/aws/g5.xlarge/us-east-1/on-demand"
    assert west.id == "brev/aws/g5.xlarge/us-west-2/on-demand"
    assert {east.usd_per_hour, west.usd_per_hour} == {Decimal("1.2072")}
    assert (east.currency, east.amount) == ("USD", Decimal("1.2072"))
    assert (east.availability, east.market) == (Availability.AVAILABLE, Market.ON_DEMAND)
    assert (east.vcpus, east.memory_gib) == (4, Decimal(16))


def test_a_location_with_a_price_of_its_own_has_that(serve: Serve) -> None:
    east, west = read(serve(in_reply(a_type(location_prices={"us-west-2": dollars("1.35")}))))
    assert (east.usd_per_hour, west.usd_per_hour) == (Decimal("1.2072"), Decimal("1.35"))


@pytest.mark.parametrize("price", [dollars("0"), {}, "1.35", dollars("ask")])
def test_a_location_whose_own_price_cannot_be_read_is_no_offer(serve: Serve, price: Any) -> None:
    (offer,) = read(serve(in_reply(a_type(location_prices={"us-east-1": price}))))
    assert offer.region == "us-west-2"


def test_prices_are_of_all_gpus_and_memory_of_one(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(EIGHT)))
    assert offer.instance_type == "shadeform/hyperstack_H100"
    assert (offer.gpu_count, str(offer.gpu)) == (8, "H100-80")
    assert (offer.usd_per_hour, offer.usd_per_gpu_hour) == (Decimal("23.92"), Decimal("2.99"))
    assert offer.memory_gib == 1440


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        (a_gpu(), "A10G-24"),
        (a_gpu("A100", memory="40GiB"), "A100-40"),
        (a_gpu("A100", memory="80 GB"), "A100-80"),
        (a_gpu("A100", memory="", memory_bytes={"value": 40960, "unit": "MiB"}), "A100-40"),
        (a_gpu("A100", memory=None, memory_bytes=None), "A100"),
        (a_gpu("A100", memory="a lot"), "A100"),
        (a_gpu("T4", memory="16384MiB"), "T4-16"),
        (a_gpu("HL-205", memory="32GiB", manufacturer="Intel"), "Gaudi1-32"),
        (a_gpu("Quux 9", memory="0.5TiB"), "Quux9-512"),
    ],
)
def test_sizes_and_names_of_gpus(serve: Serve, gpu: dict[str, Any], name: str) -> None:
    offers = read(serve(in_reply(a_type(supported_gpus=[gpu]))))
    assert {str(offer.gpu) for offer in offers} == {name}


def test_a_disk_to_choose_has_a_price_by_the_month(serve: Serve) -> None:
    offer, _ = read(serve(in_reply(a_type())))
    assert (offer.disk_gib, offer.disk_usd_per_gib_month) == (None, Decimal("0.1022"))


def test_a_disk_that_comes_with_it_has_a_size(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(EIGHT)))
    assert (offer.disk_gib, offer.disk_usd_per_gib_month) == (Decimal(7168), None)


@pytest.mark.parametrize(
    "storage",
    [
        None,
        [],
        ["disk"],
        [{"size": "0B"}],
        [{"min_size": "1GiB", "max_size": "2GiB"}],
        [{"min_size": "1GiB", "max_size": "2GiB", "price_per_gb_hr": dollars("0")}],
        [{"price_per_gb_hr": 7}],
    ],
)
def test_a_disk_that_is_not_told_of_is_not_made_up(serve: Serve, storage: Any) -> None:
    offer, _ = read(serve(in_reply(a_type(supported_storage=storage))))
    assert (offer.disk_gib, offer.disk_usd_per_gib_month) == (None, None)


def test_without_available_locations_its_own_tells_where_it_is_but_not_that_it_can_be_had(
    serve: Serve,
) -> None:
    (offer,) = read(serve(in_reply(a_type(available_locations=None))))
    assert (offer.region, offer.availability) == ("us-east-1", Availability.UNKNOWN)


def test_a_type_without_any_location_keeps_its_price(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(a_type(available_locations=[], location=""))))
    assert (offer.region, offer.usd_per_hour) == (None, Decimal("1.2072"))


def test_what_is_said_to_be_gone_is_unavailable(serve: Serve) -> None:
    offers = read(serve(in_reply(a_type(is_available=False))))
    assert {offer.availability for offer in offers} == {Availability.UNAVAILABLE}


def test_what_can_be_taken_back_is_spot(serve: Serve) -> None:
    assert {offer.market for offer in read(serve(in_reply(a_type(preemptible=True))))} == {Market.SPOT}


def test_several_kinds_of_gpus_are_told_apart(serve: Serve) -> None:
    row = a_type(supported_gpus=[a_gpu(), a_gpu("L4", 2)], available_locations=["us-east-1"])
    one, two = read(serve(in_reply(row)))
    assert one.id == two.id
    assert (one.ref, two.ref) == ("1x A10G", "2x L4")


def test_the_clouds_behind_it_are_kept_apart(serve: Serve) -> None:
    types = [a_type(provider=cloud, available_locations=["eu"]) for cloud in ("aws", "nebius")]
    assert [offer.instance_type for offer in read(serve(in_reply(*types)))] == [
        "aws/g5.xlarge",
        "nebius/g5.xlarge",
    ]


def test_of_lines_that_cannot_be_told_apart_the_dearer_counts(serve: Serve) -> None:
    dear = a_type(available_locations=["eu"], base_price=dollars("9"))
    (offer,) = read(serve(in_reply(dear, {**dear, "base_price": dollars("8")})))
    assert offer.usd_per_hour == 9


def test_another_currency_is_converted_and_kept(serve: Serve) -> None:
    row = a_type(base_price={"currency": "EUR", "amount": "3.00"})
    offer, _ = read(serve(in_reply(row), {"EUR": Decimal("1.2")}))
    assert (offer.currency, offer.amount, offer.usd_per_hour) == ("EUR", Decimal("3.00"), Decimal("3.6"))


def test_a_type_without_gpus_is_no_offer(serve: Serve) -> None:
    none_at_all = a_type(supported_gpus=[a_gpu(count=0)])
    assert read(serve(in_reply(CPU, a_type(supported_gpus=None), none_at_all))) == []


def test_an_empty_list_is_an_empty_catalogue(serve: Serve) -> None:
    assert read(serve(in_reply())) == []


@pytest.mark.parametrize(
    "broken",
    [
        {},
        None,
        "g5.xlarge",
        a_type(""),
        a_type("broken", provider=None),
        a_type("broken", base_price=None),
        a_type("broken", base_price=dollars("")),
        a_type("broken", base_price=dollars("0")),
        a_type("broken", base_price=dollars("-1")),
        a_type("broken", base_price={"currency": "XXX", "amount": "1"}),
        a_type("broken", supported_gpus=[{"name": "A10G"}]),
        a_type("broken", supported_gpus=[a_gpu("", 1)]),
    ],
)
def test_a_malformed_row_does_not_cost_the_others(serve: Serve, broken: Any) -> None:
    assert {offer.instance_type for offer in read(serve(in_reply(broken, a_type())))} == {"aws/g5.xlarge"}


@pytest.mark.parametrize(
    "body", [{}, None, [], "busy", {"items": None}, in_reply({}), in_reply(a_type(base_price=None))]
)
def test_what_cannot_be_read_at_all_is_a_bad_reply(serve: Serve, body: Any) -> None:
    with pytest.raises(BadReply) as caught:
        read(serve(body))
    assert caught.value.provider == "brev"
    assert "pydantic.dev" not in caught.value.why


def test_too_many_requests_are_repeated(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_ordered_request(PATH).respond_with_json({}, status=429, headers={"Retry-After": "0"})
    httpserver.expect_ordered_request(PATH).respond_with_json(in_reply(EIGHT))
    assert len(read(an_adapter(Brev, httpserver, tmp_path))) == 1


def test_a_server_that_fails_for_ever_cannot_be_reached(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_data("", status=500)
    with pytest.raises(Unreachable):
        read(an_adapter(Brev, httpserver, tmp_path))
