"""Billing cards: what stopping, ending, interruption and an empty account do to the bill of each provider.

``cards/NAME.toml`` is the card of the provider NAME: a title, and one table for each key of ``FACTS`` with
its ``value``, the ``source`` that says so, the day of it (``as_of``) and perhaps a ``note`` without which the
value would mislead. What no source says is ``value = "unknown"``. A day is the one that the source names for
what it says, or else the one on which it was read. Values are for what is rented by the hour; a contract or
a reservation may say otherwise.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from gpucloud.errors import NothingMatched
from gpucloud.model import utcnow

UNKNOWN: Final = "unknown"
"""How a file writes a value that no source states; ``Fact.value`` is then ``None``."""

FOLDER: Final = Path(__file__).with_name("cards")


class Kind(StrEnum):
    """What a value is, where it is none of the words that its fact allows."""

    WORD = "word"
    SECONDS = "seconds"
    USD = "USD"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a fact tells, and what its value may be: one of ``words``, or else of ``kind``.

    Seconds are a whole number, dollars a decimal string above zero.
    """

    help: str
    kind: Kind
    words: tuple[str, ...] = ()


_BILLED: Final = ("billed", "partly", "not-billed", "none")
"""``partly``: some of it, as the note tells; ``none``: there is no such thing that could be billed."""

_STOPPED: Final = (*_BILLED, "unsupported")

FACTS: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "stop_gpu": Meaning("the GPU of a stopped instance", Kind.WORD, _STOPPED),
        "stop_disk": Meaning("its disk", Kind.WORD, _STOPPED),
        "stop_address": Meaning("its public address", Kind.WORD, _STOPPED),
        "terminate_gpu": Meaning("the GPU of a terminated instance", Kind.WORD, _BILLED),
        "terminate_disk": Meaning("its disk", Kind.WORD, _BILLED),
        "terminate_address": Meaning("its public address", Kind.WORD, _BILLED),
        "billing_grain_s": Meaning("use is rounded up to a multiple of this", Kind.SECONDS),
        "billing_minimum_s": Meaning("the least that is billed", Kind.SECONDS, ("varies",)),
        "egress_usd_per_gb": Meaning("a GB sent to the internet", Kind.USD, ("free", "varies")),
        "interruption_action": Meaning(
            "what becomes of an instance that is taken back; choice: as the launch says",
            Kind.WORD,
            ("stop", "terminate", "choice", "unsupported"),
        ),
        "interruption_notice_s": Meaning("how long before it is told", Kind.SECONDS, ("unsupported",)),
        "fuse": Meaning("how an instance can end itself", Kind.WORD, ("A", "B", "C", "D")),
        "payment": Meaning("when use is paid", Kind.WORD, ("prepaid", "postpaid", "free")),
        "at_zero_balance": Meaning(
            "what becomes of instances when the credit is used up",
            Kind.WORD,
            ("stopped", "suspended", "deleted", "none"),
        ),
        "delete_after_stop_s": Meaning(
            "how long a stopped instance is kept", Kind.SECONDS, ("never", "unsupported")
        ),
        "delete_after_zero_balance_s": Meaning(
            "how long data is kept without credit", Kind.SECONDS, ("never", "none")
        ),
    }
)
"""Every fact of a card by its key, in the order in which they are shown.

``unsupported`` means that the provider has no such act or market, ``none`` that there is nothing of the kind.
``billing_grain_s``, ``billing_minimum_s``, ``interruption_notice_s`` and ``fuse`` are what adapters call by
the same names.
"""

