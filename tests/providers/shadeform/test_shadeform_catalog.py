"""Shadeform's instance types, as its API tells them, against the contract of public catalogues."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from gpucloud.errors import BadReply, Unreachable
from gpucloud.model import Availability, Market
from gpucloud.testing.catalog import CatalogConformance
from gpucloud_shadeform import Shadeform
from tests.harness.catalogs import an_adapter, answer, edition, read

Serve = Callable[..., Shadeform]

PATH = "/v1/instances/types"


def a_place(region: str = "us-central-1", available: bool = True, **other: Any) -> dict[str, Any]:
    """A type in a region, as Shadeform writes it."""
    return {
        "region": region,
        "available": available,
        "display_name": "US, Wichita, KS",
        "rental_type": "on_demand",
        **other,
    }


def details(gpu_type: str = "A100_80G", num_gpus: int = 1, **other: Any) -> dict[str, Any]:
    """What an instance consists of."""
    return {
        "memory_in_gb": 125,
        "storage_in_gb": 250,
        "vcpus": 8,
        "num_gpus": num_gpus,
        "gpu_type": gpu_type,
        "interconnect": "pcie",
        "nvlink": False,
        "vram_per_gpu_in_gb": 80,
        "os_options": ["ubuntu22.04_cuda12.6_shade_os"],
        "gpu_manufacturer": "nvidia",
        **other,
    }


def a_type(cloud: str = "massedcompute", *places: Any, **other: Any) -> dict[str, Any]:
    """One type of one cloud."""
    return {
        "cloud": cloud,
        "shade_instance_type": "A100_80G",
        "cloud_instance_type": "gpu_1x_a100",
        "configuration": details(),
        "hourly_price": 203,
        "deployment_type": "vm",
        "availability": list(places or [a_place()]),
        "boot_time": {"min_boot_in_sec": 180, "max_boot_in_sec": 300},
        **other,
    }


def of_gpu(gpu_type: str, **other: Any) -> dict[str, Any]:
    """A type with these details."""
    return a_type(configuration=details(gpu_type, **other))


def in_reply(*types: Any) -> dict[str, Any]:
    """The envelope."""
    return {"instance_types": list(types)}


SPOT = a_place(rental_type="spot", hourly_price="1.50")
CPU = a_type(configuration=details("CPU", 0), shade_instance_type="cpu_4x16", hourly_price=12)
EIGHT = a_type(
    "excesssupply",
    a_place("paris-france-1", False, display_name="FR, Paris"),
    shade_instance_type="H200x8",
    cloud_instance_type="h200_sxm_8",
    configuration=details("H200", 8, interconnect="sxm5", nvlink=True, vram_per_gpu_in_gb=141),
    hourly_price=3613,
    deployment_type="baremetal",
)


@pytest.fixture
def serve(httpserver: HTTPServer, tmp_path: Path) -> Serve:
    """``serve(reply)`` is the adapter before a server that gives this reply to anybody."""

    def make(body: Any) -> Shadeform:
        httpserver.expect_request(PATH, method="GET").respond_with_handler(answer(body))
        return an_adapter(Shadeform, httpserver, tmp_path)

    return make


class TestShadeformCatalog(CatalogConformance):
    @pytest.fixture
    def catalog(self, serve: Serve) -> Shadeform:
        again = {**EIGHT, "cloud_instance_type": "h200_sxm_8_other"}
        return serve(in_reply(a_type("massedcompute", a_place(), SPOT), a_type("verda"), EIGHT, again, CPU))

    def test_it_has_editions(self, catalog: Shadeform) -> None:
        assert edition(catalog).validator is not None


def test_the_clouds_behind_it_are_kept_apart(serve: Serve) -> None:
    cheap, dear = read(serve(in_reply(a_type("massedcompute"), a_type("verda", hourly_price=250))))
    assert cheap.id == "shadeform/massedcompute/A100_80G/us-central-1/on-demand"
    assert dear.id == "shadeform/verda/A100_80G/us-central-1/on-demand"
    assert (cheap.usd_per_hour, dear.usd_per_hour) == (Decimal("2.03"), Decimal("2.5"))


def test_on_demand_is_cents_of_the_whole_instance(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(EIGHT)))
    assert (offer.gpu_count, str(offer.gpu)) == (8, "H200-SXM-141")
    assert offer.usd_per_hour == Decimal("36.13")
    assert (offer.currency, offer.amount) == ("USD", Decimal("36.13"))
    assert (offer.vcpus, offer.memory_gib, offer.disk_gib) == (8, Decimal(125), Decimal(250))
    assert (offer.interconnect, offer.ref) == ("nvlink", "baremetal/h200_sxm_8")


def test_each_region_is_an_offer(serve: Serve) -> None:
    places = [a_place("us-central-1"), a_place("us-central-2", False)]
    one, two = read(serve(in_reply(a_type("verda", *places))))
    assert (one.region, one.availability) == ("us-central-1", Availability.AVAILABLE)
    assert (two.region, two.availability) == ("us-central-2", Availability.UNAVAILABLE)


def test_spot_is_dollars_beside_the_cents_on_demand(serve: Serve) -> None:
    on_demand, spot = read(serve(in_reply(a_type("verda", a_place(available=False), SPOT))))
    assert (on_demand.market, on_demand.usd_per_hour) == (Market.ON_DEMAND, Decimal("2.03"))
    assert (spot.market, spot.usd_per_hour) == (Market.SPOT, Decimal("1.50"))
    assert (on_demand.availability, spot.availability) == (Availability.UNAVAILABLE, Availability.AVAILABLE)
    assert on_demand.region == spot.region == "us-central-1"


@pytest.mark.parametrize("price", [None, "", "0", "ask", "-1", "NaN"])
def test_spot_without_a_price_of_its_own_is_no_offer(serve: Serve, price: Any) -> None:
    (offer,) = read(serve(in_reply(a_type("verda", a_place(), {**SPOT, "hourly_price": price}))))
    assert offer.market is Market.ON_DEMAND


@pytest.mark.parametrize("price", [None, 0, -5, "6.52", "ask", 6.52])
def test_on_demand_without_cents_is_no_offer(serve: Serve, price: Any) -> None:
    offers = read(serve(in_reply(a_type("verda", a_place(), hourly_price=price), a_type("nebius"))))
    assert [offer.instance_type for offer in offers] == ["nebius/A100_80G"]


def test_spot_is_sold_where_nothing_is_sold_on_demand(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(a_type("verda", SPOT, hourly_price=0))))
    assert offer.market is Market.SPOT


def test_an_entry_from_before_there_was_spot_is_on_demand(serve: Serve) -> None:
    places = [{"region": "any", "available": True}, {"region": "any", "rental_type": None, "available": True}]
    (offer,) = read(serve(in_reply(a_type("runpod", *places))))
    assert (offer.market, offer.region, offer.country) == (Market.ON_DEMAND, "any", None)


def test_a_way_of_renting_that_is_not_known_is_no_offer(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(a_type("verda", a_place(rental_type="auction"), SPOT))))
    assert offer.market is Market.SPOT


def test_a_type_that_names_no_region_keeps_its_price(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(a_type(availability=[]))))
    assert (offer.region, offer.availability) == (None, Availability.UNKNOWN)
    assert offer.usd_per_hour == Decimal("2.03")


@pytest.mark.parametrize(
    ("display_name", "country"),
    [
        ("US, Wichita, KS", "US"),
        ("FR, Paris", "FR"),
        ("UK, London", "GB"),
        ("EU, somewhere", None),
        ("Toronto, Canada", None),
        ("USA", None),
        (None, None),
    ],
)
def test_a_country_is_what_the_name_of_a_region_begins_with(
    serve: Serve, display_name: str | None, country: str | None
) -> None:
    (offer,) = read(serve(in_reply(a_type("verda", a_place(display_name=display_name)))))
    assert offer.country == country


@pytest.mark.parametrize(
    ("row", "gpu"),
    [
        (of_gpu("A100_80G", interconnect="sxm4"), "A100-SXM-80"),
        (of_gpu("A100_80G", interconnect="pcie"), "A100-PCIe-80"),
        (of_gpu("A100_80G", interconnect=""), "A100-80"),
        (of_gpu("A100_80G", interconnect="hyperlink"), "A100-80"),
        (of_gpu("A100", interconnect="sxm4", vram_per_gpu_in_gb=40), "A100-SXM-40"),
        (of_gpu("H100_nvl", interconnect="pcie", vram_per_gpu_in_gb=94), "H100-NVL-94"),
        (of_gpu("RTXPro6000", vram_per_gpu_in_gb=96), "RTXPRO6000-96"),
        (of_gpu("RTX6000", vram_per_gpu_in_gb=24), "RTX6000-24"),
        (of_gpu("RTX6000Ada", vram_per_gpu_in_gb=48), "RTX6000Ada-48"),
        (of_gpu("GAUDI2", vram_per_gpu_in_gb=96, gpu_manufacturer="intel"), "Gaudi2-96"),
        (of_gpu("Arc-A770", vram_per_gpu_in_gb=16, gpu_manufacturer="intel"), "ArcA770-16"),
        (of_gpu("B200", interconnect="sxm6", vram_per_gpu_in_gb=192), "B200-SXM-180"),
        ({**a_type(), "cloud_instance_type": "a100-80gb-sxm-ib.8x"}, "A100-SXM-80"),
    ],
)
def test_names_of_gpus(serve: Serve, row: dict[str, Any], gpu: str) -> None:
    assert [str(offer.gpu) for offer in read(serve(in_reply(row)))] == [gpu]


def test_details_that_stand_beside_the_price_count_as_well(serve: Serve) -> None:
    flat = {**a_type(), **details("L40S", 2, vram_per_gpu_in_gb=48)}
    del flat["configuration"]
    (offer,) = read(serve(in_reply(flat)))
    assert (str(offer.gpu), offer.gpu_count, offer.vcpus) == ("L40S-48", 2, 8)


def test_the_configuration_counts_more_than_what_stands_beside_it(serve: Serve) -> None:
    (offer,) = read(serve(in_reply({**a_type(), "num_gpus": 4, "gpu_type": "A4000"})))
    assert (str(offer.gpu), offer.gpu_count) == ("A100-PCIe-80", 1)


def test_types_of_one_name_and_region_are_told_apart_by_the_clouds_own(serve: Serve) -> None:
    other = {**EIGHT, "cloud_instance_type": "h200_sxm_8_other"}
    one, two = read(serve(in_reply(EIGHT, other)))
    assert one.id == two.id
    assert (one.ref, two.ref) == ("baremetal/h200_sxm_8", "baremetal/h200_sxm_8_other")


def test_of_lines_that_cannot_be_told_apart_the_dearest_that_can_be_had_counts(serve: Serve) -> None:
    def priced(cents: int, available: bool) -> dict[str, Any]:
        return a_type("verda", a_place(available=available), hourly_price=cents)

    (offer,) = read(serve(in_reply(priced(210, True), priced(200, True), priced(300, False))))
    assert (offer.usd_per_hour, offer.availability) == (Decimal("2.1"), Availability.AVAILABLE)


def test_a_type_without_gpus_is_no_offer(serve: Serve) -> None:
    odd = a_type(configuration=details("CPU", 1))
    assert read(serve(in_reply(CPU, odd, a_type(configuration=details("", 0))))) == []


def test_an_empty_list_is_an_empty_catalogue(serve: Serve) -> None:
    assert read(serve(in_reply())) == []


@pytest.mark.parametrize(
    "broken",
    [
        {},
        None,
        "A100",
        a_type(""),
        a_type(shade_instance_type=None),
        a_type(configuration=7),
        a_type(configuration={"gpu_type": "A100"}),
        a_type(configuration=details(num_gpus=-1)),
        a_type(configuration=details("")),
        a_type(availability=None),
        a_type("broken", {}, None, "us-central-1", {"region": ""}),
    ],
)
def test_a_malformed_row_does_not_cost_the_others(serve: Serve, broken: Any) -> None:
    offers = read(serve(in_reply(broken, a_type("nebius"))))
    assert [offer.instance_type for offer in offers] == ["nebius/A100_80G"]


def test_a_malformed_region_does_not_cost_the_others(serve: Serve) -> None:
    (offer,) = read(serve(in_reply(a_type("verda", {"region": 7}, a_place()))))
    assert offer.region == "us-central-1"


def test_fields_and_values_that_are_new_change_nothing(serve: Serve) -> None:
    row = a_type(deployment_type="teleport", terms={"a": 1}, boot_time=None)
    assert [offer.ref for offer in read(serve(in_reply(row)))] == ["teleport/gpu_1x_a100"]


@pytest.mark.parametrize(
    "body", [{}, None, [], "busy", {"instance_types": None}, in_reply({}), in_reply(a_type(hourly_price="x"))]
)
def test_what_cannot_be_read_at_all_is_a_bad_reply(serve: Serve, body: Any) -> None:
    with pytest.raises(BadReply) as caught:
        read(serve(body))
    assert caught.value.provider == "shadeform"
    assert "pydantic.dev" not in caught.value.why


def test_too_many_requests_are_repeated(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_ordered_request(PATH).respond_with_json({}, status=429, headers={"Retry-After": "0"})
    httpserver.expect_ordered_request(PATH).respond_with_json(in_reply(a_type()))
    assert len(read(an_adapter(Shadeform, httpserver, tmp_path))) == 1


def test_a_server_that_fails_for_ever_cannot_be_reached(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request(PATH).respond_with_data("", status=500)
    with pytest.raises(Unreachable):
        read(an_adapter(Shadeform, httpserver, tmp_path))
