"""What a provider billed, read from its own CSV file, and how that compares with the books.

Every provider has columns of its own, so they are found by the names that providers give them.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Final, TypeAlias

from gpucloud.errors import UsageError
from gpucloud.store.spending import Group

ToUsd: TypeAlias = Callable[[Decimal, str], Decimal]
"""An amount of a currency in dollars. Raises ``ValueError`` for a currency that it does not know."""

ORIGIN: Final = ("provider", "instance_id", "cluster")
"""By what the spending is grouped that an invoice is compared with."""

IDS: Final = (
    "instanceid",
    "lineitemresourceid",
    "resourceid",
    "resourceglobalname",
    "resourcename",
    "podid",
    "contractid",
    "serverid",
    "machineid",
    "vmid",
    "resource",
    "instance",
    "id",
)
AMOUNTS: Final = (
    "amountusd",
    "costusd",
    "costinusd",
    "usd",
    "lineitemunblendedcost",
    "unblendedcost",
    "costinbillingcurrency",
    "billedcost",
    "pretaxcost",
    "amount",
    "cost",
    "charge",
    "charges",
    "totalcost",
    "totalamount",
    "total",
)
CURRENCIES: Final = (
    "lineitemcurrencycode",
    "billingcurrency",
    "billingcurrencycode",
    "currencycode",
    "currency",
)
STARTS: Final = (
    "lineitemusagestartdate",
    "chargeperiodstart",
    "usagestartdate",
    "usagestarttime",
    "startdate",
    "starttime",
    "startedat",
    "start",
    "usagedate",
    "date",
)
ENDS: Final = (
    "lineitemusageenddate",
    "chargeperiodend",
    "usageenddate",
    "usageendtime",
    "enddate",
    "endtime",
    "endedat",
    "end",
)
"""Names of columns without case and separators, the surest first."""

_SEPARATORS: Final = ",;\t|"
_GZIP: Final = b"\x1f\x8b"
_SIGNS: Final = {"$": "", "€": "EUR", "£": "GBP"}
"""What is written for a currency; many have a dollar."""

_AMOUNT: Final = re.compile(
    r"""(?P<minus>-)? \s*
        (?P<before>[$€£]|[a-z]{3}\b)? \s*
        (?P<late_minus>-)?
        (?P<number>([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]*)?|\.[0-9]+) (?P<power>e[-+]?[0-9]{1,2})? \s*
        (?P<after>[$€£]|[a-z]{3})?""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that makes no sense; ``line`` is where it ends in the file, counted from 1."""

    line: int
    why: str


@dataclass(slots=True)
class Invoice:
    """What was billed in dollars for each instance; under ``""`` what is for none.

    ``since`` and ``until`` are the first and the last time in it, where it has times.
    """

    billed: dict[str, Decimal] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)
    since: datetime | None = None
    until: datetime | None = None

    def add(self, instance: str, usd: Decimal, start: datetime | None, end: datetime | None) -> None:
        """Enter one row."""
        self.billed[instance] = self.billed.get(instance, Decimal(0)) + usd
        if start:
            self.since = min(self.since or start, start)
        if end:
            self.until = max(self.until or end, end)


class Found(StrEnum):
    """Where an instance is found."""

    BOTH = "both"
    BILLED = "billed"
    OURS = "ours"


@dataclass(frozen=True, slots=True)
class Compared:
    """An instance in dollars as the books have it and as it was billed; what is not there is 0.

    ``ours`` is ``None`` when it is not known. ``id`` is empty for what was billed for no instance.
    """

    id: str
    found: Found
    provider: str | None
    clusters: tuple[str, ...]
    ours: Decimal | None
    billed: Decimal

    @property
    def difference(self) -> Decimal | None:
        """How much more was billed than the books have; ``None`` when that cannot be told."""
        return None if self.ours is None else self.billed - self.ours


def read(
    file: Path,
    to_usd: ToUsd,
    *,
    id_column: str = "",
    amount_column: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> Invoice:
    """Read an invoice, which may be packed with gzip; rows that begin outside of a given time are left out.

    Raises ``UsageError`` when it cannot be read, when its columns cannot be told, or when no row makes sense.
    """
    with _opened(file) as text:
        before, first = next(((n, line) for n, line in enumerate(text, 1) if line.strip()), (0, ""))
        separator = max(_SEPARATORS, key=first.count)
        header = next(csv.reader([first], delimiter=separator), [])
        columns = _columns(file, header, id_column, amount_column)
        invoice = Invoice()
        rows = csv.reader(text, delimiter=separator)
        for row in rows:
            try:
                _enter(invoice, columns, row, to_usd, since, until)
            except ValueError as error:
                invoice.bad.append(BadRow(before + rows.line_num, str(error)))
    if invoice.bad and not invoice.billed:
        raise UsageError(
            f"no row of {file} makes sense",
            why=f"line {invoice.bad[0].line}: {invoice.bad[0].why}",
            hint="name its columns with --column-id NAME --column-amount NAME",
        )
    return invoice


def parse_amount(text: str) -> tuple[Decimal, str]:
    """Read ``1,234.50``, ``$0.39``, ``-2 EUR``, ``(2.00)`` or ``1.2E-7``, with the currency if it is said.

    Raises ``ValueError``.
    """
    bare = text.strip().replace("\N{MINUS SIGN}", "-")
    bracketed = bare.startswith("(") and bare.endswith(")")
    match = _AMOUNT.fullmatch(bare[1:-1].strip() if bracketed else bare)
    if match is None or sum(map(bool, (bracketed, match["minus"], match["late_minus"]))) > 1:
        raise ValueError(f"{text!r} is not an amount of money")
    amount = Decimal(match["number"].replace(",", "") + (match["power"] or ""))
    currency = match["before"] or match["after"] or ""
    negative = bracketed or match["minus"] or match["late_minus"]
    return -amount if negative else amount, _SIGNS.get(currency, currency.upper())


def compare(invoice: Invoice, ours: Iterable[Group], provider: str = "") -> list[Compared]:
    """Set what was billed against the books, grouped by ``ORIGIN``; what differs the most comes first.

    Of the books only providers count that have billed something, or the one that is given. Raises
    ``UsageError`` when an id is that of instances of several providers.
    """
    books = _books(ours, provider)
    billed: dict[tuple[str, str], Decimal] = {}
    compared = []
    by_name = _by_name(books)
    for name, usd in invoice.billed.items():
        key = _match(by_name, name)
        if key:
            billed[key] = billed.get(key, Decimal(0)) + usd
        elif usd:
            compared.append(Compared(name, Found.BILLED, None, (), Decimal(0), usd))
    providers = {name for name, _ in billed} or {name for name, _ in books}
    for key, groups in books.items():
        known = [group.total for group in groups]
        usd_ours = None if None in known else sum((usd for usd in known if usd is not None), Decimal(0))
        clusters = tuple(sorted({cluster for group in groups if (cluster := group.keys[2])}))
        if key in billed:
            compared.append(Compared(key[1], Found.BOTH, key[0], clusters, usd_ours, billed[key]))
        elif key[0] in providers and usd_ours != 0:
            compared.append(Compared(key[1], Found.OURS, key[0], clusters, usd_ours, Decimal(0)))
    return sorted(compared, key=_by_weight)


def _by_weight(compared: Compared) -> tuple[Decimal, str]:
    weight = compared.billed if compared.difference is None else compared.difference
    return -abs(weight), compared.id


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where in a row what is. ``dollars``: the name of the amount's column says that it is dollars."""

    id: int
    amount: int
    dollars: bool
    currency: int | None
    start: int | None
    end: int | None


