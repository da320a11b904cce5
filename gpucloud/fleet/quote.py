"""The price of this moment, for which a provider is asked right before something is rented by it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from gpucloud.errors import NoCapacity, PriceAboveCap
from gpucloud.fleet import Fleet
from gpucloud.model import Availability, Market, Offer, Requirements, utcnow

FRESH: Final = timedelta(seconds=5)
"""A price that was told longer ago than this is asked for again before anything is rented by it."""

_Line: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Quotes:
    """What the providers tell during one launch, whose nodes share each answer while it is fresh."""

    fleet: Fleet
    wanted: Requirements
    _told: dict[str, dict[_Line, Offer]] = field(default_factory=dict)
    _locks: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def fresh(self, offer: Offer) -> Offer:
        """An offer at the price of this moment.

        Raises:
            NoCapacity: when it is no longer there.
            PriceAboveCap: when it has become dearer than the person has agreed to.
            ProviderError: when its provider does not tell.
        """
        # What is reserved has its price for good.
        if _is_fresh(offer.as_of) or offer.market is Market.RESERVED:
            return offer
        with self._locks[offer.provider]:
            now = self._told.get(offer.provider, {}).get(_line(offer))
            if now is None or not _is_fresh(now.as_of):
                told = self._ask(offer)
                self._told[offer.provider] = {**self._told.get(offer.provider, {}), **told}
                now = told.get(_line(offer))
        if now is None or now.availability is Availability.UNAVAILABLE:
            raise NoCapacity(f"{offer.id} is no longer offered", provider=offer.provider, lasting=False)
        self._require_agreed(offer, now)
        return now

    def _ask(self, offer: Offer) -> Mapping[_Line, Offer]:
        # Only of that line: to ask for all that a cloud has takes seconds, in which prices move.
        places = (offer.region,) if offer.region else self.wanted.regions
        wanted = replace(
            self.wanted, max_usd_per_hour=None, regions=places, instance_types=(offer.instance_type,)
        )
        return {_line(each): each for each in self.fleet.registry.get(offer.provider).offers(wanted)}

    def _require_agreed(self, offer: Offer, now: Offer) -> None:
        agreed = offer.usd_per_hour * (1 + self.fleet.config.get("launch.price_tolerance"))
        most = self.wanted.max_usd_per_hour
        if now.usd_per_hour > agreed or (most is not None and now.usd_per_hour > most):
            raise PriceAboveCap(
                f"{offer.id} has become dearer",
                why=f"it was ${offer.usd_per_hour:f} an hour and is ${now.usd_per_hour:f} now",
                hint="repeat it to see the new prices, or give a higher --price-tolerance or --max-price",
            )


def _is_fresh(as_of: datetime) -> bool:
    return utcnow() - as_of <= FRESH


def _line(offer: Offer) -> _Line:
    return offer.id, offer.ref
