"""Extraction of what a host sends: nothing is believed, nothing is in place before its checksum is right."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import stat
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from gpucloud.errors import GpucloudError, SyncFailed
from gpucloud.remote.agent.globs import stays_inside
from gpucloud.remote.streams import Reader

LINK: Final = "link:"
"""Begins what is expected of a symlink; its target follows."""

TEMPORARY: Final = ".gpucloud-"
"""Begins the name of a file that is not complete."""

_CHUNK: Final = 262_144
_BETWEEN: Final = 1_048_576
"""Bytes allowed between two files: more than any honest header with its long names and padding needs."""

_RANDOM_DIGITS: Final = 16
_END: Final = bytes(2 * tarfile.BLOCKSIZE)
_PERMISSIONS: Final = 0o777
_AGAIN: Final = "pull again; when it goes on, do not trust the host"
_REST: Final = "pull again to get the rest"


def unpack(
    stream: Reader,
    into: Path,
    expected: Mapping[str, str],
    *,
    limit_bytes: int | None = None,
    newer_than: datetime | None = None,
    beside: str = ".from-host",
) -> dict[str, str]:
    """Put the files and symlinks of one tar archive, or of several in a row, below the folder ``into``.

    ``expected`` maps paths with slashes to the SHA-256 in hex of a file, or to ``link:`` and the target of a
    symlink. What turns out otherwise is not put in place. A file that is there already with the right content
    is not touched. One that has other content and was changed after ``newer_than`` is kept, and the new one
    lies beside it with the suffix ``beside``. ``limit_bytes`` bounds the whole stream.

    Returns where each entry now lies, by its path in ``expected``; both are relative to ``into``. What did
    not come, or not with the right content, is missing there.

    Raises:
        SyncFailed: when the stream breaks off, is no archive or too long; when it holds what is not expected
            or is neither file nor symlink; when a path or a symlink leads out of ``into``; when a file cannot
            be written. What is in place by then stays.
    """
    _refuse_escapes(expected)
    source = _Source(stream, limit_bytes)
    placed = {}
    try:
        into.mkdir(parents=True, exist_ok=True)
        root = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(os.fspath(into), error) from error
    try:
        destination = _Destination(root, expected, newer_than, beside)
        for member, content in _members(source):
            path = member.name.removeprefix("./")
            if path not in expected:
                raise SyncFailed(
                    f"the host sent {path!r}, which it was not asked for",
                    why="only files whose checksums are known are accepted",
                    hint=_AGAIN,
                )
            if place := destination.put(path, member, content):
                placed[path] = place
    finally:
        os.close(root)
    return placed


def _refuse_escapes(expected: Mapping[str, str]) -> None:
    refused = [
        path
        for path, content in expected.items()
        if "\0" in path
        or {"", ".", ".."} & set(path.split("/"))
        or (content.startswith(LINK) and not stays_inside(path, content.removeprefix(LINK)))
    ]
    if refused:
        raise SyncFailed(
            f"what the host offers leads out of the folder: {', '.join(map(repr, sorted(refused)))}",
            why="a file or symlink may only lead to what is inside the folder it comes into",
            hint="leave it out of the outputs",
        )


class _Source(io.RawIOBase):
    """The stream, counted. tarfile believes the lengths in headers; here ends what it may read for them."""

    def __init__(self, stream: Reader, limit: int | None) -> None:
        super().__init__()
        self._stream = stream
        self._limit = limit
        self._allowed = 0
        self.end = b""

    def allow(self, size: int) -> None:
        """Set how many bytes may be read until this is called again."""
        self._allowed = size + _BETWEEN

    def read(self, size: int = _CHUNK, /) -> bytes:
        try:
            data = self._stream.read(size)
        except (OSError, EOFError) as error:
            raise SyncFailed("the transfer from the host broke off", why=str(error), hint=_REST) from error
        self._allowed -= len(data)
        if self._limit is not None:
            self._limit -= len(data)
        if self._allowed < 0 or (self._limit or 0) < 0:
            raise SyncFailed(
                "the host sends more than it announced", why="the stream is too long", hint=_AGAIN
            )
        self.end = (self.end + data)[-len(_END) :]
        return data


@contextmanager
def _readable() -> Iterator[None]:
    """Turn whatever tarfile makes of damaged or hostile bytes into one error."""
    try:
        yield
    except GpucloudError:
        raise
    except Exception as error:
        raise SyncFailed(
            "what the host sent is no readable archive", why=str(error) or type(error).__name__, hint=_AGAIN
        ) from error


def _members(source: _Source) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Yield what is in all archives of the stream; the content of each must be read before the next."""
    source.allow(0)
    with _readable(), tarfile.open(mode="r|", fileobj=source, bufsize=_CHUNK, ignore_zeros=True) as archive:
        while member := archive.next():
            # It would remember every member for as long as the archive lasts.
            archive.members.clear()  # type: ignore[attr-defined]
            if not (member.isreg() or member.issym()) or member.issparse():
                raise SyncFailed(
                    f"the host sent {member.name!r}, which is neither a plain file nor a symlink", hint=_AGAIN
                )
            source.allow(member.size)
            yield member, _chunks(archive.extractfile(member) if member.isreg() else None)
    if source.end != _END:
        raise SyncFailed("the transfer from the host broke off", why="the archive has no end", hint=_REST)


