"""Following a job's log by byte offset, through lost connections, with a copy that outlives the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from gpucloud.errors import BudgetRefused, HostUnreachable, Interrupted, NotFound, NothingMatched
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import Contacts, look, poll
from gpucloud.jobs.submit import on_host_id
from gpucloud.model import ClusterState, Event, Job, JobState, RentalState, utcnow
from gpucloud.remote.host import Host, JobStatus

CHUNK: Final = 1 << 20
HELD_S: Final = 30
"""A connection that held for so long was a good one."""


class LogCopy:
    """The copy of one attempt's log on this machine.

    Each byte is written at its own offset, so two followers at once write the same thing and none is lost.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def size(self) -> int:
        """How many bytes are here."""
        return os.fstat(self._descriptor).st_size

    def write(self, data: bytes, offset: int) -> None:
        """Store what was read at ``offset``."""
        os.pwrite(self._descriptor, data, offset)

    def replay(self, offset: int, sink: Callable[[bytes], object]) -> int:
        """Hand what is here from ``offset`` on to ``sink``; returns the offset reached."""
        while data := os.pread(self._descriptor, CHUNK, offset):
            sink(data)
            offset += len(data)
        return offset


def log_copy(fleet: Fleet, job: Job, attempt: int) -> LogCopy:
    """The copy of the log of one attempt at a job."""
    return LogCopy(fleet.config.data_dir / "jobs" / job.id / f"log.{attempt}")


def follow(contacts: Contacts, job: Job, sink: Callable[[bytes], object], *, offset: int = 0) -> JobStatus:
    """Hand the log from ``offset`` on to ``sink`` until the job is over, each byte once, in order.

    What was read before comes from the copy here. A lost connection is made again and the log goes on at the
    byte it had.

    Raises:
        Interrupted: when the machine is no longer there.
        HostUnreachable: when it is there but could not be reached for ``ssh.reconnect_timeout``.
        NothingMatched: when the host never heard of the job.
    """
    with log_copy(contacts.fleet, job, job.attempts) as copy:
        reader = _Reader(copy, sink, offset)
        patience = _Patience(contacts.fleet.config.duration("ssh.reconnect_timeout").total_seconds())
        while True:
            reached = reader.offset
            try:
                return _follow(contacts.host(0), job, reader)
            except HostUnreachable as error:
                contacts.drop(0)
                patience.use(error, fresh=reader.offset > reached)
                _wait_for(contacts, job, error)


class _Patience:
    """With a host that answers each time, and then breaks off before it has told anything."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = self._last = time.monotonic()
        self._failures = 0

    def use(self, error: HostUnreachable, *, fresh: bool) -> None:
        """Wait, longer each time unless something came meanwhile (``fresh``). Raises at the end of it."""
        now = time.monotonic()
        if fresh or now - self._last > HELD_S:
            self._began, self._failures = now, 0
        elif now - self._began > self._seconds:
            raise error
        time.sleep(min(0.05 * 2**self._failures, 5))
        self._failures += 1
        self._last = time.monotonic()


class _Reader:
    """Passes the log on from the byte ``wanted``, first from the copy, and remembers how far it came."""

    def __init__(self, copy: LogCopy, sink: Callable[[bytes], object], wanted: int) -> None:
        self._copy = copy
        self._sink = sink
        self._wanted = wanted
        # The copy has no holes: what it lacks before the wanted byte is read too, but not passed on.
        self.offset = copy.replay(wanted, sink) if wanted <= copy.size else copy.size

    def __call__(self, data: bytes) -> None:
        self._copy.write(data, self.offset)
        passed = data[max(0, self._wanted - self.offset) :]
        self.offset += len(data)
        if passed:
            self._sink(passed)


def read(contacts: Contacts, job: Job, sink: Callable[[bytes], object], *, offset: int = 0) -> JobStatus:
    """Hand the log from ``offset`` on, as far as it goes now, to ``sink``."""
    with log_copy(contacts.fleet, job, job.attempts) as copy:
        reader = _Reader(copy, sink, offset)
        host = contacts.host(0)
        status = _known(host, job)
        host.read(on_host_id(job), reader.offset, reader)
        return status


def show(
    fleet: Fleet, job: Job, sink: Callable[[bytes], object], *, offset: int = 0, following: bool = False
) -> None:
    """Hand a job's log, all its attempts one after the other, to ``sink`` from the byte ``offset`` on.

    What the machine can no longer tell, or need not, comes from the copy here.
    """
    for attempt in range(1, job.attempts):
        with log_copy(fleet, job, attempt) as copy:
            copy.replay(min(offset, copy.size), sink)
            offset = max(0, offset - copy.size)
    cluster = fleet.store.clusters.by_id(job.cluster_id)
    if cluster.state is not ClusterState.READY:
        with log_copy(fleet, job, job.attempts) as copy:
            copy.replay(offset, sink)
        return
    with Contacts(fleet, cluster) as contacts:
        note(fleet, job, (follow if following else read)(contacts, job, sink, offset=offset))


def note(fleet: Fleet, job: Job, status: JobStatus) -> Job:
    """Enter what the host says of a job into the books."""
    if job.state.over:
        return job
    return fleet.store.jobs.update(
        job.id,
        state=status.state,
        ended_at=(status.ended_at or utcnow()) if status.over else None,
        exit_code=status.exit_code,
    )


def note_lost(fleet: Fleet, job: Job) -> Job:
    """Enter that a job's machine is gone, and the job with it."""
    return fleet.store.jobs.update(job.id, state=JobState.INTERRUPTED, ended_at=utcnow())


