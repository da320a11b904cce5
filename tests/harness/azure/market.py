"""What the tests' Azure sells: sizes as Resource Manager lists them, and their retail prices."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

A100 = "Standard_NC24ads_A100_v4"
T4 = "Standard_NC4as_T4_v3"
H100 = "Standard_ND96isr_H100_v5"
MI300X = "Standard_ND96isr_MI300X_v5"
V100 = "Standard_ND40rs_v2"
GB200 = "Standard_ND128isr_NDR_GB200_v6"
SEALED = "Standard_NCC40ads_H100_v5"
CPU = "Standard_D4s_v5"


def sku(region: str, name: str, vcpus: int, gpus: int, memory: int, family: str, **more: str) -> Row:
    """One size in one region, as version 2021-07-01 of the list has it."""
    told = {
        "vCPUs": str(vcpus),
        "MemoryGB": str(memory),
        "MaxResourceVolumeMB": "65536",
        "HyperVGenerations": "V1,V2",
        "CpuArchitectureType": "x64",
        "LowPriorityCapable": "True",
        "PremiumIO": "True",
        "AcceleratedNetworkingEnabled": "True",
        **({"GPUs": str(gpus)} if gpus else {}),
        **more,
    }
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "tier": "Standard",
        "size": name.removeprefix("Standard_"),
        "family": family,
        "locations": [region],
        "locationInfo": [{"location": region, "zones": ["1", "2"], "zoneDetails": []}],
        "capabilities": [{"name": key, "value": value} for key, value in told.items()],
        "restrictions": [],
    }


def restriction(region: str, reason: str) -> Row:
    """Why a size cannot be had in a region."""
    return {
        "type": "Location",
        "values": [region],
        "restrictionInfo": {"locations": [region]},
        "reasonCode": reason,
    }


def skus(region: str) -> list[Row]:
    """What a region has."""
    return [
        sku(region, A100, 24, 1, 220, "standardNCADSA100v4Family"),
        sku(region, T4, 4, 1, 28, "Standard NCASv3_T4 Family", AcceleratedNetworkingEnabled="False"),
        sku(region, H100, 96, 8, 1900, "standardNDSH100v5Family", LowPriorityCapable="False"),
        sku(region, MI300X, 96, 8, 1850, "standardNDISRMI300Xv5Family"),
        sku(region, V100, 40, 8, 672, "standardNDRSv2Family"),
        sku(region, GB200, 128, 4, 900, "standardNDGB200v6Family", CpuArchitectureType="Arm64"),
        sku(region, SEALED, 40, 1, 320, "StandardNCCadsH100v5Family", ConfidentialComputingType="SNP"),
        sku(region, CPU, 4, 0, 16, "standardDSv5Family", HyperVGenerations="V1"),
        {
            "resourceType": "disks",
            "name": "Premium_LRS",
            "tier": "Premium",
            "size": "P10",
            "locations": [region],
            "locationInfo": [{"location": region, "zones": [], "zoneDetails": []}],
            "capabilities": [{"name": "MaxSizeGiB", "value": "128"}],
            "restrictions": [],
        },
    ]


PRICES = {A100: 3.673, T4: 0.526, H100: 98.32, MI300X: 48.0, V100: 22.03, GB200: 108.16, SEALED: 8.9}


def prices(region: str) -> list[Row]:
    """What a region's sizes cost, on demand and spot."""
    return [
        {
            "currencyCode": "USD",
            "tierMinimumUnits": 0.0,
            "retailPrice": round(price * share, 4),
            "unitPrice": round(price * share, 4),
            "armRegionName": region,
            "location": region,
            "effectiveStartDate": "2023-03-01T00:00:00Z",
            "meterId": f"{region}-{name}-{kind}",
            "meterName": name.removeprefix("Standard_").replace("_", " ") + kind,
            "productId": "DZH318Z09TQK",
            "skuId": "DZH318Z09TQK/0001",
            "productName": "Virtual Machines Series",
            "skuName": name.removeprefix("Standard_").replace("_", " ") + kind,
            "serviceName": "Virtual Machines",
            "serviceId": "DZH313Z7MMC8",
            "serviceFamily": "Compute",
            "unitOfMeasure": "1 Hour",
            "type": "Consumption",
            "isPrimaryMeterRegion": True,
            "armSkuName": name,
        }
        for name, price in PRICES.items()
        for kind, share in (("", 1.0), (" Spot", 0.25))
    ]


def usage(name: str, used: int, limit: int) -> Row:
    """How much of a quota is used."""
    words = {"value": name, "localizedValue": f"{name} vCPUs"}
    return {"unit": "Count", "currentValue": used, "limit": limit, "name": words}


def image(kind: str) -> Row:
    """An offer of a publisher, or a kind of it."""
    return {"id": f"/images/{kind}", "name": kind, "location": "eastus"}


IMAGES = {
    "publishers/microsoft-dsvm/artifacttypes/vmimage/offers/ubuntu-hpc/skus": [
        "2004", "2204", "2204-rocm", "2204-v100", "2404", "2404-rocm", "2404-v100", "preview",
    ],
    "publishers/Canonical/artifacttypes/vmimage/offers": [
        "0001-com-ubuntu-server-jammy", "ubuntu-22_04-lts", "ubuntu-24_04-lts", "ubuntu-24_10",
    ],
    "publishers/Canonical/artifacttypes/vmimage/offers/ubuntu-24_04-lts/skus": [
        "server", "server-arm64", "server-gen1", "minimal",
    ],
}  # fmt: skip
"""The gallery, by the path of each list."""
