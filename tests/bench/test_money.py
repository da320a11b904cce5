"""The caps under many launches at once, again and again: ``GPUCLOUD_BENCH_ROUNDS`` says how often."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness.launchers import launch_at_once, launchers

ROUNDS = int(os.environ.get("GPUCLOUD_BENCH_ROUNDS", "2"))
PROCESSES = 50


@pytest.mark.slow
def test_fifty_launches_at_once_never_pass_a_cap_together(tmp_path: Path) -> None:
    allowed = 7
    with launchers(PROCESSES, allowed, tmp_path) as processes:
        for number in range(ROUNDS):
            launch_at_once(processes, tmp_path / str(number), allowed)
