"""The pinned SSH host keys of machines that are there before and after a rental, and of jump hosts."""

from __future__ import annotations

from gpucloud.model import HostKeySource, utcnow
from gpucloud.store.database import Database
from gpucloud.store.rows import stamp


class Pins:
    """Host keys by alias (``host:port``). The key of an instance is kept with its rental instead."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, alias: str) -> tuple[str, HostKeySource] | None:
        """The pinned key and where it came from."""
        rows = self._db.read("SELECT host_key, source FROM pins WHERE alias = ?", alias)
        return (rows[0]["host_key"], HostKeySource(rows[0]["source"])) if rows else None

    def add(self, alias: str, host_key: str, source: HostKeySource) -> None:
        """Pin a key; a key that is pinned already is not replaced."""
        with self._db.write() as db:
            db.execute(
                "INSERT OR IGNORE INTO pins VALUES (?, ?, ?, ?)", (alias, host_key, source, stamp(utcnow()))
            )

    def all(self) -> dict[str, str]:
        """Every pinned key by its alias."""
        return {row["alias"]: row["host_key"] for row in self._db.read("SELECT alias, host_key FROM pins")}