def _chunks(file: IO[bytes] | None) -> Iterator[bytes]:
    while file:
        with _readable():
            chunk = file.read(_CHUNK)
        if not chunk:
            break
        yield chunk


@dataclass(slots=True)
class _Destination:
    """The folder that files come into. Names are looked up from open folders, so no symlink is followed."""

    root: int
    expected: Mapping[str, str]
    newer_than: datetime | None
    beside: str
    _unswept: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        for path in self.expected:
            self._unswept[path.rpartition("/")[0]].add(_prefix(path))

    def put(self, path: str, member: tarfile.TarInfo, content: Iterator[bytes]) -> str | None:
        """Put one entry in place and return where, or ``None`` when it is not what was expected."""
        wanted = self.expected[path]
        try:
            with self._folder_of(path) as folder, _temporary(path, folder) as temporary:
                if member.issym():
                    if wanted != LINK + member.linkname:
                        return None
                    os.symlink(member.linkname, temporary, dir_fd=folder)
                elif _write(temporary, folder, member.mode & _PERMISSIONS, content) != wanted.lower():
                    return None
                return self._settle(path, temporary, folder)
        except OSError as error:
            raise _unwritable(path, error) from error

    def _settle(self, path: str, temporary: str, folder: int) -> str:
        """Move what is complete to where it belongs, unless somebody has been at work there."""
        name = path.rpartition("/")[2]
        with suppress(FileNotFoundError):
            present = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if _holds(name, folder, present.st_mode, self.expected[path]):
                return path
            if self.newer_than and present.st_mtime > self.newer_than.timestamp():
                path, name = path + self.beside, name + self.beside
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        return path

    @contextmanager
    def _folder_of(self, path: str) -> Iterator[int]:
        """Open the folder of ``path``, made where it is missing; every step must be a real folder."""
        parent, _, _ = path.rpartition("/")
        with ExitStack() as opened:
            folder = self.root
            for name in parent.split("/") if parent else ():
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                folder = os.open(name, flags, dir_fd=folder)
                opened.callback(os.close, folder)
            if ours := self._unswept.pop(parent, None):
                # An earlier attempt at these files may have been killed.
                with os.scandir(folder) as listing:
                    stale = [item.name for item in listing if item.name[:-_RANDOM_DIGITS] in ours]
                for name in stale:
                    os.unlink(name, dir_fd=folder)
            yield folder


def _prefix(path: str) -> str:
    name = path.rpartition("/")[2].encode(errors="surrogatepass")
    return f"{TEMPORARY}{hashlib.sha256(name).hexdigest()[:16]}-"


@contextmanager
def _temporary(path: str, folder: int) -> Iterator[str]:
    """Give a free name in ``folder``; whatever still has it at the end is removed."""
    name = _prefix(path) + secrets.token_hex(_RANDOM_DIGITS // 2)
    try:
        yield name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _write(name: str, folder: int, mode: int, content: Iterator[bytes]) -> str:
    """Write a new file and return the SHA-256 of what went into it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    digest = hashlib.sha256()
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
        for chunk in content:
            digest.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), mode)
    return digest.hexdigest()


def _holds(name: str, folder: int, mode: int, wanted: str) -> bool:
    """Tell whether what is there already is what is expected."""
    if stat.S_ISLNK(mode):
        return LINK + os.readlink(name, dir_fd=folder) == wanted
    if not stat.S_ISREG(mode):
        return False
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == wanted.lower()


def _unwritable(path: str, error: OSError) -> SyncFailed:
    return SyncFailed(
        f"{path!r} cannot be written",
        why=error.strerror or str(error),
        hint="make room for it, or move away what is in its place; then pull again",
    )
