"""The few offers of a long answer that can be among the best, so that only those are ranked.

Which offers match and which are best is said in SQL, in ``catalog.filters`` and ``market.order``. What is
left out here would not be told there, which a property test holds; all the rest is kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from gpucloud.catalog.columns import AVAILABILITIES, MICROS
from gpucloud.market.order import RANK
from gpucloud.model import Offer, Requirements

_Rank = tuple[int, int, int, int]
_PLACES: Final = {availability: place for place, availability in enumerate(AVAILABILITIES)}


def shortlist(
    offers: Sequence[Offer], wanted: Requirements, order: Sequence[str], limit: int | None
) -> Sequence[Offer]:
    """Those that may be among the best ``limit`` of what is ``wanted``, by ``order``."""
    matching = [offer for offer in offers if _meets(offer, wanted)]
    if limit is None or len(matching) <= limit or order != RANK or wanted.where:
        return matching
    ranks = list(map(_rank, matching))
    worst = heapq.nsmallest(limit, ranks)[-1]
    return [offer for offer, rank in zip(matching, ranks, strict=True) if rank <= worst]


def _rank(offer: Offer) -> _Rank:
    """As ``RANK`` has it."""
    price = round(offer.usd_per_hour * MICROS)
    return price, _PLACES[offer.availability], -offer.gpu_count, -(offer.vcpus or 0)


def _meets(offer: Offer, wanted: Requirements) -> bool:
    """Whether an offer passes ``filters(wanted)``, but for ``where``."""
    return (
        (not wanted.gpus or any(wish.accepts(offer.gpu, offer.gpu_count) for wish in wanted.gpus))
        and (not wanted.markets or offer.market in wanted.markets)
        and _is_at_most(offer, wanted)
        and _has_enough(offer, wanted)
        and (not wanted.regions or any(_is_in(offer, region) for region in wanted.regions))
        and (not wanted.countries or _folded(offer.country) in map(_folded, wanted.countries))
        and (not wanted.instance_types or _folded(offer.instance_type) in map(_folded, wanted.instance_types))
        and (not wanted.interconnects or _has_one_of(offer.interconnect, wanted.interconnects))
        and (not wanted.secure_only or offer.secure is True)
        and (not wanted.verified_only or offer.verified is True)
    )


def _is_at_most(offer: Offer, wanted: Requirements) -> bool:
    most = wanted.max_usd_per_hour
    return most is None or round(offer.usd_per_hour * MICROS) <= int(most * MICROS)


def _has_enough(offer: Offer, wanted: Requirements) -> bool:
    pairs = (
        (offer.vcpus, wanted.min_vcpus),
        (offer.memory_gib, wanted.min_memory_gib),
        (offer.disk_gib, wanted.min_disk_gib),
    )
    # Sizes are compared as the cache holds them: in whole millionths.
    return all(
        least is None or (has is not None and round(has * MICROS) >= int(least * MICROS))
        for has, least in pairs
    )


def _is_in(offer: Offer, name: str) -> bool:
    region, wanted = _folded(offer.region), _folded(name)
    if wanted in (region, _folded(offer.zone)):
        return True
    return region is not None and wanted is not None and region.startswith((wanted + b"-", wanted + b"_"))


def _has_one_of(text: str | None, words: Sequence[str]) -> bool:
    return text is not None and any(word.encode().lower() in text.encode().lower() for word in words)


def _folded(text: str | None) -> bytes | None:
    """Text as SQLite compares it: only the letters of ASCII have no case."""
    return None if text is None else text.encode("utf-8", "surrogatepass").lower()
