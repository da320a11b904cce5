"""The whole cycle: rent, push, run, follow, pull, end; and again after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

from gpucloud.errors import (
    HostUnreachable,
    Interrupted,
    NothingMatched,
    OutputsNotVerified,
    RemoteError,
    SetupFailed,
)
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import Contacts
from gpucloud.fleet.end import end_cluster, end_rental, lock_name
from gpucloud.fleet.launch import launch
from gpucloud.fleet.plan import LaunchRequest, Plan, plan
from gpucloud.fleet.reconcile import refresh
from gpucloud.jobs.logs import Sink, follow, note, over_limit, read
from gpucloud.jobs.outputs import collect
from gpucloud.jobs.submit import SendOptions, begin, cancel, send, submit
from gpucloud.model import Cluster, Event, Job, JobSpec, JobState
from gpucloud.remote.host import JobStatus

GRACE_S = 10


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run. ``restarts`` is how many interruptions are recovered from; ``keep`` leaves the machine."""

    keep: bool = False
    restarts: int = 0
    references: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class RunResult:
    """How it ended. ``kept``: the cluster is still there. ``cost`` is ``None`` when a price is not known."""

    job: Job
    cluster: Cluster
    exit_code: int
    kept: bool
    cost: Decimal | None


def run(fleet: Fleet, target: Plan | Cluster, spec: JobSpec, options: RunOptions, sink: Sink) -> RunResult:
    """Do all of it and return the job's own exit status.

    ``target`` is what to rent, or a cluster that is up. A cluster that was made for a run is ended,
    confirmed, however the job ends; it is kept only when outputs are not verified, when it cannot be reached
    although it is still there, and when the person interrupts. Any other cluster is left as it was found.

    Raises:
        Locked: when another run is at work on that cluster.
        SetupFailed, SyncFailed: the job was not run.
        Interrupted: the machine was taken back and no restart is left.
        BudgetRefused: the job was ended by its limit.
        OutputsNotVerified, HostUnreachable: the machine is kept.
        TeardownUnconfirmed: the machine may still be billing.
    """
    name = target.request.name if isinstance(target, Plan) else target.name
    with fleet.store.db.lock(f"run-{name}"):
        cluster = launch(fleet, target) if isinstance(target, Plan) else target
        ending = cluster.ephemeral and not options.keep
        try:
            job = _attempts(fleet, target, cluster, spec, options, sink)
        except (OutputsNotVerified, HostUnreachable):
            raise
        except Exception:
            if ending:
                end_cluster(fleet, cluster, "the run failed")
            raise
        if ending:
            end_cluster(fleet, cluster, "the run is over")
    assert job.exit_code is not None
    cost = fleet.store.ledger.cost(cluster.id)
    return RunResult(job, fleet.store.clusters.by_id(cluster.id), job.exit_code, not ending, cost)


def _attempts(
    fleet: Fleet,
    target: Plan | Cluster,
    cluster: Cluster,
    spec: JobSpec,
    options: RunOptions,
    sink: Sink,
) -> Job:
    """Run the job, and after each interruption again on another machine, while a restart is left."""
    job: Job | None = None
    for restarts_left in range(options.restarts, -1, -1):
        try:
            with Contacts(fleet, cluster) as contacts:
                # What was brought home of the job before is where it goes on from.
                send(contacts, spec, SendOptions(extra=spec.outputs if job else ()))
                job = begin(contacts, spec, job) if job else submit(contacts, spec)
                return _complete(contacts, job, sink)
        except (Interrupted, HostUnreachable) as error:
            interruption = _interruption(fleet, cluster, error)
            fleet.tell(Event("interrupted", f"{interruption.message}: {interruption.why}"))
            if restarts_left == 0 or not isinstance(target, Plan):
                raise interruption from error
        cluster = _replace(fleet, cluster, target.request, options.references)
        if job:
            attempts = job.attempts + 1
            job = fleet.store.jobs.update(
                job.id, attempts=attempts, state=JobState.QUEUED, ended_at=None, exit_code=None
            )
    raise AssertionError("the last attempt returns or raises")


def _interruption(fleet: Fleet, cluster: Cluster, error: Interrupted | HostUnreachable) -> Interrupted:
    """A lost connection is an interruption when the machine is gone; otherwise it is raised as it is."""
    if isinstance(error, Interrupted):
        return error
    if len(refresh(fleet, cluster).rentals) == cluster.nodes:
        raise error
    return Interrupted(f"a machine of {cluster.name} is gone", why=error.why, hint=error.hint)


def _complete(contacts: Contacts, job: Job, sink: Sink) -> Job:
    """Follow the job to its end on every node and bring its outputs home."""
    status = follow(contacts, job, sink)
    status = _everywhere(contacts, job, status)
    job = note(contacts.fleet, job, status)
    if job.state is JobState.INTERRUPTED:
        _rescue(contacts, job)
        raise Interrupted(
            f"job {job.id} was interrupted",
            why="its provider announced that it takes the machine back",
            hint="run it with --recover to go on elsewhere",
        )
    if status.phase == "setup" and status.exit_code:
        raise SetupFailed(
            f"the setup of {job.id} ended with status {status.exit_code}",
            why="the job itself was not run",
            hint=f"gpucloud logs {job.id}",
        )
    if job.outputs:
        collect(contacts, job, lenient=job.state is not JobState.SUCCEEDED)
    if status.expired:
        raise over_limit(job)
    return job


def _everywhere(contacts: Contacts, job: Job, first: JobStatus) -> JobStatus:
    """The status of the whole job: that of the first rank that failed; a failure ends it on all nodes.

    The logs of the other ranks come home as well.
    """
    for rank in contacts.ranks[1:]:
        if first.exit_code == 0:
            first = follow(contacts, job, lambda _: None, rank=rank)
            continue
        cancel(contacts, job, grace_s=GRACE_S)
        for other in contacts.ranks[rank:]:
            # What it printed cannot change how the job ended.
            with suppress(RemoteError, NothingMatched):
                read(contacts, job, lambda _: None, rank=other)
        break
    return first


def _rescue(contacts: Contacts, job: Job) -> None:
    """Bring home what there is while the notice lasts; what cannot be had now is lost with the machine."""
    try:
        if job.outputs:
            collect(contacts, job, lenient=True)
    except (OutputsNotVerified, RemoteError) as error:
        contacts.fleet.tell(Event("warning", f"the outputs could not be brought home in time: {error.why}"))


def _replace(fleet: Fleet, cluster: Cluster, request: LaunchRequest, references: Sequence[str]) -> Cluster:
    """Rent again what was taken back, on the best offer of now; what is left of the cluster is given up."""
    with fleet.store.db.lock(lock_name(cluster.name)):
        for rental in refresh(fleet, cluster).rentals:
            end_rental(fleet, rental, "interrupted")
    return launch(fleet, plan(fleet, request, references))
