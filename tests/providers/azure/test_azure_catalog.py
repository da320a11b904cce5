"""Azure's retail prices, from a server that filters and pages as theirs does."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.catalog.names import normalise
from gpucloud.errors import BadReply, NotFound, RateLimited, Unreachable
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_azure import Azure
from gpucloud_azure.api import SIZES
from tests.harness.catalogs import Clock, an_adapter, edition, read, reply

azure = partial(an_adapter, Azure)

PATH = "/api/retail/prices"
CONDITION = re.compile(r"(?:(contains)\((\w+), '([^']*)'\)|(\w+) eq '([^']*)')(?: and |$)")


def row(size: str = "NC24ads_A100_v4", **other: Any) -> dict[str, Any]:
    """A meter in their words: a machine with one A100 in Virginia, with Linux, on demand."""
    told = {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": 3.673,
        "unitPrice": 3.673,
        "armRegionName": "eastus",
        "location": "US East",
        "effectiveStartDate": "2023-03-01T00:00:00Z",
        "meterId": "0b0a4a4b-0000-5a5e-8d3c-000000000001",
        "meterName": size.replace("_", " "),
        "productId": "DZH318Z09TQK",
        "skuId": "DZH318Z09TQK/0001",
        "productName": "Virtual Machines NCads A100 v4 Series",
        "skuName": size.replace("_", " "),
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": f"Standard_{size}",
    }
    return {**told, **other}


SPOT = row(meterName="NC24ads A100 v4 Spot", skuName="NC24ads A100 v4 Spot", retailPrice=0.718442)
WINDOWS = row(productName="Virtual Machines NCads A100 v4 Series Windows", retailPrice=4.777)
LOW_PRIORITY = row(meterName="NC24ads A100 v4 Low Priority", retailPrice=0.7346)
H100 = row(
    "ND96isr_H100_v5",
    meterName="ND96isrH100v5",
    productName="Virtual Machines NDsr H100 v5 Series",
    retailPrice=98.32,
)
T4_IN_HOLLAND = row("NC4as_T4_v3", armRegionName="westeurope", location="EU West", retailPrice=0.605)


class Prices:
    """Their list: the filter counts letters' case, and the next page has an address on their own host."""

    def __init__(self, rows: Sequence[dict[str, Any]], page: int = 1000) -> None:
        self.rows = rows
        self.page = page
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: Request) -> Response:
        asked = request.args.to_dict()
        self.asked.append(asked)
        found = [told for told in self.rows if meets(told, asked["$filter"])]
        skip = int(asked.get("$skip", 0))
        items = found[skip : skip + self.page]
        query = f"api-version={asked['api-version']}&currencyCode='USD'&$filter={quote(asked['$filter'])}"
        after = f"https://prices.azure.com:443{PATH}?{query}&$skip={skip + self.page}"
        more = skip + self.page < len(found)
        return reply({**ENVELOPE, "Items": items, "NextPageLink": after if more else None})


ENVELOPE: dict[str, Any] = {
    "BillingCurrency": "USD",
    "CustomerEntityId": "Default",
    "CustomerEntityType": "Retail",
    "Items": [],
    "NextPageLink": None,
    "Count": 0,
}


def meets(told: dict[str, Any], conditions: str) -> bool:
    fields = {**told, "priceType": told["type"]}
    assert CONDITION.sub("", conditions) == ""
    return all(
        text in fields[part] if contains else fields[field] == value
        for contains, part, text, field, value in CONDITION.findall(conditions)
    )


def serve(httpserver: HTTPServer, *rows: dict[str, Any], page: int = 1000) -> Prices:
    prices = Prices(rows, page)
    httpserver.expect_request(PATH).respond_with_handler(prices)
    return prices


Read = Callable[..., list[Offer]]


@pytest.fixture
def told(httpserver: HTTPServer, tmp_path: Path) -> Read:
    """What is made of some rows."""

    def offers(*rows: dict[str, Any], region: str = "eastus") -> list[Offer]:
        serve(httpserver, *rows)
        return read(azure(httpserver, tmp_path), region)

    return offers


class TestAzureCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, httpserver: HTTPServer, tmp_path: Path) -> Azure:
        old = row(retailPrice=4.0, effectiveStartDate="2022-06-01T00:00:00Z")
        rows = [row(), old, SPOT, WINDOWS, LOW_PRIORITY, H100, T4_IN_HOLLAND, row("NV24ads_V710_v5")]
        serve(httpserver, *rows, page=3)
        return azure(httpserver, tmp_path)


