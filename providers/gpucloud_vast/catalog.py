"""The market of Vast.ai as offers: what it tells everybody, and how any of its lists is read."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.catalog.names import named
from gpucloud.http import Tell
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from gpucloud.provider import Adapter, Published
from gpucloud.replies import Progress, Rows
from gpucloud_vast.search import MIB_IN_GIB, MOST, PARTS, question

if TYPE_CHECKING:
    from gpucloud_vast.api import Row

log = logging.getLogger(__name__)

BETWEEN_S: Final = 1.0
"""Questions start so far apart: how often one may ask is not published, and most of its reads allow that."""

MOST_PAGES: Final = 100
"""Whatever a list answers, it is not asked for ever."""

MONTH: Final = Decimal(730) / 720
"""A month of disk is 720 hours there, and 730 with us."""

DAY_S: Final = 86_400

VERIFIED: Final = {"verified": True, "unverified": False, "deverified": False}

RENTABLE: Final = {
    True: Availability.AVAILABLE,
    False: Availability.UNAVAILABLE,
    None: Availability.UNKNOWN,
}


class VastCatalog(Adapter):
    """What Vast.ai tells everybody."""

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """The market by numbers of GPUs; each part tells of all regions."""
        return tuple(PARTS)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """What can be rented now with so many GPUs; a market has no editions."""
        from gpucloud_vast.api import SEARCH, URL, Reply, Row

        tell(0, None)
        rows, now = Rows(self.name), utcnow()
        # How many pages there are shows only at the last one.
        progress = Progress(lambda read, _: tell(read, None))
        with self.client(
            self.name, self.settings.table.get("catalog_url", URL), min_interval_s=BETWEEN_S
        ) as http:

            def ask(price: Mapping[str, float]) -> list[Any]:
                edition = http.get_edition(SEARCH, params=question(part, price), tell=progress.told)
                progress.next_request()
                return rows.envelope(Reply.model_validate, edition and edition[0]).offers

            for page in pages(ask, f"{self.name}, {part}"):
                for row in page:
                    with rows.row():
                        rows.add(self._published(part, Row.model_validate(row), now))
        return Published(rows.offers())

    def _published(self, part: str, row: Row, now: datetime) -> Iterator[Offer]:
        """One offer on demand and one for a bid. Raises ``ValueError`` for a row without any price."""
        wanted = PARTS[part]
        if not row.num_gpus or row.num_gpus != wanted.get("eq", row.num_gpus):
            return
        if row.num_gpus in wanted.get("notin", ()):
            return
        if not (row.dph_base or row.min_bid):
            raise ValueError(f"the offer {row.id} has no price")
        for market in Market.ON_DEMAND, Market.SPOT:
            if price_of(row, market):
                yield offer_of(self.name, row, market, now, confidence="published")


def pages(ask: Callable[[Mapping[str, float]], list[Any]], what: str) -> Iterator[list[Any]]:
    """Every page of a list, some rows twice: in steps of price, because no page has more than so many.

    ``ask`` is given the condition that ``dph_total`` is to meet, and none for the first page.
    """
    price, reached = dict[str, float](), Decimal(0)
    for _ in range(MOST_PAGES):
        page = ask(price)
        yield page
        if len(page) < MOST:
            return
        dearest = max(map(_place_in_order, page))
        if dearest < reached or (dearest == reached and "gte" not in price):
            break
        # Others may have the price of the last one; when the whole page has it, only past it is left.
        price = {"gte" if dearest > reached else "gt": float(dearest)}
        reached = dearest
    log.warning("%s has more offers than are read; the dearest are left out", what)


def price_of(row: Row, market: Market) -> Decimal | None:
    """What an hour costs without disk: as it is, or the least that may be bid."""
    return (row.min_bid if market is Market.SPOT else row.dph_base) or None


def offer_of(provider: str, row: Row, market: Market, now: datetime, confidence: str = "live") -> Offer:
    """A row as one of its two offers. Raises ``ValueError`` when it has no price."""
    price = price_of(row, market)
    if price is None:
        raise ValueError(f"the offer {row.id} has no price")
    region, zone, country = _place(row.geolocation)
    reliability = row.reliability2
    return Offer(
        provider=provider,
        instance_type=row.gpu_name,
        ref=str(row.id),
        market=market,
        usd_per_hour=price,
        amount=price,
        as_of=now,
        source="console.vast.ai",
        confidence=confidence,
        gpu=_gpu(row),
        gpu_count=row.num_gpus,
        region=region,
        zone=zone,
        country=country,
        availability=RENTABLE[row.rentable],
        availability_detail=f"for {int(row.duration // DAY_S)} days" if row.duration else None,
        vcpus=int(row.cpu_cores_effective or 0) or None,
        memory_gib=_memory(row),
        disk_gib=row.disk_space or None,
        disk_usd_per_gib_month=None if row.storage_cost is None else row.storage_cost * MONTH,
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


def _place_in_order(row: object) -> Decimal:
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
