"""How fast commands answer, as ratios to the start of Python itself, taken side by side in one run.

The limits are medians. The machine may be busy with something else, which only ever makes a command look
slower, so each has several rounds to show what it can do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpucloud.catalog.cache import Cache, SourceKind
from gpucloud.model import utcnow
from tests.harness.market import many_offers
from tests.harness.timing import PYTHON, best_ratio, ratio, seconds, seconds_at_terminal

MANY = 1_000_000
GPUCLOUD = [str(Path(sys.executable).with_name("gpucloud"))]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home in which a million offers are remembered."""
    home = tmp_path_factory.mktemp("home")
    (home / "gpucloud").mkdir()
    with Cache(home / "gpucloud" / "market.db") as cache:
        for number in range(10):
            provider = f"provider-{number}"
            listed = many_offers(provider, MANY // 10)
            cache.put(provider, listed, name="bench", kind=SourceKind.LISTED, at=utcnow())
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_DATA_HOME": str(home),
        "GPUCLOUD_OFFERS_MAX_AGE": "1h",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("--version", 10),
        ("--help", 10),
        ("ps", 15),
        ("providers", 15),
        ("offers H100 --json", 15),
        ("offers H100 --json --offline", 15),
        ("offers --json --offline --where inet_down>5000", 40),
        ("offers --json --offline --where reliability>0.99", 40),
    ],
)
def test_a_command_takes_so_many_times_as_long_as_python_takes_to_start(
    environ: dict[str, str], words: str, limit: float
) -> None:
    assert ratio([*GPUCLOUD, *words.split(" ")], environ, limit) <= limit


@pytest.mark.slow
def test_a_table_on_a_terminal_takes_little_more(environ: dict[str, str]) -> None:
    words = [*GPUCLOUD, "offers", "H100", "--offline"]
    seconds_at_terminal(words, environ)
    found = best_ratio(lambda: seconds_at_terminal(words, environ), lambda: seconds(PYTHON, environ), 30)
    assert found <= 30


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells it like this")
def test_a_million_offers_do_not_fill_the_memory(environ: dict[str, str]) -> None:
    # The most that the process ever had; the figure of getrusage may be that of the process it came from.
    script = (
        "import sys; from gpucloud.cli import execute;"
        "assert execute(['offers', 'H100', '--json']) == 0;"
        "lines = dict(line.split(':', 1) for line in open('/proc/self/status'));"
        "print(lines['VmHWM'].split()[0], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, check=True, capture_output=True, text=True
    )
    assert int(done.stderr.splitlines()[-1]) <= 80 * 1024