def test_the_price_is_of_the_whole_machine_with_all_its_gpus(told: Read) -> None:
    (offer,) = told(H100)
    assert (offer.instance_type, offer.region, offer.market) == (
        "Standard_ND96isr_H100_v5",
        "eastus",
        Market.ON_DEMAND,
    )
    assert offer.usd_per_hour == offer.amount == Decimal("98.32")
    assert offer.usd_per_gpu_hour == Decimal("12.29")
    assert (str(offer.gpu), offer.gpu_count) == ("H100-SXM-80", 8)
    assert (offer.vcpus, offer.memory_gib) == (96, Decimal(1900))
    assert offer.interconnect == "nvlink, ib"
    assert (offer.source, offer.country, offer.currency) == ("prices.azure.com", "US", "USD")
    assert offer.availability is Availability.UNKNOWN
    assert utcnow() - offer.as_of < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("size", "gpu", "count", "vcpus"),
    [
        ("NC4as_T4_v3", "T4-16", 1, 4),
        ("NC64as_T4_v3", "T4-16", 4, 64),
        ("NC96ads_A100_v4", "A100-PCIe-80", 4, 96),
        ("NC80adis_H100_v5", "H100-NVL-94", 2, 80),
        ("ND96asr_v4", "A100-SXM-40", 8, 96),
        ("ND96isr_H200_v5", "H200-SXM-141", 8, 96),
        ("ND96isr_MI300X_v5", "MI300X-OAM-192", 8, 96),
        ("ND128isr_NDR_GB200_v6", "GB200-186", 4, 128),
        ("NC288lds_xl_RTXPRO6000BSE_v6", "RTXPRO6000-96", 2, 288),
        ("NV72ads_A10_v5", "A10-24", 2, 72),
    ],
)
def test_a_size_has_the_gpus_of_its_page(told: Read, size: str, gpu: str, count: int, vcpus: int) -> None:
    (offer,) = told(row(size))
    assert (str(offer.gpu), offer.gpu_count, offer.vcpus) == (gpu, count, vcpus)


@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
def test_every_gpu_of_the_table_is_spelt_so_that_it_has_a_name_and_a_memory(size: Any) -> None:
    gpu = normalise(size.gpu, memory_gib=size.gpu_memory)
    assert gpu is not None
    assert gpu.memory_gib is not None
    assert abs(gpu.memory_gib - size.gpu_memory) <= size.gpu_memory / 10


def test_a_gpu_nobody_knows_is_seen_under_the_vendors_name(told: Read) -> None:
    (offer,) = told(row("NG32ads_V620_v1", retailPrice=0.93))
    assert offer.gpu == Gpu("V620", 32)


@pytest.mark.parametrize("size", ["NV6ads_A10_v5", "NC24lds_xl_RTXPRO6000BSE_v6", "ND96x_Z9_v7"])
def test_parts_of_gpus_and_sizes_without_a_page_are_left_out(
    told: Read, caplog: pytest.LogCaptureFixture, size: str
) -> None:
    caplog.set_level(logging.DEBUG, "gpucloud_azure")
    assert [offer.instance_type for offer in told(row(size), row())] == ["Standard_NC24ads_A100_v4"]
    assert f"Standard_{size} is left out" in caplog.text


def test_spot_is_what_the_meter_says(told: Read) -> None:
    offers = {offer.market: offer for offer in told(row(), SPOT)}
    assert set(offers) == {Market.ON_DEMAND, Market.SPOT}
    assert offers[Market.SPOT].usd_per_hour == Decimal("0.718442")
    assert offers[Market.SPOT].instance_type == "Standard_NC24ads_A100_v4"


@pytest.mark.parametrize(
    "other",
    [
        WINDOWS,
        row(productName="Virtual Machines NCCadsv5 Srs Win"),
        row(productName="NCads A100 v4 Series CloudServices"),
        row(productName="NCads A100 v4 Series Cloud Services"),
        row(productName="NCads A100 v4 Series Dedicated Host"),
        LOW_PRIORITY,
        row(type="Reservation", reservationTerm="1 Year", unitOfMeasure="1 Hour", retailPrice=20_400.0),
        row(type="DevTestConsumption"),
        row(unitOfMeasure="1/Month"),
        row(serviceName="Azure Machine Learning"),
        row(currencyCode="EUR"),
        row(armRegionName="eastus2"),
        row(retailPrice=0.0),
        row(retailPrice=None),
        row(retailPrice=-1.5),
        row(effectiveStartDate="2999-01-01T00:00:00Z"),
        row(effectiveEndDate="2024-01-31T23:59:59Z"),
    ],
)
def test_what_is_not_the_price_of_an_hour_of_linux_now_is_left_out(told: Read, other: dict[str, Any]) -> None:
    assert [offer.usd_per_hour for offer in told({**other, "meterId": "2"}, H100)] == [Decimal("98.32")]


