"""A long line in user space, for kernels without netem: what goes in at one end comes out late at the other.

The ends are TUN devices. Unlike `tests.harness.wan`, which can lose and slow packets, it only makes them
late, and so is cheap enough not to be what a bench measures: the kernel hands it up to 64 KiB at once, still
uncut. A stream over it is as fast as its window lets it be. It is a process of its own and imports nothing
but the standard library, for it runs by path::

    python delay.py ONE_FD OTHER_FD

Each line on stdin is a number of seconds by which all is late from then on, answered by an empty line. It
ends with stdin, which is a pipe from whoever started it.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque
from typing import Final

_FRAME_BYTES: Final = 10 + 65535
"""A packet behind what the kernel says of it, a ``struct virtio_net_hdr``."""

_BURST: Final = 64


def carry(one: int, other: int) -> None:
    """Bring each frame from either device to the other, late and in order."""
    late_s = 0.0
    orders = sys.stdin.fileno()
    ways: dict[int, tuple[int, deque[tuple[float, bytes]]]] = {one: (other, deque()), other: (one, deque())}
    while True:
        wait: float | None = None
        for to, frames in ways.values():
            now = time.monotonic()
            while frames and frames[0][0] <= now:
                _deliver(to, frames.popleft()[1])
            if frames:
                left = max(0.0, frames[0][0] - time.monotonic())
                wait = left if wait is None else min(wait, left)
        # Of the calls that wait, this one knows the smallest part of a second.
        ready, _, _ = select.select([one, other, orders], [], [], wait)
        if orders in ready:
            said = os.read(orders, 64)
            if not said:
                return
            late_s = float(said)
            os.write(sys.stdout.fileno(), b"\n")
        for source in {one, other}.intersection(ready):
            _, frames = ways[source]
            due = time.monotonic() + late_s
            with contextlib.suppress(BlockingIOError):
                for _ in range(_BURST):
                    frames.append((due, os.read(source, _FRAME_BYTES)))


def _deliver(device: int, frame: bytes) -> None:
    # One that is not up, or no longer there, takes nothing.
    with contextlib.suppress(OSError):
        os.write(device, frame)


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]))
