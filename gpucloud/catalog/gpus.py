"""The GPU table: what one accelerator is, as far as a named source says so.

``gpus.csv`` holds one row per chip, form factor and memory. A blank cell is a figure that no source states;
a blank form factor belongs to a chip that is sold in one form only. TFLOPS are dense, never sparse. Every row
names its source and the day (``as_of``) on which that source was read.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from gpucloud.model import Gpu, fold, same_memory


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One row of the table. ``None`` is unknown.

    Units: memory in GiB as it is sold, bandwidth in GB/s, bf16 and fp8 in dense TFLOPS, power in watts.
    ``compute`` is the CUDA compute capability (``9.0``) or the LLVM target (``gfx942``). ``confidence`` is
    ``A`` (two sources agree, or the vendor's own page), ``B`` (one good source) or ``C`` (verify it).
    """

    chip: str
    memory_gib: int | None
    form_factor: str | None
    vendor: str
    architecture: str | None
    memory_type: str | None
    bandwidth_gb_s: Decimal | None
    bf16_tflops: Decimal | None
    fp8_tflops: Decimal | None
    power_w: int | None
    compute: str | None
    interconnect: str | None
    confidence: str
    note: str | None
    source: str
    as_of: date

    @property
    def gpu(self) -> Gpu:
        """The row under the name by which offers and wishes know it."""
        return Gpu(self.chip, self.memory_gib, self.form_factor)


@lru_cache(maxsize=1)
def table() -> tuple[GpuFacts, ...]:
    """Every row, sorted by chip, memory (unknown first) and form factor; read from the package once."""
    # Not by importlib.resources, whose import alone takes four times as long as this.
    with Path(__file__).with_name("gpus.csv").open(encoding="utf-8", newline="") as file:
        return tuple(map(_facts, csv.DictReader(file)))


@lru_cache(maxsize=4096)
@lru_cache(maxsize=1)
def by_chip() -> Mapping[str, tuple[GpuFacts, ...]]:
    """The rows of each chip, by its folded name."""
    rows: dict[str, tuple[GpuFacts, ...]] = {}
    for row in table():
        key = fold(row.chip)
        rows[key] = (*rows.get(key, ()), row)
    return MappingProxyType(rows)


def nearest(memory_gib: int, figures: Set[int]) -> int | None:
    """The one of ``figures`` that comes closest to ``memory_gib``, if it may mean the same memory."""
    figure = min(figures, key=lambda figure: (abs(figure - memory_gib), figure), default=None)
    return figure if figure is not None and same_memory(figure, memory_gib) else None


def facts(gpu: Gpu) -> GpuFacts | None:
    """The one row that describes ``gpu``, whose memory is matched with the model's tolerance.

    ``None`` for a chip, a memory or a form factor that the table does not have, and also when several rows
    fit: ``H100`` alone is three products.
    """
    rows = [
        row
        for row in by_chip().get(fold(gpu.chip), ())
        if not gpu.form_factor or row.form_factor in (None, gpu.form_factor)
    ]
    if gpu.memory_gib is not None:
        memory = nearest(gpu.memory_gib, {row.memory_gib for row in rows if row.memory_gib})
        rows = [row for row in rows if row.memory_gib in (None, memory)]
    return rows[0] if len(rows) == 1 else None


def _facts(row: dict[str, str]) -> GpuFacts:
    return GpuFacts(
        chip=row["chip"],
        memory_gib=_whole(row["memory_gib"]),
        form_factor=row["form_factor"] or None,
        vendor=row["vendor"],
        architecture=row["architecture"] or None,
        memory_type=row["memory_type"] or None,
        bandwidth_gb_s=_decimal(row["bandwidth_gb_s"]),
        bf16_tflops=_decimal(row["bf16_tflops"]),
        fp8_tflops=_decimal(row["fp8_tflops"]),
        power_w=_whole(row["power_w"]),
        compute=row["compute"] or None,
        interconnect=row["interconnect"] or None,
        confidence=row["confidence"],
        note=row["note"] or None,
        source=row["source"],
        as_of=date.fromisoformat(row["as_of"]),
    )


def _whole(cell: str) -> int | None:
    return int(cell) if cell else None


def _decimal(cell: str) -> Decimal | None:
    return Decimal(cell) if cell else None
