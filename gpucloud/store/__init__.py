"""What we rented and ran: one SQLite database with journal, ledger, clusters, jobs and refusals.

Money is integer micro-dollars, times are ISO 8601 text in UTC, and every change is one durable transaction.
"""

from __future__ import annotations

from pathlib import Path

from gpucloud.store.bookings import Bookings
from gpucloud.store.budget import Budget
from gpucloud.store.clusters import Clusters
from gpucloud.store.database import NAME, Database
from gpucloud.store.jobs import Jobs
from gpucloud.store.journal import Journal
from gpucloud.store.ledger import Ledger
from gpucloud.store.pins import Pins
from gpucloud.store.refusals import Refusals
from gpucloud.store.rows import new_id

__all__ = ["Store", "new_id"]


class Store:
    """The database of one installation, by its rooms. Safe to share between threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.db = Database(folder)
        self.ledger = Ledger(self.db)
        self.budget = Budget(self.db, self.ledger)
        self.journal = Journal(self.db, self.ledger, self.budget)
        self.clusters = Clusters(self.db, self.journal, self.budget)
        self.bookings = Bookings(self.db, self.budget)
        self.jobs = Jobs(self.db)
        self.refusals = Refusals(self.db)
        self.pins = Pins(self.db)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether anything has been written down in a folder; to open the books would make them."""
        return (folder / NAME).exists()
