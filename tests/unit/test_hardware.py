"""What a machine tells of its hardware: the script that asks its tools, and the reading of what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

import gpucloud.remote
from gpucloud.errors import RemoteError
from gpucloud.remote.hardware import Accelerator, Hardware, parse
from tests.harness import smi
from tests.harness.host_sh import HostSh
from tests.harness.waiting import eventually

SCRIPT = Path(gpucloud.remote.__file__).with_name("check.sh")
BUSY = """\
index, clocks.sm, clocks.max.sm, clocks_throttle_reasons.active, memory.total, name
0, 1590, 1980, 0x0000000000000004, 81559, NVIDIA H100 80GB HBM3
1, 1140, 1980, 0x0000000000000040, 81559, NVIDIA H100 80GB HBM3
"""


def run(host: HostSh, *words: str, status: int = 0) -> bytes:
    """What the script prints there, which leaves no file behind."""
    scratch = host.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    done = subprocess.run(
        [host.bin / "sh", "-s", "--", *words],
        input=SCRIPT.read_bytes(),
        env={**host.env, "TMPDIR": str(scratch)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert list(scratch.iterdir()) == []
    return done.stdout


def told(host: HostSh, *words: str) -> Hardware:
    return parse(run(host, *words))


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- the script -------------------------------------------------------------------------------------


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "--shell=sh", SCRIPT], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_is_one_file_that_says_it_is_sh() -> None:
    lines = SCRIPT.read_text().splitlines()
    assert lines[0] == "#!/bin/sh"
    assert max(map(len, lines)) <= 110


def test_what_python_is_to_run_is_python() -> None:
    program = SCRIPT.read_text().partition("LOAD='\n")[2].partition("'\n")[0]
    assert "import torch" in program
    compile(program, "load", "exec")


def test_a_machine_without_gpu_tools_tells_the_rest(host_sh: HostSh) -> None:
    hardware = told(host_sh)
    assert (hardware.accelerators, hardware.tool, hardware.trouble) == ((), None, "")
    assert (hardware.load_asked, hardware.download_asked) == (False, False)
    space = os.statvfs(host_sh.home)
    assert hardware.disk_bytes is not None
    assert abs(hardware.disk_bytes - space.f_blocks * space.f_frsize) <= 1024
    assert 0 <= (hardware.disk_free_bytes or -1) < hardware.disk_bytes
    assert hardware.cores == os.cpu_count()
    assert hardware.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert (hardware.kernel or "").startswith(f"Linux {os.uname().release} ")


@pytest.mark.parametrize(
    ("machine", "name", "count", "mib", "cuda"),
    [
        ("h100-sxm-8", "NVIDIA H100 80GB HBM3", 8, 81559, (12, 4)),
        ("a100-pcie-2", "NVIDIA A100 80GB PCIe", 2, 81920, (12, 2)),
        ("rtx-4090-2", "NVIDIA GeForce RTX 4090", 2, 24564, (13, 0)),
        ("b200-2", "NVIDIA B200", 2, 183359, (13, 3)),
        ("gh200", "NVIDIA GH200 480GB", 1, 97871, (12, 4)),
        ("l4", "NVIDIA L4", 1, 23034, (12, 8)),
    ],
)
def test_every_gpu_is_told(
    host_sh: HostSh, machine: str, name: str, count: int, mib: int, cuda: tuple[int, int]
) -> None:
    smi.nvidia_smi(host_sh.bin, machine)
    hardware = told(host_sh)
    assert [(gpu.index, gpu.name, gpu.memory_mib) for gpu in hardware.accelerators] == [
        (n, name, mib) for n in range(count)
    ]
    assert (hardware.tool, hardware.driver_cuda, hardware.trouble) == ("nvidia-smi", cuda, "")


def test_of_a_gpu_everything_is_read(host_sh: HostSh) -> None:
    smi.nvidia_smi(host_sh.bin, "h100-sxm-8")
    hardware = told(host_sh)
    assert hardware.driver == "550.54.15"
    assert hardware.accelerators[1] == Accelerator(
        name="NVIDIA H100 80GB HBM3",
        index=1,
        memory_mib=81559,
        bus_id="0000:2a:00",
        uuid="GPU-00000000-0000-0000-0000-000000000001",
        pcie_width=16,
        pcie_width_max=16,
        pcie_gen_max=5,
        sm_mhz=345,
        sm_max_mhz=1980,
        ecc_volatile=0,
        ecc_aggregate=0,
        temperature_c=28,
        utilization=0,
    )


def test_what_the_driver_does_not_know_is_left_out(host_sh: HostSh) -> None:
    table = host_sh.folder / "old.csv"
    table.write_text("index, name, memory.total\n0, Tesla V100-SXM2-16GB, 16384\n")
    smi.nvidia_smi(host_sh.bin, str(table.with_suffix("")))
    (gpu,) = told(host_sh).accelerators
    assert gpu == Accelerator("Tesla V100-SXM2-16GB", index=0, memory_mib=16384)


@pytest.mark.parametrize(
    ("fixture", "status", "said"),
    [
        ("driver-mismatch.txt", 18, "Failed to initialize NVML: Driver/library version mismatch"),
        ("no-devices.txt", 6, "No devices were found"),
        ("no-devices.txt", 0, "No devices were found"),
    ],
)
def test_a_tool_that_fails_is_told_with_its_words(
    host_sh: HostSh, fixture: str, status: int, said: str
) -> None:
    smi.printing(host_sh.bin, "nvidia-smi", fixture, status)
    hardware = told(host_sh)
    assert (hardware.accelerators, hardware.trouble) == ((), f"nvidia-smi: {said}")


@pytest.mark.parametrize("tools", [["nvidia-smi"], ["nvidia-smi", "rocm-smi", "amd-smi", "dmesg", "df"]])
def test_a_tool_that_hangs_is_killed_and_the_rest_goes_on(host_sh: HostSh, tools: list[str]) -> None:
    for tool in tools:
        smi.hanging(host_sh.bin, tool)
    hardware = told(host_sh, "limit=1")
    assert hardware.trouble == "nvidia-smi: it did not answer in time"
    assert hardware.kernel
    pids = [int(pid) for tool in tools for pid in (host_sh.bin / f"{tool}.pid").read_text().split()]
    assert len(pids) >= 2 * len(tools)
    eventually(lambda: not any(map(alive, pids)))


def test_a_tool_that_hangs_is_given_up_without_setsid_too(host_sh: HostSh) -> None:
    host_sh.lose_tools("setsid")
    smi.hanging(host_sh.bin, "nvidia-smi")
    hardware = told(host_sh, "limit=1")
    assert hardware.trouble == "nvidia-smi: it did not answer in time"


def test_amd_s_tool_is_asked_too(host_sh: HostSh) -> None:
    smi.printing(host_sh.bin, "rocm-smi", "mi300x-8.json")
    hardware = told(host_sh)
    assert [gpu.name for gpu in hardware.accelerators] == ["AMD Instinct MI300X"] * 8
    assert {gpu.memory_gib for gpu in hardware.accelerators} == {192}
    assert (hardware.tool, hardware.driver, hardware.driver_cuda) == ("rocm-smi", "6.10.5", None)


def test_amd_s_newer_tool_is_asked_where_the_older_one_is_missing(host_sh: HostSh) -> None:
    smi.printing(host_sh.bin, "amd-smi", "mi350x-amd-smi.json")
    hardware = told(host_sh)
    assert [(gpu.name, gpu.memory_gib) for gpu in hardware.accelerators] == [("AMD Instinct MI350X", 288)]
    assert (hardware.tool, hardware.driver) == ("amd-smi", "6.18.3")


def test_errors_in_the_kernel_s_log_are_told(host_sh: HostSh) -> None:
    smi.printing(host_sh.bin, "dmesg", "xid.txt")
    xids = told(host_sh).xids
    assert xids is not None
    assert [(xid.code, xid.bus_id) for xid in xids] == [
        (31, "0000:01:00"),
        (63, "0000:18:00"),
        (94, "0000:9b:00"),
    ]
    assert xids[2].line.endswith("94, pid=1234, name=python3, Contained ECC error")


def test_a_log_that_may_not_be_read_is_unknown(host_sh: HostSh) -> None:
    host_sh.tool("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    assert told(host_sh).xids is None


@pytest.mark.parametrize(("environment", "wanted"), [("12.4.1", (12, 4)), ("none", None), ("", None)])
def test_the_image_s_cuda_is_told(host_sh: HostSh, environment: str, wanted: tuple[int, int] | None) -> None:
    if Path("/usr/local/cuda/version.json").exists():
        pytest.skip("this machine has a CUDA of its own")
    host_sh.env["CUDA_VERSION"] = environment
    host_sh.tool("nvcc", "echo 'Cuda compilation tools, release 11.8, V11.8.89'")
    hardware = told(host_sh)
    assert (hardware.image_cuda, hardware.toolkit_cuda) == (wanted, (11, 8))


def test_clocks_are_read_while_the_gpus_work(host_sh: HostSh) -> None:
    table = host_sh.folder / "busy.csv"
    table.write_text(BUSY)
    smi.nvidia_smi(host_sh.bin, str(table.with_suffix("")))
    host_sh.tool("python3", ': >"$4"; sleep 2\n')
    hardware = told(host_sh, "load=2")
    assert [(gpu.loaded_mhz, gpu.held_back) for gpu in hardware.accelerators] == [(1590, False), (1140, True)]
    assert (hardware.load_asked, hardware.load_trouble) == (True, "")


def test_where_nothing_can_load_the_gpus_their_clock_is_unknown(host_sh: HostSh) -> None:
    smi.nvidia_smi(host_sh.bin, "l4")
    host_sh.tool("python3", "echo \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1\n")
    hardware = told(host_sh, "load=5")
    assert [gpu.loaded_mhz for gpu in hardware.accelerators] == [None]
    assert hardware.load_trouble == "nothing there can put a load on it"


@pytest.mark.parametrize("lost", [(), ("curl",)])
def test_a_download_is_measured(host_sh: HostSh, httpserver: HTTPServer, lost: tuple[str, ...]) -> None:
    if lost:
        host_sh.lose_tools(*lost)
    httpserver.expect_request("/file").respond_with_data(b"x" * 1_000_000)
    hardware = told(host_sh, f"download={httpserver.url_for('/file')}")
    assert hardware.download_trouble == ""
    assert 0 < (hardware.download_bytes_per_s or 0) <= 100_000_000


def test_a_download_that_fails_says_why(host_sh: HostSh, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/file").respond_with_data(b"not here", status=404)
    hardware = told(host_sh, f"download={httpserver.url_for('/file')}")
    assert hardware.download_bytes_per_s is None
    assert hardware.download_trouble.startswith("nothing came: ")


def test_without_a_tool_nothing_is_downloaded(host_sh: HostSh) -> None:
    host_sh.lose_tools("curl", "wget")
    assert told(host_sh, "download=http://127.0.0.1:1/").download_trouble == "there is neither curl nor wget"


def test_an_unknown_word_is_refused(host_sh: HostSh) -> None:
    assert run(host_sh, "frobnicate=1", status=64) == b""


# -- the reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell", ["[N/A]", "[Not Supported]", "[Unknown Error]", "ERR!", "", "-1", "²", "9" * 40]
)
def test_what_is_no_number_is_unknown(cell: str) -> None:
    row = f"0, {cell}, {cell}, NVIDIA L4"
    fields = "index,memory.total,ecc.errors.uncorrected.volatile.total,name"
    (gpu,) = parse(smi.report({"nvidia-smi.fields": (0, fields), "nvidia-smi": (0, row)})).accelerators
    assert gpu == Accelerator("NVIDIA L4", index=0)


def test_the_rows_of_gpus_count_and_not_the_warnings_among_them() -> None:
    rows = "WARNING: infoROM is corrupted at gpu 0000:01:00.0\n0, NVIDIA L4\n"
    hardware = parse(smi.report({"nvidia-smi.fields": (0, "index,name"), "nvidia-smi": (0, rows)}))
    assert [gpu.name for gpu in hardware.accelerators] == ["NVIDIA L4"]


@pytest.mark.parametrize("status", [1, 124, 255])
def test_what_a_tool_prints_when_it_fails_is_no_gpu(status: int) -> None:
    rows = smi.report({"nvidia-smi.fields": (0, "index,name"), "nvidia-smi": (status, "0, NVIDIA L4")})
    assert parse(rows).accelerators == ()
    assert parse(rows).trouble


def test_a_tool_cannot_open_a_section_of_its_own() -> None:
    forged = "x\n#nvidia-smi.fields 0\r#end 0"
    hardware = parse(smi.report({"machine": (0, forged), "dmesg": (0, "#dmesg 1")}))
    assert (hardware.xids, hardware.accelerators) == ((), ())


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ("| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4 |", (12, 4)),
        ("| NVIDIA-SMI 610.43.02    KMD Version: 610.43.02    CUDA UMD Version: 13.3 |", (13, 3)),
        ("CUDA Version                              : 11.0", (11, 0)),
        ("| NVIDIA-SMI 580.105.06   Driver Version: 580.105.06   CUDA Version: N/A |", None),
        ("CUDA Version                              : Not Found", None),
        ("| NVIDIA-SMI 390.157      Driver Version: 390.157 |", None),
    ],
)
def test_the_driver_s_cuda_is_in_the_head_of_the_table(table: str, wanted: tuple[int, int] | None) -> None:
    assert parse(smi.report({"nvidia-smi.table": (0, table)})).driver_cuda == wanted


def test_the_image_s_cuda_is_in_its_own_file() -> None:
    text = '{\n   "cuda" : {\n      "name" : "CUDA SDK",\n      "version" : "12.4.20240301"\n   },\n'
    assert parse(smi.report({"cuda": (0, f"CUDA_VERSION=\n{text}")})).image_cuda == (12, 4)


def test_samples_of_a_gpu_at_rest_do_not_count() -> None:
    fields = (0, "index,clocks.sm,clocks_event_reasons.active")
    samples = [(0, "0, 345, 0x0000000000000001"), (0, "0, 1700, 0x0"), (0, "0, 1800, 0x4"), (124, "0, 9")]
    gpu = [("nvidia-smi.fields", (0, "index,name")), ("nvidia-smi", (0, "0, NVIDIA L4"))]
    load = [pair for each in samples for pair in (("load.sample.fields", fields), ("load.sample", each))]
    (read,) = parse(smi.report([*gpu, *load, ("load", (0, ""))])).accelerators
    assert (read.loaded_mhz, read.held_back) == (1700, False)


@pytest.mark.parametrize(
    "report", [b"", b"#gpucloud-check 1\n#machine 0\n", b"#end 0\n", b"bash: not found\n"]
)
def test_a_report_that_is_not_all_there_is_an_error(report: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        parse(report)
    assert caught.value.why
    assert caught.value.hint


SECTIONS = (
    *("machine", "disk", "cuda", "nvcc", "nvidia-smi.fields", "nvidia-smi", "nvidia-smi.table"),
    *("rocm-smi", "amd-smi", "dmesg", "load.sample.fields", "load.sample", "load", "download"),
)
PIECES = st.sampled_from(
    [
        *(
            "index,name",
            "0, NVIDIA L4",
            "clocks.sm",
            "0x4",
            "[N/A]",
            ",",
            "{",
            "}",
            "[",
            "]",
            '"card0":',
            '"',
        ),
        *('{"card0": {"Card Series": 1}}', '{"gpu_data": [{"asic": {"market_name": "x"}}]}', "[" * 5000),
        *(
            "NVRM: Xid (PCI:0000:01:00): 79",
            "hundredths=0",
            "12",
            "CUDA Version: 12.4",
            "/dev/x 1 2 3 4%",
            "\n",
        ),
    ]
)
TEXTS = st.text() | st.lists(PIECES | st.text(max_size=3)).map("".join)


@given(st.binary())
def test_no_bytes_whatever_are_another_exception(report: bytes) -> None:
    with pytest.raises(RemoteError):
        parse(report)


@given(st.lists(st.tuples(st.sampled_from(SECTIONS), st.tuples(st.integers(0, 255), TEXTS))))
def test_no_output_of_a_tool_is_an_exception(sections: list[tuple[str, tuple[int, str]]]) -> None:
    hardware = parse(smi.report(sections).replace(b"\xed\xa0\x80", b""))
    assert all(gpu.name for gpu in hardware.accelerators)
    assert all(xid.code >= 0 for xid in hardware.xids or ())
