"""How much GPU memory a job needs: by hand, and what must hold of any answer."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.catalog.gpus import GpuFacts, table
from gpucloud.catalog.suggest import (
    BITS,
    COUNTS,
    FEWEST_PARAMETERS,
    MOST_PARAMETERS,
    Fit,
    Need,
    Task,
    fitting,
    need,
    parse_parameters,
    parse_task,
    stated,
)

sizes = st.integers(FEWEST_PARAMETERS, 10**13)
tokens = st.integers(1, 200_000)
batches = st.integers(1, 64)
ROW = next(row for row in table() if row.memory_gib == 80)


def figures(needed: Need) -> list[Decimal]:
    """What each line comes to, but the first and the last."""
    return [Decimal(line.rpartition("= ")[2].removesuffix(" GiB")) for line in needed.lines[1:-1]]


def a_row(chip: str, memory_gib: int | None) -> GpuFacts:
    return replace(ROW, chip=chip, memory_gib=memory_gib, form_factor=None)


@pytest.mark.parametrize(
    ("parameters", "task", "bits", "parts", "each"),
    [
        # 35 layers of width 4480: 12 x 35 x 4480^2 = 8.43e9 is the first to hold 8e9.
        # 2 x 128256 x 4480 = 1.149e9 embeddings x 2 + 6.851e9 x 4.5/8 = 6.152e9 bytes = 5.73 GiB;
        # 18 x 64 x 4480 x 35 x 16 = 2.89e9 = 2.69; 2048 x 4480 x 104 = 0.954e9 = 0.89;
        # 2048 x 128256 x 8 = 2.10e9 = 1.96; 1343 MiB = 1.31.
        (8 * 10**9, Task.QLORA, None, ["5.8", "2.7", "0.9", "2.0", "1.4"], "4.3"),
        # 1.149e9 x 2 + 6.851e9 x 1 = 9.149e9 = 8.52
        (8 * 10**9, Task.QLORA, 8, ["8.6", "2.7", "0.9", "2.0", "1.4"], "4.3"),
        # 16e9 = 14.90
        (8 * 10**9, Task.LORA, None, ["15.0", "2.7", "0.9", "2.0", "1.4"], "4.3"),
        # 128e9 = 119.21
        (8 * 10**9, Task.FULL, None, ["119.3", "0.9", "2.0", "1.4"], "4.3"),
        # 20% of 15.0 = 3.0; 2048 x 35 x 4480 x 4 / 4 = 0.321e9 = 0.30
        (8 * 10**9, Task.INFER, None, ["15.0", "3.0", "0.3", "1.4"], "1.4"),
        # 71 layers of width 9088: 2.331e9 x 2 + 67.669e9 x 4.5/8 = 42.73e9 = 39.79; 20% of 39.8 = 7.96;
        # 2048 x 71 x 9088 = 1.321e9 = 1.23
        (70 * 10**9, Task.INFER, 4, ["39.8", "8.0", "1.3", "1.4"], "1.4"),
    ],
)
def test_the_arithmetic_is_as_by_hand(
    parameters: int, task: Task, bits: int | None, parts: list[str], each: str
) -> None:
    needed = need(parameters, task, bits=bits)
    assert figures(needed) == [Decimal(part) for part in parts]
    assert needed.vram_gib == sum(map(Decimal, parts))
    assert needed.each_gib == Decimal(each)


def test_the_need_is_near_what_is_known_of_real_models() -> None:
    """Llama 3 8B in 4 bits is a file of 5.7 GB, and its cache has 128 KiB a token."""
    assert abs(figures(need(8_030_261_248, Task.QLORA))[0] - Decimal("5.3")) <= Decimal("0.6")
    cache = figures(need(8_030_261_248, Task.INFER, context=131_072))[2]
    assert abs(cache - 16) <= 4


@given(sizes, st.sampled_from(Task), tokens, batches)
def test_the_lines_add_up_to_the_need(parameters: int, task: Task, context: int, batch: int) -> None:
    needed = need(parameters, task, context=context, batch=batch)
    assert sum(figures(needed)) == needed.vram_gib
    terms, total = re.findall(r"need: ([0-9. +]+) = ([0-9.]+) GiB", needed.lines[-1])[0]
    assert sum(map(Decimal, terms.split(" + "))) == Decimal(total) == needed.vram_gib
    assert "estimate" in needed.lines[-1]
    assert 0 < needed.each_gib < needed.vram_gib


@given(sizes, sizes, st.sampled_from([(task, bits) for task in Task for bits in BITS[task]]))
def test_more_parameters_never_need_less(one: int, other: int, how: tuple[Task, int]) -> None:
    task, bits = how
    small, large = (need(size, task, bits=bits) for size in sorted((one, other)))
    assert small.vram_gib <= large.vram_gib
    assert small.each_gib <= large.each_gib


@given(sizes, st.sampled_from(Task), tokens, tokens, batches, batches)
def test_more_tokens_never_need_less(
    parameters: int, task: Task, one: int, other: int, first: int, second: int
) -> None:
    few = need(parameters, task, context=min(one, other), batch=min(first, second))
    many = need(parameters, task, context=max(one, other), batch=max(first, second))
    assert few.vram_gib <= many.vram_gib


@given(sizes, st.sampled_from(Task), tokens)
def test_fewer_bits_never_need_more(parameters: int, task: Task, context: int) -> None:
    needs = [need(parameters, task, bits=bits, context=context).vram_gib for bits in sorted(BITS[task])]
    assert needs == sorted(needs)


@given(sizes, tokens, batches)
def test_adapters_never_need_more_than_training_all(parameters: int, context: int, batch: int) -> None:
    tasks = (Task.QLORA, Task.LORA, Task.FULL)
    needs = [need(parameters, task, context=context, batch=batch).vram_gib for task in tasks]
    assert needs == sorted(needs)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [("8B", 8 * 10**9), ("70b", 70 * 10**9), ("1.5T", 1_500 * 10**9), (" 350 M ", 350 * 10**6)],
)
def test_sizes_are_read_as_people_write_them(text: str, parameters: int) -> None:
    assert parse_parameters(text) == parameters


@pytest.mark.parametrize(
    "text", ["", "8", "8x7B", "-8B", "0B", "1M", "2000T", "8 GB", "1e9", "٨B", "9" * 40 + "B", "nanB"]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"8B|1000T"):
        parse_parameters(text)


def test_what_makes_no_sense_for_a_task_is_refused() -> None:
    with pytest.raises(ValueError, match="16 or 32 bits"):
        need(8 * 10**9, Task.FULL, bits=4)
    with pytest.raises(ValueError, match="from 1"):
        need(8 * 10**9, Task.FULL, batch=0)
    with pytest.raises(ValueError, match="qlora"):
        parse_task("dream")
    with pytest.raises(ValueError, match="no need"):
        stated(Decimal(0))


def test_the_fewest_and_smallest_gpus_come_first() -> None:
    rows = [
        a_row("Large1", 80),
        a_row("Small1", 24),
        a_row("Exact1", 40),
        a_row("Tiny1", 4),
        a_row("Odd1", None),
    ]
    assert [(str(fit.gpu), fit.count, fit.total_gib) for fit in fitting(stated(Decimal(40)), rows)] == [
        ("Exact1-40", 1, 40),
        ("Large1-80", 1, 80),
        ("Small1-24", 2, 48),
    ]


def test_what_every_gpu_holds_for_itself_counts_on_each() -> None:
    rows = [a_row("Small1", 24)]
    assert fitting(Need(Decimal(48), ()), rows) == [Fit(rows[0].gpu, 2, 24)]
    assert fitting(Need(Decimal(48), (), Decimal(1)), rows) == [Fit(rows[0].gpu, 4, 24)]
    assert fitting(Need(Decimal(48), (), Decimal(24)), rows) == []


@given(st.decimals(1, 3000, places=1), st.decimals(0, 1, places=2))
def test_what_is_suggested_fits_and_nothing_smaller_does(vram: Decimal, share: Decimal) -> None:
    needed = Need(vram, (), vram * share)
    fits = fitting(needed, table())
    assert len({fit.gpu for fit in fits}) == len(fits)
    assert fits == sorted(fits, key=lambda fit: (fit.count, fit.total_gib))
    for fit in fits:
        assert fit.total_gib >= needed.on(fit.count)
        smaller = [count for count in COUNTS if count < fit.count]
        assert all(count * fit.memory_gib < needed.on(count) for count in smaller)
    left_out = {row.gpu for row in table()} - {fit.gpu for fit in fits}
    for gpu in left_out:
        assert not gpu.memory_gib or all(n * gpu.memory_gib < needed.on(n) for n in COUNTS)


def test_the_largest_model_is_answered_at_once() -> None:
    assert fitting(need(MOST_PARAMETERS, Task.FULL), table()) == []
