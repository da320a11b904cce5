"""A connected socket of this machine in place of an SSH channel, so that others need not know of SSH."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from gpucloud.remote.ends import hung_up
from gpucloud.remote.streams import CHUNK

if TYPE_CHECKING:
    import paramiko

    from gpucloud.remote.mux import Control


def carry(channel: paramiko.Channel) -> socket.socket:
    """A socket that is what the channel is; two threads carry its bytes until both ways are closed."""
    near, far = socket.socketpair()

    def send() -> None:
        with suppress(OSError, EOFError):
            while data := far.recv(CHUNK):
                channel.sendall(data)
            channel.shutdown_write()
        hung_up(far)
        channel.close()

    sender = _thread(send)

    def receive() -> None:
        with channel, far:
            _pour(channel.recv, far)
            # It has no exit status: this returns when the channel is closed.
            channel.recv_exit_status()
            with suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
            sender.join()

    _thread(receive)
    return near


def carry_back(control: Control, far: socket.socket, pipe: int) -> None:
    """Serve a socket whose way out a master reads by itself: carry what it writes into ``pipe`` back.

    A master would not tell the end of its writes to a socket; closing its end of a pipe, it does.
    """

    def receive() -> None:
        with control, far:
            try:
                _pour(lambda size: os.read(pipe, size), far)
            finally:
                os.close(pipe)
            control.wait_for_end()

    _thread(receive)


def _pour(receive: Callable[[int], bytes], far: socket.socket) -> None:
    with suppress(OSError, EOFError):
        while data := receive(CHUNK):
            _send(far, data)
    with suppress(OSError):
        far.shutdown(socket.SHUT_WR)


def _send(far: socket.socket, data: bytes) -> None:
    from select import POLLOUT, poll

    room = poll()
    room.register(far, POLLOUT)
    left = memoryview(data)
    while left:
        # A master with which we share the socket makes it one that does not wait by itself.
        room.poll()
        with suppress(BlockingIOError):
            left = left[far.send(left) :]


def _thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, name="ssh-tunnel", daemon=True)
    thread.start()
    return thread
