"""What a job has printed: all its attempts, on one node or several, from where somebody wants to begin."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from gpucloud.errors import GpucloudError, HostUnreachable, RemoteError
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import Contacts
from gpucloud.jobs.log_copy import log_copy
from gpucloud.jobs.logs import Piece, Sink, follow, known, note, persist, read
from gpucloud.jobs.submit import on_host_id
from gpucloud.model import Cluster, ClusterState, Event, Job, utcnow
from gpucloud.parallel import as_they_come
from gpucloud.quantities import format_bytes
from gpucloud.remote.host import Host

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a job's log is wanted: of which ranks, and where it begins.

    ``offset`` counts bytes over all attempts, ``tail`` lines from the end; ``since`` is a time. ``following``
    goes on until the job is over. ``timed``: when each byte was written is wanted as well.
    """

    ranks: tuple[int, ...] = (0,)
    following: bool = False
    timed: bool = False
    offset: int = 0
    tail: int | None = None
    since: datetime | None = None


def show(fleet: Fleet, job: Job, sink: Sink, asked: Asked) -> None:
    """Hand a job's log to ``sink``; what the machine can no longer tell comes from the copy here.

    Of several ranks each goes on by itself, and ``sink`` is called from one thread at a time. What went wrong
    with one is raised when all the others are done.

    Raises:
        as ``follow`` and ``read`` do.
    """
    gate = _Gate(fleet, sink)
    fleet = replace(fleet, tell=gate.tell)
    cluster = fleet.store.clusters.by_id(job.cluster_id)
    with gate, Contacts(fleet, cluster) as contacts:
        nodes = {rank: _Node(contacts, job, rank, gate.take, asked) for rank in asked.ranks}
        if len(nodes) == 1:
            nodes[asked.ranks[0]].show()
            return
        errors: list[GpucloudError] = []
        for rank, answer in as_they_come({rank: partial(_done, node) for rank, node in nodes.items()}):
            if not isinstance(answer, GpucloudError):
                assert isinstance(answer, BaseException)
                raise answer
            gate.tell(Event("lost", f"rank {rank}: {answer.message}: {answer.why}"))
            errors.append(answer)
        for error in errors:
            raise error


def _done(node: _Node) -> tuple[()]:
    node.show()
    return ()


class _Gate:
    """Lets one thread at a time through, and none any more once the person has had enough."""

    def __init__(self, fleet: Fleet, sink: Sink) -> None:
        self._tell = fleet.tell
        self._sink = sink
        self._lock = threading.Lock()
        self._open = True

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open = False

    def tell(self, event: Event) -> None:
        """Tell the person."""
        with self._lock:
            if self._open:
                self._tell(event)

    def take(self, piece: Piece) -> None:
        """Pass a piece on."""
        with self._lock:
            if self._open:
                self._sink(piece)


class _Node:
    """The logs of one rank."""

    def __init__(self, contacts: Contacts, job: Job, rank: int, sink: Sink, asked: Asked) -> None:
        self._contacts = contacts
        self._fleet = contacts.fleet
        self._job = job
        self._rank = rank
        self._sink = sink
        self._asked = asked
        self._there = _there(contacts.cluster, rank)

    def show(self) -> None:
        """Hand all of it to the sink, in order."""
        for attempt, offset in sorted(self._begins().items()):
            if not self._live(attempt):
                self._replay(attempt, offset)
                continue
            act = follow if self._asked.following else read
            status = act(
                self._contacts,
                self._job,
                self._sink,
                rank=self._rank,
                offset=offset,
                timed=self._asked.timed,
            )
            if self._rank == 0:
                note(self._fleet, self._job, status)

    def _live(self, attempt: int) -> bool:
        return self._there and attempt == self._job.attempts

    def _begins(self) -> dict[int, int]:
        """At which byte of each attempt that is wanted to begin."""
        if self._asked.tail is not None:
            return self._last(self._asked.tail)
        if self._asked.since is not None:
            return self._since(self._asked.since)
        begins, left = {}, self._asked.offset
        for attempt in range(1, self._job.attempts):
            with log_copy(self._fleet, self._job, attempt, self._rank) as copy:
                begins[attempt] = min(left, copy.size)
                left = max(0, left - copy.size)
        return {**begins, self._job.attempts: left}

    def _last(self, lines: int) -> dict[int, int]:
        begins: dict[int, int] = {}
        for attempt in range(self._job.attempts, 0, -1):
            if self._live(attempt):
                begin, found = self._ask(partial(_last_there, self._job, lines))
            else:
                with log_copy(self._fleet, self._job, attempt, self._rank) as copy:
                    begin, found = copy.last(lines)
            begins[attempt] = begin
            lines -= found
            if begin > 0 or lines <= 0:
                break
        return begins

    def _since(self, moment: datetime) -> dict[int, int]:
        begins: dict[int, int] = {}
        for attempt in range(self._job.attempts, 0, -1):
            begins[attempt] = self._since_in(attempt, moment)
            if begins[attempt] > 0:
                break
        return begins

    def _since_in(self, attempt: int, moment: datetime) -> int:
        if self._live(attempt):
            seconds = math.ceil((utcnow() - moment).total_seconds())
            return self._ask(lambda host: host.since(on_host_id(self._job), seconds))
        with log_copy(self._fleet, self._job, attempt, self._rank) as copy:
            begin = copy.times.since(moment)
            if begin is not None:
                return copy.line_at(begin)
            if copy.touched_at is not None and copy.touched_at < moment.timestamp():
                return copy.last(0)[0]
        if copy.touched_at is not None:
            why = f"when attempt {attempt} printed what is not known, so all of it is shown"
            self._fleet.tell(Event("warning", why))
        return 0

    def _ask(self, question: Callable[[Host], T]) -> T:
        """Ask the host; whoever follows waits for it if need be."""

        def act(host: Host) -> T:
            try:
                return question(host)
            except HostUnreachable:
                raise
            except RemoteError:
                known(host, self._job)
                raise

        if self._asked.following:
            return persist(self._contacts, self._job, act, rank=self._rank)
        return act(self._contacts.host(self._rank))

    def _replay(self, attempt: int, offset: int) -> None:
        """Hand on what is here, and say what is not."""
        with log_copy(self._fleet, self._job, attempt, self._rank) as copy:
            times = copy.times

            def take(data: bytes, place: int) -> None:
                self._sink(Piece(self._rank, attempt, place, data, times.of))

            while True:
                offset = copy.replay(offset, take)
                later = copy.after(offset)
                if later is None:
                    return
                lost = f"{format_bytes(later - offset)} were not read before the machine ended"
                self._fleet.tell(Event("missing", lost))
                offset = later


def _last_there(job: Job, lines: int, host: Host) -> tuple[int, int]:
    return host.last(on_host_id(job), lines)


def _there(cluster: Cluster, rank: int) -> bool:
    """Whether the machine of a rank can be asked; of those that are not gone the order tells the rank."""
    rentals = cluster.rentals
    return cluster.state is ClusterState.READY and rank < len(rentals) and rentals[rank].rank == rank
