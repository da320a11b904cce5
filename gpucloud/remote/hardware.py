"""What a machine has and how it is, as its own tools tell: ``check.sh`` run there, and its report read.

``None`` is what no tool told; a tool that is missing, fails or hangs is never an error here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.resources import files
from statistics import median_low
from typing import Any, Final, NamedTuple

from gpucloud.errors import RemoteError
from gpucloud.remote.host import Host

ABSENT: Final = 127
"""The status of a tool that is not there."""

GIVEN_UP: Final = 124
"""The status of a tool that did not end in time."""

IDLE: Final = 0x1
"""The bit of a clock's reasons that says that the GPU has nothing to do."""

HELD_BACK: Final = 0xE8
"""The bits that say that heat or the power supply holds the clock back: hardware slowdown, software thermal
slowdown, hardware thermal slowdown, hardware power brake (NVML's nvmlClocksEventReason values)."""

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One GPU. ``name`` is its vendor's; clocks are in MHz, ECC errors the uncorrected ones.

    ``loaded_mhz`` is the middle one of its clocks while it was at work, and ``held_back`` whether heat or
    power supply were a reason for that.
    """

    name: str
    index: int | None = None
    memory_mib: int | None = None
    bus_id: str | None = None
    uuid: str | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    pcie_gen_max: int | None = None
    sm_mhz: int | None = None
    sm_max_mhz: int | None = None
    ecc_volatile: int | None = None
    ecc_aggregate: int | None = None
    temperature_c: int | None = None
    utilization: int | None = None
    loaded_mhz: int | None = None
    held_back: bool | None = None

    @property
    def memory_gib(self) -> int | None:
        """Its memory to the nearest GiB."""
        return None if self.memory_mib is None else round(self.memory_mib / 1024)


@dataclass(frozen=True, slots=True)
class Xid:
    """An error that NVIDIA's driver has logged since the machine's start, and of which GPU."""

    code: int
    bus_id: str
    line: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine says of itself.

    ``tool`` is what told of the GPUs, and ``trouble`` why one that is there could not. ``driver_cuda`` is the
    latest CUDA that the driver can run, ``image_cuda`` the one that the image says it was made with, and
    ``toolkit_cuda`` that of a compiler which somebody may have installed beside it. ``load_trouble`` is
    why no load could be put on them, and empty without trouble as well as when nobody asked.
    """

    accelerators: tuple[Accelerator, ...] = ()
    tool: str | None = None
    trouble: str = ""
    driver: str | None = None
    driver_cuda: Version | None = None
    image_cuda: Version | None = None
    toolkit_cuda: Version | None = None
    xids: tuple[Xid, ...] | None = None
    disk_bytes: int | None = None
    disk_free_bytes: int | None = None
    kernel: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    load_asked: bool = False
    load_trouble: str = ""
    download_asked: bool = False
    download_bytes_per_s: int | None = None
    download_trouble: str = ""


class _Section(NamedTuple):
    status: int
    lines: Sequence[str]

    @property
    def said(self) -> str:
        """The first thing it printed, or else its status."""
        return next((line.strip() for line in self.lines if line.strip()), f"status {self.status}")[:200]


_MISSING: Final = _Section(ABSENT, ())
_HEADER: Final = re.compile(r"#([a-z][a-z.-]*) ([0-9]{1,3})")


def survey(host: Host, *, load: timedelta | None = None, download: str = "") -> Hardware:
    """Let a machine tell what it has and how it is; takes some seconds.

    With ``load`` its GPUs are made to work for so long, and with ``download`` that URL is fetched for a few
    seconds.

    Raises:
        HostUnreachable: when the connection is lost.
        RemoteError: when nothing can be run there, or what it tells makes no sense.
    """
    script = files("gpucloud.remote").joinpath("check.sh").read_bytes()
    words = [f"load={max(1, round(load.total_seconds()))}"] if load else []
    return parse(host.check(script, *words, *([f"download={download}"] if download else [])))


