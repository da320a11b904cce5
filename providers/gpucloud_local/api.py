"""Local instances as folders and processes: what a vendor's API would be for another adapter.

A folder ``ROOT/ID`` holds ``spec.json`` (what was asked for), ``pid``, ``lock`` and ``gate`` of the server
process, which holds the lock while the instance lives, ``status.json`` (once SSH answers), ``stopped`` (once
it was told to stop), ``expiry.json`` (once that was moved), ``ended.json`` (once it is over without having
been terminated), the keys, ``server.log``, ``home``, and ``bin`` with programs that only its sessions find.
Folders that begin with a dot are on their way in or out. Whatever goes wrong is an ``OSError``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel

from gpucloud.model import utcnow
from gpucloud_local.processes import (
    end_processes,
    end_server,
    gate,
    has_server,
    outlive_server,
    server_died,
    shared,
    start_server,
)

ENDED: Final = "ended.json"
STOPPED: Final = "stopped"
"""The file that tells an instance to stop; it lies there until the instance was started again."""

ASKED: Final = ".interrupt"
"""The file in its home by which a job asks for the interruption that is in store for its instance."""

STARTING: Final = timedelta(seconds=20)
"""How long after its creation a folder without a server counts as starting."""

TOMBSTONE: Final = timedelta(hours=1)
"""How long an instance that ended by itself stays listed, so that its owner can learn why."""

Document = TypeVar("Document", bound=BaseModel)


class Spec(BaseModel):
    """What was asked for. Times in seconds count from the creation; ``dead`` instances never answer.

    One that is in a queue for ``queue_s`` starts only then, and not at all if that is longer than ``wait_s``.
    One to be interrupted when ``asked`` waits until something on it makes ``ASKED`` in its home.
    """

    token: str
    cluster: str
    rank: int
    owner: str
    created_at: AwareDatetime
    instance_type: str
    market: str
    usd_per_hour: str
    region: str | None = None
    expires_at: AwareDatetime | None = None
    sshd: Literal["asyncssh", "openssh"] = "asyncssh"
    boot_s: float = 0
    dead: bool = False
    reservation: str | None = None
    queue_s: float = 0
    wait_s: float = 0
    interrupt_at: float | Literal["asked"] | None = None
    notice_s: float = 0

    @property
    def starts_at(self) -> datetime:
        """When it leaves the queue."""
        return self.created_at + timedelta(seconds=self.queue_s)


class Status(BaseModel):
    """Where the SSH server listens, and the public line of its host key."""

    port: int
    host_key: str


class Ended(BaseModel):
    """Why an instance is over that nobody terminated."""

    reason: Literal["expired", "interrupted"]
    at: AwareDatetime


class Expiry(BaseModel):
    """When an instance is to end instead of when it was launched for."""

    at: AwareDatetime


@dataclass(frozen=True, slots=True)
class Machine:
    """One instance as its folder tells it.

    ``alive``: its server process holds the lock. ``starting``: it may be about to. ``stopped``: it was told
    to stop, and has when it is not alive.
    """

    folder: Path
    spec: Spec
    status: Status | None
    ended: Ended | None
    alive: bool
    starting: bool
    stopped: bool

    @property
    def halted(self) -> bool:
        """Whether nothing of it is left but its files, from which it can be started again."""
        return self.stopped and not self.alive and not self.ended


def folder_of(root: Path, instance_id: str) -> Path:
    """Where an instance is. Raises ``FileNotFoundError`` for what can be no id: it may not lead elsewhere."""
    if not re.fullmatch(r"[\w-][\w.-]*", instance_id):
        raise FileNotFoundError(f"{instance_id!r} is no instance")
    return root / instance_id


def username() -> str:
    """Whom to log in as: ourselves, who may lack a name in a container."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def create(
    root: Path,
    spec: Spec,
    public_key: str,
    *,
    host_key: str | None = None,
    programs: Mapping[str, str] | None = None,
    instance_id: str | None = None,
) -> Machine:
    """Make the folder and start its server, detached; a second create of one id returns the first's.

    ``programs`` are scripts by the names that its sessions call them by. Without an id it is the token.
    """
    folder = folder_of(root, instance_id or spec.token)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=root) as scratch:
        draft = Path(scratch) / folder.name
        for private in (draft, draft / "home"):
            private.mkdir(mode=0o700)
        (draft / "authorized_keys").write_text(public_key + "\n")
        (draft / "spec.json").write_text(spec.model_dump_json())
        if host_key:
            write_private(draft / "host_key", host_key)
        for name, text in (programs or {}).items():
            (draft / "bin").mkdir(exist_ok=True)
            (draft / "bin" / name).write_text(text)
            (draft / "bin" / name).chmod(0o700)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            return read(folder)
    with gate(folder) as held:
        start_server(folder, held)
    return read(folder)


