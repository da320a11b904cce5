"""The engine without what it takes to start it: a process that keeps its connection and does what it is told.

Argument: a cluster. Each line on stdin is ``["push", FOLDER]``, ``["pull", NAME, FOLDER]`` or
``["exec", COMMAND]`` in JSON; the answer is a line with the seconds that it took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from gpucloud.cli.context import find_cluster, fleet
from gpucloud.fleet.contact import Contacts
from gpucloud.jobs.outputs import pull_home
from gpucloud.jobs.submit import send
from gpucloud.model import JobSpec


def act(contacts: Contacts, verb: str, *words: str) -> None:
    """Do what the command of that name does."""
    if verb == "push":
        send(contacts, JobSpec(run="", workdir=words[0]))
    elif verb == "pull":
        pull_home(contacts, [words[0]], Path(words[1]))
    else:
        done = contacts.host(0).connection.run(words[0])
        assert done.status == 0, done


def main(name: str) -> None:
    """Serve until stdin ends."""
    here = fleet()
    with Contacts(here, find_cluster(here, name)) as contacts:
        for line in sys.stdin:
            began = time.perf_counter()
            act(contacts, *json.loads(line))
            sys.stdout.write(f"{time.perf_counter() - began}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
