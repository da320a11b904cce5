"""What must happen to a cluster's jobs before and after its end."""

from __future__ import annotations

from contextlib import suppress

from gpucloud.errors import NothingMatched, RemoteError
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import Contacts
from gpucloud.fleet.reconcile import refresh
from gpucloud.jobs.log_copy import log_copy
from gpucloud.jobs.logs import note, read
from gpucloud.jobs.outputs import collect, unverified
from gpucloud.jobs.submit import cancel
from gpucloud.model import Cluster, ClusterState, Job, JobState, utcnow

GRACE_S = 10


def rescue_outputs(fleet: Fleet, cluster: Cluster) -> None:
    """End running jobs and bring home, verified, every declared output and every log that is not home yet.

    Raises:
        OutputsNotVerified: when an output of a cluster that is still there could not be had.
    """
    jobs = [job for job in fleet.store.jobs.of(cluster) if not _settled(fleet, job, cluster)]
    if not jobs or cluster.state is not ClusterState.READY:
        return
    cluster = refresh(fleet, cluster)
    if len(cluster.rentals) < cluster.nodes:
        return  # it is gone already, and what was on it
    with Contacts(fleet, cluster) as contacts:
        answers = True
        for job in jobs:
            # For a log alone a machine that does not answer is not tried again and again.
            if answers or not _safe(job):
                answers = _rescue(contacts, job)


def _settled(fleet: Fleet, job: Job, cluster: Cluster) -> bool:
    """Whether a job is over, and all that is wanted of it is home."""
    if not (job.state.over and _safe(job)):
        return False
    copies = [log_copy(fleet, job, job.attempts, rank) for rank in range(cluster.nodes)]
    return all(copy.whole for copy in copies)


def _safe(job: Job) -> bool:
    return not job.outputs or job.outputs_verified_at is not None


def _rescue(contacts: Contacts, job: Job) -> bool:
    """Returns whether the machine answers."""
    try:
        if not (job.state.over and _safe(job)):
            cancel(contacts, job, grace_s=GRACE_S)
        for rank in contacts.ranks:
            with suppress(NothingMatched):
                status = read(contacts, job, lambda _: None, rank=rank)
                job = note(contacts.fleet, job, status) if rank == 0 else job
    except RemoteError as error:
        if _safe(job):
            return False
        raise unverified(contacts, job, f"{error.message}: {error.why}") from error
    if not _safe(job):
        collect(contacts, job, lenient=job.state is not JobState.SUCCEEDED)
    return True


def close_jobs(fleet: Fleet, cluster: Cluster) -> None:
    """Note that whatever was not over ended with its cluster."""
    for job in fleet.store.jobs.of(cluster):
        if not job.state.over:
            fleet.store.jobs.update(job.id, state=JobState.CANCELLED, ended_at=utcnow())
