"""``gpucloud providers new``: a skeleton that passes every check of a checkout from its first minute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpucloud.cli.scaffold import write_adapter
from gpucloud.errors import UsageError
from gpucloud.registry import names

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "providers/gpucloud_acme/__init__.py",
    "providers/gpucloud_acme/adapter.py",
    "providers/gpucloud_acme/api.py",
    "providers/gpucloud_acme/py.typed",
    "tests/providers/acme/test_acme.py",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What of a checkout an adapter is checked with."""
    folder = tmp_path / "checkout"
    (folder / "providers").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "gpucloud", folder / "gpucloud", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def run(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a tool in a checkout, with its own packages first."""
    path = os.pathsep.join([str(checkout), str(checkout / "providers")])
    environment = {**os.environ, "PYTHONPATH": path, "MYPYPATH": "", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_writes_a_package_and_its_test_and_nothing_else(checkout: Path) -> None:
    before = contents(checkout)
    written = write_adapter(checkout, "acme")
    after = contents(checkout)
    assert {str(file.relative_to(checkout)) for file in written} == FILES
    assert set(after) - set(before) == FILES
    assert {name: after[name] for name in before} == before


def test_what_it_writes_is_clean_by_the_projects_own_rules(checkout: Path) -> None:
    write_adapter(checkout, "acme")
    places = ("providers", "tests")
    for words in (("check", "--no-cache"), ("format", "--check", "--no-cache")):
        done = run(checkout, "ruff", *words, *places)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(checkout, "mypy", "--cache-dir", os.devnull, "--follow-imports=silent", *places)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_test_passes_with_all_that_is_not_written_as_expected_failures(checkout: Path) -> None:
    write_adapter(checkout, "acme")
    done = run(checkout, "pytest", "-p", "no:cacheprovider", "-q", "-rA", "tests/providers/acme")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    assert summary.startswith("6 passed, 18 skipped, 14 xfailed"), summary
    assert "failed," not in summary
    assert "error" not in summary


def test_a_verb_that_is_written_must_be_taken_out_of_the_deviations(checkout: Path) -> None:
    write_adapter(checkout, "acme")
    adapter = checkout / "providers" / "gpucloud_acme" / "adapter.py"
    unwritten = 'raise Unsupported("acme: terminate is not written yet", provider=self.name)'
    text = adapter.read_text()
    assert unwritten in text
    listing = 'raise Unsupported("acme: instances is not written yet", provider=self.name)'
    adapter.write_text(text.replace(unwritten, "return").replace(listing, "return ()"))
    done = run(checkout, "pytest", "-p", "no:cacheprovider", "-q", "tests/providers/acme")
    assert done.returncode == 1
    failures = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failures) == 1
    assert "test_terminate_of_a_missing_instance_succeeds" in failures[0]


def test_it_loads_once_it_has_its_line_in_the_registry(checkout: Path) -> None:
    write_adapter(checkout, "acme")
    registry = checkout / "gpucloud" / "registry.py"
    registry.write_text(
        registry.read_text().replace(
            '        "local":', '        "acme": "gpucloud_acme:Acme",\n        "local":'
        )
    )
    shutil.copytree(ROOT / "providers" / "gpucloud_local", checkout / "providers" / "gpucloud_local")
    program = "from gpucloud.registry import load; print(load('acme').__module__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'providers'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "gpucloud_acme.adapter\n", done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Acme",
        "a",
        "acme cloud",
        "acme-cloud",
        "acme_cloud",
        "1cloud",
        "../acme",
        "ac/me",
        "ümlaut",
        "a" * 22,
        "acme\n",
    ],
)
def test_a_name_that_is_not_one_lower_case_word_is_refused(checkout: Path, name: str) -> None:
    before = contents(checkout)
    with pytest.raises(UsageError, match="cannot be a provider") as caught:
        write_adapter(checkout, name)
    assert "one lower-case word" in caught.value.why
    assert contents(checkout) == before


@pytest.mark.parametrize(
    "name", ["none", "true", "false", "provider", "market", "offer", "traits", "kind", "path"]
)
def test_a_name_whose_class_would_hide_another_is_refused(checkout: Path, name: str) -> None:
    before = contents(checkout)
    with pytest.raises(UsageError, match="cannot be a provider") as caught:
        write_adapter(checkout, name)
    assert name.capitalize() in caught.value.why
    assert contents(checkout) == before


def test_a_name_that_pytest_would_take_for_a_test_is_refused(checkout: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a provider"):
        write_adapter(checkout, "testcloud")


@pytest.mark.parametrize("name", names())
def test_a_provider_that_exists_is_refused(checkout: Path, name: str) -> None:
    before = contents(checkout)
    with pytest.raises(UsageError, match=f"there is a provider '{name}' already"):
        write_adapter(checkout, name)
    assert contents(checkout) == before


@pytest.mark.parametrize("file", sorted(FILES))
def test_nothing_is_overwritten(checkout: Path, file: str) -> None:
    mine = checkout / file
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    before = contents(checkout)
    with pytest.raises(UsageError, match="already") as caught:
        write_adapter(checkout, "acme")
    assert "acme" in caught.value.why
    assert contents(checkout) == before


@pytest.mark.parametrize("missing", ["providers", "gpucloud"])
def test_what_is_no_checkout_is_left_alone(checkout: Path, missing: str) -> None:
    shutil.rmtree(checkout / missing)
    before = contents(checkout)
    with pytest.raises(UsageError, match="no checkout") as caught:
        write_adapter(checkout, "acme")
    assert str(checkout) in caught.value.why
    assert contents(checkout) == before


def test_the_command_says_what_to_do_next(checkout: Path, tmp_path: Path) -> None:
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-m", "gpucloud", "providers", "new", "acme"],
        cwd=checkout,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {str(Path(line).relative_to(checkout)) for line in done.stdout.splitlines()} == FILES
    assert '"acme": "gpucloud_acme:Acme",' in done.stderr
    assert "pytest tests/providers/acme" in done.stderr
