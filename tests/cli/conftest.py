"""The command line as a user has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cli import Cli, installation


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """A fresh installation for a fresh user."""
    with installation(tmp_path) as runner:
        yield runner
