"""The processes of a local instance: its server, and all that was started in it.

The server holds ``lock`` while it lives, and ``pid`` names it. Whoever starts one, or tells it something,
holds the ``gate`` meanwhile. Whatever goes wrong is an ``OSError``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

MARKER: Final = "GPUCLOUD_INSTANCE_FOLDER"
"""The variable by which a process is known to belong to an instance; its value is the folder, resolved."""

PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""What an instance sees of this machine's environment: enough to find programs and GPUs, and no secrets."""

DEATH_S: Final = 5
"""How long processes may take to be gone when there is no server to wait for them."""


@contextlib.contextmanager
def gate(folder: Path) -> Iterator[IO[bytes]]:
    """Be the only one who starts or directs the server. Raises ``FileNotFoundError`` without a folder."""
    import fcntl

    with (folder / "gate").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield held


def start_server(folder: Path, held: IO[bytes]) -> None:
    """Start the server of an instance that has none, detached. It has the lock on return.

    ``held`` is the gate. The server comes with it, so that no second one is started beside it when we are
    killed, and lets go of it once it has the lock.
    """
    # Whatever runs in the instance can read the environment of its server.
    inherited = {n: v for n, v in os.environ.items() if n in PASSED_ON or n.startswith("PYTHON")}
    with (folder / "server.log").open("wb") as log:
        started = subprocess.run(
            [sys.executable, "-P", "-m", "gpucloud_local.server", str(folder)],
            stdin=held,
            stdout=log,
            stderr=log,
            env={**inherited, "HOME": str(folder / "home")},
            start_new_session=True,
            check=False,
        )
    if started.returncode:
        said = (folder / "server.log").read_text(errors="replace").splitlines()
        raise OSError(f"its server did not start: {said[-1] if said else started.returncode}")


def end_server(folder: Path) -> None:
    """Tell the server that holds the lock to end the instance."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)


def has_server(folder: Path) -> bool:
    """Whether a server holds the lock."""
    try:
        with (folder / "lock").open("rb") as lock:
            return not shared(lock)
    except FileNotFoundError:
        return False


def server_died(folder: Path) -> bool:
    """Whether there was a server process that is no more."""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        pass
    return False


def shared(lock: IO[bytes]) -> bool:
    """Take the lock beside others that look; ``False`` when the server holds it."""
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def outlive_server(folder: Path, lock: IO[bytes]) -> None:
    """Take the lock beside others once the server, about to end, is gone. Raises ``TimeoutError``."""
    deadline = time.monotonic() + DEATH_S
    while not shared(lock):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server of {folder.name} does not end")
        time.sleep(0.01)


def end_processes(folder: Path) -> None:
    """Kill all that runs in an instance without a server, to the last. Raises ``TimeoutError``."""
    deadline = time.monotonic() + DEATH_S
    while kill_processes(folder):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes of {folder.name} survive SIGKILL")
        time.sleep(0.01)


def kill_processes(folder: Path, server: int | None = None) -> bool:
    """Send SIGKILL to every process of an instance but its ``server``; whether there was any.

    They are those that carry its mark, and all below them and the server: some programs change what their
    environment looks like.
    """
    wanted = f"{MARKER}={folder.resolve()}".encode()
    tops: set[int | None] = {server}
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            if state not in b"ZX":
                parents[int(entry.name)] = int(parent)
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    tops.add(int(entry.name))
    found = False
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor not in tops:
            ancestor = parents[ancestor]
        if ancestor in tops and pid != server:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                found = True
    return found
