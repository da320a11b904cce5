"""Azure's retail prices as offers: the public catalogue, and the prices of what an account is offered."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gpucloud.errors import NotFound
from gpucloud.http import Tell, untold
from gpucloud.model import Market, Offer, utcnow
from gpucloud.provider import Adapter, Published
from gpucloud.replies import Progress, Rows, query_of

if TYPE_CHECKING:
    from gpucloud.http import HttpClient
    from gpucloud_azure.api import Row, Size

log = logging.getLogger(__name__)

PATIENCE_S: Final = 180
"""How long a page is asked for again: who is refused is to stay away for a minute."""
MOST_PAGES: Final = 20
"""A region has a page or two of GPU prices; a list much longer than that does not end."""

_DISTANT_PAST: Final = datetime.min.replace(tzinfo=UTC)
_OTHER_PRODUCT: Final = re.compile(r"\b(Windows|Win|Dedicated|Cloud ?Services)\b", re.IGNORECASE)
_LOW_PRIORITY: Final = re.compile(r"\bLow Priority\b", re.IGNORECASE)
_SPOT: Final = re.compile(r"\bSpot\b", re.IGNORECASE)
_VCPUS: Final = re.compile(r"Standard_[A-Z]+([0-9]+)", re.IGNORECASE)


class RetailPrices(Adapter):
    """What Azure tells everybody."""

    name: ClassVar[str] = "azure"

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One part for each region. ``west`` is every region that begins with it.

        Without any ``regions`` those of the setting ``catalog_regions``, a list or a text with commas, else
        some that most people want.
        """
        from gpucloud_azure.api import DEFAULT_REGIONS

        wanted = regions or self.settings.names("catalog_regions") or DEFAULT_REGIONS
        parts = [part for region in wanted for part in self._regions(region)]
        return tuple(dict.fromkeys(parts))

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Every size with whole GPUs in one region, on demand and spot; many pages have no edition."""
        with self.price_list(PATIENCE_S) as http:
            return Published(self.retail_offers(http, part, tell))

    def price_list(self, patience_s: float = 60) -> HttpClient:
        """What reads the prices; one for many regions keeps its connections."""
        from gpucloud_azure.api import URL

        url = self.settings.table.get("catalog_url", URL)
        return self.client(self.name, url, deadline_s=patience_s)

    def retail_offers(self, http: HttpClient, region: str, tell: Tell = untold) -> list[Offer]:
        """The same as they are read now. Raises what a read over the network raises."""
        from gpucloud_azure.api import Row

        now, unknown = utcnow(), set[str]()
        rows = (row for row in self._rows(http, region, tell) if _may_count(row, unknown))
        found = Rows(self.name).read(Row.model_validate, rows)
        for name in sorted(unknown):
            log.debug("%s: %s is left out in %s: its GPUs are not known", self.name, name, region)
        return list(self._offers(region, found, now))

    def _regions(self, text: str) -> Sequence[str]:
        """The regions that ``text`` names; Azure itself is asked for one that is not in the table yet."""
        from gpucloud_azure.api import REGIONS

        name = "".join(text.split()).lower()
        if name in REGIONS:
            return [name]
        if begun := [region for region in REGIONS if name and region.startswith(name)]:
            return begun
        if re.fullmatch("[a-z0-9]+", name) and self._has_prices(name):
            return [name]
        raise NotFound(
            f"{self.name} tells no prices of GPUs in {text!r}",
            provider=self.name,
            why="its list is empty there, which is all it says of a region that does not exist",
            hint=f"its regions are {', '.join(sorted(REGIONS))}",
        )

    def _has_prices(self, region: str) -> bool:
        with self.price_list(PATIENCE_S) as http:
            return next(self._rows(http, region, untold), None) is not None

    def _rows(self, http: HttpClient, region: str, tell: Tell) -> Iterator[Any]:
        """The rows of all pages as they came; a page is asked for when it is needed."""
        from gpucloud_azure.api import FILTER, PATH, VERSION, Page

        asked = {"api-version": VERSION, "$filter": FILTER.format(region=region)}
        reply, progress, params = Rows(self.name), Progress(tell), asked
        for _ in range(MOST_PAGES):
            edition = http.get_edition(PATH, params=params, tell=progress.told)
            progress.next_request()
            page = reply.envelope(Page.model_validate, edition and edition[0])
            yield from page.items
            if not page.items or not page.next_page_link:
                return
            params = asked | reply.envelope(query_of, page.next_page_link)
        raise reply.bad(f"there are more than {MOST_PAGES} pages of {region}")

    def _offers(self, region: str, rows: Iterable[Row], now: datetime) -> Iterator[Offer]:
        from gpucloud_azure.api import SIZES

        meters: dict[tuple[str, Market], list[Row]] = defaultdict(list)
        for row in rows:
            if _counts(row, region, now):
                market = Market.SPOT if _SPOT.search(row.meter_name) else Market.ON_DEMAND
                meters[row.arm_sku_name.casefold(), market].append(row)
        for (name, market), found in meters.items():
            if valid := _in_force(found):
                yield self._offer(valid, SIZES[name], market, now)
            else:
                told = found[0].arm_sku_name
                log.debug("%s: %s is left out in %s: it has several prices", self.name, told, region)

    def _offer(self, row: Row, size: Size, market: Market, now: datetime) -> Offer:
        from gpucloud.catalog.names import normalise
        from gpucloud_azure.api import REGIONS

        vcpus = _VCPUS.match(row.arm_sku_name)
        return Offer(
            provider=self.name,
            instance_type=row.arm_sku_name,
            market=market,
            usd_per_hour=row.price,
            amount=row.price,
            as_of=now,
            source="prices.azure.com",
            confidence="published",
            gpu=normalise(size.gpu, memory_gib=size.gpu_memory),
            gpu_count=size.gpus,
            region=row.arm_region_name,
            country=REGIONS.get(row.arm_region_name),
            vcpus=int(vcpus[1]) if vcpus else None,
            memory_gib=Decimal(size.memory_gib),
            any_disk=True,
            interconnect=size.interconnect,
        )


def _may_count(row: Any, unknown: set[str]) -> bool:
    """Whether a row as it came may be a price of ours; one in ten is, and the others are not worth reading.

    A size whose GPUs are not known is put into ``unknown``.
    """
    from gpucloud_azure.api import SIZES

    try:
        name = row["armSkuName"]
        if name and name.casefold() not in SIZES:
            unknown.add(name)
            return False
        return not _OTHER_PRODUCT.search(row["productName"]) and not _LOW_PRIORITY.search(row["meterName"])
    except (TypeError, KeyError, AttributeError):
        # Whoever reads it says what is wrong with it.
        return True


def _counts(row: Row, region: str, now: datetime) -> bool:
    """Whether it is what anybody pays now for an hour of Linux on a size in ``region``."""
    from gpucloud_azure.api import CONSUMPTION, HOUR

    return (
        (row.type, row.unit_of_measure, row.currency_code) == (CONSUMPTION, HOUR, "USD")
        and row.arm_region_name == region
        and row.price > 0
        and (row.effective_start_date is None or row.effective_start_date <= now)
        and (row.effective_end_date is None or now <= row.effective_end_date)
    )


def _in_force(meters: Sequence[Row]) -> Row | None:
    """Of the meters of one size the latest, those of its own region first; ``None`` if they disagree."""
    newest = max(map(_rank, meters))
    left = [row for row in meters if _rank(row) == newest]
    return left[0] if len({row.price for row in left}) == 1 else None


def _rank(row: Row) -> tuple[bool, datetime]:
    return row.is_primary_meter_region, row.effective_start_date or _DISTANT_PAST
