"""The SQLite file: opening, migrating, transactions, damage, and locks between processes."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from gpucloud.errors import GpucloudError, Locked, StoreError
from gpucloud.model import utcnow
from gpucloud.store.schema import MIGRATIONS

NAME: Final = "gpucloud.db"
BUSY_S: Final = 30
"""How long to wait for another process that writes."""
GRACE_S: Final = 0.2
"""How long to wait for a lock: who only looks whether it is held has it for a moment."""
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_DISK: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


class Database:
    """One connection, safe to share between threads; other processes may have theirs at the same time.

    Raises:
        StoreError: from every method, when the file cannot be used, is newer than this program, or is
            damaged; a damaged file is set aside, never deleted.
        Locked: when another process keeps a transaction open for half a minute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME
        self._threads = threading.RLock()
        self._inode = 0
        self._lost = False
        with self._translated():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.path.exists():
                self._create()
            self._inode = self.path.stat().st_ino
            self._connection = _connect(self.path)
        try:
            with self._translated():
                self._check()
                # An intent must survive a power cut, or an instance could bill that nobody remembers.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("PRAGMA foreign_keys = ON")
                self._migrate()
        except BaseException:
            self.close()
            raise

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
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has undone it already when the disk is full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

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
        if version < len(MIGRATIONS):
            with self.write() as db:
                for number, script in enumerate(MIGRATIONS[self._version() :], start=self._version() + 1):
                    for statement in filter(str.strip, script.split(";")):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {number}")

    def _create(self) -> None:
        """Make the file elsewhere and put it in place whole: two first commands at once make one database."""
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        os.close(os.open(draft, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600))
        with closing(_connect(draft)) as connection:
            # Changing this later would not wait for other processes as writing does.
            connection.execute("PRAGMA journal_mode = WAL")
        try:
            os.link(draft, self.path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            # An error of our own, such as the use of a closed connection, has no code.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT if self._lost else None)
            if code is None:
                raise
            raise self._explained(error, code & 0xFF) from error
        except OSError as error:
            raise StoreError(
                "the database cannot be used", why=str(error), hint=f"ls -ld {self.folder}"
            ) from error

    def _explained(self, error: sqlite3.DatabaseError, code: int) -> GpucloudError:
        if code in _BUSY:
            return Locked(
                "the database is busy", why=f"another process keeps {self.path} locked", hint="try again"
            )
        if code in _DAMAGED:
            return self._damaged(str(error))
        look = "df -h" if code in _DISK else "ls -l"
        return StoreError(
            "the database cannot be used", why=f"{self.path}: {error}", hint=f"{look} {self.folder}"
        )

    def _check(self) -> None:
        """A new database is put in place with its header, so an empty one has lost what was in it."""
        if self.path.stat().st_size == 0:
            raise self._damaged("the file is empty")

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            "the database is damaged and was set aside",
            why=f"{why}; it is kept as {self._set_aside()}",
            hint="gpucloud fsck --rebuild",
        )

    def _set_aside(self) -> Path:
        """Put an empty database that refuses to rent until it is rebuilt in the place of the damaged one.

        Returns where the damaged one is kept. Another process may have done it already.
        """
        with self._threads, self._translated(), self._file_lock("damage", BUSY_S):
            if self.path.stat().st_ino == self._inode:
                self._replace(self.path.with_name(f"gpucloud.db.damaged-{utcnow():%Y%m%dT%H%M%S%f}"))
            # Only now: SQLite no longer touches, on closing, what is not in its place.
            self._connection.close()
            self._lost = True
            kept = self.folder.glob("gpucloud.db.damaged-*")
            return next((file for file in kept if file.stat().st_ino == self._inode), self.folder)

    def _replace(self, aside: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            fresh = Database(Path(scratch))
            fresh.set_needs_rebuild(True)
            fresh.close()
            # SQLite would bring what was not yet in the damaged file into the new one.
            for suffix in ("-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.rename(aside.with_name(aside.name + suffix))
            # There is a database at every moment, or a process that starts now would begin an empty one.
            os.link(self.path, aside)
            fresh.path.replace(self.path)

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
    def lock(self, name: str, *, wait_s: float = GRACE_S) -> Iterator[None]:
        """Hold a lock that dies with the process. Raises ``Locked`` when another has it for ``wait_s``."""
        with self._file_lock(name, wait_s):
            yield

    def is_locked(self, name: str) -> bool:
        """Whether a living process holds the lock."""
        try:
            with self._file_lock(name, 0):
                return False
        except Locked:
            return True

    @contextmanager
    def _file_lock(self, name: str, timeout_s: float) -> Iterator[None]:
        from filelock import FileLock, Timeout

        folder = self.folder / "locks"
        holder = FileLock(folder / f"{name}.lock", mode=0o600)
        with self._translated():
            folder.mkdir(exist_ok=True, mode=0o700)
            try:
                holder.acquire(timeout_s, poll_interval=0.02)
            except Timeout:
                raise Locked(
                    f"another gpucloud is at work on {name.partition('-')[2] or name!r}",
                    why="it holds the lock until it has finished",
                    hint="wait for it, or look with gpucloud ps",
                ) from None
        try:
            yield
        finally:
            holder.release()
