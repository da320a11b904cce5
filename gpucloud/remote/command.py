"""The streams of one remote command whose other ends a master holds: pipes, served without threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from select import POLLIN, POLLOUT, poll
from types import TracebackType
from typing import Final, Self

from gpucloud.remote.mux import Control
from gpucloud.remote.streams import CHUNK, InputClosed, Worker, Writer, feed

ROOMY: Final = 524_288
"""The size of a pipe through which much goes, in bytes; the usual one is 65536."""


class Streams:
    """The three streams of a command. Use as a context manager; at its end the command is ended, too.

    ``theirs`` are the ends for the master: the command's stdin, stdout and stderr. ``read`` gives its
    output; meanwhile its input is fed, and ``complain`` gets what it writes to stderr. ``at_break`` is
    called when the output ends before the command has told its status.
    """

    def __init__(
        self,
        stdin: bytes | Callable[[Writer], object],
        complain: Callable[[bytes], object],
        at_break: Callable[[], object],
        *,
        roomy: bool,
    ) -> None:
        self._stdin = stdin
        self._complain = complain
        self._at_break = at_break
        self._open: set[int] = set()
        self._left = memoryview(b"")
        self._feeder: Worker | None = None
        self._control: Control | None = None
        self._poll = poll()
        self._in, into = self._inward() if stdin else (-1, self._kept(os.open(os.devnull, os.O_RDONLY)))
        self._out, out_of = self._pipe(roomy)
        self._err, complaints = self._pipe(roomy=False)
        self.theirs = (into, out_of, complaints)

    def _inward(self) -> tuple[int, int]:
        much = callable(self._stdin) or len(self._stdin) > CHUNK
        theirs, ours = self._pipe(much)
        return ours, theirs

    def _pipe(self, roomy: bool) -> tuple[int, int]:
        read, write = os.pipe()
        self._open |= {read, write}
        if roomy and sys.platform == "linux":
            import fcntl

            # Where the limit of all our pipes is reached it stays as it is.
            with suppress(OSError):
                fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, ROOMY)
        return read, write

    def _kept(self, descriptor: int) -> int:
        self._open.add(descriptor)
        return descriptor

    def begin(self, control: Control) -> None:
        """The command has begun: the master has its ends now."""
        self._control = control
        for descriptor in self.theirs:
            self._close(descriptor)
        self._poll.register(self._out, POLLIN)
        self._poll.register(self._err, POLLIN)
        if callable(self._stdin):
            self._open.remove(self._in)
            writer = _PipeWriter(self._in)

            def end() -> None:
                # In this order, so that what is cut off is not taken for whole.
                control.shutdown()
                writer.close()

            self._feeder = Worker(partial(feed, writer, self._stdin), end)
        elif self._stdin:
            os.set_blocking(self._in, False)
            self._left = memoryview(self._stdin)
            self._poll.register(self._in, POLLOUT)

    def read(self, size: int = CHUNK, /) -> bytes:
        """As of a file; what ``complain`` and ``at_break`` raise is raised here."""
        while self._out in self._open:
            if data := self._serve(size):
                return data
            if self._out not in self._open:
                self._at_break()
        return b""

    def finish(self, endless_stdin: bool) -> int | None:
        """Wait for the end of the command; returns its status, if it has one.

        With ``endless_stdin`` a function that gives it its input is not waited for.
        """
        while self._err in self._open:
            self._serve(CHUNK)
        assert self._control is not None
        self._control.wait_for_end()
        self._wait_for_feeder(endless_stdin)
        return self._control.status

    def _wait_for_feeder(self, endless_stdin: bool) -> None:
        if self._feeder is None:
            return
        if not endless_stdin:
            self._feeder.join()
        if self._feeder.error:
            raise self._feeder.error

    def _serve(self, size: int) -> bytes:
        """Wait until something can be done, and do it; returns output, if there is any."""
        output = b""
        for descriptor, _ in self._poll.poll():
            if descriptor == self._in:
                self._write()
            elif descriptor == self._out:
                output = self._take(descriptor, size)
            elif data := self._take(descriptor, CHUNK):
                self._complain(data)
        return output

    def _take(self, descriptor: int, size: int) -> bytes:
        data = os.read(descriptor, size)
        if not data:
            self._close(descriptor)
        return data

    def _write(self) -> None:
        try:
            self._left = self._left[os.write(self._in, self._left[:ROOMY]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The command reads no more of it, which is its own affair.
            self._left = self._left[:0]
        if not self._left:
            self._close(self._in)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            with suppress(KeyError):
                self._poll.unregister(descriptor)
            self._open.remove(descriptor)
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in list(self._open):
            self._close(descriptor)


class _PipeWriter:
    """The input of a command, for a thread of its own; tells when the command reads no more."""

    def __init__(self, descriptor: int) -> None:
        self._file = open(descriptor, "wb", buffering=0)  # noqa: SIM115 - it outlives this function

    def write(self, data: bytes, /) -> int:
        """Take all of ``data``. Raises ``InputClosed``."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BrokenPipeError as error:
            self._file.close()
            raise InputClosed from error
        return len(data)

    def close(self) -> None:
        """Let the command read the end."""
        self._file.close()
