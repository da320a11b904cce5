"""The journal: what was intended at a provider, and what came of it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from datetime import datetime

from gpucloud.model import HostKeySource, Instance, Rental, RentalState, SshAddress, utcnow
from gpucloud.store.database import Database
from gpucloud.store.ledger import meter
from gpucloud.store.rows import stamp, to_columns, to_rental


class Journal:
    """``intended -> accepted -> reachable -> ending -> gone``, each step durable before the method returns.

    A provider is called only after ``intend`` has returned; ``gone`` is called only after a listing no longer
    shows the instance. What is gone is neither reached nor ending: only a listing brings it back.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def intend(self, rental: Rental) -> None:
        """Write down what is about to be rented. Must return before the provider is called."""
        row = to_columns(rental)
        with self._db.write() as db:
            db.execute(
                f"INSERT INTO rentals ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            )
            _event(db, rental.token, RentalState.INTENDED, f"{rental.provider} {rental.instance_type}")

    def accept(self, token: str, instance: Instance) -> None:
        """The provider made the instance; its meter runs from now on. Once is enough."""
        with self._db.write() as db:
            rental = self.get(token)
            if rental.ref is not None:
                return
            meter(db, rental, instance.created_at or utcnow(), running=True)
            # It may have been given up for gone while the provider was still at it.
            db.execute(
                "UPDATE rentals SET state = ?, gone_at = NULL, instance_id = ?, instance_region = ?,"
                " slots = ? WHERE token = ?",
                (RentalState.ACCEPTED, instance.ref.id, instance.ref.region, instance.slots, token),
            )
            _event(db, token, RentalState.ACCEPTED, instance.ref.id)

    def reached(self, token: str, ssh: SshAddress, host_key: str, source: HostKeySource) -> None:
        """SSH answers at ``ssh`` with ``host_key``, which is pinned from now on."""
        with self._db.write() as db:
            changed = db.execute(
                "UPDATE rentals SET state = ?, ssh = ?, host_key = ?, host_key_source = ?"
                " WHERE token = ? AND gone_at IS NULL",
                (RentalState.REACHABLE, json.dumps(asdict(ssh)), host_key, source, token),
            ).rowcount
            if changed:
                _event(db, token, RentalState.REACHABLE, f"{ssh.host}:{ssh.port}")

    def ready_seconds(self) -> dict[str, list[float]]:
        """By provider, how long each rental took from when it was accepted until SSH answered."""
        rows = self._db.read(
            "SELECT rentals.provider, accepted.at, min(reached.at) FROM rentals"
            " JOIN journal AS accepted ON accepted.token = rentals.token AND accepted.event = ?"
            " JOIN journal AS reached ON reached.token = rentals.token AND reached.event = ?"
            " GROUP BY rentals.token",
            RentalState.ACCEPTED,
            RentalState.REACHABLE,
        )
        found: dict[str, list[float]] = {}
        for provider, accepted, reached in rows:
            took = datetime.fromisoformat(reached) - datetime.fromisoformat(accepted)
            found.setdefault(provider, []).append(max(took.total_seconds(), 0.0))
        return found

    def ending(self, token: str, reason: str) -> None:
        """The instance is about to be terminated, for ``reason``."""
        with self._db.write() as db:
            changed = db.execute(
                "UPDATE rentals SET state = ?, reason = ? WHERE token = ? AND gone_at IS NULL",
                (RentalState.ENDING, reason, token),
            ).rowcount
            if changed:
                _event(db, token, RentalState.ENDING, reason)

    def gone(self, token: str, reason: str) -> None:
        """A listing proved that the instance is not there (any more); its meter has stopped."""
        with self._db.write() as db:
            rental = self.get(token)
            if rental.state is RentalState.GONE:
                return
            now = utcnow()
            if rental.ref is not None:
                meter(db, rental, now, running=False)
            db.execute(
                "UPDATE rentals SET state = ?, gone_at = ?, reason = coalesce(reason, ?) WHERE token = ?",
                (RentalState.GONE, stamp(now), reason, token),
            )
            _event(db, token, RentalState.GONE, reason)

    def reappeared(self, token: str, instance: Instance) -> None:
        """A rental thought gone is listed after all: it bills and is to be ended."""
        with self._db.write() as db:
            rental = self.get(token)
            if rental.state is not RentalState.GONE:
                return
            # One that was metered before has been billing since its meter was stopped.
            since = rental.gone_at if rental.ref else instance.created_at
            meter(db, rental, since or rental.intended_at, running=True)
            db.execute(
                "UPDATE rentals SET state = ?, gone_at = NULL, instance_id = ?, instance_region = ?"
                " WHERE token = ?",
                (RentalState.ENDING, instance.ref.id, instance.ref.region, token),
            )
            _event(db, token, RentalState.ENDING, "reappeared in a listing")

    def rentals(self, *, gone: bool = False) -> list[Rental]:
        """The rentals that may still bill, or with ``gone`` every one there ever was, by cluster and rank."""
        where = "" if gone else "WHERE gone_at IS NULL"
        rows = self._db.read(f"SELECT * FROM rentals {where} ORDER BY cluster_id, rank, intended_at")
        return [to_rental(row) for row in rows]

    def events(self, token: str) -> list[tuple[datetime, str, str]]:
        """What happened to one rental: time, event and detail."""
        rows = self._db.read("SELECT at, event, detail FROM journal WHERE token = ? ORDER BY id", token)
        return [(datetime.fromisoformat(row["at"]), row["event"], row["detail"]) for row in rows]

    def get(self, token: str) -> Rental:
        """One rental, gone or not."""
        return to_rental(self._db.read("SELECT * FROM rentals WHERE token = ?", token)[0])


def _event(db: sqlite3.Connection, token: str, event: str, detail: str) -> None:
    db.execute(
        "INSERT INTO journal (at, token, event, detail) VALUES (?, ?, ?, ?)",
        (stamp(utcnow()), token, event, detail),
    )
