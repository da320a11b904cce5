"""The market of Vast.ai, from a server that searches, sorts and cuts off as theirs does."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.errors import BadReply, RateLimited, Unreachable
from gpucloud.model import Availability, Market, Offer
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_vast import Vast
from tests.harness.catalogs import Clock, an_adapter, edition, reply

vast = partial(an_adapter, Vast)

PATH = "/api/v0/bundles/"
CAP = 64
A_MONTH = Decimal("0.2") * 730 / 720
"""A month of disk at 0.2, which is 720 hours there and 730 with us."""

TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda told, wanted: bool(told == wanted),
    "gt": lambda told, wanted: bool(told > wanted),
    "gte": lambda told, wanted: bool(told >= wanted),
    "notin": lambda told, wanted: told not in wanted,
}


def row(number: int, **other: Any) -> dict[str, Any]:
    """An offer in their words: a quarter of a machine with four RTX 4090."""
    told = {
        "id": number,
        "ask_contract_id": number,
        "machine_id": 30_000 + number,
        "gpu_name": "RTX 4090",
        "num_gpus": 1,
        "gpu_frac": 0.25,
        "gpu_ram": 24564,
        "gpu_total_ram": 24564,
        "cpu_cores": 96,
        "cpu_cores_effective": 24.0,
        "cpu_ram": 257572,
        "disk_space": 1607.875,
        "dph_base": 0.3466666666666667,
        "dph_total": 0.3488888888888889,
        "min_bid": 0.2,
        "storage_cost": 0.2,
        "storage_total_cost": 0.002222222222222222,
        "inet_up": 777.7,
        "inet_down": 905.2,
        "inet_up_cost": 0.003,
        "inet_down_cost": 0.002,
        "reliability": 0.9970835,
        "reliability2": 0.9970835,
        "cuda_max_good": 12.8,
        "driver_version": "570.133.07",
        "bw_nvlink": 0.0,
        "geolocation": "California, US",
        "verification": "verified",
        "hosting_type": 0,
        "rentable": True,
        "rented": False,
        "external": None,
        "is_bid": False,
    }
    return {**told, **other}


class Market64:
    """Their search: conditions by field, an order, and never more than ``CAP`` offers."""

    def __init__(self, offers: list[dict[str, Any]]) -> None:
        self.offers = offers
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> Response:
        question = json.loads(request.args["q"])
        self.asked.append(question)
        conditions = {
            field: test
            for field, test in question.items()
            if isinstance(test, dict) and field not in {"external", "rented"}
        }
        found = [
            offer
            for offer in self.offers
            if all(
                TESTS[name](offer[field], wanted)
                for field, test in conditions.items()
                for name, wanted in test.items()
            )
        ]
        for field, direction in reversed(question["order"]):
            found.sort(key=lambda offer: offer[field], reverse=direction == "desc")
        return reply({"offers": found[: min(question["limit"], CAP)]})


def in_order(offers: Sequence[Offer]) -> Sequence[Offer]:
    """By number, on demand first: a catalogue promises no order."""
    return sorted(offers, key=lambda offer: (int(offer.ref), offer.market))


@pytest.fixture
def read(httpserver: HTTPServer, tmp_path: Path) -> Callable[..., Sequence[Offer]]:
    """Everything that the parts tell when the market has these offers."""

    def read(*offers: dict[str, Any], part: str = "1-gpu") -> Sequence[Offer]:
        httpserver.clear_all_handlers()
        httpserver.expect_request(PATH).respond_with_handler(Market64(list(offers)))
        published = edition(vast(httpserver, tmp_path), part)
        assert published.validator is None
        return in_order(published.offers)

    return read


class TestVastCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, httpserver: HTTPServer, tmp_path: Path) -> Vast:
        counts = [1, 2, 4, 8, 3, 16]
        offers = [
            row(number, num_gpus=counts[number % 6], dph_total=number / 100) for number in range(1, 250)
        ]
        httpserver.expect_request(PATH).respond_with_handler(Market64(offers))
        return vast(httpserver, tmp_path)


def test_prices_are_for_all_gpus_and_without_disk(read: Callable[..., Sequence[Offer]]) -> None:
    offers = read(row(7, num_gpus=2, dph_base=0.7, dph_total=0.71, min_bid=0.4), part="2-gpu")
    assert [(o.market, o.usd_per_hour, o.amount, o.gpu_count) for o in offers] == [
        (Market.ON_DEMAND, Decimal("0.7"), Decimal("0.7"), 2),
        (Market.SPOT, Decimal("0.4"), Decimal("0.4"), 2),
    ]
    assert [o.usd_per_gpu_hour for o in offers] == [Decimal("0.35"), Decimal("0.2")]


def test_a_price_is_taken_digit_by_digit(read: Callable[..., Sequence[Offer]]) -> None:
    assert read(row(1))[0].usd_per_hour == Decimal("0.3466666666666667")


def test_everything_it_says_of_an_offer(read: Callable[..., Sequence[Offer]]) -> None:
    offer, bid = read(row(11_684_738))
    assert (offer.instance_type, offer.ref) == ("RTX 4090", "11684738")
    assert str(offer.gpu) == "RTX4090-24"
    assert (offer.region, offer.zone, offer.country) == ("US", "California, US", "US")
    assert offer.availability is Availability.AVAILABLE
    assert (offer.vcpus, offer.memory_gib, offer.disk_gib) == (24, Decimal("62.88"), Decimal("1607.875"))
    assert (offer.inet_up_mbps, offer.inet_down_mbps) == (778, 905)
    assert (offer.disk_usd_per_gib_month, offer.egress_usd_per_gib) == (A_MONTH, Decimal("0.003"))
    assert (offer.reliability, offer.cuda) == (Decimal("0.9970835"), Decimal("12.8"))
    assert (offer.driver, offer.interconnect) == ("570.133.07", None)
    assert (offer.verified, offer.secure) == (True, False)
    assert offer.id != bid.id
    assert bid.interruptions_per_hour is None


def test_memory_of_a_gpu_is_that_of_one(read: Callable[..., Sequence[Offer]]) -> None:
    eight = row(1, gpu_name="H100 SXM", num_gpus=8, gpu_ram=81559, gpu_total_ram=652472, bw_nvlink=478.1)
    offer = read(eight, part="8-gpu")[0]
    assert (str(offer.gpu), offer.gpu_count, offer.interconnect) == ("H100-SXM-80", 8, "nvlink")


def test_one_gpu_alone_is_linked_to_none(read: Callable[..., Sequence[Offer]]) -> None:
    assert read(row(1, bw_nvlink=478.1))[0].interconnect is None


def test_a_whole_machine_has_all_its_memory(read: Callable[..., Sequence[Offer]]) -> None:
    offer = read(row(1, cpu_cores=64, cpu_cores_effective=64, cpu_ram=131072))[0]
    assert (offer.vcpus, offer.memory_gib) == (64, Decimal(128))


@pytest.mark.parametrize("lacking", ["cpu_ram", "cpu_cores", "cpu_cores_effective"])
def test_a_share_of_something_unknown_is_unknown(read: Callable[..., Sequence[Offer]], lacking: str) -> None:
    assert read(row(1, **{lacking: None}))[0].memory_gib is None


def test_less_than_a_core_is_not_told_as_one(read: Callable[..., Sequence[Offer]]) -> None:
    assert read(row(1, cpu_cores_effective=0.5))[0].vcpus is None


@pytest.mark.parametrize(
    ("told", "place"),
    [
        ("Guangxi, CN", ("CN", "Guangxi, CN", "CN")),
        (", SE", ("SE", None, "SE")),
        ("FR", ("FR", None, "FR")),
        ("Washington, DC, US", ("US", "Washington, DC, US", "US")),
        ("Somewhere, XV", ("XV", "Somewhere, XV", None)),
        ("Pristina, XK", ("XK", "Pristina, XK", "XK")),
        ("the moon", ("the moon", None, None)),
        ("", (None, None, None)),
        (None, (None, None, None)),
    ],
)
def test_a_place_is_a_country_with_more_before_it(
    read: Callable[..., Sequence[Offer]], told: str | None, place: tuple[str | None, ...]
) -> None:
    offer = read(row(1, geolocation=told))[0]
    assert (offer.region, offer.zone, offer.country) == place


@pytest.mark.parametrize(
    ("told", "verified"),
    [("verified", True), ("unverified", False), ("deverified", False), ("blessed", None), (None, None)],
)
def test_what_it_has_checked(
    read: Callable[..., Sequence[Offer]], told: str | None, verified: bool | None
) -> None:
    assert read(row(1, verification=told))[0].verified is verified


@pytest.mark.parametrize(("told", "secure"), [(0, False), (1, True), (2, True), (None, None)])
def test_what_it_vouches_for(
    read: Callable[..., Sequence[Offer]], told: int | None, secure: bool | None
) -> None:
    assert read(row(1, hosting_type=told))[0].secure is secure


def test_an_offer_without_a_bid_is_on_demand_only(read: Callable[..., Sequence[Offer]]) -> None:
    offers = read(row(1, min_bid=None), row(2, min_bid=0), row(3, min_bid=-1), row(4, min_bid="free"))
    assert [o.market for o in offers] == [Market.ON_DEMAND] * 4


def test_a_price_of_nothing_is_no_price(read: Callable[..., Sequence[Offer]]) -> None:
    offers = read(row(1, dph_base=0, min_bid=0), row(2, dph_base=None, min_bid=0.1), row(3, dph_base=0.3))
    assert [(o.ref, o.market) for o in offers] == [
        ("2", Market.SPOT),
        ("3", Market.ON_DEMAND),
        ("3", Market.SPOT),
    ]


def test_a_gpu_that_nobody_knows_is_seen(read: Callable[..., Sequence[Offer]]) -> None:
    seen = read(row(1, gpu_name="Imaginary RTX 9999"), row(2, gpu_name="CMP 50HX", gpu_ram=10240))
    assert [str(o.gpu) for o in seen][::2] == ["ImaginaryRTX9999-24", "CMP50HX-10"]


def test_machines_without_a_gpu_are_not_offered(read: Callable[..., Sequence[Offer]]) -> None:
    assert read(row(1, num_gpus=0, gpu_name="none"), part="other-counts") == []


def test_one_malformed_offer_does_not_cost_the_others(
    read: Callable[..., Sequence[Offer]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "gpucloud.replies"):
        offers = read(row(1, gpu_name=None), row(2), row(3, gpu_name="  "))
    assert {o.ref for o in offers} == {"2"}
    assert caplog.text.count("is left out") == 2


def test_values_of_a_new_kind_do_no_harm(read: Callable[..., Sequence[Offer]]) -> None:
    strange = row(
        1, reliability2=98.5, cuda_max_good="new", inet_up=None, storage_cost=[], driver_version=535, more={}
    )
    offer = read(strange)[0]
    assert (offer.reliability, offer.cuda, offer.inet_up_mbps) == (None, None, None)
    assert (offer.disk_usd_per_gib_month, offer.driver) == (None, None)


def test_what_is_said_to_be_taken_is_told_as_taken(httpserver: HTTPServer, tmp_path: Path) -> None:
    offers = [row(1, rentable=False), row(2, rentable=None)]
    httpserver.expect_request(PATH).respond_with_json({"offers": offers})
    published = edition(vast(httpserver, tmp_path), "1-gpu")
    told = [o.availability for o in in_order(published.offers)]
    assert told[::2] == [Availability.UNAVAILABLE, Availability.UNKNOWN]


def test_a_part_is_read_page_by_page(httpserver: HTTPServer, tmp_path: Path) -> None:
    # Prices repeat, so that pages begin in the middle of equal ones.
    market = Market64([row(number, dph_total=(number // 3) / 10) for number in range(3, 203)])
    httpserver.expect_request(PATH).respond_with_handler(market)
    published = edition(vast(httpserver, tmp_path), "1-gpu")
    assert {int(o.ref) for o in published.offers} == set(range(3, 203))
    assert len(published.offers) == 400
    assert len(market.asked) == 4
    assert [question.get("dph_total") for question in market.asked[:2]] == [None, {"gte": 2.2}]


def test_exactly_one_page_is_asked_for_once_more(httpserver: HTTPServer, tmp_path: Path) -> None:
    market = Market64([row(number, dph_total=number / 10) for number in range(1, CAP + 1)])
    httpserver.expect_request(PATH).respond_with_handler(market)
    published = edition(vast(httpserver, tmp_path), "1-gpu")
    assert len(published.offers) == 2 * CAP
    assert len(market.asked) == 2


def test_more_than_a_page_at_one_price_are_passed_over(httpserver: HTTPServer, tmp_path: Path) -> None:
    same = [row(number, dph_total=0.5) for number in range(1, 101)]
    market = Market64([*same, row(200, dph_total=0.6)])
    httpserver.expect_request(PATH).respond_with_handler(market)
    published = edition(vast(httpserver, tmp_path), "1-gpu")
    assert {int(o.ref) for o in published.offers} == {*range(1, CAP + 1), 200}
    assert [question.get("dph_total") for question in market.asked] == [None, {"gte": 0.5}, {"gt": 0.5}]


def test_a_market_that_ignores_prices_is_not_asked_for_ever(
    httpserver: HTTPServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    offers = [row(number, dph_total=number / 10) for number in range(1, CAP + 1)]
    httpserver.expect_request(PATH).respond_with_json({"offers": offers})
    published = edition(vast(httpserver, tmp_path), "1-gpu")
    assert len(published.offers) == 2 * CAP
    assert len(httpserver.log) == 3
    assert "more offers than are read" in caplog.text


def test_the_parts_are_the_whole_market_and_overlap_nowhere(httpserver: HTTPServer, tmp_path: Path) -> None:
    counts = [1, 2, 3, 4, 5, 6, 7, 8, 10, 16]
    offers = [row(count, num_gpus=count) for count in counts]
    httpserver.expect_request(PATH).respond_with_handler(Market64(offers))
    adapter = vast(httpserver, tmp_path)
    told: list[int] = []
    for part in adapter.catalog_parts(("US",)):
        published = edition(adapter, part)
        told += [o.gpu_count for o in published.offers if o.market is Market.ON_DEMAND]
    assert sorted(told) == counts


def test_what_belongs_to_another_part_is_left_to_it(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_json({"offers": [row(1, num_gpus=1), row(3, num_gpus=3)]})
    adapter = vast(httpserver, tmp_path)
    for part, ref in {"1-gpu": "1", "other-counts": "3"}.items():
        published = edition(adapter, part)
        assert {o.ref for o in published.offers} == {ref}


def test_only_what_can_be_rented_now_is_asked_for_cheapest_first(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    market = Market64([])
    httpserver.expect_request(PATH, method="GET").respond_with_handler(market)
    published = edition(vast(httpserver, tmp_path), "other-counts")
    assert published.offers == []
    assert market.asked == [
        {
            "type": "on-demand",
            "rentable": {"eq": True},
            "rented": {"eq": False},
            "external": {"eq": False},
            "num_gpus": {"notin": [1, 2, 4, 8]},
            "order": [["dph_total", "asc"]],
            "limit": 64,
        }
    ]


def test_it_is_not_asked_more_often_than_once_a_second(httpserver: HTTPServer, tmp_path: Path) -> None:
    market = Market64([row(number, dph_total=number / 10) for number in range(1, 200)])
    httpserver.expect_request(PATH).respond_with_handler(market)
    clock = Clock()
    edition(vast(httpserver, tmp_path, clock), "1-gpu")
    assert len(market.asked) == 4
    assert clock.now == 3


def test_what_is_told_of_progress_is_the_bytes_of_all_pages(httpserver: HTTPServer, tmp_path: Path) -> None:
    market = Market64([row(number, dph_total=number / 10) for number in range(1, 200)])
    httpserver.expect_request(PATH).respond_with_handler(market)
    told: list[int] = []
    edition(vast(httpserver, tmp_path), "1-gpu", tell=lambda read, _: told.append(read))
    assert told == sorted(told)
    assert told[-1] == sum(len(reply.get_data()) for _, reply in httpserver.log)


def test_what_is_told_of_progress_grows_over_a_page_that_broke(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    market = Market64([row(number, dph_total=number / 10) for number in range(1, 100)])
    httpserver.expect_ordered_request(PATH).respond_with_handler(market)
    httpserver.expect_ordered_request(PATH).respond_with_data("x" * 500_000, status=502)
    httpserver.expect_ordered_request(PATH).respond_with_handler(market)
    told: list[int] = []
    edition(vast(httpserver, tmp_path), "1-gpu", tell=lambda read, _: told.append(read))
    assert len(httpserver.log) == 3
    assert told == sorted(told)


def test_asked_too_often_it_is_asked_again(httpserver: HTTPServer, tmp_path: Path) -> None:
    refusal = partial(httpserver.expect_ordered_request(PATH).respond_with_data, status=429)
    refusal("API requests too frequent: endpoint threshold=1.0")
    httpserver.expect_ordered_request(PATH).respond_with_handler(Market64([row(1)]))
    published = edition(vast(httpserver, tmp_path), "1-gpu")
    assert len(published.offers) == 2


def test_a_quota_that_lasts_for_hours_is_not_waited_for(httpserver: HTTPServer, tmp_path: Path) -> None:
    body = {"success": False, "error": "search_quota_exceeded", "msg": "daily search quota exceeded"}
    headers = {"Retry-After": "20000"}
    httpserver.expect_request(PATH).respond_with_json(body, status=429, headers=headers)
    with pytest.raises(RateLimited) as raised:
        edition(vast(httpserver, tmp_path), "1-gpu")
    assert raised.value.retry_after == 20_000
    assert raised.value.vendor_code == "search_quota_exceeded"
    assert len(httpserver.log) == 1


def test_a_failure_that_lasts_is_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_data("no", status=500)
    with pytest.raises(Unreachable):
        edition(vast(httpserver, tmp_path), "1-gpu")
    assert len(httpserver.log) > 1


@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "error": "invalid_args", "msg": "Invalid json body"},
        {"offers": {"id": 1}},
        {"offers": None},
        [],
        None,
    ],
)
def test_a_reply_of_another_shape_is_told(httpserver: HTTPServer, tmp_path: Path, body: object) -> None:
    httpserver.expect_request(PATH).respond_with_json(body)
    with pytest.raises(BadReply) as raised:
        edition(vast(httpserver, tmp_path), "1-gpu")
    assert raised.value.provider == "vast"
    assert raised.value.why


def test_offers_that_are_all_malformed_are_told(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_json(
        {"offers": [{"id": 1}, "what?", row(2, dph_base=0, min_bid=0)]}
    )
    with pytest.raises(BadReply) as raised:
        edition(vast(httpserver, tmp_path), "1-gpu")
    assert raised.value.why == "the offer 2 has no price"
