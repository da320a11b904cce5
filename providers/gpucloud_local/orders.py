"""What a local instance is told after its launch: to stop, to start again, or to expire at another moment.

An order is a file that its server looks for, so it counts from the moment it is there, whatever becomes of
whoever gave it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from gpucloud.model import utcnow
from gpucloud_local.api import ENDED, STOPPED, Ended, Expiry, Machine, Spec, delete, load, publish, read
from gpucloud_local.processes import end_processes, gate, outlive_server, shared, start_server


def stop(folder: Path) -> None:
    """End what runs in an instance and its server, soon; its files stay. Raises ``FileNotFoundError``."""
    with gate(folder):
        _there(folder)
        (folder / STOPPED).touch()
        with (folder / "lock").open("ab") as lock:
            if shared(lock):
                end_processes(folder)


def start(folder: Path) -> None:
    """Give a stopped instance a server again. Raises ``FileNotFoundError`` or ``TimeoutError``."""
    with gate(folder) as held:
        if _there(folder).stopped:
            with (folder / "lock").open("ab") as lock:
                outlive_server(folder, lock)
        if not _there(folder).alive:
            start_server(folder, held)


def expire(folder: Path, at: datetime) -> None:
    """Let an instance end then instead. Raises ``FileNotFoundError``."""
    with gate(folder):
        _there(folder)
        publish(folder / "expiry.json", Expiry(at=at))


def expiry(folder: Path, spec: Spec) -> datetime | None:
    """When an instance is to end by itself, as it was told last."""
    moved = load(folder / "expiry.json", Expiry)
    return moved.at if moved else spec.expires_at


def lapse(machine: Machine) -> Machine:
    """End a stopped instance that has expired, as its server would; what it is then."""
    if not machine.halted:
        return machine
    folder = machine.folder
    with gate(folder):
        # Somebody may have started it in the meantime.
        due = expiry(folder, machine.spec)
        if due and due <= utcnow() and read(folder).halted:
            publish(folder / ENDED, Ended(reason="expired", at=utcnow()))
            delete(folder / "home")
    return read(folder)


def _there(folder: Path) -> Machine:
    machine = read(folder)
    if machine.ended:
        raise FileNotFoundError(f"the instance {folder.name} is over")
    return machine
