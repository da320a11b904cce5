"""Other currencies in dollars: dated rates with a source, and rates that the configuration brings."""

from __future__ import annotations

import csv
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.catalog import currencies
from gpucloud.catalog.currencies import Converted, table, to_usd
from gpucloud.model import utcnow

WANTED = ["AUD", "CAD", "CHF", "CNY", "EUR", "GBP", "INR", "JPY", "KRW", "SGD"]


def test_the_table_is_whole_sorted_and_sourced() -> None:
    assert list(table()) == WANTED
    for rate in table().values():
        assert rate.source.strip()
        assert date(2026, 1, 1) <= rate.as_of <= utcnow().date()
        assert Decimal("0.0001") < rate.usd < 10


def test_the_file_holds_what_the_sources_print() -> None:
    with Path(currencies.__file__).with_name("currencies.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["currency"]: row for row in csv.DictReader(file)}
    for code, rate in table().items():
        exact = Decimal(rows[code]["usd"]) / Decimal(rows[code]["units"])
        assert abs(rate.usd / exact - 1) < Decimal("0.00001")


def test_dollars_stay_as_they_are() -> None:
    assert to_usd(Decimal("3.99"), "USD", {}) == Converted(Decimal("3.99"), Decimal(1), None, "")


@pytest.mark.parametrize("code", ["EUR", "eur", " Eur "])
def test_a_converted_price_is_the_amount_times_its_rate(code: str) -> None:
    done = to_usd(Decimal("2.50"), code, {})
    rate = table()["EUR"]
    assert done == Converted(Decimal("2.50") * rate.usd, rate.usd, rate.as_of, rate.source)
    assert done.usd == Decimal("2.50") * done.rate


def test_a_rate_of_the_configuration_wins_and_says_so() -> None:
    overrides = {"EUR": Decimal("1.20"), "sek": Decimal("0.1")}
    assert to_usd(Decimal(10), "EUR", overrides) == Converted(Decimal(12), Decimal("1.20"), None, "config")
    assert to_usd(Decimal(10), "SEK", overrides).usd == 1
    assert to_usd(Decimal(10), "GBP", overrides).source != "config"


@pytest.mark.parametrize("bad", ["0", "-1", "NaN", "Infinity"])
def test_a_rate_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="one EUR cannot be worth"):
        to_usd(Decimal(1), "EUR", {"EUR": Decimal(bad)})


@pytest.mark.parametrize("code", ["XYZ", "", "EURO"])
def test_an_unknown_currency_is_told_with_those_that_are_known(code: str) -> None:
    with pytest.raises(ValueError, match=r"no rate from '\w*' to US dollars; .* AUD, CAD, .* SGD, USD$"):
        to_usd(Decimal(1), code, {})
