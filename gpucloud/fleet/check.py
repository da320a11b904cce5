"""Whether a machine is what was rented, and well: what it tells of itself, compared with its rental."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.catalog.gpus import by_chip
from gpucloud.catalog.names import normalise
from gpucloud.errors import HostCheckFailed
from gpucloud.fleet import Fleet
from gpucloud.model import Event, Gpu, Rental, fold, same_memory
from gpucloud.quantities import format_bytes, format_count

if TYPE_CHECKING:
    from gpucloud.remote.hardware import Accelerator, Hardware, Xid
    from gpucloud.remote.host import Host

FATAL_XIDS: Final = frozenset({48, 63, 64, 74, 79, 94, 95})
"""Errors of the GPU itself, its memory or its links, after which NVIDIA wants it to be reset or replaced:
https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html and
https://docs.nvidia.com/health-validation/reference/checks/xid.md, read on 2026-11-21."""

SLOWEST: Final = Decimal("0.6")
"""The part of its highest clock that a GPU must keep under load."""

FILE_SYSTEM: Final = Decimal("0.85")
"""What is left of a disk that was sold in GB once it is counted in GiB and has a file system."""

FREE: Final = Decimal("0.1")
"""The part of the disk that was asked for that an image must leave free."""

DIES: Final = {"mi250": 2, "mi250x": 2}
"""Chips that a machine shows as several GPUs, each with its part of the memory."""

