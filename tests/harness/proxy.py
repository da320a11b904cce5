"""A line between a client and a server on this machine that can be cut, and moved to another port."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """Listens on a port of its own and carries what comes to ``target`` and back.

    ``carried`` counts the bytes that went to the client. With ``cut_each`` every connection is reset once so
    many went over it.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.carried = 0
        self.cut_each: int | None = None
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = self._listen()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def move(self) -> None:
        """Go to another port: the old one refuses connections, and those that are open are reset."""
        old, self._listener = self._listener, self._listen()
        _shut(old)
        self.cut()

    def cut(self) -> None:
        """Reset every open connection."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _shut(end)

    def close(self) -> None:
        """End all of it."""
        _shut(self._listener)
        self.cut()

    def _listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                server = socket.create_connection(self.target)
                with self._lock:
                    self._open |= {client, server}
                for source, sink, back in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._carry, args=(source, sink, back), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(65_536):
                if back and self.cut_each is not None and carried + len(data) > self.cut_each:
                    # In the middle of what came, as a real line is cut.
                    sink.sendall(data[: self.cut_each - carried])
                    break
                sink.sendall(data)
                if back:
                    carried += len(data)
                    self.carried += len(data)
        for end in (source, sink):
            _shut(end)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