def parse(report: bytes) -> Hardware:
    """Read what ``check.sh`` printed.

    Raises:
        RemoteError: when it is not all there.
    """
    found = _sections(report)
    hardware = _disk_and_machine(found)
    hardware = replace(
        hardware,
        xids=_xids(found),
        image_cuda=_image_cuda(found),
        toolkit_cuda=_version("release ", _last(found, "nvcc").lines),
        driver_cuda=_version(r"CUDA(?: UMD)? Version *: *", _last(found, "nvidia-smi.table").lines),
    )
    return _with_download(_with_load(_with_accelerators(hardware, found), found), found)


def _sections(report: bytes) -> Mapping[str, Sequence[_Section]]:
    found: dict[str, list[_Section]] = {}
    lines: list[str] = []
    # What a tool prints is behind a blank, whatever it holds.
    for line in report.decode("utf-8", "replace").split("\n"):
        if header := _HEADER.fullmatch(line):
            lines = []
            found.setdefault(header[1], []).append(_Section(int(header[2]), lines))
        elif line.startswith(" "):
            lines.append(line[1:])
    if "gpucloud-check" not in found or "end" not in found:
        raise RemoteError(
            "the machine did not tell all of its hardware",
            why=repr(report[-200:]),
            hint="try again, or look there with gpucloud ssh",
        )
    return found


def _last(found: Mapping[str, Sequence[_Section]], name: str) -> _Section:
    return found[name][-1] if name in found else _MISSING


def _disk_and_machine(found: Mapping[str, Sequence[_Section]]) -> Hardware:
    facts = dict(line.partition("=")[::2] for line in _last(found, "machine").lines)
    memory = _number(facts.get("memory_kib"))
    # Device, size, used, free, percentage, mount; the first may be anything.
    sizes = [
        re.search(r" ([0-9]{1,15}) +[0-9]+ +([0-9]{1,15}) +", line) for line in _last(found, "disk").lines
    ]
    size = next((match for match in reversed(sizes) if match), None)
    return Hardware(
        kernel=facts.get("kernel") or None,
        cores=_number(facts.get("cores")),
        memory_bytes=None if memory is None else memory * 1024,
        disk_bytes=int(size[1]) * 1024 if size else None,
        disk_free_bytes=int(size[2]) * 1024 if size else None,
    )


def _with_accelerators(hardware: Hardware, found: Mapping[str, Sequence[_Section]]) -> Hardware:
    """The GPUs from the first tool that is there and tells of some, else why none does."""
    trouble = ""
    for tool, read in (("nvidia-smi", _nvidia), ("rocm-smi", _rocm), ("amd-smi", _amd)):
        section = _last(found, tool)
        if section.status == ABSENT:
            continue
        told = read(hardware, found)
        if told.accelerators and section.status == 0:
            return replace(told, tool=tool)
        said = "it did not answer in time" if section.status == GIVEN_UP else section.said
        trouble = trouble or f"{tool}: {said}"
    return replace(hardware, trouble=trouble)


def _nvidia(hardware: Hardware, found: Mapping[str, Sequence[_Section]]) -> Hardware:
    rows = list(_rows(found, "nvidia-smi"))
    driver = next(
        (row["driver_version"] for row in rows if row.get("driver_version", "")[:1].isdecimal()), None
    )
    gpus = tuple(_accelerator(row) for row in rows if row.get("name"))
    return replace(hardware, accelerators=gpus, driver=driver)


def _rows(found: Mapping[str, Sequence[_Section]], name: str) -> Iterator[dict[str, str]]:
    """Each GPU of each answer to a query, by the names of the fields."""
    for fields, section in zip(found.get(f"{name}.fields", ()), found.get(name, ()), strict=False):
        names = "".join(fields.lines).split(",")
        for line in section.lines:
            cells = [cell.strip() for cell in line.split(",", len(names) - 1)]
            if len(cells) == len(names) and section.status == 0:
                yield dict(zip(names, cells, strict=True))


