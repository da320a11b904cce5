"""Shadeform's instance types as offers: what it publishes of them to everybody, and live."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.catalog.names import named, normalise
from gpucloud.catalog.sellers import seller
from gpucloud.http import Tell
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from gpucloud.provider import Adapter, Published
from gpucloud.replies import Rows

if TYPE_CHECKING:
    from gpucloud_shadeform.api import InstanceType, Place

    Told = Callable[[InstanceType, Place | None, datetime], Iterable[Offer]]

CENTS: Final = 100
NOWHERE: Final = object()
COUNTRIES: Final = {"UK": "GB", "EU": None}
"""What region names begin with that is no ISO code of a country."""

POOL: Final = "excesssupply"
"""Shadeform's own pool; whose machines it has is not told."""


class Catalogue(Adapter):
    """The list of instance types. The whole of it is one part of the public catalogue."""

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One list of all clouds and regions."""
        return ("",)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Every instance type with a GPU of every cloud, in every region, on demand and spot."""
        from gpucloud_shadeform.api import TYPES, URL

        with self.client(self.name, self.settings.table.get("catalog_url", URL)) as http:
            edition = http.get_edition(TYPES, validator=validator, tell=tell)
        if edition is None:
            return None
        body, validator = edition
        return Published(self._offers(body, self._published), validator)

    def _kinds(self, reply: Rows, body: object) -> list[InstanceType]:
        from gpucloud_shadeform.api import InstanceType, Types

        listed = reply.envelope(Types.model_validate, body).instance_types
        return list(filter(_has_gpus, reply.read(InstanceType.model_validate, listed)))

    def _offers(self, body: object, told: Told) -> list[Offer]:
        from gpucloud_shadeform.api import Place

        reply, now = Rows(self.name), utcnow()
        for kind in self._kinds(reply, body):
            for entry in kind.availability or [NOWHERE]:
                with reply.row():
                    place = None if entry is NOWHERE else Place.model_validate(entry)
                    reply.add(told(kind, place, now))
        return reply.offers()

    def _published(self, kind: InstanceType, place: Place | None, now: datetime) -> Iterable[Offer]:
        ref = "/".join(filter(None, [kind.deployment_type, kind.cloud_instance_type]))
        yield self._offer(kind, place, now, confidence="published", ref=ref)

    def _offer(
        self, kind: InstanceType, place: Place | None, now: datetime, confidence: str = "live", ref: str = ""
    ) -> Offer:
        """A type in one region, or nowhere in particular. Raises ``ValueError`` when there is no price."""
        config = kind.configuration
        market, usd = _price(kind, place)
        return Offer(
            provider=self.name,
            instance_type=f"{kind.cloud}/{kind.shade_instance_type}",
            market=market,
            usd_per_hour=usd,
            amount=usd,
            as_of=now,
            source="api.shadeform.ai",
            gpu=_gpu(kind),
            gpu_count=config.num_gpus,
            region=place.region if place else None,
            country=_country(place.display_name) if place else None,
            availability=_availability(place),
            vcpus=config.vcpus or None,
            memory_gib=config.memory_in_gb or None,
            disk_gib=config.storage_in_gb or None,
            interconnect="nvlink" if config.nvlink else None,
            upstream=None if kind.cloud == POOL else seller(kind.cloud),
            confidence=confidence,
            ref=ref,
        )


def _price(kind: InstanceType, place: Place | None) -> tuple[Market, Decimal]:
    """How it is sold there, and the dollars for an hour of the whole instance."""
    from gpucloud_shadeform.api import ON_DEMAND, SPOT

    usd: Decimal | None
    if place is None or place.rental_type in {None, ON_DEMAND}:
        market, usd = Market.ON_DEMAND, Decimal(kind.hourly_price or 0) / CENTS
    elif place.rental_type == SPOT:
        market, usd = Market.SPOT, place.hourly_price
    else:
        raise ValueError(f"{place.rental_type!r} is no way of renting that is known")
    if not usd:
        raise ValueError(f"{kind.shade_instance_type} of {kind.cloud} has no price for {market}")
    return market, usd


def _has_gpus(kind: InstanceType) -> bool:
    return kind.configuration.num_gpus > 0 and kind.configuration.gpu_type.upper() != "CPU"


def _gpu(kind: InstanceType) -> Gpu:
    """One GPU. Raises ``ValueError`` when nothing names it."""
    config = kind.configuration
    gpu = named(config.gpu_type, memory_gib=config.vram_per_gpu_in_gb)
    names = f"{kind.cloud_instance_type} {kind.shade_instance_type}".lower()
    socket = "sxm" if "sxm" in names else (config.interconnect or "").lower()
    if gpu.form_factor is not None or not re.fullmatch("(sxm|pcie|nvl|oam)[0-9]?", socket):
        return gpu
    return normalise(f"{config.gpu_type} {socket}", memory_gib=config.vram_per_gpu_in_gb) or gpu


def _availability(place: Place | None) -> Availability:
    if place is None or place.available is None:
        return Availability.UNKNOWN
    return Availability.AVAILABLE if place.available else Availability.UNAVAILABLE


def _country(display_name: str | None) -> str | None:
    match = re.match("([A-Z]{2}), ", display_name or "")
    return COUNTRIES.get(match[1], match[1]) if match else None
