"""The market of Vast.ai as offers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.catalog.names import named
from gpucloud.http import Tell
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from gpucloud.provider import Adapter, Published
from gpucloud.replies import Progress, Rows

if TYPE_CHECKING:
    from gpucloud_vast.api import Row

log = logging.getLogger(__name__)

BETWEEN_S: Final = 1.0
"""Questions start so far apart: how often one may ask is not published, and most of its reads allow that."""

MOST_PAGES: Final = 100
"""Whatever a part answers, it is not asked for ever."""

MIB_IN_GIB: Final = 1024

VERIFIED: Final = {"verified": True, "unverified": False, "deverified": False}

RENTABLE: Final = {
    True: Availability.AVAILABLE,
    False: Availability.UNAVAILABLE,
    None: Availability.UNKNOWN,
}


class Vast(Adapter):
    """Vast.ai, a market of other people's machines."""

    name = "vast"

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """The market by numbers of GPUs; each part tells of all regions."""
        from gpucloud_vast.api import PARTS

        return tuple(PARTS)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """What can be rented now with so many GPUs; a market has no editions."""
        from gpucloud_vast.api import Row

        tell(0, None)
        rows, now = Rows(self.name), utcnow()
        for row in self._read(part, rows, tell):
            with rows.row():
                rows.add(self._offers(part, Row.model_validate(row), now))
        return Published(rows.offers())

    def _read(self, part: str, rows: Rows, tell: Tell) -> Iterator[object]:
        """Every row of a part, some twice: in steps of price, because no reply has more than so many."""
        from gpucloud_vast.api import MOST, PATH, URL, Reply, question

        url = self.settings.table.get("catalog_url", URL)
        # How many pages there are shows only at the last one.
        progress = Progress(lambda read, _: tell(read, None))
        with self.client(self.name, url, min_interval_s=BETWEEN_S) as http:
            price, reached = dict[str, float](), Decimal(0)
            for _ in range(MOST_PAGES):
                edition = http.get_edition(PATH, params=question(part, price), tell=progress.told)
                progress.next_request()
                page = rows.envelope(Reply.model_validate, edition and edition[0]).offers
                yield from page
                if len(page) < MOST:
                    return
                dearest = max(map(_price, page))
                if dearest < reached or (dearest == reached and "gte" not in price):
                    break
                # Others may have the price of the last one; when the whole page has it, only past it is left.
                price = {"gte" if dearest > reached else "gt": float(dearest)}
                reached = dearest
        log.warning("%s: %s has more offers than are read; the dearest are left out", self.name, part)

    def _offers(self, part: str, row: Row, now: datetime) -> Iterator[Offer]:
        """One offer on demand and one for a bid. Raises ``ValueError`` for a row without any price."""
        from gpucloud_vast.api import PARTS

        wanted = PARTS[part]
        if not row.num_gpus or row.num_gpus != wanted.get("eq", row.num_gpus):
            return
        if row.num_gpus in wanted.get("notin", ()):
            return
        if not (row.dph_base or row.min_bid):
            raise ValueError(f"the offer {row.id} has no price")
        for market, price in (Market.ON_DEMAND, row.dph_base), (Market.SPOT, row.min_bid):
            if price:
                yield self._offer(row, market, price, now)

    def _offer(self, row: Row, market: Market, price: Decimal, now: datetime) -> Offer:
        region, zone, country = _place(row.geolocation)
        reliability = row.reliability2
        return Offer(
            provider=self.name,
            instance_type=row.gpu_name,
            ref=str(row.id),
            market=market,
            usd_per_hour=price,
            amount=price,
            as_of=now,
            source="console.vast.ai",
            confidence="published",
            gpu=_gpu(row),
            gpu_count=row.num_gpus,
            region=region,
            zone=zone,
            country=country,
            availability=RENTABLE[row.rentable],
            vcpus=int(row.cpu_cores_effective or 0) or None,
            memory_gib=_memory(row),
            disk_gib=row.disk_space or None,
            disk_usd_per_gib_month=row.storage_cost,
            egress_usd_per_gib=row.inet_up_cost,
            inet_up_mbps=_mbps(row.inet_up),
            inet_down_mbps=_mbps(row.inet_down),
            interconnect="nvlink" if row.bw_nvlink and row.num_gpus > 1 else None,
            reliability=reliability if reliability is not None and reliability <= 1 else None,
            cuda=row.cuda_max_good or None,
            driver=row.driver_version,
            verified=VERIFIED.get(row.verification or ""),
            secure=None if row.hosting_type is None else row.hosting_type > 0,
        )


def _price(row: object) -> Decimal:
    """By what a row stands in the order of its page; 0 for a row that does not say it."""
    from gpucloud_vast.api import Row

    try:
        return Row.model_validate(row).dph_total or Decimal(0)
    except ValueError:
        return Decimal(0)


def _gpu(row: Row) -> Gpu:
    """One of its GPUs."""
    return named(row.gpu_name, memory_gib=row.gpu_ram / MIB_IN_GIB if row.gpu_ram else None)


def _memory(row: Row) -> Decimal | None:
    """The share of the machine's memory that goes with the cores."""
    if not (row.cpu_ram and row.cpu_cores and row.cpu_cores_effective):
        return None
    share = min(row.cpu_cores_effective / row.cpu_cores, Decimal(1))
    return (row.cpu_ram * share / MIB_IN_GIB).quantize(Decimal("0.01")) or None


def _mbps(speed: Decimal | None) -> int | None:
    return None if speed is None else round(speed)


def _place(text: str | None) -> tuple[str | None, str | None, str | None]:
    """Region, zone and country of ``California, US``: the code to search by, the whole, and the country."""
    if text is None:
        return None, None, None
    before, _, code = (part.strip() for part in text.rpartition(","))
    if not re.fullmatch("[A-Z]{2}", code):
        return text, None, None
    # What begins with X, Kosovo apart, is free for everybody's own use.
    iso = not code.startswith("X") or code == "XK"
    return code, text if before else None, code if iso else None
