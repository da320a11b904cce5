"""Machines of Google's queue: what they cost, how they wait, and how that ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpucloud.errors import NotFound, QuotaExceeded, Rejected
from gpucloud.model import Availability, Instance, InstanceState, Market, Offer, Requirements, utcnow
from gpucloud_gcp import Gcp
from tests.harness.gcp import Google, Project, shelf
from tests.providers.gcp.conftest import MakeAdapter, MakeSpec

FindOffer = Callable[..., Offer]
QUEUED = Requirements(markets=(Market.QUEUED,))
HOUR = timedelta(hours=1)


@pytest.fixture
def queued(offer: FindOffer) -> Offer:
    """A machine that can be waited for."""
    return offer("a3-highgpu-8g", market=Market.QUEUED)


@pytest.fixture
def launched(gcp: Gcp, queued: Offer, spec: MakeSpec) -> Callable[..., Instance]:
    """``launched(**given)`` is an instance that waits, with a lease of an hour."""

    def launch(**given: Any) -> Instance:
        return gcp.launch(queued, spec(**{"expires_at": utcnow() + HOUR, **given}))

    return launch


class TestOffers:
    def test_one_costs_what_its_parts_do(self, gcp: Gcp) -> None:
        told = {(one.instance_type, one.zone): one.usd_per_hour for one in gcp.offers(QUEUED)}
        a3 = 208 * Decimal("0.010934") + 1872 * Decimal("0.000952") + 8 * Decimal("4.200761")
        a4 = 8 * Decimal("8.055")
        # Of the G2 the list has no cores, and the N1 is no machine of the queue.
        assert told == {
            ("a3-highgpu-8g", "us-central1-a"): a3 + 6000 * Decimal("0.0001096"),
            ("a4-highgpu-8g", "us-central1-b"): a4 + 12000 * Decimal("0.0001096"),
        }

    def test_they_are_told_only_to_who_wants_them(self, gcp: Gcp) -> None:
        assert Market.QUEUED not in {one.market for one in gcp.offers(Requirements())}
        assert {one.market for one in gcp.offers(Requirements(markets=()))} == {
            Market.ON_DEMAND,
            Market.SPOT,
            Market.QUEUED,
        }

    @pytest.mark.parametrize(
        ("name", "gpu", "offered"),
        [
            ("g4-standard-48", "nvidia-rtx-pro-6000", True),
            ("a4x-highgpu-1g", "nvidia-b200", False),
        ],
    )
    def test_a_series_that_no_queue_gives_out_is_left_out(
        self, gcp: Gcp, project: Project, name: str, gpu: str, offered: bool
    ) -> None:
        project.machines = {"us-central1-a": [shelf.machine(name, 48, 180, gpu)]}
        place = "running in Americas"
        project.skus = [
            shelf.sku(f"DWS Defined Duration A4 Nvidia B200 (1 gpu slice) {place}", "8"),
            shelf.sku(f"DWS Defined Duration G4 Core {place}", "0.01"),
            shelf.sku(f"DWS Defined Duration G4 Ram {place}", "0.01", "GiBy.h"),
            shelf.sku(f"RTX 6000 96GB attached to DWS Defined Duration VMs {place}", "0.5"),
        ]
        assert [one.instance_type for one in gcp.offers(QUEUED)] == [name] * offered

    def test_the_quota_for_preemptible_gpus_counts(self, gcp: Gcp, project: Project) -> None:
        project.skus += [
            shelf.sku("DWS Defined Duration G2 Core running in Americas", "0.02"),
            shelf.sku("DWS Defined Duration G2 Ram running in Americas", "0.002", "GiBy.h"),
        ]
        project.limits = {
            ("us-central1", "NVIDIA_L4_GPUS"): 0,
            ("us-central1", "PREEMPTIBLE_NVIDIA_L4_GPUS"): 1,
        }
        told = {one.instance_type: one.availability for one in gcp.offers(QUEUED)}
        assert told["g2-standard-4"] is Availability.UNKNOWN
        assert told["g2-standard-24"] is Availability.NO_QUOTA


class TestAsking:
    def test_google_is_told_how_long_to_look_and_how_long_to_run(
        self, launched: Callable[..., Instance], server_of_google: Google
    ) -> None:
        launched(expires_at=utcnow() + 3 * HOUR, wait=HOUR)
        (body,) = server_of_google.asked("compute.instances.insert")
        lasts = int(body["scheduling"].pop("maxRunDuration")["seconds"])
        assert 7190 <= lasts <= 7200
        assert body["scheduling"] == {
            "provisioningModel": "FLEX_START",
            "instanceTerminationAction": "DELETE",
            "onHostMaintenance": "TERMINATE",
            "automaticRestart": False,
        }
        assert body["params"] == {"requestValidForDuration": {"seconds": "3600"}}
        assert body["reservationAffinity"] == {"consumeReservationType": "NO_RESERVATION"}

    @pytest.mark.parametrize(
        ("wait", "seconds"),
        [(None, "7200"), (timedelta(seconds=10), "90"), (timedelta(0), "90"), (2 * HOUR, "7200")],
    )
    def test_it_looks_for_as_long_as_google_takes(
        self,
        launched: Callable[..., Instance],
        server_of_google: Google,
        wait: timedelta | None,
        seconds: str,
    ) -> None:
        launched(wait=wait, expires_at=utcnow() + 4 * HOUR)
        (body,) = server_of_google.asked("compute.instances.insert")
        assert body["params"]["requestValidForDuration"] == {"seconds": seconds}

    def test_a_machine_that_is_not_queued_for_has_all_of_its_lease(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, server_of_google: Google
    ) -> None:
        gcp.launch(offer(), spec(expires_at=utcnow() + 3 * HOUR, wait=HOUR))
        (body,) = server_of_google.asked("compute.instances.insert")
        assert int(body["scheduling"]["maxRunDuration"]["seconds"]) > 10790
        assert "params" not in body

    def test_a_lease_of_minutes_is_as_short_as_google_takes(
        self, launched: Callable[..., Instance], server_of_google: Google
    ) -> None:
        launched(expires_at=utcnow() + timedelta(minutes=1))
        (body,) = server_of_google.asked("compute.instances.insert")
        assert body["scheduling"]["maxRunDuration"] == {"seconds": "600"}

    @pytest.mark.parametrize(
        ("given", "hint"),
        [
            ({"expires_at": None}, "--max-duration"),
            ({"expires_at": utcnow() + timedelta(days=8)}, "at most --max-duration 7d"),
            ({"wait": 3 * HOUR, "expires_at": utcnow() + 9 * HOUR}, "at most --wait 2h"),
        ],
    )
    def test_what_google_would_not_take_is_refused(
        self, launched: Callable[..., Instance], project: Project, given: dict[str, Any], hint: str
    ) -> None:
        with pytest.raises(Rejected) as caught:
            launched(**given)
        assert hint in caught.value.hint
        assert caught.value.why
        assert project.instances() == []


class TestWaiting:
    def test_a_launch_does_not_wait_for_capacity(
        self, launched: Callable[..., Instance], project: Project, server_of_google: Google
    ) -> None:
        made = launched()
        assert (made.state, made.waiting, made.market) == (InstanceState.PENDING, True, Market.QUEUED)
        assert server_of_google.asked("compute.zoneOperations.wait") == []
        assert project.billing() == []

    def test_one_that_waits_says_so(self, gcp: Gcp, launched: Callable[..., Instance]) -> None:
        made = launched()
        for told in (gcp.get(made.ref), *gcp.instances()):
            assert (told.ref, told.token, told.market) == (made.ref, made.token, Market.QUEUED)
            assert (told.state, told.waiting, told.started_at) == (InstanceState.PENDING, True, None)

    def test_one_that_was_given_capacity_tells_when_it_began(
        self, gcp: Gcp, launched: Callable[..., Instance], project: Project
    ) -> None:
        now = utcnow().replace(microsecond=0)
        made = launched()
        began = now + HOUR
        project.clock = lambda: began
        project.serve_queue()
        told = gcp.get(made.ref)
        assert (told.state, told.waiting, told.started_at) == (InstanceState.RUNNING, False, began)
        assert told.created_at is not None
        assert told.created_at < began
        assert project.billing() == [f"instances/{made.ref.id}"]

    def test_its_lease_begins_when_it_runs(
        self, gcp: Gcp, launched: Callable[..., Instance], project: Project
    ) -> None:
        began, made = utcnow(), launched(wait=HOUR, expires_at=utcnow() + 2 * HOUR)
        project.clock = lambda: began + timedelta(minutes=50)
        project.serve_queue()
        project.clock = lambda: began + timedelta(minutes=105)
        assert gcp.get(made.ref).state is InstanceState.RUNNING
        project.clock = lambda: began + timedelta(minutes=115)
        assert list(gcp.instances()) == []
        assert project.billing() == []

    def test_one_that_waited_in_vain_is_gone_and_google_says_why(
        self, gcp: Gcp, launched: Callable[..., Instance], project: Project
    ) -> None:
        made = launched()
        project.close_queue()
        assert list(gcp.instances()) == []
        with pytest.raises(NotFound, match="it was never made, because of ZONE_RESOURCE_POOL_EXHAUSTED"):
            gcp.get(made.ref)
        assert project.billing() == []
        assert list(gcp.side_resources()) == []

    def test_one_that_waits_can_be_ended(
        self, gcp: Gcp, launched: Callable[..., Instance], project: Project
    ) -> None:
        made = launched()
        gcp.terminate(made.ref)
        assert list(gcp.instances()) == []
        project.serve_queue()
        assert list(gcp.instances()) == []
        assert project.billing() == []

    def test_one_token_waits_once(self, gcp: Gcp, queued: Offer, spec: MakeSpec, project: Project) -> None:
        wanted = spec(expires_at=utcnow() + HOUR)
        first = gcp.launch(queued, wanted)
        assert gcp.launch(queued, wanted).ref == first.ref
        project.forget()
        assert gcp.launch(queued, wanted).ref == first.ref
        assert len(project.instances()) == 1

    def test_a_refusal_that_comes_at_once_is_raised(
        self, launched: Callable[..., Instance], project: Project
    ) -> None:
        project.limits = {("", "GPUS_ALL_REGIONS"): 4}
        with pytest.raises(QuotaExceeded):
            launched()
        assert project.instances() == []

    def test_an_operation_that_may_not_be_looked_at_is_taken_for_accepted(
        self, adapter: MakeAdapter, queued: Offer, spec: MakeSpec, project: Project
    ) -> None:
        gcp = adapter(refusal_s=0.2)
        project.forbidden = {"compute.zoneOperations.get", "compute.zoneOperations.wait"}
        made = gcp.launch(queued, replace(spec(), expires_at=utcnow() + HOUR))
        assert [found.ref for found in gcp.instances()] == [made.ref]
