"""The ledger: the agreed price of each rental from the moment at which it holds, and what it comes to.

The cost of a line is the integral of its rates over time, plus what is charged once. Each amount is rounded
to the micro-dollar as the difference of two running totals, so the parts of a time add up to the whole of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Final, TypeAlias

from gpucloud.model import MICROSECOND, MICROSECONDS_PER_HOUR, Rental, utcnow
from gpucloud.store.clock import Reading, reading
from gpucloud.store.database import Database
from gpucloud.store.rows import from_micros, stamp, to_micros

PeriodEnd: TypeAlias = Callable[[datetime], datetime]
"""When the period ends, a day say, in which a moment lies; both in UTC, and always later."""

CLOCK_ERROR: Final = timedelta(days=31)
"""What was gone so long before a time cost nothing in it, even if the time of day was wrong meanwhile."""


class Line(StrEnum):
    """What is paid for. ``ROUNDING``: billing steps and minimum, beyond the use.

    ``RESERVATION``: a block that was bought, used or not.
    """

    INSTANCE = "instance"
    DISK = "disk"
    EGRESS = "egress"
    ROUNDING = "rounding"
    RESERVATION = "reservation"


@dataclass(frozen=True, slots=True)
class Span:
    """A time during which one rate held, in micro-dollars an hour; ``None`` is not known."""

    start: datetime
    end: datetime
    micros_per_hour: int | None


@dataclass(frozen=True, slots=True)
class Charge:
    """What one line of one rental came to within a time from ``since`` on, in dollars.

    What is not known is a charge of its own, whose ``usd`` is ``None``. A reservation is of no cluster.
    """

    token: str
    cluster_id: int
    line: Line
    lasted: timedelta
    usd: Decimal | None
    since: datetime


@dataclass(frozen=True, slots=True)
class _Entry:
    token: str
    cluster_id: int
    line: str
    since: Reading
    micros_per_hour: int | None


_ENTRIES: Final = (
    "SELECT token, cluster_id, line, ledger.at, boot, ticks, ledger.usd_micros_per_hour AS micros"
    " FROM ledger JOIN rentals USING (token) {where} ORDER BY token, line, ledger.id"
)
NO_CLUSTER: Final = 0

_BOOKED: Final = (
    "SELECT token, intended_at, starts_at, usd_micros, upfront_micros FROM bookings WHERE state = 'bought'"
)
_ONCE: Final = (
    "SELECT token, cluster_id, line, at, usd_micros FROM charges JOIN rentals USING (token) {where}"
    " ORDER BY charges.id"
)


def meter(
    db: sqlite3.Connection,
    rental: Rental,
    at: datetime,
    *,
    running: bool,
    line: Line = Line.INSTANCE,
) -> None:
    """Enter, in the caller's transaction, that a line of a rental runs at its price, or stands still."""
    price = rental.usd_per_hour if line is Line.INSTANCE else rental.tariff.disk_usd_per_hour
    rate = price if running else Decimal(0)
    now = reading().moved(at)
    told = rental.amount if running and line is Line.INSTANCE else None
    db.execute(
        "INSERT INTO ledger (at, token, usd_micros_per_hour, currency, amount, line, boot, ticks)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            stamp(at),
            rental.token,
            to_micros(rate) if rate is not None else None,
            rental.currency,
            str(told) if told is not None else None,
            line,
            now.boot,
            now.ticks,
        ),
    )


def charge(
    db: sqlite3.Connection, token: str, at: datetime, line: Line, usd: Decimal | None, note: str
) -> None:
    """Enter, in the caller's transaction, something that is paid once."""
    micros = None if usd is None else to_micros(usd)
    db.execute(
        "INSERT INTO charges (at, token, line, usd_micros, note) VALUES (?, ?, ?, ?, ?)",
        (stamp(at), token, line, micros, note),
    )


def spans_of(db: sqlite3.Connection, token: str, line: Line, now: Reading) -> list[Span]:
    """The times of one line of one rental, within a transaction."""
    rows = db.execute(_ENTRIES.format(where="WHERE token = ? AND line = ?"), (token, line)).fetchall()
    return _spans([_entry(row) for row in rows], now)


