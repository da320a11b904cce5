"""The cheapest known offer of each GPU, from the offer cache, without asking anybody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from gpucloud.catalog.cache import Cache, SourceKind
from gpucloud.catalog.columns import AVAILABILITIES
from gpucloud.catalog.gpus import facts
from gpucloud.catalog.where import Condition
from gpucloud.model import Availability, Gpu, Market, Offer

OUT_OF_REACH: Final = (Availability.UNAVAILABLE, Availability.NO_QUOTA)

_CHEAPEST: Final = (
    # Beside min() SQLite gives the other columns of the row that has the least value.
    "offers.key IN (SELECT key FROM (SELECT key, min(usd_per_hour) FROM offers"
    " WHERE gpu IS NOT NULL AND gpu_count > 0 AND availability NOT IN (?, ?)"
    " AND source IN (SELECT id FROM sources WHERE kind = ?) GROUP BY gpu, gpu_count, market))"
)


def cheapest(cache: Cache) -> dict[Gpu, list[Offer]]:
    """For each GPU its cheapest offer of each market and number of GPUs in an instance.

    An offer that is known to be out of reach is left out, and a price from a list where a provider has told
    one.
    The keys are GPUs of the table where it has one row for what the provider says (``B200-192`` is
    ``B200-SXM-180``), else what the provider says.

    Raises:
        StoreError: when the cache cannot be read.
    """
    found: dict[Gpu, list[Offer]] = {}
    told: set[tuple[Gpu, Market]] = set()
    for kind in sorted(SourceKind, reverse=True):
        best = _best(cache, kind)
        for gpu, offer in best:
            if (gpu, offer.market) not in told:
                found.setdefault(gpu, []).append(offer)
        told |= {(gpu, offer.market) for gpu, offer in best}
    return found


def _best(cache: Cache, kind: SourceKind) -> list[tuple[Gpu, Offer]]:
    out_of_reach = [AVAILABILITIES.index(availability) for availability in OUT_OF_REACH]
    offers = cache.select(Condition(_CHEAPEST, (*out_of_reach, kind)))
    rows = [(offer, offer.gpu, facts(offer.gpu)) for offer in offers if offer.gpu]
    return [(row.gpu if row else gpu, offer) for offer, gpu, row in rows]


def per_market(offers: Iterable[Offer], *, count: int | None = None) -> Mapping[Market, Offer]:
    """The cheapest offer per GPU-hour in each market; with ``count`` only of instances with so many GPUs."""
    wanted = [offer for offer in offers if count in (None, offer.gpu_count)]
    best: dict[Market, Offer] = {}
    for offer in sorted(wanted, key=lambda offer: (offer.usd_per_hour / offer.gpu_count, offer.id)):
        best.setdefault(offer.market, offer)
    return {market: best[market] for market in Market if market in best}