@contextmanager
def _opened(file: Path) -> Iterator[TextIOWrapper]:
    try:
        with file.open("rb") as plain:
            packed = plain.peek(2).startswith(_GZIP)
            with (
                gzip.GzipFile(fileobj=plain) if packed else plain as data,
                TextIOWrapper(data, "utf-8-sig", errors="replace", newline="") as text,
            ):
                yield text
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UsageError(f"{file} cannot be read", why=str(error), hint="--import FILE.csv") from error


def _columns(file: Path, header: Sequence[str], id_column: str, amount_column: str) -> _Columns:
    wanted_id, wanted_amount = _folded(id_column), _folded(amount_column)
    found_id = _column(header, (wanted_id,) if wanted_id else IDS)
    found_amount = _column(header, (wanted_amount,) if wanted_amount else AMOUNTS)
    if found_id is None or found_amount is None:
        lacking = [
            what
            for what, column in (("the instance", found_id), ("the amount", found_amount))
            if column is None
        ]
        raise UsageError(
            f"no column of {file} can be told to be that of {' or of '.join(lacking)}",
            why=f"its header is {', '.join(header)}" if header else "it is empty",
            hint="name them with --column-id NAME --column-amount NAME",
        )
    return _Columns(
        id=found_id,
        amount=found_amount,
        dollars=_folded(header[found_amount]).endswith("usd"),
        currency=_column(header, CURRENCIES),
        start=_column(header, STARTS),
        end=_column(header, ENDS),
    )


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The column with the first of the names that one column has, and only one."""
    folded = [_folded(cell) for cell in header]
    return next((folded.index(name) for name in names if folded.count(name) == 1), None)


def _folded(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


def _enter(
    invoice: Invoice,
    columns: _Columns,
    row: Sequence[str],
    to_usd: ToUsd,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Enter a row. Raises ``ValueError`` when it makes no sense."""
    if not any(map(str.strip, row)):
        return
    if len(row) <= max(columns.id, columns.amount):
        raise ValueError("it has fewer fields than the header")
    start = _time(_field(row, columns.start), end=False)
    if columns.start is not None and (since or until):
        if start is None:
            raise ValueError(f"{_field(row, columns.start)!r} is not a time")
        if (since and start < since) or (until and start >= until):
            return
    amount, said = parse_amount(row[columns.amount])
    currency = said or ("" if columns.dollars else _field(row, columns.currency))
    usd = to_usd(amount, currency) if currency else amount
    invoice.add(row[columns.id].strip(), usd, start, _time(_field(row, columns.end), end=True))


