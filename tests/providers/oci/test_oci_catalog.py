"""Oracle's shapes and price list, from a server that has both as theirs do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.errors import BadReply, RateLimited, Unreachable
from gpucloud.model import Gpu, Market, Offer, utcnow
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_oci import Oci
from tests.harness.catalogs import Clock, an_adapter, edition, read, reply

SHAPES = "/estimator/shapes.json"
PRICES = "/api/v1/products/"


def shape(
    name: str, part: str, gpus: int | None, gpu_memory: Any, ocpus: Any, **other: Any
) -> dict[str, Any]:
    """A shape in their words."""
    told = {
        "id": 101,
        "name": name,
        "status": "ACTIVE",
        "hidden": False,
        "allowPreemptible": False,
        "bundleMemoryQty": 2048,
        "gpuQty": gpus,
        "gpuMemoryQty": gpu_memory,
        "processorType": {"value": "intel"},
        "shapeType": {"value": "vm" if name.startswith("VM") else "bm"},
        "subType": {"value": "gpu"},
        "products": [{"partNumber": part, "qty": ocpus, "type": {"value": "ocpu"}}],
    }
    return {**told, **other}


def product(part: str, usd: Any, metric: str = "GPU Per Hour", **other: Any) -> dict[str, Any]:
    """A line of the price list in their words."""
    told = {
        "partNumber": part,
        "displayName": f"Oracle Cloud Infrastructure - Compute - GPU - {part}",
        "metricName": metric,
        "serviceCategory": "Compute - GPU",
        "currencyCodeLocalizations": [
            {"currencyCode": "USD", "prices": [{"model": "PAY_AS_YOU_GO", "value": usd}]}
        ],
    }
    return {**told, **other}


H100 = shape("BM.GPU.H100.8", "B98415", 8, 640, 112)
V100 = shape("VM.GPU3.1", "B89734", 1, 16, 6, bundleMemoryQty=90, allowPreemptible=True)
CPU = {
    **shape("BM.DenseIO.E5.128", "B98202", None, None, 128, subType={"value": "dense"}),
    "products": [
        {"partNumber": "B98202", "qty": 128, "type": {"value": "ocpu"}},
        {"partNumber": "B98203", "qty": 1536, "type": {"value": "memory"}},
        {"partNumber": "B98204", "qty": 81.6, "type": {"value": "disk"}},
    ],
}

LIST = [
    product("B98415", 10),
    product("B89734", 2.95),
    product("B92740", 3.05),
    product("B95907", 4),
    product("B95909", 2),
    product("B109485", 6),
    product("B111758", 8.6),
    product("B110979", 16),
    product("B112140", 18),
    product("B112237", 15),
    product("B112613", 4.5),
    product("B110519", 10),
    product("B109479", 3.5),
    product("B88517", 1.275),
    product("B98202", 0.03, "OCPU Per Hour"),
    product("L10001", 2.5, displayName="NVIDIA AI Enterprise - H100"),
]


def oci(httpserver: HTTPServer, tmp_path: Path, clock: Clock | None = None) -> Oci:
    at = httpserver.url_for
    return an_adapter(
        Oci, httpserver, tmp_path, clock, catalog_url=at("/estimator"), prices_url=at("/api/v1")
    )


def serve(httpserver: HTTPServer, shapes: Any, prices: Any = None) -> None:
    httpserver.expect_request(SHAPES).respond_with_json(shapes)
    httpserver.expect_request(PRICES, query_string={"currencyCode": "USD"}).respond_with_json(
        listing(LIST) if prices is None else prices
    )


def listing(rows: Sequence[Any]) -> dict[str, Any]:
    return {"items": rows, "lastUpdated": "2026-11-18T09:00:00Z"}


Told = Callable[..., list[Offer]]


@pytest.fixture
def told(httpserver: HTTPServer, tmp_path: Path) -> Told:
    """What is made of some shapes, at the usual prices or others."""

    def offers(*shapes: Any, prices: Sequence[Any] = LIST) -> list[Offer]:
        serve(httpserver, listing(shapes), listing(prices))
        return read(oci(httpserver, tmp_path))

    return offers


class TestOciCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, httpserver: HTTPServer, tmp_path: Path) -> Oci:
        odd = shape("BM.GPU.GU1.2", "B109479", 2, None, 64)
        h200 = shape("BM.GPU.H200.8", "B110519", 8, 1128, 112)
        serve(httpserver, listing([CPU, H100, h200, V100, odd]))
        return oci(httpserver, tmp_path)


def test_a_price_by_the_gpu_is_multiplied_by_the_gpus(told: Told) -> None:
    (offer,) = told(H100)
    assert (offer.instance_type, offer.market, offer.region) == ("BM.GPU.H100.8", Market.ON_DEMAND, None)
    assert offer.usd_per_hour == offer.amount == Decimal(80)
    assert offer.usd_per_gpu_hour == Decimal(10)
    assert (str(offer.gpu), offer.gpu_count) == ("H100-SXM-80", 8)
    assert (offer.vcpus, offer.memory_gib) == (224, Decimal(2048))
    assert (offer.source, offer.currency) == ("apexapps.oracle.com", "USD")
    assert utcnow() - offer.as_of < timedelta(minutes=1)


def test_a_price_by_the_ocpu_is_multiplied_by_the_ocpus(told: Told) -> None:
    (offer,) = told(H100, prices=[product("B98415", 0.25, "OCPU Per Hour")])
    assert offer.usd_per_hour == Decimal(28)


def test_prices_keep_their_digits(told: Told) -> None:
    (offer,) = told(shape("BM.GPU2.2", "B88517", 2, 32, 28))
    assert offer.usd_per_hour == Decimal("2.55")
    assert str(offer.usd_per_gpu_hour) == "1.275"


@pytest.mark.parametrize(
    ("row", "name", "gpu", "usd", "vcpus"),
    [
        (shape("VM.GPU2.1", "B88517", 1, 16, 12), "VM.GPU2.1", "P100-16", "1.275", 24),
        (shape("BM.GPU3.8", "B89734", 8, 128, 52), "BM.GPU3.8", "V100-16", "23.6", 104),
        (shape("BM.GPU4.8", "B92740", 8, 320, 64), "BM.GPU4.8", "A100-40", "24.4", 128),
        (shape("BM.GPU.A100-v2.8", "B95907", 8, 640, 128), "BM.GPU.A100-v2.8", "A100-80", "32", 256),
        (shape("BM.GPU.GM4.8", "B95907", 8, 640, 128), "BM.GPU.GM4.8", "A100-80", "32", 256),
        (shape("VM.GPU.A10.2", "B95909", 2, 48, 30), "VM.GPU.A10.2", "A10-24", "4", 60),
        (shape("BM.GPU.L40S.4", "B109479", 4, 192, 112), "BM.GPU.L40S.4", "L40S-48", "14", 224),
        (shape("BM.GPU.H200.8", "B110519", 8, 1128, 112), "BM.GPU.H200.8", "H200-141", "80", 224),
        (shape("BM.GPU.MI300X.8", "B109485", 8, 1536, 112), "BM.GPU.MI300X.8", "MI300X-OAM-192", "48", 224),
        (shape("BM.GPU.MI355X.8", "B111758", 8, 288, 128), "BM.GPU.MI355X.8", "MI355X-288", "68.8", 256),
        (shape("BM.GPU.B300.8", "B112237", 8, 2100, None), "BM.GPU.B300.8", "B300-SXM-288", "120", None),
        (shape("BM.GPU.RTXPRO.8", "B112613", 8, 768, None), "BM.GPU.RTXPRO.8", "RTXPRO6000-96", "36", None),
        (shape("BM.GPU.GB200.4 (NVL72)", "B110979", 4, 756, 128), "BM.GPU.GB200.4", "GB200-186", "64", None),
        (shape("BM.GPU.GB300.4 (NVL72)", "B112140", 4, 278, None), "BM.GPU.GB300.4", "GB300-279", "72", None),
    ],
)
def test_a_shape_has_the_gpus_of_its_name(
    told: Told, row: dict[str, Any], name: str, gpu: str, usd: str, vcpus: int | None
) -> None:
    (offer,) = told(row)
    assert (offer.instance_type, str(offer.gpu)) == (name, gpu)
    assert (offer.gpu_count, offer.usd_per_hour) == (row["gpuQty"], Decimal(usd))
    assert offer.vcpus == vcpus


def test_preemptible_machines_cost_half(told: Told) -> None:
    offers = {offer.market: offer for offer in told(V100)}
    assert set(offers) == {Market.ON_DEMAND, Market.SPOT}
    assert offers[Market.ON_DEMAND].usd_per_hour == Decimal("2.95")
    assert offers[Market.SPOT].usd_per_hour == offers[Market.SPOT].amount == Decimal("1.475")


def test_bare_machines_are_never_preemptible(told: Told) -> None:
    assert [offer.market for offer in told({**H100, "allowPreemptible": True})] == [Market.ON_DEMAND]


@pytest.mark.parametrize(
    "row", [CPU, {**CPU, "gpuQty": 0}, {**H100, "hidden": True}, {**H100, "status": "EOL"}]
)
def test_shapes_without_gpus_and_those_not_sold_are_left_out(told: Told, row: dict[str, Any]) -> None:
    assert told(row) == []


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"gpuQty": 4}, "said to have 4"),
        ({"gpuMemoryQty": 320}, "320 GB"),
        ({"gpuMemoryQty": 96}, "96 GB"),
        ({"name": "Roving Edge GPU"}, "its name"),
        ({"name": "BM.Standard4.8"}, "its name"),
        ({"products": []}, "billed by other things"),
        ({"products": [*H100["products"], *CPU["products"][1:]]}, "billed by other things"),
        ({"products": CPU["products"][1:2]}, "billed by other things"),
    ],
)
def test_a_shape_that_contradicts_itself_is_left_out(
    told: Told, caplog: pytest.LogCaptureFixture, fault: dict[str, Any], why: str
) -> None:
    caplog.set_level(logging.DEBUG, "gpucloud.replies")
    assert {offer.instance_type for offer in told({**H100, **fault}, V100)} == {"VM.GPU3.1"}
    assert why in caplog.text


@pytest.mark.parametrize("memory", [640, 80, 80.0, 658, None, 0])
def test_the_memory_may_be_of_all_gpus_or_of_one_or_untold(told: Told, memory: float | None) -> None:
    (offer,) = told({**H100, "gpuMemoryQty": memory})
    assert offer.gpu == Gpu("H100", 80, "SXM")


@pytest.mark.parametrize(
    ("name", "chip"),
    [
        ("BM.GPU.MI455X.8", "MI455X"),
        ("BM.GPU.GU1.8", "GU1"),
        ("BM.GPU.Z9.8", "Z9"),
        ("BM.GPU.H100T.8", "H100T"),
    ],
)
def test_a_gpu_nobody_knows_is_seen_under_the_vendors_name(told: Told, name: str, chip: str) -> None:
    (offer,) = told({**H100, "name": name, "gpuMemoryQty": 752})
    assert offer.gpu == Gpu(chip)


@pytest.mark.parametrize("named", ["BM.GPU.VR200.4", "BM.GPU.GB400.4", "BM.GPU.GH200.4"])
def test_ocpus_of_nvidias_processors_are_not_counted(told: Told, named: str) -> None:
    (offer,) = told(shape(named, "B110979", 4, None, 144))
    assert offer.vcpus is None


PAID_AHEAD = {"model": "MONTHLY_COMMIT", "value": 1}
AS_YOU_GO = {"model": "PAY_AS_YOU_GO", "value": 10}


def usd(*prices: dict[str, Any]) -> dict[str, Any]:
    return {"currencyCodeLocalizations": [{"currencyCode": "USD", "prices": list(prices)}]}


@pytest.mark.parametrize(
    "line",
    [
        product("B98415", 0),
        product("B98415", None),
        product("B98415", -1),
        product("B98415", "on request"),
        product("B98415", 1e40),
        product("B98415", 10, "NVIDIA GPU Licence Per Month"),
        product("B98416", 10),
        product("B98415", 10, **usd(PAID_AHEAD)),
        product("B98415", 10, **usd(AS_YOU_GO, {**AS_YOU_GO, "value": 9})),
        product("B98415", 10, **usd()),
        product("B98415", 10, currencyCodeLocalizations=[]),
        product("B98415", 10, currencyCodeLocalizations=[{"currencyCode": "INR", "prices": [AS_YOU_GO]}]),
    ],
)
def test_a_shape_without_one_price_is_left_out(told: Told, line: dict[str, Any]) -> None:
    offers = told(H100, V100, prices=[line, product("B89734", 2.95)])
    assert {offer.instance_type for offer in offers} == {"VM.GPU3.1"}


@pytest.mark.parametrize("ocpus", [None, 0])
def test_an_ocpu_price_without_a_number_of_ocpus_is_no_price(told: Told, ocpus: int | None) -> None:
    without = shape("BM.GPU.B300.8", "B112237", 8, 2100, ocpus)
    prices = [product("B112237", 1.5, "OCPU Per Hour"), product("B89734", 2.95)]
    assert {offer.instance_type for offer in told(without, V100, prices=prices)} == {"VM.GPU3.1"}


def test_prices_that_are_told_twice_or_paid_ahead_do_not_matter(told: Told) -> None:
    other = {"currencyCode": "EUR", "prices": [{**AS_YOU_GO, "value": 9}]}
    line = product("B98415", 10, **usd(AS_YOU_GO, AS_YOU_GO, PAID_AHEAD))
    line["currencyCodeLocalizations"].append(other)
    (offer,) = told(H100, prices=[line])
    assert offer.usd_per_hour == Decimal(80)


@pytest.mark.parametrize("order", [1, -1])
def test_a_shape_that_is_told_twice_has_its_higher_price(told: Told, order: int) -> None:
    plain = shape("BM.GPU.GB200.4", "B109479", 4, 756, 128)
    decorated = shape("BM.GPU.GB200.4 (NVL72)", "B110979", 4, 756, 128)
    (offer,) = told(*[plain, decorated][::order])
    assert offer.usd_per_hour == Decimal(64)


def test_the_price_list_is_read_to_its_last_page_from_our_address(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    asked: list[dict[str, str]] = []

    def page(request: Request) -> Response:
        asked.append(request.args.to_dict())
        at = int(request.args.get("offset", 0))
        link = f"https://apexapps.oracle.com/pls/apex/cetools/api/v1/products/?offset={at + 1}"
        links = [{"rel": "self", "href": "https://apexapps.oracle.com/"}, {"rel": "next", "href": link}]
        return reply({**listing(LIST[at : at + 1]), "links": links if at < 1 else links[:1]})

    httpserver.expect_request(SHAPES).respond_with_json(listing([H100, V100]))
    httpserver.expect_request(PRICES).respond_with_handler(page)
    told: list[int] = []
    published = edition(oci(httpserver, tmp_path), tell=lambda read, _: told.append(read))
    assert {offer.instance_type for offer in published.offers} == {"BM.GPU.H100.8", "VM.GPU3.1"}
    assert asked == [{"currencyCode": "USD"}, {"currencyCode": "USD", "offset": "1"}]
    assert published.validator is None
    assert told == sorted(told)
    assert len(set(told)) == 3


def test_pages_without_end_are_a_bad_reply(httpserver: HTTPServer, tmp_path: Path) -> None:
    links = [{"rel": "next", "href": "https://apexapps.oracle.com/pls/apex/cetools/api/v1/products/"}]
    serve(httpserver, listing([H100]), {**listing(LIST), "links": links})
    with pytest.raises(BadReply) as failure:
        read(oci(httpserver, tmp_path))
    assert "pages" in failure.value.why


def test_an_address_of_a_next_page_that_is_none_is_a_bad_reply(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    serve(httpserver, listing([H100]), {**listing(LIST), "links": [{"rel": "next", "href": "https://["}]})
    with pytest.raises(BadReply):
        read(oci(httpserver, tmp_path))


@pytest.mark.parametrize("links", [None, [], ["next"], [{"rel": "next"}], [{"rel": "next", "href": 7}]])
def test_links_that_lead_nowhere_are_passed_over(httpserver: HTTPServer, tmp_path: Path, links: Any) -> None:
    serve(httpserver, listing([H100]), {**listing(LIST), "links": links})
    assert len(read(oci(httpserver, tmp_path))) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"name": None},
        {"gpuQty": "eight"},
        {"gpuQty": 0.5},
        {"products": None},
        {"products": [{"qty": 8}]},
        {"gpuMemoryQty": "80 each"},
    ],
)
def test_a_malformed_shape_does_not_cost_the_others(
    told: Told, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG, "gpucloud.replies")
    assert {offer.instance_type for offer in told({**H100, **fault}, 7, V100)} == {"VM.GPU3.1"}
    assert "a row is left out" in caplog.text


def test_unknown_fields_and_words_are_passed_over(told: Told) -> None:
    odd = {**H100, "subType": {"value": "quantum"}, "processorType": None, "somethingNew": [1]}
    bare = {key: value for key, value in V100.items() if key not in ("hidden", "subType", "shapeType")}
    assert {offer.instance_type for offer in told(odd, bare)} == {"BM.GPU.H100.8", "VM.GPU3.1"}


@pytest.mark.parametrize(
    "body", [None, [], "shapes", {}, {"items": None}, {"items": {}}, {"items": [7, "a"]}]
)
@pytest.mark.parametrize("of", ["shapes", "prices"])
def test_what_is_no_list_is_a_bad_reply(httpserver: HTTPServer, tmp_path: Path, body: Any, of: str) -> None:
    shapes, prices = (body, listing(LIST)) if of == "shapes" else (listing([H100]), body)
    httpserver.expect_request(SHAPES).respond_with_json(shapes)
    httpserver.expect_request(PRICES).respond_with_json(prices)
    with pytest.raises(BadReply):
        read(oci(httpserver, tmp_path))


def test_a_page_that_is_not_json_is_a_bad_reply(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(SHAPES).respond_with_data("<html>", content_type="text/html")
    with pytest.raises(BadReply):
        read(oci(httpserver, tmp_path))


def test_gpu_shapes_of_which_none_has_a_price_are_a_bad_reply(told: Told) -> None:
    with pytest.raises(BadReply) as failure:
        told(H100, prices=[])
    assert "B98415" in failure.value.why


def test_gpu_shapes_of_which_none_can_be_read_do_not_empty_the_catalogue(told: Told) -> None:
    with pytest.raises(BadReply):
        told({**H100, "gpuQty": "eight"}, CPU)


def test_no_shapes_are_no_offers(told: Told) -> None:
    assert told() == []


def test_a_refusal_is_waited_out(httpserver: HTTPServer, tmp_path: Path) -> None:
    clock = Clock()
    httpserver.expect_ordered_request(SHAPES).respond_with_data("slower" * 900, 429, {"Retry-After": "7"})
    httpserver.expect_ordered_request(SHAPES).respond_with_json(listing([H100]))
    httpserver.expect_ordered_request(PRICES).respond_with_json(listing(LIST))
    told: list[int] = []
    published = edition(oci(httpserver, tmp_path, clock), tell=lambda read, _: told.append(read))
    assert len(published.offers) == 1
    assert clock.now >= 7
    assert told == sorted(told)


@pytest.mark.parametrize("failing", [SHAPES, PRICES])
@pytest.mark.parametrize(("status", "kind"), [(500, Unreachable), (429, RateLimited)])
def test_a_server_that_keeps_failing_is_given_up(
    httpserver: HTTPServer, tmp_path: Path, failing: str, status: int, kind: type[Exception]
) -> None:
    httpserver.expect_request(failing).respond_with_data(status=status)
    httpserver.expect_request(SHAPES).respond_with_json(listing([H100]))
    with pytest.raises(kind):
        read(oci(httpserver, tmp_path))


def test_a_region_does_not_matter(httpserver: HTTPServer, tmp_path: Path) -> None:
    assert oci(httpserver, tmp_path).catalog_parts(["eu-frankfurt-1"]) == ("",)
