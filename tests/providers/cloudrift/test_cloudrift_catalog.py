"""CloudRift's instance types, as its API tells them, against the contract of public catalogues."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.errors import BadReply, Unreachable
from gpucloud.model import Availability, Market
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_cloudrift import Cloudrift
from tests.harness.catalogs import an_adapter, read, reply

Serve = Callable[..., Cloudrift]

PATH = "/api/v1/instance-types/list"
GIB = 2**30


def a_variant(name: str = "rtxpro6000-11-50-500-1l.1", **other: Any) -> dict[str, Any]:
    """What can be rented of a type, as CloudRift writes it."""
    return {
        "name": name,
        "cpu_count": 11,
        "logical_cpu_count": 22,
        "gpu_count": 1,
        "vram": 96 * GIB,
        "dram": 50 * GIB,
        "disk": 500 * GIB,
        "cost_per_hour": 139.36,
        "nodes": 4,
        "nodes_per_dc": {"ustx1a_a01": 3, "eu-central-it-gv-1": 1},
        "available_nodes": 2,
        "available_nodes_per_dc": {"ustx1a_a01": 2, "eu-central-it-gv-1": 0},
        "ip_availability_per_dc": {"ustx1a_a01": {"public_ips": True}},
        "volume_types_per_dc": {"ustx1a_a01": [{"name": "standard", "cost_per_gb_per_month": 7}]},
        "cpu_sharing_policy": "Dedicated",
        **other,
    }


def a_type(*variants: Any, **other: Any) -> dict[str, Any]:
    """A kind of machine, as CloudRift writes it; its own price is of no variant."""
    return {
        "name": "rtxpro6000-11-50-500-1l",
        "brand_short": "RTX PRO 6000",
        "manufacturer": "NVIDIA",
        "cost_per_hour": 13936,
        "datacenters": [
            {"name": "ustx1a_a01", "provider_name": "Arcane Web Services", "country_code": "US"},
            {"name": "eu-central-it-gv-1", "provider_name": "Nuvola", "country_code": "it"},
        ],
        "nvidia_kernel_module_support": "OpenAndProprietary",
        "variants": list(variants or [a_variant()]),
        **other,
    }


def in_reply(*types: Any) -> dict[str, Any]:
    """The envelope."""
    return {"version": "2025-01-29", "data": {"instance_types": list(types)}}


CPU = a_type(a_variant("cpu-8-32.1", gpu_count=None, vram=0), name="cpu-8-32", brand_short="AMD EPYC")
SOLD_OUT = a_type(
    a_variant(
        "v100-6-52-400-generic.8",
        gpu_count=8,
        vram=16 * GIB,
        cost_per_hour=200,
        nodes=0,
        nodes_per_dc={},
        available_nodes=0,
        available_nodes_per_dc={},
        ip_availability_per_dc={},
    ),
    name="v100-6-52-400-generic",
    brand_short="V100 SXM2",
    datacenters=[],
)


def is_asked_well(request: Request) -> bool:
    """Whether a request is a POST for machines in the words of a dated protocol."""
    body = request.get_json()
    return set(body) == {"version", "data"} and body["data"] == {
        "selector": {"ByServiceAndLocation": {"services": ["vm"]}}
    }


@pytest.fixture
def serve(httpserver: HTTPServer, tmp_path: Path) -> Serve:
    """``serve(reply)`` is the adapter before a server that gives this reply."""

    def make(body: Any) -> Cloudrift:
        def handler(request: Request) -> Response:
            return reply(body, 200 if is_asked_well(request) else 400)

        httpserver.expect_request(PATH, method="POST").respond_with_handler(handler)
        return an_adapter(Cloudrift, httpserver, tmp_path)

    return make


class TestCloudriftCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, serve: Serve) -> Cloudrift:
        return serve(in_reply(a_type(), SOLD_OUT, CPU))


def test_each_data_centre_is_an_offer_with_its_free_nodes(serve: Serve) -> None:
    italy, texas = read(serve(in_reply(a_type())))
    assert texas.id == "cloudrift/rtxpro6000-11-50-500-1l.1/ustx1a_a01/on-demand"
    assert (texas.region, texas.country, italy.region, italy.country) == (
        "ustx1a_a01",
        "US",
        "eu-central-it-gv-1",
        "IT",
    )
    assert (texas.availability, texas.availability_detail) == (Availability.AVAILABLE, "2 of 3 nodes free")
    assert (italy.availability, italy.availability_detail) == (Availability.UNAVAILABLE, "0 of 1 nodes free")
    assert texas.market is Market.ON_DEMAND


def test_prices_are_cents_of_the_variant_and_exact(serve: Serve) -> None:
    offers = read(serve(in_reply(a_type())))
    assert {offer.usd_per_hour for offer in offers} == {Decimal("1.3936")}
    assert {(offer.currency, offer.amount) for offer in offers} == {("USD", Decimal("1.3936"))}


def test_a_price_is_of_all_gpus_and_memory_of_one(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(SOLD_OUT)))
    assert (offer.gpu_count, str(offer.gpu)) == (8, "V100-SXM-16")
    assert (offer.usd_per_hour, offer.usd_per_gpu_hour) == (Decimal(2), Decimal("0.25"))


def test_bytes_are_gib_and_processors_are_logical(serve: Serve) -> None:
    offer, _ = read(serve(in_reply(a_type())))
    assert (offer.vcpus, offer.memory_gib, offer.disk_gib) == (22, Decimal(50), Decimal(500))
    assert str(offer.gpu) == "RTXPRO6000-96"


def test_decimal_gigabytes_are_fewer_gib(serve: Serve) -> None:
    offer, _ = read(serve(in_reply(a_type(a_variant(dram=48_000_000_000)))))
    assert offer.memory_gib == Decimal("44.70")


def test_what_is_nowhere_to_be_had_keeps_its_price(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(SOLD_OUT)))
    assert (offer.region, offer.country) == (None, None)
    assert (offer.availability, offer.availability_detail) == (Availability.UNAVAILABLE, "0 nodes free")


def test_a_data_centre_without_public_addresses_is_told(serve: Serve) -> None:
    variant = a_variant(
        nodes_per_dc={"ap-east-tw-kn-2": 1},
        available_nodes_per_dc={"ap-east-tw-kn-2": 1},
        ip_availability_per_dc={"ap-east-tw-kn-2": {"public_ips": False}},
    )
    (offer,) = read(serve(in_reply(a_type(variant))))
    assert offer.availability is Availability.AVAILABLE
    assert offer.availability_detail == "1 of 1 nodes free, no public addresses"


def test_free_nodes_in_a_place_of_no_count_are_offered(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(a_type(a_variant(nodes_per_dc={}, available_nodes_per_dc={"new": 1})))))
    assert (offer.region, offer.availability_detail) == ("new", "1 node free")


def test_a_place_that_is_not_among_those_with_free_nodes_has_none(serve: Serve) -> None:
    italy, _ = read(serve(in_reply(a_type(a_variant(available_nodes_per_dc={"ustx1a_a01": 2})))))
    assert (italy.availability, italy.availability_detail) == (Availability.UNAVAILABLE, "0 of 1 nodes free")


def test_numbers_of_nodes_that_are_not_told_are_not_made_up(serve: Serve) -> None:
    offers = read(serve(in_reply(a_type(a_variant(available_nodes=None, available_nodes_per_dc=None)))))
    assert {offer.availability for offer in offers} == {Availability.UNKNOWN}
    assert {offer.availability_detail for offer in offers} == {None}


def test_a_part_of_a_gpu_has_its_own_memory(serve: Serve) -> None:
    nowhere: dict[str, Any] = {"nodes_per_dc": {}, "available_nodes_per_dc": {}}
    whole = a_variant("a100.1", vram=80 * GIB, **nowhere)
    part = a_variant("a100.1", mig_profile="1g.10gb", vram=80 * GIB, cost_per_hour=20, **nowhere)
    offers = read(serve(in_reply(a_type(whole, part, name="a100", brand_short="A100 SXM4"))))
    assert [(str(offer.gpu), offer.ref) for offer in offers] == [
        ("A100-SXM-80", ""),
        ("A100-SXM-10", "1g.10gb"),
    ]


def test_a_type_without_gpus_is_no_offer(serve: Serve) -> None:
    assert read(serve(in_reply(CPU, a_type(a_variant(gpu_count=0))))) == []


def test_an_empty_list_is_an_empty_catalogue(serve: Serve) -> None:
    assert read(serve(in_reply())) == []
    assert read(serve(in_reply(a_type(variants=[])))) == []


def test_a_gpu_that_nobody_knows_keeps_its_name(serve: Serve) -> None:
    offer, _ = read(serve(in_reply(a_type(a_variant(vram=64 * GIB), brand_short="Quux 9"))))
    assert str(offer.gpu) == "Quux9-64"


def test_without_a_brand_the_name_of_the_type_tells_the_gpu(serve: Serve) -> None:
    offer, _ = read(serve(in_reply(a_type(brand_short=None))))
    assert str(offer.gpu) == "RTXPRO6000-96"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        None,
        a_variant(""),
        a_variant("broken", cost_per_hour=None),
        a_variant("broken", cost_per_hour="on request"),
        a_variant("broken", cost_per_hour=0),
        a_variant("broken", cost_per_hour=-5),
        a_variant("broken", gpu_count="many"),
        a_variant("broken", nodes_per_dc=["ustx1a_a01"]),
    ],
)
def test_a_malformed_variant_does_not_cost_the_others(serve: Serve, broken: Any) -> None:
    offers = read(serve(in_reply(a_type(broken, a_variant()))))
    assert {offer.instance_type for offer in offers} == {"rtxpro6000-11-50-500-1l.1"}
    assert len(offers) == 2


@pytest.mark.parametrize("broken", [{}, None, "v100", {"name": "v100"}, {"name": "v100", "variants": None}])
def test_a_malformed_type_does_not_cost_the_others(serve: Serve, broken: Any) -> None:
    assert len(read(serve(in_reply(broken, a_type())))) == 2


def test_a_country_that_is_no_code_is_left_out(serve: Serve) -> None:
    places = [{"name": "ustx1a_a01", "provider_name": "x", "country_code": "USA"}]
    assert {offer.country for offer in read(serve(in_reply(a_type(datacenters=places))))} == {None}


@pytest.mark.parametrize(
    "body",
    [{}, None, [], "busy", {"data": {}}, {"data": {"instance_types": 7}}, in_reply({}), in_reply(a_type({}))],
)
def test_what_cannot_be_read_at_all_is_a_bad_reply(serve: Serve, body: Any) -> None:
    with pytest.raises(BadReply) as caught:
        read(serve(body))
    assert caught.value.provider == "cloudrift"
    assert "pydantic.dev" not in caught.value.why


def test_too_many_requests_are_repeated(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_ordered_request(PATH).respond_with_json({}, status=429, headers={"Retry-After": "0"})
    httpserver.expect_ordered_request(PATH).respond_with_json(in_reply(a_type()))
    assert len(read(an_adapter(Cloudrift, httpserver, tmp_path))) == 2


def test_a_server_that_fails_for_ever_cannot_be_reached(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_data("", status=500)
    with pytest.raises(Unreachable):
        read(an_adapter(Cloudrift, httpserver, tmp_path))
