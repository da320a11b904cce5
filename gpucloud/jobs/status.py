"""What became of jobs that go on without us; and ending them."""

from __future__ import annotations

from functools import partial

from gpucloud.errors import GpucloudError
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import Contacts
from gpucloud.fleet.reconcile import refresh
from gpucloud.jobs.logs import note, note_lost
from gpucloud.jobs.submit import cancel, on_host_id
from gpucloud.model import ClusterState, Job
from gpucloud.parallel import run_all


def update_all(fleet: Fleet) -> list[str]:
    """Ask the machines of all jobs that are not over; returns a line for each that could not be asked."""
    open_ = [job for job in fleet.store.jobs.all() if not job.state.over]
    timeout = fleet.config.duration("ssh.connect_timeout").total_seconds()
    answers = run_all({job.id: partial(_update, fleet, job) for job in open_}, timeout_s=2 * timeout)
    lines = []
    for job in open_:
        answer = answers.get(job.id)
        if job.id not in answers:
            lines.append(f"{job.id}: its machine does not answer; what is shown is what was last known")
        elif isinstance(answer, GpucloudError):
            lines.append(f"{job.id}: {answer.message}; what is shown is what was last known")
        elif isinstance(answer, BaseException):
            raise answer
    return lines


def _update(fleet: Fleet, job: Job) -> None:
    cluster = fleet.store.clusters.by_id(job.cluster_id)
    if cluster.state is ClusterState.LAUNCHING:
        return
    cluster = refresh(fleet, cluster)
    if len(cluster.rentals) < cluster.nodes:
        note_lost(fleet, job)
        return
    with Contacts(fleet, cluster) as contacts:
        status = contacts.host(0).status(on_host_id(job))
    if status.known:
        note(fleet, job, status)


def cancel_job(fleet: Fleet, job: Job, *, grace_s: int) -> Job:
    """End a job on all its nodes and return it as it then is. Raises ``RemoteError``."""
    with Contacts(fleet, fleet.store.clusters.by_id(job.cluster_id)) as contacts:
        for error in cancel(contacts, job, grace_s=grace_s):
            raise error
        return note(fleet, job, contacts.host(0).status(on_host_id(job)))