def _field(row: Sequence[str], column: int | None) -> str:
    return row[column].strip() if column is not None and column < len(row) else ""


def _time(text: str, *, end: bool) -> datetime | None:
    """A time of an invoice; a day ends when it is over. ``None`` when it cannot be told."""
    try:
        at = datetime.fromisoformat(text.removesuffix("UTC").strip())
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        return at + timedelta(days=1) if end and len(text) == len("2026-11-30") else at
    except (ValueError, OverflowError):
        return None


def _books(ours: Iterable[Group], provider: str) -> dict[tuple[str, str], list[Group]]:
    books: dict[tuple[str, str], list[Group]] = {}
    for group in ours:
        rented_at, instance, _ = group.keys
        if rented_at and instance and provider in ("", rented_at):
            books.setdefault((rented_at, instance), []).append(group)
    return books


def _by_name(books: Iterable[tuple[str, str]]) -> dict[str, set[tuple[str, str]]]:
    """The instances of the books by their ids, and by what the ids end with, as some are paths."""
    found: dict[str, set[tuple[str, str]]] = {}
    for key in books:
        for name in {key[1].casefold(), _last(key[1])}:
            found.setdefault(name, set()).add(key)
    return found


def _match(by_name: Mapping[str, set[tuple[str, str]]], name: str) -> tuple[str, str] | None:
    keys = by_name.get(name.casefold()) or by_name.get(_last(name)) or set()
    if len(keys) > 1:
        raise UsageError(
            f"{name} may be one of several instances",
            why=f"the books have {' and '.join(sorted('/'.join(key) for key in keys))}",
            hint="say whose invoice it is with --provider NAME",
        )
    return next(iter(keys), None)


def _last(name: str) -> str:
    return re.split("[/:]", name.rstrip("/"))[-1].casefold()
