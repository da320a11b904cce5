"""The normaliser: every spelling that vendors use, and what must hold for any text whatever.

``gpu_names.csv`` holds real strings: who says it, the text, the memory stated beside it (blank: none), what
it is (blank: no accelerator) and the document that it was read in.
"""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpucloud.catalog.gpus import facts, table
from gpucloud.catalog.names import normalise, parse_wish
from gpucloud.model import Gpu, GpuWish

with Path(__file__).with_name("gpu_names.csv").open(encoding="utf-8", newline="") as _file:
    CASES = list(csv.DictReader(_file))

ROWS = [row.gpu for row in table()]
WORDS = [
    *(
        "nvidia",
        "NVIDIA",
        "Tesla",
        "GeForce",
        "RTX",
        "GTX",
        "Quadro",
        "AMD",
        "Radeon",
        "Instinct",
        "TPU",
        "gpu",
    ),
    *("A", "H", "L", "100", "200", "4", "40", "4090", "6000", "9999", "0", "00", "1", "8", "80", "24", "x"),
    *("GB", "80GB", "24gb", "0GB", "640gb", "RAM", "SXM", "sxm5gdr", "PCIe", "NVL72", "OAM", "HBM3", "HGX"),
    *(
        "8x",
        "x8",
        "h100x8",
        "8xh100ib",
        "foo",
        "foo9x8",
        "Ti",
        "Ada",
        "Pro",
        "v5",
        "v3",
        "v5litepod",
        "a2",
        "p4",
    ),
    *("H350", "B400", "Standard", "ND96isr", "1g.10gb", "xlarge", "TitanV", "Gaudi", "7", "GH200", "480"),
]
texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(WORDS), max_size=7).flatmap(
        lambda words: st.sampled_from(["", " ", "-", "_", ".", "/", " - "]).map(lambda by: by.join(words))
    ),
)
memories = st.none() | st.integers(-1, 10**6) | st.decimals(allow_nan=True, allow_infinity=True)


def name(case: dict[str, str]) -> str:
    return f"{case['provider']}: {case['text']} {case['memory_gib']}".strip()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_every_vendor_is_understood(case: dict[str, str]) -> None:
    memory = Decimal(case["memory_gib"]) if case["memory_gib"] else None
    found = normalise(case["text"], memory_gib=memory)
    assert str(found or "") == case["expected"]
    assert found is None or Gpu.parse(str(found)) == found


def test_the_cases_are_many_and_each_says_where_it_is_from() -> None:
    assert len({case["text"] for case in CASES}) >= 150
    assert len({case["provider"] for case in CASES}) >= 20
    assert all(case["source"] for case in CASES)
    assert len({(case["provider"], case["text"], case["memory_gib"]) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("gpu", ROWS, ids=str)
def test_the_name_of_a_row_is_read_as_that_row_by_everybody(gpu: Gpu) -> None:
    assert normalise(str(gpu)) == gpu
    assert Gpu.parse(str(gpu)) == gpu
    assert GpuWish.parse(str(gpu)).accepts(gpu, 1)
    row = facts(gpu)
    assert row is not None
    assert row.gpu == gpu


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        ("A100_SXM4", Gpu("A100", None, "SXM")),
        ("gpu_8x_a100_80gb_sxm4", Gpu("A100", 80, "SXM")),
        ("Standard_ND96isr_H100_v5", Gpu("H100")),
        ("Standard_NC24ads_A100_v4", Gpu("A100")),
        ("Standard_ND96isr_MI300X_v5", Gpu("MI300X", 192, "OAM")),
        ("NVIDIA A100-SXM4-80GB", Gpu("A100", 80, "SXM")),
        ("Tesla V100-SXM2-16GB", Gpu("V100", 16, "SXM")),
        ("AMD Instinct MI300X OAM", Gpu("MI300X", 192, "OAM")),
        ("NVIDIA B300 SXM6 AC", Gpu("B300", 288, "SXM")),
        ("NVIDIA RTX 4000 SFF Ada Generation", Gpu("RTX4000SFFAda", 20)),
        ("NVIDIA RTX 6000 Ada Generation", Gpu("RTX6000Ada", 48)),
        ("NVIDIA GH200 480GB", Gpu("GH200", 96)),
        ("VM.GPU.A10.2", Gpu("A10", 24)),
        ("BM.GPU.A100-v2.8", Gpu("A100")),
        ("v5litepod-8", Gpu("TPUv5e", 16)),
        ("tpu-v5e-8", Gpu("TPUv5e", 16)),
        ("v3-8", Gpu("TPUv3", 32)),
        ("Trillium", Gpu("TPUv6e", 32)),
        ("ct5p-hightpu-4t-tpu", Gpu("TPUv5p", 95)),
        ("Gaudi 2", Gpu("Gaudi2", 96)),
        ("4090", Gpu("RTX4090", 24)),
        ("3090 Ti", Gpu("RTX3090Ti", 24)),
    ],
)
def test_other_spellings_in_use(text: str, gpu: Gpu) -> None:
    assert normalise(text) == gpu


