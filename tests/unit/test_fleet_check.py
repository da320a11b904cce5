"""What a machine tells, compared with what was rented."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.errors import HostCheckFailed
from gpucloud.fleet.check import FATAL_XIDS, Finding, Report, judge, require
from gpucloud.model import Gpu, Market, Rental, RentalState, utcnow
from gpucloud.remote.hardware import Accelerator, Hardware, Xid, parse
from tests.harness import smi

GIB = 2**30
BARE = Hardware(disk_bytes=97 * GIB, disk_free_bytes=60 * GIB)
"""A machine without GPUs."""


def rental(gpu: str = "", count: int = 1, *, disk_gib: int | None = None) -> Rental:
    return Rental(
        token="gc-1",
        cluster_id=1,
        rank=0,
        state=RentalState.ACCEPTED,
        provider="somebody",
        instance_type="a-machine",
        market=Market.ON_DEMAND,
        intended_at=utcnow(),
        gpu=Gpu.parse(gpu) if gpu else None,
        gpu_count=count if gpu else 0,
        disk_gib=disk_gib,
    )


def machine(name: str) -> Hardware:
    """One of the fixtures, with room on its disk."""
    return on_disk(parse(smi.nvidia_report(name)))


def amd(tool: str, fixture: str) -> Hardware:
    text = (smi.FIXTURES / fixture).read_text()
    return on_disk(parse(smi.report({tool: (0, text)})))


def on_disk(hardware: Hardware) -> Hardware:
    return replace(hardware, disk_bytes=BARE.disk_bytes, disk_free_bytes=BARE.disk_free_bytes)


def findings(hardware: Hardware, rented: Rental) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge(hardware, rented)}


def failed(hardware: Hardware, rented: Rental) -> list[str]:
    return [finding.name for finding in judge(hardware, rented) if finding.ok is False]


def changed(hardware: Hardware, **facts: object) -> Hardware:
    """The same machine whose first GPU is otherwise."""
    first, *others = hardware.accelerators
    return replace(hardware, accelerators=(replace(first, **facts), *others))  # type: ignore[arg-type]


# -- the GPUs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gpu", "count"),
    [
        ("h100-sxm-8", "H100-SXM-80", 8),
        ("h100-sxm-8", "H100", 8),
        ("a100-pcie-2", "A100-PCIe-80", 2),
        ("rtx-4090-2", "RTX4090-24", 2),
        ("b200-2", "B200-192", 2),
        ("b200-2", "B200-SXM-180", 2),
        ("b200-2", "B200-SXM-179", 2),
        ("gh200", "GH200-96", 1),
        ("gh200", "GH200-480", 1),
        ("l4", "L4-24", 1),
        ("l4", "L4-22", 1),
    ],
)
def test_what_was_rented_is_found(name: str, gpu: str, count: int) -> None:
    found = findings(machine(name), rental(gpu, count))
    assert [finding.name for finding in found.values() if finding.ok is False] == []
    assert (found["gpu"].ok, found["gpu-count"].ok) == (True, True)


@pytest.mark.parametrize(
    ("name", "gpu", "count", "wrong"),
    [
        ("h100-sxm-8", "A100-SXM-80", 8, ["gpu"]),
        ("h100-sxm-8", "H100-PCIe-80", 8, ["gpu"]),
        ("a100-pcie-2", "A100-SXM-80", 2, ["gpu"]),
        ("a100-pcie-2", "A100-PCIe-80", 4, ["gpu-count"]),
        ("rtx-4090-2", "RTX4090-48", 2, ["gpu-memory"]),
        ("rtx-4090-2", "RTX5090-32", 2, ["gpu"]),
        ("gh200", "GH200-144", 1, ["gpu-memory"]),
        ("l4", "L40S-48", 1, ["gpu"]),
    ],
)
def test_what_was_not_rented_fails(name: str, gpu: str, count: int, wrong: list[str]) -> None:
    assert failed(machine(name), rental(gpu, count)) == wrong


def test_more_gpus_than_rented_are_fine_and_said() -> None:
    finding = findings(machine("h100-sxm-8"), rental("H100-SXM-80", 4))["gpu-count"]
    assert finding == Finding("gpu-count", True, "4", "8", "more than were rented")


def test_gpus_of_another_chip_do_not_count() -> None:
    hardware = changed(machine("h100-sxm-8"), name="NVIDIA A100-SXM4-80GB", memory_mib=81920)
    found = findings(hardware, rental("H100-SXM-80", 8))
    assert (found["gpu"].found, found["gpu-count"].ok) == ("1 x A100-SXM-80, 7 x H100-SXM-80", False)


def test_one_gpu_with_less_memory_fails_all() -> None:
    assert failed(changed(machine("a100-pcie-2"), memory_mib=40960), rental("A100-PCIe-80", 2)) == [
        "gpu-memory"
    ]


def test_more_memory_than_rented_is_only_said() -> None:
    hardware = changed(machine("l4"), memory_mib=49140)
    finding = findings(hardware, rental("L4-24"))["gpu-memory"]
    assert finding == Finding("gpu-memory", None, "24 GiB", "48 GiB", "more than was rented")


def test_memory_that_is_not_told_is_unknown() -> None:
    hardware = changed(machine("l4"), memory_mib=None)
    assert findings(hardware, rental("L4-24"))["gpu-memory"].ok is None


@pytest.mark.parametrize(
    ("trouble", "detail"),
    [
        ("", "neither nvidia-smi nor rocm-smi is there"),
        ("nvidia-smi: No devices were found", "nvidia-smi: No devices were found"),
    ],
)
def test_no_gpu_at_all_fails_and_says_why(trouble: str, detail: str) -> None:
    hardware = replace(BARE, trouble=trouble)
    found = findings(hardware, rental("H100-SXM-80", 8))
    assert list(found) == ["gpu", "disk"]
    assert found["gpu"] == Finding("gpu", False, "8 x H100-SXM-80", "none", detail)


@pytest.mark.parametrize("chip", ["TPUv5e", "Trainium2", "Gaudi3", "Inferentia2"])
def test_what_no_tool_of_ours_can_see_is_unknown(chip: str) -> None:
    assert findings(BARE, rental(chip))["gpu"].ok is None


@pytest.mark.parametrize(
    ("rented", "name", "ok"),
    [
        ("RTXPRO4500-32", "NVIDIA RTX PRO 4500 Blackwell", True),
        ("GB10", "NVIDIA GB10", True),
        ("RTX4090LaptopGPU-16", "NVIDIA GeForce RTX 4090 Laptop GPU", True),
        ("Zeta900", "NVIDIA Graphics Device", None),
        ("H100-80", "NVIDIA Graphics Device", False),
    ],
)
def test_of_a_chip_that_nobody_knows_its_words_count(rented: str, name: str, ok: bool | None) -> None:
    hardware = replace(BARE, tool="nvidia-smi", accelerators=(Accelerator(name),))
    assert findings(hardware, rental(rented))["gpu"].ok is ok


def test_amd_s_gpus_are_judged_the_same() -> None:
    hardware = amd("rocm-smi", "mi300x-8.json")
    assert failed(hardware, rental("MI300X-OAM-192", 8)) == []
    assert failed(hardware, rental("MI325X-256", 8)) == ["gpu"]
    assert failed(hardware, rental("MI300X-OAM-192", 16)) == ["gpu-count"]
    assert set(findings(hardware, rental("MI300X-OAM-192", 8))) == {"gpu", "gpu-count", "gpu-memory", "disk"}
    assert failed(amd("amd-smi", "mi350x-amd-smi.json"), rental("MI350X-288")) == []


def test_an_mi250_is_two_dies() -> None:
    found = findings(amd("rocm-smi", "mi250-2.json"), rental("MI250-128", 1))
    assert (found["gpu-count"].found, found["gpu-memory"].found) == ("1", "128 GiB")
    assert failed(amd("rocm-smi", "mi250-2.json"), rental("MI250-128", 2)) == ["gpu-count"]


def test_a_name_that_is_two_chips_is_either() -> None:
    hardware = replace(BARE, tool="rocm-smi", accelerators=(Accelerator("AMD Instinct MI250X / MI250"),))
    assert findings(hardware, rental("MI250-128"))["gpu"].ok is True
    assert findings(hardware, rental("MI250X-128"))["gpu"].ok is True


# -- their health -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "need", "ok"),
    [
        ((12, 4), (12, 4), True),
        ((13, 0), (12, 8), True),
        ((12, 2), (12, 4), None),
        ((12, 10), (12, 9), True),
        ((11, 8), (12, 4), False),
        ((10, 1), (10, 2), False),
        ((12, 4), None, True),
        (None, (12, 4), None),
        (None, None, None),
    ],
)
def test_the_driver_must_be_as_new_as_the_image(
    have: tuple[int, int] | None, need: tuple[int, int] | None, ok: bool | None
) -> None:
    hardware = replace(machine("h100-sxm-8"), driver_cuda=have, image_cuda=need)
    assert findings(hardware, rental("H100-SXM-80", 8))["driver"].ok is ok


def test_a_compiler_that_is_newer_than_the_driver_is_only_a_warning() -> None:
    hardware = replace(machine("h100-sxm-8"), driver_cuda=(12, 4), toolkit_cuda=(13, 0))
    assert findings(hardware, rental("H100-SXM-80", 8))["driver"].ok is None
    hardware = replace(hardware, image_cuda=(12, 4))
    assert findings(hardware, rental("H100-SXM-80", 8))["driver"].ok is True


@pytest.mark.parametrize(("errors", "ok"), [(0, True), (1, False), (17, False), (None, True)])
def test_memory_that_was_found_damaged_fails(errors: int | None, ok: bool) -> None:
    hardware = changed(machine("h100-sxm-8"), ecc_volatile=errors)
    assert findings(hardware, rental("H100-SXM-80", 8))["ecc"].ok is ok


def test_memory_whose_errors_are_not_counted_is_unknown() -> None:
    assert findings(machine("rtx-4090-2"), rental("RTX4090-24", 2))["ecc"].ok is None


def test_errors_of_its_life_are_said() -> None:
    hardware = changed(machine("h100-sxm-8"), ecc_aggregate=3)
    assert findings(hardware, rental("H100-SXM-80", 8))["ecc"] == Finding(
        "ecc", True, "0 errors", "0 errors", "3 errors in its life"
    )


@pytest.mark.parametrize("code", [*sorted(FATAL_XIDS), 13, 31, 43])
@pytest.mark.parametrize("ours", [True, False])
def test_errors_that_the_driver_logged(code: int, ours: bool) -> None:
    seen = Xid(code, "0000:18:00" if ours else "0000:77:00", f"NVRM: Xid: {code}")
    finding = findings(replace(machine("h100-sxm-8"), xids=(seen,)), rental("H100-SXM-80", 8))["xid"]
    assert finding.ok is (False if ours and code in FATAL_XIDS else None)
    assert (finding.found, finding.detail) == (f"1 x {code}", f"NVRM: Xid: {code}")


def test_an_error_counts_when_it_is_not_known_which_gpu_is_ours() -> None:
    hardware = replace(changed(machine("l4"), bus_id=None), xids=(Xid(79, "0000:77:00", "lost"),))
    assert failed(hardware, rental("L4-24")) == ["xid"]


def test_a_log_without_errors_and_one_that_cannot_be_read() -> None:
    rented = rental("L4-24")
    assert findings(replace(machine("l4"), xids=()), rented)["xid"].ok is True
    assert findings(replace(machine("l4"), xids=None), rented)["xid"].ok is None


@pytest.mark.parametrize(
    ("width", "most", "ok"), [(16, 16, True), (8, 16, None), (1, 16, None), (None, 16, None), (0, 16, None)]
)
def test_a_narrow_link_is_only_a_warning(width: int | None, most: int, ok: bool | None) -> None:
    hardware = changed(machine("l4"), pcie_width=width, pcie_width_max=most)
    assert findings(hardware, rental("L4-24"))["pcie"].ok is ok


def test_the_narrowest_link_is_told() -> None:
    finding = findings(machine("rtx-4090-2"), rental("RTX4090-24", 2))["pcie"]
    assert (finding.ok, finding.expected, finding.found) == (None, "x16", "x8")


@pytest.mark.parametrize(
    ("mhz", "held_back", "ok"),
    [
        (1980, None, True),
        (1188, None, True),
        (1187, None, False),
        (1187, True, False),
        (1187, False, None),
        (None, None, None),
    ],
)
def test_the_clock_under_load(mhz: int | None, held_back: bool | None, ok: bool | None) -> None:
    hardware = replace(machine("h100-sxm-8"), load_asked=True)
    hardware = changed(hardware, loaded_mhz=mhz, held_back=held_back)
    assert findings(hardware, rental("H100-SXM-80", 8))["clock"].ok is ok


def test_without_a_load_no_clock_is_judged() -> None:
    assert "clock" not in findings(machine("l4"), rental("L4-24"))


# -- the rest of the machine ------------------------------------------------------------------------


@pytest.mark.parametrize("hardware", [BARE, machine("h100-sxm-8"), replace(BARE, trouble="x")])
def test_without_a_rented_gpu_only_the_disk_counts(hardware: Hardware) -> None:
    assert [(finding.name, finding.ok) for finding in judge(hardware, rental())] == [("disk", True)]


@pytest.mark.parametrize(
    ("size", "free", "asked", "ok"),
    [
        (97, 60, 100, True),
        (500, 120, 100, True),
        (2000, 90, 100, True),
        (50, 45, 100, False),
        (84, 84, 100, False),
        (85, 10, 100, True),
        (500, 9, 100, False),
        (10, 0, None, True),
        (None, None, 100, None),
    ],
)
def test_the_disk_must_be_as_large_as_was_asked_for(
    size: int | None, free: int | None, asked: int | None, ok: bool | None
) -> None:
    hardware = Hardware(
        disk_bytes=None if size is None else size * GIB,
        disk_free_bytes=None if free is None else free * GIB,
    )
    assert findings(hardware, rental(disk_gib=asked))["disk"].ok is ok


def test_a_download_is_told_where_it_was_asked_for() -> None:
    came = replace(BARE, download_asked=True, download_bytes_per_s=50 * 2**20)
    assert findings(came, rental())["download"] == Finding("download", True, None, "50.0 MiB/s")
    failed_one = replace(BARE, download_asked=True, download_trouble="nothing came")
    assert findings(failed_one, rental())["download"] == Finding("download", None, None, None, "nothing came")


# -- the verdict ------------------------------------------------------------------------------------


def report(hardware: Hardware, rented: Rental) -> Report:
    return Report("train", hardware, judge(hardware, rented))


def test_a_good_machine_passes() -> None:
    require(report(machine("h100-sxm-8"), rental("H100-SXM-80", 8)))


def test_a_bad_one_is_told_in_three_lines() -> None:
    with pytest.raises(HostCheckFailed) as caught:
        require(report(machine("a100-pcie-2"), rental("A100-PCIe-80", 4)))
    assert caught.value.message == "train is not what was rented, or not well"
    assert caught.value.why == "gpu-count: expected 4, found 2"
    assert caught.value.hint == "gpucloud down ends it; gpucloud ssh, to look there"


@given(
    st.sampled_from(["h100-sxm-8", "rtx-4090-2", "l4"]),
    st.sampled_from(["H100-SXM-80", "RTX4090-24", "L4", "TPUv5e", "Zeta900", "MI250-128"]),
    st.integers(0, 16),
    st.builds(
        Accelerator,
        st.text(min_size=1),
        memory_mib=st.none() | st.integers(0, 10**18),
        pcie_width=st.none() | st.integers(0, 64),
        pcie_width_max=st.none() | st.integers(0, 64),
        loaded_mhz=st.none() | st.integers(0, 10**6),
        sm_max_mhz=st.none() | st.integers(0, 10**6),
    ),
)
def test_whatever_a_machine_tells_is_judged(name: str, gpu: str, count: int, odd: Accelerator) -> None:
    hardware = replace(machine(name), load_asked=True)
    hardware = replace(hardware, accelerators=(*hardware.accelerators, odd))
    names = [finding.name for finding in judge(hardware, replace(rental(gpu), gpu_count=count))]
    assert names[0] == "gpu"
    assert names[-1] == "disk"
    assert len(names) == len(set(names))
