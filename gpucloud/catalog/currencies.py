"""Amounts of other currencies in US dollars, by a dated table that the configuration may override.

``currencies.csv`` holds one row per currency: so many ``units`` of it were worth so many ``usd`` on the day
``as_of``, both as the source prints them. A currency for which no source was found has no row.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

DOLLAR: Final = "USD"

CONFIG: Final = "config"
"""The source of a rate that the caller brought along."""

_DIGITS: Final = Context(prec=6, rounding=ROUND_HALF_EVEN)
"""The sources print five digits; one more, so that rounding the quotient adds nothing of weight."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What one unit of ``currency`` is worth in US dollars, on the day ``as_of``."""

    currency: str
    usd: Decimal
    as_of: date
    source: str


@dataclass(frozen=True, slots=True)
class Converted:
    """An amount in US dollars: ``usd`` is the amount times ``rate``, exactly.

    ``as_of`` is the day of the rate, ``None`` for a rate from the configuration and for dollars, which are
    not converted. ``source`` says where the rate comes from; it is empty for dollars.
    """

    usd: Decimal
    rate: Decimal
    as_of: date | None
    source: str


@lru_cache(maxsize=1)
def table() -> Mapping[str, Rate]:
    """The rates that ship with the program, by the ISO 4217 code of the currency; without the dollar."""
    with Path(__file__).with_name("currencies.csv").open(encoding="utf-8", newline="") as file:
        rates = map(_rate, csv.DictReader(file))
        return MappingProxyType({rate.currency: rate for rate in rates})


def to_usd(amount: Decimal, currency: str, overrides: Mapping[str, Decimal]) -> Converted:
    """``amount`` in US dollars. ``overrides`` are dollars for one unit, by currency, stronger than the table.

    Raises:
        ValueError: for a currency without a rate, and for an override that is no price of money; its text
            can be shown to a person.
    """
    code = currency.strip().upper()
    if code == DOLLAR:
        return Converted(amount, Decimal(1), None, "")
    override = next((rate for name, rate in overrides.items() if name.upper() == code), None)
    if override is not None:
        if not override.is_finite() or override <= 0:
            raise ValueError(f"one {code} cannot be worth {override} US dollars")
        return Converted(amount * override, override, None, CONFIG)
    rate = table().get(code)
    if rate is None:
        known = ", ".join(sorted({DOLLAR, *table()}))
        raise ValueError(f"there is no rate from {currency!r} to US dollars; there are rates for {known}")
    return Converted(amount * rate.usd, rate.usd, rate.as_of, rate.source)


def _rate(row: dict[str, str]) -> Rate:
    return Rate(
        currency=row["currency"],
        usd=_DIGITS.divide(Decimal(row["usd"]), Decimal(row["units"])),
        as_of=date.fromisoformat(row["as_of"]),
        source=row["source"],
    )
