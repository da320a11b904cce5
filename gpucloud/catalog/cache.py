"""The offer cache: every offer as it was seen last, in one SQLite file that may be deleted at any time."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Final, Self

from gpucloud.catalog.columns import COLUMNS
from gpucloud.catalog.files import transaction
from gpucloud.catalog.rows import FIELDS, GPU_FIELDS, NAMES, Row, gpu_row, keys_of, to_offer, to_rows
from gpucloud.catalog.where import ALL, Condition
from gpucloud.errors import StoreError
from gpucloud.model import Gpu, Offer

VERSION: Final = 3
CACHE_KIB: Final = 40_000
PAGE_BYTES: Final = 16_384
BUSY_S: Final = 30
"""How long to wait for another process that writes."""

_SCHEMA: Final = f"""
CREATE TABLE sources (
  id INTEGER PRIMARY KEY, provider TEXT NOT NULL, kind INTEGER NOT NULL, part TEXT NOT NULL,
  name TEXT NOT NULL, asked_at INTEGER NOT NULL, complete_at INTEGER, validator TEXT,
  UNIQUE (provider, kind, part));
CREATE TABLE offers ({", ".join(FIELDS)});
CREATE TABLE gpus ({", ".join(GPU_FIELDS)});
CREATE INDEX offers_gpu ON offers (gpu, gpu_count, usd_per_hour, availability, vcpus, source);
CREATE INDEX offers_price ON offers (usd_per_hour);
PRAGMA user_version = {VERSION};
"""
_FROM: Final = "FROM offers JOIN sources ON sources.id = offers.source LEFT JOIN gpus ON gpus.id = offers.gpu"
_TIES: Final = ("sources.provider", "offers.instance_type", "offers.region", "offers.zone", "offers.market")
_JOINED: Final = (
    "sources.provider, sources.name, sources.complete_at, gpus.chip, gpus.vram, gpus.form_factor,"
    f" {COLUMNS['margin'].sql} AS margin"
)
_REST: Final = NAMES[1:]
_UPSERT: Final = (
    f"INSERT INTO offers VALUES ({', '.join('?' * len(FIELDS))}) ON CONFLICT (key) DO UPDATE SET"
    f" ({', '.join(_REST)}) = ({', '.join(f'excluded.{name}' for name in _REST)})"
    f" WHERE ({', '.join(f'offers.{name}' for name in _REST)})"
    f" IS NOT ({', '.join(f'excluded.{name}' for name in _REST)})"
)
_UNUSABLE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SourceKind(IntEnum):
    """How near a source is to the market, nearest last; of a provider only the nearest counts."""

    LISTED = 0
    """The price list that ships with the program."""
    PUBLISHED = 1
    """Its public catalogue."""
    LIVE = 2
    """The provider was asked, so that its offers can be launched."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where offers in the cache come from; ``part`` is the part of a public catalogue.

    ``complete_at`` is when it last told everything, ``asked_at`` when it last told anything.
    """

    id: int
    provider: str
    kind: SourceKind
    part: str
    name: str
    asked_at: datetime
    complete_at: datetime | None


class Cache:
    """Offers by source, for one process; others may have the file open at the same time.

    Raises:
        StoreError: from every method, when the file cannot be read or written.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._db = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def put(
        self,
        provider: str,
        offers: Iterable[Offer],
        *,
        name: str,
        kind: SourceKind = SourceKind.LIVE,
        part: str = "",
        at: datetime,
        wanted: Condition = ALL,
        validator: str | None = None,
    ) -> int:
        """Take over the answer of a source that was asked for what meets ``wanted``; returns the changes.

        What it was asked for and no longer tells is forgotten. An unchanged answer changes no row.
        """
        with self._translated(), transaction(self._db):
            source = self._told((provider, kind, part), name, at, wanted == ALL, validator)
            told: set[int] = set()
            complete_at = at if wanted == ALL else None
            rows = to_rows(offers, source, name, complete_at, cache(self._gpu))
            changed = self._db.executemany(_UPSERT, _noting(rows, told)).rowcount
            # Where nobody is more than were told, nobody is gone.
            if self.count(Condition("offers.key BETWEEN ? AND ?", keys_of(source))) > len(told):
                known = self._db.execute(
                    f"SELECT offers.key {_FROM} WHERE offers.key BETWEEN ? AND ? AND {wanted.sql}",
                    (*keys_of(source), *wanted.values),
                )
                gone = [(key,) for (key,) in known if key not in told]
                changed += self._db.executemany("DELETE FROM offers WHERE key = ?", gone).rowcount
            return changed

    def unchanged(self, provider: str, part: str, at: datetime) -> None:
        """A part of a public catalogue is as it was."""
        with self._translated(), transaction(self._db):
            self._db.execute(
                "UPDATE sources SET asked_at = ?, complete_at = ? WHERE (provider, kind, part) = (?, ?, ?)",
                (_seconds(at), _seconds(at), provider, SourceKind.PUBLISHED, part),
            )

    def sources(self) -> list[Source]:
        """Every source, by provider."""
        with self._translated():
            rows = self._db.execute(
                "SELECT id, provider, kind, part, name, asked_at, complete_at FROM sources"
                " ORDER BY provider, kind DESC, part"
            ).fetchall()
        return [
            Source(
                row["id"],
                row["provider"],
                SourceKind(row["kind"]),
                row["part"],
                row["name"],
                _moment(row["asked_at"]),
                _moment(row["complete_at"]) if row["complete_at"] else None,
            )
            for row in rows
        ]

    def validators(self, kind: SourceKind) -> dict[tuple[str, str], str | None]:
        """What tells the edition of each source from the next, by provider and part. They may be long."""
        with self._translated():
            rows = self._db.execute("SELECT provider, part, validator FROM sources WHERE kind = ?", (kind,))
            return {(provider, part): validator for provider, part, validator in rows}

    def select(
        self,
        condition: Condition = ALL,
        *,
        order: Sequence[str] = (),
        group: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Offer]:
        """The offers that meet a condition, or with ``group`` the best of each group.

        ``order`` and ``group`` are expressions of SQL; ``order`` has the best first.
        """
        # Only the best are read whole; the others are no more than what is in an index while they are sorted.
        ranked = ", ".join([*order, "offers.key"])
        best = f"SELECT offers.key {_FROM} WHERE {condition.sql} ORDER BY {ranked} LIMIT ?"
        if group:
            best = (
                f"SELECT key FROM (SELECT offers.key, row_number() OVER (ORDER BY {ranked}) AS place,"
                f" row_number() OVER (PARTITION BY {', '.join(group)} ORDER BY {ranked}) AS place_in_group"
                f" {_FROM} WHERE {condition.sql}) WHERE place_in_group = 1 ORDER BY place LIMIT ?"
            )
        with self._translated():
            rows = self._db.execute(
                f"SELECT offers.*, {_JOINED} {_FROM} WHERE offers.key IN ({best})"
                f" ORDER BY {', '.join([*order, *_TIES])}",
                (*condition.values, -1 if limit is None else limit),
            )
            return [to_offer(row) for row in rows]

    def count(self, condition: Condition = ALL) -> int:
        """How many offers meet a condition."""
        with self._translated():
            found = self._db.execute(f"SELECT count(*) {_FROM} WHERE {condition.sql}", condition.values)
            return int(found.fetchone()[0])

    def gpus(self, condition: Condition = ALL) -> list[str]:
        """The names of the GPUs among the offers that meet a condition."""
        with self._translated():
            rows = self._db.execute(
                f"SELECT DISTINCT gpus.name {_FROM} WHERE gpus.name IS NOT NULL AND {condition.sql}",
                condition.values,
            )
            return sorted(name for (name,) in rows)

    def _gpu(self, gpu: Gpu) -> int:
        """The number of a GPU in the cache."""
        row = gpu_row(gpu)
        fields = ", ".join(field.split()[0] for field in GPU_FIELDS[1:])
        found = self._db.execute(
            f"INSERT INTO gpus ({fields}) VALUES ({', '.join('?' * len(row))})"
            " ON CONFLICT (name) DO UPDATE SET bf16_tflops = excluded.bf16_tflops,"
            " bandwidth_gb_s = excluded.bandwidth_gb_s RETURNING id",
            row,
        )
        return int(found.fetchone()[0])

    def _told(
        self,
        source: tuple[str, SourceKind, str],
        name: str,
        at: datetime,
        complete: bool,
        validator: str | None,
    ) -> int:
        """Note that a source has answered; returns its number."""
        seconds = _seconds(at)
        row = self._db.execute(
            "INSERT INTO sources (provider, kind, part, name, asked_at, complete_at, validator)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (provider, kind, part) DO UPDATE SET"
            " name = excluded.name, asked_at = excluded.asked_at, validator = excluded.validator,"
            " complete_at = coalesce(excluded.complete_at, complete_at) RETURNING id",
            (*source, name, seconds, seconds if complete else None, validator),
        ).fetchone()
        return int(row[0])

    def _open(self) -> sqlite3.Connection:
        """The file, made when there is none; what is damaged or of another version is begun anew."""
        with self._translated():
            if self._file:
                self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                db = self._connected()
            except sqlite3.DatabaseError as error:
                if self._file is None or error.sqlite_errorcode & 0xFF not in _UNUSABLE:
                    raise
                self._discard()
                db = self._connected()
            if db.execute("PRAGMA user_version").fetchone()[0] not in (0, VERSION):
                db.close()
                self._discard()
                db = self._connected()
            return db

    def _connected(self) -> sqlite3.Connection:
        if self._file and not self._file.exists():
            os.close(os.open(self._file, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self._file or ":memory:", timeout=BUSY_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        # Losing the last answer to a power cut does no harm.
        db.execute("PRAGMA synchronous = OFF")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        return db

    def _discard(self) -> None:
        assert self._file
        for suffix in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            raise StoreError(
                "the offer cache cannot be used",
                why=f"{self._file}: {error}",
                hint=f"rm {self._file}: it holds only what can be asked again",
            ) from error


def _noting(rows: Iterable[Row], keys: set[int]) -> Iterator[Row]:
    """The same rows, with their keys kept."""
    for row in rows:
        keys.add(row[0])
        yield row


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
