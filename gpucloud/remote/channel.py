"""The streams of one remote command in a channel of the built-in client."""

from __future__ import annotations

from collections.abc import Callable

import paramiko

from gpucloud.remote.streams import CHUNK, InputClosed


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


class ChannelWriter:
    """The input of a command; tells by an error of its own that the command reads no more."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def write(self, data: bytes, /) -> int:
        """Take all of ``data``. Raises ``InputClosed``."""
        try:
            self._channel.sendall(data)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise InputClosed from error
        return len(data)

    def close(self) -> None:
        """Let the command read the end. Raises ``InputClosed``."""
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise InputClosed from error
