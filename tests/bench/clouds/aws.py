"""Amazon: 38 regions of three zones, in each all of the 80 accelerated types of 1,395 that moto knows.

Replies are written by botocore's own description of EC2. Not every region has every type in life, so this is
the most that there can be. A product of the price list has the terms for reserved instances in it, too, and
so some eight kilobytes.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import product
from typing import Any, Final
from urllib.parse import parse_qs

from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.ec2.models.instance_types import INSTANCE_TYPES

from gpucloud.model import utcnow
from tests.bench.clouds.server import Asked
from tests.harness.aws import goods
from tests.harness.aws.server import SCOPE
from tests.harness.aws.wire import reply

COMPRESSES: Final = False
"""botocore's connections ask for replies as they are."""

FAMILIES: Final = ("dl*", "g*", "inf*", "p*", "trn*")
REGIONS: Final = tuple(region.name for region in RegionsAndZonesBackend.regions)
HOME: Final = "us-east-1"
ZONES: Final = "abc"
QUOTAS: Final = 150
"""About as many as EC2 has in a region."""

PAGE: Final = 100
YEARS: Final = ("1yr", "3yr")
CLASSES: Final = ("standard", "convertible")
PAYMENTS: Final = ("No Upfront", "Partial Upfront", "All Upfront")

ATTRIBUTES: Final = {
    "servicecode": "AmazonEC2",
    "servicename": "Amazon Elastic Compute Cloud",
    "location": "US East (N. Virginia)",
    "locationType": "AWS Region",
    "currentGeneration": "Yes",
    "instanceFamily": "GPU instance",
    "physicalProcessor": "AMD EPYC 7R13 Processor",
    "clockSpeed": "3.6 GHz",
    "processorArchitecture": "64-bit",
    "processorFeatures": "AVX; AVX2; Intel AVX; Intel AVX2; Intel AVX512; Intel Turbo",
    "storage": "8 x 3800 GB SSD",
    "networkPerformance": "3200 Gigabit",
    "dedicatedEbsThroughput": "80000 Mbps",
    "enhancedNetworkingSupported": "Yes",
    "tenancy": "Shared",
    "operatingSystem": "Linux",
    "licenseModel": "No License required",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
    "operation": "RunInstances",
    "availabilityzone": "NA",
    "classicnetworkingsupport": "false",
    "vpcnetworkingsupport": "true",
    "intelAvxAvailable": "No",
    "intelAvx2Available": "No",
    "intelTurboAvailable": "No",
    "ecu": "NA",
    "normalizationSizeFactor": "384",
}


def types() -> list[str]:
    """The accelerated ones."""
    return [name for name in INSTANCE_TYPES if any(fnmatchcase(name, family) for family in FAMILIES)]


def key(asked: Asked) -> Hashable:
    """Which reply is meant."""
    scope = SCOPE.match(asked.headers.get("authorization", ""))
    _, region, service = scope.groups() if scope else ("", "", "")
    if service == "ec2":
        return parse_qs(asked.body.decode())["Action"][0], region
    words = json.loads(asked.body)
    wanted = {each["Field"]: each["Value"] for each in words.get("Filters", [])}
    return service, wanted.get("instanceType"), words.get("NextToken")


def replies(_: str) -> dict[Hashable, bytes]:
    """All there are."""
    told: dict[Hashable, bytes] = {("DescribeRegions", HOME): _ec2("DescribeRegions", Regions=_regions())}
    of_home = {
        "DescribeInstanceTypes": _ec2(
            "DescribeInstanceTypes", InstanceTypes=[goods.facts(name) for name in types()]
        ),
        "DescribeInstanceTypeOfferings": _ec2(
            "DescribeInstanceTypeOfferings", InstanceTypeOfferings=list(_offerings())
        ),
        "DescribeSpotPriceHistory": _ec2("DescribeSpotPriceHistory", SpotPriceHistory=list(_spot_prices())),
    }
    for (action, body), region in product(of_home.items(), REGIONS):
        told[action, region] = body.replace(HOME.encode(), region.encode())
    quotas = list(_quotas())
    for first in range(0, QUOTAS, PAGE):
        last = first + PAGE
        more = {"NextToken": str(last)} if last < QUOTAS else {}
        page = {"Quotas": quotas[first:last], **more}
        told["servicequotas", None, str(first) if first else None] = reply(
            "servicequotas", "ListServiceQuotas", page
        ).get_data()
    for name in types():
        line = _product(name)
        lines = [line.replace(HOME, region) for region in REGIONS]
        products = {"FormatVersion": "aws_v1", "PriceList": lines}
        told["pricing", name, None] = reply("pricing", "GetProducts", products).get_data()
    return told