@pytest.mark.parametrize(
    ("text", "memory_gib", "gpu"),
    [
        ("B200", 192, Gpu("B200", 180, "SXM")),
        ("B200", 180, Gpu("B200", 180, "SXM")),
        ("B200", Decimal("179.06"), Gpu("B200", 180, "SXM")),
        ("B300", Decimal(268_288) / 1024, Gpu("B300", 288, "SXM")),
        ("A100", Decimal("39.4"), Gpu("A100", 40)),
        ("L4", Decimal("22.35"), Gpu("L4", 24)),
        ("RTX 3080", 12, Gpu("RTX3080", 12)),
        ("RTX 3080", 10, Gpu("RTX3080", 10)),
        ("H100 80GB", 94, Gpu("H100", 94, "NVL")),
        ("H100", 80, Gpu("H100", 80)),
        ("K80", 12, Gpu("K80", 12)),
    ],
)
def test_memory_is_matched_as_vendors_count_it(text: str, memory_gib: int | Decimal, gpu: Gpu) -> None:
    assert normalise(text, memory_gib=memory_gib) == gpu


@pytest.mark.parametrize(
    ("text", "memory_gib", "gpu"),
    [
        ("RTX 4090 48GB", None, Gpu("RTX4090", 48)),
        ("A100 1g.10gb", None, Gpu("A100", 10)),
        ("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb", None, Gpu("A100", 40, "SXM")),
        ("A10", 4, Gpu("A10", 4)),
        ("H100 SXM5", 64, Gpu("H100", 64, "SXM")),
    ],
)
def test_another_memory_than_the_table_has_stays_in_sight(
    text: str, memory_gib: int | None, gpu: Gpu
) -> None:
    assert normalise(text, memory_gib=memory_gib) == gpu


@pytest.mark.parametrize("memory_gib", [0, -1, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), 81_920])
def test_a_figure_that_is_no_gpus_memory_is_not_taken(memory_gib: int | Decimal) -> None:
    assert normalise("L40S", memory_gib=memory_gib) == Gpu("L40S", 48)


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        ("A100", Gpu("A100")),
        ("H100", Gpu("H100")),
        ("H200", Gpu("H200", 141)),
        ("A100 SXM", Gpu("A100", None, "SXM")),
        ("A100 80GB", Gpu("A100", 80)),
        ("V100", Gpu("V100")),
        ("P100", Gpu("P100")),
        ("RTX 3060", Gpu("RTX3060")),
        ("GH200", Gpu("GH200")),
    ],
)
def test_what_nothing_determines_stays_unknown(text: str, gpu: Gpu) -> None:
    assert normalise(text) == gpu


