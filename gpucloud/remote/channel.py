"""The streams of one remote command, and the threads that serve them so that neither side waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

import paramiko

from gpucloud.remote.streams import Reader, Writer

log = logging.getLogger(__name__)

CHUNK: Final = 65_536


class ChannelReader:
    """An output of a command. ``at_break`` is called when it ends without the host having said so."""

    def __init__(
        self,
        channel: paramiko.Channel,
        receive: Callable[[int], bytes],
        at_break: Callable[[], object] | None = None,
    ) -> None:
        self._channel = channel
        self._receive = receive
        self._at_break = at_break

    def read(self, size: int = CHUNK, /) -> bytes:
        """As of a file; what ``at_break`` raises is raised here."""
        try:
            data = self._receive(size)
        except OSError:
            data = b""
        if not data and self._at_break and not self._channel.eof_received:
            self._at_break()
        return data


class Worker(threading.Thread):
    """Serves one stream of a command; keeps what went wrong with it, and then ends the command."""

    def __init__(self, channel: paramiko.Channel, work: Callable[[], object]) -> None:
        super().__init__(name="ssh-stream", daemon=True)
        self.error: BaseException | None = None
        self._channel = channel
        self._work = work
        self.start()

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error
            self._channel.close()


def feed(channel: paramiko.Channel, stdin: bytes | Callable[[Writer], object]) -> None:
    """Give a command its input; one that reads no more of it is no failure."""
    writer = _ChannelWriter(channel)
    try:
        if callable(stdin):
            stdin(writer)
        elif stdin:
            writer.write(stdin)
        writer.close()
    except _InputClosed:
        log.debug("the command on %s closed its input early", channel)


def drain(reader: Reader, sink: Callable[[bytes], object]) -> None:
    """Hand all of a stream on to ``sink``, piece by piece."""
    while data := reader.read():
        sink(data)


class _ChannelWriter:
    """The input of a command; tells by an error of its own that the command reads no more."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def write(self, data: bytes, /) -> int:
        try:
            self._channel.sendall(data)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise _InputClosed from error
        return len(data)

    def close(self) -> None:
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise _InputClosed from error


class _InputClosed(Exception):
    """The command closed its input early. No OSError, so that it is told from failures of local files."""
