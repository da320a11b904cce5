"""Google: 130 zones in 43 regions, and in them the machine types with GPUs and TPUs.

How far each series has spread is not known exactly; what is here is rather more than its page of GPU regions
has (https://docs.cloud.google.com/compute/docs/regions-zones/gpu-regions-zones, November 2026): the smallest
everywhere, the largest in some. Replies are checked by Google's own description of its interface.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from itertools import pairwise
from typing import Any, Final

from gpucloud_gcp.machines import ATTACHABLE, MACHINES
from gpucloud_gcp.prices import FIELDS
from tests.bench.clouds.server import Asked
from tests.harness.gcp.discovery import description
from tests.harness.gcp.fields import masked
from tests.harness.gcp.server import TOKEN
from tests.harness.gcp.shelf import machine, money, sku

Row = dict[str, Any]
Scoped = Sequence[tuple[str, Row]]

COMPRESSES: Final = False
"""Google compresses only for programs that have the word in their name."""

AREAS: Final = {
    "africa-south": "1",
    "asia-east": "1 2",
    "asia-northeast": "1 2 3",
    "asia-south": "1 2",
    "asia-southeast": "1 2 3",
    "australia-southeast": "1 2",
    "europe-central": "2",
    "europe-north": "1 2",
    "europe-southwest": "1",
    "europe-west": "1 2 3 4 6 8 9 10 12",
    "me-central": "1 2",
    "me-west": "1",
    "northamerica-northeast": "1 2",
    "northamerica-south": "1",
    "southamerica-east": "1",
    "southamerica-west": "1",
    "us-central": "1",
    "us-east": "1 4 5",
    "us-south": "1",
    "us-west": "1 2 3 4 8",
}
REGIONS: Final = tuple(f"{area}{number}" for area, numbers in AREAS.items() for number in numbers.split())
ZONES: Final = (*(f"{region}-{zone}" for region in REGIONS for zone in "abc"), "us-central1-f")
PROJECT: Final = "/compute/v1/projects/acme"
SKUS: Final = "/v1/services/6F81-5844-456A/skus"
ROWS: Final = 10_000
"""How many lines the price list has, of which so many are on a page."""

LINES: Final = 5_000
PAGE: Final = 500
DAYS: Final = 30

SPREAD: Final = {"g2": 1, "a3": 2, "a2": 3, "g4": 3, "a4": 4, "a4x": 8, "ct6e": 4, "ct5p": 8, "tpu7x": 14}
"""In every which region a series is."""

_A100, _A100_80 = "nvidia-tesla-a100", "nvidia-a100-80gb"
_H100, _L4, _RTX = "nvidia-h100-80gb", "nvidia-l4", "nvidia-rtx-pro-6000"
TYPES: Final = (
    *(machine(f"a2-highgpu-{n}g", 12 * n, 85 * n, _A100, n) for n in (1, 2, 4, 8)),
    machine("a2-megagpu-16g", 96, 1360, _A100, 16),
    *(machine(f"a2-ultragpu-{n}g", 12 * n, 170 * n, _A100_80, n, ssds=n) for n in (1, 2, 4, 8)),
    *(machine(f"a3-highgpu-{n}g", 26 * n, 234 * n, _H100, n, ssds=2 * n) for n in (1, 2, 4, 8)),
    machine("a3-edgegpu-8g", 208, 1872, _H100, 8, ssds=16),
    machine("a3-megagpu-8g", 208, 1872, "nvidia-h100-mega-80gb", 8, ssds=16),
    machine("a3-ultragpu-8g", 224, 2952, "nvidia-h200-141gb", 8, ssds=32),
    machine("a4-highgpu-8g", 224, 3968, "nvidia-b200", 8, ssds=32),
    machine("a4x-highgpu-4g", 140, 884, "nvidia-gb200", 4, ssds=32, arm=True),
    *(machine(f"g2-standard-{n}", n, 4 * n, _L4) for n in (4, 8, 12, 16, 32)),
    *(machine(f"g2-standard-{24 * n}", 24 * n, 96 * n, _L4, n) for n in (1, 2, 4)),
    *(machine(f"g4-standard-{48 * n}", 48 * n, 180 * n, _RTX, n) for n in (1, 2, 4, 8)),
)
TPU_TYPES: Final = (
    machine("ct6e-standard-1t", 44, 176, "ct6e"),
    machine("ct6e-standard-4t", 180, 720, "ct6e", 4),
    machine("ct6e-standard-8t", 180, 1440, "ct6e", 8),
    *(machine(f"ct5p-hightpu-{n}t-tpu", 52 * n, 112 * n, "tpu-v5p", n) for n in (1, 2, 4)),
    machine("tpu7x-standard-4t", 224, 960, "tpu7x", 4),
)
PLAIN: Final = tuple(machine(f"n1-standard-{n}", n, 15 * n // 4) for n in (4, 8, 16))
ATTACHED: Final = ("nvidia-tesla-t4", "nvidia-tesla-p4", "nvidia-tesla-v100", "nvidia-tesla-p100")

SERIES: Final = ("A2", "A3", "A3Plus", "A3Ultra", "G2", "G4", "N1 Predefined")
GPUS: Final = (
    "Nvidia L4 GPU",
    "Nvidia Tesla A100 GPU",
    "Nvidia Tesla A100 80GB GPU",
    "Nvidia H100 80GB GPU",
    "Nvidia H100 80GB Mega GPU",
    "H200 141GB GPU",
    "RTX 6000 96GB",
    "Nvidia Tesla T4 GPU",
    "Nvidia Tesla P4 GPU",
    "Nvidia Tesla V100 GPU",
    "Nvidia Tesla P100 GPU",
)
TPUS: Final = ("V5p", "V6e")
SLICE: Final = "A4 Nvidia B200 (1 gpu slice)"


def types(region: str, of: Sequence[Row] = TYPES) -> list[Row]:
    """The machine types with GPUs of their own, or others, in a region."""
    number = REGIONS.index(region)
    return [row for row in of if number % SPREAD[row["name"].partition("-")[0]] == 0]


def key(asked: Asked) -> Hashable:
    """Which reply is meant."""
    kind = json.loads(asked.body)["instanceProperties"]["machineType"] if "/advice/" in asked.path else ""
    return asked.path, asked.query.get("pageToken", ""), kind or asked.query.get("filter", "")


def replies(_: str) -> dict[Hashable, bytes]:
    """All there are."""
    token = {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}
    told: dict[Hashable, bytes] = {("/token", "", ""): json.dumps(token).encode()}

    def tell(path: str, body: Row, page: str = "", kind: str = "") -> None:
        told[path, page, kind] = json.dumps(body).encode()

    accelerated, plain, tpus = MACHINES
    for path, more, asked, rows in (
        ("machineTypes", "machineType", accelerated, _machines(partial(_accelerated, of=TYPES))),
        ("machineTypes", "machineType", tpus, _machines(partial(_accelerated, of=TPU_TYPES))),
        ("machineTypes", "machineType", plain, _machines(lambda _: PLAIN)),
        ("acceleratorTypes", "acceleratorType", ATTACHABLE, _accelerators()),
    ):
        for first in range(0, len(rows), PAGE):
            where = f"{PROJECT}/aggregated/{path}"
            body = _page(more, path, rows, first)
            if first == 0:
                _check(where, body)
            tell(where, body, str(first) if first else "", asked)
    regions = {"kind": "compute#regionList", "items": [_region(name) for name in REGIONS]}
    project = {"kind": "compute#project", "name": "acme", "quotas": _quotas()}
    for path, body in ((f"{PROJECT}/regions", regions), (PROJECT, project)):
        tell(path, body)
    _check(PROJECT, project)
    lines = _skus()
    for first in range(0, ROWS, LINES):
        more = str(first + LINES) if first + LINES < ROWS else ""
        body = {"skus": lines[first : first + LINES], "nextPageToken": more}
        tell(SKUS, masked(body, FIELDS), str(first) if first else "")
    _check(SKUS, {"skus": lines[:1], "nextPageToken": ""})
    for region in REGIONS:
        for row in types(region, (*TYPES, *TPU_TYPES)):
            path, body = f"{PROJECT}/regions/{region}/advice/capacityHistory", _history(region, row["name"])
            tell(path, body, kind=row["name"])
    _check(path, body, {"instanceProperties": {"machineType": "a", "scheduling": {}}, "types": ["PRICE"]})
    return told


def _check(path: str, body: Row, asked: Row | None = None) -> None:
    """Raises for what Google would not say."""
    of = description("cloudbilling.v1" if path == SKUS else "compute.v1")
    call = of.call("POST" if asked else "GET", path, {}, asked)
    assert call, path
    faults = of.reply(call, body)
    assert not faults, faults[:3]


def _machines(of: Callable[[str], Sequence[Row]]) -> Scoped:
    """As every zone has them."""
    return [
        (zone, {**row, "zone": zone, "description": "Accelerator Optimized", "maximumPersistentDisks": 128})
        for zone in ZONES
        for row in of(zone)
    ]


def _accelerated(zone: str, of: Sequence[Row]) -> Sequence[Row]:
    """Machines with GPUs, and those with TPUs, are in two zones of three."""
    return types(zone.rpartition("-")[0], of) if zone[-1] != "c" else ()


def _accelerators() -> Scoped:
    return [
        (zone, {"kind": "compute#acceleratorType", "name": name, "maximumCardsPerInstance": 4})
        for number, zone in enumerate(ZONES)
        for name in ATTACHED[: 1 + number % len(ATTACHED)]
    ]


def _page(kind: str, name: str, rows: Scoped, first: int) -> Row:
    items: dict[str, Row] = {
        f"zones/{zone}": {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results."}}
        for zone in ZONES
    }
    for zone, row in rows[first : first + PAGE]:
        items[f"zones/{zone}"].pop("warning", None)
        items[f"zones/{zone}"].setdefault(name, []).append(row)
    more = {"nextPageToken": str(first + PAGE)} if first + PAGE < len(rows) else {}
    return {"kind": f"compute#{kind}AggregatedList", "id": "-", "items": items, **more}


def _region(name: str) -> Row:
    return {"kind": "compute#region", "name": name, "status": "UP", "quotas": _quotas()}


@cache
def _quotas() -> list[Mapping[str, Any]]:
    """Every metric that Google's own description of its interface names."""
    document = files("googleapiclient.discovery_cache.documents").joinpath("compute.v1.json")
    metric = json.loads(document.read_text())["schemas"]["Quota"]["properties"]["metric"]
    return [{"metric": name, "limit": 5000.0, "usage": 0.0} for name in metric["enum"]]


