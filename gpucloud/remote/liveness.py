"""Whether the other end of a connection is still there: it is asked, and has to say anything at all."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import paramiko

KEEPALIVE_S: Final = 15.0
DEAD_AFTER_S: Final = 45.0
"""A peer that has said nothing for so long is gone: three keepalives."""

_QUESTION: Final = "keepalive@openssh.com"


class Line:
    """A socket, or a channel through a jump host, that knows since when nothing has come."""

    def __init__(self, wire: socket.socket | paramiko.Channel) -> None:
        self._wire = wire
        self.heard_at = time.monotonic()

    def recv(self, size: int) -> bytes:
        """As of a socket."""
        data = self._wire.recv(size)
        self.heard_at = time.monotonic()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)


class Watch:
    """Ends a transport whose peer is gone, so that nobody waits for it for ever.

    TCP alone would not do: it knows neither a server that hangs nor what is dead behind a jump host.
    """

    def __init__(self, transport: paramiko.Transport, line: Line) -> None:
        self._transport = transport
        self._line = line
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="ssh-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more; returns when the thread has ended."""
        self._over.set()
        self._thread.join()

    def alive(self) -> bool:
        """Ask, and wait for the answer or the end of the connection."""
        import paramiko

        try:
            self._transport.global_request(_QUESTION, wait=True)
        except (OSError, EOFError, paramiko.SSHException):
            return False
        return self._transport.is_active()

    def _look_after(self) -> None:
        asking: threading.Thread | None = None
        while self._transport.is_active() and not self._over.wait(KEEPALIVE_S):
            if time.monotonic() - self._line.heard_at > DEAD_AFTER_S:
                self._transport.close()
            # Only silence counts: behind data on a slow line an answer may be late.
            elif asking is None or not asking.is_alive():
                asking = threading.Thread(target=self.alive, name="ssh-keepalive", daemon=True)
                asking.start()
