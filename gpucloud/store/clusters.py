"""The clusters: named sets of rentals."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from decimal import Decimal

from gpucloud.errors import Locked
from gpucloud.model import Cluster, ClusterState, Labels, Limits, Rental, utcnow
from gpucloud.store.budget import Budget, Cap
from gpucloud.store.database import Database
from gpucloud.store.journal import Journal
from gpucloud.store.rows import limits_text, stamp, to_cluster


class Clusters:
    """The table of clusters. A name is unique among the living ones."""

    def __init__(self, db: Database, journal: Journal, budget: Budget) -> None:
        self._db = db
        self._journal = journal
        self._budget = budget

    def create(
        self,
        name: str,
        nodes: int,
        *,
        ephemeral: bool,
        limits: Limits | None = None,
        labels: Labels | None = None,
        most: Decimal | None = Decimal(0),
        caps: Sequence[Cap] = (),
    ) -> Cluster:
        """Enter a new cluster, and hold the ``most`` that it can cost, ``None`` when nothing bounds it.

        Raises ``Locked`` when the name is in use, and ``BudgetRefused`` when a cap does not allow it.
        """
        try:
            with self._db.write() as db:
                cluster_id = _insert(db, name, nodes, ephemeral, limits or Limits(), labels or Labels())
                self._budget.reserve(cluster_id, most, caps)
        except sqlite3.IntegrityError:
            raise Locked(
                f"a cluster named {name!r} has just been made", why="names are unique", hint="gpucloud ps"
            ) from None
        return self.by_id(cluster_id)

    def hold(self, cluster_id: int, most: Decimal | None, caps: Sequence[Cap], limits: Limits) -> Cluster:
        """Hold another amount for a cluster, and let it have other limits. Raises ``BudgetRefused``."""
        with self._db.write() as db:
            self._budget.reserve(cluster_id, most, caps)
            db.execute("UPDATE clusters SET limits = ? WHERE id = ?", (limits_text(limits), cluster_id))
        return self.by_id(cluster_id)

    def update(self, cluster_id: int, state: ClusterState, *, ephemeral: bool | None = None) -> Cluster:
        """Change the state of a cluster; ``ENDED`` frees its name and what was held for it, for ever."""
        over = state is ClusterState.ENDED
        with self._db.write() as db:
            db.execute(
                "UPDATE clusters SET state = ?, ended_at = ?, ephemeral = coalesce(?, ephemeral),"
                " held_micros = iif(?, 0, held_micros) WHERE id = ? AND ended_at IS NULL",
                (state, stamp(utcnow()) if over else None, ephemeral, over, cluster_id),
            )
        return self.by_id(cluster_id)

    def resize(self, cluster_id: int, nodes: int) -> None:
        """Change how many nodes a cluster has."""
        with self._db.write() as db:
            db.execute("UPDATE clusters SET nodes = ? WHERE id = ?", (nodes, cluster_id))

    def get(self, name: str) -> Cluster | None:
        """The living cluster of that name."""
        found = self._find("WHERE name = ? AND ended_at IS NULL", name)
        return found[0] if found else None

    def by_id(self, cluster_id: int) -> Cluster:
        """A cluster, living or ended."""
        return self._find("WHERE id = ?", cluster_id)[0]

    def living(self) -> list[Cluster]:
        """Every cluster that has not ended, oldest first."""
        return self._find("WHERE ended_at IS NULL")

    def all(self) -> list[Cluster]:
        """Every cluster there ever was, oldest first."""
        return self._find("")

    def _find(self, where: str, *values: object) -> list[Cluster]:
        rentals: dict[int, list[Rental]] = {}
        for rental in self._journal.rentals():
            rentals.setdefault(rental.cluster_id, []).append(rental)
        rows = self._db.read(f"SELECT * FROM clusters {where} ORDER BY id", *values)
        return [to_cluster(row, tuple(rentals.get(row["id"], ()))) for row in rows]


def _insert(
    db: sqlite3.Connection, name: str, nodes: int, ephemeral: bool, limits: Limits, labels: Labels
) -> int:
    row = {
        "name": name,
        "state": ClusterState.LAUNCHING,
        "nodes": nodes,
        "ephemeral": ephemeral,
        "created_at": stamp(utcnow()),
        "limits": limits_text(limits),
        "project": labels.project,
        "user": labels.user,
        "tags": json.dumps(dict(labels.tags)),
    }
    entered = db.execute(
        f"INSERT INTO clusters ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
    )
    assert entered.lastrowid is not None
    return entered.lastrowid