class Ledger:
    """What has been spent."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def pay(self, token: str, line: Line, usd: Decimal | None, note: str) -> None:
        """Enter something that is paid once; ``None`` when how much is not known."""
        with self._db.write() as db:
            charge(db, token, reading().at, line, usd, note)

    def cost(self, cluster_id: int, now: datetime | None = None) -> Decimal | None:
        """What a cluster has cost until ``now``, in dollars; ``None`` when a price is not known.

        A clock that was set back never makes a negative cost.
        """
        return total(self.charges(cluster_id=cluster_id, now=now))

    def rate(self, cluster_id: int) -> Decimal | None:
        """What a cluster bills an hour at this moment; ``None`` when a price is not known."""
        rows = self._db.read(_ENTRIES.format(where="WHERE cluster_id = ?"), cluster_id)
        last = {(row["token"], row["line"]): row["micros"] for row in rows}
        return None if None in last.values() else from_micros(sum(last.values()))

    def cost_of(self, token: str) -> Decimal | None:
        """What one rental has cost until now; ``None`` when a price is not known."""
        (row,) = self._db.read("SELECT cluster_id FROM rentals WHERE token = ?", token)
        return total(each for each in self.charges(cluster_id=row["cluster_id"]) if each.token == token)

    def charges(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        cluster_id: int | None = None,
        now: datetime | None = None,
        period: PeriodEnd | None = None,
    ) -> list[Charge]:
        """What each line of every rental, or of those of one cluster, came to within a time.

        The charges of two times that follow on each other add up to those of both. With ``period`` there
        are charges for each period by itself.
        """
        # Two times of one zone are subtracted as the clock on the wall shows them, summer time and all.
        since = since and since.astimezone(UTC)
        until = until and until.astimezone(UTC)
        where, values = ("", ()) if cluster_id is None else ("WHERE cluster_id = ?", (cluster_id,))
        moment = reading()
        if now is not None:
            moment = moment.moved(now)
        found = list(_integrated(self._entries(cluster_id, since), since, until, moment, period))
        for row in self._db.read(_ONCE.format(where=where), *values):
            at = datetime.fromisoformat(row["at"])
            if _within(at, since, until):
                usd = None if row["usd_micros"] is None else from_micros(row["usd_micros"])
                found.append(Charge(row["token"], row["cluster_id"], Line(row["line"]), timedelta(), usd, at))
        if cluster_id is None:
            found += (each for each in self.booked(moment.at) if _within(each.since, since, until))
        return found

    def booked(self, now: datetime | None = None) -> Iterator[Charge]:
        """What is owed for reservations by now: a part since they were bought, the rest since they began."""
        now = now or utcnow()
        for row in self._db.read(_BOOKED):
            upfront, rest = row["upfront_micros"], row["usd_micros"] - row["upfront_micros"]
            for owed, micros in (("intended_at", upfront), ("starts_at", rest)):
                at = datetime.fromisoformat(row[owed])
                if micros and at <= now:
                    usd = from_micros(micros)
                    yield Charge(row["token"], NO_CLUSTER, Line.RESERVATION, timedelta(), usd, at)

    def _entries(self, cluster_id: int | None, since: datetime | None) -> list[_Entry]:
        """The lines of one cluster, or of all rentals that may have cost something since then."""
        where, values = "", list[object]()
        if cluster_id is not None:
            where, values = "WHERE cluster_id = ?", [cluster_id]
        elif since is not None:
            where, values = "WHERE gone_at IS NULL OR gone_at >= ?", [stamp(since - CLOCK_ERROR)]
        return [_entry(row) for row in self._db.read(_ENTRIES.format(where=where), *values)]


def total(charges: Iterable[Charge]) -> Decimal | None:
    """The sum; ``None`` when one of them is not known."""
    amounts = [each.usd for each in charges]
    return None if None in amounts else sum((usd for usd in amounts if usd is not None), Decimal(0))


def _entry(row: sqlite3.Row) -> _Entry:
    since = Reading(datetime.fromisoformat(row["at"]), row["boot"], row["ticks"])
    return _Entry(row["token"], row["cluster_id"], row["line"], since, row["micros"])


def _spans(entries: Sequence[_Entry], now: Reading) -> list[Span]:
    """Each span begins where the one before it ends, so none overlaps, whatever the clocks were set to."""
    if not entries:
        return []
    spans = []
    start = entries[0].since.at
    ends = [entry.since for entry in entries[1:]] + [now]
    for entry, end in zip(entries, ends, strict=True):
        ended = start + entry.since.until(end)
        spans.append(Span(start, ended, entry.micros_per_hour))
        start = ended
    return spans


def _integrated(
    entries: Iterable[_Entry],
    since: datetime | None,
    until: datetime | None,
    now: Reading,
    period: PeriodEnd | None,
) -> Iterator[Charge]:
    for (token, cluster_id, line), group in groupby(entries, attrgetter("token", "cluster_id", "line")):
        spans = _spans(list(group), now)
        for begin, end in _pieces(spans, since, until, period):
            paid = [span for span in _inside(spans, begin, end) if span.micros_per_hour != 0]
            known = _length(span for span in paid if span.micros_per_hour is not None)
            unknown = _length(span for span in paid if span.micros_per_hour is None)
            if known:
                usd = from_micros(_micros_until(spans, end) - _micros_until(spans, begin))
                yield Charge(token, cluster_id, Line(line), known, usd, begin)
            if unknown:
                yield Charge(token, cluster_id, Line(line), unknown, None, begin)


def _pieces(
    spans: Sequence[Span], since: datetime | None, until: datetime | None, period: PeriodEnd | None
) -> Iterator[tuple[datetime, datetime]]:
    """The time in which anything was paid for, cut where periods end."""
    paid = [span for span in spans if span.micros_per_hour != 0]
    if not paid:
        return
    begin, end = paid[0].start, paid[-1].end
    begin = max(begin, since) if since else begin
    end = min(end, until) if until else end
    while begin < end:
        piece_end = min(period(begin), end) if period else end
        yield begin, piece_end
        begin = piece_end


def _inside(spans: Iterable[Span], begin: datetime, end: datetime) -> Iterator[Span]:
    for span in spans:
        if span.start < end and span.end > begin:
            yield Span(max(span.start, begin), min(span.end, end), span.micros_per_hour)


def _length(spans: Iterable[Span]) -> timedelta:
    return sum((span.end - span.start for span in spans), timedelta())


def _micros_until(spans: Sequence[Span], moment: datetime) -> int:
    """The running total, half a micro-dollar rounded up."""
    product = sum(
        (span.micros_per_hour or 0) * ((min(span.end, moment) - span.start) // MICROSECOND)
        for span in spans
        if moment > span.start
    )
    return (2 * product + MICROSECONDS_PER_HOUR) // (2 * MICROSECONDS_PER_HOUR)


def _within(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)
