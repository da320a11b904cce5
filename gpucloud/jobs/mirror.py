"""Mirroring what a job writes while it runs: pulled again and again, and through lost connections."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from gpucloud.errors import HostUnreachable
from gpucloud.fleet.contact import Contacts
from gpucloud.fleet.reconnect import Patience, reconnect
from gpucloud.jobs.outputs import charge_egress
from gpucloud.jobs.submit import on_host_id
from gpucloud.model import Event, Job
from gpucloud.quantities import format_bytes, format_count
from gpucloud.remote.fetch import Wishes
from gpucloud.remote.pull import Pulled, pull


def mirror(
    contacts: Contacts, job: Job | None, patterns: Sequence[str], into: Path, *, every: timedelta
) -> Pulled:
    """Keep ``into`` what the patterns match on the first machine; returns what the last pull found.

    A file comes once its size and time have stayed the same for two looks, so none that is still being
    written; what is here already costs one question. It ends by itself, after one more pull that takes all
    there is, when the job is over; without a job it goes on. A lost connection is made again. When the
    machine is gone, what is here is what there is.

    Raises:
        HostUnreachable: when the machine is there but could not be reached for ``ssh.reconnect_timeout``, or
            nothing was pulled before it was gone.
        UsageError, SyncFailed: as ``pull`` does.
    """
    fleet, looks = contacts.fleet, _Looks()
    patience = Patience(fleet.config.duration("ssh.reconnect_timeout"))
    found: Pulled | None = None
    fresh = False
    while True:
        began = time.monotonic()
        try:
            over = job is not None and _is_over(contacts, job)
            found = _look(contacts, looks, patterns, into, last=over)
        except HostUnreachable as error:
            if ended := reconnect(contacts, 0, error, "what is here stays"):
                fleet.tell(Event("gone", f"{error.message}: {ended.why}"))
                if found is None:
                    raise
                return found
            patience.use(error, fresh=fresh)
            fresh = False
            continue
        if over:
            return found
        fresh = True
        time.sleep(max(0.0, every.total_seconds() - (time.monotonic() - began)))


def _look(contacts: Contacts, looks: _Looks, patterns: Sequence[str], into: Path, *, last: bool) -> Pulled:
    """One pull; the last is as strict as any, those before it save the host the checksums."""
    looks.patient = not last
    wishes = Wishes(not last, looks.ready, {} if last else looks.here)
    found = pull(contacts.host(0), patterns, into, wishes=wishes)
    came, size = looks.next(found)
    if came:
        charge_egress(contacts, 0, size)
        contacts.fleet.tell(Event("mirrored", f"{format_count(came, 'file')}, {format_bytes(size)}"))
    return found


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
