"""The protocol of OpenSSH's ControlMaster: asking a running ``ssh`` for sessions on its connection.

Speaking it spares the start of another ``ssh`` per command. Open file descriptors are handed over, so that
the master itself reads and writes a command's pipes. All lengths are in bytes, all numbers big-endian; the
protocol is described in PROTOCOL.mux of OpenSSH, version 4, which is spoken since release 5.4.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

VERSION: Final = 4
ANSWER_S: Final = 3.0
"""How long a master on this machine may take for what it need not ask the host."""

LONGEST: Final = 262_144
"""No message is longer than this."""

_HELLO: Final = 0x00000001
_NEW_SESSION: Final = 0x10000002
_ALIVE_CHECK: Final = 0x10000004
_TERMINATE: Final = 0x10000005
_NEW_STDIO_FORWARD: Final = 0x10000008
_STOP_LISTENING: Final = 0x10000009
_OK: Final = 0x80000001
_PERMISSION_DENIED: Final = 0x80000002
_FAILURE: Final = 0x80000003
_EXIT_MESSAGE: Final = 0x80000004
_ALIVE: Final = 0x80000005
_SESSION_OPENED: Final = 0x80000006

_NO_ESCAPE: Final = 0xFFFFFFFF


class Gone(Exception):
    """There is no master behind the socket (any more)."""


class Denied(Exception):
    """The master, or the host, does not open it; the text says why."""


class Strange(Exception):
    """What answers does not speak the protocol that we know."""


class Control:
    """One connection to a master. Use as a context manager; what runs over it ends with it.

    Raises:
        Gone: from every method, when no master answers (in time).
        Strange: from every method, when it is none that we know.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._session = 0
        self._status: int | None = None
        try:
            self._socket.settimeout(ANSWER_S)
            self._socket.connect(str(path))
            self._send(_HELLO, VERSION)
            kind, message = self._receive()
        except OSError as error:
            self.close()
            raise Gone(str(error)) from error
        except BaseException:
            self.close()
            raise
        if kind != _HELLO or _number(message, 0) != VERSION:
            self.close()
            raise Strange(f"it says {kind:#x} in place of hello")

    def pid(self) -> int:
        """Ask whether the master is there; returns its process id. Of the host that says nothing."""
        self._send(_ALIVE_CHECK, 0)
        kind, message = self._receive()
        if kind != _ALIVE:
            raise Strange(f"it says {kind:#x} in place of alive")
        return _number(message, 4)

    def start(self, command: str, streams: Sequence[int]) -> None:
        """Ask for a session that runs ``command`` with three descriptors as its stdin, stdout and stderr.

        ``opened`` tells when it has begun.
        """
        # Request, reserved, then no terminal, X11, agent or subsystem.
        self._send(_NEW_SESSION, 0, b"", 0, 0, 0, 0, _NO_ESCAPE, b"", command.encode())
        self._hand_over(streams)

    def forward(self, target: tuple[str, int], streams: Sequence[int]) -> None:
        """Ask for a connection from the host to ``target``, with descriptors for both ways, out and back."""
        self._send(_NEW_STDIO_FORWARD, 0, b"", target[0].encode(), target[1])
        self._hand_over(streams)

    def opened(self, timeout_s: float) -> bool:
        """Whether what was asked for is open, which takes a round trip to the host; false if not yet.

        Raises:
            Denied: when it will not be.
        """
        from select import POLLIN, poll

        waiting = poll()
        waiting.register(self._socket, POLLIN)
        if not waiting.poll(timeout_s * 1000):
            return False
        kind, message = self._receive()
        if kind in (_FAILURE, _PERMISSION_DENIED):
            raise Denied(message[8:].decode("utf-8", "replace"))
        if kind != _SESSION_OPENED:
            raise Strange(f"it says {kind:#x} in place of opened")
        self._session = _number(message, 4)
        return True

    def fileno(self) -> int:
        """For ``poll``: there is something to read when a command is over, or has told its status."""
        return self._socket.fileno()

    @property
    def status(self) -> int | None:
        """The exit status of the command, as far as ``read_status`` has seen it."""
        return self._status

    def read_status(self) -> bool:
        """Take in one message about the command; false at the end of all."""
        self._socket.settimeout(None)
        try:
            kind, message = self._receive()
        except Gone:
            return False
        if kind == _EXIT_MESSAGE and _number(message, 0) == self._session:
            self._status = _number(message, 4)
        return True

    def wait_for_end(self) -> None:
        """Return when what runs over this is over."""
        while self.read_status():
            pass

    def stop_listening(self) -> None:
        """Let the master serve nobody new, and end when the last one has left."""
        self._send(_STOP_LISTENING, 0)
        self._receive()

    def terminate(self) -> None:
        """End the master, and all that runs over it."""
        self._send(_TERMINATE, 0)
        self._receive()

    def shutdown(self) -> None:
        """End what runs over this, from another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End what runs over this."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, kind: int, *fields: int | bytes) -> None:
        message = struct.pack(">I", kind) + b"".join(
            struct.pack(">I", field) if isinstance(field, int) else struct.pack(">I", len(field)) + field
            for field in fields
        )
        try:
            self._socket.sendall(struct.pack(">I", len(message)) + message)
        except OSError as error:
            raise Gone(str(error)) from error

    def _hand_over(self, descriptors: Sequence[int]) -> None:
        try:
            for descriptor in descriptors:
                socket.send_fds(self._socket, [b"\0"], [descriptor])
        except OSError as error:
            raise Gone(str(error)) from error

    def _receive(self) -> tuple[int, bytes]:
        length = _number(self._exactly(4), 0)
        if not 4 <= length <= LONGEST:
            raise Strange(f"a message of {length} bytes")
        message = self._exactly(length)
        return _number(message, 0), message[4:]

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = self._socket.recv(size - len(data))
            except OSError as error:
                raise Gone(str(error)) from error
            if not piece:
                raise Gone("it hung up")
            data += piece
        return data


def _number(message: bytes, offset: int) -> int:
    if len(message) < offset + 4:
        raise Strange("a message that is too short")
    return int(struct.unpack_from(">I", message, offset)[0])
