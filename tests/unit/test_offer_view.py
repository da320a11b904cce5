"""Offers as they are shown: JSON, CSV and tables agree, and every cost is what ``why`` tells."""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpucloud.cli.offer_view import SHOWN, View, priced
from gpucloud.cli.render import out
from gpucloud.cli.why import cost_to_json
from gpucloud.market import SearchResult
from gpucloud.market.cost import Readiness, Work, cost
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from tests.harness.adapters import an_offer

amounts = st.decimals(0, 1000, places=4)
words = st.none() | st.sampled_from(["a b", "tab\there", "new\nline", 'quote"d', "comma, too", "ünï"])
offers = st.builds(
    an_offer,
    provider=st.sampled_from(["runpod", "vast", "unheard-of"]),
    usd_per_hour=amounts,
    market=st.sampled_from(Market),
    gpu=st.sampled_from([None, Gpu("H100", 80, "SXM"), Gpu("A100")]),
    gpu_count=st.integers(0, 8),
    region=words,
    zone=words,
    availability=st.sampled_from(Availability),
    availability_detail=words,
    currency=st.sampled_from(["USD", "EUR"]),
    amount=st.none() | amounts,
    vcpus=st.none() | st.integers(1, 200),
    memory_gib=st.none() | amounts,
    inet_down_mbps=st.none() | st.integers(1, 10_000),
    secure=st.none() | st.booleans(),
    interruptions_per_hour=st.none() | st.decimals(0, 1, places=3),
    disk_usd_per_gib_month=st.none() | amounts,
    egress_usd_per_gib=st.none() | amounts,
)
jobs = st.builds(
    Work,
    hours=st.decimals("0.001", 1_000, places=3),
    disk_gib=st.none() | amounts,
    egress_gib=st.none() | amounts,
    data_gib=st.none() | amounts,
    readiness=st.just(Readiness({"vast": Decimal(60)}, Decimal(600))),
)


def written(offers: list[Offer], work: Work, *, as_json: bool = False, as_csv: bool = False) -> str:
    """What goes to stdout, with every column."""
    shown = priced(work)
    out.json = as_json
    with redirect_stdout(io.StringIO()) as stdout:
        View(tuple(shown), shown, csv=as_csv).write(SearchResult(tuple(offers)))
    out.json = False
    return stdout.getvalue()


def plain(value: Any) -> str:
    """A value of JSON as a table has it."""
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if value is None:
        return "-"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else flat(str(value))


@given(st.lists(offers, max_size=3), jobs)
def test_json_csv_and_table_agree(market: list[Offer], job: Work) -> None:
    market = [replace(offer, as_of=utcnow() - timedelta(days=3)) for offer in market]
    names = list(priced(job))
    document = json.loads(written(market, job, as_json=True))["offers"]
    table = [line.split("\t") for line in written(market, job).split("\n")[:-1]]
    heading, *listed = csv.reader(io.StringIO(written(market, job, as_csv=True)))
    assert heading == names
    assert len(document) == len(table) == len(listed) == len(market)
    for told, row, line in zip(document, table, listed, strict=True):
        assert len(row) == len(line) == len(names)
        for name, cell, field in zip(names, row, line, strict=True):
            assert cell == (flat(field) or "-")
            if name not in {"place", "age"}:
                assert cell.lstrip("~") in {plain(told[name]), rounded(told[name])}


def flat(text: str) -> str:
    """What would break a line of a table becomes a blank."""
    return " ".join(text.split()) if set(text) & set("\t\r\n") else text


def rounded(value: Any) -> str | None:
    """Money as it is rounded for the eye."""
    try:
        return f"{Decimal(str(value)):.2f}"
    except ArithmeticError:
        return None


@given(offers, jobs)
def test_every_cost_that_is_printed_is_what_why_adds_up(offer: Offer, job: Work) -> None:
    (told,) = json.loads(written([offer], job, as_json=True))["offers"]
    why = cost_to_json(cost(offer, job))
    known = [Decimal(term["expected"]) for term in why["terms"] if term["expected"] is not None]
    assert Decimal(told["cost"]) == sum(known)
    assert told["cost"] == why["expected"]
    assert told["cost_worst"] == why["worst"]
    assert told["cost_without"] == list(why["unknown"])


def test_every_column_has_a_heading_of_its_own() -> None:
    headings = [column.heading for column in SHOWN.values()]
    assert len(set(headings)) == len(headings)
