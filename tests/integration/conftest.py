"""What tests of pushing and pulling share: a machine, what of it they see, and a folder here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.synced import There, reached
from tests.providers.local.conftest import BOTH, a_provider
from tests.providers.rented import Rented, rented


@pytest.fixture(scope="module", params=BOTH)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rented]:
    """A local instance behind either SSH server."""
    folder = tmp_path_factory.mktemp("machine")
    with rented(a_provider(folder / "state", request.param), folder) as instance:
        yield instance


@pytest.fixture(autouse=True)
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine remembers of hosts is of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def there(machine: Rented) -> Iterator[There]:
    """Its host program."""
    with reached(machine) as there:
        yield there


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder
