"""Every quote that was seen, kept as changes: what each purchasable line has cost since when.

A file of its own, beside the cache: that one may be thrown away, while what was seen cannot be asked again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from gpucloud.catalog.columns import AVAILABILITIES, MARKETS, MICROS
from gpucloud.catalog.files import transaction
from gpucloud.errors import StoreError
from gpucloud.model import Availability, Gpu, GpuWish, Market, Offer

VERSION: Final = 1
BUSY_S: Final = 30
SEEN_EVERY_MS: Final = 10 * 60 * 1000
"""How far behind the time may be at which a price that holds was seen last."""
MOST_BYTES: Final = 256 * 2**20
"""A file that has grown beyond this loses the oldest quarter of its quotes."""

# Times are milliseconds since 1970: two answers may come within a second.
_SCHEMA: Final = f"""
CREATE TABLE lines (
  id INTEGER PRIMARY KEY, digest INTEGER NOT NULL UNIQUE, provider TEXT NOT NULL,
  instance_type TEXT NOT NULL, place TEXT, market INTEGER NOT NULL, gpu TEXT NOT NULL,
  gpu_count INTEGER NOT NULL, seen_at INTEGER NOT NULL, usd_per_hour INTEGER NOT NULL,
  availability INTEGER NOT NULL);
CREATE INDEX lines_provider ON lines (provider);
CREATE TABLE quotes (
  line INTEGER NOT NULL REFERENCES lines, at INTEGER NOT NULL, usd_per_hour INTEGER NOT NULL,
  availability INTEGER NOT NULL, PRIMARY KEY (line, at)) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_NEVER: Final = (-1, -1, 0)
_NEW_LINE: Final = (
    "INSERT INTO lines (digest, provider, instance_type, place, market, gpu, gpu_count, usd_per_hour,"
    " availability, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_LAST_SEEN: Final = (
    "(usd_per_hour, availability, seen_at) = (excluded.usd_per_hour, excluded.availability, excluded.seen_at)"
)


@dataclass(frozen=True, slots=True)
class Quote:
    """What a line cost, the whole instance for an hour, from a moment on."""

    at: datetime
    usd_per_hour: Decimal
    availability: Availability


@dataclass(frozen=True, slots=True)
class Line:
    """Instance type x place x market, and its quotes, oldest first.

    It was seen last at ``seen_at``, or up to ``SEEN_EVERY_MS`` later.
    """

    provider: str
    instance_type: str
    place: str | None
    market: Market
    gpu: Gpu
    gpu_count: int
    seen_at: datetime
    quotes: tuple[Quote, ...]


