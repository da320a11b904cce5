"""Bringing a job to its nodes and starting it there, detached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TypeVar

from gpucloud import redact
from gpucloud.errors import GpucloudError
from gpucloud.fleet.contact import Contacts, node_label
from gpucloud.jobs.script import scripts
from gpucloud.jobs.warn import of_changing, of_skipped, of_tree
from gpucloud.model import Event, Job, JobSpec, JobState, utcnow
from gpucloud.parallel import results, run_all
from gpucloud.quantities import format_bytes, format_count
from gpucloud.remote.host import JobStatus
from gpucloud.remote.push import Pushed, push
from gpucloud.remote.tree import Tree, scan

T = TypeVar("T")

WORK = "work"
"""The working directory on the host, below our folder there."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How to push.

    What matches the globs ``extra`` is sent even if it is ignored, and ``.git`` with ``git``. With ``verify``
    what was sent before is compared by checksum.
    """

    extra: tuple[str, ...] = ()
    git: bool = False
    verify: bool = False


def send(contacts: Contacts, spec: JobSpec, options: SendOptions = SendOptions()) -> list[dict[int, Pushed]]:
    """Push the working directory and the mounts to every node at once.

    Returns for each folder what was pushed to each node, by rank.

    Raises:
        SyncFailed: when not all of it could be brought over; every other node was still served.
    """
    trees = [(spec.workdir, WORK)] if spec.workdir else []
    trees += [(mount.source, _mounted(mount.target)) for mount in spec.mounts]
    return [_send(contacts, source, target, options) for source, target in trees]


def _send(contacts: Contacts, source: str, target: str, options: SendOptions) -> dict[int, Pushed]:
    """Push one folder or file to every node and tell what came of it."""
    tell, where = contacts.fleet.tell, "" if target == WORK else f" to {target}"
    tree = _once(partial(preview, source, options, tell)) if Path(source).is_dir() else None
    labels = {rank: node_label(contacts.cluster, rank) for rank in contacts.ranks}
    with contacts.fleet.view(list(labels.values())) as watchers:

        def to(rank: int) -> Pushed:
            return push(
                contacts.host(rank),
                source,
                target,
                extra=options.extra,
                verify=options.verify,
                git=options.git,
                tree=tree,
                watch=watchers[labels[rank]],
            )

        answers = run_all({rank: partial(to, rank) for rank in contacts.ranks})
    done = {rank: sent for rank, sent in sorted(answers.items()) if not isinstance(sent, BaseException)}
    for rank, sent in done.items():
        node = f"{labels[rank]}: " if len(labels) > 1 else ""
        tell(Event("pushed", f"{node}{_summary(sent)}{where}"))
    of_skipped(tell, dict.fromkeys(item for sent in done.values() for item in sent.skipped))
    of_changing(tell, dict.fromkeys(path for sent in done.values() for path in sent.changing))
    # The first failure is raised; of the others a word is enough.
    for error in [answer for answer in answers.values() if isinstance(answer, GpucloudError)][1:]:
        tell(Event("warning", f"{error.message}: {error.why}"))
    results(answers)
    return done


def preview(folder: str, options: SendOptions, tell: Callable[[Event], object]) -> Tree:
    """What an empty host would be sent; what should not be sent unnoticed is told."""
    tree = scan(Path(folder), extra=options.extra, git=options.git)
    of_tree(tell, folder, tree, options.extra)
    return tree


def _once(do: Callable[[], T]) -> Callable[[], T]:
    """The same, done by whoever calls first; the others wait for what comes of it."""
    lock = Lock()
    known: list[T] = []

    def first() -> T:
        with lock:
            if not known:
                known.append(do())
            return known[0]

    return first


def _summary(sent: Pushed) -> str:
    summary = f"{format_count(sent.files, 'file')}, {format_bytes(sent.size)}"
    if sent.removed:
        summary += f"; {sent.removed} that vanished here were deleted there"
    return summary


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
