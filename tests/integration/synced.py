"""A host that files are pushed to and pulled from, and what a test sees of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from gpucloud.model import SshAddress
from gpucloud.remote.archive import CHUNK
from gpucloud.remote.connection import Connection, Endpoint, connect
from gpucloud.remote.host import Host
from gpucloud.remote.outgoing import PACK
from gpucloud.remote.streams import Reader, Writer
from gpucloud.store import new_id
from tests.providers.rented import Rented

BIG: Final = CHUNK + CHUNK // 2
"""The size of a file that is read in two pieces for an archive; between them a test meddles."""

LARGE: Final = PACK + PACK // 2
"""The size of a file that is read in two pieces for the helper on the host."""

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


class Watched(Host):
    """Counts what is sent, and does one of ``meddle`` after each whole piece of a file either way."""

    def __init__(self, connection: Connection, token: str) -> None:
        super().__init__(connection, token)
        self.sent_bytes = 0
        self.meddle: list[Callable[[], object]] = []
        self.before_pack: Callable[[], object] = lambda: None
        self.bare = False

    def receive(self, target: str, write: Callable[[Writer], object], how: str = "plain") -> None:
        """As the host does, while we look on."""
        super().receive(target, lambda out: write(_Outgoing(out, self)), how)

    def pack(self, names: Sequence[str], consume: Callable[[Reader], object]) -> None:
        """As the host does, while we look on; what was checksummed may change before."""
        self.before_pack()
        super().pack(names, lambda stream: consume(_Incoming(stream, self)))

    def agent(
        self, words: Sequence[str], *, stdin: Callable[[Writer], object], consume: Callable[[Reader], object]
    ) -> bool:
        """As the host does, while we look on; what was listed may change before it is asked for.

        One that is to be ``bare`` has no Python.
        """
        if self.bare:
            return False
        return super().agent(
            words,
            stdin=lambda out: stdin(_Outgoing(_Questions(out, self), self)),
            consume=lambda stream: consume(_Incoming(stream, self)),
        )


@dataclass(slots=True)
class _Outgoing:
    out: Writer
    host: Watched

    def write(self, data: bytes, /) -> None:
        self.out.write(data)
        self.host.sent_bytes += len(data)
        if len(data) in (CHUNK, PACK) and self.host.meddle:
            self.host.meddle.pop(0)()


@dataclass(slots=True)
class _Questions:
    out: Writer
    host: Watched

    def write(self, data: bytes, /) -> None:
        if data[:1] in {b"W", b"R", b"S"}:
            self.host.before_pack()
        self.out.write(data)


@dataclass(slots=True)
class _Incoming:
    stream: Reader
    host: Watched
    come: int = 0

    def read(self, size: int = CHUNK, /) -> bytes:
        data = self.stream.read(size)
        self.come += len(data)
        if self.come > CHUNK and self.host.meddle:
            self.host.meddle.pop(0)()
        return data


@dataclass(frozen=True, slots=True)
class There:
    """An installed host, and its folder as this machine sees it."""

    host: Watched
    root: Path

    @property
    def work(self) -> Path:
        """The working directory."""
        return self.root / "work"


def installed(connection: Connection, home: Path) -> There:
    """The on-host program under a token of its own, on a host whose home is ``home``."""
    token = new_id("gc-", 20)
    host = Watched(connection, token)
    host.install(slots=0, claim="test", notice_probe="", at_end="")
    return There(host, home / ".gpucloud" / token)


def without_python(folder: Path) -> str:
    """A PATH with all the tools of this machine but Python."""
    folder.mkdir()
    for place in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for tool in Path(place).glob("*"):
            if not tool.name.startswith("python") and not (folder / tool.name).is_symlink():
                (folder / tool.name).symlink_to(tool)
    return str(folder)


@contextmanager
def reached(machine: Rented) -> Iterator[There]:
    """A connection with the program installed."""
    with machine.connect() as connection:
        yield installed(connection, machine.folder / "home")


_OTHER = """
import os
import signal
import sys
from pathlib import Path
from tests.harness.waiting import eventually
from gpucloud.remote.pull import pull
from gpucloud.remote.push import push
from tests.integration.synced import other_host

with other_host(sys.argv[1:6]) as host:
"""


@contextmanager
def other_host(words: list[str]) -> Iterator[Watched]:
    """In a process of its own: the host that ``run_elsewhere`` was called for."""
    address, port, user, identity, token = words
    endpoint = Endpoint(SshAddress(address, int(port), user), Path(identity), "it")
    with connect(endpoint, timeout_s=15) as connection:
        yield Watched(connection, token)


def run_elsewhere(machine: Rented, there: There, program: str, *words: object) -> int:
    """Run a program in a process of its own, with ``host`` and, from ``sys.argv[6]`` on, ``words``."""
    address = machine.address
    login = [address.host, str(address.port), address.user, str(machine.identity.file), there.root.name]
    indented = "".join(f"    {line}\n" for line in program.strip().splitlines())
    return subprocess.run(
        [sys.executable, "-c", _OTHER + indented, *login, *map(str, words)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ).returncode


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own at ``folder``; remount it to make it bigger."""
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False
    ).returncode:
        pytest.skip("this kernel lets nobody mount")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def enlarge(folder: Path) -> None:
    """Give a small disk room."""
    subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)


def put(root: Path, *names: str | bytes, content: bytes = b"content") -> None:
    """Write files, and the folders that they are in."""
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """All that can be seen of a tree; times in the whole seconds that an archive has."""
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
        name = str(path.relative_to(root))
        if stat.S_ISLNK(kind):
            found[name] = (kind, str(path.readlink()))
        elif stat.S_ISREG(kind):
            found[name] = (kind, mode, int(status.st_mtime), path.read_bytes())
        else:
            found[name] = (kind, mode)
    return found


def names(root: Path) -> set[str]:
    """The paths of all that is in a tree."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}
