"""``gpucloud providers cleanup``: what launches share is listed, and deleted by who asks for it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness.cli import Cli
from tests.harness.plugins import write_plugin

ACME = """
from pathlib import Path

from gpucloud.errors import Rejected
from gpucloud.model import InstanceRef, SideResource
from gpucloud_local import Local


class Acme(Local):
    name = "acme"

    @property
    def _file(self):
        return Path(self.settings.table["file"])

    def shared_resources(self):
        for line in self._file.read_text().split():
            yield SideResource(self.name, "network", InstanceRef(line, "eu"))

    def remove_shared(self, resource):
        if resource.ref.id == "busy":
            raise Rejected("acme: busy is in use", provider=self.name)
        left = [line for line in self._file.read_text().split() if line != resource.ref.id]
        self._file.write_text("\\n".join(left))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What acme has."""
    kept = tmp_path / "kept"
    kept.write_text("one\ntwo")
    return kept


@pytest.fixture
def cli(cli: Cli, tmp_path: Path, file: Path) -> Cli:
    """An installation with acme."""
    write_plugin(tmp_path / "plugins", "acme", ACME)
    path = os.pathsep.join(filter(None, (str(tmp_path / "plugins"), cli.environ.get("PYTHONPATH"))))
    return replace(cli, environ={**cli.environ, "PYTHONPATH": path, "GPUCLOUD_ACME_FILE": str(file)})


def test_it_is_listed_and_nothing_is_deleted_without_consent(cli: Cli, file: Path) -> None:
    done = cli("providers", "cleanup", "acme")
    assert done.code == 2
    assert done.out == "network\tone\teu\nnetwork\ttwo\teu\n"
    assert file.read_text() == "one\ntwo"


def test_a_rehearsal_needs_no_consent(cli: Cli, file: Path) -> None:
    done = cli("providers", "cleanup", "acme", "--dry-run", "--json")
    assert done.code == 0
    told = json.loads(done.out)
    assert (told["schema"], told["deleted"]) == ("gpucloud.providers-cleanup/1", False)
    assert [each["id"] for each in told["resources"]] == ["one", "two"]
    assert file.read_text() == "one\ntwo"


def test_with_consent_all_of_it_is_deleted_and_again_there_is_nothing_to_do(cli: Cli, file: Path) -> None:
    assert cli("providers", "cleanup", "acme", "--yes").code == 0
    assert file.read_text() == ""
    assert cli("providers", "cleanup", "acme").code == 0


def test_what_is_in_use_stays_and_is_told(cli: Cli, file: Path) -> None:
    file.write_text("one\nbusy\ntwo")
    done = cli("providers", "cleanup", "acme", "--yes")
    assert done.code != 0
    assert "busy is in use" in done.err
    assert file.read_text().split() == ["busy", "two"]


def test_who_keeps_nothing_is_told_so(cli: Cli) -> None:
    assert cli("providers", "cleanup", "local").code == 3
