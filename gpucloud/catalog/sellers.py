"""What aggregators call the providers whose machines they pass on.

``sellers.csv`` has one row for each word of theirs that is another one here; all others are the same.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path


def seller(word: str) -> str:
    """The provider that is called so, by its name here."""
    return _other_words().get(word, word)


@lru_cache
def _other_words() -> Mapping[str, str]:
    with Path(__file__).with_name("sellers.csv").open(encoding="utf-8", newline="") as file:
        return {row["word"]: row["provider"] for row in csv.DictReader(file)}
