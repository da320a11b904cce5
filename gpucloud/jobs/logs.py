"""Following and reading the log of a job on one node by byte offset, through lost connections."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from gpucloud.errors import BudgetRefused, HostUnreachable, Interrupted, NothingMatched, RemoteError
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import Contacts
from gpucloud.fleet.reconnect import Over, Patience, reconnect
from gpucloud.jobs.log_copy import LogCopy, log_copy
from gpucloud.jobs.log_times import Times
from gpucloud.jobs.submit import on_host_id
from gpucloud.model import Event, Job, JobState, utcnow
from gpucloud.remote.host import Host, JobStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the log of one attempt on one node, which begin at ``offset``.

    ``time_of`` tells when the byte at a place of that log was written, or ``None`` when that is not known.
    """

    rank: int
    attempt: int
    offset: int
    data: bytes
    time_of: Callable[[int], datetime | None]


Sink = Callable[[Piece], object]


def follow(
    contacts: Contacts, job: Job, sink: Sink, *, rank: int = 0, offset: int = 0, timed: bool = False
) -> JobStatus:
    """Hand the log from ``offset`` on to ``sink`` until the job is over there, each byte once, in order.

    What was read before comes from the copy here. A lost connection is made again and the log goes on at the
    byte it had. With ``timed`` the host is asked when each byte was written.

    Raises:
        Interrupted: when the machine is no longer there.
        BudgetRefused: when it is not because its time or money was up.
        HostUnreachable: when it is there but could not be reached for ``ssh.reconnect_timeout``.
        NothingMatched: when the host never heard of the job.
    """
    with log_copy(contacts.fleet, job, job.attempts, rank) as copy:
        reader = Reader(contacts.fleet, job, rank, copy, sink, offset)
        try:
            return persist(
                contacts,
                job,
                lambda host: _follow(host, job, reader, timed=timed),
                rank=rank,
                reached=lambda: reader.offset,
            )
        finally:
            reader.keep_times()


def persist(
    contacts: Contacts, job: Job, act: Callable[[Host], T], *, rank: int, reached: Callable[[], int] = int
) -> T:
    """Do something with a node, again after each lost connection; ``reached`` tells how far it has come.

    Raises:
        Interrupted, BudgetRefused, HostUnreachable: as ``follow`` does.
    """
    patience = Patience(contacts.fleet.config.duration("ssh.reconnect_timeout"))
    while True:
        before = reached()
        try:
            return act(contacts.host(rank))
        except HostUnreachable as error:
            patience.use(error, fresh=reached() > before)
            over = reconnect(contacts, rank, error, "the job goes on")
            if over:
                raise _ended(contacts.fleet, job, over) from error


def read(
    contacts: Contacts, job: Job, sink: Sink, *, rank: int = 0, offset: int = 0, timed: bool = False
) -> JobStatus:
    """Hand the log from ``offset`` on, as far as it goes now, to ``sink``.

    Raises:
        HostUnreachable: when the machine does not answer; what is here was handed on nevertheless.
        NothingMatched: when the host never heard of the job.
    """
    with log_copy(contacts.fleet, job, job.attempts, rank) as copy:
        reader = Reader(contacts.fleet, job, rank, copy, sink, offset)
        host = contacts.host(rank)
        if timed:
            reader.times = _times(host, job)
        status = known(host, job)
        _rest(host, job, reader, status)
        return status


class Reader:
    """Passes the log on from ``offset``, first what is in the copy, and remembers how far it came."""

    def __init__(self, fleet: Fleet, job: Job, rank: int, copy: LogCopy, sink: Sink, offset: int) -> None:
        self._fleet = fleet
        self._copy: LogCopy | None = copy
        self._where = rank, job.attempts
        self._sink = sink
        self.times = copy.times
        self.offset = copy.replay(offset, self._pass)

    def __call__(self, data: bytes) -> None:
        """Take what comes from the host next."""
        self._store(data)
        self.times.arrived(self.offset + len(data), time.time())
        self._pass(data, self.offset)
        self.offset += len(data)

    def keep_times(self) -> None:
        """Store what is known of the times."""
        with suppress(OSError):
            if self._copy:
                self._copy.keep_times(self.times)

    def finish(self, size: int) -> None:
        """Note that the job is over and has printed ``size`` bytes."""
        with suppress(OSError):
            if self._copy:
                self._copy.finish(size)

    def _pass(self, data: bytes, offset: int) -> None:
        self._sink(Piece(*self._where, offset, data, self._time_of))

    def _time_of(self, offset: int) -> datetime | None:
        return self.times.of(offset)

    def _store(self, data: bytes) -> None:
        """A disk that is full here does not keep anybody from reading."""
        try:
            if self._copy:
                self._copy.write(data, self.offset)
        except OSError as error:
            self._copy = None
            self._fleet.tell(Event("warning", f"the log is not kept here from now on: {error}"))


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


def known(host: Host, job: Job) -> JobStatus:
    """What a host says of a job. Raises ``NothingMatched`` when it never heard of it."""
    status = host.status(on_host_id(job))
    if not status.known:
        raise NothingMatched(
            f"{host.label} knows nothing of job {job.id}",
            why="its start was cut off before it reached the host",
            hint=f"gpucloud exec {host.label} -- COMMAND, or launch it again",
        )
    return status


def over_limit(job: Job) -> BudgetRefused:
    """A job that was ended because its machine's time or money was up."""
    return BudgetRefused(
        f"job {job.id} was ended by its limit",
        why="the maximum duration or cost of its machine was reached",
        hint="run it again with a higher --max-duration or --max-cost",
    )


def _follow(host: Host, job: Job, reader: Reader, *, timed: bool) -> JobStatus:
    if timed:
        reader.times = _times(host, job)
    try:
        host.follow(on_host_id(job), reader.offset, reader)
    except HostUnreachable:
        raise
    except RemoteError:
        known(host, job)
        raise
    status = known(host, job)
    if not status.over:
        raise HostUnreachable(f"{host.label} told no more", why="what followed the log there has ended")
    _rest(host, job, reader, status)
    return status


def _rest(host: Host, job: Job, reader: Reader, status: JobStatus) -> None:
    """Read what is there beyond what came, and the times of it all once nothing more comes."""
    if status.log_bytes > reader.offset:
        host.read(on_host_id(job), reader.offset, reader)
    if status.over:
        with suppress(HostUnreachable):
            reader.times = _times(host, job)
        reader.finish(status.log_bytes)
    reader.keep_times()


def _times(host: Host, job: Job) -> Times:
    """What the host knows of the times of a log; nothing where its program is of an earlier release."""
    try:
        return Times.told(host.times(on_host_id(job)), time.time())
    except HostUnreachable:
        raise
    except (RemoteError, ValueError):
        return Times()


def _ended(fleet: Fleet, job: Job, over: Over) -> Interrupted | BudgetRefused:
    """The job's machine is gone, and so is the job."""
    note_lost(fleet, job)
    if over.due:
        return over_limit(job)
    return Interrupted(
        f"the machine of job {job.id} is gone",
        why=over.why,
        hint=f"gpucloud logs {job.id} shows what it printed",
    )
