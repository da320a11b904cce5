"""The reservations that were bought, or may have been: what is owed for each, and since when."""

from __future__ import annotations

from collections.abc import Sequence

from gpucloud.model import Booking, BookingState, Reservation
from gpucloud.store.budget import Budget, Cap
from gpucloud.store.database import Database
from gpucloud.store.rows import booking_columns, to_booking


class Bookings:
    """``intended -> bought | failed``, each step durable before the method returns.

    A provider is called only after ``intend`` has returned; ``failed`` is called only when the provider said
    no, or its listing no longer could lack what was bought.
    """

    def __init__(self, db: Database, budget: Budget) -> None:
        self._db = db
        self._budget = budget

    def intend(self, booking: Booking, caps: Sequence[Cap] = ()) -> None:
        """Write down what is about to be bought, which is held of the caps. Raises ``BudgetRefused``."""
        row = booking_columns(booking)
        with self._db.write() as db:
            self._budget.check(
                f"the reservation {booking.name}", booking.labels.project, booking.block.usd, caps
            )
            db.execute(
                f"INSERT INTO bookings ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            )

    def bought(self, token: str, reservation: Reservation) -> None:
        """The provider has sold it."""
        with self._db.write() as db:
            db.execute(
                "UPDATE bookings SET state = ?, reservation_id = ?, reservation_region = ?, reason = NULL"
                " WHERE token = ?",
                (BookingState.BOUGHT, reservation.ref.id, reservation.ref.region, token),
            )

    def failed(self, token: str, reason: str) -> None:
        """Nothing was bought, or it was not paid; nothing is owed."""
        with self._db.write() as db:
            db.execute(
                "UPDATE bookings SET state = ?, reason = ? WHERE token = ?",
                (BookingState.FAILED, reason, token),
            )

    def all(self) -> list[Booking]:
        """Every one there ever was, oldest first."""
        return [to_booking(row) for row in self._db.read("SELECT * FROM bookings ORDER BY intended_at")]
