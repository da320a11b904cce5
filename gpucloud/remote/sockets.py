"""Where the sockets of shared connections are: in a folder that is ours alone, under short names."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gpucloud.remote.connection import Endpoint, Incompatible
from gpucloud.remote.mux import Control, Gone, Strange

LONGEST_PATH: Final = 103
"""What every system takes as the path of a socket."""

NAME_LENGTH: Final = 20
"""No name of ours is longer."""

SUFFIX_LENGTH: Final = 17
"""How much OpenSSH appends while it makes a socket."""

STALE_S: Final = 3600.0
"""So old is nothing any more that a command is still working on."""

LOOK_S: Final = 0.02


def folder() -> Path:
    """The folder, mode 0700; made when there is none.

    Raises:
        Incompatible: when there is no place for it.
    """
    for place in _places():
        if len(str(place)) + 1 + NAME_LENGTH + SUFFIX_LENGTH > LONGEST_PATH:
            continue
        with suppress(OSError):
            with suppress(FileExistsError):
                place.mkdir(mode=0o700)
            if _ours_alone(place):
                return place
    raise Incompatible("there is no folder for its sockets that is yours alone and has a short path")


def _places() -> Iterator[Path]:
    given = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    # Its owner could put anything in place of what is in it.
    if given.is_absolute() and given.is_dir() and given.stat().st_uid == os.getuid():
        yield given / "gpucloud"
    yield Path(tempfile.gettempdir()) / f"gpucloud-{os.getuid()}"
    yield Path("/tmp") / f"gpucloud-{os.getuid()}"


def _ours_alone(place: Path) -> bool:
    # Not followed: a link could lead to where somebody else may write.
    found = place.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def shared(endpoint: Endpoint, lane: int = 0) -> Path:
    """Where the connection to a host that is pinned, as are its jump hosts, is shared."""
    return folder() / f"{_digest(endpoint)}.{lane}"


def _digest(endpoint: Endpoint) -> str:
    known = json.dumps(_identity(endpoint)).encode()
    return hashlib.sha256(known).hexdigest()[:16]


def _identity(endpoint: Endpoint) -> list[object]:
    address = endpoint.address
    return [
        address.host,
        address.port,
        address.user,
        address.proxy,
        str(endpoint.identity_file.absolute()),
        (endpoint.pinned or "").split()[:2],
        _identity(endpoint.jump) if endpoint.jump else None,
    ]


@contextmanager
def locked(path: Path, deadline: float) -> Iterator[None]:
    """Be the only one who makes the connection at ``path``; others wait, till ``deadline`` of the clock.

    Raises:
        TimeoutError: when somebody else still makes it then.
    """
    import fcntl

    file = path.with_name(f"{path.name}.lock")
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it has removed it.
            if _same(descriptor, file):
                break
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(LOOK_S)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def _same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def sweep(place: Path) -> None:
    """Remove what commands that were killed have left."""
    import shutil

    for entry in list(place.iterdir()):
        with suppress(OSError):
            found = entry.lstat()
            if time.time() - found.st_mtime < STALE_S:
                continue
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(entry)
            elif stat.S_ISSOCK(found.st_mode) and _deserted(entry):
                entry.unlink()


def _deserted(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        return caller.connect_ex(str(path)) == errno.ECONNREFUSED


def end_shared(endpoint: Endpoint) -> None:
    """Let nobody else share the connections to a host; each ends once those who use it are done."""
    try:
        found = list(folder().glob(f"{_digest(endpoint)}.*"))
    except (Incompatible, OSError):
        return
    for path in found:
        if path.suffix == ".lock":
            continue
        with suppress(Gone, Strange, OSError), Control(path) as control:
            control.stop_listening()
        path.unlink(missing_ok=True)
