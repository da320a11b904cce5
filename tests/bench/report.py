"""Where benches tell what they have measured: on the terminal, and in the file ``GPUCLOUD_BENCH_REPORT``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

FILE: Final = os.environ.get("GPUCLOUD_BENCH_REPORT", "")


@dataclass(slots=True)
class Table:
    """A table that grows by the row; its head is written before the first row of each run.

    Its last column says how many processes wanted a processor in the minute before: what is measured while
    others work is slow.
    """

    columns: Sequence[str]
    _begun: bool = field(default=False, init=False)

    def add(self, cells: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
        """Tell a row."""
        names, row = [*self.columns, "load"], [*cells, f"{os.getloadavg()[0]:.1f}"]
        with capsys.disabled():
            print("", *map(": ".join, zip(names, row, strict=True)), sep="\n  ")  # noqa: T201
        if FILE:
            head = f"\n{_line(names)}\n{'|---' * len(names)}|\n"
            with Path(FILE).open("a") as file:
                file.write(("" if self._begun else head) + f"{_line(row)}\n")
            self._begun = True


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
