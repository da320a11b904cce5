"""What nvidia-smi prints, and the GPUs that are offered for it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.model import Gpu, GpuWish, Requirements
from gpucloud_local import Local
from gpucloud_local.adapter import installed_gpus, parse_gpu

PRINTED = {
    "NVIDIA A100-SXM4-80GB, 81920": "A100-SXM-80",
    "NVIDIA A100-SXM4-40GB, 40960": "A100-SXM-40",
    "NVIDIA A100-SXM-64GB, 65536": "A100-SXM-64",
    "NVIDIA A100 80GB PCIe, 81920": "A100-PCIe-80",
    "NVIDIA A100-PCIE-40GB, 40960": "A100-PCIe-40",
    "NVIDIA H100 80GB HBM3, 81559": "H100-SXM-80",
    "NVIDIA H100 PCIe, 81559": "H100-PCIe-80",
    "NVIDIA H100 80GB HBM2e, 81559": "H100-80",
    "NVIDIA H100 NVL, 95830": "H100-NVL-94",
    "NVIDIA H200, 143771": "H200-SXM-140",
    "NVIDIA H200 NVL, 143771": "H200-NVL-140",
    "NVIDIA H800, 81559": "H800-SXM-80",
    "NVIDIA H20, 97871": "H20-96",
    "NVIDIA GH200 480GB, 97871": "GH200-96",
    "NVIDIA GH200 144G HBM3e, 146831": "GH200-143",
    "NVIDIA B200, 183359": "B200-SXM-179",
    "NVIDIA B300 SXM6 AC, 275040": "B300-SXM-269",
    "NVIDIA GB200, 189471": "GB200-185",
    "NVIDIA L40S, 46068": "L40S-45",
    "NVIDIA L4, 23034": "L4-22",
    "NVIDIA A10G, 23028": "A10G-22",
    "NVIDIA A10, 23028": "A10-22",
    "Tesla T4, 15360": "T4-15",
    "Tesla V100-SXM2-32GB, 32768": "V100-SXM-32",
    "Tesla P100-PCIE-16GB, 16384": "P100-PCIe-16",
    "NVIDIA GeForce RTX 4090, 24564": "RTX4090-24",
    "NVIDIA GeForce RTX 4090 Laptop GPU, 16376": "RTX4090LaptopGPU-16",
    "NVIDIA GeForce RTX 3080 Ti, 12288": "RTX3080Ti-12",
    "NVIDIA GeForce RTX 5090, 32607": "RTX5090-32",
    "NVIDIA GeForce GTX 1060 3GB, 3072": "GTX1060-3",
    "NVIDIA RTX 6000 Ada Generation, 49140": "RTX6000Ada-48",
    "NVIDIA RTX A6000, 49140": "RTXA6000-48",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition, 97887": "RTXPRO6000-96",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition, 97887": "RTXPRO6000-96",
    "NVIDIA RTX PRO 4500 Blackwell, 32623": "RTXPRO4500-32",
    "Quadro RTX 6000, 24576": "QuadroRTX6000-24",
    "NVIDIA TITAN RTX, 24576": "TITANRTX-24GB",
    "NVIDIA GB10, [N/A]": "GB10",
    "NVIDIA A100-SXM4-80GB, [Insufficient Permissions]": "A100-SXM",
    "NVIDIA, 1024": "NVIDIA-1GB",
}

GARBAGE = (
    "",
    "No devices were found",
    "[N/A], [N/A]",
    "[Unknown Error], 81920",
    "ERR!, ERR!",
    ", 81920",
    "-, 81920",
    "NVIDIA A100-SXM4-80GB",
    "NVIDIA A100-SXM4-80GB, ",
    "NVIDIA A100-SXM4-80GB, many",
    "NVIDIA A100-SXM4-80GB, ²",
    "NVIDIA A100-SXM4-80GB, -1",
    "Unable to determine the device handle for GPU0000:01:00.0: Unknown Error",
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
)

WISHED = {
    "NVIDIA H100 80GB HBM3, 81559": ("H100", "H100-80", "H100-SXM", "H100-SXM-80", "80GB+"),
    "NVIDIA H200, 143771": ("H200", "H200-141", "H200-SXM-141"),
    "NVIDIA B200, 183359": ("B200", "B200-192", "B200-180"),
    "NVIDIA GeForce RTX 4090, 24564": ("RTX4090", "RTX-4090", "rtx 4090", "RTX4090-24", "24GB+"),
    "NVIDIA RTX 6000 Ada Generation, 49140": ("RTX6000Ada", "RTX-6000-Ada"),
    "NVIDIA L40S, 46068": ("L40S", "L40S-48"),
    "Tesla T4, 15360": ("T4", "T4-16"),
}


def fake_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named nvidia-smi first on PATH."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(("line", "wanted"), PRINTED.items())
def test_a_line_of_nvidia_smi_is_a_gpu(line: str, wanted: str) -> None:
    assert str(parse_gpu(line)) == wanted


@pytest.mark.parametrize("line", GARBAGE)
def test_garbage_is_no_gpu(line: str) -> None:
    assert parse_gpu(line) is None


@pytest.mark.parametrize(
    ("line", "wish"), [(line, wish) for line, wishes in WISHED.items() for wish in wishes]
)
def test_the_gpu_answers_what_people_ask_for(line: str, wish: str) -> None:
    assert GpuWish.parse(wish).accepts(parse_gpu(line), 1)


@given(st.text() | st.text("NVIDIAHGBSXMPCe0123456789 ,-[]/."))
def test_no_line_whatever_is_an_exception(line: str) -> None:
    gpu = parse_gpu(line)
    assert gpu is None or gpu.chip


def test_the_gpus_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Local) -> None:
    fake_smi(tmp_path, "for n in 1 2 3 4; do echo 'NVIDIA H100 80GB HBM3, 81559'; done", monkeypatch)
    (offer,) = local.offers(Requirements())
    assert (offer.gpu, offer.gpu_count) == (Gpu("H100", 80, "SXM"), 4)


def test_it_is_asked_for_what_is_needed_and_without_a_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_smi(tmp_path, f'printf "%s\\n" "$@" >{tmp_path}/asked; echo "NVIDIA L4, 23034"', monkeypatch)
    assert installed_gpus() == [Gpu("L4", 22)]
    assert (tmp_path / "asked").read_text().split() == [
        "--query-gpu=name,memory.total",
        "--format=csv,noheader,nounits",
    ]


def test_of_different_gpus_the_most_frequent_are_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Local
) -> None:
    lines = ["NVIDIA T400, 2048", "NVIDIA GeForce RTX 4090, 24564", "NVIDIA GeForce RTX 4090, 24564"]
    fake_smi(tmp_path, "\n".join(f"echo '{line}'" for line in lines), monkeypatch)
    (offer,) = local.offers(Requirements())
    assert (str(offer.gpu), offer.gpu_count) == ("RTX4090-24", 2)


@pytest.mark.parametrize(
    "script",
    [
        "exit 9",
        "echo 'NVIDIA L4, 23034'; exit 15",
        "echo 'No devices were found'",
        "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
        "printf '\\377\\376, \\000\\n'",
        "kill -SEGV $$",
        "echo '[N/A], [N/A]'",
    ],
)
def test_an_nvidia_smi_that_fails_offers_the_machine_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Local, script: str
) -> None:
    fake_smi(tmp_path, script, monkeypatch)
    (offer,) = local.offers(Requirements())
    assert (offer.gpu, offer.gpu_count) == (None, 0)


def test_lines_that_are_no_gpu_do_not_hide_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_smi(
        tmp_path,
        "echo 'WARNING: infoROM is corrupted at gpu 0000:01:00.0'; echo 'NVIDIA L4, 23034'",
        monkeypatch,
    )
    assert installed_gpus() == [Gpu("L4", 22)]


def test_an_nvidia_smi_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_smi(tmp_path, 'echo $$ >"$0.pid"; sleep 1000 & echo $! >>"$0.pid"; wait', monkeypatch)
    assert installed_gpus(timeout_s=0.5) == []
    shell, child = map(int, (tmp_path / "bin" / "nvidia-smi.pid").read_text().split())
    assert not Path(f"/proc/{shell}").exists()
    os.kill(child, 9)


def test_no_nvidia_smi_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed_gpus() == []
    (tmp_path / "nvidia-smi").write_text("not a program")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert installed_gpus() == []
