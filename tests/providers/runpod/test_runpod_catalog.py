"""RunPod's catalogue, from a server that answers the one question as theirs does."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.errors import BadReply, RateLimited, Rejected, Unreachable
from gpucloud.model import Availability, Market, Offer
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_runpod import Runpod
from tests.harness.catalogs import an_adapter, edition, reply

runpod = partial(an_adapter, Runpod)

PATH = "/graphql"

Read = Callable[..., Sequence[Offer]]


def kind(name: str = "NVIDIA GeForce RTX 4090", **other: Any) -> dict[str, Any]:
    """A type of GPU in their words, without its stock."""
    told = {
        "id": name,
        "displayName": "RTX 4090",
        "memoryInGb": 24,
        "secureCloud": True,
        "communityCloud": True,
        "minPodGpuCount": 1,
        "maxGpuCountSecureCloud": 2,
        "maxGpuCountCommunityCloud": 1,
        "securePrice": 0.74,
        "communityPrice": 0.34,
        "secureSpotPrice": 0.74,
        "communitySpotPrice": 0.34,
    }
    return {**told, **other}


def probe(stock: str | None, vcpus: int | None = None, memory: int | None = None) -> dict[str, Any]:
    return {"stockStatus": stock, "minVcpu": vcpus, "minMemory": memory}


H100 = kind(
    "NVIDIA H100 80GB HBM3",
    displayName="H100 SXM",
    memoryInGb=80,
    maxGpuCountSecureCloud=8,
    maxGpuCountCommunityCloud=1,
    securePrice=3.99,
    communityPrice=2.69,
    secureSpotPrice=3.99,
    communitySpotPrice=2.69,
)


class GraphQl:
    """Their server: tells of every type the fields that it is asked for, and nothing else."""

    def __init__(self, kinds: list[dict[str, Any]]) -> None:
        self.kinds = kinds
        self.asked: list[str] = []

    def __call__(self, request: Request) -> Response:
        assert request.content_type == "application/json"
        query = json.loads(request.data)["query"]
        self.asked.append(query)
        names = re.findall(r"(\w+)(?:: lowestPrice\(.*?\) \{.*?\})?", query.split("gpuTypes {")[1])
        told = [{name: row.get(name) for name in names} for row in self.kinds]
        return reply({"data": {"gpuTypes": told}})


def in_order(offers: Sequence[Offer]) -> Sequence[Offer]:
    """By type, the secure cloud first, then by number of GPUs: a catalogue promises no order."""
    return sorted(offers, key=lambda o: (o.instance_type, not o.secure, o.gpu_count, o.market))


@pytest.fixture
def read(httpserver: HTTPServer, tmp_path: Path) -> Read:
    """What is told when these are the types."""

    def read(*kinds: dict[str, Any]) -> Sequence[Offer]:
        httpserver.clear_all_handlers()
        httpserver.expect_request(PATH, method="POST").respond_with_handler(GraphQl(list(kinds)))
        published = edition(runpod(httpserver, tmp_path))
        assert published.validator is None
        return in_order(published.offers)

    return read


class TestRunpodCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, httpserver: HTTPServer, tmp_path: Path) -> Runpod:
        kinds = [
            kind(any1=probe("Low"), secure1=probe("Low", 8, 31)),
            kind("NVIDIA L4", displayName="L4", securePrice=0.49, secureSpotPrice=0.24),
            H100,
        ]
        httpserver.expect_request(PATH, method="POST").respond_with_handler(GraphQl(kinds))
        return runpod(httpserver, tmp_path)


def test_a_pod_costs_as_many_times_the_price_as_it_has_gpus(read: Read) -> None:
    prices = {(o.gpu_count, o.secure): o.usd_per_hour for o in read(H100)}
    assert prices == {
        **{(count, True): Decimal("3.99") * count for count in range(1, 9)},
        (1, False): Decimal("2.69"),
    }
    assert prices[8, True] == Decimal("31.92")


def test_the_two_clouds_are_offers_of_their_own(read: Read) -> None:
    offers = read(kind())
    assert [(o.secure, o.gpu_count, o.usd_per_hour, o.ref) for o in offers] == [
        (True, 1, Decimal("0.74"), "1 secure"),
        (True, 2, Decimal("1.48"), "2 secure"),
        (False, 1, Decimal("0.34"), "1 community"),
    ]
    assert {(o.instance_type, str(o.gpu), o.market) for o in offers} == {
        ("NVIDIA GeForce RTX 4090", "RTX4090-24", Market.ON_DEMAND)
    }
    assert {(o.region, o.country, o.currency) for o in offers} == {(None, None, "USD")}


@pytest.mark.parametrize(
    ("without", "left"),
    [
        ({"secureCloud": False}, {False}),
        ({"secureCloud": None}, {False}),
        ({"maxGpuCountSecureCloud": 0}, {False}),
        ({"securePrice": None}, {False}),
        ({"securePrice": 0}, {False}),
        ({"securePrice": "soon"}, {False}),
        ({"securePrice": -1}, {False}),
        ({"communityCloud": False}, {True}),
        ({"maxGpuCountCommunityCloud": 0}, {True}),
        ({"communityPrice": None}, {True}),
    ],
)
def test_a_cloud_that_has_not_the_type_is_left_out(
    read: Read, without: dict[str, Any], left: set[bool]
) -> None:
    assert {o.secure for o in read(kind(**without))} == left


def test_of_a_number_that_is_not_told_only_one_is_sure(read: Read) -> None:
    offers = read(kind(maxGpuCountSecureCloud=None, maxGpuCountCommunityCloud=None))
    assert [(o.gpu_count, o.secure) for o in offers] == [(1, True), (1, False)]


def test_a_pod_with_less_than_the_least_is_not_offered(read: Read) -> None:
    offers = read(kind(minPodGpuCount=4, maxGpuCountSecureCloud=6, communityCloud=False))
    assert [o.gpu_count for o in offers] == [4, 5, 6]


def test_spot_is_told_only_where_it_costs_less(read: Read) -> None:
    offers = read(kind(secureSpotPrice=0.41, communitySpotPrice=0.34))
    assert [(o.secure, o.gpu_count, o.usd_per_hour) for o in offers if o.market is Market.SPOT] == [
        (True, 1, Decimal("0.41")),
        (True, 2, Decimal("0.82")),
    ]


@pytest.mark.parametrize("spot", [None, 0, 0.74, 0.9, "none"])
def test_no_spot_price_is_made_up(read: Read, spot: object) -> None:
    assert {o.market for o in read(kind(secureSpotPrice=spot))} == {Market.ON_DEMAND}


def test_a_spot_price_without_one_on_demand_is_not_comparable(read: Read) -> None:
    assert read(kind(securePrice=None, secureSpotPrice=0.2, communityCloud=False)) == []


def test_what_is_left_of_spot_is_not_known(read: Read) -> None:
    offers = read(kind(secureSpotPrice=0.2, secure1=probe("High"), communityCloud=False))
    told = {(o.market, o.gpu_count): (o.availability, o.availability_detail) for o in offers}
    assert told[Market.ON_DEMAND, 1] == (Availability.AVAILABLE, "High")
    assert told[Market.SPOT, 1] == (Availability.UNKNOWN, None)


@pytest.mark.parametrize(
    ("status", "availability"),
    [
        ("High", Availability.AVAILABLE),
        ("Medium", Availability.AVAILABLE),
        ("Low", Availability.LIMITED),
        ("Out", Availability.UNAVAILABLE),
        ("None", Availability.UNAVAILABLE),
        (None, Availability.UNAVAILABLE),
        ("Plenty", Availability.UNKNOWN),
    ],
)
def test_how_much_is_left_of_the_secure_cloud(
    read: Read, status: str | None, availability: Availability
) -> None:
    offer = read(kind(any1=probe("High"), secure1=probe(status)))[0]
    assert (offer.secure, offer.availability, offer.availability_detail) == (True, availability, status)


@pytest.mark.parametrize(
    ("anywhere", "secure", "community"),
    [
        (None, None, (Availability.UNAVAILABLE, None)),
        ("Out", "High", (Availability.UNAVAILABLE, "Out")),
        ("Low", None, (Availability.LIMITED, "Low")),
        ("High", "Out", (Availability.AVAILABLE, "High")),
        ("High", "High", (Availability.UNKNOWN, None)),
        ("High", "Low", (Availability.UNKNOWN, None)),
    ],
)
def test_how_much_is_left_of_the_community_cloud_is_known_by_exclusion(
    read: Read, anywhere: str | None, secure: str | None, community: tuple[Availability, str | None]
) -> None:
    offer = read(kind(any1=probe(anywhere), secure1=probe(secure)))[-1]
    assert offer.secure is False
    assert (offer.availability, offer.availability_detail) == community


def test_stock_and_machine_are_those_for_that_number(read: Read) -> None:
    row = kind(
        maxGpuCountSecureCloud=4,
        communityCloud=False,
        secure1=probe("High", 9, 50),
        secure2=probe("Low", 18, 100),
        secure4=None,
    )
    told = [(o.gpu_count, o.availability, o.vcpus, o.memory_gib) for o in read(row)]
    assert told == [
        (1, Availability.AVAILABLE, 9, Decimal(50)),
        (2, Availability.LIMITED, 18, Decimal(100)),
        (3, Availability.UNKNOWN, None, None),
        (4, Availability.UNAVAILABLE, None, None),
    ]


def test_a_machine_of_the_secure_cloud_says_nothing_of_the_community(read: Read) -> None:
    offer = read(kind(secureCloud=False, secure1=probe("High", 9, 50), any1=probe("High", 4, 20)))[0]
    assert (offer.vcpus, offer.memory_gib) == (None, None)


def test_memory_is_that_of_one_gpu(read: Read) -> None:
    row = kind("NVIDIA H200 NVL", displayName="H200 NVL", memoryInGb=143, maxGpuCountSecureCloud=8)
    assert {str(o.gpu) for o in read(row)} == {"H200-NVL-141"}


def test_a_gpu_that_nobody_knows_is_seen(read: Read) -> None:
    seen = read(
        kind("NVIDIA Z900", displayName="Z900", memoryInGb=512),
        kind("Tenstorrent Blackhole", displayName="Blackhole p150", memoryInGb=32),
        kind("NVIDIA H100 PCIe", displayName=None, memoryInGb=None),
    )
    assert [str(o.gpu) for o in seen[::3]] == ["H100-PCIe-80", "NVIDIAZ900-512", "Blackholep150-32"]


def test_the_placeholder_is_no_type(read: Read) -> None:
    assert {o.instance_type for o in read(kind("unknown"), kind())} == {"NVIDIA GeForce RTX 4090"}


def test_one_malformed_type_does_not_cost_the_others(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "gpucloud.replies"):
        offers = read(kind(id=None), kind("B", any1="lots"), kind("C", maxGpuCountSecureCloud=10**9), kind())
    assert {o.instance_type for o in offers} == {"NVIDIA GeForce RTX 4090"}
    assert caplog.text.count("a row is left out") == 3


def test_one_question_is_asked_and_it_is_a_short_one(httpserver: HTTPServer, tmp_path: Path) -> None:
    server = GraphQl([kind()])
    httpserver.expect_request(PATH, method="POST").respond_with_handler(server)
    edition(runpod(httpserver, tmp_path))
    assert len(server.asked) == 1
    query = server.asked[0]
    assert query.count("{") == query.count("}")
    assert "secure8: lowestPrice(input: {gpuCount: 8, secureCloud: true}) {stockStatus" in query
    assert "any8: lowestPrice(input: {gpuCount: 8}) {stockStatus" in query
    assert query.count("lowestPrice") == 8


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"errors": [{"message": 'Cannot query field "minPodGpuCount" on type "GpuType".'}]}),
        (200, {"errors": [{"message": "Query is too complex"}], "data": None}),
    ],
)
def test_a_question_that_is_too_much_is_asked_without_stock(
    httpserver: HTTPServer, tmp_path: Path, status: int, body: dict[str, Any]
) -> None:
    server = GraphQl([kind()])
    httpserver.expect_ordered_request(PATH).respond_with_json(body, status=status)
    httpserver.expect_ordered_request(PATH).respond_with_handler(server)
    published = edition(runpod(httpserver, tmp_path))
    assert [(o.usd_per_hour, o.availability) for o in in_order(published.offers)] == [
        (Decimal("0.74"), Availability.UNKNOWN),
        (Decimal("1.48"), Availability.UNKNOWN),
        (Decimal("0.34"), Availability.UNKNOWN),
    ]
    assert "lowestPrice" not in server.asked[0]
    assert "minPodGpuCount" not in server.asked[0]


def test_what_is_told_beside_errors_is_taken(httpserver: HTTPServer, tmp_path: Path) -> None:
    body = {"data": {"gpuTypes": [kind()]}, "errors": [{"message": "any8 timed out"}]}
    httpserver.expect_request(PATH).respond_with_json(body)
    published = edition(runpod(httpserver, tmp_path))
    assert len(published.offers) == 3


def test_an_empty_list_is_an_empty_catalogue(read: Read) -> None:
    assert read() == []


def test_asked_too_often_it_is_asked_again(httpserver: HTTPServer, tmp_path: Path) -> None:
    headers = {"Retry-After": "0"}
    httpserver.expect_ordered_request(PATH).respond_with_json({}, status=429, headers=headers)
    httpserver.expect_ordered_request(PATH).respond_with_handler(GraphQl([kind()]))
    published = edition(runpod(httpserver, tmp_path))
    assert len(published.offers) == 3


def test_being_throttled_for_long_is_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_json({}, status=429, headers={"Retry-After": "3600"})
    with pytest.raises(RateLimited):
        edition(runpod(httpserver, tmp_path))
    assert len(httpserver.log) == 1


def test_a_failure_that_lasts_is_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_data("no", status=500)
    with pytest.raises(Unreachable):
        edition(runpod(httpserver, tmp_path))
    assert len(httpserver.log) > 1


def test_that_the_interface_has_ended_is_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_json({"detail": "GraphQL has been retired"}, status=410)
    with pytest.raises(Rejected) as raised:
        edition(runpod(httpserver, tmp_path))
    assert raised.value.vendor_text == "GraphQL has been retired"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"errors": [{"message": "not today"}, {}]}, "not today"),
        ({}, "there is no data"),
        ({"data": {"gpuTypes": None}}, "gpuTypes"),
        ({"data": {}}, "gpuTypes"),
        ([], ""),
        (None, ""),
        ({"data": {"gpuTypes": [{"id": 4}, "what?"]}}, "valid"),
    ],
)
def test_a_reply_of_another_shape_is_told(
    httpserver: HTTPServer, tmp_path: Path, body: object, why: str
) -> None:
    httpserver.expect_request(PATH).respond_with_json(body)
    with pytest.raises(BadReply) as raised:
        edition(runpod(httpserver, tmp_path))
    assert raised.value.provider == "runpod"
    assert raised.value.why
    assert why in raised.value.why
