"""Pushing and pulling beside rsync, side by side in one run: how it is measured is told in NOTES.md.

The big file is one of 128 MiB, and in full of 1 GiB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.bench import trees
from tests.bench.amount import FULL, at_length, in_full
from tests.bench.compare import COLUMNS, Contest, Kind, Measured, Row
from tests.bench.contenders import Command, Contender, Engine, Rsync
from tests.bench.report import Table
from tests.bench.sync_rig import Far, far_host
from tests.harness.timing import best_ratio

BIG = (1024 if FULL else 128) * trees.MIB
PEAK_MIB = 80
MANY = 1_000_000
MANY_PEAK_MIB = 400
FEW, FEW_COLD, FEW_WARM = 2_000, 4, 1
"""What is always run: so many files, and ratios that leave room for a busy machine."""


small_files = trees.small_files
big_file = partial(trees.big_file, size=BIG)
far_limits = {0: 0.8, 50: 0.25, 150: 0.2}
idle_limits = {0: 0.7, 50: 0.2, 150: 0.15}
NEAR = frozenset({0})
"""Where a process takes longer to start than it may take: NOTES.md has the floors."""

ROWS = {
    "small": Row(
        "20,000 small files, cold", Kind.COLD, small_files, {0: 0.75, 50: 0.5, 150: 0.4}, compresses=True
    ),
    "same": Row("nothing changed", Kind.WARM, small_files, idle_limits, alone=NEAR),
    "one": Row("one file changed", Kind.WARM, small_files, idle_limits, trees.change_one, alone=NEAR),
    "big": Row("big random file, cold", Kind.COLD, big_file, far_limits),
    "delta": Row(
        "1 MiB changed in the big file",
        Kind.WARM,
        big_file,
        dict.fromkeys((0, 50, 150), 0.6),
        trees.change_big,
    ),
    "pull": Row("pull of the big file", Kind.PULL, big_file, far_limits),
}
TABLE = Table(COLUMNS)

pytestmark = [pytest.mark.needs_netns, pytest.mark.needs_rsync]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Row], Path]:
    """What each row sends, written once."""
    made: dict[object, Path] = {}

    def written(row: Row) -> Path:
        if row.make not in made:
            made[row.make] = tmp_path_factory.mktemp("trees") / "tree"
            row.make(made[row.make])
        return made[row.make]

    return written


@pytest.fixture(scope="module", params=[True, False], ids=["python", "bare"])
def python(request: pytest.FixtureRequest) -> bool:
    """Whether the host has a Python."""
    return bool(request.param)


@pytest.fixture(scope="module", params=[0, 50, 150], ids="rtt{}".format)
def far(
    request: pytest.FixtureRequest, python: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Far]:
    """A host that many milliseconds away."""
    with far_host(request.param, tmp_path_factory.mktemp("far") / "host", python=python) as far:
        yield far


@at_length
@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_it_takes_so_much_of_what_rsync_takes(
    name: str,
    far: Far,
    python: bool,
    tree: Callable[[Row], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured = Contest(ROWS[name], far, tree(ROWS[name]), tmp_path, python).run()
    TABLE.add(measured.cells, capsys)
    ratio, limit, peak_mib = measured.ratio, measured.limit, measured.peak_mib
    assert ratio <= limit
    assert peak_mib <= PEAK_MIB


@in_full
@pytest.mark.slow
def test_a_million_files_fit_into_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.many_files(tmp_path / "tree", MANY)
    row = Row("1,000,000 files", Kind.COLD, trees.many_files, {0: math.inf})
    with far_host(0, tmp_path / "host") as far, Command(far) as ours, Rsync(far) as theirs:
        ours.disconnect()
        for name in ("1,000,000 files, cold", "1,000,000 files, nothing changed"):
            seconds = {each.name: each.push(tmp_path / "tree") for each in (ours, theirs)}
            peak_mib = (ours.peak_kib or 0) / 1024
            TABLE.add(
                Measured(Row(name, Kind.COLD, row.make, row.limits), 0, True, seconds, peak_mib).cells, capsys
            )
            assert peak_mib <= MANY_PEAK_MIB
        assert not trees.differences(tmp_path / "tree", ours.there)


def test_a_few_files_are_never_much_slower(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    trees.small_files(tree, FEW)

    def anew(contender: Contender) -> float:
        with contender:
            took = contender.push(tree)
            assert not trees.differences(tree, contender.there)
            return took

    with far_host(0, tmp_path / "host") as far:
        cold = best_ratio(lambda: anew(Engine(far)), lambda: anew(Rsync(far)), FEW_COLD, runs=1)
        with Engine(far) as ours, Rsync(far) as theirs:
            for contender in (ours, theirs):
                contender.push(tree)
            warm = best_ratio(partial(ours.push, tree), partial(theirs.push, tree), FEW_WARM, runs=3)
    assert cold <= FEW_COLD
    assert warm <= FEW_WARM
