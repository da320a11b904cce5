"""The shortlist of an answer: whatever SQL would tell is in it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpucloud.catalog.cache import Cache
from gpucloud.catalog.filters import all_of, filters
from gpucloud.market.order import RANK, ordered
from gpucloud.market.shortlist import shortlist
from gpucloud.model import Availability, Gpu, GpuWish, Market, Offer, Requirements
from tests.harness.adapters import WHEN, an_offer

sizes = st.none() | st.sampled_from(["0", "1", "2.9999996", "3", "3.0000004"]).map(Decimal)
places = st.sampled_from([None, "", "eu", "EU-1", "eu_1", "europe", "us%", "Ü-1", "ü"])
offers = st.builds(
    an_offer,
    instance_type=st.sampled_from(["big", "BIG", "small", "größer", "GRÖSSER"]),
    market=st.sampled_from(Market),
    usd_per_hour=st.sampled_from(["0", "1", "1.0000004", "1.0000006", "2", "3"]).map(Decimal),
    gpu=st.sampled_from(
        [None, Gpu("H100"), Gpu("h100", 80, "SXM"), Gpu("H100", 94, "nvl"), Gpu("A100", 40), Gpu("A100", 88)]
    ),
    gpu_count=st.integers(0, 2),
    region=places,
    zone=places,
    country=st.sampled_from([None, "DE", "de", "US"]),
    interconnect=st.sampled_from([None, "NVLink 4", "ib", "100%"]),
    secure=st.sampled_from([None, True, False]),
    verified=st.sampled_from([None, True, False]),
    availability=st.sampled_from(Availability),
    vcpus=st.none() | st.integers(0, 4),
    memory_gib=sizes,
    disk_gib=sizes,
    any_disk=st.booleans(),
    upstream=st.sampled_from([None, None, "acme"]),
)
answers = st.lists(offers, max_size=12, unique_by=lambda offer: offer.id)
RESTRICTIONS: dict[str, st.SearchStrategy[Any]] = {
    "gpus": st.sampled_from(["H100", "H100-80", "h100-SXM", "24GB+:2", "A100:2", "0GB+"]).map(
        lambda wish: (GpuWish.parse(wish),)
    ),
    "markets": st.sampled_from(Market).map(lambda market: (market,)),
    "regions": st.sampled_from(["eu", "EU", "us%", "us-1", "ü", "e_"]).map(lambda name: (name, "none")),
    "countries": st.sampled_from(["DE", "us"]).map(lambda code: (code,)),
    "interconnects": st.sampled_from(["nvlink", "IB", "0%", "_"]).map(lambda word: (word,)),
    "instance_types": st.sampled_from(["big", "Größer", "none"]).map(lambda name: (name,)),
    "max_usd_per_hour": st.sampled_from(["0", "1", "1.0000005", "2.5"]).map(Decimal),
    "min_vcpus": st.integers(0, 4),
    "min_memory_gib": st.integers(0, 4),
    "min_disk_gib": st.integers(0, 4),
    "secure_only": st.just(True),
    "verified_only": st.just(True),
    "where": st.just("vcpus > 1"),
}
# With more of them hardly an offer would be left.
requirements = (
    st.lists(st.sampled_from(sorted(RESTRICTIONS)), max_size=2, unique=True)
    .flatmap(lambda names: st.fixed_dictionaries({name: RESTRICTIONS[name] for name in names}))
    .map(lambda restrictions: Requirements(**{"markets": (), **restrictions}))
)
orders = st.sampled_from([RANK, ordered("availability"), ordered("vram")])


def told(answer: list[Offer] | Any, wanted: Requirements, order: Any, limit: int | None) -> list[str]:
    """What SQL makes of an answer."""
    with Cache(None) as cache:
        cache.put("acme", answer, name="api", at=WHEN)
        matching = cache.select(all_of(filters(wanted).values()), order=order, limit=limit)
    return [offer.id for offer in matching]


@given(answers, requirements, orders, st.none() | st.integers(1, 4))
def test_the_best_of_the_shortlist_are_the_best_of_all(
    answer: list[Offer], wanted: Requirements, order: tuple[str, ...], limit: int | None
) -> None:
    short = shortlist(answer, wanted, order, limit)
    assert told(short, wanted, order, limit) == told(answer, wanted, order, limit)


def test_a_size_counts_as_the_cache_holds_it() -> None:
    almost = an_offer(memory_gib=Decimal("2.9999996"), usd_per_hour=Decimal("1.0000004"))
    wanted = Requirements(min_memory_gib=3, max_usd_per_hour=Decimal(1))
    assert told([almost], wanted, RANK, None) == [almost.id]
    assert shortlist([almost], wanted, RANK, None) == [almost]


def test_what_cannot_be_among_the_best_is_left_out() -> None:
    answer = [an_offer(instance_type=f"type-{n}", usd_per_hour=Decimal(n // 2)) for n in range(100)]
    short = shortlist(answer, Requirements(), RANK, 3)
    assert [offer.usd_per_hour for offer in short] == [0, 0, 1, 1]