def _ec2(action: str, **told: Any) -> bytes:
    return reply("ec2", action, told).get_data()


def _regions() -> list[dict[str, str]]:
    return [
        {"RegionName": name, "Endpoint": f"ec2.{name}.amazonaws.com", "OptInStatus": "opted-in"}
        for name in REGIONS
    ]


def _offerings() -> Iterator[dict[str, str]]:
    for name, zone in product(types(), ZONES):
        yield {"InstanceType": name, "LocationType": "availability-zone", "Location": f"{HOME}{zone}"}


def _spot_prices() -> Iterator[dict[str, Any]]:
    for name, zone in product(types(), ZONES):
        yield {
            "AvailabilityZone": f"{HOME}{zone}",
            "InstanceType": name,
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": f"{len(name) / 3:.6f}",
            "Timestamp": utcnow() - timedelta(hours=2),
        }


def _quotas() -> Iterator[Mapping[str, Any]]:
    others = {f"L-{number:08X}": f"Running Dedicated m{number} Hosts" for number in range(QUOTAS)}
    for code, name in list((goods.QUOTAS | others).items())[:QUOTAS]:
        yield {
            "ServiceCode": "ec2",
            "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:aws:servicequotas:{HOME}:123456789012:ec2/{code}",
            "QuotaCode": code,
            "QuotaName": name,
            "Value": 10_000.0,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
            "QuotaAppliedAtLevel": "ACCOUNT",
        }


def _product(name: str) -> str:
    sku = f"{abs(hash(name)):016X}"[:16]
    attributes = {
        **ATTRIBUTES,
        "instanceType": name,
        "regionCode": HOME,
        "usagetype": f"BoxUsage:{name}",
        "vcpu": str(goods.vcpus(name)),
        "memory": "2048 GiB",
        "gpu": "8",
        "gpuMemory": "640 GB HBM3",
        "instancesku": sku,
    }
    lengths = product(YEARS, CLASSES, PAYMENTS)
    reserved = {f"{sku}.R{number}": _term(sku, f"R{number}", *each) for number, each in enumerate(lengths)}
    told = {
        "product": {"productFamily": "Compute Instance", "attributes": attributes, "sku": sku},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {f"{sku}.JRTC": _term(sku, "JRTC")}, "Reserved": reserved},
        "version": "20261120000000",
        "publicationDate": "2026-11-20T00:00:00Z",
    }
    return json.dumps(told, separators=(",", ":"))


def _term(sku: str, code: str, *reserved: str) -> dict[str, Any]:
    names = ("LeaseContractLength", "OfferingClass", "PurchaseOption")
    dimension = {
        "unit": "Hrs",
        "endRange": "Inf",
        "description": "Linux/UNIX (Amazon VPC), instance-type in this region",
        "appliesTo": [],
        "rateCode": f"{sku}.{code}.6YS6EN2CT7",
        "beginRange": "0",
        "pricePerUnit": {"USD": "55.0400000000"},
    }
    upfront = {
        "unit": "Quantity",
        "description": "Upfront Fee",
        "rateCode": f"{sku}.{code}.2TG2D8R56U",
        "pricePerUnit": {"USD": "120000"},
    }
    return {
        "priceDimensions": {
            f"{sku}.{code}.6YS6EN2CT7": dimension,
            **({f"{sku}.{code}.2TG2D8R56U": upfront} if reserved else {}),
        },
        "sku": sku,
        "effectiveDate": "2026-11-01T00:00:00Z",
        "offerTermCode": code,
        "termAttributes": dict(zip(names, reserved, strict=False)),
    }
