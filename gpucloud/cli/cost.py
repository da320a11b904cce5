"""``gpucloud cost``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gpucloud.cli.app import app
from gpucloud.cli.exit_codes import ExitCode
from gpucloud.cli.options import parsed
from gpucloud.cli.render import money, out
from gpucloud.errors import NothingMatched, UsageError
from gpucloud.model import utcnow
from gpucloud.quantities import format_count, parse_duration

if TYPE_CHECKING:
    from gpucloud.config import Config
    from gpucloud.store.invoice import Compared, Invoice
    from gpucloud.store.ledger import Line
    from gpucloud.store.spending import Group, Spending

COMPARED: Final = ("INSTANCE", "CLUSTER", "FOUND", "$ OURS", "$ BILLED", "$ DIFFERENCE")

FIELDS: Final = ("id", "found", "provider", "cluster", "ours", "billed", "difference", "currency")

MOST_BAD_ROWS: Final = 5
"""So many rows that make no sense are named one by one."""

HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Time:
    """From when until when; ``None`` is without a bound. ``typed``: the person has said so."""

    since: datetime | None
    until: datetime | None
    typed: bool


@app.command()
def cost(
    names: Annotated[list[str], typer.Argument(help="Clusters; also 'train-*'.", metavar="[NAME]...")] = [],  # noqa: B006
    month: Annotated[str, typer.Option(metavar="MONTH", help="A month in UTC, as in 2026-11.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back: 12h, 30d.")] = "",
    by: Annotated[
        str, typer.Option(metavar="KEYS", help="project, provider, gpu, user, tag:KEY, day; several with ,.")
    ] = "cluster",
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a header.")] = False,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Compare with an invoice in CSV.")
    ] = None,
    provider: Annotated[str, typer.Option(metavar="NAME", help="Whose invoice it is.")] = "",
    column_id: Annotated[str, typer.Option(metavar="NAME", help="Where it has the instance.")] = "",
    column_amount: Annotated[str, typer.Option(metavar="NAME", help="Where it has the amount.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 6 for what is only on the invoice.")] = False,
) -> None:
    """What was spent this month, or in another time, on what and for whom.

    Example: gpucloud cost --month 2026-11 --by project,provider --csv
    """
    from gpucloud.cli.context import config

    settings = config()
    time = _time(month, since)
    if import_ is None:
        if provider or column_id or column_amount or strict:
            raise _needless("these options are about an invoice", "--import FILE")
        keys = _keys(by)
        _show(keys, _spent(settings, keys, time, names), time, csv=csv)
        return
    if names or by != "cluster":
        raise _needless("an invoice is compared by instance", "leave out the names and --by")
    invoice = _invoice(settings, import_, column_id, column_amount, time)
    _compare(settings, invoice, provider, time, csv=csv, strict=strict)


def _needless(why: str, hint: str) -> UsageError:
    return UsageError("these options do not go together", why=why, hint=hint)


def _time(month: str, since: str) -> Time:
    """What time is asked for; this month if none."""
    from gpucloud.store.spending import next_month

    if month and since:
        raise _needless("--month and --since each say from when", "give one of them")
    if since:
        return Time(utcnow() - (parsed("--since", since, parse_duration) or timedelta()), None, True)
    begin = parsed("--month", month, parse_month) or _month_of(utcnow())
    return Time(begin, next_month(begin), bool(month))


def parse_month(text: str) -> datetime:
    """Read ``2026-11``, as when it begins. Raises ``ValueError``."""
    try:
        begin = datetime.strptime(text.strip(), "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{text!r} is not a month; write 2026-11") from None
    if begin.year > 9000:
        raise ValueError(f"{text!r} is too far ahead")
    return begin


def _month_of(at: datetime) -> datetime:
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _keys(text: str) -> list[str]:
    """``--by``. Raises ``UsageError`` for a key that there is not."""
    from gpucloud.store.spending import KEYS, TAG

    keys = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for key in keys:
        if key not in KEYS and (key == TAG or not key.startswith(TAG)):
            close = difflib.get_close_matches(key, KEYS, n=1)
            raise UsageError(
                f"--by knows no {key!r}",
                why=f"it knows {', '.join(KEYS)} and {TAG}KEY",
                hint=f"did you mean {close[0]!r}?" if close else "gpucloud cost --by project,provider",
            )
    if not keys:
        raise UsageError("--by names nothing", why="it is by what the cost is added up", hint="--by project")
    return keys


def _spending(settings: Config) -> Spending | None:
    """The books, if there are any; to open them would make them."""
    from gpucloud.store import Store
    from gpucloud.store.spending import Spending

    if not Store.exists(settings.data_dir):
        return None
    store = Store(settings.data_dir)
    if store.db.needs_rebuild:
        out.note("the books were lost, so what was spent before is not known: gpucloud fsck --rebuild")
    return Spending(store.db, store.ledger)


def _spent(settings: Config, keys: Sequence[str], time: Time, names: Sequence[str]) -> list[Group]:
    books = _spending(settings)
    known = books.clusters() if books else []
    for name in names:
        if not any(fnmatchcase(cluster, name) for cluster in known):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            raise NothingMatched(
                f"there never was a cluster {name!r}",
                why=f"the books have {format_count(len(known), 'cluster')}",
                hint=f"did you mean {close[0]!r}?" if close else "gpucloud cost",
            )
    return books.by(keys, time.since, time.until, names) if books else []


def _show(keys: Sequence[str], groups: Sequence[Group], time: Time, *, csv: bool) -> None:
    from gpucloud.store.ledger import Line
    from gpucloud.store.spending import together

    whole = together(groups)
    if out.json:
        out.document(
            "cost",
            lines=[_to_json(keys, group) for group in groups],
            since=time.since,
            until=time.until or utcnow(),
            total=money(whole.total),
            at_least=money(whole.at_least),
            complete=not whole.unknown,
            currency="USD",
            failures=[],
        )
    elif csv:
        _csv(list(_to_json(keys, whole)), [_to_json(keys, group) for group in groups])
    else:
        # Few people have reservations.
        lines = [line for line in Line if line is not Line.RESERVATION or whole.of(line) != 0]
        columns = (*map(str.upper, keys), "HOURS", *(f"$ {line.upper()}" for line in lines), "$ TOTAL")
        out.table(columns, [_to_row(group, lines) for group in groups])
        if out.screen:
            out.note(f"${_total(whole)} since {time.since:%Y-%m-%d %H:%M} UTC")


def _to_json(keys: Sequence[str], group: Group) -> dict[str, object]:
    """What a group came to as the schema ``gpucloud.cost/1`` has it; ``at_least`` is what is known."""
    from gpucloud.store.ledger import Line

    values = group.keys or (None,) * len(keys)
    return {
        **dict(zip(keys, values, strict=True)),
        "hours": money(round(Decimal(group.lasted // timedelta(microseconds=1)) / 3_600_000_000, 6)),
        **{line.value: money(group.of(line)) for line in Line},
        "total": money(group.total),
        "at_least": money(group.at_least),
        "complete": not group.unknown,
        "currency": "USD",
    }


def _to_row(group: Group, lines: Sequence[Line]) -> tuple[object, ...]:
    amounts = [_usd(group.of(line)) for line in lines]
    return (*group.keys, f"{group.lasted / HOUR:.2f}", *amounts, _total(group))


def _total(group: Group) -> str:
    return f"{'at least ' if group.unknown else ''}{group.at_least:.4f}"


def _usd(amount: Decimal | None) -> str:
    return "unknown" if amount is None else f"{amount:.4f}"


def _csv(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> None:
    def cell(value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value

    out.csv(columns, [[cell(line[column]) for column in columns] for line in lines])


def _invoice(settings: Config, file: Path, column_id: str, column_amount: str, time: Time) -> Invoice:
    """What was billed in a time that the person has said, or else in all of the invoice."""
    from gpucloud.catalog.currencies import to_usd
    from gpucloud.store.invoice import read

    return read(
        file,
        lambda amount, currency: to_usd(amount, currency, settings.rates).usd,
        id_column=column_id,
        amount_column=column_amount,
        since=time.since if time.typed else None,
        until=time.until if time.typed else None,
    )


def _compare(
    settings: Config, invoice: Invoice, provider: str, time: Time, *, csv: bool, strict: bool
) -> None:
    from gpucloud.registry import load
    from gpucloud.store.invoice import ORIGIN, Found, compare

    if provider:
        load(provider)
    since, until = (time.since, time.until) if time.typed else (invoice.since, invoice.until)
    books = _spending(settings)
    lines = compare(invoice, books.by(ORIGIN, since, until) if books else [], provider)
    _tell_bad_rows(invoice)
    unexplained = [each for each in lines if each.found is Found.BILLED and each.id and each.billed > 0]
    if out.json:
        out.document(
            "cost-import",
            lines=[_compared_to_json(each) for each in lines],
            since=since,
            until=until,
            bad_rows=[{"line": row.line, "why": row.why} for row in invoice.bad],
            failures=[],
        )
    elif csv:
        _csv(FIELDS, [_compared_to_json(each) for each in lines])
    else:
        out.table(COMPARED, [_compared_to_row(each) for each in lines])
    if unexplained:
        billed = sum((each.billed for each in unexplained), Decimal(0))
        out.note(f"${billed:.4f} is billed for what is not in the books: {_some(unexplained)}")
    if strict and (unexplained or invoice.bad):
        raise typer.Exit(ExitCode.UNEXPLAINED)


def _tell_bad_rows(invoice: Invoice) -> None:
    for row in invoice.bad[:MOST_BAD_ROWS]:
        out.note(f"line {row.line} is left out: {row.why}")
    if len(invoice.bad) > MOST_BAD_ROWS:
        out.note(f"{len(invoice.bad) - MOST_BAD_ROWS} more are left out")


def _some(lines: Sequence[Compared]) -> str:
    return ", ".join(each.id for each in lines[:MOST_BAD_ROWS]) + (", ..." if lines[MOST_BAD_ROWS:] else "")


def _compared_to_json(compared: Compared) -> dict[str, object]:
    """One line of the schema ``gpucloud.cost-import/1``; ``ours`` is null when a price is not known."""
    amounts = map(money, (compared.ours, compared.billed, compared.difference))
    clusters = ", ".join(compared.clusters) or None
    values = (compared.id or None, compared.found, compared.provider, clusters, *amounts, "USD")
    return dict(zip(FIELDS, values, strict=True))


def _compared_to_row(compared: Compared) -> tuple[object, ...]:
    return (
        compared.id or None,
        ", ".join(compared.clusters) or None,
        compared.found,
        _usd(compared.ours),
        _usd(compared.billed),
        _usd(compared.difference),
    )
