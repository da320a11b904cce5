"""The budgets: what is spent, and kept back for what runs, against the caps of the person.

Of a cluster that lives the most that it can cost is held, from the transaction that enters it on. What it has
cost takes the place of that once it has ended, so no two launches can pass a cap together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from gpucloud.errors import BudgetRefused
from gpucloud.store.database import Database
from gpucloud.store.ledger import Charge, Ledger
from gpucloud.store.rows import from_micros, to_micros, to_rental

NOTHING: Final = Decimal(0)
TOLD: Final = 5
"""A refusal names so many clusters."""


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``usd`` a ``name`` (launch, day, month) for what is spent ``since`` then.

    It is for one ``project`` or for all. Without ``since`` it is a cap on each cluster by itself.
    """

    name: str
    usd: Decimal
    since: datetime | None = None
    project: str | None = None

    def __str__(self) -> str:
        of = f" for project {self.project}" if self.project is not None else ""
        return f"${self.usd:f} a {self.name}{of}"


@dataclass(frozen=True, slots=True)
class Use:
    """What a cluster takes of a cap in dollars: what is ``spent``, and what is ``held`` beside it.

    It may be more when a price is not ``known``, and when the cluster is ``endless``: nothing bounds it.
    """

    cluster: str
    spent: Decimal
    held: Decimal
    known: bool = True
    endless: bool = False

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
        # One that has ended may still cost: an instance that comes back, or a bill that comes late.
        costs: dict[int, list[Charge]] = {}
        for each in self._ledger.charges(cap.since):
            costs.setdefault(each.cluster_id, []).append(each)
        endless = self._endless()
        rows = self._db.read(
            "SELECT id, name, held_micros FROM clusters WHERE id IS NOT ? AND (? IS NULL OR project = ?)",
            *(without, cap.project, cap.project),
        )
        found = [self._use(row, cap.since, costs.get(row["id"], []), row["id"] in endless) for row in rows]
        found += self._booked(cap)
        taking = [use for use in found if use.usd or use.endless or not use.known]
        return sorted(taking, key=lambda use: (-use.usd, use.cluster))

    def _booked(self, cap: Cap) -> list[Use]:
        """What reservations take of a cap: what was owed within its time, and what is yet to be."""
        assert cap.since is not None
        owed: dict[str, list[Charge]] = {}
        for each in self._ledger.booked():
            owed.setdefault(each.token, []).append(each)
        found = []
        for row in self._db.read(
            "SELECT token, name, usd_micros FROM bookings"
            " WHERE state != 'failed' AND (? IS NULL OR project = ?)",
            *(cap.project, cap.project),
        ):
            charges = owed.get(row["token"], [])
            spent = _sum(each for each in charges if each.since >= cap.since)
            held = from_micros(row["usd_micros"]) - _sum(charges)
            found.append(Use(f"reservation {row['name']}", spent, held))
        return found

    def reserve(self, cluster_id: int, most: Decimal | None, caps: Sequence[Cap]) -> None:
        """Hold ``most`` for a cluster, within the caller's transaction; ``None`` is without bound.

        What takes no more than is held already is never refused. Raises ``BudgetRefused`` when a cap does
        not allow it.
        """
        (row,) = self._db.read("SELECT name, project, held_micros FROM clusters WHERE id = ?", cluster_id)
        if most is None or to_micros(most) > row["held_micros"]:
            self.check(row["name"], row["project"], most, caps, cluster_id=cluster_id)
        if most is not None:
            held = to_micros(most)
            self._db.read("UPDATE clusters SET held_micros = ? WHERE id = ? RETURNING id", held, cluster_id)

    def check(
        self,
        name: str,
        project: str,
        most: Decimal | None,
        caps: Sequence[Cap],
        *,
        cluster_id: int | None = None,
    ) -> None:
        """Raise ``BudgetRefused`` when a cap does not allow a cluster that can cost ``most``.

        Without ``cluster_id`` it is one that is not entered yet; nothing is held for it.
        """
        for cap in caps:
            if cap.project not in (None, project):
                continue
            if most is None:
                raise BudgetRefused(
                    f"the cap of {cap} cannot be kept by a launch without limit",
                    why=f"nothing bounds what {name} can cost",
                    hint="give --max-duration or --max-cost",
                )
            others: Sequence[Use] = ()
            own = most
            if cap.since:
                others = self.uses(cap, without=cluster_id)
                own = most if cluster_id is None else self._within(cap.since, cluster_id, most)
            if own:
                _compare(cap, name, own, others)

    def _within(self, since: datetime, cluster_id: int, most: Decimal) -> Decimal:
        """How much a cluster can have cost since then, when ``most`` is all that it can cost."""
        # It may have cost more than that already, as on a spot market.
        spent = _sum(self._ledger.charges(since, cluster_id=cluster_id))
        return max(most - self._before(cluster_id, since), spent)

    def _use(self, row: sqlite3.Row, since: datetime, costs: Sequence[Charge], endless: bool) -> Use:
        spent, held = _sum(costs), from_micros(row["held_micros"])
        if held:
            held = max(held - self._before(row["id"], since) - spent, NOTHING)
        return Use(row["name"], spent, held, all(each.usd is not None for each in costs), endless)

    def _before(self, cluster_id: int, since: datetime) -> Decimal:
        """What a cluster had cost by then, as far as it is known."""
        return _sum(self._ledger.charges(None, since, cluster_id=cluster_id))

    def _endless(self) -> set[int]:
        """The clusters in which something bills that has no end."""
        rows = self._db.read("SELECT * FROM rentals WHERE gone_at IS NULL AND expires_at IS NULL")
        return {rental.cluster_id for rental in map(to_rental, rows) if rental.worst_cost is None}


def _sum(charges: Iterable[Charge]) -> Decimal:
    return sum((each.usd for each in charges if each.usd is not None), NOTHING)


def _compare(cap: Cap, name: str, own: Decimal, others: Sequence[Use]) -> None:
    """Whether a cap has room for what one cluster can cost beside others. Raises ``BudgetRefused``."""
    endless = [use.cluster for use in others if use.endless]
    if endless:
        raise BudgetRefused(
            f"the cap of {cap} cannot be kept",
            why=f"nothing bounds what {', '.join(endless[:TOLD])} can cost",
            hint=f"gpucloud down {endless[0]}",
        )
    if own + sum((use.usd for use in others), NOTHING) > cap.usd:
        raise BudgetRefused(
            f"the cap of {cap} would be passed",
            why=f"{name} can cost ${own:.4f}{_told(others)}",
            hint="gpucloud budget, or a smaller --max-cost or --max-duration",
        )


def _told(uses: Sequence[Use]) -> str:
    """How much of a cap is taken, and by what; empty when nothing is."""
    if not uses:
        return ""
    spent = sum((use.spent for use in uses), NOTHING)
    held = sum((use.held for use in uses), NOTHING)
    listed = [f"{use.cluster} ${use.usd:.4f}" for use in uses[:TOLD]]
    if len(uses) > TOLD:
        listed.append(f"{len(uses) - TOLD} more")
    return f", and ${spent:.4f} is spent and ${held:.4f} held already by {', '.join(listed)}"
