"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(question: Callable[[], T], timeout_s: float = 20) -> T:
    """The first answer that is true; fails with the last one when there is none in time."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (answer := question()):
        assert time.monotonic() < deadline, f"still {answer!r} after {timeout_s} s"
        pause.wait(0.02)
    return answer
