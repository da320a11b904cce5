"""Brev's instance types as offers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.catalog.currencies import to_usd
from gpucloud.catalog.names import named
from gpucloud.http import Tell
from gpucloud.model import Availability, Market, Offer, utcnow
from gpucloud.provider import Adapter, Evidence, Published
from gpucloud.replies import Rows, reason

if TYPE_CHECKING:
    from gpucloud_brev.api import InstanceType, Money

log = logging.getLogger(__name__)

HOURS_IN_MONTH: Final = 730
"""As Brev's own client counts them."""


class Brev(Adapter):
    """NVIDIA Brev: one account for several clouds."""

    name = "brev"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 10, 1)

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One list of all clouds and locations."""
        return ("",)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Every instance type with a GPU of every cloud, in every location where it can be had."""
        from gpucloud_brev.api import PATH, URL

        with self.client(self.name, self.settings.table.get("catalog_url", URL)) as http:
            edition = http.get_edition(PATH, validator=validator, tell=tell)
        if edition is None:
            return None
        body, validator = edition
        return Published(self._offers(body), validator)

    def _offers(self, body: object) -> list[Offer]:
        from gpucloud_brev.api import InstanceType, Reply

        reply, now = Rows(self.name), utcnow()
        listed = reply.envelope(Reply.model_validate, body).items
        for kind in reply.read(InstanceType.model_validate, listed):
            for place in _places(kind):
                with reply.row():
                    reply.add(self._offers_at(place, kind, now))
        return reply.offers()

    def _offers_at(self, place: str | None, row: InstanceType, now: datetime) -> Iterator[Offer]:
        """What a type is in one location; nothing without a GPU. Raises ``ValueError`` without a price."""
        from gpucloud_brev.api import gib

        gpus = [gpu for gpu in row.supported_gpus or () if gpu.count]
        if not gpus:
            return
        price, (disk, disk_price) = _price(row, place), self._disk(row)
        for gpu in gpus:
            yield Offer(
                provider=self.name,
                instance_type=f"{row.provider}/{row.type}",
                market=Market.SPOT if row.preemptible else Market.ON_DEMAND,
                usd_per_hour=to_usd(price.amount, price.currency, self.settings.rates).usd,
                currency=price.currency.upper(),
                amount=price.amount,
                as_of=now,
                source="api.brev.dev",
                confidence="published",
                gpu=named(gpu.name, memory_gib=gib(gpu.memory) or gib(str(gpu.memory_bytes or ""))),
                gpu_count=gpu.count,
                region=place,
                availability=_availability(row),
                vcpus=row.vcpu or None,
                memory_gib=gib(row.memory),
                disk_gib=disk,
                disk_usd_per_gib_month=disk_price,
                ref=f"{gpu.count}x {gpu.name}" if len(gpus) > 1 else "",
            )

    def _disk(self, row: InstanceType) -> tuple[Decimal | None, Decimal | None]:
        """The size of the disk that comes with it, or what one of any size costs a GiB and month."""
        from gpucloud_brev.api import Storage, gib

        # Where there are several, the first is the one that Brev's own client shows.
        try:
            disk = Storage.model_validate(next(iter(row.supported_storage or ()), {}))
            price = disk.price_per_gb_hr
            if disk.min_size and disk.max_size:
                if price is None or price.amount <= 0:
                    return None, None
                usd = to_usd(price.amount, price.currency, self.settings.rates).usd
                return None, usd * HOURS_IN_MONTH
        except ValueError as error:
            log.debug("%s: the disk of %s is not known: %s", self.name, row.type, reason(error))
            return None, None
        size = gib(disk.size)
        return size and size * (disk.count or 1), None


def _places(row: InstanceType) -> Iterable[str | None]:
    """Where it can be had; else where it is, as far as that is told."""
    places: Sequence[str | None] = row.available_locations or [row.location or None]
    return dict.fromkeys(places)


def _price(row: InstanceType, place: str | None) -> Money:
    """The price there. Raises ``ValueError`` when there is none."""
    from gpucloud_brev.api import Money

    own = row.location_prices.get(place) if isinstance(row.location_prices, dict) else None
    price = row.base_price if own is None else Money.model_validate(own)
    if price is None or price.amount <= 0:
        raise ValueError(f"{row.type} of {row.provider} has no price")
    return price


def _availability(row: InstanceType) -> Availability:
    if row.is_available is False:
        return Availability.UNAVAILABLE
    return Availability.AVAILABLE if row.is_available or row.available_locations else Availability.UNKNOWN
