"""The SSH server of a local instance, with asyncssh: needs nothing but Python."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import asyncssh

from gpucloud_local.api import write_private

CHUNK: Final = 65_536
NOT_STARTED: Final = 126
END_OF_INPUT: Final = b"\x04"

IN_TERMINAL: Final = ("/bin/sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1')
"""Runs a command in the terminal named first, which becomes its own as it is opened by a new session.

Python's way to do that, a function between fork and exec, may hang where there are threads.
"""

Process = asyncssh.SSHServerProcess[bytes]


class _Server(asyncssh.SSHServer):
    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """Let the user's tunnels and jumps through, as sshd does."""
        return True


class _Files(asyncssh.SFTPServer):
    def exit(self) -> None:
        """Report success: the system's scp takes a session without a status for one that failed."""
        self.channel.exit(0)


class _Screen(asyncio.StreamReaderProtocol):
    def connection_lost(self, exc: Exception | None) -> None:
        """On Linux the end of a terminal's output is an error, which would throw away what is unread."""
        super().connection_lost(None)


async def listen(folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Answer SSH on a free loopback port; returns the port and the public line of the host key."""
    file = folder / "host_key"
    if not file.exists():
        write_private(file, asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode())
    key = asyncssh.read_private_key(file)

    async def session(process: Process) -> None:
        try:
            await _run(process, folder / "home", {**environment, "SSH_CONNECTION": _ends(process)})
        except OSError as error:
            process.stderr.write(f"{error}\n".encode())
            process.exit(NOT_STARTED)

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=_Server,
        server_host_keys=[key],
        authorized_client_keys=str(folder / "authorized_keys"),
        process_factory=session,
        sftp_factory=_Files,
        allow_scp=True,
        encoding=None,
        keepalive_interval=30,
    )
    public = key.export_public_key().decode().split()
    return acceptor.get_port(), " ".join(public[:2])


def _ends(process: Process) -> str:
    """The connection of a session as sshd tells it: address and port of the client, then of the server."""
    ends = process.get_extra_info("peername"), process.get_extra_info("sockname")
    return " ".join(f"{address} {port}" for address, port, *_ in ends)


async def _run(process: Process, home: Path, environment: Mapping[str, str]) -> None:
    command = ["/bin/sh", "-c", process.command] if process.command else ["/bin/sh", "-l"]
    # A client without TERM asks for a terminal of no type.
    if process.term_type is not None:
        await _run_in_terminal(process, command, home, {**environment, "TERM": process.term_type})
        return
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=home,
        env=environment,
        start_new_session=True,
    )
    assert child.stdin and child.stdout and child.stderr
    feeding = asyncio.create_task(_feed(process, child.stdin, child.pid))
    output = asyncio.gather(_copy(child.stdout, process.stdout), _copy(child.stderr, process.stderr))
    await _finish(process, child, output)
    feeding.cancel()


async def _run_in_terminal(
    process: Process, command: list[str], home: Path, environment: Mapping[str, str]
) -> None:
    master, slave = pty.openpty()
    _resize(master, process.term_size)
    with os.fdopen(master, "rb", 0) as screen_end, os.fdopen(os.dup(master), "wb", 0) as keyboard_end:
        try:
            child = await asyncio.create_subprocess_exec(
                *IN_TERMINAL,
                os.ttyname(slave),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=slave,
                stderr=slave,
                cwd=home,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(slave)
        loop, screen = asyncio.get_running_loop(), asyncio.StreamReader()
        showing, _ = await loop.connect_read_pipe(lambda: _Screen(screen), screen_end)
        # A program that does not read must hold up nobody else, so this end is written to as it drains.
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), keyboard_end
        )
        keyboard = asyncio.StreamWriter(transport, protocol, None, loop)
        typing = asyncio.create_task(_feed(process, keyboard, child.pid, master))
        await _finish(process, child, asyncio.ensure_future(_copy(screen, process.stdout)))
        typing.cancel()
        transport.abort()
        # The loop must forget the descriptor before the next terminal gets the same number.
        showing.close()


async def _finish(process: Process, child: asyncio.subprocess.Process, output: asyncio.Future[Any]) -> None:
    """Report the command's status once all of its output is sent; hang up on it when the client has gone."""

    async def status() -> int:
        await output
        return await child.wait()

    ended, gone = asyncio.create_task(status()), asyncio.create_task(process.wait_closed())
    await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
    if ended.done() and not ended.exception():
        _exit(process, ended.result())
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGHUP)
        process.close()
    ended.cancel()
    gone.cancel()


async def _feed(process: Process, stdin: asyncio.StreamWriter, pid: int, terminal: int | None = None) -> None:
    """Pass on what the client sends: input, signals, the size of its window."""
    # Without these the command reads no more, or the client is gone, which is noticed elsewhere.
    with contextlib.suppress(OSError, asyncssh.Error):
        while True:
            try:
                data = await process.stdin.read(CHUNK)
            except asyncssh.SignalReceived as received:
                _signal(pid, received.signal)
            except asyncssh.TerminalSizeChanged as change:
                if terminal is not None:
                    _resize(terminal, change.term_size)
            except asyncssh.BreakReceived:
                continue
            else:
                if not data:
                    break
                stdin.write(data)
                await stdin.drain()
        if terminal is not None:
            stdin.write(END_OF_INPUT)
    if terminal is None:
        stdin.close()


async def _copy(source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> None:
    while data := await source.read(CHUNK):
        sink.write(data)
        await sink.drain()


def _signal(pid: int, name: str) -> None:
    with contextlib.suppress(KeyError, ProcessLookupError):
        os.killpg(pid, signal.Signals[f"SIG{name}"])


def _exit(process: Process, status: int) -> None:
    # A client takes an output that breaks off without its end for a connection that was lost.
    process.stdout.write_eof()
    if status >= 0:
        process.exit(status)
    elif -status in set(signal.Signals):
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:  # a real-time signal has no name; shells report it so
        process.exit(128 - status)


def _resize(terminal: int, size: tuple[Any, ...]) -> None:
    width, height, pixel_width, pixel_height = size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, pixel_width, pixel_height))
