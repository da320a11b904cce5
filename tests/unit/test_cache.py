"""The offer cache: what it gives back, what it forgets, and that it costs nobody anything when it is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.catalog.cache import Cache, SourceKind
from gpucloud.catalog.filters import all_of, filters
from gpucloud.errors import StoreError
from gpucloud.model import Availability, Gpu, GpuWish, Market, Offer, Requirements
from tests.harness.adapters import an_offer

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)

PUBLISHED = SourceKind.PUBLISHED


def seen(**changes: object) -> Offer:
    return an_offer(**{"as_of": NOW, "source": "api", **changes})


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "market.db") as cache:
        yield cache


def types(cache: Cache) -> list[str]:
    return [offer.instance_type for offer in cache.select()]


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
amounts = st.decimals(0, 10_000, places=6)
gpus = st.builds(
    Gpu,
    st.sampled_from(["H100", "A100", "RTX4090", "Unheard Of"]),
    st.none() | st.sampled_from([24, 40, 80, 94]),
    st.none() | st.sampled_from(["SXM", "PCIe"]),
)
offers = st.builds(
    Offer,
    provider=st.just("acme"),
    instance_type=names,
    market=st.sampled_from(Market),
    usd_per_hour=amounts,
    as_of=st.datetimes(datetime(2024, 1, 1), datetime(2026, 11, 1)).map(
        lambda at: at.replace(microsecond=0, tzinfo=UTC)
    ),
    source=names,
    gpu=st.none() | gpus,
    gpu_count=st.integers(0, 8),
    region=st.none() | st.sampled_from(["eu-west-1", "us-east", "EU", "eu_1", "e%-1"]),
    zone=st.none() | names,
    availability=st.sampled_from(Availability),
    currency=st.sampled_from(["USD", "EUR"]),
    amount=st.none() | st.decimals(0, 100, places=12),
    confidence=st.sampled_from(["live", "A"]),
    vcpus=st.none() | st.integers(0, 256),
    memory_gib=st.none() | amounts,
    disk_gib=st.none() | amounts,
    ref=st.just("") | names,
    availability_detail=st.none() | names,
    country=st.none() | st.sampled_from(["DE", "us"]),
    interconnect=st.none() | st.sampled_from(["nvlink", "NVLink, ib"]),
    secure=st.none() | st.booleans(),
    verified=st.none() | st.booleans(),
    inet_down_mbps=st.none() | st.integers(0, 10_000),
    inet_up_mbps=st.none() | st.integers(0, 10_000),
    reliability=st.none() | st.decimals(0, 1, places=6),
    cuda=st.none() | st.decimals(10, 14, places=1),
    driver=st.none() | names,
    disk_usd_per_gib_month=st.none() | amounts,
    egress_usd_per_gib=st.none() | amounts,
    interruptions_per_hour=st.none() | st.decimals(0, 1, places=6),
)


@given(offers)
def test_an_offer_comes_back_as_it_was_seen(offer: Offer) -> None:
    with Cache(None) as cache:
        cache.put("acme", [offer], name="api", at=NOW)
        (found,) = cache.select()
    # Answers of one moment are as of that moment.
    moment = NOW if NOW - offer.as_of <= timedelta(minutes=1) else offer.as_of
    assert found == replace(offer, as_of=moment)


def test_offers_come_best_first_and_ties_in_a_fixed_order(cache: Cache) -> None:
    listed = [seen(instance_type=name, usd_per_hour=Decimal(price)) for name, price in ("c1", "b2", "a2")]
    cache.put("acme", listed, name="api", at=NOW)
    found = cache.select(order=["offers.usd_per_hour"])
    assert [offer.instance_type for offer in found] == ["c", "a", "b"]
    assert cache.select(order=["offers.usd_per_hour"], limit=2) == found[:2]
    assert cache.count() == 3


def test_an_unchanged_answer_changes_no_offer(cache: Cache) -> None:
    listed = [seen(instance_type=str(number), gpu=Gpu("H100", 80)) for number in range(5)]
    assert cache.put("acme", listed, name="api", at=NOW) == 5
    assert cache.put("acme", [replace(o, as_of=LATER) for o in listed], name="api", at=LATER) == 0
    assert {offer.as_of for offer in cache.select()} == {LATER}


def test_what_changed_came_or_went_is_counted_and_no_more_than_that(cache: Cache) -> None:
    old, dearer, gone = (seen(instance_type=name) for name in ("old", "dearer", "gone"))
    cache.put("acme", [old, dearer, gone], name="api", at=NOW)
    cache.put("other", [seen(provider="other")], name="api", at=NOW)
    now = [
        replace(old, as_of=LATER),
        replace(dearer, as_of=LATER, usd_per_hour=Decimal(2)),
        seen(instance_type="new"),
    ]
    assert cache.put("acme", now, name="api", at=LATER) == 3
    assert sorted(types(cache)) == ["big", "dearer", "new", "old"]


def test_an_answer_to_a_narrow_question_leaves_the_rest(cache: Cache) -> None:
    cheap, dear, spot = (
        seen(instance_type="cheap"),
        seen(instance_type="dear", usd_per_hour=Decimal(9)),
        seen(instance_type="spot", market=Market.SPOT),
    )
    cache.put("acme", [cheap, dear, spot], name="api", at=NOW)
    wanted = all_of(filters(Requirements(max_usd_per_hour=Decimal(5))).values())
    cache.put("acme", [seen(instance_type="new", as_of=LATER)], name="api", at=LATER, wanted=wanted)
    assert sorted(types(cache)) == ["dear", "new", "spot"]
    (source,) = cache.sources()
    assert (source.complete_at, source.asked_at) == (NOW, LATER)


def test_what_was_left_is_as_of_when_it_was_seen(cache: Cache) -> None:
    cache.put("acme", [seen(instance_type="dear", usd_per_hour=Decimal(9))], name="api", at=NOW)
    wanted = all_of(filters(Requirements(max_usd_per_hour=Decimal(5))).values())
    cache.put("acme", [seen(instance_type="new", as_of=LATER)], name="api", at=LATER, wanted=wanted)
    assert {o.instance_type: o.as_of for o in cache.select()} == {"dear": NOW, "new": LATER}


def test_a_source_that_tells_the_same_again_is_as_of_now(cache: Cache) -> None:
    for part in ("east", "west"):
        cache.put("acme", [seen()], name="site", kind=PUBLISHED, part=part, at=NOW, validator='"etag"')
    cache.unchanged("acme", "west", LATER)
    east, west = cache.sources()
    assert (east.asked_at, east.complete_at) == (NOW, NOW)
    assert (west.asked_at, west.complete_at) == (LATER, LATER)
    assert cache.validators(PUBLISHED) == {("acme", "east"): '"etag"', ("acme", "west"): '"etag"'}


def test_a_part_of_a_catalogue_is_replaced_as_a_whole_and_alone(cache: Cache) -> None:
    for part in ("east", "west"):
        cache.put("acme", [seen(region=part)], name="site", kind=PUBLISHED, part=part, at=NOW)
    changed = cache.put("acme", [], name="site", kind=PUBLISHED, part="west", at=LATER)
    assert changed == 1
    assert [offer.region for offer in cache.select()] == ["east"]


def test_a_list_of_prices_and_live_offers_of_one_provider_do_not_mix(cache: Cache) -> None:
    cache.put("acme", [seen(confidence="A", source="page")], name="page", kind=SourceKind.LISTED, at=NOW)
    cache.put("acme", [seen(usd_per_hour=Decimal(2))], name="api", at=NOW)
    assert sorted(offer.confidence for offer in cache.select()) == ["A", "live"]
    cache.put("acme", [], name="api", at=LATER)
    assert [offer.confidence for offer in cache.select()] == ["A"]


wishes = st.lists(
    st.builds(GpuWish, st.integers(1, 8), gpus)
    | st.builds(GpuWish, st.integers(1, 8), st.none(), st.sampled_from([24, 41, 80])),
    max_size=2,
).map(tuple)
requirements = st.builds(
    Requirements,
    gpus=wishes,
    markets=st.sets(st.sampled_from(Market), max_size=2).map(tuple),
    regions=st.sets(st.sampled_from(["eu", "eu-west-1", "us", "e%"]), max_size=2).map(tuple),
    instance_types=st.just(()),
    max_usd_per_hour=st.none() | amounts,
    min_vcpus=st.none() | st.integers(0, 256),
    min_memory_gib=st.none() | st.integers(0, 10_000),
    min_disk_gib=st.none() | st.integers(0, 10_000),
    countries=st.sampled_from([(), ("de",), ("US", "FR")]),
    interconnects=st.sampled_from([(), ("nvlink",), ("ib", "roce")]),
    secure_only=st.booleans(),
    verified_only=st.booleans(),
)


def fits(offer: Offer, wanted: Requirements) -> bool:
    """What the filters mean, said once more without SQL."""

    def at_least(found: int | Decimal | None, least: int | None) -> bool:
        return least is None or (found is not None and found >= least)

    def in_region(name: str) -> bool:
        places = [place.casefold() for place in (offer.region, offer.zone) if place]
        return name in places or (offer.region or "").casefold().startswith((f"{name}-", f"{name}_"))

    return (
        (not wanted.gpus or any(wish.accepts(offer.gpu, offer.gpu_count) for wish in wanted.gpus))
        and (not wanted.markets or offer.market in wanted.markets)
        and (not wanted.regions or any(map(in_region, wanted.regions)))
        and (not wanted.countries or (offer.country or "").upper() in map(str.upper, wanted.countries))
        and (
            not wanted.interconnects
            or any(word in (offer.interconnect or "").lower() for word in wanted.interconnects)
        )
        and (not wanted.secure_only or offer.secure is True)
        and (not wanted.verified_only or offer.verified is True)
        and at_least(offer.vcpus, wanted.min_vcpus)
        and at_least(offer.memory_gib, wanted.min_memory_gib)
        and at_least(offer.disk_gib, wanted.min_disk_gib)
        and (wanted.max_usd_per_hour is None or offer.usd_per_hour <= wanted.max_usd_per_hour)
    )


@given(st.lists(offers, max_size=6, unique_by=lambda offer: offer.id), requirements)
def test_filters_let_through_what_fits_and_nothing_else(listed: list[Offer], wanted: Requirements) -> None:
    with Cache(None) as cache:
        cache.put("acme", listed, name="api", at=NOW)
        found = {offer.id for offer in cache.select(all_of(filters(wanted).values()))}
    assert found == {offer.id for offer in listed if fits(offer, wanted)}


@given(requirements, requirements)
def test_a_filter_more_never_widens(one: Requirements, other: Requirements) -> None:
    listed = [seen(instance_type=str(n), vcpus=n, gpu=Gpu("H100", 80), gpu_count=n) for n in range(4)]
    with Cache(None) as cache:
        cache.put("acme", listed, name="api", at=NOW)
        found = cache.select(all_of(filters(one).values()))
        both = cache.select(all_of([*filters(one).values(), *filters(other).values()]))
    assert {offer.id for offer in both} <= {offer.id for offer in found}


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "market.db"
    file.write_bytes(content)
    with Cache(file) as cache:
        cache.put("acme", [seen()], name="api", at=NOW)
    with Cache(file) as cache:
        assert types(cache) == ["big"]


def test_a_file_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "market.db"
    with Cache(file) as cache:
        cache.put("acme", [seen()], name="api", at=NOW)
    db = sqlite3.connect(file)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with Cache(file) as cache:
        assert types(cache) == []


def test_the_file_is_private_and_survives(tmp_path: Path) -> None:
    file = tmp_path / "new" / "market.db"
    with Cache(file) as cache:
        cache.put("acme", [seen()], name="api", at=NOW)
    assert file.stat().st_mode & 0o777 == 0o600
    with Cache(file) as cache:
        assert types(cache) == ["big"]


def test_a_file_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StoreError, match="the offer cache cannot be used"):
        Cache(tmp_path / "taken" / "market.db")


def test_an_answer_that_breaks_off_changes_nothing(cache: Cache) -> None:
    cache.put("acme", [seen()], name="api", at=NOW)

    def broken() -> Iterator[Offer]:
        yield seen(instance_type="new")
        raise ValueError("garbage")

    with pytest.raises(ValueError, match="garbage"):
        cache.put("acme", broken(), name="api", at=LATER)
    assert types(cache) == ["big"]
    assert cache.sources()[0].asked_at == NOW


def test_two_processes_may_use_it_at_once(tmp_path: Path) -> None:
    with Cache(tmp_path / "market.db") as one, Cache(tmp_path / "market.db") as other:
        one.put("acme", [seen()], name="api", at=NOW)
        assert types(other) == ["big"]
        other.put("other", [seen(provider="other", instance_type="small")], name="api", at=NOW)
        assert sorted(types(one)) == ["big", "small"]
