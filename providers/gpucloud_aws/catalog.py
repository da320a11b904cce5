"""What Amazon publishes of the prices of EC2, region by region, and what Spot instances have cost."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from gpucloud.download import download
from gpucloud.errors import NotFound, ProviderError, Rejected
from gpucloud.http import (
    MAX_REPLY_BYTES,
    UNCHANGED,
    HttpClient,
    Tell,
    if_changed,
    length_of,
    untold,
    validator_of,
)
from gpucloud.model import Market, Offer, utcnow
from gpucloud.provider import Adapter, Evidence, Published
from gpucloud.replies import Progress, Rows

if TYPE_CHECKING:
    from gpucloud_aws.account import Account
    from gpucloud_aws.api import Bands, Document, Edition, PriceList, SpotPrices

log = logging.getLogger(__name__)
T = TypeVar("T", "SpotPrices", "Bands")

USUAL_REGIONS: Final = ("us-east-1", "us-east-2", "us-west-2", "eu-west-1")
"""Those that most people want; every one costs reading hundreds of megabytes."""

FROZEN: Final = timedelta(days=7)
"""Spot prices change every hour; older ones come from a file that is not kept up any more."""

PATIENCE_S: Final = 10
"""How long what is only added to the prices is waited for."""

BAND: Final = "{} of the instances interrupted in the last month"

_UNCONFIRMED: Final = {"validator": None}


class Catalog(Adapter):
    """The public prices, and the past ones; nothing of this rents."""

    name = "aws"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One part for each region; ``eu`` is every region whose name begins with it as a word."""
        wanted = self._wanted(regions)
        if not wanted:
            return USUAL_REGIONS
        known = self._regions()
        return tuple(dict.fromkeys(region for name in wanted for region in self._meant(name, known)))

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Read the price list of a region, its Spot prices and what the advisor says of it."""
        from gpucloud_aws.api import (
            ADVISOR_PATH,
            SPOT_PATH,
            Bands,
            Edition,
            SpotPrices,
            read_bands,
            read_spot,
        )

        known, progress = Edition.parse(validator), Progress(tell)
        spot, bands = (known.spot, known.bands) if known else (SpotPrices(), Bands())
        prices = self._prices(part, known.prices if known else None, progress)
        if known and prices is not known.prices:
            # What is remembered is of the lines of another price list.
            spot, bands = spot.model_copy(update=_UNCONFIRMED), bands.model_copy(update=_UNCONFIRMED)
        types = {line.instance_type for line in prices.lines}
        spot = self._beside("spot_url", SPOT_PATH, spot, partial(read_spot, part, types), progress)
        bands = self._beside("advisor_url", ADVISOR_PATH, bands, partial(read_bands, part, types), progress)
        edition = Edition(prices=prices, spot=_kept_up(spot), bands=bands)
        if edition == known:
            return None
        offers = tuple(self._offers(part, edition))
        return Published(offers, edition.model_dump_json() if prices.validator else None)

    def spot_history(self, since: datetime, regions: Sequence[str]) -> Iterable[Offer]:
        """What Spot instances have cost, zone by zone, in the regions that the parts would be of.

        Which regions there are boto3 knows, so no price list is read. A region that is not open to the
        account is left out when only a beginning such as ``eu`` meant it.
        """
        from gpucloud_aws import spot_history

        account = self._account
        wanted = spot_history.meant(account, self._wanted(regions) or USUAL_REGIONS)
        return spot_history.read(account, wanted, since)

    def bands(self, types: Mapping[str, Set[str]]) -> dict[tuple[str, str], str]:
        """What the advisor says of the instance types of each region, by type and region.

        Nothing when it cannot be read.
        """
        from gpucloud_aws.api import ADVISOR_PATH, read_bands

        try:
            with self._http("advisor_url", deadline_s=PATIENCE_S) as http:
                document = _document(http, ADVISOR_PATH, None, Progress(untold))
            told = (
                {region: read_bands(region, names, document).labels for region, names in types.items()}
                if document
                else {}
            )
        except (ProviderError, ValueError, RecursionError) as error:
            log.debug("%s: the advisor cannot be read: %s", self.name, getattr(error, "why", error))
            return {}
        return {(name, region): band for region, labels in told.items() for name, band in labels.items()}

    @cached_property
    def _account(self) -> Account:
        from gpucloud_aws.account import Account

        return Account(self.settings)

    def _wanted(self, regions: Sequence[str]) -> list[str]:
        return [name.strip().lower() for name in regions or self.settings.names("catalog_regions")]

    def _regions(self) -> list[str]:
        from gpucloud_aws.api import REGIONS_PATH, RegionIndex

        with self._http("catalog_url") as http:
            index = http.get(REGIONS_PATH)
        return sorted(Rows(self.name).envelope(RegionIndex.model_validate, index).regions)

    def _meant(self, name: str, known: Sequence[str]) -> list[str]:
        if name in known:
            return [name]
        found = [region for region in known if region.startswith(f"{name}-")]
        if not found:
            close = difflib.get_close_matches(name, known, n=3)
            raise NotFound(
                f"{self.name} has no region {name}",
                provider=self.name,
                why=f"its price list has {len(known)} regions and zones, and none of that name",
                hint=f"did you mean {', '.join(close)}?" if close else f"one of them is {known[0]}",
            )
        return found

    def _prices(self, part: str, known: PriceList | None, progress: Progress) -> PriceList:
        from gpucloud_aws import price_list
        from gpucloud_aws.api import LIST_PATH, PriceList

        path, validator = LIST_PATH.format(region=part), known.validator if known else None
        with (
            self._http("catalog_url") as http,
            download(http, path, validator=validator, tell=progress.told) as file,
        ):
            if file is not None:
                published_at, lines = price_list.read(file.lines(), part, self.name)
                return PriceList(validator=file.validator, published_at=published_at, lines=lines)
        if known is None:
            raise Rows(self.name).bad(f"{path} is said to be unchanged")
        return known

    def _beside(self, key: str, path: str, known: T, make: Callable[[Document], T], progress: Progress) -> T:
        """What is only added to the prices: as it is now or, if it cannot be read, as it is remembered."""
        progress.next_request()
        try:
            with self._http(key, deadline_s=PATIENCE_S) as http:
                document = _document(http, path, known.validator, progress)
            return known if document is None else make(document)
        except (ProviderError, ValueError, RecursionError) as error:
            log.debug("%s: %s cannot be read: %s", self.name, path, getattr(error, "why", error))
            return known.model_copy(update=_UNCONFIRMED)

    def _offers(self, region: str, edition: Edition) -> Iterator[Offer]:
        from gpucloud_aws.api import ON_DEMAND
        from gpucloud_aws.hardware import described

        now, spot = utcnow(), dict(edition.spot.usd)
        for line in edition.prices.lines:
            facts = described(line)
            if facts is None:
                log.debug("%s is left out: %r is no number of GPUs", line.instance_type, line.gpus)
                continue
            what = {
                "provider": self.name,
                "instance_type": line.instance_type,
                "region": region,
                "confidence": "published",
                **facts,
            }
            if line.market == ON_DEMAND and line.usd > 0:
                yield Offer(
                    market=Market.ON_DEMAND,
                    usd_per_hour=line.usd,
                    amount=line.usd,
                    as_of=min(now, edition.prices.published_at or now),
                    source=self._host("catalog_url"),
                    ref=line.sku,
                    **what,
                )
            # Taken out, because several lines may be of one instance type.
            usd = spot.pop(line.instance_type, None)
            if usd is not None:
                band = edition.bands.labels.get(line.instance_type)
                yield Offer(
                    market=Market.SPOT,
                    usd_per_hour=usd,
                    amount=usd,
                    as_of=min(now, edition.spot.as_of or now),
                    source=self._host("spot_url"),
                    availability_detail=band and BAND.format(band),
                    **what,
                )

    def _address(self, key: str) -> str:
        from gpucloud_aws.api import ADDRESSES

        return str(self.settings.table.get(key, ADDRESSES[key]))

    def _host(self, key: str) -> str:
        return urlsplit(self._address(key)).hostname or self._address(key)

    def _http(self, key: str, **patience: float) -> HttpClient:
        return self.client(self.name, self._address(key), classify=self._classify, **patience)

    def _classify(self, status: int, body: Any) -> ProviderError | None:
        # A file that is not there is forbidden to those who may not list the others.
        if status not in (403, 404):
            return None
        return Rejected(
            f"{self.name} does not publish this",
            provider=self.name,
            why=f"it answered {status}",
            hint=f"gpucloud catalog refresh {self.name} --region us-east-1",
        )


def _document(http: HttpClient, path: str, validator: str | None, progress: Progress) -> Document | None:
    """Read a small document; ``None`` when it is still the edition that ``validator`` is of."""
    from gpucloud_aws.api import Document

    content = bytearray()
    with http.open(path, headers={"Accept-Encoding": "identity", **if_changed(validator)}) as reply:
        if reply.status == UNCHANGED:
            return None
        for chunk in reply.chunks:
            content += chunk
            progress.told(len(content), length_of(reply.headers))
            if len(content) > MAX_REPLY_BYTES:
                raise ValueError(f"it has more than {MAX_REPLY_BYTES} bytes")
    changed_at = _date(reply.headers.get("Last-Modified"))
    return Document(content.decode("utf-8", "replace"), validator_of(reply.headers), changed_at)


def _kept_up(spot: SpotPrices) -> SpotPrices:
    """Without prices when they are so old that nobody changes them any more."""
    if spot.as_of is None or utcnow() - spot.as_of <= FROZEN:
        return spot
    log.debug("the Spot prices are of %s and no offers are made of them", spot.as_of)
    return spot.model_copy(update={"usd": {}})


def _date(text: str | None) -> datetime | None:
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
