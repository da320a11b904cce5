"""Types of fields that many vendors' replies have, for their wire models; what makes no sense is ``None``.

One value at fault then costs an offer that value, and not the offer; without a price there is no offer.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

MOST: Final = 10**9
"""No price, size or count of one instance is as large as this."""


def _decimal(value: object) -> Decimal | None:
    # True would be 1, and a number as a text may have blanks.
    if isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() and 0 <= number < MOST else None


def _positive(value: object) -> Decimal | None:
    return _decimal(value) or None


def _count(value: object) -> int | None:
    number = _decimal(value)
    return int(number) if number is not None and number == number.to_integral_value() else None


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _moment(value: object) -> datetime | None:
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else None
        # Who names no zone means UTC.
        return when and (when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def _texts(value: object) -> list[str]:
    return [text for text in map(_text, value) if text] if isinstance(value, list) else []


Amount: TypeAlias = Annotated[Decimal | None, BeforeValidator(_decimal)]
"""A number, or a text of one, from 0."""

Price: TypeAlias = Annotated[Decimal | None, BeforeValidator(_positive)]
"""The same above 0: what is for nothing is rather a mistake."""

Count: TypeAlias = Annotated[int | None, BeforeValidator(_count)]
"""A whole number from 0."""

Text: TypeAlias = Annotated[str | None, BeforeValidator(_text)]
"""A text that is not blank."""

Moment: TypeAlias = Annotated[datetime | None, BeforeValidator(_moment)]
"""A time as ISO 8601 writes it; in UTC."""

Texts: TypeAlias = Annotated[list[str], BeforeValidator(_texts)]
"""The texts of a list; what else is in there is left out."""
