"""The few offers of a long answer that can be among the best, so that only those are ranked.

Which offers match and which are best is said in SQL, in ``catalog.filters`` and ``market.order``. What is
left out here would not be told there, which a property test holds; all the rest is kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
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
    tests = list(_tests(wanted))
    matching = [offer for offer in offers if all(test(offer) for test in tests)] if tests else offers
    if limit is None or len(matching) <= limit or order != RANK or wanted.where:
        return matching
    ranks = list(map(_rank, matching))
    # What is passed on may be told by its upstream as well, and then takes no place.
    own = [rank for offer, rank in zip(matching, ranks, strict=True) if offer.upstream is None]
    if len(own) <= limit:
        return matching
    worst = heapq.nsmallest(limit, own)[-1]
    return [offer for offer, rank in zip(matching, ranks, strict=True) if rank <= worst]


def _rank(offer: Offer) -> _Rank:
    """As ``RANK`` has it."""
    price = round(offer.usd_per_hour * MICROS)
    return price, _PLACES[offer.availability], -offer.gpu_count, -(offer.vcpus or 0)


def _tests(wanted: Requirements) -> Iterator[Callable[[Offer], bool]]:
    """One for each filter of ``filters(wanted)`` but ``where``."""
    if wanted.gpus:
        yield lambda o: any(wish.accepts(o.gpu, o.gpu_count) for wish in wanted.gpus)
    if wanted.markets:
        yield lambda o: o.market in wanted.markets
    if wanted.max_usd_per_hour is not None:
        most = int(wanted.max_usd_per_hour * MICROS)
        yield lambda o: round(o.usd_per_hour * MICROS) <= most
    if wanted.min_vcpus is not None:
        yield lambda o: _is_at_least(o.vcpus, wanted.min_vcpus)
    if wanted.min_memory_gib is not None:
        yield lambda o: _is_at_least(o.memory_gib, wanted.min_memory_gib)
    if wanted.min_disk_gib is not None:
        yield lambda o: o.any_disk or _is_at_least(o.disk_gib, wanted.min_disk_gib)
    if wanted.regions:
        yield lambda o: any(_is_in(o, region) for region in wanted.regions)
    if wanted.countries:
        countries = set(map(_folded, wanted.countries))
        yield lambda o: _folded(o.country) in countries
    if wanted.instance_types:
        instance_types = set(map(_folded, wanted.instance_types))
        yield lambda o: _folded(o.instance_type) in instance_types
    if wanted.interconnects:
        yield lambda o: _has_one_of(o.interconnect, wanted.interconnects)
    if wanted.secure_only:
        yield lambda o: o.secure is True
    if wanted.verified_only:
        yield lambda o: o.verified is True


def _is_at_least(has: int | Decimal | None, least: int | Decimal | None) -> bool:
    """As the cache compares: in whole millionths; what is unknown never is."""
    return has is not None and least is not None and round(has * MICROS) >= int(least * MICROS)


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