def _skus() -> list[Row]:
    rows = [row for region in REGIONS for row in _parts(region)]
    others = (
        sku(f"Commitment v1: E2 Cpu in region {number}", "0.01", usageType="Commit1Yr")
        for number in range(ROWS - len(rows))
    )
    return [*rows, *others]


def _parts(region: str) -> Iterator[Row]:
    """What machines consist of, on demand and as spot machines."""
    spot = {"usageType": "Preemptible"}
    for series in SERIES:
        for more, usage in ("", {}), ("Spot Preemptible ", spot):
            name = f"{more}{series} Instance"
            yield sku(f"{name} Core running in {region}", "0.03", regions=[region], **usage)
            yield sku(f"{name} Ram running in {region}", "0.004", "GiBy.h", [region], **usage)
    for gpu in GPUS:
        yield sku(f"{gpu} running in {region}", "2.93", regions=[region])
        attached = f"{gpu} attached to Spot Preemptible VMs running in {region}"
        yield sku(attached, "1.1", regions=[region], **spot)
    yield sku(f"{SLICE} running in {region}", "16.11", regions=[region])
    yield sku(f"Spot Preemptible {SLICE} running in {region}", "4.95", regions=[region])
    for version in TPUS:
        yield sku(f"Tpu{version} running in {region}", "2.7", regions=[region])
        attached = f"Tpu{version} attached to Spot Preemptible VMs running in {region}"
        yield sku(attached, "1.4", regions=[region], **spot)
    yield sku(f"TPU7x running in {region}", "12", regions=[region])
    disk = "SSD backed Local Storage"
    yield sku(f"{disk} in {region}", "0.08", "GiBy.mo", [region])
    yield sku(f"{disk} attached to Spot Preemptible VMs in {region}", "0.03", "GiBy.mo", [region], **spot)


def _history(region: str, kind: str) -> Row:
    """Prices change once a month at most; the rate of preemption is told for each day."""
    days = [f"2026-{10 + day // 20}-{1 + day % 20:02}T08:00:00Z" for day in range(DAYS + 1)]
    return {
        "machineType": kind,
        "location": f"https://www.googleapis.com/compute/v1/projects/acme/regions/{region}",
        "priceHistory": [
            {
                "interval": {"startTime": "2026-09-01T08:00:00Z", "endTime": days[0]},
                "listPrice": money("1.2"),
            },
            {"interval": {"startTime": days[0]}, "listPrice": money("1.1")},
        ],
        "preemptionHistory": [
            {"interval": {"startTime": start, "endTime": end}, "preemptionRate": 0.05}
            for start, end in pairwise(days)
        ],
    }
