"""EC2 as far as past Spot prices need it: its query protocol in, its XML out, every region at one address.

The figures of the instance types are those that EC2 tells; the prices are made up.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from werkzeug import Request, Response

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/[0-9]{8}/([a-z0-9-]+)/ec2/aws4_request")


def gpus(kind: str, count: int, name: str, mib: int, maker: str = "NVIDIA") -> dict[str, Any]:
    device = {"count": count, "manufacturer": maker, "name": name, "memoryInfo": {"sizeInMiB": mib}}
    return {"instanceType": kind, "gpuInfo": {"gpus": [device], "totalGpuMemoryInMiB": count * mib}}


def neuron(kind: str, count: int, name: str, mib: int) -> dict[str, Any]:
    device = {"count": count, "name": name, "memoryInfo": {"sizeInMiB": mib}}
    return {"instanceType": kind, "neuronInfo": {"neuronDevices": [device]}}


def inference(kind: str, count: int, name: str, mib: int, maker: str) -> dict[str, Any]:
    device = {"count": count, "manufacturer": maker, "name": name, "memoryInfo": {"sizeInMiB": mib}}
    return {"instanceType": kind, "inferenceAcceleratorInfo": {"accelerators": [device]}}


P5 = gpus("p5.48xlarge", 8, "H100", 81920)
G5 = gpus("g5.xlarge", 1, "A10G", 22888)
G6F = gpus("g6f.large", 0, "L4", 2861)
TRN2 = neuron("trn2.48xlarge", 16, "Trainium2", 524288)
DL2Q = inference("dl2q.24xlarge", 8, "Qualcomm AI100", 16000, "Qualcomm")
C6I = {"instanceType": "c6i.large"}


def price(kind: str, zone: str, usd: str, at: datetime, product: str = "Linux/UNIX") -> dict[str, Any]:
    return {
        "instanceType": kind,
        "productDescription": product,
        "spotPrice": usd,
        "timestamp": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "availabilityZone": zone,
    }


@dataclass(frozen=True)
class Asked:
    """One request: what of whom; a list such as ``InstanceType.1`` is under its name without the numbers."""

    action: str
    region: str
    words: Mapping[str, Sequence[str]]


@dataclass
class Ec2:
    """What each region has. ``troubles`` are the status, code and text that a region answers instead.

    ``first`` are texts that an action answers before anything else, one each time. ``heedless`` is a mirror
    that tells all it has, whatever it is asked for.
    """

    types: dict[str, list[Any]] = field(default_factory=dict)
    prices: dict[str, list[Any]] = field(default_factory=dict)
    troubles: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    heedless: bool = False
    page_size: int = 100
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Response:
        scope = SCOPE.match(request.headers.get("Authorization", ""))
        assert scope, request.headers
        key, region = scope.groups()
        asked = Asked(request.form["Action"], region, _lists(request.form))
        with self.lock:
            self.asked.append(asked)
        if key != KEY:
            return _refusal(
                401, "AuthFailure", "AWS was not able to validate the provided access credentials"
            )
        if trouble := self.troubles.get(region):
            return _refusal(*trouble)
        if texts := self.first.get(asked.action):
            return Response(texts.pop(0), content_type="text/xml")
        name, told = self._told(asked)
        start = int(asked.words.get("NextToken", ["0"])[0])
        end = start + self.page_size
        # The last page of past prices has an empty token, and that of instance types has none.
        token = str(end) if end < len(told) else "" if asked.action == "DescribeSpotPriceHistory" else None
        return _reply(asked.action, {name: told[start:end], "nextToken": token})

    def _told(self, asked: Asked) -> tuple[str, list[Any]]:
        if asked.action == "DescribeInstanceTypes":
            assert asked.words["Filter.Name"] == ["supported-usage-class"]
            assert asked.words["Filter.Value"] == ["spot"]
            return "instanceTypeSet", self.types.get(asked.region, [])
        assert asked.action == "DescribeSpotPriceHistory"
        types, products = asked.words["InstanceType"], asked.words["ProductDescription"]
        told = [
            one
            for one in self.prices.get(asked.region, [])
            if self.heedless or (one["instanceType"] in types and one["productDescription"] in products)
        ]
        return "spotPriceHistorySet", told

    def of(self, action: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.action == action]


def _lists(form: Mapping[str, str]) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for name, value in form.items():
        words.setdefault(re.sub(r"\.[0-9]+", "", name), []).append(value)
    return words


def _reply(action: str, told: Mapping[str, Any]) -> Response:
    body = f"<requestId>1</requestId>{_xml(told)}"
    space = "http://ec2.amazonaws.com/doc/2016-11-15/"
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{space}">{body}</{action}Response>'
    )
    return Response(text, content_type="text/xml;charset=UTF-8")


def _refusal(status: int, code: str, text: str) -> Response:
    error = _xml({"Errors": {"Error": {"Code": code, "Message": text}}, "RequestID": "1"})
    return Response(f"<Response>{error}</Response>", status, content_type="text/xml;charset=UTF-8")


def _xml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(f"<{name}>{_xml(one)}</{name}>" for name, one in value.items() if one is not None)
    if isinstance(value, list):
        return "".join(f"<item>{_xml(one)}</item>" for one in value)
    return escape(str(value))
