"""What can be rented of Verda now: its price list, and the locations that have some left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

from gpucloud.catalog.currencies import to_usd
from gpucloud.model import Availability, Market, Offer, Requirements
from gpucloud.rest import RestProvider
from gpucloud_verda.catalog import VerdaCatalog

T = TypeVar("T")


class VerdaMarket(VerdaCatalog, RestProvider):
    """What is told of instance types, locations and disks behind a key."""

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each type in each location that has some left; one that is sold out is in no location."""
        from gpucloud_verda.api import CURRENCY, INSTANCE_TYPES

        markets = requirements.markets or (Market.ON_DEMAND, Market.SPOT)
        listed = self._published(self._http.get(INSTANCE_TYPES, params={"currency": CURRENCY}))
        stock = {market: self._stock(market) for market in self.traits.markets & set(markets)}
        countries, disk = self._countries(), self._disk_price()
        for offer in listed:
            if offer.market not in stock:
                continue
            live = replace(offer, confidence="live", disk_usd_per_gib_month=disk, any_disk=True)
            places = stock[offer.market].get(offer.instance_type, ())
            for place in places:
                had, country = Availability.AVAILABLE, countries.get(place)
                yield replace(live, region=place, country=country, availability=had)
            if not places:
                yield replace(live, availability=Availability.UNAVAILABLE)

    def _stock(self, market: Market) -> Mapping[str, Sequence[str]]:
        """The locations that have some left of each instance type."""
        from gpucloud_verda import api

        places: dict[str, list[str]] = {}
        spot = str(market is Market.SPOT).lower()
        for row in self._rows(api.AVAILABILITY, api.Stock.model_validate, is_spot=spot):
            for instance_type in row.availabilities:
                places.setdefault(instance_type, []).append(row.location_code)
        return places

    def _countries(self) -> Mapping[str, str | None]:
        from gpucloud_verda import api

        locations = self._rows(api.LOCATIONS, api.Location.model_validate)
        return {location.code: location.country_code for location in locations}

    def _disk_price(self) -> Decimal | None:
        """What a gibibyte of the kind of volume that launches make costs for a month, in US dollars."""
        from gpucloud_verda import api

        for kind in self._rows(api.VOLUME_TYPES, api.VolumeType.model_validate, currency=api.CURRENCY):
            if kind.type == api.OS_VOLUME_TYPE:
                return self._usd(kind.price.monthly_per_gb, kind.price.currency)
        return None

    def _usd(self, amount: Decimal | None, currency: str | None) -> Decimal | None:
        """An amount in US dollars; ``None`` for one in a currency that is unknown or not told."""
        with suppress(ValueError):
            return to_usd(amount, currency, self.settings.rates).usd if amount and currency else None
        return None

    def _rows(self, path: str, validate: Callable[[Any], T], **params: str) -> Iterator[T]:
        """A listing, which comes in one piece."""
        from gpucloud_verda import api

        for row in self._read(api.Rows.validate_python, self._http.get(path, params=params)):
            yield self._read(validate, row)
