"""A host that is a folder of this machine, reached through pipes: for tests of many short conversations."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from gpucloud.errors import HostUnreachable
from gpucloud.model import SshAddress
from gpucloud.remote.connection import Completed, Connection, Endpoint
from gpucloud.remote.host import Host
from gpucloud.remote.streams import Reader, Writer


class _Cut:
    """A stream that breaks off after so many bytes."""

    def __init__(self, stream: IO[bytes], pipes: Pipes) -> None:
        self._stream = stream
        self._pipes = pipes

    def read(self, size: int = 65_536, /) -> bytes:
        pipes = self._pipes
        if pipes.cut_after is not None:
            if pipes.passed >= pipes.cut_after:
                raise HostUnreachable("it broke off")
            size = min(size, pipes.cut_after - pipes.passed)
        data = os.read(self._stream.fileno(), size)
        pipes.passed += len(data)
        return data


class _Writer:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, data: bytes, /) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except (BrokenPipeError, ValueError) as error:
            raise _Closed from error


class _Closed(Exception):
    """The command reads no more."""


@dataclass
class Pipes:
    """Stands for a connection. ``passed`` counts what came; after ``cut_after`` bytes the rest does not."""

    home: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cut_after: int | None = None
    passed: int = 0
    lanes: int = 0
    endpoint: Endpoint = field(
        default_factory=lambda: Endpoint(SshAddress("localhost", 22, "me"), Path("key"), "it")
    )

    def run(
        self,
        command: str,
        *,
        stdin: bytes | Callable[[Writer], object] = b"",
        stdout: Callable[[bytes], object] | None = None,
        stderr: Callable[[bytes], object] | None = None,
        consume: Callable[[Reader], object] | None = None,
        endless_stdin: bool = False,
    ) -> Completed:
        """As of a connection."""
        del endless_stdin
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.home,
            env={**self.environ, "HOME": str(self.home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin and process.stdout and process.stderr
        out: list[bytes] = []
        err: list[bytes] = []
        threads = [
            threading.Thread(target=_feed, args=(process.stdin, stdin)),
            threading.Thread(target=_drain, args=(process.stderr, stderr or err.append)),
        ]
        for thread in threads:
            thread.start()
        stream = _Cut(process.stdout, self)
        try:
            if consume:
                consume(stream)
            while data := stream.read():
                (stdout or out.append)(data)
        except BaseException:
            process.kill()
            raise
        finally:
            process.stdout.close()
            for thread in threads:
                thread.join()
            process.stderr.close()
            status = process.wait()
        return Completed(status if status >= 0 else 255, b"".join(out), b"".join(err))

    def extra(self, lane: int) -> Pipes:
        """One more of them."""
        self.lanes = max(self.lanes, lane)
        return Pipes(self.home, self.environ)

    def close(self) -> None:
        """There is nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _feed(stream: IO[bytes], stdin: bytes | Callable[[Writer], object]) -> None:
    try:
        if callable(stdin):
            stdin(_Writer(stream))
        else:
            _Writer(stream).write(stdin)
    except _Closed:
        pass
    finally:
        with suppress(BrokenPipeError):
            stream.close()


def _drain(stream: IO[bytes], sink: Callable[[bytes], Any]) -> None:
    while data := os.read(stream.fileno(), 65_536):
        sink(data)


@dataclass(frozen=True)
class Nearby:
    """The host, its working directory, and the pipes to it."""

    host: Host
    work: Path
    pipes: Pipes


def nearby(home: Path, environ: Mapping[str, str] | None = None) -> Nearby:
    """A host with its program, but no jobs."""
    root = home / ".gpucloud" / "gc-near"
    work = root / "work"
    work.mkdir(parents=True)
    (root / "sent").mkdir()
    program = files("gpucloud.remote").joinpath("host.sh").read_bytes()
    (root / "host.sh").write_bytes(program)
    pipes = Pipes(home, dict(environ or os.environ))
    return Nearby(Host(cast(Connection, pipes), "gc-near"), work, pipes)