ASKABLE: Final = {"nvidia", "amd"}
"""The makers whose tools we know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``ok`` is ``None`` when it is not known, or no more than a warning.

    ``expected`` and ``found`` are for people, and ``detail`` is why it is so.
    """

    name: str
    ok: bool | None
    expected: str | None = None
    found: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check of one machine, which messages call ``label``, has found."""

    label: str
    hardware: Hardware
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """What is surely not as it must be."""
        return tuple(finding for finding in self.findings if finding.ok is False)


def inspect(
    fleet: Fleet,
    rental: Rental,
    host: Host,
    *,
    label: str,
    load: timedelta | None = None,
    download: str = "",
) -> Report:
    """Look at a machine that answers; takes some seconds, and with ``load`` or ``download`` as long as these.

    Raises:
        HostUnreachable: when the connection is lost.
        RemoteError: when nothing can be run there.
    """
    from gpucloud.remote.hardware import survey

    fleet.tell(Event("checking", f"{label}: whether it is what was rented"))
    hardware = survey(host, load=load, download=download)
    return Report(label, hardware, judge(hardware, rental))


def require(report: Report) -> None:
    """Return when nothing is wrong.

    Raises:
        HostCheckFailed: when something is.
    """
    if report.failed:
        raise HostCheckFailed(
            f"{report.label} is not what was rented, or not well",
            why="; ".join(map(_told, report.failed)),
            hint="gpucloud down ends it; gpucloud ssh, to look there",
        )


def judge(hardware: Hardware, rental: Rental) -> tuple[Finding, ...]:
    """Compare what a machine tells with what was rented; without a GPU only its disk counts."""
    return (*_gpu(hardware, rental), _disk(hardware, rental), *_download(hardware))


def _told(finding: Finding) -> str:
    expected = f"expected {finding.expected}, " if finding.expected else ""
    detail = f" ({finding.detail})" if finding.detail else ""
    return f"{finding.name}: {expected}found {finding.found}{detail}"


def _gpu(hardware: Hardware, rental: Rental) -> Iterator[Finding]:
    if rental.gpu is None:
        return
    wanted = normalise(str(rental.gpu)) or rental.gpu
    ours = [gpu for gpu in hardware.accelerators if _is(gpu, wanted)]
    yield _chip(hardware, rental, wanted, ours)
    if not ours:
        return
    yield from _amount(rental, wanted, ours)
    if hardware.tool == "nvidia-smi":
        yield _driver(hardware)
        yield _ecc(ours)
        yield _xid(hardware, ours)
        yield _pcie(ours)
    if hardware.load_asked:
        yield _clock(hardware, ours)


def _chip(hardware: Hardware, rental: Rental, wanted: Gpu, ours: Sequence[Accelerator]) -> Finding:
    """Whether there are GPUs of that chip, in the form in which they were rented."""
    expected = f"{rental.gpu_count} x {rental.gpu}"
    kinds = Counter(str(_named(gpu) or gpu.name) for gpu in hardware.accelerators)
    found = ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "none"
    if not hardware.accelerators:
        known = by_chip().get(wanted.key, ())
        if not hardware.trouble and known and known[0].vendor not in ASKABLE:
            return Finding("gpu", None, expected, None, "its maker has no tool that gpucloud knows")
        detail = hardware.trouble or "neither nvidia-smi nor rocm-smi is there"
        return Finding("gpu", False, expected, found, detail)
    if not ours:
        # Only of a chip that we know can we say that another name is not its.
        return Finding("gpu", False if wanted.key in by_chip() else None, expected, found)
    forms = {gpu.form_factor for each in ours if (gpu := _named(each)) and gpu.form_factor}
    wrong = wanted.form_factor is not None and bool(forms - {wanted.form_factor})
    return Finding("gpu", not wrong, expected, found, "it is another form of that chip" if wrong else "")


def _amount(rental: Rental, wanted: Gpu, ours: Sequence[Accelerator]) -> Iterator[Finding]:
    """How many there are, and how much memory each has."""
    count, memory = len(ours), min((gpu.memory_gib for gpu in ours if gpu.memory_gib), default=None)
    dies = DIES.get(wanted.key, 1)
    if memory and wanted.memory_gib and same_memory(memory * dies, wanted.memory_gib):
        count, memory = count // dies, memory * dies
    more = "more than were rented" if count > rental.gpu_count else ""
    yield Finding("gpu-count", count >= rental.gpu_count, str(rental.gpu_count), str(count), more)
    if wanted.memory_gib is None:
        return
    expected = f"{wanted.memory_gib} GiB"
    if memory is None:
        yield Finding("gpu-memory", None, expected, None, "the GPU does not tell")
    elif same_memory(memory, wanted.memory_gib):
        yield Finding("gpu-memory", True, expected, f"{memory} GiB")
    elif memory < wanted.memory_gib:
        yield Finding("gpu-memory", False, expected, f"{memory} GiB")
    else:
        # A part of a GPU may show the memory of the whole.
        yield Finding("gpu-memory", None, expected, f"{memory} GiB", "more than was rented")


def _driver(hardware: Hardware) -> Finding:
    """Whether programs made with the image's CUDA can run.

    Those of a later minor version run with limits from CUDA 11 on, as NVIDIA says (read on 2026-11-21):
    https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
    """
    have, need = hardware.driver_cuda, hardware.image_cuda or hardware.toolkit_cuda
    found = " ".join(filter(None, (hardware.driver, f"CUDA {_dotted(have)}" if have else None))) or None
    expected = f"CUDA {_dotted(need)}" if need else None
    if have is None:
        return Finding("driver", None, expected, found, "the driver does not tell its CUDA version")
    if need is None or have >= need:
        return Finding("driver", True, expected, found)
    if have[0] == need[0] >= 11:
        return Finding("driver", None, expected, found, "a little older than the image: most programs run")
    if hardware.image_cuda is None:
        # Nothing has to be built with it: most programs bring what they need.
        return Finding("driver", None, expected, found, "too old for the CUDA compiler that is there")
    return Finding("driver", False, expected, found, "too old for the CUDA of the image")


def _ecc(ours: Sequence[Accelerator]) -> Finding:
    """Whether memory was found damaged since the driver was loaded."""
    counted = [gpu.ecc_volatile for gpu in ours if gpu.ecc_volatile is not None]
    ever = sum(gpu.ecc_aggregate or 0 for gpu in ours)
    if not counted:
        return Finding("ecc", None, "0 errors", None, "the GPU does not count them")
    detail = f"{format_count(ever, 'error')} in its life" if ever else ""
    return Finding("ecc", sum(counted) == 0, "0 errors", format_count(sum(counted), "error"), detail)


def _xid(hardware: Hardware, ours: Sequence[Accelerator]) -> Finding:
    """What went wrong since the machine was started; a container may see the log of GPUs of others."""
    if hardware.xids is None:
        return Finding("xid", None, "none", None, "the kernel's log cannot be read")
    places = {gpu.bus_id for gpu in ours}
    mine = [xid for xid in hardware.xids if None in places or xid.bus_id in places]
    fatal = [xid for xid in mine if xid.code in FATAL_XIDS]
    if fatal:
        return Finding("xid", False, "none", _codes(fatal), fatal[-1].line)
    if hardware.xids:
        return Finding("xid", None, "none", _codes(hardware.xids), hardware.xids[-1].line)
    return Finding("xid", True, "none", "none")


def _pcie(ours: Sequence[Accelerator]) -> Finding:
    """How wide the link to the machine is; no more than a warning, as it may be less while idle."""
    known = [(gpu.pcie_width, gpu.pcie_width_max) for gpu in ours if gpu.pcie_width and gpu.pcie_width_max]
    if not known:
        return Finding("pcie", None, None, None, "the GPU does not tell")
    width, most = min(known, key=lambda pair: Decimal(pair[0]) / pair[1])
    if width >= most:
        return Finding("pcie", True, f"x{most}", f"x{width}")
    return Finding("pcie", None, f"x{most}", f"x{width}", "data comes to the GPU more slowly")


def _clock(hardware: Hardware, ours: Sequence[Accelerator]) -> Finding:
    """Whether the GPUs keep their clock at work. Small ones may be held back by their own power limit."""
    known = [gpu for gpu in ours if gpu.loaded_mhz is not None and gpu.sm_max_mhz]
    if not known:
        return Finding("clock", None, None, None, hardware.load_trouble or "no clock could be read")
    slowest = min(known, key=lambda gpu: Decimal(gpu.loaded_mhz or 0) / (gpu.sm_max_mhz or 1))
    expected = f"{int(SLOWEST * 100)} % of {slowest.sm_max_mhz} MHz"
    found = f"{slowest.loaded_mhz} MHz"
    if (slowest.loaded_mhz or 0) >= SLOWEST * (slowest.sm_max_mhz or 0):
        return Finding("clock", True, expected, found)
    if slowest.held_back is False:
        return Finding("clock", None, expected, found, "its own power limit holds it back")
    detail = "heat or its power supply holds it back" if slowest.held_back else "it does not tell why"
    return Finding("clock", False, expected, found, detail)


def _disk(hardware: Hardware, rental: Rental) -> Finding:
    """Whether the disk is as large as was asked for; less is free, as the image is on it."""
    size, free = hardware.disk_bytes, hardware.disk_free_bytes
    expected = None if rental.disk_gib is None else f"{rental.disk_gib} GiB"
    if size is None or free is None:
        return Finding("disk", None, expected, None, "the machine does not tell")
    found = f"{format_bytes(free)} free of {format_bytes(size)}"
    wanted = (rental.disk_gib or 0) * 2**30
    enough = free >= wanted or (size >= FILE_SYSTEM * wanted and free >= FREE * wanted)
    return Finding("disk", enough, expected, found)


def _download(hardware: Hardware) -> Iterator[Finding]:
    if not hardware.download_asked:
        return
    rate = hardware.download_bytes_per_s
    if rate is None:
        yield Finding("download", None, None, None, hardware.download_trouble)
    else:
        yield Finding("download", True, None, f"{format_bytes(rate)}/s")


def _named(gpu: Accelerator) -> Gpu | None:
    return normalise(gpu.name, memory_gib=gpu.memory_gib)


def _is(gpu: Accelerator, wanted: Gpu) -> bool:
    """Whether it is of that chip; AMD's driver names some by two chips at once: ``MI250X / MI250``."""
    known = [normalise(part) for part in gpu.name.split("/")]
    if any(each and each.key == wanted.key for each in known):
        return True
    return wanted.key not in by_chip() and wanted.key in fold(gpu.name)


def _codes(xids: Sequence[Xid]) -> str:
    counted = Counter(xid.code for xid in xids)
    return ", ".join(f"{count} x {code}" for code, count in sorted(counted.items()))


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
