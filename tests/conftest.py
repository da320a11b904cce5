"""What all tests share: tests that need more than Python are skipped, or failed where that is demanded."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.harness import needs
from tests.harness.host_sh import USERLANDS, HostSh, installed
from tests.harness.sshd import SshHost, openssh_host

# How long an example takes says nothing on a busy machine.
settings.register_profile("gpucloud", deadline=None)
settings.load_profile("gpucloud")


def pytest_configure(config: pytest.Config) -> None:
    """Hear every signal, and refuse a misspelt requirement, before any test runs."""
    # Whoever started the tests may ignore some, as nohup and "&" do; a shell below could not take that back.
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        needs.required(os.environ)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look at the machine before fixtures do, which would fail in less clear words."""
    for need, lack in needs.NEEDS.items():
        if item.get_closest_marker(f"needs_{need}"):
            needs.insist(need, lack(), os.environ)


@pytest.fixture
def ssh_host(tmp_path: Path) -> Iterator[SshHost]:
    """A real OpenSSH server on loopback; the test must be marked ``needs_sshd``."""
    with openssh_host(tmp_path / "ssh-host") as host:
        yield host


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.needs_busybox if name == "busybox" else ()) for name in USERLANDS
    ]
)
def host_sh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HostSh]:
    """The on-host program under each shell it has to work with."""
    with installed(tmp_path, request.param) as program:
        yield program


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user without any files; every folder that gpucloud uses is below it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable in [name for name in os.environ if name.startswith("GPUCLOUD_")]:
        monkeypatch.delenv(variable)
    return folder
