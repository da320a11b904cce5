"""Bringing a job to its nodes and starting it there, detached."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gpucloud import redact
from gpucloud.errors import GpucloudError
from gpucloud.fleet.contact import Contacts
from gpucloud.jobs.script import scripts
from gpucloud.model import Event, Job, JobSpec, JobState, utcnow
from gpucloud.parallel import results, run_all
from gpucloud.quantities import format_bytes, format_count
from gpucloud.remote.host import JobStatus
from gpucloud.remote.sync import Pushed, push

WORK = "work"
"""The working directory on the host, below our folder there."""


def send(contacts: Contacts, spec: JobSpec, *, restore: bool = False) -> list[Pushed]:
    """Push the working directory and the mounts to every node; ``restore`` sends the outputs along.

    Returns what was pushed to the first node, one for each folder.

    Raises:
        SyncFailed: when not all of it could be brought over.
    """
    trees = [(spec.workdir, WORK)] if spec.workdir else []
    trees += [(mount.source, _mounted(mount.target)) for mount in spec.mounts]
    extra = spec.outputs if restore else ()
    done = []
    for source, target in trees:
        pushes = {rank: partial(_push, contacts, rank, source, target, extra) for rank in contacts.ranks}
        sent = results(run_all(pushes))[0]
        where = "" if target == WORK else f" to {target}"
        summary = f"{format_count(sent.files, 'file')}, {format_bytes(sent.size)}{where}"
        if sent.removed:
            summary += f"; {sent.removed} that vanished here were deleted there"
        contacts.fleet.tell(Event("pushed", summary))
        for path, reason in sent.skipped:
            contacts.fleet.tell(Event("warning", f"{path} was left out: {reason}"))
        for path in sent.changing:
            warning = f"{path} changed while it was read; push again when it is still"
            contacts.fleet.tell(Event("warning", warning))
        done.append(sent)
    return done


def _push(contacts: Contacts, rank: int, source: str, target: str, extra: Sequence[str]) -> Pushed:
    return push(contacts.host(rank), source, target, extra=extra)


def submit(contacts: Contacts, spec: JobSpec) -> Job:
    """Enter a job into the books and start it on every node; it goes on without us."""
    store = contacts.fleet.store
    return begin(contacts, spec, store.jobs.create(contacts.cluster, spec))


def begin(contacts: Contacts, spec: JobSpec, job: Job) -> Job:
    """Start an attempt at a job on every node; when one node fails, the job is ended on the others."""
    for secret in spec.secrets.values():
        redact.add(secret)
    starts = {rank: partial(_start, contacts, rank, spec, job) for rank in contacts.ranks}
    answers = run_all(starts)
    if any(isinstance(answer, BaseException) for answer in answers.values()):
        cancel(contacts, job, grace_s=0)
        contacts.fleet.store.jobs.update(job.id, state=JobState.FAILED, ended_at=utcnow())
    status = results(answers)[0]
    contacts.fleet.tell(Event("started", f"job {job.id}"))
    return contacts.fleet.store.jobs.update(job.id, state=status.state, started_at=job.started_at or utcnow())


def _start(contacts: Contacts, rank: int, spec: JobSpec, job: Job) -> JobStatus:
    return contacts.host(rank).start(on_host_id(job), scripts(spec, contacts.cluster, rank, job.id))


def on_host_id(job: Job) -> str:
    """The job's name on its hosts: each attempt has its own, so that none is taken for another."""
    return job.id if job.attempts == 1 else f"{job.id}.{job.attempts}"


def cancel(contacts: Contacts, job: Job, *, grace_s: int) -> list[GpucloudError]:
    """End a job on every node that can be reached; returns what went wrong on the others."""
    done = run_all({rank: partial(_cancel, contacts, job, rank, grace_s) for rank in contacts.ranks})
    return [error for error in done.values() if isinstance(error, GpucloudError)]


def _cancel(contacts: Contacts, job: Job, rank: int, grace_s: int) -> None:
    contacts.host(rank).cancel(on_host_id(job), grace_s)


def _mounted(target: str) -> str:
    return target if target.startswith(("/", "~/")) else f"{WORK}/{target}"
