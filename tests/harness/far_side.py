"""Servers for the far end of a tunnel: each connection is handled by a function in a thread of its own."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def serving(handle: Callable[[socket.socket], object], *, port: int = 0) -> Iterator[int]:
    """A server on 127.0.0.1; yields its port. A connection is closed when ``handle`` returns."""
    with socket.create_server(("127.0.0.1", port), backlog=128) as server:
        thread = threading.Thread(target=_accept, args=(server, handle), daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(server: socket.socket, handle: Callable[[socket.socket], object]) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_handle, args=(client, handle), daemon=True).start()


def _handle(client: socket.socket, handle: Callable[[socket.socket], object]) -> None:
    # What happens to its connection is seen by the test at the other end.
    with client, suppress(OSError):
        handle(client)


def read_all(source: socket.socket) -> bytes:
    """All that comes until the other side ends its half."""
    pieces = []
    while data := source.recv(1 << 16):
        pieces.append(data)
    return b"".join(pieces)


def free_port() -> int:
    """A port of 127.0.0.1 at which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def sessions(server: int) -> list[int]:
    """The processes that serve the connections of the sshd ``server``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = entry.read_text().partition(" ")
            if rest.rpartition(")")[2].split()[1] == str(server):
                found.append(int(pid))
    return found


def cut(connections: Iterable[int]) -> None:
    """Kill these ``sessions``."""
    for pid in connections:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
