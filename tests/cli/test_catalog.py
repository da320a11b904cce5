"""``gpucloud catalog``: the price list is checked where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpucloud
from gpucloud.catalog import prices
from tests.harness.cli import Cli


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A program whose price list has lost the source of one line and the past of another."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(Path(gpucloud.__file__).parent, copy / "gpucloud")
    file = copy / "gpucloud" / "catalog" / "prices.csv"
    first, second, *_ = prices.rows()
    text = file.read_text().replace(first.source, "", 1).replace(f",{second.as_of},", ",2999-01-01,", 1)
    file.write_text(text)
    return copy


def check(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", "from gpucloud.cli import main; main()", "catalog", "check", *words],
        env={**os.environ, "PYTHONPATH": str(program)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_list_that_ships_is_sound(cli: Cli) -> None:
    done = cli.ok("catalog", "check")
    rows = prices.rows()
    assert done.out == f"{len(rows)} prices, {len({row.gpu for row in rows})} GPUs: no problem\n"
    assert done.err == ""


def test_as_json_it_is_one_document(cli: Cli) -> None:
    body = cli.ok("catalog", "check", "--json").json
    assert body.pop("prices") == len(prices.rows())
    assert body.pop("gpus") > 20
    assert body == {"schema": "gpucloud.catalog/1", "problems": [], "failures": []}


def test_each_problem_is_a_line_and_the_status_is_1(broken: Path) -> None:
    done = check(broken)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("the source is missing")
    assert lines[1].endswith("is of the future")


def test_problems_in_json_keep_the_status(broken: Path) -> None:
    done = check(broken, "--json")
    assert done.returncode == 1, done.stderr
    assert len(json.loads(done.stdout)["problems"]) == 2


def test_help_says_what_is_there_and_how(cli: Cli) -> None:
    assert "check" in cli.ok("catalog", "--help").out
    assert "Example: gpucloud catalog check" in cli.ok("catalog", "check", "--help").out


def test_a_misspelt_word_gets_a_suggestion(cli: Cli) -> None:
    done = cli("catalog", "chek")
    assert done.code == 2
    assert "did you mean 'check'" in done.err
