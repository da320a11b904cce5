"""Live offers of the three clouds: a new process and home, nothing remembered, each reply 100 ms away.

The sizes are those of ``tests.bench.clouds``. Everything is asked for: who names regions or providers
waits for less.

What importing an SDK costs, as so many starts of Python: boto3 42, google-cloud-compute 225,
azure-mgmt-compute 26, azure-identity 24 (2026-11-21, the best of five on a busy virtual machine with two
x86-64 cores, Python 3.11). Live offers need boto3 and azure-identity and go without the others, which are for
changes; a command that asks no cloud loads none of them.
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
from contextlib import contextmanager
from dataclasses import dataclass, field
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

MIB: Final = 300
LISTED: Final = 110
"""Sizes that Azure lists in a region, so that the lists of all regions have 15 MB together."""

LISTED_NOW: Final = 1_000
"""The same, so that each has 2 MB, the least that Microsoft says it has now."""

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
LIVE: Final = (
    "offers",
    "--live",
    "--json",
    "--timeout",
    "10m",
    *(w for n in NAMES for w in ("--provider", n)),
)

IN_FULL: Final = pytest.mark.skipif(
    not os.environ.get("GPUCLOUD_BENCH_CLOUDS"),
    reason="GPUCLOUD_BENCH_CLOUDS=1 asks them again and again, which takes minutes",
)

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
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    mib, *modules = done.stderr.splitlines()[-1].split()
    return Done(done.stdout, int(mib), frozenset(modules))


@dataclass
class Clouds:
    """All three far away. ``mib`` is the least that asking them has ever taken at its most."""

    folder: Path
    at: dict[str, Address]
    mib: int = 10**6
    numbers: Iterator[int] = field(default_factory=count)
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """That of the last question."""
        return Path(self.environ["HOME"])

    def ask(self) -> float:
        """How long it takes somebody who has never asked before."""
        self.environ = configure(self.folder / str(next(self.numbers)), self.folder, self.at)
        began = time.perf_counter()
        done = command(self.environ, *LIVE)
        took = time.perf_counter() - began
        assert json.loads(done.out)["failures"] == []
        assert not {"google.cloud", "azure.mgmt"} & done.modules
        self.mib = min(self.mib, done.mib)
        return took


@contextmanager
def clouds(folder: Path, listed: int) -> Iterator[Clouds]:
    """The three, ready to be asked."""
    with serving(folder, listed) as at:
        yield Clouds(folder, at)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    """The three, after having been asked once."""
    with clouds(tmp_path_factory.mktemp("clouds"), LISTED) as three:
        three.ask()
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


@IN_FULL
@pytest.mark.slow
@pytest.mark.xfail(
    reason="clients and readers of boto3, and a request to Google for each spot price, take longer"
)
def test_live_offers_of_all_three_take_six_seconds(far: Clouds) -> None:
    assert best_ratio(far.ask, python, IN_UNITS_OF_PYTHON, 1) <= IN_UNITS_OF_PYTHON


@pytest.mark.slow
def test_live_offers_of_all_three_fit_in_300_mib(far: Clouds) -> None:
    assert far.mib <= MIB


@IN_FULL
@pytest.mark.slow
@pytest.mark.xfail(
    reason="the lists of eight regions are in memory at once, and all of them as Python objects"
)
def test_they_fit_as_well_where_azure_lists_megabytes_for_each_region(tmp_path: Path) -> None:
    with clouds(tmp_path, LISTED_NOW) as three:
        three.ask()
        assert three.mib <= MIB


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
