"""Mirroring what a job writes while it runs: pulled again and again, and through lost connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from gpucloud.errors import HostUnreachable, NotFound
from gpucloud.fleet.contact import Contacts, look, poll
from gpucloud.jobs.outputs import charge_egress
from gpucloud.jobs.submit import on_host_id
from gpucloud.model import Event, Job, RentalState
from gpucloud.quantities import format_bytes, format_count
from gpucloud.remote.fetch import Wishes
from gpucloud.remote.progress import Watcher, unwatched
from gpucloud.remote.pull import Pulled, pull


def mirror(
    contacts: Contacts,
    job: Job | None,
    patterns: Sequence[str],
    into: Path,
    every: timedelta,
    tell: Callable[[Event], object],
    *,
    watch: Watcher = unwatched,
) -> Pulled:
    """Keep ``into`` what the patterns match on the first machine; returns what the last pull found.

    A file comes once its size and time have stayed the same for two looks, so none that is still being
    written; what is here already costs one question. It ends by itself, after one more pull that takes all
    there is, when the job is over; without a job it goes on. A lost connection is made again. When the
    machine is gone, what is here is what there is.

    ``tell`` hears of what came, and of connections lost and machines gone.

    Raises:
        HostUnreachable: when the machine is there but could not be reached for ``ssh.reconnect_timeout``, or
            nothing was pulled before it was gone.
        UsageError, SyncFailed: as ``pull`` does.
    """
    looks = _Looks()
    found: Pulled | None = None
    patience = contacts.fleet.config.duration("ssh.reconnect_timeout").total_seconds()
    worked = time.monotonic()
    while True:
        began = time.monotonic()
        try:
            over = job is not None and _is_over(contacts, job)
            # The last pull is as strict as any; those before it save the host the checksums.
            looks.patient = not over
            wishes = Wishes(not over, looks.ready, {} if over else looks.here)
            found = pull(contacts.host(0), patterns, into, watch=watch, wishes=wishes)
            came, size = looks.next(found)
            if came:
                charge_egress(contacts, size)
                tell(Event("mirrored", f"{format_count(came, 'file')}, {format_bytes(size)}"))
            if over:
                return found
            worked = time.monotonic()
        except HostUnreachable as error:
            if not _reconnect(contacts, error, tell):
                if found is None:
                    raise
                return found
            # It answers, and breaks off what it is asked each time.
            if time.monotonic() - worked > max(patience, 2 * every.total_seconds()):
                raise
        time.sleep(max(0.0, every.total_seconds() - (time.monotonic() - began)))


class _Looks:
    """What was seen of each file at the last look: one that grows or is being replaced is not taken yet."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}
        self._now: dict[str, tuple[int, int]] = {}
        self.here: dict[str, tuple[int, int]] = {}
        self.patient = True

    def ready(self, path: str, size: int, mtime_ns: int) -> bool:
        """Whether a file has stayed as it is since the last look."""
        self._now[path] = size, mtime_ns
        return not self.patient or self._last.get(path) == (size, mtime_ns)

    def next(self, found: Pulled) -> tuple[int, int]:
        """A look is over; returns how many files have come with it, and the bytes in them."""
        came = [path for path in found.files if self.here.get(path) != self._now.get(path)]
        self.here = {path: self._now[path] for path in found.files if path in self._now}
        self._last, self._now = self._now, {}
        return len(came), sum(self.here[path][0] for path in came if path in self.here)


def _is_over(contacts: Contacts, job: Job) -> bool:
    status = contacts.host(0).status(on_host_id(job))
    return status.over or not status.known


def _reconnect(contacts: Contacts, error: HostUnreachable, tell: Callable[[Event], object]) -> bool:
    """Return once the machine answers again; false when it is gone. Raises when it stays away too long."""
    contacts.drop(0)
    tell(Event("disconnected", f"{error.message}; the job goes on, trying again"))

    def settled() -> bool | None:
        rental = contacts.fleet.store.journal.get(contacts.cluster.rentals[0].token)
        if rental.state in {RentalState.ENDING, RentalState.GONE}:
            return False
        try:
            instance = look(contacts.fleet, rental)
        except NotFound:
            return False
        if instance is not None and (not instance.alive or instance.interrupted):
            return False
        try:
            contacts.host(0)
        except HostUnreachable:
            return None
        return True

    answer = poll(settled, contacts.fleet.config.duration("ssh.reconnect_timeout"))
    if answer is None:
        raise error
    if not answer:
        tell(Event("gone", f"{error.message}, and its machine is gone"))
    return answer
