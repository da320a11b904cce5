"""The OpenSSH client: a master process holds the connection, and every command of ours shares it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from gpucloud.errors import HostUnreachable
from gpucloud.remote import sockets
from gpucloud.remote.command import Streams
from gpucloud.remote.connection import (
    KILLED,
    Completed,
    Connection,
    Endpoint,
    Incompatible,
    lost,
    no_way,
    unreachable,
)
from gpucloud.remote.liveness import DEAD_AFTER_S
from gpucloud.remote.mux import Control, Denied, Gone, Strange
from gpucloud.remote.streams import Reader, Writer, drain
from gpucloud.remote.tunnel import carry_back

PRIVATE_S: Final = 10
"""How long a master that nobody shares outlives whoever it was made for, when that was killed."""

SPARE: Final = -1
"""The lane of a connection that is made because there is no room for a session on another."""

NOWHERE: Final = ("127.0.0.1", 1)
PATIENCE_S: Final = 2.0
LOOK_S: Final = 0.5


class Multiplexed(Connection):
    """A connection of OpenSSH's, shared by commands one after the other and at the same time.

    It keeps a line to the master open, so that the master stays as long as this object, and does not stay
    much longer than a process that was killed.

    Raises:
        HostUnreachable: from every method, when there is no connection (any more).
        HostKeyChanged: from the constructor, when the host shows another key than the pinned one.
        RemoteError: from the constructor, when the host refuses our key.
        Incompatible: from the constructor, when OpenSSH cannot do it.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float, persist_s: int, lane: int = 0) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._persist_s = persist_s
        self._lane = lane
        self._asking = threading.Lock()
        self.jump: Multiplexed | None = (
            Multiplexed(endpoint.jump, timeout_s=timeout_s, persist_s=persist_s) if endpoint.jump else None
        )
        try:
            self._reach()
        except (Strange, OSError) as error:
            self._leave()
            raise Incompatible(str(error)) from error
        except BaseException:
            self._leave()
            raise

    def _reach(self) -> None:
        """Take part in the shared connection, or make it."""
        deadline = time.monotonic() + self._timeout_s
        if not self._persist_s or not self.endpoint.pinned:
            self._begin(deadline)
            if self._persist_s:
                with self._locked(deadline):
                    self._publish()
            return
        self.host_key = " ".join(self.endpoint.pinned.split()[:2])
        if self._join():
            return
        with self._locked(deadline):
            if not self._join():
                self._begin(deadline)
                self._publish()

    def _locked(self, deadline: float) -> ExitStack:
        stack = ExitStack()
        try:
            stack.enter_context(sockets.locked(self._shared, deadline))
        except TimeoutError as error:
            raise unreachable(self.endpoint, "another command is still connecting") from error
        return stack

    @property
    def pinned(self) -> Endpoint:
        """The endpoint with the host key that was shown, also of the jump host."""
        return replace(self.endpoint, pinned=self.host_key, jump=self.jump.pinned if self.jump else None)

    @property
    def _shared(self) -> Path:
        return sockets.shared(self.pinned, self._lane)

    def _join(self) -> bool:
        """Take part in the shared connection, if there is one."""
        path = self._shared
        try:
            self._hold(path)
        except Gone:
            return False
        self._proven = False
        return True

    def _hold(self, path: Path) -> None:
        """Keep the master at ``path`` from ending. Raises ``Gone``."""
        lease = Control(path)
        try:
            self._pid = lease.pid()
        except BaseException:
            lease.close()
            raise
        self._lease, self._path = lease, path

    def _begin(self, deadline: float) -> None:
        """Make a connection that is nobody else's yet."""
        from gpucloud.remote.master import start

        path, self.host_key = start(
            self.endpoint,
            self.jump._path if self.jump else None,
            timeout_s=max(0.0, deadline - time.monotonic()),
            persist_s=self._persist_s or PRIVATE_S,
        )
        try:
            self._hold(path)
        except Gone as error:
            raise lost(self.endpoint, "it hung up") from error
        self._proven = True

    def _publish(self) -> None:
        """Let later commands find the connection; who uses an older one goes on with that."""
        with suppress(Gone), Control(self._shared) as old:
            old.stop_listening()
        self._path = self._path.rename(self._shared)

    def _renew(self) -> None:
        """Make the shared connection anew: what was found there is dead."""
        self._lease.close()
        deadline = time.monotonic() + self._timeout_s
        with self._locked(deadline):
            # Another command may have done it meanwhile.
            if not self._join() or self._silent():
                self._begin(deadline)
                self._publish()

    def run(
        self,
        command: str,
        *,
        stdin: bytes | Callable[[Writer], object] = b"",
        stdout: Callable[[bytes], object] | None = None,
        stderr: Callable[[bytes], object] | None = None,
        consume: Callable[[Reader], object] | None = None,
        endless_stdin: bool = False,
    ) -> Completed:
        """As described by ``Connection``."""
        out: list[bytes] = []
        err: list[bytes] = []
        with ExitStack() as stack:
            streams = Streams(stdin, stderr or err.append, self._still_there, roomy=consume is not None)
            stack.enter_context(streams)
            try:
                control = self._ask(lambda control: control.start(command, streams.theirs))
            except Denied as refusal:
                # As many sessions are open on this connection as the host allows on one.
                if self._lane == SPARE:
                    raise lost(self.endpoint, str(refusal)) from refusal
                other = stack.enter_context(self.extra(SPARE))
                return other.run(
                    command,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    consume=consume,
                    endless_stdin=endless_stdin,
                )
            stack.enter_context(control)
            streams.begin(control)
            if consume:
                consume(streams)
            drain(streams, stdout or out.append)
            status = streams.finish(endless_stdin)
        if status is None:
            self._still_there()
            status = KILLED
        return Completed(status, b"".join(out), b"".join(err))

    def _ask(self, ask: Callable[[Control], None]) -> Control:
        """Ask the master for something, and wait until it is open. Raises ``Denied``."""
        try:
            return self._asked(ask)
        except Gone as error:
            if self._proven:
                raise self._lost() from error
        self._renew()
        try:
            return self._asked(ask)
        except Gone as error:
            raise self._lost() from error

    def _asked(self, ask: Callable[[Control], None]) -> Control:
        control = Control(self._path)
        try:
            ask(control)
            began = time.monotonic()
            longest = DEAD_AFTER_S if self._proven else self._timeout_s
            while not control.opened(LOOK_S):
                waited = time.monotonic() - began
                if waited > longest or (waited > PATIENCE_S and self._silent()):
                    # Else it might still run the command later.
                    self._kill()
                    raise Gone("it does not answer")
        except BaseException:
            control.close()
            raise
        self._proven = True
        return control

    def _silent(self) -> bool:
        from gpucloud.remote.master import silent

        return silent(self._pid) or (self.jump is not None and self.jump._silent())

    def _kill(self) -> None:
        with suppress(Gone, Strange, ProcessLookupError), Control(self._path) as control:
            os.kill(control.pid(), signal.SIGKILL)

    def _still_there(self) -> None:
        """Return when the master has not ended. Raises ``HostUnreachable``."""
        try:
            with self._asking:
                self._lease.pid()
        except (Gone, Strange) as error:
            raise self._lost() from error

    def _lost(self) -> HostUnreachable:
        return lost(self.endpoint, "it hung up")

    def interact(self, command: str) -> int:
        """As described by ``Connection``."""
        from gpucloud.remote.master import interactive

        status = interactive(self._path, command)
        if status == KILLED:
            self._still_there()
        return status

    def through(self, target: tuple[str, int]) -> socket.socket:
        """As described by ``Connection``."""
        try:
            return self._forwarded(target)
        except Denied as refusal:
            raise no_way(self.endpoint, target, str(refusal)) from refusal

    def _forwarded(self, target: tuple[str, int]) -> socket.socket:
        near, far = socket.socketpair()
        back, there = os.pipe()
        try:
            control = self._ask(lambda control: control.forward(target, (far.fileno(), there)))
        except BaseException:
            near.close()
            far.close()
            os.close(back)
            raise
        finally:
            os.close(there)
        carry_back(control, far, back)
        return near

    def extra(self, lane: int) -> Connection:
        """As described by ``Connection``."""
        return Multiplexed(
            self.pinned,
            timeout_s=self._timeout_s,
            persist_s=0 if lane == SPARE else self._persist_s,
            lane=lane,
        )

    def check(self) -> None:
        """As described by ``Connection``."""
        # The answer is no nearly always; any is good, and costs one round trip and no process there.
        with suppress(Denied):
            self._forwarded(NOWHERE).close()

    def close(self) -> None:
        """As described by ``Connection``; a shared connection stays for later commands."""
        if not self._persist_s:
            with suppress(Gone, Strange), Control(self._path) as control:
                control.terminate()
        self._leave()

    def _leave(self) -> None:
        lease: Control | None = getattr(self, "_lease", None)
        if lease:
            lease.close()
        if self.jump:
            self.jump.close()
