"""Bringing a job's outputs home, verified, before its machine may go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from gpucloud.errors import GpucloudError, OutputsNotVerified
from gpucloud.fleet.contact import Contacts, node_label
from gpucloud.model import Event, Job, utcnow
from gpucloud.quantities import format_bytes, format_count, printable
from gpucloud.remote.pull import Pulled, pull
from gpucloud.store.ledger import Line

GIB: Final = 2**30


def pull_home(
    contacts: Contacts,
    patterns: Sequence[str],
    into: Path,
    *,
    rank: int = 0,
    newer_than: datetime | None = None,
    beside: str = "",
) -> Pulled:
    """Pull files from one machine as ``pull`` does, and enter what that costs, if it is known."""
    label = node_label(contacts.cluster, rank)
    with contacts.fleet.view([label]) as watchers:
        pulled = pull(
            contacts.host(rank), patterns, into, newer_than=newer_than, beside=beside, watch=watchers[label]
        )
    charge_egress(contacts, rank, pulled.size)
    return pulled


def charge_egress(contacts: Contacts, rank: int, size: int) -> None:
    """Enter what it costs, if that is known, that so many bytes came home from a machine."""
    rental = contacts.cluster.rentals[rank]
    price = rental.tariff.egress_usd_per_gib
    if price and size:
        contacts.fleet.store.ledger.pay(
            rental.token, Line.EGRESS, price * size / GIB, f"{size} bytes came home"
        )


def collect(contacts: Contacts, job: Job, *, lenient: bool = False) -> Pulled:
    """Pull what the job declared as outputs into its working directory.

    With ``lenient`` an output that is not there is only told of: the job failed and may never have made it.

    Raises:
        OutputsNotVerified: when an output is missing, or is not here with the checksum the host computed.
    """
    into = Path(job.workdir or ".")
    try:
        # What an earlier pull brought is not taken for a change that the person made.
        known = job.outputs_verified_at or job.created_at
        pulled = pull_home(contacts, job.outputs, into, newer_than=known, beside=f".from-{job.id}")
    except GpucloudError as error:
        raise unverified(contacts, job, f"{error.message}: {error.why}") from error
    except OSError as error:
        raise unverified(contacts, job, str(error)) from error
    for pattern in pulled.missing:
        contacts.fleet.tell(Event("warning", f"output {pattern!r} matches nothing on the host"))
    for name in pulled.refused:
        text = f"the link {printable(name)} leads out of the folder and was left there"
        contacts.fleet.tell(Event("warning", text))
    if pulled.unverified:
        raise unverified(
            contacts, job, f"{len(pulled.unverified)} kept changing, {pulled.unverified[0]!r} among them"
        )
    if pulled.clashing:
        raise unverified(
            contacts, job, f"{pulled.clashing[0]!r} differs only by case from a name that is here already"
        )
    if pulled.missing and not lenient:
        raise unverified(contacts, job, f"{pulled.missing[0]!r} matches nothing in its working directory")
    for name, place in pulled.files.items():
        if place != into / name:
            contacts.fleet.tell(
                Event("warning", f"{name} was changed here meanwhile; the job's is {place.name}")
            )
    _make_durable(pulled.files.values())
    contacts.fleet.store.jobs.update(job.id, outputs_verified_at=utcnow())
    if pulled.files:
        summary = f"{format_count(len(pulled.files), 'output')}, {format_bytes(pulled.size)}, checksums agree"
        contacts.fleet.tell(Event("verified", summary))
    return pulled


def _make_durable(files: Iterable[Path]) -> None:
    """Machines are ended on the strength of these files, so they have to survive a power cut here."""
    for file in files:
        if not file.is_symlink():
            with file.open("rb") as content:
                os.fsync(content)


def unverified(contacts: Contacts, job: Job, why: str) -> OutputsNotVerified:
    """The error of outputs that are not home: what keeping their machine costs, and how to give them up."""
    rate = contacts.cluster.usd_per_hour
    price = "an unknown price" if rate is None else f"${rate:.2f}"
    return OutputsNotVerified(
        f"the outputs of {job.id} are not home; the machine is kept, and costs {price} an hour",
        why=why,
        hint=f"gpucloud pull {job.cluster_name}, or gpucloud down {job.cluster_name} --discard-outputs",
    )
