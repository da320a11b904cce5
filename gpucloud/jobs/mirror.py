"""Bringing files home again and again while their job runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from gpucloud.fleet.contact import Contacts
from gpucloud.jobs.outputs import pull_home
from gpucloud.jobs.submit import on_host_id
from gpucloud.model import Event, Job
from gpucloud.quantities import format_bytes, format_count
from gpucloud.remote.sync import Pulled


def mirror(
    contacts: Contacts,
    job: Job,
    patterns: Sequence[str],
    into: Path,
    *,
    every: timedelta,
    tell: Callable[[Event], object],
) -> Pulled:
    """Pull what matches ``patterns`` below ``into`` until the job is over, and then a last time.

    Raises:
        RemoteError: when the machine cannot be reached.
    """
    while True:
        # Asked before the pull, so that what the job wrote last is in the last one.
        over = contacts.host(0).status(on_host_id(job)).over
        pulled = pull_home(contacts, patterns, into)
        if over:
            return pulled
        tell(Event("mirrored", f"{format_count(len(pulled.files), 'file')}, {format_bytes(pulled.size)}"))
        time.sleep(every.total_seconds())