def _follow(host: Host, job: Job, reader: _Reader) -> JobStatus:
    name = on_host_id(job)
    while True:
        status = _known(host, job)
        if not status.over:
            host.follow(name, reader.offset, reader)
            continue
        host.read(name, reader.offset, reader)
        return status


def _known(host: Host, job: Job) -> JobStatus:
    status = host.status(on_host_id(job))
    if not status.known:
        raise NothingMatched(
            f"{host.label} knows nothing of job {job.id}",
            why="its start was cut off before it reached the host",
            hint=f"gpucloud exec {host.label} -- COMMAND, or launch it again",
        )
    return status


def _wait_for(contacts: Contacts, job: Job, error: HostUnreachable) -> None:
    """Return once the host answers again. Raises when it is gone, or stays away for too long."""
    fleet = contacts.fleet
    fleet.tell(Event("disconnected", f"{error.message}; the job goes on, trying again"))

    def back() -> bool | None:
        _still_there(contacts, job)
        try:
            contacts.host(0)
        except HostUnreachable:
            return None
        return True

    if poll(back, fleet.config.duration("ssh.reconnect_timeout")) is None:
        raise error


def _still_there(contacts: Contacts, job: Job) -> None:
    """Raise ``Interrupted``, or ``BudgetRefused`` when its time was up, if the machine is gone."""
    rental = contacts.fleet.store.journal.get(contacts.cluster.rentals[0].token)
    instance = None
    if rental.state in {RentalState.ENDING, RentalState.GONE}:
        reason = rental.reason or "it was ended"
    else:
        try:
            instance = look(contacts.fleet, rental)
            # One that is taken back may stay, stopped, for as long as it is paid for.
            if instance is None or (instance.alive and not instance.interrupted):
                return
            reason = "its provider took it back" if instance.interrupted else f"{rental.provider} ended it"
        except NotFound:
            reason = f"{rental.provider} no longer knows it"
    note_lost(contacts.fleet, job)
    taken_back = instance is not None and instance.interrupted
    if rental.expires_at and utcnow() >= rental.expires_at and not taken_back:
        raise over_limit(job)
    raise Interrupted(
        f"the machine of job {job.id} is gone",
        why=reason,
        hint=f"gpucloud logs {job.id} shows what it printed",
    )


def over_limit(job: Job) -> BudgetRefused:
    """A job that was ended because its machine's time or money was up."""
    return BudgetRefused(
        f"job {job.id} was ended by its limit",
        why="the maximum duration or cost of its machine was reached",
        hint="run it again with a higher --max-duration or --max-cost",
    )
