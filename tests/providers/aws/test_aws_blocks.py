"""Capacity Blocks: what is sold for days to come, what is bought, and what runs in it."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import (
    AuthError,
    BadReply,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
    Unsupported,
)
from gpucloud.model import (
    Block,
    Gpu,
    GpuWish,
    Market,
    Offer,
    Requirements,
    Reservation,
    ReservationState,
    Window,
    utcnow,
)
from gpucloud.provider import ProviderSettings, Reserves
from gpucloud_aws import Aws
from tests.harness.acme.faults import Fault, Trouble, Verb
from tests.harness.aws import LOGIN, Cloud, Offering, Refusal, Served, serving
from tests.harness.faulty import Faulty
from tests.providers.aws.conftest import MakeAdapter, a_spec, an_adapter

START = datetime(2026, 12, 1, 11, 30, tzinfo=UTC)
DAY = timedelta(days=1)
WINDOW = Window(DAY, START - DAY, START + 2 * DAY)
H100 = Requirements(gpus=(GpuWish(8, Gpu("H100")),))


def an_offering(id: str = "cb-1", zone: str = "us-east-1a", **more: Any) -> Offering:
    words = {"instance_type": "p5.48xlarge", "starts_at": START, "ends_at": START + DAY, **more}
    return Offering(id, zone=zone, **words)


def the_block(adapter: Aws, wanted: Requirements = H100, window: Window = WINDOW) -> Block:
    (block,) = adapter.blocks(wanted, window)
    return block


def bought(adapter: Aws, cloud: Cloud, **more: Any) -> Reservation:
    """A block that has begun."""
    cloud.offerings = [an_offering(**more)]
    nodes = more.get("nodes", 1)
    adapter.reserve(the_block(adapter, window=replace(WINDOW, nodes=nodes)), a_spec("gc-block"))
    cloud.now = lambda: START
    list(adapter.reservations())
    (reservation,) = adapter.reservations()
    assert reservation.state is ReservationState.ACTIVE
    return reservation


def in_it(reservation: Reservation) -> Offer:
    """What the core launches into a reservation."""
    return Offer(
        provider="aws",
        instance_type=reservation.instance_type,
        market=Market.RESERVED,
        usd_per_hour=Decimal(0),
        as_of=utcnow(),
        source="reservation",
        region=reservation.ref.region,
        zone=reservation.zone,
    )


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# what is sold


def test_the_adapter_sells_time_to_come(adapter: Aws) -> None:
    assert isinstance(adapter, Reserves)


def test_a_block_says_all_that_is_told_of_it(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [an_offering(nodes=2, usd="10123.4500")]
    block = the_block(adapter, window=replace(WINDOW, nodes=2))
    assert block == Block(
        provider="aws",
        ref="cb-1",
        instance_type="p5.48xlarge",
        nodes=2,
        region="us-east-1",
        zone="us-east-1a",
        starts_at=START,
        ends_at=START + DAY,
        usd=Decimal("10123.45"),
        usd_upfront=Decimal("10123.45"),
        gpu=Gpu("H100", 80, "SXM"),
        gpu_count=8,
        currency="USD",
        amount=Decimal("10123.45"),
    )


def test_blocks_of_all_regions_are_told_to_the_last_page(adapter: Aws, cloud: Cloud) -> None:
    zones = ["eu-west-1b", "us-east-1a", "us-west-2a"]
    cloud.offerings = [an_offering(f"cb-{zone}-{n}", zone) for zone in zones for n in range(3)]
    cloud.page_size = 2
    found = list(adapter.blocks(H100, WINDOW))
    assert [block.zone for block in found] == [zone for zone in zones for _ in range(3)]


def test_only_regions_that_are_wanted_are_asked(make_adapter: MakeAdapter, cloud: Cloud) -> None:
    cloud.offerings = [
        an_offering("cb-1"),
        an_offering("cb-2", "us-west-2a"),
        an_offering("cb-3", "eu-west-1a"),
    ]
    adapter = make_adapter(regions=["us-west-2", "eu-west-1"])
    assert {block.ref for block in adapter.blocks(replace(H100, regions=("us",)), WINDOW)} == {"cb-2"}
    assert {asked.region for asked in cloud.of("DescribeCapacityBlockOfferings")} == {"us-west-2"}


@pytest.mark.parametrize(
    ("wanted", "types"),
    [
        (Requirements(), {"p4d.24xlarge", "p5.48xlarge", "trn1.32xlarge"}),
        (H100, {"p5.48xlarge"}),
        (Requirements(gpus=(GpuWish(1, Gpu("A10G")),)), set()),
        (Requirements(instance_types=("P4d.24xlarge", "g5.xlarge")), {"p4d.24xlarge"}),
    ],
)
def test_only_types_that_are_wanted_and_sold_as_blocks_are_asked_about(
    adapter: Aws, cloud: Cloud, wanted: Requirements, types: set[str]
) -> None:
    assert not list(adapter.blocks(wanted, WINDOW))
    assert {asked.words["InstanceType"] for asked in cloud.of("DescribeCapacityBlockOfferings")} == types


@pytest.mark.parametrize(
    ("lasting", "hours"),
    [
        (timedelta(minutes=30), 24),
        (DAY, 24),
        (timedelta(hours=25), 48),
        (14 * DAY, 14 * 24),
        (timedelta(days=14, seconds=1), 21 * 24),
        (22 * DAY, 28 * 24),
        (182 * DAY, 182 * 24),
    ],
)
def test_the_next_longer_time_that_is_sold_is_asked_for(
    adapter: Aws, cloud: Cloud, lasting: timedelta, hours: int
) -> None:
    cloud.offerings = [an_offering(ends_at=START + timedelta(hours=hours + 20))]
    block = the_block(adapter, window=replace(WINDOW, lasting=lasting))
    assert block.ends_at == START + timedelta(hours=hours + 20)
    asked = {asked.words["CapacityDurationHours"] for asked in cloud.of("DescribeCapacityBlockOfferings")}
    assert asked == {hours}


def test_no_block_is_longer_than_half_a_year(adapter: Aws, cloud: Cloud) -> None:
    with pytest.raises(Unsupported, match="so long") as caught:
        list(adapter.blocks(H100, replace(WINDOW, lasting=183 * DAY)))
    assert "182" in caught.value.hint
    assert not cloud.of("DescribeCapacityBlockOfferings")


def test_a_block_that_begins_outside_the_window_is_not_told(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [
        an_offering("cb-early", starts_at=WINDOW.earliest - timedelta(hours=1)),
        an_offering("cb-first", starts_at=WINDOW.earliest),
        an_offering("cb-last", starts_at=WINDOW.latest, ends_at=WINDOW.latest + DAY),
        an_offering("cb-late", starts_at=WINDOW.latest + timedelta(hours=1), ends_at=WINDOW.latest + DAY),
    ]
    assert [block.ref for block in adapter.blocks(H100, WINDOW)] == ["cb-first", "cb-last"]


@pytest.mark.parametrize(
    "more",
    [
        {"AvailabilityZone": "us-east-1-dfw-2a", "ZoneType": "local-zone"},
        {"Tenancy": "dedicated"},
        {"CapacityBlockOfferingSegments": [{"InstanceType": "p5.48xlarge"}, {"InstanceType": "p5.48xlarge"}]},
    ],
    ids=["local-zone", "dedicated", "pieces"],
)
def test_what_no_launch_can_go_into_is_not_told(adapter: Aws, cloud: Cloud, more: dict[str, Any]) -> None:
    cloud.offerings = [an_offering(more=more), an_offering("cb-2")]
    assert the_block(adapter).ref == "cb-2"


def test_a_fee_in_another_currency_is_told_in_dollars_too(served: Served, tmp_path: Path) -> None:
    served.cloud.offerings = [an_offering(usd="1000", currency="CNY")]
    settings = ProviderSettings(
        "aws",
        tmp_path,
        table={"endpoint_url": served.url},
        environ={**LOGIN, "HOME": str(tmp_path), "AWS_MAX_ATTEMPTS": "1"},
        rates={"CNY": Decimal("0.14")},
    )
    block = the_block(Aws(settings))
    assert (block.usd, block.usd_upfront) == (Decimal(140), Decimal(140))
    assert (block.amount, block.currency) == (Decimal(1000), "CNY")


def test_a_currency_that_nobody_knows_leaves_that_block_out(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [an_offering(currency="XTS"), an_offering("cb-2")]
    assert the_block(adapter).ref == "cb-2"
    cloud.offerings = [an_offering(currency="XTS")]
    with pytest.raises(BadReply, match="cannot be read"):
        list(adapter.blocks(replace(H100, regions=("us-east-1",)), WINDOW))


@pytest.mark.parametrize("region", ["us-west-2", None])
def test_a_permission_that_is_missing_is_told_in_one_line(
    adapter: Aws, cloud: Cloud, caplog: pytest.LogCaptureFixture, region: str | None
) -> None:
    cloud.offerings = [an_offering("cb-1"), an_offering("cb-2", "us-west-2a")]
    cloud.forbidden.add(("ec2:DescribeCapacityBlockOfferings", region))
    assert [block.ref for block in adapter.blocks(Requirements(), WINDOW)] == (["cb-1"] if region else [])
    (line,) = warnings(caplog)
    assert "ec2:DescribeCapacityBlockOfferings is not allowed in" in line
    assert "us-west-2" in line


def test_a_type_that_is_refused_does_not_hide_the_others(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [an_offering()]
    cloud.refusals["DescribeCapacityBlockOfferings"] = [Refusal(400, "InvalidParameterValue")]
    wanted = Requirements(regions=("us-east-1",), instance_types=("p4d.24xlarge", "p5.48xlarge"))
    assert the_block(adapter, wanted).ref == "cb-1"


def test_a_limit_on_asking_is_told_as_asked_too_often(adapter: Aws, cloud: Cloud) -> None:
    refusal = Refusal(400, "CapacityBlockDescribeLimitExceeded")
    cloud.refusals["DescribeCapacityBlockOfferings"] = [refusal] * len(cloud.regions)
    with pytest.raises(RateLimited):
        list(adapter.blocks(H100, WINDOW))


# buying


def test_a_purchase_carries_our_tags_and_is_listed_with_them(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [an_offering(nodes=2)]
    spec = a_spec("gc-block", cluster="mine")
    reservation = adapter.reserve(the_block(adapter, window=replace(WINDOW, nodes=2)), spec)
    (there,) = cloud.reservations.values()
    assert spec.tags.items() <= {tag["Key"]: tag["Value"] for tag in there.tags}.items()
    assert (reservation.ref.id, reservation.ref.region) == (there.id, "us-east-1")
    assert (reservation.nodes, reservation.free, reservation.zone) == (2, 2, "us-east-1a")
    assert reservation.starts_at == START
    assert reservation.ends_at == START + DAY - timedelta(minutes=30)
    assert (reservation.token, reservation.name, reservation.owner) == ("gc-block", "mine", "me")
    assert list(adapter.reservations()) == [reservation]


def test_a_reservation_goes_from_its_payment_to_its_end(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [an_offering()]
    cloud.now = lambda: START - DAY
    states = [adapter.reserve(the_block(adapter), a_spec()).state]
    for now in (START - DAY, START - DAY, START, START + DAY):
        cloud.now = lambda now=now: now  # type: ignore[misc]
        states += [each.state for each in adapter.reservations()]
    assert states == [
        ReservationState.PENDING,
        ReservationState.PENDING,
        ReservationState.SCHEDULED,
        ReservationState.ACTIVE,
        ReservationState.ENDED,
    ]


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ("pending", ReservationState.PENDING),
        ("assessing", ReservationState.PENDING),
        ("cancelled", ReservationState.ENDED),
        ("failed", ReservationState.FAILED),
        ("payment-failed", ReservationState.FAILED),
        ("unavailable", ReservationState.UNKNOWN),
        ("delayed", ReservationState.UNKNOWN),
    ],
)
def test_what_amazon_calls_a_state(adapter: Aws, cloud: Cloud, told: str, state: ReservationState) -> None:
    cloud.offerings = [an_offering()]
    adapter.reserve(the_block(adapter), a_spec())
    (there,) = cloud.reservations.values()
    there.state = told
    assert [each.state for each in adapter.reservations()] == [state]


def test_what_was_sold_to_somebody_else_is_gone(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [an_offering()]
    block = the_block(adapter)
    adapter.reserve(block, a_spec("gc-1"))
    with pytest.raises(NoCapacity) as caught:
        adapter.reserve(block, a_spec("gc-2"))
    assert caught.value.vendor_code == "InvalidCapacityBlockOfferingIdExpired"
    assert not caught.value.outcome_unknown
    assert [each.token for each in adapter.reservations()] == ["gc-1"]


def test_what_is_not_sold_any_more_is_gone(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [an_offering()]
    block = the_block(adapter)
    cloud.offerings = []
    with pytest.raises(NoCapacity) as caught:
        adapter.reserve(block, a_spec())
    assert caught.value.vendor_code == "InvalidCapacityBlockOfferingIdNotFound"


REFUSED: dict[str, tuple[int, type[ProviderError], bool]] = {
    "InvalidCapacityBlockOfferingIdMalformed": (400, Rejected, False),
    "InstanceLimitExceeded": (400, QuotaExceeded, False),
    "UnauthorizedOperation": (403, AuthError, False),
    "RequestLimitExceeded": (503, RateLimited, False),
    "InternalError": (500, Unreachable, True),
    "ServiceUnavailable": (503, Unreachable, True),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_refused_purchase_is_asked_for_once_and_says_whether_it_is_in_doubt(
    make_adapter: MakeAdapter, cloud: Cloud, code: str
) -> None:
    status, kind, unknown = REFUSED[code]
    adapter = make_adapter(attempts=4)
    cloud.offerings = [an_offering()]
    block = the_block(adapter)
    cloud.refusals["PurchaseCapacityBlock"] = [Refusal(status, code, "the vendor's own text")]
    with pytest.raises(kind) as caught:
        adapter.reserve(block, a_spec())
    error = caught.value
    assert type(error) is kind
    assert (error.vendor_code, error.vendor_text) == (code, "the vendor's own text")
    assert error.message and error.why and error.hint
    assert error.outcome_unknown == unknown
    assert len(cloud.of("PurchaseCapacityBlock")) == 1
    assert not cloud.reservations


def test_a_permission_that_a_purchase_lacks_is_named(adapter: Aws, cloud: Cloud) -> None:
    cloud.offerings = [an_offering()]
    cloud.forbidden.add(("ec2:PurchaseCapacityBlock", None))
    with pytest.raises(AuthError) as caught:
        adapter.reserve(the_block(adapter), a_spec())
    assert "ec2:PurchaseCapacityBlock" in caught.value.hint


@pytest.mark.parametrize("trouble", [Trouble.LOST_REPLY, Trouble.ERROR_BUT_DONE, Trouble.TRUNCATED])
def test_a_purchase_whose_answer_is_lost_is_in_doubt_and_found_by_its_token(
    elsewhere_nothing: None, tmp_path: Path, trouble: Trouble
) -> None:
    def around(app: Any) -> Faulty:
        faulty = Faulty(app, lambda _, body: Verb.CREATE if b"PurchaseCapacityBlock" in body else None)
        faulty.strike(Fault(Verb.CREATE, trouble))
        return faulty

    with serving(around=around) as served:
        adapter = an_adapter(served, tmp_path, attempts=4)
        served.cloud.offerings = [an_offering()]
        with pytest.raises(ProviderError) as caught:
            adapter.reserve(the_block(adapter), a_spec("gc-lost"))
        assert caught.value.outcome_unknown
        assert len(served.cloud.of("PurchaseCapacityBlock")) == 1
        assert [each.token for each in adapter.reservations()] == ["gc-lost"]


# what was bought


def test_what_others_have_reserved_is_not_listed(adapter: Aws, cloud: Cloud) -> None:
    ours = bought(adapter, cloud)
    tagged = [{"Key": "gpucloud-token", "Value": "gc-other"}]
    (facts,) = [each.facts(START, 0) for each in cloud.reservations.values()]
    cloud.others_reservations = [
        {**facts, "CapacityReservationId": "cr-untagged", "Tags": []},
        {**facts, "CapacityReservationId": "cr-plain", "ReservationType": "default", "Tags": tagged},
    ]
    cloud.page_size = 1
    assert list(adapter.reservations()) == [ours]


def test_a_region_whose_reservations_cannot_be_listed_is_not_left_out(adapter: Aws, cloud: Cloud) -> None:
    bought(adapter, cloud)
    cloud.forbidden.add(("ec2:DescribeCapacityReservations", "us-west-2"))
    with pytest.raises(AuthError) as caught:
        list(adapter.reservations())
    assert "ec2:DescribeCapacityReservations" in caught.value.hint


def test_the_setting_for_regions_hides_no_reservation(
    make_adapter: MakeAdapter, adapter: Aws, cloud: Cloud
) -> None:
    ours = bought(adapter, cloud)
    assert list(make_adapter(regions=["us-west-2"]).reservations()) == [ours]


# what runs in it


def test_an_instance_goes_into_the_block_and_takes_room_in_it(adapter: Aws, cloud: Cloud) -> None:
    reservation = bought(adapter, cloud, nodes=2)
    instance = adapter.launch(in_it(reservation), a_spec(reservation=reservation.ref.id))
    asked = cloud.of("RunInstances")[-1].words
    assert asked["InstanceMarketOptions"] == {"MarketType": "capacity-block"}
    assert asked["CapacityReservationSpecification"] == {
        "CapacityReservationTarget": {"CapacityReservationId": reservation.ref.id}
    }
    (machine,) = cloud.instances()
    assert machine.zone == reservation.zone
    assert [each.free for each in adapter.reservations()] == [1]
    assert adapter.get(instance.ref).market is Market.RESERVED
    assert [each.market for each in adapter.instances()] == [Market.RESERVED]


def test_the_room_of_an_instance_that_has_ended_is_free_again(adapter: Aws, cloud: Cloud) -> None:
    reservation = bought(adapter, cloud)
    instance = adapter.launch(in_it(reservation), a_spec(reservation=reservation.ref.id))
    adapter.terminate(instance.ref)
    adapter.get(instance.ref)
    assert [each.free for each in adapter.reservations()] == [1]


def test_nodes_in_a_block_stand_in_no_placement_group_and_have_the_fast_network(
    adapter: Aws, cloud: Cloud
) -> None:
    reservation = bought(adapter, cloud, nodes=2)
    for rank in range(2):
        spec = a_spec(f"gc-{rank}", rank=rank, nodes=2, group="gc-both", reservation=reservation.ref.id)
        adapter.launch(in_it(reservation), spec)
    assert not cloud.placement_groups
    for asked in cloud.of("RunInstances"):
        assert "Placement" not in asked.words
        kinds = [each.get("InterfaceType") for each in asked.words["NetworkInterfaces"]]
        assert kinds == [None] + ["efa-only"] * 32


def test_before_its_time_a_block_takes_nobody(adapter: Aws, cloud: Cloud) -> None:
    reservation = bought(adapter, cloud)
    cloud.now = lambda: START - timedelta(seconds=1)
    with pytest.raises(NoCapacity) as caught:
        adapter.launch(in_it(reservation), a_spec(reservation=reservation.ref.id))
    assert caught.value.vendor_code == "InvalidCapacityReservationState.PendingActivation"
    assert not caught.value.lasting


def test_a_full_block_takes_nobody(adapter: Aws, cloud: Cloud) -> None:
    reservation = bought(adapter, cloud)
    adapter.launch(in_it(reservation), a_spec("gc-1", reservation=reservation.ref.id))
    with pytest.raises(NoCapacity) as caught:
        adapter.launch(in_it(reservation), a_spec("gc-2", reservation=reservation.ref.id))
    assert caught.value.vendor_code == "ReservationCapacityExceeded"
    assert not caught.value.lasting


@pytest.mark.parametrize("id", ["cr-0123456789abcdef0", None])
def test_a_reservation_that_is_not_there_is_refused(adapter: Aws, cloud: Cloud, id: str | None) -> None:
    reservation = bought(adapter, cloud)
    with pytest.raises(Rejected):
        adapter.launch(in_it(reservation), a_spec(reservation=id))
    assert not cloud.instances()
