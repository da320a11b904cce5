"""CloudRift's instance types as offers: those that it publishes, and the same read with an account."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.catalog.names import named
from gpucloud.http import Tell
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from gpucloud.provider import Adapter, Published
from gpucloud.quantities import format_count
from gpucloud.replies import Rows

if TYPE_CHECKING:
    from gpucloud_cloudrift.api import InstanceType, Variant

GIB: Final = 2**30
CENTS: Final = 100
NO_ADDRESSES: Final = "no public addresses"


class Catalog(Adapter):
    """What CloudRift tells everybody."""

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One list of all data centres."""
        return ("",)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Every variant with a GPU, in every data centre; what is asked by POST has no editions."""
        from gpucloud_cloudrift.api import PATH, REQUEST, URL

        with self.client(self.name, self.settings.table.get("catalog_url", URL)) as http:
            body = http.query(PATH, json=REQUEST, tell=tell)
        return Published(self.offers_of(body, "published"))

    def offers_of(self, body: object, confidence: str) -> list[Offer]:
        """What a list of instance types offers. Raises ``BadReply`` when none of it can be read."""
        from gpucloud_cloudrift.api import InstanceType, Told, Types, Variant

        reply, now = Rows(self.name), utcnow()
        listed = reply.envelope(Told[Types].model_validate, body).data.instance_types
        for kind in reply.read(InstanceType.model_validate, listed):
            for cut in kind.variants:
                with reply.row():
                    variant = Variant.model_validate(cut)
                    reply.add(self._variant(kind, variant, now, confidence))
        return reply.offers()

    def _variant(self, kind: InstanceType, row: Variant, now: datetime, confidence: str) -> Iterator[Offer]:
        """An offer for each data centre; none without a GPU. Raises ``ValueError`` when there is no price."""
        count = row.gpu_count or 0
        if not count:
            return
        if row.cost_per_hour <= 0:
            raise ValueError(f"{row.name} has no price")
        usd = row.cost_per_hour / CENTS
        countries = {place.name: _country(place.country_code) for place in kind.datacenters or ()}
        for place in sorted({*(row.nodes_per_dc or ()), *(row.available_nodes_per_dc or ())}) or [None]:
            availability, detail = _availability(row, place)
            yield Offer(
                provider=self.name,
                instance_type=row.name,
                market=Market.ON_DEMAND,
                usd_per_hour=usd,
                amount=usd,
                as_of=now,
                source="api.cloudrift.ai",
                confidence=confidence,
                gpu=_gpu(kind, row),
                gpu_count=count,
                region=place,
                country=countries.get(place or ""),
                availability=availability,
                availability_detail=detail,
                vcpus=row.logical_cpu_count or None,
                memory_gib=_gib(row.dram),
                disk_gib=_gib(row.disk),
                ref=row.mig_profile or "",
            )


def _availability(row: Variant, place: str | None) -> tuple[Availability, str | None]:
    """Whether nodes are free in a data centre, or anywhere, and how many."""
    free, total = row.available_nodes, None
    if place is not None:
        free = None if row.available_nodes_per_dc is None else row.available_nodes_per_dc.get(place, 0)
        total = (row.nodes_per_dc or {}).get(place)
    if free is None:
        return Availability.UNKNOWN, None
    addresses = (row.ip_availability_per_dc or {}).get(place or "")
    detail = f"{free} of {total} nodes free" if total is not None else f"{format_count(free, 'node')} free"
    if addresses and addresses.public_ips is False:
        detail += f", {NO_ADDRESSES}"
    return Availability.AVAILABLE if free > 0 else Availability.UNAVAILABLE, detail


def _gpu(kind: InstanceType, row: Variant) -> Gpu:
    """One GPU, or the part of one. Raises ``ValueError`` when nothing names it."""
    text = kind.brand_short or kind.name
    if row.mig_profile:
        # The profile names the memory of the part; vram may be that of the whole.
        return named(f"{text} {row.mig_profile}")
    return named(text, memory_gib=_gib(row.vram))


def _country(code: str | None) -> str | None:
    return code.upper() if code and re.fullmatch("[A-Za-z]{2}", code) else None


def _gib(count: int | None) -> Decimal | None:
    return round(Decimal(count) / GIB, 2) if count else None
