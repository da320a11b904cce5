"""What Google has to rent: prices from its price list, quotas, and what an account may not see."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

import pytest

from gpucloud.errors import AuthError, BadReply, Unreachable
from gpucloud.model import Availability, GpuWish, Market, Offer, Requirements
from gpucloud_gcp import Gcp
from gpucloud_gcp.prices import FIELDS
from tests.harness.gcp import Google, Project, shelf
from tests.harness.gcp.fields import masked
from tests.providers.gcp.conftest import MakeAdapter

ALL = Requirements(markets=())
ON_DEMAND = Requirements()
SPOT = Requirements(markets=(Market.SPOT,))


def prices(offers: Iterable[Offer]) -> dict[tuple[str, str], Decimal]:
    """What each machine costs in each zone."""
    return {(one.instance_type, one.zone or ""): one.usd_per_hour for one in offers}


def one_of(offers: Iterable[Offer], instance_type: str, zone: str = "us-central1-a") -> Offer:
    """The offer of that machine in that zone."""
    return next(one for one in offers if (one.instance_type, one.zone) == (instance_type, zone))


def test_a_machine_on_demand_costs_what_its_parts_do(gcp: Gcp) -> None:
    told = prices(gcp.offers(ON_DEMAND))
    ssd = 16 * 375 * Decimal("0.08") / 730
    assert told["g2-standard-4", "us-central1-a"] == 4 * Decimal("0.025") + 16 * Decimal("0.003") + Decimal(
        "0.56"
    )
    assert told["g2-standard-24", "us-central1-b"] == (
        24 * Decimal("0.025") + 96 * Decimal("0.003") + 2 * Decimal("0.56")
    )
    whole = 208 * Decimal("0.0293") + 1872 * Decimal("0.0025") + 8 * Decimal("9.796552")
    assert told["a3-highgpu-8g", "us-central1-a"].quantize(Decimal("1E-9")) == (whole + ssd).quantize(
        Decimal("1E-9")
    )


def test_a_b200_is_billed_with_cores_and_memory_and_its_disks_apart(gcp: Gcp) -> None:
    told = one_of(gcp.offers(ON_DEMAND), "a4-highgpu-8g", "us-central1-b")
    ssd = 32 * 375 * Decimal("0.08") / 730
    assert told.usd_per_hour.quantize(Decimal("1E-9")) == (8 * Decimal("16.11") + ssd).quantize(
        Decimal("1E-9")
    )


def test_an_offer_tells_what_the_machine_is(gcp: Gcp) -> None:
    told = one_of(gcp.offers(ON_DEMAND), "a3-highgpu-8g")
    assert (str(told.gpu), told.gpu_count) == ("H100-SXM-80", 8)
    assert (told.vcpus, told.memory_gib, told.disk_gib) == (208, Decimal(1872), Decimal(6000))
    assert (told.region, told.zone, told.market) == ("us-central1", "us-central1-a", Market.ON_DEMAND)
    assert (told.source, told.confidence) == ("cloudbilling.googleapis.com services.skus", "live")
    assert told.availability is Availability.UNKNOWN


def test_a_gpu_can_be_attached_to_n1(gcp: Gcp) -> None:
    told = one_of(gcp.offers(ON_DEMAND), "n1-standard-8+nvidia-tesla-t4")
    assert (str(told.gpu), told.gpu_count, told.vcpus) == ("T4-16", 1, 8)
    cores, memory = 8 * Decimal("0.031611"), 30 * Decimal("0.004237")
    assert told.usd_per_hour == cores + memory + Decimal("0.35")
    assert not [
        one for one in gcp.offers(ALL) if "vws" in one.instance_type or "highmem" in one.instance_type
    ]


def test_a_machine_of_which_a_part_has_no_price_is_not_offered(gcp: Gcp, project: Project) -> None:
    # In the Netherlands the price list has cores and memory and no L4.
    assert not [one for one in gcp.offers(ON_DEMAND) if one.region == "europe-west4"]
    project.skus = [sku for sku in project.skus if sku["category"]["resourceGroup"] != "LocalSSD"]
    assert ("a3-highgpu-8g", "us-central1-a") not in prices(gcp.offers(ON_DEMAND))
    assert ("g2-standard-4", "us-central1-a") in prices(gcp.offers(ON_DEMAND))


def test_only_what_counts_of_each_line_is_read(gcp: Gcp, server_of_google: Google, project: Project) -> None:
    body = {"skus": project.skus, "nextPageToken": ""}
    left = masked(body, FIELDS)
    assert set(left["skus"][0]) == {"description", "category", "serviceRegions", "pricingInfo"}
    assert len(json.dumps(left)) < len(json.dumps(body)) / 2
    assert list(gcp.offers(ON_DEMAND))
    assert server_of_google.violations == []


def test_of_two_prices_for_one_part_the_dearer_counts(gcp: Gcp, project: Project) -> None:
    before = prices(gcp.offers(ON_DEMAND))["g2-standard-4", "us-central1-a"]
    project.skus += [shelf.sku("Nvidia L4 GPU running in Iowa", amount) for amount in ("0.66", "0.46")]
    assert prices(gcp.offers(ON_DEMAND))["g2-standard-4", "us-central1-a"] == before + Decimal("0.1")


@pytest.mark.parametrize("usage", ["Preemptible", "Commit1Yr"])
def test_a_line_of_another_usage_does_not_count(gcp: Gcp, project: Project, usage: str) -> None:
    before = prices(gcp.offers(ON_DEMAND))["g2-standard-4", "us-central1-a"]
    project.skus.append(shelf.sku("Nvidia L4 GPU running in Iowa", "0.9", usageType=usage))
    assert prices(gcp.offers(ON_DEMAND))["g2-standard-4", "us-central1-a"] == before


def test_a_line_in_another_unit_does_not_count(gcp: Gcp, project: Project) -> None:
    line = shelf.sku("Nvidia L4 GPU running in Netherlands", "0.5", regions=["europe-west4"])
    line["pricingInfo"][0]["pricingExpression"]["baseUnit"] = "count"
    project.skus.append(line)
    assert not [one for one in gcp.offers(ON_DEMAND) if one.region == "europe-west4"]


def test_a_part_of_a_gpu_is_not_offered_as_a_whole_one(gcp: Gcp, project: Project) -> None:
    types = [
        shelf.machine("g4-standard-6", 6, 22, "nvidia-rtx-pro-6000"),
        shelf.machine("g4-standard-48", 48, 180, "nvidia-rtx-pro-6000"),
    ]
    project.machines = {"us-central1-a": types}
    project.skus = [
        shelf.sku("G4 Instance Core running in Iowa", "0.04891"),
        shelf.sku("G4 Instance Ram running in Iowa", "0.00587", "GiBy.h"),
        shelf.sku("RTX 6000 96GB running in Iowa", "1.09565"),
    ]
    (told,) = gcp.offers(ON_DEMAND)
    assert (told.instance_type, str(told.gpu)) == ("g4-standard-48", "RTXPRO6000-96")


def test_a_spot_machine_costs_what_its_parts_do(gcp: Gcp) -> None:
    told = {key: usd.quantize(Decimal("1E-9")) for key, usd in prices(gcp.offers(SPOT)).items()}
    disk = Decimal("0.032") / 730
    g2 = 4 * Decimal("0.01") + 16 * Decimal("0.001") + Decimal("0.22")
    assert told["g2-standard-4", "us-central1-a"] == told["g2-standard-4", "us-central1-b"] == g2
    a3 = 208 * Decimal("0.0088") + 1872 * Decimal("0.0007") + 8 * Decimal("2.3") + 6000 * disk
    assert told["a3-highgpu-8g", "us-central1-a"] == a3.quantize(Decimal("1E-9"))
    n1 = 8 * Decimal("0.0063") + 30 * Decimal("0.0008") + Decimal("0.11")
    assert told["n1-standard-8+nvidia-tesla-t4", "us-central1-a"] == n1


def test_the_line_of_a_spot_b200_is_told_by_its_description_alone(gcp: Gcp) -> None:
    told = one_of(gcp.offers(SPOT), "a4-highgpu-8g", "us-central1-b")
    whole = 8 * Decimal("4.9542") + 12000 * Decimal("0.032") / 730
    assert told.usd_per_hour.quantize(Decimal("1E-9")) == whole.quantize(Decimal("1E-9"))


@pytest.mark.parametrize("gone", ["Instance Core", "Instance Ram", "T4 GPU attached"])
def test_a_spot_machine_of_which_a_part_has_no_price_costs_no_less(
    gcp: Gcp, project: Project, gone: str
) -> None:
    project.skus = [
        sku
        for sku in project.skus
        if not ("Spot Preemptible" in sku["description"] and gone in sku["description"])
    ]
    assert not [one for one in gcp.offers(SPOT) if one.instance_type.startswith("n1-")]


def test_a_part_that_is_told_for_nothing_has_no_price(gcp: Gcp, project: Project) -> None:
    for sku in project.skus:
        if sku["description"].startswith("Nvidia Tesla T4 GPU attached to Spot"):
            expression = sku["pricingInfo"][0]["pricingExpression"]
            expression["tieredRates"][0]["unitPrice"] = shelf.money("0")
    assert not [one for one in gcp.offers(SPOT) if one.instance_type.startswith("n1-")]


def test_what_the_price_list_lacks_costs_what_google_says_of_the_machine(
    gcp: Gcp, server_of_google: Google
) -> None:
    told = list(gcp.offers(SPOT))
    whole = "compute.googleapis.com advice.capacityHistory"
    assert {key: usd for key, usd in prices(told).items() if one_of(told, *key).source == whole} == {
        ("a2-highgpu-1g", "us-central1-a"): Decimal("1.3"),
        ("g2-standard-4", "europe-west4-a"): Decimal("0.31"),
    }
    assert {one.source for one in told} == {whole, "cloudbilling.googleapis.com services.skus"}
    assert {one.interruptions_per_hour for one in told} == {None}
    asked = server_of_google.asked("compute.advice.capacityHistory")
    types = sorted(body["instanceProperties"]["machineType"] for body in asked)
    assert types == ["a2-highgpu-1g", "g2-standard-24", "g2-standard-4"]
    assert {tuple(body["types"]) for body in asked} == {("PRICE",)}


def test_a_spot_price_in_an_unknown_currency_is_left_out(gcp: Gcp, project: Project) -> None:
    project.spot_currency = "XTS"
    assert "a2-highgpu-1g" not in {one.instance_type for one in gcp.offers(SPOT)}


def test_only_what_is_wanted_is_asked_for(gcp: Gcp, server_of_google: Google) -> None:
    wanted = replace(SPOT, gpus=(GpuWish.parse("L4"),), regions=("europe-west4",))
    assert prices(gcp.offers(wanted)) == {("g2-standard-4", "europe-west4-a"): Decimal("0.31")}
    assert len(server_of_google.asked("compute.advice.capacityHistory")) == 1
    assert len(server_of_google.asked("cloudbilling.services.skus.list")) == 1
    assert list(gcp.offers(replace(wanted, instance_types=("g2-standard-24",)))) == []


@pytest.mark.parametrize(
    ("names", "zones"),
    [
        (("us-central1-b",), {"us-central1-b"}),
        (("US",), {"us-central1-a", "us-central1-b"}),
        (("us-central1", "europe-west4"), {"us-central1-a", "us-central1-b", "europe-west4-a"}),
        (("us-central",), set()),
    ],
)
def test_places_may_be_named_in_part(gcp: Gcp, names: tuple[str, ...], zones: set[str]) -> None:
    assert {one.zone for one in gcp.offers(replace(SPOT, regions=names))} == zones


def test_the_setting_leaves_out_other_regions(adapter: MakeAdapter) -> None:
    told = adapter(regions="europe-west4").offers(ALL)
    assert {one.region for one in told} == {"europe-west4"}


def test_a_zone_that_does_not_answer_hides_no_other(gcp: Gcp, project: Project) -> None:
    project.unreachable = {"us-central1-a"}
    assert {one.zone for one in gcp.offers(ON_DEMAND)} == {"us-central1-b"}


def test_short_pages_are_all_read(adapter: MakeAdapter, project: Project) -> None:
    before = prices(adapter().offers(ALL))
    project.page = 2
    assert prices(adapter().offers(ALL)) == before


def test_another_currency_is_converted_and_kept(gcp: Gcp, project: Project) -> None:
    for sku in project.skus:
        for rate in sku["pricingInfo"][0]["pricingExpression"]["tieredRates"]:
            rate["unitPrice"]["currencyCode"] = "EUR"
    before = Decimal("0.708")
    gcp.settings = replace(gcp.settings, rates={"EUR": Decimal("1.25")})
    told = one_of(gcp.offers(ON_DEMAND), "g2-standard-4")
    assert (told.usd_per_hour, told.currency) == (before * Decimal("1.25"), "USD")


class TestQuotas:
    def test_a_quota_that_does_not_suffice_is_named_with_its_figures(
        self, gcp: Gcp, project: Project
    ) -> None:
        project.limits = {("us-central1", "NVIDIA_L4_GPUS"): 1}
        told = [*gcp.offers(ON_DEMAND)]
        assert one_of(told, "g2-standard-4").availability is Availability.UNKNOWN
        short = one_of(told, "g2-standard-24")
        assert short.availability is Availability.NO_QUOTA
        assert short.availability_detail == "NVIDIA_L4_GPUS in us-central1: 0 of 1 used, 2 wanted"

    def test_that_of_the_whole_project_counts_as_well(self, gcp: Gcp, project: Project) -> None:
        project.limits = {("", "GPUS_ALL_REGIONS"): 0, ("us-central1", "NVIDIA_L4_GPUS"): 8}
        told = list(gcp.offers(ALL))
        assert {one.availability for one in told} == {Availability.NO_QUOTA}
        assert one_of(told, "g2-standard-4").availability_detail == (
            "GPUS_ALL_REGIONS everywhere: 0 of 0 used, 1 wanted"
        )

    @pytest.mark.parametrize(
        ("usual", "preemptible", "on_demand", "spot"),
        [
            (0, 4, Availability.NO_QUOTA, Availability.UNKNOWN),
            (4, 0, Availability.UNKNOWN, Availability.UNKNOWN),
            (0, 0, Availability.NO_QUOTA, Availability.NO_QUOTA),
        ],
    )
    def test_spot_machines_have_a_quota_of_their_own_where_there_is_one(
        self,
        gcp: Gcp,
        project: Project,
        usual: int,
        preemptible: int,
        on_demand: Availability,
        spot: Availability,
    ) -> None:
        project.limits = {
            ("us-central1", "NVIDIA_L4_GPUS"): usual,
            ("us-central1", "PREEMPTIBLE_NVIDIA_L4_GPUS"): preemptible,
        }
        assert one_of(gcp.offers(ON_DEMAND), "g2-standard-4").availability is on_demand
        assert one_of(gcp.offers(SPOT), "g2-standard-4").availability is spot


class TestWhatIsForbidden:
    @pytest.mark.parametrize(
        ("method", "needed"),
        [
            ("compute.regions.list", "compute.regions.list"),
            ("compute.projects.get", "compute.projects.get"),
            ("cloudbilling.services.skus.list", "Cloud Billing API"),
            ("compute.advice.capacityHistory", "compute.advice.capacityHistory"),
            ("compute.acceleratorTypes.aggregatedList", "compute.acceleratorTypes.list"),
        ],
    )
    def test_it_is_told_in_one_line_and_done_without(
        self, gcp: Gcp, project: Project, caplog: pytest.LogCaptureFixture, method: str, needed: str
    ) -> None:
        project.forbidden = {method}
        with caplog.at_level(logging.WARNING, logger="gpucloud_gcp"):
            told = list(gcp.offers(ALL))
        assert told
        (line,) = caplog.messages
        assert needed in line
        assert "\n" not in line

    def test_prices_that_are_forbidden_cost_the_offers_on_demand(self, gcp: Gcp, project: Project) -> None:
        project.disabled = {"cloudbilling"}
        told = list(gcp.offers(ALL))
        assert {one.market for one in told} == {Market.SPOT}
        assert prices(told)["a3-highgpu-8g", "us-central1-a"] == Decimal("19.64")

    def test_past_prices_that_are_forbidden_cost_what_the_list_lacks(
        self, gcp: Gcp, project: Project
    ) -> None:
        project.forbidden = {"compute.advice.capacityHistory"}
        told = {one.instance_type for one in gcp.offers(SPOT)}
        assert "g2-standard-4" in told
        assert "a2-highgpu-1g" not in told

    def test_one_region_costs_only_its_own_spot_offers(
        self, gcp: Gcp, project: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        project.forbidden = {"compute.advice.capacityHistory@us-central1"}
        with caplog.at_level(logging.WARNING, logger="gpucloud_gcp"):
            told = gcp.offers(SPOT)
        assert "a2-highgpu-1g" not in {one.instance_type for one in told}
        assert "europe-west4" in {one.region for one in told}
        (line,) = caplog.messages
        assert "us-central1" in line

    def test_without_machines_there_is_nothing_to_tell(self, gcp: Gcp, project: Project) -> None:
        project.forbidden = {"compute.machineTypes.aggregatedList"}
        with pytest.raises(AuthError):
            gcp.offers(ALL)


def test_a_server_that_is_busy_is_asked_again(gcp: Gcp, project: Project) -> None:
    project.throttled, project.throttling = {"": 3}, (403, "rateLimitExceeded")
    assert list(gcp.offers(ON_DEMAND))


def test_a_server_that_fails_is_told(adapter: MakeAdapter, project: Project) -> None:
    project.throttled, project.throttling = {"": 10**6}, (503, "backendError")
    with pytest.raises(Unreachable):
        adapter(deadline_s=0.2).offers(ON_DEMAND)


def test_machines_that_cannot_be_read_are_a_bad_reply(gcp: Gcp, project: Project) -> None:
    both = shelf.machine("a2-highgpu-1g", 12, 85, "nvidia-tesla-a100")
    both["accelerators"] *= 2
    project.machines = {"us-central1-a": [both]}
    with pytest.raises(BadReply):
        gcp.offers(ON_DEMAND)


class TestAdvice:
    @pytest.mark.parametrize(
        ("score", "availability"),
        [
            (0.9, Availability.AVAILABLE),
            (0.7, Availability.AVAILABLE),
            (0.6, Availability.LIMITED),
            (0.1, Availability.LIMITED),
        ],
    )
    def test_google_s_chance_is_told_in_our_words_and_in_its_own(
        self, gcp: Gcp, project: Project, score: float, availability: Availability
    ) -> None:
        project.obtainability = {("g2-standard-4", "us-central1-b"): score}
        (told,) = gcp.advise(list(gcp.offers(ALL)), 1)
        assert (told.instance_type, told.zone, told.market) == ("g2-standard-4", "us-central1-b", Market.SPOT)
        assert told.availability is availability
        assert told.availability_detail == (
            f"obtainability {score}, estimatedUptime 3600s, preemptionRate 0.05"
        )

    def test_it_is_asked_for_so_many_at_once_in_one_zone(
        self, gcp: Gcp, project: Project, server_of_google: Google
    ) -> None:
        project.obtainability = {("a3-highgpu-8g", "us-central1-a"): 0.5}
        wanted = [one for one in gcp.offers(ALL) if one.instance_type == "a3-highgpu-8g"]
        assert len(list(gcp.advise(wanted, 4))) == 1
        (asked,) = server_of_google.asked("compute.advice.capacity")
        (past,) = server_of_google.asked("compute.advice.capacityHistory")[-1:]
        assert (past["types"], asked["size"]) == (["PREEMPTION"], 4)
        assert asked["distributionPolicy"]["zones"] == [{"zone": "zones/us-central1-a"}]

    def test_what_there_is_no_quota_for_is_not_asked_about(
        self, gcp: Gcp, project: Project, server_of_google: Google
    ) -> None:
        project.limits = {("", "GPUS_ALL_REGIONS"): 0}
        assert list(gcp.advise(list(gcp.offers(ALL)), 1)) == []
        assert server_of_google.asked("compute.advice.capacity") == []

    def test_attached_gpus_are_asked_about_with_their_machine(
        self, gcp: Gcp, project: Project, server_of_google: Google
    ) -> None:
        name = "n1-standard-8+nvidia-tesla-t4"
        project.obtainability = {(name, "us-central1-a"): 0.8}
        wanted = [one for one in gcp.offers(SPOT) if one.instance_type == name]
        before = len(server_of_google.asked("compute.advice.capacityHistory"))
        (told,) = gcp.advise(wanted, 1)
        assert told.availability_detail == "obtainability 0.8, estimatedUptime 3600s"
        assert len(server_of_google.asked("compute.advice.capacityHistory")) == before

    def test_without_the_rates_it_says_so_and_tells_the_rest(
        self, gcp: Gcp, project: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        wanted = list(gcp.offers(SPOT))
        project.obtainability = {("g2-standard-4", "us-central1-b"): 0.9}
        project.forbidden = {"compute.advice.capacityHistory"}
        with caplog.at_level(logging.WARNING, logger="gpucloud_gcp"):
            (told,) = gcp.advise(wanted, 1)
        assert told.availability_detail == "obtainability 0.9, estimatedUptime 3600s"
        (line,) = caplog.messages
        assert "compute.advice.capacityHistory" in line

    def test_without_the_permission_it_says_so(self, gcp: Gcp, project: Project) -> None:
        project.forbidden = {"compute.advice.capacity"}
        with pytest.raises(AuthError, match="does not allow") as caught:
            list(gcp.advise(list(gcp.offers(SPOT)), 1))
        assert "compute.advice.capacity" in caught.value.why