def test_the_server_is_asked_for_gpu_sizes_of_one_region_only(httpserver: HTTPServer, tmp_path: Path) -> None:
    prices = serve(httpserver, row(), T4_IN_HOLLAND)
    assert [offer.region for offer in read(azure(httpserver, tmp_path), "westeurope")] == ["westeurope"]
    (asked,) = prices.asked
    assert asked["api-version"] == "2023-01-01-preview"
    assert set(asked["$filter"].split(" and ")) == {
        "serviceName eq 'Virtual Machines'",
        "priceType eq 'Consumption'",
        "armRegionName eq 'westeurope'",
        "contains(armSkuName, 'Standard_N')",
    }


@pytest.mark.parametrize("other", [T4_IN_HOLLAND, row("NC4as_T4_v3", type="Reservation", retailPrice=1800.0)])
def test_a_filter_the_server_does_not_heed_brings_nothing_else(
    httpserver: HTTPServer, tmp_path: Path, other: dict[str, Any]
) -> None:
    httpserver.expect_request(PATH).respond_with_json({**ENVELOPE, "Items": [row(), other]})
    (offer,) = read(azure(httpserver, tmp_path), "eastus")
    assert offer.instance_type == row()["armSkuName"]


def test_the_latest_price_that_is_in_force_counts(told: Read) -> None:
    (offer,) = told(
        row(retailPrice=4.1, effectiveStartDate="2022-06-01T00:00:00Z"),
        row(retailPrice=3.673, effectiveStartDate="2023-03-01T00:00:00Z"),
        row(retailPrice=3.9, effectiveStartDate="2022-12-01T00:00:00Z"),
        row(retailPrice=2.5, effectiveStartDate="2999-01-01T00:00:00Z"),
    )
    assert offer.usd_per_hour == Decimal("3.673")


def test_times_without_a_zone_are_utc(told: Read) -> None:
    soon = (utcnow() + timedelta(hours=1)).replace(tzinfo=None).isoformat()
    past = (utcnow() - timedelta(hours=1)).replace(tzinfo=None).isoformat()
    offers = told(
        row(retailPrice=3.1, effectiveStartDate=past),
        row(retailPrice=2.1, effectiveStartDate=soon),
    )
    assert [offer.usd_per_hour for offer in offers] == [Decimal("3.1")]


def test_the_meter_of_the_region_itself_counts_more_than_a_later_one(told: Read) -> None:
    later = row(retailPrice=9.9, effectiveStartDate="2024-03-01T00:00:00Z", isPrimaryMeterRegion=False)
    assert [offer.usd_per_hour for offer in told(later, row())] == [Decimal("3.673")]


def test_two_meters_with_one_price_are_one_offer(told: Read) -> None:
    assert len(told(row(), row(meterId="2"))) == 1


