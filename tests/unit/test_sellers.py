"""What aggregators call other providers."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

from gpucloud.catalog import cards, sellers
from gpucloud.catalog.sellers import seller

FILE = Path(sellers.__file__).with_name("sellers.csv")


def test_other_words_are_words_of_known_providers_with_a_source() -> None:
    rows = list(csv.DictReader(FILE.read_text().splitlines()))
    assert len({row["word"] for row in rows}) == len(rows)
    for row in rows:
        assert row["word"] != row["provider"] == seller(row["word"])
        assert row["provider"] in cards.names()
        assert row["source"] and date.fromisoformat(row["as_of"])


def test_all_others_are_the_same_here() -> None:
    assert seller("hyperstack") == "hyperstack"
    assert seller("a-cloud-of-tomorrow") == "a-cloud-of-tomorrow"
