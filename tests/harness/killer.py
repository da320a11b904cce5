"""Runs gpucloud and kills it, as a power cut would, at a step: ``python -m tests.harness.killer N WORDS``.

A step is each side of every transaction, of every call to a provider, of the making of an instance inside
such a call, and of every SSH connection. Nothing else is changed. When the command ends before its Nth step,
its own exit status is returned.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

VERBS = (
    "offers",
    "launch",
    "get",
    "instances",
    "terminate",
    "stop",
    "start",
    "expire",
    "side_resources",
    "remove",
    "blocks",
    "reserve",
    "reservations",
)


def main() -> None:
    """Install the steps and run the command."""
    last = int(sys.argv[1])
    counter = itertools.count(1)

    def step() -> None:
        if next(counter) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    _install(step)
    from gpucloud.cli import execute

    sys.exit(execute(sys.argv[2:]))


def _install(step: Callable[[], None]) -> None:
    from gpucloud.remote import connection as ssh
    from gpucloud.store.database import Database
    from gpucloud_local import api as local
    from gpucloud_sim import Sim

    write = Database.write

    @contextmanager
    def killing_write(self: Database) -> Iterator[Any]:
        step()
        with write(self) as connection:
            yield connection
        step()

    Database.write = killing_write  # type: ignore[method-assign]
    for verb in VERBS:
        setattr(Sim, verb, _killing(getattr(Sim, verb), step))
    local.create = _killing(local.create, step)
    ssh.connect = _killing(ssh.connect, step)


def _killing(function: Callable[..., Any], step: Callable[[], None]) -> Callable[..., Any]:
    def killing(*arguments: Any, **settings: Any) -> Any:
        step()
        answer = function(*arguments, **settings)
        # A generator does its work when it is read.
        answer = list(answer) if isinstance(answer, Iterator) else answer
        step()
        return answer

    return killing


if __name__ == "__main__":
    main()
