"""How fast we start beside the command lines that people use now, side by side in one run.

Each is taken from the PATH, or from the folders in GPUCLOUD_BENCH_PEERS; those that are nowhere are left out.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.harness.timing import best_ratio, seconds

PEERS = {
    "aws": ["--version"],
    "vastai": ["--help"],
    "dstack": ["--help"],
    "sky": ["--help"],
}
FASTER = 4
LIMIT = 1 / FASTER


def installed() -> dict[str, list[str]]:
    """The peers that can be started here, each with what it is asked for."""
    path = os.pathsep.join([os.environ.get("GPUCLOUD_BENCH_PEERS", ""), os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=path) for name in PEERS}
    return {name: [program, *PEERS[name]] for name, program in found.items() if program}


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="none of them is installed here")
@pytest.mark.parametrize("ours", ["--version", "--help"])
def test_we_start_four_times_as_fast_as_the_fastest_of_them(tmp_path: Path, ours: str) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "dumb"}
    program = shutil.which("gpucloud")
    assert program
    fastest = min(installed().values(), key=lambda words: min(seconds(words, environ) for _ in range(2)))
    seconds([program, ours], environ)
    found = best_ratio(lambda: seconds([program, ours], environ), lambda: seconds(fastest, environ), LIMIT, 3)
    assert found <= LIMIT, f"{fastest[0]} is faster than that"