def test_two_prices_at_once_are_no_price(told: Read, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gpucloud_azure")
    offers = told(row(), row(meterId="2", retailPrice=3.5), SPOT)
    assert [offer.market for offer in offers] == [Market.SPOT]
    assert "several prices" in caplog.text


def test_a_price_without_a_date_counts_where_there_is_no_other(told: Read) -> None:
    undated = row(effectiveStartDate=None, retailPrice=1.25)
    assert [offer.usd_per_hour for offer in told(undated)] == [Decimal("1.25")]


def test_one_size_in_two_spellings_is_one(told: Read) -> None:
    assert len(told(row(), row(armSkuName="Standard_NC24ADS_A100_V4"))) == 1


def test_all_pages_are_read_from_our_address(httpserver: HTTPServer, tmp_path: Path) -> None:
    sizes = ["NC24ads_A100_v4", "NC48ads_A100_v4", "NC96ads_A100_v4", "NC4as_T4_v3", "NC64as_T4_v3"]
    prices = serve(httpserver, *map(row, sizes), page=2)
    told: list[int] = []
    published = edition(azure(httpserver, tmp_path), "eastus", tell=lambda read, _: told.append(read))
    assert {offer.instance_type for offer in published.offers} == {f"Standard_{size}" for size in sizes}
    assert published.validator is None
    assert [asked.get("$skip") for asked in prices.asked] == [None, "2", "4"]
    assert len({asked["$filter"] for asked in prices.asked}) == 1
    assert told == sorted(told)
    assert len(set(told)) == 3


def test_a_row_on_two_pages_is_one_offer(httpserver: HTTPServer, tmp_path: Path) -> None:
    serve(httpserver, row(), row(), H100, page=1)
    assert len(read(azure(httpserver, tmp_path), "eastus")) == 2


def test_pages_without_end_are_a_bad_reply(httpserver: HTTPServer, tmp_path: Path) -> None:
    link = f"https://prices.azure.com:443{PATH}?$skip=1000"
    httpserver.expect_request(PATH).respond_with_json({**ENVELOPE, "Items": [row()], "NextPageLink": link})
    with pytest.raises(BadReply) as failure:
        read(azure(httpserver, tmp_path), "eastus")
    assert "pages" in failure.value.why


def test_what_was_asked_for_is_asked_of_the_next_page_too(httpserver: HTTPServer, tmp_path: Path) -> None:
    link = f"https://prices.azure.com:443{PATH}?$skip=1000"
    first = {**ENVELOPE, "Items": [row()], "NextPageLink": link}
    httpserver.expect_ordered_request(PATH).respond_with_json(first)
    httpserver.expect_ordered_request(PATH).respond_with_handler(second := Prices([]))
    read(azure(httpserver, tmp_path), "eastus")
    (asked,) = second.asked
    assert asked["$skip"] == "1000"
    assert "armRegionName eq 'eastus'" in asked["$filter"]


def test_an_empty_page_is_the_last(httpserver: HTTPServer, tmp_path: Path) -> None:
    link = f"https://prices.azure.com:443{PATH}?$skip=1000"
    httpserver.expect_request(PATH).respond_with_json({**ENVELOPE, "NextPageLink": link})
    assert read(azure(httpserver, tmp_path), "eastus") == []
    assert len(httpserver.log) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"retailPrice": "ask us"},
        {"retailPrice": float("nan")},
        {"retailPrice": 1e40},
        {"armSkuName": None},
        {"meterName": 7},
        {"effectiveStartDate": "some day"},
        {"type": None},
    ],
)
def test_a_malformed_row_does_not_cost_the_others(
    httpserver: HTTPServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG, "gpucloud.replies")
    items = [row() | fault, H100]
    httpserver.expect_request(PATH).respond_with_json({**ENVELOPE, "Items": items})
    assert [offer.gpu_count for offer in read(azure(httpserver, tmp_path), "eastus")] == [8]
    assert "a row is left out" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "prices",
        {},
        {"Items": None},
        {"Items": {}},
        {**ENVELOPE, "Items": ["a", 7, None]},
        {**ENVELOPE, "NextPageLink": 7},
        {**ENVELOPE, "Items": [row()], "NextPageLink": "https://["},
    ],
)
def test_what_is_no_price_list_is_a_bad_reply(httpserver: HTTPServer, tmp_path: Path, body: Any) -> None:
    httpserver.expect_request(PATH).respond_with_json(body)
    with pytest.raises(BadReply):
        read(azure(httpserver, tmp_path), "eastus")


