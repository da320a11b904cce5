"""What to do when a connection is lost: ask whether the machine is still there, and wait for it for a while.

One policy for all that goes on for long, such as following a log or forwarding a port.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from gpucloud.errors import HostUnreachable, NotFound, ProviderError
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import Contacts, look, poll
from gpucloud.model import Event, Rental, RentalState, utcnow

HELD_S: Final = 30
"""A connection that held for so long was a good one."""

_LONGEST_PAUSE_S: Final = 5


class Patience:
    """With a host that answers each time, and then breaks off before it has told anything."""

    def __init__(self, at_most: timedelta) -> None:
        self._seconds = at_most.total_seconds()
        self._began = self._last = time.monotonic()
        self._failures = 0

    def use(self, error: HostUnreachable, *, fresh: bool) -> None:
        """Wait, longer each time unless something came meanwhile (``fresh``). Raises at the end of it."""
        now = time.monotonic()
        if fresh or now - self._last > HELD_S:
            self._began, self._failures = now, 0
        elif now - self._began > self._seconds:
            raise error
        time.sleep(min(0.05 * 2**self._failures, _LONGEST_PAUSE_S))
        self._failures += 1
        self._last = time.monotonic()


@dataclass(frozen=True, slots=True)
class Over:
    """A rental that is over. ``taken_back``: its provider did that. ``due``: its time or money was up."""

    why: str
    taken_back: bool = False
    due: bool = False


def over(fleet: Fleet, rental: Rental) -> Over | None:
    """Why a rental is over; ``None`` while it is there, and when nobody can tell at the moment."""
    rental = fleet.store.journal.get(rental.token)
    taken_back = False
    if rental.state in {RentalState.ENDING, RentalState.GONE}:
        why = rental.reason or "it was ended"
    else:
        try:
            instance = look(fleet, rental)
        except NotFound:
            why = f"{rental.provider} no longer knows it"
        except ProviderError:
            return None
        else:
            # One that is taken back may stay, stopped, for as long as it is paid for.
            if instance is None or (instance.alive and not instance.interrupted):
                return None
            taken_back = instance.interrupted
            why = "its provider took it back" if taken_back else f"{rental.provider} ended it"
    due = not taken_back and rental.expires_at is not None and utcnow() >= rental.expires_at
    return Over(why, taken_back, due)


def reconnect(contacts: Contacts, rank: int, error: HostUnreachable, meanwhile: str) -> Over | None:
    """Return once a node answers again, or say why it never will.

    ``error`` is how the connection was lost, and ``meanwhile`` what the person need not worry about.

    Raises:
        HostUnreachable: when it stays away for ``ssh.reconnect_timeout``.
    """
    fleet = contacts.fleet
    contacts.drop(rank)
    fleet.tell(Event("disconnected", f"{error.message}; {meanwhile}, trying again"))

    def settled() -> tuple[Over | None] | None:
        ended = over(fleet, contacts.rental(rank))
        if ended:
            return (ended,)
        try:
            contacts.host(rank)
        except HostUnreachable:
            return None
        return (None,)

    answer = poll(settled, fleet.config.duration("ssh.reconnect_timeout"))
    if answer is None:
        raise error
    return answer[0]
