"""The clusters: named sets of rentals."""

from __future__ import annotations

import sqlite3

from gpucloud.errors import Locked
from gpucloud.model import Cluster, ClusterState, Rental, utcnow
from gpucloud.store.database import Database
from gpucloud.store.journal import Journal
from gpucloud.store.rows import stamp, to_cluster


class Clusters:
    """The table of clusters. A name is unique among the living ones."""

    def __init__(self, db: Database, journal: Journal) -> None:
        self._db = db
        self._journal = journal

    def create(self, name: str, nodes: int, *, ephemeral: bool) -> Cluster:
        """Enter a new cluster. Raises ``Locked`` when the name is in use."""
        try:
            with self._db.write() as db:
                entered = db.execute(
                    "INSERT INTO clusters (name, state, nodes, ephemeral, created_at) VALUES (?, ?, ?, ?, ?)",
                    (name, ClusterState.LAUNCHING, nodes, ephemeral, stamp(utcnow())),
                )
        except sqlite3.IntegrityError:
            raise Locked(
                f"a cluster named {name!r} has just been made", why="names are unique", hint="gpucloud ps"
            ) from None
        assert entered.lastrowid is not None
        return self.by_id(entered.lastrowid)

    def update(self, cluster_id: int, state: ClusterState, *, ephemeral: bool | None = None) -> Cluster:
        """Change the state of a cluster; ``ENDED`` frees its name and is for ever."""
        ended_at = stamp(utcnow()) if state is ClusterState.ENDED else None
        with self._db.write() as db:
            db.execute(
                "UPDATE clusters SET state = ?, ended_at = ?, ephemeral = coalesce(?, ephemeral)"
                " WHERE id = ? AND ended_at IS NULL",
                (state, ended_at, ephemeral, cluster_id),
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

    def _find(self, where: str, *values: object) -> list[Cluster]:
        rentals: dict[int, list[Rental]] = {}
        for rental in self._journal.rentals():
            rentals.setdefault(rental.cluster_id, []).append(rental)
        rows = self._db.read(f"SELECT * FROM clusters {where} ORDER BY id", *values)
        return [to_cluster(row, tuple(rentals.get(row["id"], ()))) for row in rows]
