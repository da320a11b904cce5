"""The journal: what was intended at a provider, and what came of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import takewhile

from gpucloud.model import HostKeySource, Instance, Rental, RentalState, SshAddress, over_time, utcnow
from gpucloud.store.budget import Budget, Cap
from gpucloud.store.clock import reading
from gpucloud.store.database import Database
from gpucloud.store.ledger import Ledger, Line, Span, charge, meter, spans_of
from gpucloud.store.rows import address_text, from_micros, stamp, to_columns, to_micros, to_rental


class Journal:
    """``intended -> accepted -> reachable -> ending -> gone``, each step durable before the method returns.

    A provider is called only after ``intend`` has returned; ``gone`` is called only after a listing no longer
    shows the instance. What is gone is neither reached nor ending: only a listing brings it back.
    """

    def __init__(self, db: Database, ledger: Ledger, budget: Budget) -> None:
        self._db = db
        self._ledger = ledger
        self._budget = budget

    def intend(self, rental: Rental, caps: Sequence[Cap] = ()) -> None:
        """Write down what is about to be rented. Must return before the provider is called.

        Where its cluster can cost more with it than is held for it, more is held in the same transaction.
        Raises ``BudgetRefused`` when a cap does not allow that; nothing is written down then.
        """
        row = to_columns(rental)
        with self._db.write() as db:
            db.execute(
                f"INSERT INTO rentals ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            )
            _event(db, rental.token, RentalState.INTENDED, f"{rental.provider} {rental.instance_type}")
            (cluster,) = self._db.read("SELECT held_micros FROM clusters WHERE id = ?", rental.cluster_id)
            most = self.worst_cost(rental.cluster_id)
            if most is None or to_micros(most) > cluster["held_micros"]:
                self._budget.reserve(rental.cluster_id, most, caps)

    def worst_cost(self, cluster_id: int) -> Decimal | None:
        """The most that a cluster with the rentals it has can cost; ``None`` when nothing bounds it."""
        most = Decimal(0)
        over = {rental.token: rental for rental in self.rentals(gone=True, cluster_id=cluster_id)}
        for rental in over.values():
            if rental.gone_at is None:
                worst = rental.worst_cost
                if worst is None:
                    return None
                most += worst
        for each in self._ledger.charges(cluster_id=cluster_id):
            if over[each.token].gone_at is not None:
                most += each.usd or Decimal(0)
        return most

    def accept(self, token: str, instance: Instance) -> None:
        """The provider made the instance; its meter runs from now on, unless it waits. Once is enough."""
        with self._db.write() as db:
            rental = self.get(token)
            if rental.ref is not None:
                return
            if rental.waits is None:
                _begin(db, rental, _begun(rental, instance.created_at))
            # It may have been given up for gone while the provider was still at it.
            db.execute(
                "UPDATE rentals SET state = ?, gone_at = NULL, instance_id = ?, instance_region = ?,"
                " slots = ? WHERE token = ?",
                (RentalState.ACCEPTED, instance.ref.id, instance.ref.region, instance.slots, token),
            )
            _event(db, token, RentalState.ACCEPTED, instance.ref.id)
            if rental.waits is not None and not instance.waiting:
                _leave_queue(db, rental, instance)

    def left_queue(self, token: str, instance: Instance) -> None:
        """Where one that may wait no longer does: its meter, and its lease, run since it was started."""
        with self._db.write() as db:
            rental = self.get(token)
            if rental.waits is not None and not instance.waiting and rental.state is not RentalState.GONE:
                _leave_queue(db, rental, instance)

    def reached(self, token: str, ssh: SshAddress, host_key: str, source: HostKeySource) -> None:
        """SSH answers at ``ssh`` with ``host_key``, which is pinned from now on."""
        with self._db.write() as db:
            changed = db.execute(
                "UPDATE rentals SET state = ?, ssh = ?, host_key = ?, host_key_source = ?"
                " WHERE token = ? AND gone_at IS NULL",
                (RentalState.REACHABLE, address_text(ssh), host_key, source, token),
            ).rowcount
            if changed:
                _event(db, token, RentalState.REACHABLE, f"{ssh.host}:{ssh.port}")

    def runs(self, token: str) -> None:
        """It runs, at a provider that lets nobody log in."""
        with self._db.write() as db:
            changed = db.execute(
                "UPDATE rentals SET state = ? WHERE token = ? AND gone_at IS NULL",
                (RentalState.REACHABLE, token),
            ).rowcount
            if changed:
                _event(db, token, RentalState.REACHABLE, "it runs")

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

    def gone(self, token: str, reason: str, *, since: datetime | None = None) -> None:
        """A listing proved that the instance is not there (any more).

        Its meter has stopped now, or ``since`` a moment at which it surely did.
        """
        with self._db.write() as db:
            rental = self.get(token)
            if rental.state is RentalState.GONE:
                return
            now = utcnow()
            if rental.ref is not None:
                self._stand_still(db, rental, since or now, Line.INSTANCE, Line.DISK)
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
            made_at = instance.created_at or rental.intended_at
            since = rental.gone_at if rental.ref else _begun(rental, made_at)
            if rental.waits is None:
                _begin(db, rental, since or rental.intended_at)
            elif not instance.waiting:
                _leave_queue(db, rental, instance)
            db.execute(
                "UPDATE rentals SET state = ?, gone_at = NULL, instance_id = ?, instance_region = ?"
                " WHERE token = ?",
                (RentalState.ENDING, instance.ref.id, instance.ref.region, token),
            )
            _event(db, token, RentalState.ENDING, "reappeared in a listing")

    def stopping(self, token: str, reason: str) -> None:
        """The instance is about to be stopped, for ``reason``."""
        with self._db.write() as db:
            _event(db, token, "stopping", reason)

    def stopped(self, token: str, *, rate: Decimal | None) -> None:
        """The provider shows it stopped; ``rate`` is what of its own price bills on, ``None`` if unknown."""
        with self._db.write() as db:
            rental = self.get(token)
            if rental.state in {RentalState.STOPPED, RentalState.GONE}:
                return
            now = utcnow()
            self._stand_still(db, rental, now, Line.INSTANCE)
            if rate != 0:
                meter(db, replace(rental, usd_per_hour=rate, amount=None), now, running=True)
            # Its address may be somebody else's by now.
            db.execute(
                "UPDATE rentals SET state = ?, ssh = NULL WHERE token = ?", (RentalState.STOPPED, token)
            )
            _event(db, token, RentalState.STOPPED, "" if rate is None else f"bills ${rate:f}/h")

    def starting(self, token: str) -> None:
        """The stopped instance is about to be started, from when on it may bill in full."""
        with self._db.write() as db:
            rental = self.get(token)
            if rental.state is not RentalState.STOPPED:
                return
            meter(db, rental, utcnow(), running=True)
            # Its address may be another one now; it is reached anew.
            db.execute("UPDATE rentals SET state = ? WHERE token = ?", (RentalState.ACCEPTED, token))
            _event(db, token, "starting", "")

    def not_started(self, token: str, reason: str) -> None:
        """The provider refused to start it, so it bills as it did while it was stopped, all the time."""
        with self._db.write() as db:
            rental = self.get(token)
            spans = spans_of(db, token, Line.INSTANCE, reading())
            if rental.state is not RentalState.ACCEPTED or len(spans) < 2:
                return
            before, began = spans[-2].micros_per_hour, spans[-1].start
            rate = None if before is None else from_micros(before)
            meter(db, replace(rental, usd_per_hour=rate, amount=None), began, running=True)
            # Its address may be somebody else's by now.
            db.execute(
                "UPDATE rentals SET state = ?, ssh = NULL WHERE token = ?", (RentalState.STOPPED, token)
            )
            _event(db, token, "not-started", reason)

    def repriced(self, token: str, usd_per_hour: Decimal) -> None:
        """The provider asks another price from now on, as spot markets do."""
        with self._db.write() as db:
            rental = self.get(token)
            known = rental.usd_per_hour
            if rental.gone_at is not None or (
                known is not None and to_micros(known) == to_micros(usd_per_hour)
            ):
                return
            priced = replace(rental, usd_per_hour=usd_per_hour, amount=None, currency="USD")
            if rental.state is not RentalState.STOPPED:
                meter(db, priced, utcnow(), running=True)
            db.execute(
                "UPDATE rentals SET usd_micros_per_hour = ?, currency = 'USD', amount = NULL WHERE token = ?",
                (to_micros(usd_per_hour), token),
            )
            _event(db, token, "repriced", f"${usd_per_hour:f}/h")

    def extended(self, token: str, until: datetime | None) -> None:
        """The rental may go on until then; ``None`` without an end."""
        with self._db.write() as db:
            db.execute(
                "UPDATE rentals SET expires_at = ? WHERE token = ?", (stamp(until) if until else None, token)
            )
            _event(db, token, "extended", stamp(until) if until else "without an end")

    def note(self, token: str, event: str, detail: str) -> None:
        """Keep something that happened to a rental beside its steps."""
        with self._db.write() as db:
            _event(db, token, event, detail)

    def _stand_still(self, db: sqlite3.Connection, rental: Rental, now: datetime, *lines: Line) -> None:
        """Stop meters; what was begun of a billing step is paid as a whole."""
        for line in lines:
            spans = spans_of(db, rental.token, line, reading().moved(now))
            if not spans or spans[-1].micros_per_hour == 0:
                continue
            meter(db, rental, now, running=False, line=line)
            if line is Line.INSTANCE and spans[-1].micros_per_hour is not None:
                used = _since_it_ran(spans)
                more = over_time(from_micros(spans[-1].micros_per_hour), rental.tariff.billed(used) - used)
                if more:
                    charge(db, rental.token, now, Line.ROUNDING, more, "billing steps and minimum")

    def rentals(self, *, gone: bool = False, cluster_id: int | None = None) -> list[Rental]:
        """The rentals that may still bill, or with ``gone`` every one there ever was, by cluster and rank."""
        rows = self._db.read(
            "SELECT * FROM rentals WHERE (? OR gone_at IS NULL) AND (? IS NULL OR cluster_id = ?)"
            " ORDER BY cluster_id, rank, intended_at",
            *(gone, cluster_id, cluster_id),
        )
        return [to_rental(row) for row in rows]

    def events(self, token: str) -> list[tuple[datetime, str, str]]:
        """What happened to one rental: time, event and detail."""
        rows = self._db.read("SELECT at, event, detail FROM journal WHERE token = ? ORDER BY id", token)
        return [(datetime.fromisoformat(row["at"]), row["event"], row["detail"]) for row in rows]

    def get(self, token: str) -> Rental:
        """One rental, gone or not."""
        return to_rental(self._db.read("SELECT * FROM rentals WHERE token = ?", token)[0])


def _begun(rental: Rental, created_at: datetime | None) -> datetime:
    """Since when an instance bills: as its provider says, if that lies between the intent and now."""
    now = utcnow()
    told = created_at.astimezone(UTC) if created_at else now
    return min(max(told, rental.intended_at), now)


def _leave_queue(db: sqlite3.Connection, rental: Rental, instance: Instance) -> None:
    begun = _begun(rental, instance.started_at)
    _begin(db, rental, begun)
    until = None if rental.lease is None else begun + rental.lease
    db.execute(
        "UPDATE rentals SET waits_s = NULL, expires_at = ? WHERE token = ?",
        (stamp(until) if until else None, rental.token),
    )
    _event(db, rental.token, "left-queue", "")


def _begin(db: sqlite3.Connection, rental: Rental, at: datetime) -> None:
    """Let the meters of all its lines run."""
    for line in _metered(rental):
        meter(db, rental, at, running=True, line=line)


def _metered(rental: Rental) -> tuple[Line, ...]:
    return (Line.INSTANCE, Line.DISK) if rental.tariff.disk_usd_per_hour else (Line.INSTANCE,)


def _since_it_ran(spans: Sequence[Span]) -> timedelta:
    """How long the last of the times lasted in which it billed without a break."""
    ran = takewhile(lambda span: span.micros_per_hour != 0, reversed(spans))
    return sum((span.end - span.start for span in ran), timedelta())


def _event(db: sqlite3.Connection, token: str, event: str, detail: str) -> None:
    db.execute(
        "INSERT INTO journal (at, token, event, detail) VALUES (?, ?, ?, ?)",
        (stamp(utcnow()), token, event, detail),
    )
