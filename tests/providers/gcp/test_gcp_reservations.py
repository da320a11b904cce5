"""Machines that are reserved for a time to come: when, for how much, and how they are used."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from gpucloud.errors import AuthError, NoCapacity, Rejected, Unreachable
from gpucloud.model import Block, Market, Offer, Requirements, ReservationState, Window, utcnow
from gpucloud.provider import Reserves
from gpucloud_gcp import Gcp
from tests.harness.gcp import Google, Project, shelf
from tests.harness.gcp.project import written
from tests.providers.gcp.conftest import MakeAdapter, MakeSpec

FindOffer = Callable[..., Offer]
DAY = timedelta(days=1)
NOW = utcnow().replace(microsecond=0)
START = NOW + 3 * DAY
WINDOW = Window(lasting=7 * DAY, earliest=NOW + DAY, latest=NOW + 10 * DAY, nodes=2)
A3 = Requirements(instance_types=("a3-highgpu-8g",))
HOURLY = 208 * Decimal("0.012") + 1872 * Decimal("0.001") + 8 * Decimal("4.57") + 6000 * Decimal("0.0001")


@pytest.fixture
def project() -> Project:
    """A project with something to reserve in three days."""
    return Project(calendar={("a3-highgpu-8g", "us-central1-a"): (START, 4)})


@pytest.fixture
def block(gcp: Gcp) -> Block:
    """What can be reserved."""
    (found,) = gcp.blocks(A3, WINDOW)
    return found


def test_it_can_reserve(gcp: Gcp) -> None:
    assert isinstance(gcp, Reserves)


class TestBlocks:
    def test_one_tells_when_and_where_and_what_all_of_it_costs(self, block: Block) -> None:
        assert (block.instance_type, block.nodes, str(block.gpu)) == ("a3-highgpu-8g", 2, "H100-SXM-80")
        assert (block.region, block.zone) == ("us-central1", "us-central1-a")
        assert (block.starts_at, block.ends_at) == (START, START + 7 * DAY)
        assert (block.usd, block.usd_upfront) == (HOURLY * 7 * 24 * 2, Decimal(0))
        assert block.usd_per_gpu_hour == HOURLY / 8
        assert block.ref

    def test_what_is_asked(self, gcp: Gcp, server_of_google: Google) -> None:
        list(gcp.blocks(A3, WINDOW))
        (asked,) = server_of_google.asked("compute.advice.calendarMode")
        (spec,) = asked["futureResourcesSpecs"].values()
        assert spec["targetResources"] == {
            "specificSkuResources": {"machineType": "a3-highgpu-8g", "instanceCount": "2"}
        }
        assert spec["timeRangeSpec"] == {
            "startTimeNotEarlierThan": written(WINDOW.earliest),
            "startTimeNotLaterThan": written(WINDOW.latest),
            "minDuration": "604800s",
            "maxDuration": "604800s",
        }

    def test_only_machines_of_calendar_mode_are_asked_about(
        self, gcp: Gcp, project: Project, server_of_google: Google
    ) -> None:
        small = shelf.machine("a3-highgpu-1g", 26, 234, "nvidia-h100-80gb")
        project.machines["us-central1-a"].append(small)
        list(gcp.blocks(Requirements(), WINDOW))
        specs = [
            spec
            for asked in server_of_google.asked("compute.advice.calendarMode")
            for spec in asked["futureResourcesSpecs"].values()
        ]
        types = [spec["targetResources"]["specificSkuResources"]["machineType"] for spec in specs]
        assert sorted(types) == ["a3-highgpu-8g", "a4-highgpu-8g"]

    @pytest.mark.parametrize("gone", ["Reserved A3 Core", "Reserved A3 Ram", "Reserved Nvidia H100"])
    def test_one_of_which_a_part_has_no_price_is_left_out_and_named(
        self, gcp: Gcp, project: Project, caplog: pytest.LogCaptureFixture, gone: str
    ) -> None:
        project.skus = [sku for sku in project.skus if not sku["description"].startswith(gone)]
        with caplog.at_level(logging.WARNING, logger="gpucloud_gcp"):
            assert list(gcp.blocks(Requirements(), WINDOW)) == []
        (line,) = caplog.messages
        assert "a3-highgpu-8g" in line

    @pytest.mark.parametrize(
        "line",
        [
            "SSD backed Local Storage attached to Calendar mode reservations running in Iowa",
            "Reserved SSD backed Local Storage in Americas in Calendar Mode",
        ],
    )
    def test_a_slice_is_priced_with_its_disks(self, gcp: Gcp, project: Project, line: str) -> None:
        project.calendar["a4-highgpu-8g", "us-central1-b"] = START, 4
        project.skus = [sku for sku in project.skus if "Calendar mode" not in sku["description"]]
        project.skus.append(shelf.sku(line, "0.0002", "GiBy.h"))
        (told,) = gcp.blocks(replace(A3, instance_types=("a4-highgpu-8g",)), WINDOW)
        hourly = 8 * Decimal("11.277") + 12000 * Decimal("0.0002")
        assert told.usd == hourly * 7 * 24 * 2

    @pytest.mark.parametrize(
        "window",
        [
            replace(WINDOW, latest=START - timedelta(hours=1)),
            replace(WINDOW, nodes=5),
            replace(WINDOW, nodes=81),
            replace(WINDOW, lasting=timedelta(hours=23)),
            replace(WINDOW, lasting=91 * DAY),
        ],
    )
    def test_what_cannot_be_had_is_not_told(self, gcp: Gcp, window: Window) -> None:
        assert list(gcp.blocks(A3, window)) == []

    @pytest.mark.parametrize(
        "wanted", [replace(A3, regions=("us-central1-b",)), replace(A3, regions=("europe-west4",))]
    )
    def test_another_place_is_not_told(self, gcp: Gcp, wanted: Requirements) -> None:
        assert list(gcp.blocks(wanted, WINDOW)) == []

    def test_a_machine_that_google_does_not_reserve_costs_no_other(self, gcp: Gcp, project: Project) -> None:
        project.calendar["a4-highgpu-8g", "us-central1-b"] = START, 4
        assert len(list(gcp.blocks(Requirements(), WINDOW))) == 2
        project.throttling = (400, "invalid")
        project.throttled = {"compute.advice.calendarMode": 1}
        assert len(list(gcp.blocks(Requirements(), WINDOW))) == 1

    @pytest.mark.parametrize(
        "method",
        [
            "compute.advice.calendarMode",
            "cloudbilling.services.skus.list",
            "compute.machineTypes.aggregatedList",
        ],
    )
    def test_what_may_not_be_read_is_raised(self, gcp: Gcp, project: Project, method: str) -> None:
        project.forbidden = {method}
        with pytest.raises(AuthError):
            list(gcp.blocks(A3, WINDOW))


class TestReserving:
    def test_google_is_asked_for_what_the_block_tells(
        self, gcp: Gcp, block: Block, spec: MakeSpec, server_of_google: Google
    ) -> None:
        wanted = spec()
        made = gcp.reserve(block, wanted)
        (body,) = server_of_google.asked("compute.futureReservations.insert")
        assert json.loads(body.pop("description")) == wanted.tags
        assert body == {
            "name": made.ref.id,
            "reservationName": made.ref.id,
            "reservationMode": "CALENDAR",
            "planningStatus": "SUBMITTED",
            "deploymentType": "DENSE",
            "specificReservationRequired": True,
            "autoDeleteAutoCreatedReservations": True,
            "timeWindow": {"startTime": written(START), "endTime": written(START + 7 * DAY)},
            "specificSkuProperties": {
                "totalCount": "2",
                "instanceProperties": {"machineType": "a3-highgpu-8g"},
            },
            "shareSettings": {"shareType": "LOCAL"},
        }
        assert (made.state, made.nodes, made.zone) == (ReservationState.SCHEDULED, 2, "us-central1-a")
        assert (made.token, made.name, made.owner) == (wanted.token, wanted.cluster, wanted.owner)
        assert (made.starts_at, made.ends_at) == (START, START + 7 * DAY)

    def test_one_token_reserves_once(self, gcp: Gcp, block: Block, spec: MakeSpec, project: Project) -> None:
        wanted = spec()
        first = gcp.reserve(block, wanted)
        assert gcp.reserve(block, wanted) == first
        project.forget()
        assert gcp.reserve(block, wanted) == first
        assert len(project.futures) == 1

    def test_what_somebody_else_has_reserved_is_no_longer_there(
        self, gcp: Gcp, block: Block, spec: MakeSpec, project: Project
    ) -> None:
        gcp.reserve(block, spec())
        gcp.reserve(block, spec())
        with pytest.raises(NoCapacity):
            gcp.reserve(block, spec())
        assert len(project.futures) == 2

    def test_what_google_declines_is_not_reserved(
        self, gcp: Gcp, block: Block, spec: MakeSpec, project: Project
    ) -> None:
        project.declines = True
        with pytest.raises(NoCapacity, match="declines"):
            gcp.reserve(block, spec())
        assert [one.state for one in gcp.reservations()] == [ReservationState.FAILED]

    def test_one_that_may_not_be_looked_at_is_taken_for_accepted(
        self, gcp: Gcp, block: Block, spec: MakeSpec, project: Project
    ) -> None:
        project.forbidden = {"compute.futureReservations.get"}
        made = gcp.reserve(block, spec())
        assert (made.state, made.instance_type) == (ReservationState.PENDING, "a3-highgpu-8g")

    def test_a_lost_answer_leaves_open_what_was_reserved(
        self, adapter: MakeAdapter, block: Block, spec: MakeSpec, project: Project
    ) -> None:
        project.throttling = (503, "backendError")
        project.throttled = {"compute.futureReservations.insert": 10**6}
        with pytest.raises(Unreachable) as caught:
            adapter(patience_s=0.1).reserve(block, spec())
        assert caught.value.outcome_unknown


class TestListing:
    @pytest.mark.parametrize(
        ("later", "state", "free"),
        [
            (DAY, ReservationState.SCHEDULED, None),
            (3 * DAY, ReservationState.ACTIVE, 2),
            (9 * DAY, ReservationState.ACTIVE, 2),
        ],
    )
    def test_one_of_ours_tells_what_it_is(
        self,
        gcp: Gcp,
        block: Block,
        spec: MakeSpec,
        project: Project,
        later: timedelta,
        state: ReservationState,
        free: int | None,
    ) -> None:
        made = gcp.reserve(block, spec())
        project.clock = lambda: NOW + later
        (found,) = gcp.reservations()
        assert found == replace(made, state=state, free=free)

    def test_who_may_not_see_how_much_is_free_is_told_so(
        self,
        gcp: Gcp,
        block: Block,
        spec: MakeSpec,
        project: Project,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        made = gcp.reserve(block, spec())
        project.clock = lambda: START
        project.forbidden = {"compute.reservations.aggregatedList"}
        with caplog.at_level(logging.WARNING, logger="gpucloud_gcp"):
            (found,) = gcp.reservations()
        assert (found.ref, found.free) == (made.ref, None)
        (line,) = caplog.messages
        assert "compute.reservations.list" in line

    def test_one_whose_time_is_over_has_ended(self, gcp: Gcp, project: Project) -> None:
        project.add_future(
            "us-central1-a",
            name="gpucloud-of-last-year",
            description=json.dumps({"gpucloud-token": "gc-1"}),
            timeWindow={"startTime": "2025-11-01T00:00:00Z", "endTime": "2025-11-08T00:00:00Z"},
            status={"procurementStatus": "FULFILLED"},
        )
        (found,) = gcp.reservations()
        assert found.state is ReservationState.ENDED
        assert found.ends_at == datetime(2025, 11, 8, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("status", "state"),
        [
            ("PENDING_APPROVAL", ReservationState.PENDING),
            ("PROVISIONING", ReservationState.SCHEDULED),
            ("CANCELLED", ReservationState.ENDED),
            ("DECLINED", ReservationState.FAILED),
            ("PROCUREMENT_STATUS_UNSPECIFIED", ReservationState.UNKNOWN),
        ],
    )
    def test_google_s_word_for_its_state_is_understood(
        self, gcp: Gcp, project: Project, status: str, state: ReservationState
    ) -> None:
        told = json.dumps({"gpucloud-token": "gc-1"})
        project.add_future(
            "us-central1-a", name="gpucloud-1", description=told, status={"procurementStatus": status}
        )
        assert [one.state for one in gcp.reservations()] == [state]

    def test_those_of_others_are_not_ours(self, gcp: Gcp, project: Project) -> None:
        for name in "training", "gpucloud-of-somebody":
            project.add_future("us-central1-a", name=name, status={"procurementStatus": "APPROVED"})
        assert list(gcp.reservations()) == []

    def test_a_zone_that_does_not_answer_is_no_silence(self, gcp: Gcp, project: Project) -> None:
        project.unreachable = {"us-central1-b"}
        with pytest.raises(Unreachable):
            list(gcp.reservations())


class TestLaunching:
    def test_a_machine_goes_into_the_reservation(
        self,
        gcp: Gcp,
        block: Block,
        offer: FindOffer,
        spec: MakeSpec,
        project: Project,
        server_of_google: Google,
    ) -> None:
        offered = replace(offer("a3-highgpu-8g"), market=Market.RESERVED)
        name = gcp.reserve(block, spec()).ref.id
        project.clock = lambda: START
        made = gcp.launch(offered, spec(reservation=name, expires_at=START + DAY))
        (body,) = server_of_google.asked("compute.instances.insert")
        assert body["scheduling"] == {
            "provisioningModel": "RESERVATION_BOUND",
            "instanceTerminationAction": "DELETE",
            "onHostMaintenance": "TERMINATE",
            "automaticRestart": False,
        }
        assert body["reservationAffinity"] == {
            "consumeReservationType": "SPECIFIC_RESERVATION",
            "key": "compute.googleapis.com/reservation-name",
            "values": [name],
        }
        assert gcp.get(made.ref).market is Market.RESERVED
        assert [one.free for one in gcp.reservations()] == [1]

    def test_one_that_is_full_takes_no_more(
        self, gcp: Gcp, block: Block, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        offered = replace(offer("a3-highgpu-8g"), market=Market.RESERVED)
        name = gcp.reserve(replace(block, nodes=1), spec()).ref.id
        project.clock = lambda: START
        first = gcp.launch(offered, spec(reservation=name))
        with pytest.raises(Rejected):
            gcp.launch(offered, spec(reservation=name))
        gcp.terminate(first.ref)
        assert list(gcp.instances()) == []
        gcp.launch(offered, spec(reservation=name))

    def test_before_it_begins_google_refuses(
        self, gcp: Gcp, block: Block, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        offered = replace(offer("a3-highgpu-8g"), market=Market.RESERVED)
        name = gcp.reserve(block, spec()).ref.id
        with pytest.raises(Rejected) as caught:
            gcp.launch(offered, spec(reservation=name))
        assert name in caught.value.why
        assert project.instances() == []

    def test_without_its_name_there_is_nothing_to_launch_into(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        with pytest.raises(Rejected) as caught:
            gcp.launch(replace(offer("a3-highgpu-8g"), market=Market.RESERVED), spec())
        assert "--reservation" in caught.value.hint
        assert project.instances() == []
