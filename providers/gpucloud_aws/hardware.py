"""What an instance is, as far as its name and either its line in the price list or EC2 itself tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.catalog.names import named, normalise
from gpucloud.model import Gpu

if TYPE_CHECKING:
    from gpucloud_aws.api import InstanceType, Line

FAMILIES: Final[Mapping[str, str]] = {
    "dl1": "Gaudi HL-205",
    "dl2q": "Qualcomm AI100",
    "g2": "NVIDIA K520",
    "g3": "NVIDIA M60",
    "g3s": "NVIDIA M60",
    "g4ad": "AMD Radeon Pro V520",
    "g4dn": "NVIDIA T4",
    "g5": "NVIDIA A10G",
    "g5g": "NVIDIA T4G",
    "g6": "NVIDIA L4",
    "g6e": "NVIDIA L40S",
    "g7": "NVIDIA RTX PRO 4500",
    "g7e": "NVIDIA RTX PRO 6000",
    "gr6": "NVIDIA L4",
    "p2": "NVIDIA K80",
    "p3": "NVIDIA V100 SXM 16GB",
    "p3dn": "NVIDIA V100 SXM 32GB",
    "p4d": "NVIDIA A100 SXM 40GB",
    "p4de": "NVIDIA A100 SXM 80GB",
    "p5": "NVIDIA H100 SXM",
    "p5e": "NVIDIA H200 SXM",
    "p5en": "NVIDIA H200 SXM",
}
"""What is in the families whose names do not say it."""

CHIPS: Final[Mapping[str, int]] = {
    "dl1.24xlarge": 8,
    "inf1.xlarge": 1,
    "inf1.2xlarge": 1,
    "inf1.6xlarge": 4,
    "inf1.24xlarge": 16,
    "inf2.xlarge": 1,
    "inf2.8xlarge": 1,
    "inf2.24xlarge": 6,
    "inf2.48xlarge": 12,
    "trn1.2xlarge": 1,
    "trn1.32xlarge": 16,
    "trn1n.32xlarge": 16,
    "trn2.48xlarge": 16,
    "trn2u.48xlarge": 16,
}
"""How many chips there are where the price list leaves it open because they are no GPUs."""

_SIZE = re.compile(r"([0-9][0-9,]*(?:\.[0-9]+)?) (?:GB|GiB)\b")
_DISKS = re.compile(r"(?:([0-9]+) x )?([0-9][0-9,]*(?:\.[0-9]+)?)(?: ?(GB|TB))?\b")
_GB: Final = Decimal(10**9) / 2**30


def described(line: Line) -> dict[str, Any] | None:
    """What an instance is, whoever sells it; ``None`` with a part of an accelerator or an unknown number."""
    told = re.fullmatch(r"0*([1-9][0-9]{0,3})(?:\.0+)?", line.gpus)
    count = int(told[1]) if told else CHIPS.get(line.instance_type)
    if count is None:
        return None
    total = _number(_SIZE.match(line.gpu_memory))
    return {
        "gpu": _gpu(line.instance_type, total and total / count),
        "gpu_count": count,
        "vcpus": int(line.vcpus) if re.fullmatch("[1-9][0-9]{0,4}", line.vcpus) else None,
        "memory_gib": _number(_SIZE.fullmatch(line.memory)),
        "disk_gib": _disk(line.storage),
        "any_disk": True,
    }


def chips(kind: InstanceType) -> tuple[Gpu, int] | None:
    """Which accelerator is in an instance type, and how many; ``None`` without, or with a part of one."""
    device = next(iter(kind.devices), None)
    if device is None and (told := CHIPS.get(kind.instance_type)):
        # EC2 leaves out what is in a trn1.32xlarge.
        return _gpu(kind.instance_type, None), told
    # An instance with a part of a GPU has none, as EC2 counts.
    if device is None or not device.count:
        return None
    # Of its own chips EC2 tells other figures than their makers do: 512 GiB for a Trainium2, which has 96.
    size = device.memory.mib if device.memory and kind.gpus else None
    memory_gib = Decimal(size) / 1024 if size else None
    return _gpu(kind.instance_type, memory_gib, f"{device.maker} {device.name}".strip()), device.count


def _gpu(instance_type: str, memory_gib: Decimal | None, otherwise: str = "") -> Gpu:
    """What an instance type has: by its name, by its family or, when nobody knows that, ``otherwise``."""
    known, family = normalise(instance_type, memory_gib=memory_gib), instance_type.partition(".")[0]
    return known or named(FAMILIES.get(family) or otherwise or family, memory_gib=memory_gib)


def disk_of(size_gb: Decimal | int | None) -> Decimal | None:
    """The disks of an instance in GiB, of Amazon's figure in GB; ``None`` without any."""
    return round(Decimal(size_gb) * _GB, 1) or None if size_gb else None


def _number(match: re.Match[str] | None) -> Decimal | None:
    number = Decimal(match[1].replace(",", "")) if match else Decimal(0)
    return number or None


def _disk(storage: str) -> Decimal | None:
    """The disks that come with an instance, which Amazon counts in powers of ten."""
    match = _DISKS.match(storage)
    if not match:
        return None
    size = Decimal(match[2].replace(",", "")) * (1000 if match[3] == "TB" else 1)
    return disk_of(int(match[1] or 1) * size)
