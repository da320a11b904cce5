"""The nouns: how GPUs are read and compared, and what offers, instances and clusters tell of themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.model import (
    Cluster,
    ClusterState,
    Gpu,
    GpuWish,
    Instance,
    InstanceRef,
    InstanceState,
    JobState,
    Market,
    Offer,
    Rental,
    RentalState,
    utcnow,
)

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)

CHIPS = ("H100", "A100", "RTX4090", "L40S", "MI300X", "RTX6000Ada", "B200", "RadeonVII", "Trainium", "4090")
gpus = st.builds(
    Gpu,
    st.sampled_from(CHIPS),
    st.none() | st.integers(1, 999),
    st.sampled_from([None, "SXM", "PCIe", "NVL", "OAM"]),
)
wishes = st.one_of(
    st.builds(GpuWish, st.integers(1, 99_999), gpus),
    st.builds(GpuWish, st.integers(1, 99_999), st.none(), st.integers(0, 9999)),
)


def an_offer(**changes: object) -> Offer:
    plain = Offer("acme", "big", Market.SPOT, Decimal(8), NOW, "price list")
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        ("H100", Gpu("H100")),
        ("  H100  ", Gpu("H100")),
        ("rtx4090", Gpu("rtx4090")),
        ("RTX-4090", Gpu("RTX4090")),
        ("RTX 4090", Gpu("RTX4090")),
        ("RTX-4090-24", Gpu("RTX4090", 24)),
        ("RTX_4090_24GB", Gpu("RTX4090", 24)),
        ("4090", Gpu("4090")),
        ("RTX-6000-Ada-48", Gpu("RTX6000Ada", 48)),
        ("RTX-2080-Ti", Gpu("RTX2080Ti")),
        ("A100-80GB", Gpu("A100", 80)),
        ("A100-80GiB", Gpu("A100", 80)),
        ("a100-80g", Gpu("a100", 80)),
        ("GH200-480", Gpu("GH200", 480)),
        ("MI300X", Gpu("MI300X")),
        ("MI300X-192", Gpu("MI300X", 192)),
        ("H100-SXM-80", Gpu("H100", 80, "SXM")),
        ("H100-80-SXM", Gpu("H100", 80, "SXM")),
        ("H100-sxm5-80", Gpu("H100", 80, "SXM")),
        ("H100 SXM5", Gpu("H100", None, "SXM")),
        ("SXM5-H100", Gpu("H100", None, "SXM")),
        ("V100-SXM2-16GB", Gpu("V100", 16, "SXM")),
        ("H100-pcie", Gpu("H100", None, "PCIe")),
        ("A100 80GB PCIe", Gpu("A100", 80, "PCIe")),
        ("H100-NVL-94", Gpu("H100", 94, "NVL")),
        ("MI300X-OAM", Gpu("MI300X", None, "OAM")),
        ("Radeon-VII", Gpu("RadeonVII")),
        ("Radeon-VII-16GB", Gpu("RadeonVII", 16)),
        ("Trainium-32GB", Gpu("Trainium", 32)),
    ],
)
def test_a_gpu_is_read_as_vendors_and_people_write_it(text: str, gpu: Gpu) -> None:
    assert Gpu.parse(text) == gpu


@pytest.mark.parametrize("text", ["", "   ", "-", "--", "SXM", "SXM5-PCIe", "80GB", "24GB", "SXM-80GB"])
def test_a_text_without_a_chip_is_no_gpu(text: str) -> None:
    with pytest.raises(ValueError, match="names no GPU"):
        Gpu.parse(text)


@pytest.mark.parametrize("text", ["H100-0", "H100-SXM-0GB"])
def test_a_gpu_without_memory_is_refused_because_zero_never_means_unknown(text: str) -> None:
    with pytest.raises(ValueError, match="without memory"):
        Gpu.parse(text)


@given(gpus)
def test_a_gpu_is_read_back_as_it_was_written(gpu: Gpu) -> None:
    assert Gpu.parse(str(gpu)) == gpu


def test_a_gpu_is_written_as_the_design_spells_it() -> None:
    assert str(Gpu("H100", 80, "SXM")) == "H100-SXM-80"
    assert str(Gpu("H100", None, "PCIe")) == "H100-PCIe"
    assert str(Gpu("H100")) == "H100"


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("H100", GpuWish(1, Gpu("H100"))),
        ("H100:8", GpuWish(8, Gpu("H100"))),
        ("H100:08", GpuWish(8, Gpu("H100"))),
        (" H100:8 ", GpuWish(8, Gpu("H100"))),
        ("H100x8", GpuWish(8, Gpu("H100"))),
        ("A100x2", GpuWish(2, Gpu("A100"))),
        ("L40Sx4", GpuWish(4, Gpu("L40S"))),
        ("8xH100", GpuWish(8, Gpu("H100"))),
        ("A100-80GBx8", GpuWish(8, Gpu("A100", 80))),
        ("H100-SXMx8", GpuWish(8, Gpu("H100", None, "SXM"))),
        ("rtx4090", GpuWish(1, Gpu("rtx4090"))),
        ("rtx4090x2", GpuWish(2, Gpu("rtx4090"))),
        ("RTX-4090", GpuWish(1, Gpu("RTX4090"))),
        ("RTX-4090-24", GpuWish(1, Gpu("RTX4090", 24))),
        ("H100-SXM-80:8", GpuWish(8, Gpu("H100", 80, "SXM"))),
        ("H100-SXM5-80:8", GpuWish(8, Gpu("H100", 80, "SXM"))),
        ("A100-80GB", GpuWish(1, Gpu("A100", 80))),
        ("MI300X", GpuWish(1, Gpu("MI300X"))),
        ("MI300X:8", GpuWish(8, Gpu("MI300X"))),
        ("MI300Xx8", GpuWish(8, Gpu("MI300X"))),
        ("24GB+", GpuWish(1, None, 24)),
        ("24gb+", GpuWish(1, None, 24)),
        ("24 GB+", GpuWish(1, None, 24)),
        ("24+", GpuWish(1, None, 24)),
        ("24GB+:8", GpuWish(8, None, 24)),
    ],
)
def test_a_wish_is_read_as_people_type_it(text: str, wish: GpuWish) -> None:
    assert GpuWish.parse(text) == wish


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":", ":8", "H100:", "H100:0", "H100x0", "H100:-1", "H100:x", "H100:8:8", "H100:1.5",
        "H100:1e3", "H100:nan", "H100:\u0663", "H\u0661\u0660\u0660", "\uff18\uff10GB+", "24.5GB+", "GB+",
        "+", "-24GB+", "24GB", "H100;reboot", "H100|A100", "H100,A100", "$(id)", "H100:9999999999",
        "H100\x00", "H100-0", "*",
    ],
)  # fmt: skip
def test_nonsense_is_no_wish(text: str) -> None:
    with pytest.raises(ValueError):
        GpuWish.parse(text)


@given(wishes)
def test_a_wish_is_read_back_as_it_was_written(wish: GpuWish) -> None:
    assert GpuWish.parse(str(wish)) == wish


@given(st.text(max_size=30))
def test_reading_a_wish_never_fails_in_another_way_than_it_says(text: str) -> None:
    try:
        wish = GpuWish.parse(text)
    except ValueError:
        return
    assert wish.count >= 1
    assert (wish.gpu is None) != (wish.min_memory_gib is None)


@pytest.mark.parametrize(
    ("wish", "gpu", "count"),
    [
        ("H100", "H100", 1),
        ("H100", "H100-SXM-80", 1),
        ("h100:8", "H100-PCIe-80", 8),
        ("rtx-4090", "RTX4090-24", 1),
        ("RTX 4090", "rtx4090", 1),
        ("H100-SXM", "H100-SXM5-80", 1),
        ("H100-sxm5-80", "H100-SXM-80", 1),
        ("B200-192", "B200-180", 1),
        ("B200-192", "B200-179", 1),
        ("B200-179", "B200-192", 1),
        ("B200-180", "B200-192", 1),
        ("A100-80", "A100-80", 1),
        ("A10-24", "A10-22", 1),
        ("24GB+", "RTX4090-24", 1),
        ("24GB+:2", "H100-80", 2),
        ("0GB+", "T4-16", 1),
    ],
)
def test_a_wish_accepts_what_is_the_same_under_another_spelling(wish: str, gpu: str, count: int) -> None:
    assert GpuWish.parse(wish).accepts(Gpu.parse(gpu), count)


@pytest.mark.parametrize(
    ("wish", "gpu", "count"),
    [
        ("H100", "H200", 1),
        ("A10", "A100", 1),
        ("A10", "A10G", 1),
        ("L40", "L40S", 1),
        ("MI300", "MI300X", 1),
        ("RTX-3080", "RTX-3080-Ti", 1),
        ("H100", "H100", 8),
        ("H100:8", "H100", 1),
        ("H100:8", "H100", 4),
        ("A100-40", "A100-80", 1),
        ("A100-80", "A100-40", 1),
        ("H100-80", "H100-94", 1),
        ("H100-94", "H100-80", 1),
        ("V100-16", "V100-32", 1),
        ("H100-80", "H100", 1),
        ("H100-SXM", "H100", 1),
        ("H100-SXM", "H100-PCIe", 1),
        ("H100-PCIe", "H100-NVL", 1),
        ("24GB+", "T4-16", 1),
        ("24GB+", "RTX4090", 1),
        ("24GB+", "RTX4090-24", 2),
        ("0GB+", "RTX4090", 1),
    ],
)
def test_a_wish_does_not_accept_another_product_or_an_unknown_one(wish: str, gpu: str, count: int) -> None:
    assert not GpuWish.parse(wish).accepts(Gpu.parse(gpu), count)


@given(wishes)
def test_no_wish_accepts_a_machine_without_gpu(wish: GpuWish) -> None:
    assert not wish.accepts(None, 0)
    assert not wish.accepts(None, wish.count)


@given(gpus, st.integers(1, 16))
def test_a_wish_for_exactly_what_there_is_accepts_it(gpu: Gpu, count: int) -> None:
    assert GpuWish(count, gpu).accepts(gpu, count)


@given(gpus, gpus)
def test_whether_two_gpus_have_the_same_memory_does_not_depend_on_who_asks(one: Gpu, other: Gpu) -> None:
    other = replace(other, chip=one.chip, form_factor=one.form_factor)
    if one.memory_gib and other.memory_gib:
        assert GpuWish(1, one).accepts(other, 1) == GpuWish(1, other).accepts(one, 1)


@pytest.mark.parametrize(
    ("region", "zone", "name"),
    [
        ("us-east", "us-east-1a", "acme/big/us-east-1a/spot"),
        ("us-east", None, "acme/big/us-east/spot"),
        (None, None, "acme/big/-/spot"),
    ],
)
def test_an_offer_is_named_after_provider_type_place_and_market(
    region: str | None, zone: str | None, name: str
) -> None:
    assert an_offer(region=region, zone=zone).id == name


def test_the_name_of_an_offer_does_not_change_with_its_price_or_stock() -> None:
    offer = an_offer(region="us-east")
    assert replace(offer, usd_per_hour=Decimal(9), as_of=NOW + timedelta(days=1), ref="other").id == offer.id


def test_the_price_for_each_gpu_is_exact_and_unknown_without_gpus() -> None:
    assert an_offer(gpu=Gpu("H100"), gpu_count=8, usd_per_hour=Decimal("31.92")).usd_per_gpu_hour == Decimal(
        "3.99"
    )
    assert an_offer(usd_per_hour=Decimal(0), gpu_count=2).usd_per_gpu_hour == 0
    assert an_offer(gpu_count=0).usd_per_gpu_hour is None


@pytest.mark.parametrize("price", ["NaN", "sNaN", "Infinity", "-Infinity", "-0.01"])
def test_an_offer_cannot_have_a_price_that_makes_no_sense(price: str) -> None:
    with pytest.raises(ValueError, match="the price of acme/big"):
        an_offer(usd_per_hour=Decimal(price))


def a_rental(rank: int, usd_per_hour: Decimal | None) -> Rental:
    return Rental(
        token=f"gc-{rank}",
        cluster_id=1,
        rank=rank,
        state=RentalState.REACHABLE,
        provider="acme",
        instance_type="big",
        market=Market.ON_DEMAND,
        intended_at=NOW,
        usd_per_hour=usd_per_hour,
    )


def a_cluster(*prices: Decimal | None) -> Cluster:
    rentals = tuple(a_rental(rank, price) for rank, price in enumerate(prices))
    return Cluster(1, "train", ClusterState.READY, len(prices), NOW, rentals=rentals)


def test_a_cluster_costs_what_its_instances_cost_together() -> None:
    assert a_cluster(Decimal("1.10"), Decimal("2.20")).usd_per_hour == Decimal("3.30")
    assert a_cluster().usd_per_hour == 0
    assert a_cluster(Decimal(0), Decimal(0)).usd_per_hour == 0


@pytest.mark.parametrize("prices", [(None,), (Decimal(1), None), (None, Decimal(0)), (None, None)])
def test_a_cluster_with_an_unknown_price_has_an_unknown_price(prices: tuple[Decimal | None, ...]) -> None:
    assert a_cluster(*prices).usd_per_hour is None


@pytest.mark.parametrize("state", list(InstanceState))
def test_only_a_terminated_instance_is_surely_over(state: InstanceState) -> None:
    instance = Instance("acme", InstanceRef("i-1"), state)
    assert instance.alive == (state is not InstanceState.TERMINATED)


def test_a_job_is_over_in_four_of_its_states() -> None:
    over = {state for state in JobState if state.over}
    assert over == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.INTERRUPTED}


def test_the_current_time_is_aware_and_utc() -> None:
    assert utcnow().utcoffset() == timedelta(0)
