"""A wide-area network in user space: carries IP packets between TUN devices and makes them late, few or none.

Stock kernels of test machines often lack netem, so the line is a program. It is a process of its own because
inside the test process the interpreter lock would distort every delay. It imports nothing but the standard
library, for it runs by path, outside the test environment::

    python wan.py CONTROL_FD CLIENT_FD ADDRESS=FD...

The control socket is an ``AF_UNIX`` packet socket: each message is one JSON object ``{"host": ADDRESS, ...}``
with fields of `Line` to set, answered ``ok``. The program ends when the other side closes that socket, so it
cannot outlive the test process.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_QUEUE_S = 0.5
"""A packet that would wait longer for a full line is dropped, as a router with a small buffer does."""

_BURST = 64
_PACKET_BYTES = 65535


@dataclass(slots=True)
class Line:
    """One host's line: what it does to each packet, the same both ways; ``rate_bytes_s`` 0 is unlimited."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    rate_bytes_s: float = 0.0
    down: bool = False
    _busy_until: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})

    def carry(self, size: int, *, entered: float, outward: bool) -> float | None:
        """When a packet of ``size`` bytes that ``entered`` then comes out again; ``None``: it is lost.

        Times are seconds of one monotonic clock. ``outward`` is towards the host; each way queues by itself.
        """
        if self.down or random.random() < self.loss:
            return None
        leaves = entered
        if self.rate_bytes_s:
            starts = max(entered, self._busy_until[outward])
            if starts - entered > MAX_QUEUE_S:
                return None
            leaves = self._busy_until[outward] = starts + size / self.rate_bytes_s
        late_ms = self.delay_ms + random.uniform(-self.jitter_ms, self.jitter_ms)
        return leaves + max(0.0, late_ms) / 1000


class Shuttle:
    """Moves packets between the client's TUN device and those of the hosts, by destination address."""

    def __init__(self, control: socket.socket, client: int, hosts: Mapping[bytes, int]) -> None:
        self._control = control
        self._client = client
        self._device = dict(hosts)
        self._address = {device: address for address, device in hosts.items()}
        self._lines = {address: Line() for address in hosts}
        self._on_the_way: list[tuple[float, int, int, tuple[Line, ...], bytes]] = []
        self._sent = 0
        self._poll = select.epoll()
        for descriptor in (control.fileno(), client, *self._address):
            self._poll.register(descriptor, select.EPOLLIN)

    def run(self) -> None:
        """Carry packets until the control socket is closed."""
        while True:
            now = time.monotonic()
            while self._on_the_way and self._on_the_way[0][0] <= now:
                _, _, device, lines, packet = heapq.heappop(self._on_the_way)
                self._deliver(device, lines, packet)
            wait = max(0.0, self._on_the_way[0][0] - now) if self._on_the_way else None
            for descriptor, event in self._poll.poll(wait):
                if descriptor == self._control.fileno():
                    if not self._obey():
                        return
                elif event & (select.EPOLLERR | select.EPOLLHUP):
                    # The host is gone and took the device with it.
                    self._poll.unregister(descriptor)
                else:
                    self._receive(descriptor)

    def _obey(self) -> bool:
        message = self._control.recv(_PACKET_BYTES)
        if not message:
            return False
        settings = json.loads(message)
        line = self._lines[socket.inet_aton(settings.pop("host"))]
        for name, value in settings.items():
            setattr(line, name, value)
        self._control.send(b"ok")
        return True

    def _receive(self, device: int) -> None:
        for _ in range(_BURST):
            try:
                packet = os.read(device, _PACKET_BYTES)
            except OSError:
                return
            if packet[0] >> 4 == 4:
                self._send(device, packet)

    def _send(self, source: int, packet: bytes) -> None:
        destination = packet[16:20]
        route = []
        if source != self._client:
            route.append((self._lines[self._address[source]], False))
        if destination in self._device:
            route.append((self._lines[destination], True))
        if not route:
            return
        due = time.monotonic()
        for line, outward in route:
            leaves = line.carry(len(packet), entered=due, outward=outward)
            if leaves is None:
                return
            due = leaves
        self._sent += 1
        device = self._device.get(destination, self._client)
        lines = tuple(line for line, _ in route)
        heapq.heappush(self._on_the_way, (due, self._sent, device, lines, packet))

    def _deliver(self, device: int, lines: tuple[Line, ...], packet: bytes) -> None:
        # A line that went down takes with it what was on the way; a host that is gone takes nothing more.
        if not any(line.down for line in lines):
            with contextlib.suppress(OSError):
                os.write(device, packet)


def main(arguments: list[str]) -> None:
    """Run the link on descriptors inherited from the test process."""
    hosts: dict[bytes, int] = {}
    for pair in arguments[2:]:
        address, _, descriptor = pair.partition("=")
        hosts[socket.inet_aton(address)] = int(descriptor)
    with socket.socket(fileno=int(arguments[0])) as control:
        Shuttle(control, int(arguments[1]), hosts).run()


if __name__ == "__main__":
    main(sys.argv[1:])
