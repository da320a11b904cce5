"""Vultr's plans, from a server with their lists, pages and cursors."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.errors import BadReply, Unreachable
from gpucloud.model import Availability, Market, Offer
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_vultr import Vultr
from tests.harness.catalogs import an_adapter, edition, reply

vultr = partial(an_adapter, Vultr)

Read = Callable[..., Sequence[Offer]]

REGIONS = [
    {"id": "ewr", "city": "New Jersey", "country": "US", "continent": "North America", "options": []},
    {"id": "fra", "city": "Frankfurt", "country": "DE", "continent": "Europe", "options": []},
    {"id": "xyz", "city": "Nowhere", "country": "", "continent": "", "options": []},
    {"city": "without an id"},
]

A100 = {
    "id": "vcg-a100-12c-120g-80vram",
    "vcpu_count": 12,
    "ram": 122880,
    "disk": 1400,
    "disk_count": 1,
    "bandwidth": 15360,
    "monthly_cost": 1750,
    "hourly_cost": 2.397,
    "monthly_cost_preemptible": 875,
    "hourly_cost_preemptible": 1.199,
    "invoice_type": "hourly",
    "type": "vcg",
    "locations": ["ewr", "fra"],
    "gpu_brand": "NVIDIA",
    "gpu_type": "NVIDIA_A100_PCIE",
    "gpu_vram_gb": 80,
    "gpu_count": "1",
    "deploy_ondemand": True,
    "deploy_preemptible": False,
    "location_cost": [],
}
PROCESSORS = {
    "id": "vc2-2c-4gb",
    "vcpu_count": 2,
    "ram": 4096,
    "disk": 80,
    "disk_count": 1,
    "monthly_cost": 20,
    "hourly_cost": 0.027,
    "type": "vc2",
    "gpu_brand": "none",
    "locations": ["ewr"],
    "deploy_ondemand": True,
}
MI300X = {
    "id": "vbm-256c-2048gb-8-mi300x-gpu",
    "cpu_count": 128,
    "cpu_threads": 256,
    "cpu_model": "EPYC 9534",
    "ram": 2359296,
    "disk": "3576",
    "disk_count": 8,
    "monthly_cost": 10_729.15,
    "hourly_cost": 15.966,
    "hourly_cost_preemptible": 14.8,
    "type": "NVMe",
    "locations": ["ord"],
    "deploy_ondemand": True,
    "deploy_preemptible": True,
}


def plan(**other: Any) -> dict[str, Any]:
    """A plan with one A100, otherwise."""
    return {**A100, "locations": ["ewr"], **other}


def bare(name: str, **other: Any) -> dict[str, Any]:
    """A plan that says of its GPUs nothing but what is in its name."""
    told = {"id": name, "vcpu_count": 96, "ram": 1024, "disk": 1, "hourly_cost": 8.0, "type": "vdm"}
    return {**told, "gpu_brand": "NVIDIA", "locations": ["ewr"], "deploy_ondemand": True, **other}


class Pages:
    """One of their lists: ``per_page`` rows at a time, and a cursor to the next."""

    def __init__(self, key: str, rows: list[Any], most: int = 500) -> None:
        self.key = key
        self.rows = rows
        self.most = most
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: Request) -> Response:
        self.asked.append(request.args.to_dict())
        start = int(base64.b64decode(request.args.get("cursor", "MA==")))
        end = start + min(int(request.args["per_page"]), self.most)
        following = base64.b64encode(str(end).encode()).decode() if end < len(self.rows) else ""
        meta = {"total": len(self.rows), "links": {"next": following, "prev": ""}}
        return reply({self.key: self.rows[start:end], "meta": meta})


def serve(httpserver: HTTPServer, plans: list[Any], metal: list[Any], most: int = 500) -> dict[str, Pages]:
    lists = {
        "/v2/regions": Pages("regions", REGIONS, most),
        "/v2/plans": Pages("plans", plans, most),
        "/v2/plans-metal": Pages("plans_metal", metal, most),
    }
    for path, pages in lists.items():
        httpserver.expect_request(path, method="GET").respond_with_handler(pages)
    return lists


@pytest.fixture
def read(httpserver: HTTPServer, tmp_path: Path) -> Read:
    """What is told when these are the plans."""

    def read(*plans: Any, metal: Sequence[Any] = ()) -> Sequence[Offer]:
        httpserver.clear_all_handlers()
        serve(httpserver, list(plans), list(metal))
        published = edition(vultr(httpserver, tmp_path))
        assert published.validator is None
        return published.offers

    return read


class TestVultrCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, httpserver: HTTPServer, tmp_path: Path) -> Vultr:
        plans = [A100, PROCESSORS, bare("vcg-h100-216c-1914gb-640vram", locations=[]), plan(id="other")]
        serve(httpserver, plans, [MI300X], most=2)
        return vultr(httpserver, tmp_path)


def test_everything_it_says_of_a_plan(read: Read) -> None:
    ewr, fra = read(A100)
    assert (ewr.instance_type, ewr.ref, ewr.market) == (A100["id"], A100["id"], Market.ON_DEMAND)
    assert (str(ewr.gpu), ewr.gpu_count) == ("A100-PCIe-80", 1)
    assert (ewr.usd_per_hour, ewr.amount, ewr.currency) == (Decimal("2.397"), Decimal("2.397"), "USD")
    assert (ewr.vcpus, ewr.memory_gib, ewr.disk_gib) == (12, Decimal(120), Decimal(1400))
    assert (ewr.region, ewr.country) == ("ewr", "US")
    assert (fra.region, fra.country) == ("fra", "DE")
    assert ewr.availability is Availability.UNKNOWN


def test_bare_metal_has_threads_many_disks_and_both_markets(read: Read) -> None:
    offers = read(metal=[MI300X])
    assert sorted((o.market, o.usd_per_hour) for o in offers) == [
        (Market.ON_DEMAND, Decimal("15.966")),
        (Market.SPOT, Decimal("14.8")),
    ]
    offer = offers[0]
    assert (str(offer.gpu), offer.gpu_count, offer.vcpus) == ("MI300X-OAM-192", 8, 256)
    assert (offer.memory_gib, offer.disk_gib) == (Decimal(2304), Decimal(28608))
    assert (offer.region, offer.country) == ("ord", None)


@pytest.mark.parametrize(
    ("told", "markets"),
    [
        ({}, [Market.ON_DEMAND]),
        ({"deploy_preemptible": True}, [Market.ON_DEMAND, Market.SPOT]),
        ({"deploy_ondemand": False, "deploy_preemptible": True}, [Market.SPOT]),
        ({"deploy_ondemand": None, "deploy_preemptible": None}, [Market.ON_DEMAND]),
        ({"deploy_preemptible": True, "hourly_cost_preemptible": 0}, [Market.ON_DEMAND]),
        ({"deploy_preemptible": True, "hourly_cost": 0}, [Market.SPOT]),
    ],
)
def test_how_a_plan_is_sold(read: Read, told: dict[str, Any], markets: list[Market]) -> None:
    assert sorted(o.market for o in read(plan(**told))) == markets


def test_a_location_can_have_prices_of_its_own(read: Read) -> None:
    row = plan(
        locations=["ewr", "fra"],
        deploy_preemptible=True,
        location_cost={"fra": {"hourly_cost": 2.6, "monthly_cost": 1898, "hourly_cost_preemptible": 1.3}},
    )
    prices = {(o.region, o.market): o.usd_per_hour for o in read(row)}
    assert prices == {
        ("ewr", Market.ON_DEMAND): Decimal("2.397"),
        ("ewr", Market.SPOT): Decimal("1.199"),
        ("fra", Market.ON_DEMAND): Decimal("2.6"),
        ("fra", Market.SPOT): Decimal("1.3"),
    }


def test_a_month_has_730_hours_and_672_for_bare_metal(read: Read) -> None:
    monthly = {"hourly_cost": None, "monthly_cost": 730, "deploy_preemptible": False}
    uneven = plan(id="uneven", **{**monthly, "monthly_cost": 1000})
    offers = read(plan(**monthly), uneven, metal=[{**MI300X, **monthly, "monthly_cost": 6720}])
    assert [o.usd_per_hour for o in offers] == [Decimal(1), Decimal("1.369863"), Decimal(10)]


def test_a_price_by_the_hour_counts_more_than_one_by_the_month(read: Read) -> None:
    offers = read(plan(hourly_cost=3, monthly_cost=1), plan(id="free", hourly_cost=0, monthly_cost=730))
    assert [(o.instance_type, o.usd_per_hour) for o in offers] == [(A100["id"], Decimal(3))]


@pytest.mark.parametrize(
    ("told", "gpu", "count"),
    [
        ({"gpu_count": "8", "gpu_vram_gb": 640}, "A100-PCIe-80", 8),
        ({"gpu_count": 2, "gpu_vram_gb": 160}, "A100-PCIe-80", 2),
        ({"gpu_count": "2/1", "gpu_vram_gb": 160}, "A100-PCIe-80", 2),
        ({"gpu_type": "NVIDIA_A16", "gpu_count": "2", "gpu_vram_gb": 32}, "A16-16", 2),
        ({"gpu_type": "NVIDIA_L40S", "gpu_count": None, "gpu_vram_gb": 384}, "L40S-48", 8),
        ({"gpu_type": "NVIDIA_B200", "gpu_count": "", "gpu_vram_gb": 1536}, "B200-SXM-180", 8),
        ({"gpu_type": "NVIDIA_A100", "gpu_count": None, "gpu_vram_gb": 320}, "A100-80", 4),
    ],
)
def test_memory_is_that_of_all_gpus(read: Read, told: dict[str, Any], gpu: str, count: int) -> None:
    offer = read(plan(**told))[0]
    assert (str(offer.gpu), offer.gpu_count) == (gpu, count)


@pytest.mark.parametrize(
    ("name", "gpu", "count"),
    [
        ("vcg-h100-216c-1914gb-640vram", "H100-80", 8),
        ("vcg-a100-96c-896g-320vram", "A100-80", 4),
        ("vcg-a40-24c-120g-48vram", "A40-48", 1),
        ("vcg-a16-96c-960g-256vram", "A16-16", 16),
        ("vcg-b200-248c-2826g-1536vram", "B200-SXM-180", 8),
        ("vcg-mi355x-252c-2872g-2304vram", "MI355X-288", 8),
        ("vbm-48c-1024gb-4-a100-gpu", "A100-80", 4),
        ("vbm-72c-480gb-gh200-gpu", "GH200", 1),
    ],
)
def test_what_only_the_name_says(read: Read, name: str, gpu: str, count: int) -> None:
    offer = read(bare(name))[0]
    assert (str(offer.gpu), offer.gpu_count) == (gpu, count)


@pytest.mark.parametrize(
    "told",
    [
        {"gpu_count": "1/8", "gpu_vram_gb": 10, "id": "vcg-a100-2c-15g-10vram"},
        {"gpu_count": "0"},
        {"gpu_count": "1/0"},
        {"gpu_count": "3/2"},
        {"gpu_count": None, "gpu_vram_gb": 10},
        {"gpu_count": None, "gpu_vram_gb": 2, "gpu_type": "NVIDIA_A16"},
    ],
)
def test_a_part_of_a_gpu_is_left_out(read: Read, told: dict[str, Any]) -> None:
    assert read(plan(**told)) == []


def test_plans_without_a_gpu_are_left_out(read: Read) -> None:
    metal = {"id": "vbm-4c-32gb", "cpu_threads": 8, "ram": 32768, "hourly_cost": 0.2, "locations": ["ewr"]}
    assert read(PROCESSORS, {**PROCESSORS, "gpu_brand": None}, metal=[metal]) == []


@pytest.mark.parametrize(
    "odd",
    [
        bare("vcg-mi325x-252c-2872g-1536vram", gpu_brand="AMD"),
        bare("vdm-of-a-new-kind"),
        plan(id="odd", gpu_count="several"),
        plan(id="odd", gpu_count=[8]),
        plan(id="odd", gpu_type="NVIDIA_Z900", gpu_count=None),
        plan(id="odd", hourly_cost=None, monthly_cost=None),
        plan(id="odd", hourly_cost="call us", monthly_cost="call us"),
        plan(id=None),
        plan(id="odd", locations="everywhere"),
        "what?",
    ],
)
def test_what_cannot_be_understood_does_not_cost_the_others(
    read: Read, odd: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "gpucloud.replies"):
        offers = read(odd, plan())
    assert [o.instance_type for o in offers] == [A100["id"]]
    assert caplog.text.count("a row is left out") == 1


def test_a_gpu_that_nobody_knows_is_seen(read: Read) -> None:
    new = {"gpu_type": "NVIDIA_Z900", "gpu_count": 4, "gpu_vram_gb": 1024}
    unnamed = {"id": "vcg-new", "gpu_type": None, "gpu_count": 1, "gpu_vram_gb": 64}
    assert [str(o.gpu) for o in read(plan(**new), plan(**unnamed))] == ["NVIDIAZ900-256", "vcg-new-64GB"]


def test_a_plan_in_no_location_cannot_be_had(read: Read) -> None:
    offer = read(plan(locations=[]))[0]
    assert (offer.region, offer.country) == (None, None)
    assert (offer.availability, offer.availability_detail) == (Availability.UNAVAILABLE, "in no location")


def test_where_dedicated_machines_are_is_not_told_to_all(read: Read) -> None:
    offer = read(bare("vcg-h100-216c-1914gb-640vram", locations=[""]))[0]
    assert (offer.region, offer.availability) == (None, Availability.UNKNOWN)


def test_empty_and_repeated_locations_are_no_more_offers(read: Read) -> None:
    assert [o.region for o in read(plan(locations=["fra", "", None, "ewr", "fra"]))] == ["ewr", "fra"]


def test_a_location_without_a_country_has_none(read: Read) -> None:
    assert [o.country for o in read(plan(locations=["xyz"]))] == [None]


def test_all_pages_of_all_lists_are_read(httpserver: HTTPServer, tmp_path: Path) -> None:
    plans = [plan(id=f"vcg-plan-{number}", locations=["fra"]) for number in range(7)]
    metal = [{**MI300X, "id": f"vbm-{number}-8-mi300x-gpu"} for number in range(3)]
    lists = serve(httpserver, plans, metal, most=2)
    told: list[int] = []
    published = edition(vultr(httpserver, tmp_path), tell=lambda read, _: told.append(read))
    assert len(published.offers) == 7 + 2 * 3
    assert {o.country for o in published.offers if o.region == "fra"} == {"DE"}
    assert [len(pages.asked) for pages in lists.values()] == [2, 4, 2]
    assert lists["/v2/plans"].asked[:2] == [{"per_page": "500"}, {"per_page": "500", "cursor": "Mg=="}]
    assert told == sorted(told)
    assert told[-1] == sum(len(reply.get_data()) for _, reply in httpserver.log)


def test_what_is_told_of_progress_grows_over_a_page_that_broke(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    httpserver.expect_oneshot_request("/v2/plans").respond_with_data("x" * 500_000, status=502)
    serve(httpserver, [A100], [MI300X])
    told: list[int] = []
    edition(vultr(httpserver, tmp_path), tell=lambda read, _: told.append(read))
    assert len(httpserver.log) == 4
    assert told == sorted(told)


def test_pages_without_end_are_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    body = {"regions": [], "meta": {"links": {"next": "bmV4dA=="}}}
    httpserver.expect_request("/v2/regions").respond_with_json(body)
    with pytest.raises(BadReply) as raised:
        edition(vultr(httpserver, tmp_path))
    assert "in a circle" in raised.value.why
    assert len(httpserver.log) == 2


@pytest.mark.parametrize("meta", [{}, {"links": {}}, {"links": {"next": None}}, {"total": 1}])
def test_a_list_without_cursors_is_one_page(
    httpserver: HTTPServer, tmp_path: Path, meta: dict[str, Any]
) -> None:
    for path, body in {
        "/v2/regions": {"regions": REGIONS, "meta": meta},
        "/v2/plans": {"plans": [A100], "meta": meta},
        "/v2/plans-metal": {"plans_metal": []},
    }.items():
        httpserver.expect_request(path).respond_with_json(body)
    published = edition(vultr(httpserver, tmp_path))
    assert len(published.offers) == 2


def test_asked_too_often_it_is_asked_again(httpserver: HTTPServer, tmp_path: Path) -> None:
    limit = {"error": "Rate limit exceeded", "status": 429}
    httpserver.expect_oneshot_request("/v2/plans").respond_with_json(limit, status=429)
    serve(httpserver, [A100], [])
    published = edition(vultr(httpserver, tmp_path))
    assert len(published.offers) == 2


@pytest.mark.parametrize("path", ["/v2/regions", "/v2/plans", "/v2/plans-metal"])
def test_a_failure_that_lasts_is_told(httpserver: HTTPServer, tmp_path: Path, path: str) -> None:
    # What was registered first answers.
    httpserver.expect_request(path).respond_with_data("no", status=500)
    serve(httpserver, [A100], [MI300X])
    with pytest.raises(Unreachable):
        edition(vultr(httpserver, tmp_path))


@pytest.mark.parametrize(
    "body", [{"error": "no", "status": 200}, {"plans": None}, {"plans": {"id": 1}}, [], None]
)
def test_a_reply_of_another_shape_is_told(httpserver: HTTPServer, tmp_path: Path, body: object) -> None:
    httpserver.expect_request("/v2/regions").respond_with_json({"regions": []})
    httpserver.expect_request("/v2/plans").respond_with_json(body)
    with pytest.raises(BadReply) as raised:
        edition(vultr(httpserver, tmp_path))
    assert raised.value.provider == "vultr"
    assert raised.value.why


def test_plans_that_are_all_malformed_are_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    serve(httpserver, ["what?", plan(hourly_cost=0)], [])
    with pytest.raises(BadReply) as raised:
        edition(vultr(httpserver, tmp_path))
    assert raised.value.why == f"{A100['id']} has no price"


def test_no_plans_are_an_empty_catalogue(read: Read) -> None:
    assert read() == []
