"""Local instances as folders and processes: what a vendor's API would be for another adapter.

A folder ``ROOT/ID`` holds ``spec.json`` (what was asked for), ``pid`` and ``lock`` of the server process,
which holds the lock while the instance lives, ``status.json`` (once SSH answers), ``ended.json`` (once it is
over without having been terminated), the keys, ``server.log`` and ``home``. Folders that begin with a dot are
on their way in or out. Whatever goes wrong is an ``OSError``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel

from gpucloud.model import utcnow

MARKER: Final = "GPUCLOUD_INSTANCE_FOLDER"
"""The variable by which a process is known to belong to an instance; its value is the folder, resolved."""

PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""What an instance sees of this machine's environment: enough to find programs and GPUs, and no secrets."""

STARTING: Final = timedelta(seconds=20)
"""How long after its creation a folder without a server counts as starting."""

TOMBSTONE: Final = timedelta(hours=1)
"""How long an instance that ended by itself stays listed, so that its owner can learn why."""

DEATH_S: Final = 5
"""How long processes may take to be gone after SIGKILL when there is no server to wait for them."""

Document = TypeVar("Document", bound=BaseModel)


class Spec(BaseModel):
    """What was asked for. Times in seconds count from the creation; ``dead`` instances never answer."""

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
    interrupt_after_s: float | None = None
    notice_s: float = 0


class Status(BaseModel):
    """Where the SSH server listens, and the public line of its host key."""

    port: int
    host_key: str


class Ended(BaseModel):
    """Why an instance is over that nobody terminated."""

    reason: Literal["expired", "interrupted"]
    at: AwareDatetime


@dataclass(frozen=True, slots=True)
class Machine:
    """One instance as its folder tells it.

    ``alive``: its server process holds the lock. ``starting``: it may be about to.
    """

    folder: Path
    spec: Spec
    status: Status | None
    ended: Ended | None
    alive: bool
    starting: bool


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


def create(root: Path, spec: Spec, public_key: str, host_key: str | None) -> Machine:
    """Make the folder and start its server, detached; a second create for one token returns the first's."""
    folder = folder_of(root, spec.token)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=root) as scratch:
        draft = Path(scratch) / spec.token
        for private in (draft, draft / "home"):
            private.mkdir(mode=0o700)
        (draft / "authorized_keys").write_text(public_key + "\n")
        (draft / "spec.json").write_text(spec.model_dump_json())
        if host_key:
            write_private(draft / "host_key", host_key)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            return read(folder)
    # Whatever runs in the instance can read the environment of its server.
    inherited = {n: v for n, v in os.environ.items() if n in PASSED_ON or n.startswith("PYTHON")}
    with (folder / "server.log").open("wb") as log:
        started = subprocess.run(
            [sys.executable, "-P", "-m", "gpucloud_local.server", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**inherited, "HOME": str(folder / "home")},
            start_new_session=True,
            check=False,
        )
    if started.returncode:
        said = (folder / "server.log").read_text(errors="replace").splitlines()
        raise OSError(f"its server did not start: {said[-1] if said else started.returncode}")
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
    alive = _locked(folder)
    ended = load(folder / "ended.json", Ended)
    young = utcnow() - spec.created_at < STARTING
    return Machine(
        folder,
        spec,
        status,
        ended,
        alive,
        starting=young and not (alive or status or ended or _died(folder)),
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
        if not _shared(lock):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
            return
        # A server that starts now waits for the lock, and then finds that its folder is gone.
        deadline = time.monotonic() + DEATH_S
        while kill_processes(folder):
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes of {folder.name} survive SIGKILL")
            time.sleep(0.01)
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


def _locked(folder: Path) -> bool:
    try:
        with (folder / "lock").open("rb") as lock:
            return not _shared(lock)
    except FileNotFoundError:
        return False


def _died(folder: Path) -> bool:
    """Whether there was a server process that is no more."""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        pass
    return False


def _shared(lock: IO[bytes]) -> bool:
    """Take the lock beside others that look; ``False`` when the server holds it."""
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
