"""More connections to one host, where one alone does not carry what the link could."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Final

from gpucloud.errors import GpucloudError
from gpucloud.remote.agent.frames import Broken, Frames
from gpucloud.remote.host import Host
from gpucloud.remote.segments import SEGMENT, Lane, Segments
from gpucloud.remote.session import converse

log = logging.getLogger(__name__)

NEAR_S: Final = 0.02
"""On a link that answers faster it is the processors that limit, not the window of a connection."""

FEW: Final = 2
MANY: Final = 8


class Lanes:
    """The connections besides the first; each brings segments until there are none left."""

    def __init__(self, host: Host, modules: Sequence[str], segments: Segments) -> None:
        self.decided = False
        self._host = host
        self._modules = modules
        self._segments = segments
        self._threads: list[threading.Thread] = []
        self._open: dict[int, Host] = {}
        self._lock = threading.Lock()
        self._ending = False

    def decide(self, size: int, answered_s: float) -> None:
        """Open as many as so many bytes are worth on a link that has answered within that time."""
        self.decided = True
        most = FEW if answered_s < NEAR_S else MANY
        for number in range(1, min(most, size // (2 * SEGMENT))):
            thread = threading.Thread(target=self._serve, args=(number,), name="pull-lane", daemon=True)
            thread.start()
            self._threads.append(thread)

    def wait(self) -> None:
        """Return when all of them have ended."""
        for thread in self._threads:
            thread.join()

    def end(self) -> None:
        """Break off what is still going on."""
        with self._lock:
            self._ending = True
            hosts = list(self._open.values())
        for host in hosts:
            host.connection.close()
        self.wait()

    def _serve(self, number: int) -> None:
        try:
            host = self._host.extra(number)
            with host.connection:
                with self._lock:
                    if self._ending:
                        return
                    self._open[number] = host
                try:
                    converse(host, self._modules, (), _Talk(self._segments))
                finally:
                    with self._lock:
                        del self._open[number]
        except (GpucloudError, OSError) as error:
            # A host may allow only so many. What matters is met on the first connection, too.
            log.debug("lane %d: %s", number, error)


class _Talk:
    """Asks for segments until there are none left."""

    def __init__(self, segments: Segments) -> None:
        self._questions: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        self._lane = Lane(segments, lambda kind, data: self._questions.put((kind, data)))

    def talk(self, frames: Frames, /) -> None:
        while question := self._questions.get():
            frames.send(*question)

    def hang_up(self) -> None:
        self._questions.put(None)

    def listen(self, frames: Frames, /) -> None:
        greeted = False
        try:
            self._lane.ask_more()
            while self._lane.asked:
                kind, data = frames.receive()
                if kind == b"P" and not greeted:
                    greeted = True
                    self._questions.put((b"P", b""))
                elif not kind:
                    raise Broken("it ended too early")
                else:
                    self._lane.take(kind, data)
        finally:
            self._lane.give_up()
