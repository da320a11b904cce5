"""The offer cache at size: taking over an answer, and a table on a terminal."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpucloud.catalog.cache import Cache
from gpucloud.model import utcnow
from tests.harness.market import many_offers
from tests.harness.timing import PYTHON, best_ratio, seconds

MANY = 100_000
IN_UNITS_OF_PYTHON = 150
"""What 1.5 seconds are on a machine where Python takes 10 milliseconds to start."""


@pytest.mark.slow
def test_a_hundred_thousand_offers_are_taken_over_in_no_time(tmp_path: Path) -> None:
    offers = list(many_offers("acme", MANY))

    def ingest() -> float:
        with Cache(tmp_path / f"{time.monotonic_ns()}.db") as cache:
            began = time.perf_counter()
            assert cache.put("acme", offers, name="bench", at=utcnow()) == MANY
            return time.perf_counter() - began

    assert best_ratio(ingest, lambda: seconds(PYTHON, {}), IN_UNITS_OF_PYTHON, 3) <= IN_UNITS_OF_PYTHON


@pytest.mark.slow
def test_an_answer_that_did_not_change_changes_no_offer(tmp_path: Path) -> None:
    offers = list(many_offers("acme", MANY))
    with Cache(tmp_path / "market.db") as cache:
        cache.put("acme", offers, name="bench", at=utcnow())
        assert cache.put("acme", offers, name="bench", at=utcnow()) == 0
