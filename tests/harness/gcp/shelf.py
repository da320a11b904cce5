"""What the project of the tests finds at Google: machine types, prices and images, in Google's own shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

SINCE: Final = "2026-11-01T08:00:00Z"
HOUR_S: Final = 3600
MONTH_S: Final = 730 * HOUR_S
GIB: Final = 2**30
SSD_GIB: Final = 375

ZONES: Final = ("us-central1-a", "us-central1-b", "europe-west4-a")
ACCELERATORS: Final[Mapping[str, Sequence[str]]] = {
    "us-central1-a": ("nvidia-l4", "nvidia-tesla-a100", "nvidia-h100-80gb", "nvidia-tesla-t4"),
    "us-central1-b": ("nvidia-l4", "nvidia-b200", "nvidia-tesla-t4", "nvidia-tesla-t4-vws"),
    "europe-west4-a": ("nvidia-l4",),
}


SSD: Final = {"resourceFamily": "Storage", "resourceGroup": "LocalSSD"}
SPOT_GPUS: Final = {"Nvidia L4 GPU": "0.22", "Nvidia H100 80GB GPU": "2.3", "Nvidia Tesla T4 GPU": "0.11"}


def region_of(zone: str) -> str:
    """The region of a zone."""
    return zone.rpartition("-")[0]


def machine(
    name: str, cpus: int, memory_gib: int, gpu: str = "", gpus: int = 1, ssds: int = 0, arm: bool = False
) -> dict[str, Any]:
    """A machine type."""
    return {
        "kind": "compute#machineType",
        "id": "1000012",
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "guestCpus": cpus,
        "memoryMb": memory_gib * 1024,
        "isSharedCpu": False,
        "architecture": "ARM64" if arm else "X86_64",
        **({"bundledLocalSsds": {"defaultInterface": "NVME", "partitionCount": ssds}} if ssds else {}),
        **({"accelerators": [{"guestAcceleratorType": gpu, "guestAcceleratorCount": gpus}]} if gpu else {}),
    }


def machines() -> dict[str, list[dict[str, Any]]]:
    """The machine types by zone."""
    l4 = [machine("g2-standard-4", 4, 16, "nvidia-l4"), machine("g2-standard-24", 24, 96, "nvidia-l4", 2)]
    n1 = [machine("n1-standard-4", 4, 15), machine("n1-standard-8", 8, 30), machine("n1-highmem-2", 2, 13)]
    cpu = [machine("e2-standard-2", 2, 8), machine("c4a-standard-2", 2, 8, arm=True)]
    return {
        "us-central1-a": [
            *l4,
            *n1,
            *cpu,
            machine("a2-highgpu-1g", 12, 85, "nvidia-tesla-a100"),
            machine("a3-highgpu-8g", 208, 1872, "nvidia-h100-80gb", 8, ssds=16),
        ],
        "us-central1-b": [*l4, *n1, machine("a4-highgpu-8g", 224, 3968, "nvidia-b200", 8, ssds=32)],
        "europe-west4-a": l4,
    }


def tpus() -> dict[str, list[dict[str, Any]]]:
    """The machine types with TPUs by zone, with those that only other services make of them.

    Google lists some twice: once as those services have them and once as instances do.
    """
    v6e = (
        ("ct6e-standard-1t", 44, 176, 1),
        ("ct6e-standard-4t", 180, 720, 4),
        ("ct6e-standard-8t", 180, 1440, 8),
    )
    v5p = [machine(f"ct5p-hightpu-{n}t-tpu", 52 * n, 112 * n, "tpu-v5p", n) for n in (1, 2, 4)]
    return {
        "us-central1-a": [
            *(machine(name, cpus, memory, "ct6e", chips) for name, cpus, memory, chips in v6e),
            *(machine(f"{name}-tpu", cpus, memory, "tpu-v6e", chips) for name, cpus, memory, chips in v6e),
            machine("ct5lp-hightpu-4t", 112, 192, "ct5lp", 4),
            machine("ct4p-hightpu-4t", 240, 407, "ct4p", 4),
        ],
        "us-central1-b": [
            *v5p,
            machine("ct5p-hightpu-4t", 208, 448, "ct5p", 4),
            machine("tpu7x-standard-4t", 224, 960, "tpu7x", 4),
            machine("tpu7x-ultranet-4t", 224, 960, "tpu7x", 4),
        ],
    }


def money(amount: str, currency: str = "USD") -> dict[str, Any]:
    """An amount with nine decimals."""
    units, _, nanos = amount.partition(".")
    return {"currencyCode": currency, "units": units, "nanos": int(f"{nanos:0<9}")}


def sku(
    what: str, amount: str, unit: str = "h", regions: Sequence[str] = ("us-central1",), **category: str
) -> dict[str, Any]:
    """A part of a machine as the price list has it."""
    bases = {"h": ("s", HOUR_S), "GiBy.h": ("By.s", GIB * HOUR_S), "GiBy.mo": ("By.s", GIB * MONTH_S)}
    base, factor = bases[unit]
    number = re.sub("[^0-9A-F]", "", f"{abs(hash(what)):X}")[:12].ljust(12, "0")
    code = "-".join((number[:4], number[4:8], number[8:]))
    return {
        "name": f"services/6F81-5844-456A/skus/{code}",
        "skuId": code,
        "description": what,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "GPU",
            "usageType": "OnDemand",
            **category,
        },
        "serviceRegions": list(regions),
        "pricingInfo": [
            {
                "summary": "",
                "pricingExpression": {
                    "usageUnit": unit,
                    "usageUnitDescription": unit,
                    "baseUnit": base,
                    "baseUnitDescription": base,
                    "baseUnitConversionFactor": factor,
                    "displayQuantity": 1,
                    "tieredRates": [{"startUsageAmount": 0, "unitPrice": money(amount)}],
                },
                "currencyConversionRate": 1,
                "effectiveTime": "2026-11-20T16:00:00Z",
            }
        ],
        "serviceProviderName": "Google",
        "geoTaxonomy": {"type": "MULTI_REGIONAL", "regions": list(regions)},
    }


def spot_skus() -> list[dict[str, Any]]:
    """What spot machines consist of: nothing of an A2, and nothing outside of the Americas."""
    spot = {"usageType": "Preemptible"}
    attached = "attached to Spot Preemptible VMs running in Americas"
    parts = (("G2", "0.01", "0.001"), ("A3", "0.0088", "0.0007"), ("N1 Predefined", "0.0063", "0.0008"))
    made = [sku(f"{gpu} {attached}", amount, **spot) for gpu, amount in SPOT_GPUS.items()]
    for series, core, ram in parts:
        name = f"Spot Preemptible {series} Instance"
        made += [
            sku(f"{name} Core running in Americas", core, resourceGroup="CPU", **spot),
            sku(f"{name} Ram running in Americas", ram, "GiBy.h", resourceGroup="RAM", **spot),
        ]
    return [
        *made,
        sku("SSD backed Local Storage attached to Spot Preemptible VMs", "0.032", "GiBy.mo", **SSD, **spot),
        # Google calls the usage of this one OnDemand.
        sku("Spot Preemptible A4 Nvidia B200 (1 gpu slice) running in Americas", "4.9542"),
    ]


def queue_skus() -> list[dict[str, Any]]:
    """What machines of the queue consist of. Google writes "Instance" in some, and of an L4 only the GPU."""
    attached = "attached to DWS Defined Duration VMs running in Americas"
    prefix, place = "DWS Defined Duration", "running in Americas"
    return [
        sku(f"Nvidia L4 GPU {attached}", "0.28"),
        sku(f"Nvidia Tesla T4 GPU {attached}", "0.2"),
        sku(f"Nvidia H100 80GB GPU {attached}", "4.200761"),
        sku(f"{prefix} A3 Core {place}", "0.010934", resourceGroup="CPU"),
        sku(f"{prefix} A3 Instance Ram {place}", "0.000952", "GiBy.h", resourceGroup="RAM"),
        sku(f"{prefix} SSD backed Local Storage {place}", "0.0001096", "GiBy.h", **SSD),
        sku(f"{prefix} A4 Nvidia B200 (1 gpu slice) {place}", "8.055"),
        sku(f"{prefix} N1 Predefined Core {place}", "0.01", resourceGroup="CPU"),
        sku(f"{prefix} N1 Predefined Ram {place}", "0.001", "GiBy.h", resourceGroup="RAM"),
    ]


def calendar_skus() -> list[dict[str, Any]]:
    """What machines consist of that are reserved for a time, and a placeholder."""
    calendar = "in Americas in Calendar Mode"
    return [
        sku(f"Reserved Nvidia H100 80GB GPU {calendar}", "4.57"),
        sku(f"Reserved A3 Core {calendar}", "0.012", resourceGroup="CPU"),
        sku(f"Reserved A3 Ram {calendar}", "0.001", "GiBy.h", resourceGroup="RAM"),
        sku(
            "SSD backed Local Storage attached to Calendar mode reservations running in Iowa",
            "0.0001",
            "GiBy.h",
        ),
        sku("DWS Calendar Mode A4 Nvidia B200 (1 gpu slice) in Americas", "11.277"),
        sku("Reserved Nvidia L4 GPU in Americas", "0"),
    ]


def tpu_skus() -> list[dict[str, Any]]:
    """What TPUs cost, with all of their machine. In those of the queue the word Tpu is missing."""
    tpu, spot = {"resourceGroup": "TPU"}, {"resourceGroup": "TPU", "usageType": "Preemptible"}
    place = "running in Iowa"
    return [
        sku(f"TpuV6e {place}", "2.7", **tpu),
        sku(f"TpuV6e attached to Spot Preemptible VMs {place}", "1.4033", **spot),
        sku(f"DWS Defined Duration V6e {place}", "1.35", **tpu),
        sku(f"Capacity Optimized TpuV6e {place}", "0.9", **tpu),
        sku(f"Commitment v1: TpuV6e {place} for 1 Year", "1.89", resourceGroup="TPU", usageType="Commit1Yr"),
        sku("Reserved V6e TPU in Iowa in Calendar Mode", "1.6", **tpu),
        sku(f"TpuV5p {place}", "4.2", **tpu),
        sku(f"TpuV5p attached to Spot Preemptible VMs {place}", "2.1", **spot),
        sku(f"DWS Defined Duration V5p {place}", "2.94", **tpu),
        sku(f"TpuV5e {place}", "1.2", **tpu),
        sku("TPU7x running in Americas", "12", **tpu),
    ]


def skus() -> list[dict[str, Any]]:
    """The price list: what machines consist of, and much that looks like it and is something else."""
    return [
        sku("G2 Instance Core running in Americas", "0.025", resourceGroup="CPU"),
        sku("G2 Instance Ram running in Americas", "0.003", "GiBy.h", resourceGroup="RAM"),
        sku("Nvidia L4 GPU running in Americas", "0.56"),
        *queue_skus(),
        *calendar_skus(),
        *spot_skus(),
        *tpu_skus(),
        sku("G2 Custom Instance Core running in Americas", "0.026", resourceGroup="CPU"),
        sku("Commitment v1: Nvidia L4 GPU running in Americas for 1 Year", "0.3", usageType="Commit1Yr"),
        sku("A2 Instance Core running in Americas", "0.031611", resourceGroup="CPU"),
        sku("A2 Instance Ram running in Americas", "0.004237", "GiBy.h", resourceGroup="RAM"),
        sku("Nvidia Tesla A100 GPU running in Americas", "2.933908"),
        sku("A3 Instance Core running in Americas", "0.0293", resourceGroup="CPU"),
        sku("A3 Instance Ram running in Americas", "0.0025", "GiBy.h", resourceGroup="RAM"),
        sku("Nvidia H100 80GB GPU running in Americas", "9.796552"),
        sku("SSD backed Local Storage", "0.08", "GiBy.mo", **SSD),
        sku("A4 Nvidia B200 (1 gpu slice) running in Americas", "16.11"),
        sku("N1 Predefined Instance Core running in Americas", "0.031611", resourceGroup="CPU"),
        sku("N1 Predefined Instance Ram running in Americas", "0.004237", "GiBy.h", resourceGroup="RAM"),
        sku("Nvidia Tesla T4 GPU running in Americas", "0.35"),
        sku("G2 Instance Core running in Netherlands", "0.0275", regions=["europe-west4"]),
        sku("G2 Instance Ram running in Netherlands", "0.0033", "GiBy.h", ["europe-west4"]),
    ]


def spot_prices() -> dict[tuple[str, str], str]:
    """What spot machines cost an hour, by region and machine type."""
    return {
        ("us-central1", "g2-standard-4"): "0.28",
        ("us-central1", "g2-standard-24"): "0.8",
        ("us-central1", "a2-highgpu-1g"): "1.3",
        ("us-central1", "a3-highgpu-8g"): "19.64",
        ("europe-west4", "g2-standard-4"): "0.31",
    }


def image(family: str, day: str, arm: bool = False, **other: Any) -> dict[str, Any]:
    """An image of a family."""
    return {
        "kind": "compute#image",
        "id": "4242",
        "name": f"{family}-v{day.replace('-', '')}",
        "family": family,
        "creationTimestamp": f"{day}T07:00:00.000-07:00",
        "architecture": "ARM64" if arm else "X86_64",
        "diskSizeGb": "10",
        "status": "READY",
        **other,
    }


def images() -> dict[str, list[dict[str, Any]]]:
    """The images by the project that owns them."""
    accelerator, plain = "ubuntu-accelerator-{}-{}-with-nvidia-{}", "ubuntu-{}-lts-{}"
    return {
        "ubuntu-os-accelerator-images": [
            image(accelerator.format(2204, "amd64", 580), "2026-10-02"),
            image(accelerator.format(2404, "amd64", 570), "2026-10-03"),
            image(accelerator.format(2404, "amd64", 580), "2026-09-01"),
            image(accelerator.format(2404, "amd64", 580), "2026-10-01", deprecated={"state": "ACTIVE"}),
            image(accelerator.format(2404, "amd64", 595), "2026-10-09", deprecated={"state": "DEPRECATED"}),
            image(accelerator.format(2404, "arm64", 580), "2026-10-05", arm=True),
            image("ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e", "2026-10-06"),
            image("ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e", "2026-09-29"),
            image("ubuntu-accel-2404-amd64-tpu-tpu7x", "2026-10-07"),
            image("ubuntu-accel-2404-amd64-tpu-tpu7x", "2026-10-14", deprecated={"state": "DEPRECATED"}),
        ],
        "ubuntu-os-cloud": [
            image(plain.format(2204, "amd64"), "2026-10-02"),
            image(plain.format(2404, "amd64"), "2026-10-01"),
            image(plain.format(2404, "arm64"), "2026-10-01", arm=True),
            image("ubuntu-minimal-2404-lts-amd64", "2026-10-08"),
        ],
    }
