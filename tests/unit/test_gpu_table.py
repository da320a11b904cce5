"""The GPU table: that it is whole, sorted and sourced, and how one row of it is found."""

from __future__ import annotations

import csv
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.catalog import gpus
from gpucloud.catalog.gpus import GpuFacts, facts, nearest, table
from gpucloud.model import FORM_FACTORS, Gpu, GpuWish, fold, same_memory

ROWS = table()
VENDORS = {"amd", "aws", "google", "intel", "nvidia"}
MADE = date(2026, 11, 1)
"""Before the table was begun; nothing in it was read earlier."""


def name(row: GpuFacts) -> str:
    return str(row.gpu)


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_a_row_says_where_and_when_it_was_read(row: GpuFacts) -> None:
    assert row.source.strip()
    assert MADE <= row.as_of <= datetime.now(UTC).date()
    assert row.confidence in {"A", "B", "C"}


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_the_figures_of_a_row_are_possible(row: GpuFacts) -> None:
    assert row.vendor in VENDORS
    assert row.form_factor in {None, *FORM_FACTORS.values()}
    assert row.memory_gib is None or 1 <= row.memory_gib <= 1024
    assert row.power_w is None or 20 <= row.power_w <= 3000
    assert row.bandwidth_gb_s is None or 40 <= row.bandwidth_gb_s <= 30_000
    for tflops in (row.bf16_tflops, row.fp8_tflops):
        assert tflops is None or 10 <= tflops <= 20_000
    if row.bf16_tflops and row.fp8_tflops:
        # Twice as many, unless a chip computes fp8 no faster, or up to four times for the narrow formats.
        assert 1 <= row.fp8_tflops / row.bf16_tflops <= 4
    if row.compute is not None:
        assert row.compute.startswith("gfx") if row.vendor == "amd" else 3 <= Decimal(row.compute) <= 20


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_a_row_holds_the_types_that_it_promises(row: GpuFacts) -> None:
    for figure in (row.bandwidth_gb_s, row.bf16_tflops, row.fp8_tflops):
        assert figure is None or isinstance(figure, Decimal)
    for whole in (row.memory_gib, row.power_w):
        assert whole is None or type(whole) is int
    assert "" not in (row.form_factor, row.architecture, row.memory_type, row.interconnect, row.note)


def test_no_product_is_listed_twice() -> None:
    assert len({(fold(row.chip), row.memory_gib, row.form_factor) for row in ROWS}) == len(ROWS)
    assert len({row.chip for row in ROWS}) == len({fold(row.chip) for row in ROWS})


def test_the_rows_of_one_chip_agree_on_whether_it_has_forms() -> None:
    """A blank form factor says that there is but one; beside others it would say nothing."""
    for rows in gpus.by_chip().values():
        assert len({row.form_factor is None for row in rows}) == 1
        assert len({row.vendor for row in rows}) == 1


def test_figures_of_one_product_are_apart_enough_to_be_told() -> None:
    for rows in gpus.by_chip().values():
        for row in rows:
            others = {other.memory_gib for other in rows if other.form_factor == row.form_factor} - {None}
            assert (
                row.memory_gib is None or nearest(row.memory_gib, {m for m in others if m}) == row.memory_gib
            )


def test_the_table_is_sorted() -> None:
    keys = [(row.chip.casefold(), row.memory_gib or 0, row.form_factor or "") for row in ROWS]
    assert keys == sorted(keys)


def test_the_file_is_read_whole() -> None:
    with Path(gpus.__file__).with_name("gpus.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    assert len(lines) == len(ROWS) + 1
    assert {len(line) for line in lines} == {len(lines[0])}
    assert all(cell == cell.strip() for line in lines for cell in line)


def test_every_vendor_is_there() -> None:
    assert {row.vendor for row in ROWS} == VENDORS


@pytest.mark.parametrize("memory", [179, 180, 192])
def test_a_b200_is_found_under_every_count_of_its_memory(memory: int) -> None:
    row = facts(Gpu("b200", memory))
    assert row is not None
    assert (row.chip, row.memory_gib, row.bf16_tflops, row.power_w) == ("B200", 180, Decimal(2250), 1000)


@pytest.mark.parametrize(
    "text",
    ["H100", "A100-80", "V100-16", "RTX4090-48", "H100-SXM-40", "Imaginary9999", "B200-PCIe", "GH200"],
)
def test_what_is_no_row_or_several_has_no_facts(text: str) -> None:
    assert facts(Gpu.parse(text)) is None


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("H100-SXM", "H100-SXM-80"),
        ("H100-94", "H100-NVL-94"),
        ("rtx-4090", "RTX4090-24"),
        ("L40S-PCIe-48", "L40S-48"),
        ("A100-SXM-40", "A100-SXM-40"),
        ("RTX3080-12", "RTX3080-12"),
        ("TPU-v5e", "TPUv5e-16"),
        ("K80-12", "K80"),
    ],
)
def test_what_fits_one_row_has_its_facts(text: str, row: str) -> None:
    found = facts(Gpu.parse(text))
    assert found is not None
    assert str(found.gpu) == row


@pytest.mark.parametrize(
    ("one", "other"), [(192, 180), (180, 162), (80, 94), (24, 22), (16, 15), (96, 94), (10, 9)]
)
def test_the_tolerance_is_the_one_that_wishes_have(one: int, other: int) -> None:
    accepted = GpuWish(1, Gpu("X1", one)).accepts(Gpu("X1", other), 1)
    assert same_memory(one, other) == same_memory(other, one) == accepted


def test_nothing_heavy_is_loaded_for_it() -> None:
    code = (
        "import sys; from gpucloud.catalog import names; names.normalise('H100');"
        "heavy = {'pydantic', 'httpx', 'rich', 'sqlite3', 'tempfile', 'asyncio', 'importlib.metadata'};"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
