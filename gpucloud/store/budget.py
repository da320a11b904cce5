"""The budgets: what is spent, and kept back for what runs, against the caps of the person.

Of a cluster that lives the most that it can cost is held, from the transaction that enters it on. What it has
cost takes the place of that once it has ended, so no two launches can pass a cap together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gpucloud.errors import BudgetRefused
from gpucloud.store.database import Database
from gpucloud.store.ledger import Ledger
from gpucloud.store.rows import from_micros, stamp, to_micros


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``usd`` for what is spent ``since`` then, of one ``project`` or of all.

    Without ``since`` it is a cap on each cluster by itself. ``name`` is how messages call it: ``a day``.
    """

    name: str
    usd: Decimal
    since: datetime | None = None
    project: str | None = None

    def __str__(self) -> str:
        of = f" for project {self.project}" if self.project is not None else ""
        return f"${self.usd:f} {self.name}{of}"


@dataclass(frozen=True, slots=True)
class Use:
    """What a cluster takes of a cap in dollars: what is ``spent``, and what is ``held`` beside it.

    ``known`` is false when a price is not known, so that it may be more.
    """

    cluster: str
    spent: Decimal
    held: Decimal
    known: bool = True

    @property
    def usd(self) -> Decimal:
        """All of it."""
        return self.spent + self.held


class Budget:
    """The caps against the books."""

    def __init__(self, db: Database, ledger: Ledger) -> None:
        self._db = db
        self._ledger = ledger

    def uses(self, cap: Cap, *, without: int | None = None) -> list[Use]:
        """What takes of a cap that counts a time, the most first; ``without`` one of the clusters."""
        assert cap.since is not None
        rows = self._db.read(
            "SELECT id, name, ended_at, held_micros FROM clusters WHERE (ended_at IS NULL OR ended_at >= ?)"
            " AND id IS NOT ? AND (? IS NULL OR project = ?)",
            *(stamp(cap.since), without, cap.project, cap.project),
        )
        found = [self._use(row, cap.since) for row in rows]
        return sorted((u for u in found if u.usd or not u.known), key=lambda use: (-use.usd, use.cluster))

    def reserve(self, cluster_id: int, most: Decimal | None, caps: Sequence[Cap]) -> None:
        """Hold ``most`` for a cluster, within the caller's transaction; ``None`` is without bound.

        Raises ``BudgetRefused`` when a cap does not allow it.
        """
        (row,) = self._db.read("SELECT name, project FROM clusters WHERE id = ?", cluster_id)
        for cap in caps:
            if cap.project in (None, row["project"]):
                self._check(cap, cluster_id, row["name"], most)
        held = to_micros(most or Decimal(0))
        self._db.read("UPDATE clusters SET held_micros = ? WHERE id = ? RETURNING id", held, cluster_id)

    def _check(self, cap: Cap, cluster_id: int, name: str, most: Decimal | None) -> None:
        if most is None:
            raise BudgetRefused(
                f"the cap of {cap} cannot be kept by a launch without limit",
                why=f"nothing bounds what {name} can cost",
                hint="give --max-duration or --max-cost",
            )
        others = self.uses(cap, without=cluster_id) if cap.since else []
        before = self._spent(cluster_id, None, cap.since)[0] if cap.since else Decimal(0)
        taken = sum((use.usd for use in others), Decimal(0))
        if taken + most - before > cap.usd:
            raise BudgetRefused(
                f"the cap of {cap} would be passed",
                why=f"{name} can cost ${most:.4f}; {_told(others, taken)}",
                hint="gpucloud budget, or a smaller --max-cost or --max-duration",
            )

    def _use(self, row: sqlite3.Row, since: datetime) -> Use:
        spent, known = self._spent(row["id"], since, None)
        if row["ended_at"] is not None:
            return Use(row["name"], spent, Decimal(0), known)
        before = self._spent(row["id"], None, since)[0]
        held = max(from_micros(row["held_micros"]) - before - spent, Decimal(0))
        return Use(row["name"], spent, held, known)

    def _spent(self, cluster_id: int, since: datetime | None, until: datetime | None) -> tuple[Decimal, bool]:
        """What a cluster has cost within a time as far as it is known, and whether all of it is."""
        amounts = [each.usd for each in self._ledger.charges(since, until, cluster_id=cluster_id)]
        return sum((usd for usd in amounts if usd is not None), Decimal(0)), None not in amounts


def _told(uses: Sequence[Use], taken: Decimal) -> str:
    listed = ", ".join(f"{use.cluster} ${use.usd:.4f}" for use in uses[:5])
    return f"${taken:.4f} is spent or held already" + (f": {listed}" if listed else "")
