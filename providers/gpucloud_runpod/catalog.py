"""What RunPod publishes of its types of GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from gpucloud.errors import BadReply, Rejected
from gpucloud.http import HttpClient, Tell
from gpucloud.model import Availability, Market, Offer, utcnow
from gpucloud.provider import Adapter, Evidence, Published
from gpucloud.replies import Progress, Rows
from gpucloud_runpod.offers import NAME, PLACEHOLDER, gpu_named, pod, stock

if TYPE_CHECKING:
    from gpucloud_runpod.graphql import Cloud, GpuType, Probe

log = logging.getLogger(__name__)


class Catalog(Adapter):
    """The public prices; nothing of this rents."""

    name = NAME
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One list, of prices that are the same everywhere."""
        return ("",)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Every type of GPU in each number that a pod can have; what is asked by POST has no editions."""
        from gpucloud_runpod.graphql import PLAIN_REQUEST, REQUEST, URL, GpuType

        rows, progress, now = Rows(self.name), Progress(tell), utcnow()
        with self.client(self.name, self.settings.table.get("catalog_url", URL)) as http:
            try:
                kinds = _ask(http, REQUEST, rows, progress)
            except (Rejected, BadReply) as error:
                log.debug("%s: it is asked for prices only: %s", self.name, error.why)
                progress.next_request()
                kinds = _ask(http, PLAIN_REQUEST, rows, progress)
        for kind in kinds:
            with rows.row():
                rows.add(self._type(GpuType.model_validate(kind), now))
        return Published(rows.offers())

    def _type(self, kind: GpuType, now: datetime) -> Iterator[Offer]:
        """The offers of one type of GPU. Raises ``ValueError`` where its stock is malformed."""
        for cloud in kind.clouds() if kind.id != PLACEHOLDER else ():
            for count in range(max(kind.min_pod_gpu_count or 1, 1), cloud.most + 1):
                yield from self._pod(kind, cloud, count, now)

    def _pod(self, kind: GpuType, cloud: Cloud, count: int, now: datetime) -> Iterator[Offer]:
        """A pod with so many GPUs, and one that can be taken back where that is said to cost less."""
        probe = kind.probe("secure", count) if cloud.name == "secure" else None
        availability, detail = _stock(kind, cloud, count)
        cheaper = cloud.spot if cloud.spot and cloud.price and cloud.spot < cloud.price else None
        for market, price in (Market.ON_DEMAND, cloud.price), (Market.SPOT, cheaper):
            if price:
                yield pod(
                    price,
                    gpu=gpu_named(kind.id, kind.display_name, kind.memory_in_gb),
                    gpu_count=count,
                    now=now,
                    instance_type=kind.id,
                    ref=f"{count} {cloud.name}",
                    market=market,
                    confidence="published",
                    # What is left is told of pods that are not taken back.
                    availability=availability if market is Market.ON_DEMAND else Availability.UNKNOWN,
                    availability_detail=detail if market is Market.ON_DEMAND else None,
                    vcpus=int(probe.min_vcpu or 0) or None if probe else None,
                    memory_gib=probe.min_memory or None if probe else None,
                    secure=cloud.name == "secure",
                )


def _ask(http: HttpClient, request: Mapping[str, str], rows: Rows, progress: Progress) -> Sequence[object]:
    """The types as they are told."""
    from gpucloud_runpod.graphql import PATH, types

    return rows.envelope(types, http.query(PATH, json=request, tell=progress.told))


def _stock(kind: GpuType, cloud: Cloud, count: int) -> tuple[Availability, str | None]:
    """What is left, and in RunPod's words. Of the community cloud it is known only by exclusion."""
    anywhere, secure = (_read(kind.probe(where, count)) for where in ("any", "secure"))
    if cloud.name == "secure":
        return secure
    if anywhere[0] is Availability.UNAVAILABLE or secure[0] is Availability.UNAVAILABLE:
        return anywhere
    return Availability.UNKNOWN, None


def _read(probe: Probe | None) -> tuple[Availability, str | None]:
    if probe is None:
        return Availability.UNKNOWN, None
    status = probe.stock_status
    if status is None:
        return Availability.UNAVAILABLE, None
    return stock(status), status