def write_private(file: Path, text: str) -> None:
    """Write a file that only we can read."""
    with os.fdopen(os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as out:
        out.write(text)


def publish(file: Path, document: BaseModel) -> None:
    """Write a JSON file so that readers see all of it or nothing."""
    draft = file.with_name(f".{file.name}")
    draft.write_text(document.model_dump_json())
    draft.replace(file)


def load(file: Path, model: type[Document]) -> Document | None:
    """Read what ``publish`` wrote; ``None`` when there is nothing."""
    try:
        return model.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OSError(f"{file} is damaged") from error


def read(folder: Path) -> Machine:
    """Read one instance. Raises ``FileNotFoundError`` when it is gone."""
    spec = load(folder / "spec.json", Spec)
    if spec is None:
        raise FileNotFoundError(f"there is no instance {folder.name}")
    # The server takes the lock before it writes the one, and holds it until it has written the other.
    status = load(folder / "status.json", Status)
    alive = has_server(folder)
    stopped = (folder / STOPPED).exists()
    # A server that starts again removes the mark once it has the lock, perhaps between those two looks.
    alive = alive or (not stopped and has_server(folder))
    ended = load(folder / ENDED, Ended)
    young = utcnow() - spec.created_at < STARTING
    return Machine(
        folder,
        spec,
        status,
        ended,
        alive,
        starting=young and not (alive or status or ended or server_died(folder)),
        stopped=stopped,
    )


def machines(root: Path) -> Iterator[Machine]:
    """Every instance below ``root``; tombstones and leftovers that are old enough are removed on the way."""
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            if folder.name.startswith((".draft-", ".gone-")):
                if time.time() - folder.stat().st_mtime > TOMBSTONE.total_seconds():
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            machine = read(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if machine.ended and utcnow() - machine.ended.at > TOMBSTONE:
            with contextlib.suppress(OSError):  # it is over, whatever cannot be removed of it
                destroy(folder)
        else:
            yield machine


def destroy(folder: Path) -> None:
    """End an instance with all its processes and its files; its server does it when there is one."""
    # What is missing in here was removed by somebody who was faster.
    with contextlib.suppress(FileNotFoundError), (folder / "lock").open("ab") as lock:
        if not shared(lock):
            end_server(folder)
            if not any((folder / sign).exists() for sign in (STOPPED, ENDED)):
                return
            # A server that is about to go by itself may no longer hear of it.
            outlive_server(folder, lock)
        # A server that starts now waits for the lock, and then finds that its folder is gone.
        end_processes(folder)
        remove(folder)


def remove(folder: Path) -> None:
    """Delete what is left of an instance once its processes are dead."""
    delete(folder / "home")
    gone = folder.with_name(f".gone-{folder.name}")
    folder.rename(gone)
    delete(gone)


def delete(folder: Path) -> None:
    """Delete a folder with all that is in it, write-protected folders too: caches of packages have them."""
    if folder.is_symlink():
        folder.unlink()
        return
    with contextlib.suppress(FileNotFoundError):
        folder.chmod(0o700)
        for place, names, _ in os.walk(folder):
            for name in names:
                inner = Path(place, name)
                if not inner.is_symlink():
                    inner.chmod(0o700)
        shutil.rmtree(folder)