def test_a_page_that_is_not_json_is_a_bad_reply(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_data("<html>", content_type="text/html")
    with pytest.raises(BadReply):
        read(azure(httpserver, tmp_path), "eastus")


def test_unknown_fields_and_kinds_are_passed_over(told: Read) -> None:
    odd = row(type="Barter", savingsPlan=[{"term": "3 Years", "retailPrice": "1.7"}])
    plan = row(savingsPlan=[{"term": "3 Years", "retailPrice": "1.7"}], newField={"a": [1]})
    assert [offer.usd_per_hour for offer in told(odd, plan)] == [Decimal("3.673")]


def test_a_refusal_is_waited_out_for_as_long_as_it_says(httpserver: HTTPServer, tmp_path: Path) -> None:
    clock = Clock()
    httpserver.expect_ordered_request(PATH).respond_with_data(status=429, headers={"Retry-After": "60"})
    httpserver.expect_ordered_request(PATH).respond_with_handler(Prices([row()]))
    assert len(read(azure(httpserver, tmp_path, clock), "eastus")) == 1
    assert clock.now >= 60


@pytest.mark.parametrize(("status", "kind"), [(500, Unreachable), (429, RateLimited)])
def test_a_server_that_keeps_failing_is_given_up(
    httpserver: HTTPServer, tmp_path: Path, status: int, kind: type[Exception]
) -> None:
    httpserver.expect_request(PATH).respond_with_data(status=status)
    with pytest.raises(kind):
        read(azure(httpserver, tmp_path), "eastus")
    assert len(httpserver.log) > 1


def test_usual_parts_are_regions_that_most_people_want(httpserver: HTTPServer, tmp_path: Path) -> None:
    parts = azure(httpserver, tmp_path).catalog_parts(())
    assert {"eastus", "westeurope", "swedencentral"} <= set(parts)
    assert not httpserver.log


@pytest.mark.parametrize("wanted", [["uksouth", "East US"], "uksouth, East US,", "uksouth,eastus,uksouth"])
def test_usual_parts_can_be_set(httpserver: HTTPServer, tmp_path: Path, wanted: Any) -> None:
    adapter = azure(httpserver, tmp_path, catalog_regions=wanted)
    assert adapter.catalog_parts(()) == ("uksouth", "eastus")
    assert adapter.catalog_parts(["westus3"]) == ("westus3",)


def test_a_beginning_is_every_region_that_has_it(httpserver: HTTPServer, tmp_path: Path) -> None:
    adapter = azure(httpserver, tmp_path)
    assert set(adapter.catalog_parts(["west", "westus2"])) == {
        "westcentralus",
        "westeurope",
        "westindia",
        "westus",
        "westus2",
        "westus3",
    }
    assert adapter.catalog_parts(["eastus"]) == ("eastus",)
    assert not httpserver.log


def test_a_region_that_is_newer_than_we_are_is_asked_for(httpserver: HTTPServer, tmp_path: Path) -> None:
    serve(httpserver, row(armRegionName="moonsouth"))
    adapter = azure(httpserver, tmp_path)
    assert adapter.catalog_parts(["Moon South"]) == ("moonsouth",)
    (offer,) = read(adapter, "moonsouth")
    assert (offer.region, offer.country) == ("moonsouth", None)


def test_a_region_without_any_prices_is_not_known(httpserver: HTTPServer, tmp_path: Path) -> None:
    prices = serve(httpserver, row())
    with pytest.raises(NotFound) as failure:
        azure(httpserver, tmp_path).catalog_parts(["eastus", "moonnorth"])
    assert "moonnorth" in failure.value.message
    assert "eastus" in failure.value.hint
    assert len(prices.asked) == 1


@pytest.mark.parametrize("region", ["us-east-1", "", "a' or serviceName eq 'Storage", "\u00e9tat"])
def test_what_cannot_be_a_region_is_not_asked_for(
    httpserver: HTTPServer, tmp_path: Path, region: str
) -> None:
    with pytest.raises(NotFound):
        azure(httpserver, tmp_path).catalog_parts([region])
    assert not httpserver.log


def test_a_known_region_has_its_country(httpserver: HTTPServer, tmp_path: Path) -> None:
    serve(httpserver, *(row(armRegionName=region) for region in ["northeurope", "eastasia", "uksouth"]))
    adapter = azure(httpserver, tmp_path)
    found = {
        offer.region: offer.country
        for r in ["northeurope", "eastasia", "uksouth"]
        for offer in read(adapter, r)
    }
    assert found == {"northeurope": "IE", "eastasia": "HK", "uksouth": "GB"}


def test_a_read_that_starts_again_does_not_go_back(httpserver: HTTPServer, tmp_path: Path) -> None:
    told: list[int] = []
    busy = json.dumps({"error": {"code": "429", "message": "Too many requests. " * 200}})
    httpserver.expect_ordered_request(PATH).respond_with_data(busy, status=429)
    httpserver.expect_ordered_request(PATH).respond_with_handler(Prices([row()]))
    edition(azure(httpserver, tmp_path), "eastus", tell=lambda read, _: told.append(read))
    assert len(told) >= 2
    assert told == sorted(told)


def test_prices_are_dated_as_they_are_read(told: Read) -> None:
    before = utcnow()
    (offer,) = told(row(effectiveStartDate="2020-01-01T00:00:00Z"))
    assert isinstance(offer.as_of, datetime)
    assert before <= offer.as_of <= utcnow()
