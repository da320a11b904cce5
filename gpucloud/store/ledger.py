"""The ledger: the agreed price of each rental from the moment at which it holds."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from gpucloud.model import Rental, utcnow
from gpucloud.store.database import Database
from gpucloud.store.rows import from_micros, stamp, to_micros

_MICROSECONDS_PER_HOUR = 3_600_000_000


def meter(db: sqlite3.Connection, rental: Rental, at: datetime, *, running: bool) -> None:
    """Enter, in the caller's transaction, that the meter of a rental runs at its price, or stands still."""
    rate = rental.usd_per_hour if running else Decimal(0)
    db.execute(
        "INSERT INTO ledger (at, token, usd_micros_per_hour, currency, amount) VALUES (?, ?, ?, ?, ?)",
        (
            stamp(at),
            rental.token,
            to_micros(rate) if rate is not None else None,
            rental.currency,
            str(rental.amount) if running and rental.amount is not None else None,
        ),
    )


class Ledger:
    """What has been spent."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def cost(self, cluster_id: int, now: datetime | None = None) -> Decimal | None:
        """What a cluster has cost until ``now``, in dollars: the integral of its rates over time.

        ``None`` when a price is not known. A clock that was set back never makes a negative cost.
        """
        rows = self._db.read(
            "SELECT ledger.* FROM ledger JOIN rentals USING (token) WHERE cluster_id = ? ORDER BY ledger.id",
            cluster_id,
        )
        changes: dict[str, list[tuple[datetime, int | None]]] = {}
        for row in rows:
            change = (datetime.fromisoformat(row["at"]), row["usd_micros_per_hour"])
            changes.setdefault(row["token"], []).append(change)
        total = Decimal(0)
        for rates in changes.values():
            ends = [start for start, _ in rates[1:]] + [now or utcnow()]
            for (start, micros), end in zip(rates, ends, strict=True):
                if micros is None:
                    return None
                lasted = max(end - start, timedelta()) // timedelta(microseconds=1)
                total += Decimal(micros * lasted) / _MICROSECONDS_PER_HOUR
        return from_micros(int(total.to_integral_value(ROUND_HALF_UP)))
