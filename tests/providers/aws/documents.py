"""Documents in Amazon's own format, small and made up, and a server that serves them with editions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from werkzeug import Request, Response

REGIONS = "/offers/v1.0/aws/AmazonEC2/current/region_index.json"
SPOT = "/spot.json"
ADVISOR = "/spot-advisor-data.json"

COLUMNS = """
SKU,OfferTermCode,RateCode,TermType,PriceDescription,EffectiveDate,StartingRange,EndingRange,Unit,
PricePerUnit,Currency,RelatedTo,LeaseContractLength,PurchaseOption,OfferingClass,Product Family,
serviceCode,Location,Location Type,Instance Type,Current Generation,Instance Family,vCPU,
Physical Processor,Clock Speed,Memory,Storage,Network Performance,Processor Architecture,
Storage Media,Volume Type,Max Volume Size,Max IOPS/volume,Max IOPS Burst Performance,
Max throughput/volume,Provisioned,Tenancy,EBS Optimized,Operating System,License Model,Group,
Group Description,Transfer Type,From Location,From Location Type,To Location,To Location Type,
usageType,operation,AvailabilityZone,CapacityStatus,ClassicNetworkingSupport,
Dedicated EBS Throughput,ECU,Elastic Graphics Type,Enhanced Networking Supported,From Region Code,
GPU,GPU Memory,Instance,instanceSKU,Intel AVX2 Available,Intel AVX Available,Intel Turbo Available,
MarketOption,Normalization Size Factor,Physical Cores,Pre Installed S/W,Processor Features,
Product Type,Region Code,Resource Type,serviceName,SnapshotArchiveFeeType,To Region Code,
Volume API Name,VPCNetworkingSupport
""".replace("\n", "").split(",")

PREAMBLE = (
    '"FormatVersion","v1.0"\n'
    '"Disclaimer","This list is for information only, and so is its ""Free Tier""."\n'
    '"Publication Date","2026-11-18T21:04:05Z"\n'
    '"Version","20261118210405"\n'
    '"OfferCode","AmazonEC2"\n'
)
PUBLISHED = datetime(2026, 11, 18, 21, 4, 5, tzinfo=UTC)

USUAL = {
    "TermType": "OnDemand",
    "OfferTermCode": "JRTCKXETXF",
    "EffectiveDate": "2026-11-01",
    "StartingRange": "0",
    "EndingRange": "Inf",
    "Unit": "Hrs",
    "Currency": "USD",
    "Product Family": "Compute Instance",
    "serviceCode": "AmazonEC2",
    "Location": "US East (N. Virginia)",
    "Location Type": "AWS Region",
    "Current Generation": "Yes",
    "Tenancy": "Shared",
    "Operating System": "Linux",
    "License Model": "No License required",
    "operation": "RunInstances",
    "CapacityStatus": "Used",
    "GPU Memory": "NA",
    "MarketOption": "OnDemand",
    "Pre Installed S/W": "NA",
    "Region Code": "us-east-1",
    "serviceName": "Amazon Elastic Compute Cloud",
    "Storage": "EBS only",
}

P5 = {
    "Instance Type": "p5.48xlarge",
    "PricePerUnit": "55.0400000000",
    "Instance Family": "GPU instance",
    "GPU": "8",
    "GPU Memory": "640 GB HBM3",
    "vCPU": "192",
    "Memory": "2048 GiB",
    "Storage": "8 x 3840 GB SSD",
    "SKU": "P5SKU",
}
G5 = {
    "Instance Type": "g5.xlarge",
    "PricePerUnit": "1.0060000000",
    "Instance Family": "GPU instance",
    "GPU": "1",
    "GPU Memory": "24 GB",
    "vCPU": "4",
    "Memory": "16 GiB",
    "Storage": "1 x 250 GB NVMe SSD",
    "SKU": "G5SKU",
}
INF2 = {
    "Instance Type": "inf2.48xlarge",
    "PricePerUnit": "12.9813000000",
    "Instance Family": "Machine Learning ASIC Instances",
    "GPU": "",
    "vCPU": "192",
    "Memory": "768 GiB",
    "SKU": "INF2SKU",
}
C6I = {
    "Instance Type": "c6i.large",
    "PricePerUnit": "0.0850000000",
    "Instance Family": "Compute optimized",
    "vCPU": "2",
    "Memory": "4 GiB",
    "SKU": "C6ISKU",
}


def row(cells: dict[str, str], **changed: str) -> str:
    """One line of a price list; an underscore in a name of ``changed`` is a blank."""
    changes = {name.replace("_", " "): value for name, value in changed.items()}
    whole = {**USUAL, **cells, **changes}
    price, kind = whole["PricePerUnit"], whole["Instance Type"]
    whole.setdefault("PriceDescription", f"${price} per On Demand Linux {kind} Instance Hour")
    whole.setdefault("usageType", f"BoxUsage:{kind}")
    assert set(whole) <= set(COLUMNS), set(whole) - set(COLUMNS)
    return line(whole.get(name, "") for name in COLUMNS)


def line(cells: Iterable[str]) -> str:
    """As Amazon writes it: everything quoted but what is empty."""
    return ",".join('"{}"'.format(cell.replace('"', '""')) if cell else "" for cell in cells) + "\n"


def price_list(*rows: str, preamble: str = PREAMBLE, header: str = "") -> bytes:
    return (preamble + (header or line(COLUMNS)) + "".join(rows)).encode()


def index(*regions: str) -> bytes:
    url = "/offers/v1.0/aws/AmazonEC2/20261118210405/{}/index.json"
    body = {name: {"regionCode": name, "currentVersionUrl": url.format(name)} for name in regions}
    return json.dumps({"formatVersion": "v1.0", "disclaimer": "", "regions": body}).encode()


def spot(region: str = "us-east-1", **usd: str) -> bytes:
    """Prices by instance type, in which an underscore is a point."""
    columns = {
        name.replace("_", "."): [
            {"name": "linux", "prices": {"USD": price}},
            {"name": "mswin", "prices": {"USD": "99.99"}},
        ]
        for name, price in usd.items()
    }
    sizes = [{"size": name, "valueColumns": both} for name, both in columns.items()]
    return json.dumps(spot_feed({region: sizes})).encode()


def spot_feed(regions: dict[str, list[Any]]) -> dict[str, Any]:
    told = [
        {
            "region": region,
            "footnotes": {"*": "notAvailableForCCorCGPU"},
            "instanceTypes": [
                {"type": "generalPreviousGen", "sizes": []},
                {"type": "gpuCurrentGen", "sizes": sizes},
            ],
        }
        for region, sizes in regions.items()
    ]
    config = {"rate": "perhr", "valueColumns": ["linux", "mswin"], "currencies": ["USD"], "regions": told}
    return {"vers": 0.01, "config": config}


def advisor(region: str = "us-east-1", **ranges: int) -> bytes:
    """The range of each instance type, in whose name an underscore is a point."""
    labels = ["<5%", "5-10%", "10-15%", "15-20%", ">20%"]
    linux = {name.replace("_", "."): {"s": 60, "r": number} for name, number in ranges.items()}
    body = {
        "instance_types": {name: {"emr": True, "cores": 4, "ram_gb": 16.0} for name in linux},
        "ranges": [
            {"index": number, "label": label, "dots": number, "max": 5} for number, label in enumerate(labels)
        ],
        "spot_advisor": {region: {"Linux": linux, "Windows": {name: {"s": 1, "r": 4} for name in linux}}},
        "global_rate": "<10%",
    }
    return json.dumps(body).encode()


@dataclass
class Amazon:
    """What is served: bodies by path, or what answers a path. ``told`` are the paths and statuses."""

    bodies: dict[str, bytes] = field(default_factory=dict)
    handlers: dict[str, Callable[[Request], Response]] = field(default_factory=dict)
    changed_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    told: list[tuple[str, int]] = field(default_factory=list)

    def prices(self, *rows: str, region: str = "us-east-1", **more: str) -> None:
        self.bodies[list_of(region)] = price_list(*rows, **more)

    def answer(self, request: Request) -> Response:
        response = self._response(request)
        self.told.append((request.path, response.status_code))
        return response

    def _response(self, request: Request) -> Response:
        if handler := self.handlers.get(request.path):
            return handler(request)
        if request.path not in self.bodies:
            return Response("<Error><Code>AccessDenied</Code></Error>", 403)
        response = Response(self.bodies[request.path])
        response.last_modified = self.changed_at
        response.add_etag()
        return response.make_conditional(request)


def list_of(region: str) -> str:
    return f"/offers/v1.0/aws/AmazonEC2/current/{region}/index.csv"