_ALL_OR_NONE: Final = (
    ("stop_gpu", "stop_disk", "stop_address", "delete_after_stop_s"),
    ("interruption_action", "interruption_notice_s"),
)
"""Facts about one act: when one of them is unsupported, all are."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One value, ``None`` when unknown, with who says so, the day of it and what must be known beside it."""

    value: str | int | None = None
    source: str | None = None
    as_of: date | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of one provider's billing. ``strays`` are entries of its file that mean nothing."""

    name: str
    title: str
    facts: Mapping[str, Fact]
    strays: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """The providers that have a card, sorted; none is read."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


@lru_cache(maxsize=64)
def card(name: str) -> Card:
    """The card of one provider; no other file is read.

    Raises:
        NothingMatched: when there is none of that name.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        raise NothingMatched(
            f"there is no billing card of a provider {name!r}",
            why=f"there are cards of {', '.join(names())}",
            hint=f"did you mean {close[0]!r}?" if close else "gpucloud providers",
        )
    return parse(name, (FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Card:
    """A card as its file has it, be it right or wrong; ``problems`` tells which.

    Raises:
        tomllib.TOMLDecodeError: when ``text`` is not TOML.
    """
    document = tomllib.loads(text)
    title = document.pop("title", "")
    tables = {key: table for key, table in document.items() if key in FACTS and isinstance(table, dict)}
    known = {field.name for field in fields(Fact)}
    strays = [key for key in document if key not in tables]
    strays += [f"{key}.{entry}" for key, table in tables.items() for entry in table if entry not in known]
    return Card(name, title, {key: _fact(tables[key]) for key in FACTS if key in tables}, tuple(strays))


def problems(card: Card, today: date | None = None) -> list[str]:
    """What is wrong with a card, in words; empty for a good one. ``today`` is the day of it in UTC."""
    found = [f"{stray}: means nothing" for stray in card.strays]
    if not isinstance(card.title, str) or not card.title.strip():
        found.append("title: is missing")
    for key, meaning in FACTS.items():
        if key not in card.facts:
            found.append(f"{key}: is missing; what no source states is {UNKNOWN!r}")
        else:
            wrong = _wrong(card.facts[key], meaning, today or utcnow().date())
            found += [f"{key}: {problem}" for problem in wrong]
    return found + [
        f"{', '.join(keys)}: only some are unsupported" for keys in _ALL_OR_NONE if _torn(card, keys)
    ]


def _fact(table: Mapping[str, Any]) -> Fact:
    value = table.get("value")
    # Something must stand there: an empty table is no statement that nobody knows.
    return Fact(
        None if value == UNKNOWN else "" if value is None else value,
        table.get("source"),
        table.get("as_of"),
        table.get("note"),
    )


def _wrong(fact: Fact, meaning: Meaning, today: date) -> Iterator[str]:
    if fact.value is not None:
        if not _allowed(fact.value, meaning):
            yield f"{fact.value!r} is not {_expected(meaning)}"
        if not fact.source:
            yield "has no source"
        if fact.as_of is None:
            yield "has no day"
    for name, text in (("source", fact.source), ("note", fact.note)):
        if text is not None and not (isinstance(text, str) and text.strip()):
            yield f"its {name} is not a text"
    if fact.as_of is not None:
        if type(fact.as_of) is not date:
            yield "its day is not a date"
        elif fact.as_of > today:
            yield f"{fact.as_of} is in the future"


def _allowed(value: object, meaning: Meaning) -> bool:
    if isinstance(value, str):
        return value in meaning.words or (meaning.kind is Kind.USD and _dollars(value))
    return meaning.kind is Kind.SECONDS and type(value) is int and value >= 0


def _dollars(text: str) -> bool:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return False
    return amount.is_finite() and amount > 0


def _expected(meaning: Meaning) -> str:
    numbers = {Kind.WORD: (), Kind.SECONDS: ("a number of seconds",), Kind.USD: ("a price in quotes",)}
    return " or ".join((*meaning.words, *numbers[meaning.kind], UNKNOWN))


def _torn(card: Card, keys: tuple[str, ...]) -> bool:
    values = [card.facts[key].value == "unsupported" for key in keys if key in card.facts]
    return any(values) and not all(values)
