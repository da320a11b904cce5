"""A terminal on a host for machines without an ``ssh`` of their own."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import Final

import paramiko

from gpucloud.remote.builtin import Builtin
from gpucloud.remote.streams import CHUNK

LOOK_S: Final = 0.25
"""How often the size of the window is looked at while nothing else happens."""

_ENDED: Final = (OSError, EOFError, paramiko.SSHException)
"""What a channel raises once the command is over; reading from it tells that, too."""


def interact(connection: Builtin, command: str) -> int:
    """Run ``command`` in a terminal on the host until it ends; returns its status.

    Needs a terminal here; every key, Ctrl-C too, goes to the host.

    Raises:
        HostUnreachable: when the connection is lost.
    """
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    size = os.get_terminal_size(keyboard)
    with connection.open_channel() as channel:
        connection.execute(channel, command, terminal=(os.environ.get("TERM", "xterm"), *size))
        channel.set_combine_stderr(True)
        try:
            tty.setraw(keyboard)
            _pass_on(channel, keyboard, size)
        finally:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        return connection.status(channel)


def _pass_on(channel: paramiko.Channel, keyboard: int, size: os.terminal_size) -> None:
    """Carry keys there and output here until the command ends."""
    sources: list[paramiko.Channel | int] = [channel, keyboard]
    while True:
        ready, _, _ = select.select(sources, [], [], LOOK_S)
        if channel in ready:
            data = channel.recv(CHUNK)
            if not data:
                return
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        if keyboard in ready:
            typed = os.read(keyboard, CHUNK)
            if not typed:
                sources.remove(keyboard)
            with suppress(*_ENDED):
                channel.sendall(typed)
        now = os.get_terminal_size(keyboard)
        if now != size:
            size = now
            with suppress(*_ENDED):
                channel.resize_pty(*size)
