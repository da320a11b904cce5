"""The embedded price list: that it keeps its rules, that each rule bites, and what offers it makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, date
from decimal import Decimal

import pytest

from gpucloud.catalog.currencies import to_usd
from gpucloud.catalog.names import normalise
from gpucloud.catalog.prices import PER_GPU, PER_INSTANCE, Price, prices, problems, rows
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow

TODAY = date(2026, 11, 21)
ROWS = rows()
GOOD = Price(
    provider="acme",
    instance_type="",
    gpu="H100-SXM-80",
    gpu_count="8",
    market="on-demand",
    secure="",
    note="",
    amount="3.00",
    currency="USD",
    basis=PER_GPU,
    region="",
    as_of="2026-11-01",
    source="acme.example/pricing",
    confidence="A",
)


def beside_others(row: Price) -> list[Price]:
    """A list, sorted, in which only ``row`` can be wrong."""
    others = [replace(GOOD, provider=name) for name in ("aaa", "bbb", "ccc")]
    return sorted([*others, row], key=lambda price: price.key)


def test_the_list_has_no_problem() -> None:
    assert problems(ROWS, utcnow().date()) == []
    assert len(ROWS) > 150


def test_a_good_row_has_no_problem() -> None:
    assert problems(beside_others(GOOD), TODAY) == []


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"amount": "0"}, "not above zero"),
        ({"amount": "-1"}, "not above zero"),
        ({"amount": ""}, "is no price"),
        ({"amount": "NaN"}, "is no price"),
        ({"amount": "three"}, "is no price"),
        ({"gpu_count": "0"}, "is no price"),
        ({"gpu_count": ""}, "is no price"),
        ({"basis": "per_rack"}, "is no price"),
        ({"gpu": "Imaginary9999"}, "is not how the GPU table writes any GPU"),
        ({"gpu": "H100 SXM"}, "is not how the GPU table writes any GPU"),
        ({"gpu": "h100-SXM-80"}, "is not how the GPU table writes any GPU"),
        ({"gpu": "H100-SXM-40"}, "is not how the GPU table writes any GPU"),
        ({"gpu": "H100-OAM"}, "is not how the GPU table writes any GPU"),
        ({"gpu": ""}, "is not how the GPU table writes any GPU"),
        ({"market": "on_demand"}, "the market 'on_demand' is none of on-demand, spot"),
        ({"currency": "XYZ"}, "no rate for the currency 'XYZ'"),
        ({"as_of": ""}, "the date is missing"),
        ({"as_of": "undated"}, "the date is missing"),
        ({"as_of": "2026-13"}, "the date is missing"),
        ({"as_of": "2026-11-22"}, "is of the future"),
        ({"as_of": "2027"}, "is of the future"),
        ({"source": " "}, "the source is missing"),
        ({"provider": ""}, "the provider is missing"),
        ({"secure": "maybe"}, "secure is 'maybe'"),
        ({"confidence": "D"}, "the confidence 'D' is none of A, B, C"),
        ({"amount": "30.01"}, "$30.0100 per GPU is far from $3.0000"),
        ({"amount": "0.29"}, "$0.2900 per GPU is far from $3.0000"),
        ({"amount": "300", "basis": PER_INSTANCE}, "$37.5000 per GPU is far from $3.0000"),
        ({"amount": "6000", "currency": "JPY"}, "per GPU is far from $3.0000"),
    ],
)
def test_each_rule_bites_alone(changes: dict[str, str], finding: str) -> None:
    (only,) = problems(beside_others(replace(GOOD, **changes)), TODAY)
    assert finding in only


@pytest.mark.parametrize("amount", ["30.00", "0.30"])
def test_ten_times_the_median_is_not_yet_sudden(amount: str) -> None:
    assert problems(beside_others(replace(GOOD, amount=amount)), TODAY) == []


def test_another_market_has_a_median_of_its_own() -> None:
    assert problems(beside_others(replace(GOOD, market="spot", amount="0.10")), TODAY) == []


def test_a_price_that_is_there_twice_is_told_once() -> None:
    twice = [*beside_others(GOOD), replace(GOOD, provider="ccc", amount="3.10")]
    (only,) = problems(sorted(twice, key=lambda price: price.key), TODAY)
    assert only == "ccc H100-SXM-80:8 on-demand as of 2026-11-01: is there twice"


def test_what_is_out_of_order_is_told() -> None:
    first, second, *rest = beside_others(GOOD)
    (only,) = problems([second, first, *rest], TODAY)
    assert "aaa" in only
    assert "sorts before it" in only


def test_problems_of_several_rows_are_all_told() -> None:
    bad = [replace(GOOD, provider=name, market="", source="") for name in ("x", "y")]
    assert len(problems(beside_others(GOOD) + bad, TODAY)) == 4
    assert problems([], TODAY) == []


@pytest.mark.parametrize(
    ("as_of", "day"), [("2026-11-09", (2026, 11, 9)), ("2026-06", (2026, 6, 1)), ("2026", (2026, 1, 1))]
)
def test_a_day_is_never_later_than_the_source_says(as_of: str, day: tuple[int, int, int]) -> None:
    assert replace(GOOD, as_of=as_of).day == date(*day)


def test_the_cells_are_clean_and_the_gpus_spelt_as_everywhere() -> None:
    for row in ROWS:
        cells = [str(getattr(row, field.name)) for field in fields(row)]
        assert cells == [cell.strip() for cell in cells]
        assert str(normalise(row.gpu)) == row.gpu == str(Gpu.parse(row.gpu))


@pytest.mark.parametrize("offer", prices(), ids=lambda offer: offer.id)
def test_an_offer_says_where_and_when_and_promises_nothing(offer: Offer) -> None:
    assert offer.source
    assert offer.as_of.tzinfo is UTC
    assert offer.as_of <= utcnow()
    assert (offer.as_of.hour, offer.as_of.minute) == (0, 0)
    assert offer.confidence in {"A", "B", "C"}
    assert offer.availability is Availability.UNKNOWN
    assert offer.ref == ""
    assert offer.instance_type
    assert offer.amount
    assert offer.usd_per_hour == to_usd(offer.amount, offer.currency, {}).usd


def test_ids_are_apart() -> None:
    ids = [offer.id for offer in prices()]
    assert len(set(ids)) == len(ids)


def test_only_the_newest_price_of_a_line_is_offered() -> None:
    lines: dict[Sequence[str], list[Price]] = {}
    for row in ROWS:
        lines.setdefault(row.line, []).append(row)
    assert len(prices()) == len(lines) < len(ROWS)
    expected = sorted(max(row.day for row in members) for members in lines.values())
    assert expected == sorted(offer.as_of.date() for offer in prices())


def test_both_bases_come_back_as_the_price_of_one_gpu() -> None:
    assert {row.basis for row in ROWS} == {PER_GPU, PER_INSTANCE}
    for row in ROWS:
        count = int(row.gpu_count)
        back = row.total / count if row.basis == PER_GPU else row.total
        assert back == Decimal(row.amount)
    per_instance = replace(GOOD, amount="24.00", basis=PER_INSTANCE)
    assert per_instance.total == GOOD.total == Decimal("24.00")


def test_what_one_line_says_is_what_its_offer_says() -> None:
    offers = {offer.id: offer for offer in prices()}
    p5 = offers["aws/p5.48xlarge/us-east-1/on-demand"]
    assert (str(p5.gpu), p5.gpu_count, p5.usd_per_hour) == ("H100-SXM-80", 8, Decimal("55.04"))
    assert p5.usd_per_gpu_hour == Decimal("6.88")
    community = offers["runpod/H100-SXM-80:1+community/-/on-demand"]
    assert (community.secure, community.market) == (False, Market.ON_DEMAND)
    assert offers["runpod/H100-SXM-80:1+secure/-/on-demand"].usd_per_hour == Decimal("3.99")
    lambda_node = offers["lambda/H100-SXM-80:8/-/on-demand"]
    assert (lambda_node.usd_per_hour, lambda_node.region) == (Decimal("31.92"), None)


def test_nothing_heavy_is_loaded_for_it() -> None:
    code = (
        "import sys; from gpucloud.catalog import prices; prices.prices();"
        "heavy = {'pydantic', 'httpx', 'rich', 'sqlite3', 'statistics', 'asyncio', 'gpucloud.catalog.names'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