class History:
    """The file, opened at the first use; other processes may have it open at the same time.

    Raises:
        StoreError: from every method, when the file cannot be read or written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._opened:
            self._opened.close()
        self._opened = None

    def note(self, offers: Iterable[Offer], at: datetime) -> int:
        """Keep what has changed since it was seen last; returns how many quotes are new.

        Of several offers of one line, such as the hosts of a marketplace, the cheapest counts. Offers without
        a GPU are not kept.
        """
        seen = _lines(offers)
        moment = _millis(at)
        with self._translated(), transaction(self._db):
            known = _known(self._db, {line[1] for line in seen.values()})
            new = [digest for digest, line in seen.items() if known.get(digest, _NEVER)[:2] != line[-2:]]
            # That a price still holds is written down now and then, not whenever it is told.
            old = [digest for digest in seen if moment - known.get(digest, _NEVER)[2] >= SEEN_EVERY_MS]
            self._db.executemany(
                f"{_NEW_LINE} ON CONFLICT (digest) DO UPDATE SET {_LAST_SEEN}",
                ((*seen[digest], moment) for digest in {*new, *old}),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO quotes SELECT id, ?, usd_per_hour, availability FROM lines"
                " WHERE digest = ?",
                ((moment, digest) for digest in new),
            )
            self._bound()
        return len(new)

    def add(self, offers: Iterable[Offer], until: datetime) -> int:
        """Take over what somebody else has seen, each offer as of its own moment; returns the new quotes.

        The last price of each line held ``until`` then.
        """
        seen: dict[tuple[int, int], _Row] = {}
        for offer in offers:
            for row in _lines([offer]).values():
                moment = (row[0], _millis(offer.as_of))
                seen[moment] = min(row, seen.get(moment, row), key=lambda row: row[-2:])
        with self._translated(), transaction(self._db):
            self._db.executemany(
                f"{_NEW_LINE} ON CONFLICT (digest) DO UPDATE SET {_LAST_SEEN}"
                " WHERE excluded.seen_at > lines.seen_at",
                ((*row, at) for (_, at), row in sorted(seen.items())),
            )
            added = self._db.executemany(
                "INSERT OR IGNORE INTO quotes SELECT id, ?, ?, ? FROM lines WHERE digest = ?",
                ((at, *row[-2:], digest) for (digest, at), row in seen.items()),
            ).rowcount
            self._db.executemany(
                "UPDATE lines SET seen_at = max(seen_at, ?) WHERE digest = ?",
                {(_millis(until), digest) for digest, _ in seen},
            )
            self._bound()
        return added

    def lines(
        self,
        since: datetime,
        gpus: Sequence[GpuWish] = (),
        providers: Sequence[str] = (),
        markets: Sequence[Market] = (),
    ) -> list[Line]:
        """The lines that were seen since then, each with the quote that held then and all later ones.

        The number of GPUs in a wish counts only where it is more than one.
        """
        start = _millis(since)
        with self._translated():
            rows = self._db.execute(
                "SELECT * FROM lines WHERE seen_at >= ? ORDER BY gpu, provider, market, instance_type, place",
                (start,),
            ).fetchall()
            return [
                _line(row, self._quotes(row["id"], start))
                for row in rows
                if _wanted(row, gpus)
                and (not providers or row["provider"] in providers)
                and (not markets or MARKETS[row["market"]] in markets)
            ]

    def prune(self, before: datetime) -> int:
        """Forget the quotes that held only before then; returns how many those were."""
        with self._translated():
            with transaction(self._db):
                gone = _forget(self._db, _millis(before))
            self._db.execute("VACUUM")
        return gone

    def _quotes(self, line: int, start: int) -> list[tuple[int, int, int]]:
        """What held at the start, and all that came later."""
        return self._db.execute(
            "SELECT at, usd_per_hour, availability FROM quotes WHERE line = ? AND at >="
            " coalesce((SELECT max(at) FROM quotes WHERE line = ? AND at <= ?), ?) ORDER BY at",
            (line, line, start, start),
        ).fetchall()

    def _bound(self) -> None:
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (int(self._db.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
        if (pages - free) * size > MOST_BYTES:
            first, last = self._db.execute("SELECT min(at), max(at) FROM quotes").fetchone()
            _forget(self._db, first + (last - first) // 4)

    @property
    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._file.exists():
            os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self._file, timeout=BUSY_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            db.close()
            raise StoreError(
                "the price history is of a newer gpucloud",
                why=f"{self._file} has version {version}, this program knows {VERSION}",
                hint="update gpucloud",
            )
        if version == 0:
            db.execute("PRAGMA journal_mode = WAL")
            with contextlib.suppress(sqlite3.OperationalError):  # another process was first
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        db.execute("PRAGMA synchronous = NORMAL")
        return db

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            raise StoreError(
                "the price history cannot be used",
                why=f"{self._file}: {error}",
                hint=f"mv {self._file} {self._file}.old, then gpucloud begins a new one",
            ) from error


_Row = tuple[int, str, str, str | None, int, str, int, int, int]


def _lines(offers: Iterable[Offer]) -> dict[int, _Row]:
    """The cheapest offer of each line, by a hash of what makes it that line."""
    # Loading it takes longer than a listing that writes nothing.
    import hashlib

    cheapest: dict[tuple[Any, ...], tuple[int, int]] = {}
    for offer in offers:
        if offer.gpu is None:
            continue
        line = (
            offer.provider,
            offer.instance_type,
            offer.zone or offer.region,
            MARKETS.index(offer.market),
            offer.gpu,
            offer.gpu_count,
        )
        quote = (round(offer.usd_per_hour * MICROS), AVAILABILITIES.index(offer.availability))
        if line not in cheapest or quote < cheapest[line]:
            cheapest[line] = quote
    rows: dict[int, _Row] = {}
    for (provider, kind, place, market, gpu, count), quote in cheapest.items():
        text = f"{provider}\0{kind}\0{place}\0{market}\0{gpu}\0{count}"
        digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())
        rows[digest] = (digest, provider, kind, place, market, str(gpu), count, *quote)
    return rows


def _known(db: sqlite3.Connection, providers: Iterable[str]) -> dict[int, tuple[int, int, int]]:
    """The last quote of every line of these providers, and when it was seen last."""
    found: dict[int, tuple[int, int, int]] = {}
    for provider in providers:
        rows = db.execute(
            "SELECT digest, usd_per_hour, availability, seen_at FROM lines WHERE provider = ?", (provider,)
        )
        found |= {digest: (usd, availability, seen_at) for digest, usd, availability, seen_at in rows}
    return found


def _forget(db: sqlite3.Connection, before: int) -> int:
    """Drop the quotes that another replaced before then, and the lines that were not seen since."""
    gone = db.execute(
        "DELETE FROM quotes WHERE at < ?1 AND (at < (SELECT max(other.at) FROM quotes AS other"
        " WHERE other.line = quotes.line AND other.at <= ?1)"
        " OR (SELECT seen_at FROM lines WHERE id = quotes.line) < ?1)",
        (before,),
    ).rowcount
    db.execute("DELETE FROM lines WHERE seen_at < ? AND id NOT IN (SELECT line FROM quotes)", (before,))
    return int(gone)


def _wanted(row: sqlite3.Row, gpus: Sequence[GpuWish]) -> bool:
    gpu, count = Gpu.parse(row["gpu"]), row["gpu_count"]
    return not gpus or any(wish.accepts(gpu, count if wish.count > 1 else 1) for wish in gpus)


def _line(row: sqlite3.Row, quotes: Iterable[tuple[int, int, int]]) -> Line:
    return Line(
        provider=row["provider"],
        instance_type=row["instance_type"],
        place=row["place"],
        market=MARKETS[row["market"]],
        gpu=Gpu.parse(row["gpu"]),
        gpu_count=row["gpu_count"],
        seen_at=_moment(row["seen_at"]),
        quotes=tuple(
            Quote(_moment(at), Decimal(usd) / MICROS, AVAILABILITIES[availability])
            for at, usd, availability in quotes
        ),
    )


def _millis(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _moment(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, UTC)
