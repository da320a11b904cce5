"""Machines with TPUs: which can be rented, what they cost, and what they start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpucloud.catalog.names import parse_wish
from gpucloud.errors import QuotaExceeded, Rejected
from gpucloud.model import Availability, InstanceState, Market, Offer, Requirements, utcnow
from gpucloud_gcp import Gcp
from tests.harness.gcp import Google, Project, shelf
from tests.providers.gcp.conftest import MakeSpec

FindOffer = Callable[..., Offer]
HOUR = timedelta(hours=1)
V6E = ("ct6e-standard-1t", "ct6e-standard-4t", "ct6e-standard-8t")
V5P = ("ct5p-hightpu-1t-tpu", "ct5p-hightpu-2t-tpu", "ct5p-hightpu-4t-tpu")
LISTED = "cloudbilling.googleapis.com services.skus"


@pytest.fixture(autouse=True)
def machines(project: Project) -> None:
    """There is nothing but TPUs, and the machines that GPUs can be attached to."""
    plain = {
        zone: [row for row in rows if not row.get("accelerators")] for zone, rows in project.machines.items()
    }
    project.machines = {zone: [*plain[zone], *shelf.tpus().get(zone, [])] for zone in plain}


def told(gcp: Gcp, *markets: Market) -> dict[str, Decimal]:
    """What each machine that has TPUs costs."""
    offers = gcp.offers(Requirements(markets=markets))
    return {one.instance_type: one.usd_per_hour for one in offers if not one.instance_type.startswith("n1-")}


def times(price: str, names: tuple[str, ...], chips: tuple[int, ...]) -> dict[str, Decimal]:
    """What machines cost whose chips cost so much each."""
    return {name: Decimal(price) * number for name, number in zip(names, chips, strict=True)}


class TestOffers:
    def test_one_costs_what_its_chips_do_and_those_that_cannot_be_made_are_left_out(self, gcp: Gcp) -> None:
        assert told(gcp, Market.ON_DEMAND) == {
            **times("2.7", V6E, (1, 4, 8)),
            **times("4.2", V5P, (1, 2, 4)),
            "tpu7x-standard-4t": Decimal(48),
        }

    def test_spot_chips_have_a_price_of_their_own(self, gcp: Gcp) -> None:
        assert told(gcp, Market.SPOT) == {**times("1.4033", V6E, (1, 4, 8)), **times("2.1", V5P, (1, 2, 4))}

    def test_those_of_the_queue_too(self, gcp: Gcp) -> None:
        assert told(gcp, Market.QUEUED) == {**times("1.35", V6E, (1, 4, 8)), **times("2.94", V5P, (1, 2, 4))}

    def test_a_spot_price_that_the_list_lacks_is_asked_for(self, gcp: Gcp, project: Project) -> None:
        project.spot["us-central1", "tpu7x-standard-4t"] = "17.328"
        offers = {one.instance_type: one for one in gcp.offers(Requirements(markets=(Market.SPOT,)))}
        assert offers["ct6e-standard-4t"].source == LISTED
        whole = offers["tpu7x-standard-4t"]
        assert (whole.usd_per_hour, whole.source) == (
            Decimal("17.328"),
            "compute.googleapis.com advice.capacityHistory",
        )

    def test_a_chip_that_the_list_lacks_has_no_price(self, gcp: Gcp, project: Project) -> None:
        project.skus = [sku for sku in project.skus if not sku["description"].startswith("TpuV6e")]
        assert set(told(gcp, Market.ON_DEMAND)) == {*V5P, "tpu7x-standard-4t"}

    @pytest.mark.parametrize(
        ("name", "gpu", "chips", "vcpus", "memory_gib"),
        [
            ("ct6e-standard-8t", "TPUv6e-32", 8, 180, 1440),
            ("ct5p-hightpu-2t-tpu", "TPUv5p-95", 2, 104, 224),
            ("tpu7x-standard-4t", "TPUv7-192", 4, 224, 960),
        ],
    )
    def test_one_tells_what_it_is(
        self, gcp: Gcp, name: str, gpu: str, chips: int, vcpus: int, memory_gib: int
    ) -> None:
        (offer,) = gcp.offers(Requirements(instance_types=(name,)))
        assert (str(offer.gpu), offer.gpu_count, offer.vcpus) == (gpu, chips, vcpus)
        assert (offer.memory_gib, offer.disk_gib, offer.region) == (Decimal(memory_gib), None, "us-central1")

    @pytest.mark.parametrize(
        ("asked", "name"),
        [
            ("TPU-v6e:4", "ct6e-standard-4t"),
            ("trillium:8", "ct6e-standard-8t"),
            ("v5p", "ct5p-hightpu-1t-tpu"),
            ("tpu7x:4", "tpu7x-standard-4t"),
            ("TPUv6e-32", "ct6e-standard-1t"),
        ],
    )
    def test_they_are_asked_for_by_their_chips(self, gcp: Gcp, asked: str, name: str) -> None:
        (offer,) = gcp.offers(Requirements(gpus=(parse_wish(asked),)))
        assert offer.instance_type == name

    def test_what_nobody_scores_is_left_out_of_the_advice(self, gcp: Gcp, project: Project) -> None:
        offers = list(gcp.offers(Requirements(markets=(Market.SPOT,), instance_types=V6E)))
        assert list(gcp.advise(offers, 1)) == []
        project.obtainability = {("ct6e-standard-4t", "us-central1-a"): 0.9}
        assert [one.instance_type for one in gcp.advise(offers, 1)] == ["ct6e-standard-4t"]


class TestQuotas:
    def test_those_for_gpus_do_not_count(self, gcp: Gcp, project: Project) -> None:
        project.limits = {("", "GPUS_ALL_REGIONS"): 0, ("us-central1", "PREEMPTIBLE_NVIDIA_L4_GPUS"): 0}
        offers = {one.instance_type: one.availability for one in gcp.offers(Requirements())}
        assert offers["ct6e-standard-1t"] is Availability.UNKNOWN
        assert offers["n1-standard-4+nvidia-tesla-t4"] is Availability.NO_QUOTA

    def test_that_of_tpus_is_told_only_when_it_does_not_suffice(
        self, gcp: Gcp, project: Project, offer: FindOffer, spec: MakeSpec
    ) -> None:
        project.limits = {("us-central1", "TPUS_PER_TPU_FAMILY"): 4}
        wanted = offer("ct6e-standard-8t")
        assert wanted.availability is Availability.UNKNOWN
        with pytest.raises(QuotaExceeded, match="the quota TPUS_PER_TPU_FAMILY does not suffice"):
            gcp.launch(wanted, spec())
        assert project.instances() == []
        gcp.launch(offer("ct6e-standard-4t"), spec())
        assert len(project.instances()) == 1


class TestLaunching:
    @pytest.fixture
    def asked(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, server_of_google: Google
    ) -> Callable[..., dict[str, Any]]:
        """``asked(name, market)`` is the body of the instance that a launch asks for."""

        def launch(name: str, market: Market = Market.ON_DEMAND) -> dict[str, Any]:
            zone = "us-central1-a" if name in V6E else "us-central1-b"
            gcp.launch(offer(name, zone, market), spec(expires_at=utcnow() + HOUR))
            body: dict[str, Any] = server_of_google.asked("compute.instances.insert")[-1]
            return body

        return launch

    @pytest.mark.parametrize(
        ("name", "image", "disk"),
        [
            ("ct6e-standard-1t", "ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e-v20261006", "hyperdisk-balanced"),
            ("ct5p-hightpu-4t-tpu", "ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e-v20261006", "pd-balanced"),
            ("tpu7x-standard-4t", "ubuntu-accel-2404-amd64-tpu-tpu7x-v20261007", "hyperdisk-balanced"),
        ],
    )
    def test_one_starts_from_the_newest_image_for_its_tpus_on_a_disk_that_it_takes(
        self, asked: Callable[..., dict[str, Any]], name: str, image: str, disk: str
    ) -> None:
        (boot,) = asked(name)["disks"]
        source = boot["initializeParams"]["sourceImage"]
        assert source.endswith(f"/projects/ubuntu-os-accelerator-images/global/images/{image}")
        assert boot["initializeParams"]["diskType"].endswith(f"/diskTypes/{disk}")

    def test_a_family_for_more_kinds_of_tpus_does_as_well(
        self, asked: Callable[..., dict[str, Any]], project: Project
    ) -> None:
        family = "ubuntu-accel-2404-amd64-tpu-v6e-tpu7x"
        project.images["ubuntu-os-accelerator-images"].append(shelf.image(family, "2026-11-01"))
        for name in ("ct6e-standard-1t", "tpu7x-standard-4t"):
            (boot,) = asked(name)["disks"]
            assert boot["initializeParams"]["sourceImage"].endswith(f"{family}-v20261101")

    def test_one_for_which_there_is_no_image_is_not_made(
        self, gcp: Gcp, project: Project, offer: FindOffer, spec: MakeSpec
    ) -> None:
        project.images["ubuntu-os-accelerator-images"] = [
            row
            for row in project.images["ubuntu-os-accelerator-images"]
            if row["family"] != "ubuntu-accel-2404-amd64-tpu-tpu7x"
        ]
        with pytest.raises(Rejected, match="no image for this machine"):
            gcp.launch(offer("tpu7x-standard-4t", "us-central1-b"), spec())
        assert project.instances() == []

    @pytest.mark.parametrize("market", [Market.ON_DEMAND, Market.SPOT, Market.QUEUED])
    def test_its_chips_are_in_its_type_in_each_market(
        self, asked: Callable[..., dict[str, Any]], market: Market
    ) -> None:
        body = asked("ct6e-standard-4t", market)
        assert body["machineType"] == "zones/us-central1-a/machineTypes/ct6e-standard-4t"
        assert "guestAccelerators" not in body
        # With it a machine of TPU7x would not start.
        assert "shieldedInstanceConfig" not in body
        assert body["scheduling"]["onHostMaintenance"] == "TERMINATE"
        models = {Market.ON_DEMAND: "STANDARD", Market.SPOT: "SPOT", Market.QUEUED: "FLEX_START"}
        assert body["scheduling"]["provisioningModel"] == models[market]

    def test_it_is_found_again(self, gcp: Gcp, offer: FindOffer, spec: MakeSpec) -> None:
        wanted = offer("ct5p-hightpu-1t-tpu", "us-central1-b", Market.SPOT)
        made = gcp.launch(wanted, spec())
        for found in (gcp.get(made.ref), *gcp.instances()):
            assert (found.ref, found.token, found.instance_type, found.market) == (
                made.ref,
                made.token,
                "ct5p-hightpu-1t-tpu",
                Market.SPOT,
            )
        gcp.terminate(made.ref)
        assert list(gcp.instances()) == []

    def test_it_waits_for_capacity(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        wanted = offer("ct6e-standard-1t", market=Market.QUEUED)
        made = gcp.launch(wanted, replace(spec(), expires_at=utcnow() + HOUR))
        assert gcp.get(made.ref).waiting
        project.serve_queue()
        served = gcp.get(made.ref)
        assert (served.state, served.waiting) == (InstanceState.RUNNING, False)
