"""The language of --where: what it means, that it never lets in the unknown, and what is said of mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.catalog.cache import Cache
from gpucloud.catalog.columns import COLUMNS, Kind
from gpucloud.catalog.where import DEEPEST, parse
from gpucloud.errors import UsageError
from gpucloud.model import Availability, Gpu, Market, Offer
from tests.harness.adapters import an_offer

NOW = datetime(2026, 11, 1, tzinfo=UTC)

FAST = an_offer(
    instance_type="fast",
    provider="acme",
    usd_per_hour=Decimal("20"),
    gpu=Gpu("H100", 80, "SXM"),
    gpu_count=8,
    region="eu-west-1",
    country="DE",
    market=Market.SPOT,
    availability=Availability.LIMITED,
    vcpus=96,
    memory_gib=Decimal("1.5"),
    inet_down_mbps=900,
    reliability=Decimal("0.99"),
    cuda=Decimal("12.4"),
    driver="550.54_14",
    secure=True,
    verified=False,
    interconnect="NVLink",
)
PLAIN = an_offer(instance_type="plain", provider="acme", usd_per_hour=Decimal("0.5"), vcpus=4, secure=False)
DARK = an_offer(instance_type="dark", provider="acme", usd_per_hour=Decimal("1"), vcpus=None)


@pytest.fixture(scope="module")
def cache() -> Iterator[Cache]:
    with Cache(None) as cache:
        cache.put("acme", [FAST, PLAIN, DARK], name="test", at=NOW)
        yield cache


def types(cache: Cache, where: str) -> set[str]:
    return {offer.instance_type for offer in cache.select(parse(where))}


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("vcpus > 4", "fast"),
        ("vcpus >= 4", "fast plain"),
        ("vcpus<97 and vcpus>3.5", "fast plain"),
        ("vcpus = 96 or vcpus == 4", "fast plain"),
        ("vcpus != 4", "fast"),
        ("not vcpus = 4", "fast"),
        ("not (vcpus = 4 or vcpus = 96)", ""),
        ("vcpus is unknown", "dark"),
        ("vcpus is known", "fast plain"),
        ("vcpus is not known", "dark"),
        ("not vcpus is known", "dark"),
        ("vcpus in (4, 96)", "fast plain"),
        ("not vcpus in (4)", "fast"),
        ("instance_type = FAST", "fast"),
        ("instance_type != fast", "plain dark"),
        ("instance_type ~ LAI", "plain"),
        ("driver ~ '_'", "fast"),
        ("driver ~ '50%'", ""),
        ("driver >= '550'", "fast"),
        ("provider in (Acme, other) and country = de", "fast"),
        ("market = spot", "fast"),
        ("market != SPOT", "plain dark"),
        ("market in (spot, reserved)", "fast"),
        ("availability = limited", "fast"),
        ("secure", "fast"),
        ("not secure", "plain"),
        ("secure = no", "plain"),
        ("verified = false", "fast"),
        ("usd_per_hour <= $0.50", "plain"),
        ("usd_per_gpu_hour < 2.5", ""),
        ("usd_per_gpu_hour <= 2.5", "fast"),
        ("memory_gib > 1GB and memory_gib < 1TB", "fast"),
        ("memory_gib = 1536MB", "fast"),
        ("reliability > 98%", "fast"),
        ("reliability>.995", ""),
        ("cuda >= 12.4", "fast"),
        ("cuda >= 12.41", ""),
        ("vram >= 80GB and gpu_count = 8", "fast"),
        ("gpu = h100-sxm-80 and chip = H100 and form_factor = sxm", "fast"),
        ("id = acme/fast/eu-west-1/spot", "fast"),
        ("bf16_tflops > 7000", "fast"),
        ("VCPUS>4 AND NOT market=ON-DEMAND", "fast"),
        ("vcpus > 1 and vcpus < 5 or country = DE", "fast plain"),
        ("vcpus > 1 and (vcpus < 5 or country = FR)", "plain"),
        ("\tvcpus\n>\n4 ", "fast"),
    ],
)
def test_a_condition_means_what_it_says(cache: Cache, where: str, wanted: str) -> None:
    assert types(cache, where) == set(wanted.split())


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("", "a column must come before the end (character 1)"),
        ("and", "there is no column 'and'"),
        (")", "a column must come before ')'"),
        ("vcpus", "vcpus must be compared with something, before the end"),
        ("vcpus 5", "vcpus must be compared with something, before '5' (character 7)"),
        ("vcpus >", "a value must come before the end"),
        ("vcpus > and", "vcpus is a number, not 'and'"),
        ("vcpus > >", "a value must come before '>'"),
        ("(vcpus > 1", "a closing bracket is missing before the end"),
        ("vcpus > 1)", "'and' or 'or' is missing before ')'"),
        ("vcpus > 1 cuda > 1", "'and' or 'or' is missing before 'cuda' (character 11)"),
        ("vcpus is", "'known' or 'unknown' must come before the end"),
        ("vcpus is 5", "'known' or 'unknown' must come before '5'"),
        ("vcpus in 5", "values in brackets must come before '5'"),
        ("vcpus in ()", "a value must come before ')'"),
        ("vcpus in (5", "a comma or a closing bracket is missing before the end"),
        ("vcpus = many", "vcpus is a number, not 'many'"),
        ("vcpus = 4GB", "vcpus is no such quantity as '4GB'"),
        ("cuda > $12", "cuda is no such quantity as '$12'"),
        ("memory_gib > 50%", "memory_gib is no such quantity as '50%'"),
        ("usd_per_hour < $3GB", "usd_per_hour is no such quantity as '$3GB'"),
        ("vcpus = " + "9" * 30, "vcpus is a number, not"),
        ("market = spto", "market is one of on-demand, spot, reserved, queued, not 'spto'"),
        ("market > spot", "market has no order, only = and != make sense: '>'"),
        ("secure > no", "secure has no order"),
        ("secure = maybe", "secure is yes or no, not 'maybe'"),
        ("vcpus ~ 4", "vcpus is no text, so it contains nothing: '~'"),
        ("driver = 'abc", 'a quotation mark is not closed in "\'abc" (character 10)'),
        ("not " * (DEEPEST + 1) + "secure", "it is nested too deep"),
        ("(" * (DEEPEST + 1), "it is nested too deep"),
        ("secure and " * 500, "characters"),
    ],
)
def test_a_mistake_is_told_with_its_place(where: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(where)
    assert why in f"{caught.value.message}; {caught.value.why}"
    assert "--where" in caught.value.hint or "did you mean" in caught.value.hint


def test_a_mistyped_column_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        parse("inet_dwn > 500")
    assert caught.value.message == "there is no column 'inet_dwn'"
    assert caught.value.hint == "did you mean 'inet_down'?"
    assert all(name in caught.value.why for name in COLUMNS)


def values(name: str) -> list[str]:
    column = COLUMNS[name]
    if column.kind is Kind.CHOICE:
        return list(column.choices)
    if column.kind is Kind.FLAG:
        return ["yes", "no"]
    return ["0", "4", "0.99", "96"] if column.kind is not Kind.TEXT else ["fast", "''", "'a b'"]


comparisons = st.sampled_from(sorted(COLUMNS)).flatmap(
    lambda name: st.builds(
        "{} {} {}".format,
        st.just(name),
        st.sampled_from(["=", "!="] + ["<", ">="] * (COLUMNS[name].kind in {Kind.COUNT, Kind.AMOUNT})),
        st.sampled_from(values(name)),
    )
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=5,
)


@given(one=conditions, other=conditions)
def test_and_narrows_or_widens_and_not_excludes(one: str, other: str) -> None:
    with Cache(None) as cache:
        cache.put("acme", [FAST, PLAIN, DARK], name="test", at=NOW)
        first, second = types(cache, one), types(cache, other)
        assert types(cache, f"{one} and {other}") == first & second
        assert types(cache, f"{one} or ({other})") == first | second
        assert not types(cache, f"not ({one})") & first


@given(column=st.sampled_from(sorted(COLUMNS)))
def test_an_unknown_value_meets_no_comparison(column: str) -> None:
    nothing = Offer("x", "x", Market.SPOT, Decimal(1), NOW, "x")
    with Cache(None) as cache:
        cache.put("x", [nothing], name="test", at=NOW)
        if cache.select(parse(f"{column} is unknown")):
            value = values(column)[0]
            assert cache.select(parse(f"{column} = {value} or {column} != {value}")) == []
            assert cache.select(parse(f"not {column} = {value}")) == []


@given(text=st.text(max_size=60))
def test_any_text_is_a_condition_or_a_mistake(text: str) -> None:
    try:
        condition = parse(text)
    except UsageError:
        return
    with Cache(None) as cache:
        cache.select(condition)
