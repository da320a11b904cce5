"""Live offers of the three clouds: a new process and home, nothing remembered, each reply 100 ms away.

The sizes are those of ``tests.bench.clouds``. Everything is asked for: who names regions or providers
waits for less.

What importing an SDK costs, as so many starts of Python: boto3 42, google-cloud-compute 225,
azure-mgmt-compute 26, azure-identity 24 (2026-11-21, the best of five on a busy virtual machine with two
x86-64 cores, Python 3.11). Live offers need azure-identity, and of Amazon's what signs requests; the others
are for changes. A command that asks no cloud loads none of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from gpucloud.catalog.cache import Cache, SourceKind
from gpucloud.catalog.where import Condition
from gpucloud.model import Market
from tests.bench.clouds.rig import Address, configure, serving
from tests.harness.timing import PYTHON, best_ratio, seconds

NAMES: Final = ("aws", "gcp", "azure")
IN_UNITS_OF_PYTHON: Final = 600
"""What 6 seconds are on a machine where Python takes 10 milliseconds to start."""

ALONE: Final = {"aws": 400, "gcp": 350, "azure": 250}
"""How many it may take to ask each alone, so that it shows which has become slower."""

MIB: Final = 300
LISTED: Final = 1_000
"""Sizes that Azure lists in a region: 2 MB, the least that Microsoft says it is now."""

FEWEST: Final = {"aws": 15_000, "gcp": 3_500, "azure": 3_500}
"""How many offers there are at least when nothing was left out."""

SDKS: Final = {"boto3": 10, "google.cloud.compute_v1": 50, "azure.mgmt.compute": 10, "azure.identity": 10}
"""What importing each costs at least, in starts of Python: more than a command may take that asks nobody."""

RUN: Final = """
import atexit, sys
def tell():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(int(lines["VmHWM"].split()[0]) // 1024, *sys.modules, file=sys.stderr)
atexit.register(tell)
from gpucloud.cli import main
main()
"""
LIVE: Final = ("offers", "--live", "--json", "--timeout", "10m")

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells the memory of a process like this"
)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed, the most memory that it ever had, and the modules that it has loaded."""

    out: str
    mib: int
    modules: frozenset[str]


def command(environ: dict[str, str], *words: str) -> Done:
    """Run gpucloud to its end."""
    # What is tested here need not be what is installed.
    ours = {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], env=environ | ours, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    mib, *modules = done.stderr.splitlines()[-1].split()
    return Done(done.stdout, int(mib), frozenset(modules))


@dataclass
class Clouds:
    """All three far away. ``mib`` is, by who was asked, the least that it has ever taken at its most."""

    folder: Path
    at: dict[str, Address]
    mib: dict[tuple[str, ...], int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=count)
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """That of who has asked all."""
        return Path(self.environ["HOME"])

    def ask(self, *names: str) -> float:
        """How long it takes somebody who has never asked before."""
        environ = configure(self.folder / str(next(self.numbers)), self.folder, self.at)
        if names == NAMES:
            self.environ = environ
        began = time.perf_counter()
        done = command(environ, *LIVE, *(word for name in names for word in ("--provider", name)))
        took = time.perf_counter() - began
        assert json.loads(done.out)["failures"] == []
        assert not {"boto3", "google.cloud", "azure.mgmt"} & done.modules
        self.mib[names] = min(done.mib, self.mib.get(names, done.mib))
        return took

    def starts(self, names: tuple[str, ...], limit: int) -> float:
        """The same in starts of Python; again and again until it is no more than ``limit``, or the best."""
        return best_ratio(partial(self.ask, *names), python, limit, 1)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    """The three, after having been asked once."""
    folder = tmp_path_factory.mktemp("clouds")
    with serving(folder, LISTED) as at:
        three = Clouds(folder, at)
        three.ask(*NAMES)
        yield three


def python() -> float:
    """How long Python takes to start; often enough for a busy machine."""
    return statistics.median(seconds(PYTHON, {}) for _ in range(7))


@pytest.mark.slow
def test_all_that_there_is_is_told(far: Clouds) -> None:
    with Cache(far.home / "gpucloud" / "market.db") as cache:
        live = tuple(source.id for source in cache.sources() if source.kind is SourceKind.LIVE)
        offers = cache.select(Condition(f"offers.source IN ({', '.join('?' * len(live))})", live))
    told = Counter(offer.provider for offer in offers)
    assert all(told[name] >= fewest for name, fewest in FEWEST.items()), told
    markets = {(offer.provider, offer.market) for offer in offers}
    assert markets == {(name, market) for name in NAMES for market in (Market.ON_DEMAND, Market.SPOT)}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_none_takes_too_large_a_part_of_the_time(
    far: Clouds, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = far.starts((name,), ALONE[name])
    with capsys.disabled():
        print(f"\n{name} alone: {starts:.0f} starts of Python, {far.mib[name,]} MiB")  # noqa: T201
    assert starts <= ALONE[name]


@pytest.mark.slow
def test_live_offers_of_all_three_take_six_seconds(far: Clouds, capsys: pytest.CaptureFixture[str]) -> None:
    starts = far.starts(NAMES, IN_UNITS_OF_PYTHON)
    with capsys.disabled():
        print(f"\nall together: {starts:.0f} starts of Python, {far.mib[NAMES]} MiB")  # noqa: T201
    assert starts <= IN_UNITS_OF_PYTHON


@pytest.mark.slow
def test_live_offers_of_all_three_fit_in_300_mib(far: Clouds) -> None:
    assert far.mib[NAMES] <= MIB


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    ["offers --offline --json", "ps --json", "offers --provider sim --live --json", "completion bash"],
)
def test_who_asks_no_cloud_loads_no_sdk(far: Clouds, words: str) -> None:
    done = command(far.environ, *words.split())
    assert done.out
    assert not {"boto3", "botocore", "google", "azure", "msal"} & done.modules


@pytest.mark.slow
def test_completing_a_word_loads_no_sdk(far: Clouds) -> None:
    typed = {"_GPUCLOUD_COMPLETE": "complete_bash", "COMP_WORDS": "gpucloud offers --prov", "COMP_CWORD": "2"}
    done = command({**far.environ, **typed})
    assert "--provider" in done.out
    assert not {"boto3", "botocore", "google", "azure", "msal"} & done.modules


@pytest.mark.slow
@pytest.mark.parametrize("name", SDKS)
def test_an_sdk_is_worth_being_kept_away_from(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [sys.executable, "-c", f"import {name}"]
    seconds(words, {})
    pairs = [(seconds(words, {}), seconds(PYTHON, {})) for _ in range(5)]
    ours, theirs = map(min, zip(*pairs, strict=True))
    with capsys.disabled():
        print(f"\nimport {name}: {ours / theirs:.0f} times as long as Python takes to start")  # noqa: T201
    assert ours / theirs >= SDKS[name]