def _accelerator(row: Mapping[str, str]) -> Accelerator:
    return Accelerator(
        name=row["name"],
        index=_number(row.get("index")),
        memory_mib=_number(row.get("memory.total")),
        bus_id=_bus_id(row.get("pci.bus_id", "")),
        uuid=uuid if (uuid := row.get("uuid", "")).startswith("GPU-") else None,
        pcie_width=_number(row.get("pcie.link.width.current")),
        pcie_width_max=_number(row.get("pcie.link.width.max")),
        pcie_gen_max=_number(row.get("pcie.link.gen.max")),
        sm_mhz=_number(row.get("clocks.sm")),
        sm_max_mhz=_number(row.get("clocks.max.sm")),
        ecc_volatile=_number(row.get("ecc.errors.uncorrected.volatile.total")),
        ecc_aggregate=_number(row.get("ecc.errors.uncorrected.aggregate.total")),
        temperature_c=_number(row.get("temperature.gpu")),
        utilization=_number(row.get("utilization.gpu")),
    )


def _rocm(hardware: Hardware, found: Mapping[str, Sequence[_Section]]) -> Hardware:
    """``{"card0": {"Card Series": "...", "VRAM Total Memory (B)": "..."}, "system": {...}}``, all text."""
    told = _json("\n".join(_last(found, "rocm-smi").lines))
    gpus: list[Accelerator] = []
    driver = None
    for key, value in told.items() if isinstance(told, dict) else ():
        if not isinstance(value, dict):
            continue
        facts = {name.casefold(): text for name, text in value.items() if isinstance(text, str)}
        driver = driver or facts.get("driver version")
        if card := re.fullmatch("card([0-9]{1,4})", key):
            memory = _number(facts.get("vram total memory (b)"))
            name = facts.get("card series") or facts.get("card model") or "unnamed"
            gpus.append(Accelerator(name, int(card[1]), None if memory is None else memory // 2**20))
    return replace(hardware, accelerators=tuple(gpus), driver=driver)


def _amd(hardware: Hardware, found: Mapping[str, Sequence[_Section]]) -> Hardware:
    """A list, in newer releases below ``gpu_data``, of ``{"asic": ..., "vram": ..., "driver": ...}``."""
    told = _json("\n".join(_last(found, "amd-smi").lines))
    if isinstance(told, dict):
        told = told.get("gpu_data")
    gpus: list[Accelerator] = []
    driver = None
    for card in told if isinstance(told, list) else ():
        asic, vram, module = (_within(card, key) for key in ("asic", "vram", "driver"))
        name, size = asic.get("market_name"), vram.get("size")
        size = size.get("value") if isinstance(size, dict) and size.get("unit") in {"MB", "MiB"} else None
        version = module.get("version") or module.get("driver_version")
        driver = driver or (version if isinstance(version, str) else None)
        if isinstance(name, str):
            gpus.append(Accelerator(name, len(gpus), _number(str(size))))
    return replace(hardware, accelerators=tuple(gpus), driver=driver)


def _within(card: Any, key: str) -> Mapping[str, Any]:
    inner = card.get(key) if isinstance(card, dict) else None
    return inner if isinstance(inner, dict) else {}


def _json(text: str) -> Any:
    """The document in a text that may begin with warnings; ``None`` when there is none."""
    start = re.search(r"^[ \t]*[\[{]", text, re.MULTILINE)
    try:
        return json.JSONDecoder().raw_decode(text[start.end() - 1 :])[0] if start else None
    except (ValueError, RecursionError):
        return None


def _xids(found: Mapping[str, Sequence[_Section]]) -> tuple[Xid, ...] | None:
    """Lines such as ``NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.``"""
    section = _last(found, "dmesg")
    if section.status != 0:
        return None
    seen = []
    for line in section.lines:
        if match := re.search(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): ([0-9]{1,4})\b", line):
            seen.append(Xid(int(match[2]), _bus_id(match[1]) or match[1], line[match.start() :].strip()))
    return tuple(seen)


def _bus_id(text: str) -> str | None:
    """``00000000:3B:00.0``, ``0000:3b:00`` and the like as ``0000:3b:00``."""
    match = re.fullmatch(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-9a-f])?", text.lower())
    return f"{int(match[1], 16):04x}:{match[2]}:{match[3]}" if match else None


def _image_cuda(found: Mapping[str, Sequence[_Section]]) -> Version | None:
    """What the image says that it was made with."""
    lines = _last(found, "cuda").lines
    return (
        _version("CUDA_VERSION=", lines)
        or _version(r'"cuda" *: *\{[^}]*"version" *: *"', [" ".join(lines)])
        or _version("CUDA Version ", lines)
    )


def _version(before: str, lines: Sequence[str]) -> Version | None:
    for line in lines:
        if match := re.search(rf"{before}([0-9]{{1,3}})\.([0-9]{{1,3}})", line):
            return int(match[1]), int(match[2])
    return None


def _with_load(hardware: Hardware, found: Mapping[str, Sequence[_Section]]) -> Hardware:
    if "load" not in found:
        return hardware
    samples = _samples(found)
    gpus = tuple(_with_samples(gpu, samples) for gpu in hardware.accelerators)
    trouble = ""
    if not any(gpu.loaded_mhz for gpu in gpus):
        status = _last(found, "load").status
        trouble = "nothing there can put a load on it" if status else "no clock could be read"
    return replace(hardware, accelerators=gpus, load_asked=True, load_trouble=trouble)


class _Sample(NamedTuple):
    gpu: int | None
    mhz: int
    reasons: int | None


def _samples(found: Mapping[str, Sequence[_Section]]) -> list[_Sample]:
    """The clocks under load; those of a GPU that was idle just then do not count."""
    samples = []
    for row in _rows(found, "load.sample"):
        mhz = _number(row.get("clocks.sm"))
        masks = [row.get(f"clocks_{word}_reasons.active", "") for word in ("throttle", "event")]
        known = [int(mask, 16) for mask in masks if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", mask)]
        reasons = known[0] if known else None
        if mhz is not None and not (reasons or 0) & IDLE:
            samples.append(_Sample(_number(row.get("index")), mhz, reasons))
    return samples


def _with_samples(gpu: Accelerator, samples: Sequence[_Sample]) -> Accelerator:
    own = [sample for sample in samples if sample.gpu == gpu.index]
    if not own:
        return gpu
    reasons = [sample.reasons for sample in own if sample.reasons is not None]
    held_back = any(reason & HELD_BACK for reason in reasons) if reasons else None
    return replace(gpu, loaded_mhz=median_low(sample.mhz for sample in own), held_back=held_back)


def _with_download(hardware: Hardware, found: Mapping[str, Sequence[_Section]]) -> Hardware:
    if "download" not in found:
        return hardware
    section = _last(found, "download")
    count = next((_number(line.strip()) for line in section.lines if _number(line.strip()) is not None), None)
    took = next((_number(line[11:]) for line in section.lines if line.startswith("hundredths=")), None)
    if not count or took is None:
        why = (
            "there is neither curl nor wget"
            if section.status == ABSENT
            else f"nothing came: {next((line for line in section.lines if ':' in line), section.status)}"
        )
        return replace(hardware, download_asked=True, download_trouble=why)
    return replace(hardware, download_asked=True, download_bytes_per_s=count * 100 // max(1, took))


def _number(cell: str | None) -> int | None:
    """A plain number; ``None`` for ``[N/A]``, ``[Not Supported]``, ``ERR!`` and all the like."""
    return int(cell) if cell is not None and re.fullmatch("[0-9]{1,18}", cell) else None
