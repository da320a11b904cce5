"""Times that mean something on a busy machine: medians, side by side with how long Python takes to start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import pexpect

ROUNDS = 5
RUNS = 7
PYTHON = [sys.executable, "-c", "pass"]


def seconds(words: list[str], environ: Mapping[str, str]) -> float:
    """How long a command takes, from its start to its end."""
    began = time.perf_counter()
    subprocess.run(words, env=environ, check=True, capture_output=True)
    return time.perf_counter() - began


def seconds_at_terminal(words: list[str], environ: Mapping[str, str]) -> float:
    """The same with a terminal of 50 lines to write to, until all is there to be read."""
    began = time.perf_counter()
    process: pexpect.spawn[bytes] = pexpect.spawn(
        words[0], words[1:], env={**environ, "TERM": "xterm-256color"}, dimensions=(50, 160), timeout=60
    )
    process.expect(pexpect.EOF)
    took = time.perf_counter() - began
    process.close()
    assert process.exitstatus == 0
    return took


def ratio(command: list[str], environ: Mapping[str, str], limit: float) -> float:
    """The median time of a command over that of Python; the best of some rounds, as soon as one will do."""
    seconds(command, environ)
    return best_ratio(lambda: seconds(command, environ), lambda: seconds(PYTHON, environ), limit)


def best_ratio(
    ours: Callable[[], float], theirs: Callable[[], float], limit: float, runs: int = RUNS
) -> float:
    """The median of some times over that of others taken between them; the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        pairs = [(ours(), theirs()) for _ in range(runs)]
        one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        best = min(best, one / other)
        if best <= limit:
            break
    return best
