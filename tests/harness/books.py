"""What tests enter into the books, and other processes that use the same books."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from gpucloud.model import Cluster, Instance, InstanceRef, InstanceState, Market, Rental, RentalState
from gpucloud.store import Store

START: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

IMPORTS: Final = """
import sys
from pathlib import Path
from gpucloud.store import Store
"""
OPEN: Final = f"{IMPORTS}store = Store(Path(sys.argv[1]))\n"
"""How a program begins that uses the books in the folder it is given."""


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The books in a folder."""
    store = Store(folder)
    try:
        yield store
    finally:
        store.db.close()


def a_rental(cluster: Cluster, token: str = "gc-1", **changes: Any) -> Rental:
    """An instance that is about to be rented for a cluster."""
    plain = Rental(
        token=token,
        cluster_id=cluster.id,
        rank=0,
        state=RentalState.INTENDED,
        provider="acme",
        instance_type="big",
        market=Market.SPOT,
        intended_at=START,
        usd_per_hour=Decimal("3.60"),
    )
    return replace(plain, **changes)


def an_instance(token: str = "gc-1", **changes: Any) -> Instance:
    """What the provider made of it."""
    plain = Instance(
        "acme", InstanceRef(f"i-{token}", "us-east"), InstanceState.RUNNING, token, created_at=START
    )
    return replace(plain, **changes)


def rented(store: Store, cluster: Cluster, token: str = "gc-1", **changes: Any) -> Rental:
    """A rental that its provider has accepted."""
    store.journal.intend(a_rental(cluster, token, **changes))
    store.journal.accept(token, an_instance(token))
    return store.journal.get(token)


@contextmanager
def other_process(
    program: str, folder: Path, *words: str, opens: bool = True
) -> Iterator[subprocess.Popen[str]]:
    """Run a program that begins with ``OPEN``, or else with ``IMPORTS``, and see to its end."""
    with subprocess.Popen(
        [sys.executable, "-c", (OPEN if opens else IMPORTS) + program, str(folder), *words],
        env=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_from(process: subprocess.Popen[str]) -> str:
    """The next line that another process writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        raise AssertionError(f"it ended with {process.wait(30)}: {process.stderr.read()}")
    return line.rstrip("\n")


def start_together(processes: list[subprocess.Popen[str]]) -> None:
    """Let processes go on that have written ``ready`` and wait for a line."""
    for process in processes:
        assert line_from(process) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
