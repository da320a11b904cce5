"""The SQLite file: opening, migrating, transactions, damage, and locks between processes."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpucloud.errors import Locked, StoreError
from gpucloud.model import utcnow
from gpucloud.store.schema import MIGRATIONS


class Database:
    """One connection, safe to share between threads; other processes may have theirs at the same time.

    Raises:
        StoreError: from every method, when the file cannot be used, is newer than this program, or is
            damaged; a damaged file is set aside, never deleted.
        Locked: when another process keeps a transaction open for half a minute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "gpucloud.db"
        self._threads = threading.RLock()
        self._inode = 0
        with self._translated():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._inode = self.path.stat().st_ino
            self._connection = sqlite3.connect(
                self.path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._migrate()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed and durable after the block, undone when the block raises."""
        with self._translated(), self._threads:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def read(self, query: str, *values: object) -> list[sqlite3.Row]:
        """The rows of a query."""
        with self._translated(), self._threads:
            return self._connection.execute(query, values).fetchall()

    def _migrate(self) -> None:
        version = self._version()
        if version > len(MIGRATIONS):
            raise StoreError(
                "the database was written by a newer gpucloud",
                why=f"{self.path} has version {version}, this program knows {len(MIGRATIONS)}",
                hint="pip install --upgrade gpucloud",
            )
        self._connection.execute("PRAGMA journal_mode = WAL")
        # An intent must survive a power cut, or an instance could bill that nobody remembers.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if version < len(MIGRATIONS):
            with self.write() as db:
                for number, script in enumerate(MIGRATIONS[self._version() :], start=self._version() + 1):
                    for statement in filter(str.strip, script.split(";")):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {number}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise Locked(
                    "the database is busy", why=f"another process keeps {self.path} locked", hint="try again"
                ) from error
            raise StoreError(
                "the database cannot be used", why=f"{self.path}: {error}", hint=f"df -h {self.folder}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                "the database is damaged and was set aside",
                why=f"{error}; it is kept as {self._set_aside()}",
                hint="gpucloud fsck --rebuild",
            ) from error
        except OSError as error:
            raise StoreError(
                "the database cannot be used", why=str(error), hint=f"ls -ld {self.folder}"
            ) from error

    def _set_aside(self) -> Path:
        """Move the damaged file away and leave an empty one that refuses to rent until it is rebuilt."""
        aside = self.path.with_name(f"gpucloud.db.damaged-{utcnow():%Y%m%dT%H%M%S%f}")
        self._connection.close()
        if self.path.stat().st_ino == self._inode:
            for suffix in ("", "-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.rename(aside.with_name(aside.name + suffix))
            fresh = Database(self.folder)
            fresh.set_needs_rebuild(True)
            fresh.close()
        return aside

    @property
    def needs_rebuild(self) -> bool:
        """Whether the books were lost and not yet rebuilt from the providers' listings."""
        return bool(self.read("SELECT 1 FROM meta WHERE key = 'needs-rebuild'"))

    def set_needs_rebuild(self, needed: bool) -> None:
        """Note that the books are incomplete, or that they are whole again."""
        with self.write() as db:
            if needed:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('needs-rebuild', 'yes')")
            else:
                db.execute("DELETE FROM meta WHERE key = 'needs-rebuild'")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock that dies with the process. Raises ``Locked`` at once when another holder has it."""
        from filelock import FileLock, Timeout

        folder = self.folder / "locks"
        folder.mkdir(exist_ok=True, mode=0o700)
        holder = FileLock(folder / f"{name}.lock", timeout=0)
        try:
            holder.acquire()
        except Timeout:
            raise Locked(
                f"another gpucloud is at work on {name!r}",
                why="it holds the lock until it has finished",
                hint="wait for it, or look with gpucloud ps",
            ) from None
        try:
            yield
        finally:
            holder.release()

    def is_locked(self, name: str) -> bool:
        """Whether a living process holds the lock."""
        try:
            with self.lock(name):
                return False
        except Locked:
            return True
