"""Local instances for tests, with either SSH server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpucloud.provider import ProviderSettings
from gpucloud_local import Local
from tests.providers.rented import Rented, rented

BOTH = ("asyncssh", pytest.param("openssh", marks=pytest.mark.needs_sshd))
"""Both SSH servers; the tests of one are the tests of the other."""


def a_provider(state: Path, sshd: str = "asyncssh") -> Local:
    """The provider with its folder at ``state``."""
    # Root's sshd insists on a folder that only a running system service would have made.
    if sshd == "openssh" and os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return Local(ProviderSettings("local", state, table={"sshd": sshd}))


@pytest.fixture(scope="module", params=BOTH)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rented]:
    """One instance for all tests of a module that only use it, with each server."""
    folder = tmp_path_factory.mktemp("machine")
    with rented(a_provider(folder / "state", request.param), folder) as instance:
        yield instance


@pytest.fixture
def local(tmp_path: Path) -> Local:
    """The provider with a folder of its own."""
    return a_provider(tmp_path / "state")
