"""Fields that many vendors' replies have: what makes no sense is unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from gpucloud.errors import BadReply, NoCapacity
from gpucloud.refusals import Refusal
from gpucloud.replies import understood
from gpucloud.wire import Amount, Count, Price, Text


class Row(BaseModel):
    amount: Amount = None
    price: Price = None
    count: Count = None
    text: Text = None


@pytest.mark.parametrize("value", ["NaN", "inf", -1, "-0.1", True, None, [], {}, "1,5", "", 10**9, 1e300])
def test_what_makes_no_sense_is_unknown(value: Any) -> None:
    row = Row.model_validate({"amount": value, "price": value, "count": value})
    assert (row.amount, row.price, row.count) == (None, None, None)


@pytest.mark.parametrize(("value", "number"), [(1.1, "1.1"), (" 2.50 ", "2.50"), (3, "3"), ("4e-1", "0.4")])
def test_numbers_come_as_numbers_and_as_texts(value: Any, number: str) -> None:
    assert Row.model_validate({"amount": value}).amount == Decimal(number)
    assert Row.model_validate({"price": value}).price == Decimal(number)


def test_nothing_is_an_amount_and_no_price() -> None:
    row = Row.model_validate({"amount": 0, "price": "0.00", "count": 0, "text": "  "})
    assert (row.amount, row.price, row.count, row.text) == (Decimal(0), None, 0, None)
    row = Row.model_validate({"count": "8.0", "text": 7})
    assert (row.count, row.text, Row.model_validate({"count": 1.5}).count) == (8, None, None)


@pytest.mark.parametrize(
    ("status", "code", "text", "matches"),
    [
        (400, "full", "There are NO Instances left", True),
        (500, "full", "no instances", False),
        (400, "other", "no instances", False),
        (400, "full", "try again", False),
        (200, "full", "no instances", False),
    ],
)
def test_a_refusal_is_told_by_status_code_and_words(status: int, code: str, text: str, matches: bool) -> None:
    refusal = Refusal(NoCapacity, "sold out", "no instances", "full", (400,))
    assert refusal.matches(status, code, text) is matches


def test_success_is_a_refusal_only_where_that_is_known() -> None:
    assert not Refusal(NoCapacity, "sold out", "no").matches(200, "", "no")
    assert Refusal(NoCapacity, "sold out", "no", statuses=(200,)).matches(200, "", "no")


def test_a_reply_that_makes_no_sense_says_where() -> None:
    class Named(BaseModel):
        name: str

    with pytest.raises(BadReply) as bad:
        understood("acme", Named.model_validate, {"name": 1}, sent=True)
    assert "name" in bad.value.why
    assert bad.value.outcome_unknown
    assert understood("acme", Named.model_validate, {"name": "x"}).name == "x"