def test_a_word_on_the_socket_adds_nothing_to_a_chip_that_has_one_form() -> None:
    assert normalise("A40 PCIe") == normalise("A40") == Gpu("A40", 48)


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        ("Imaginary RTX 9999", Gpu("ImaginaryRTX9999")),
        ("NVIDIA GeForce RTX 9999 Ti", Gpu("RTX9999Ti")),
        ("NVIDIA Foo9 24GB", Gpu("NVIDIAFoo9", 24)),
        ("H800 SXM5 80GB", Gpu("H800", 80, "SXM")),
        ("gpu-b400-sxm", Gpu("B400", None, "SXM")),
        ("Standard_ND96isr_H350_v5", Gpu("H350")),
        ("AMD Instinct MI500X", Gpu("MI500X")),
        ("TITAN V", Gpu("TITANV")),
        ("Titan RTX 24GB", Gpu("TitanRTX", 24)),
        ("tpu-v9-8", Gpu("tpuv9", 8)),
    ],
)
def test_an_unknown_chip_keeps_the_vendors_words(text: str, gpu: Gpu) -> None:
    assert normalise(text) == gpu
    assert facts(gpu) is None


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-", "GPU", "gpu", "NVIDIA", "80GB", "SXM5", "8x", "none", "CPU", "TPU", "n1-standard-8",
        "Standard_D8s_v5", "Standard_A2_v2", "Standard_D2_v4", "a2-highgpu-1g", "t4g.small", "g2-standard-4",
        "m5.large", "AMD EPYC 7742", "Intel Xeon 8480C", "e2-medium", "VM.Standard.A1.Flex",
        "昇腾", "5a100736-b085-4f69-81fd-feee325784bb", "\x00",
    ],
)  # fmt: skip
def test_what_names_no_accelerator_is_none(text: str) -> None:
    assert normalise(text) is None


@given(texts, memories)
@example("0g.0gb RAM", None)
def test_any_text_is_read_without_a_failure_and_its_answer_is_stable(
    text: str, memory_gib: int | Decimal | None
) -> None:
    gpu = normalise(text, memory_gib=memory_gib)
    if gpu is not None:
        assert normalise(str(gpu)) == gpu
        assert Gpu.parse(str(gpu)) == gpu
        assert gpu.memory_gib is None or gpu.memory_gib > 0


@given(st.sampled_from(ROWS), st.data())
def test_case_and_separators_change_nothing(gpu: Gpu, data: st.DataObject) -> None:
    text = "".join(
        data.draw(st.sampled_from(["-", "_", " ", "/", "."]))
        if letter == "-"
        else data.draw(st.sampled_from([letter.lower(), letter.upper()]))
        for letter in str(gpu)
    )
    assert normalise(text) == gpu


@given(st.sampled_from(ROWS), st.decimals("0.95", "1.05"))
def test_a_few_per_cent_more_or_less_are_the_same_memory(gpu: Gpu, factor: Decimal) -> None:
    if gpu.memory_gib is not None and gpu.memory_gib >= 40:
        assert normalise(str(gpu), memory_gib=gpu.memory_gib * factor) == gpu


@pytest.mark.parametrize(
    ("typed", "wish"),
    [
        ("H100", GpuWish(1, Gpu("H100"))),
        ("NVIDIA H100:8", GpuWish(8, Gpu("H100"))),
        ("8xH100", GpuWish(8, Gpu("H100"))),
        ("h100 80 GB", GpuWish(1, Gpu("H100", 80))),
        ("H100-SXM5-80:8", GpuWish(8, Gpu("H100", 80, "SXM"))),
        ("a6000", GpuWish(1, Gpu("RTXA6000"))),
        ("Tesla T4x2", GpuWish(2, Gpu("T4"))),
        ("b200-192", GpuWish(1, Gpu("B200", 180))),
        ("L40S-PCIe", GpuWish(1, Gpu("L40S"))),
        ("24GB+:2", GpuWish(2, None, 24)),
        ("nosuch1", GpuWish(1, Gpu("nosuch1"))),
    ],
)
def test_a_wish_is_read_under_the_name_that_offers_have(typed: str, wish: GpuWish) -> None:
    assert parse_wish(typed) == wish
