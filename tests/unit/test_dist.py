"""What is in the distributions: all that is needed, and nothing else at the top."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder


def test_the_wheel_brings_our_packages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {folder.name for folder in (ROOT / "providers").iterdir() if folder.is_dir()}
    top = {name.split("/")[0] for name in names}
    assert top - {"gpucloud", *packages} == {f"gpucloud-{wheel.name.split('-')[1]}.dist-info"}


def test_the_wheel_has_every_file_of_the_packages(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "gpucloud", "providers"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("this is no git checkout, so it is not known what belongs to it")
    files = {name.removeprefix("providers/") for name in tracked.stdout.splitlines()}
    assert files <= names
    assert "gpucloud/remote/host.sh" in names


def test_the_sdist_brings_what_the_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "completions/_gpucloud"} <= names
    assert "tests/conftest.py" in names
