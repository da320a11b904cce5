"""Every offer that is read has a name to be understood: beside what only cutting it into words takes."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable

from gpucloud.catalog.gpus import table
from gpucloud.catalog.names import normalise

VENDORS = ("NVIDIA {} {}", "gpu_8x_{}_{}", "Standard_ND96isr_{}_v{}", "{}-80gb-{}")
WORDS = re.compile("[a-z]+|[0-9]+")


def taken(act: Callable[[str], object], names: list[str]) -> float:
    """The processor time of doing it to each."""
    began = time.process_time()
    for name in names:
        act(name)
    return time.process_time() - began


def test_a_hundred_thousand_names_take_a_small_multiple_of_cutting_them_up() -> None:
    chips = [row.gpu.chip for row in table()]
    mixed = itertools.cycle(itertools.product(chips, VENDORS))
    names = [vendor.format(chip, f"rev{n}") for n, (chip, vendor) in zip(range(100_000), mixed, strict=False)]
    words = min(taken(lambda name: WORDS.findall(name.lower()), names) for _ in range(3))
    assert min(taken(normalise, names) for _ in range(2)) <= 40 * words
