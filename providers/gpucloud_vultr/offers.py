"""What can be rented of Vultr now: its plans, and what their locations have left of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from itertools import chain

from gpucloud.http import HttpClient
from gpucloud.model import Availability, Market, Offer, Requirements, utcnow
from gpucloud.parallel import results, run_all
from gpucloud.replies import Rows, understood
from gpucloud_vultr.api import DEDICATED, METAL, PLANS, REGIONS, Plan, Stock
from gpucloud_vultr.catalog import countries_of, gpus, lines, rows_of


class Plans:
    """The plans that one API key is told of."""

    def __init__(self, provider: str, http: HttpClient) -> None:
        self._provider = provider
        self._http = http

    def offers(self, requirements: Requirements) -> list[Offer]:
        """Each plan that is asked for in each of its locations; these tell what they have left."""
        now, countries = utcnow(), countries_of(self._rows(REGIONS))
        # What is wrong with a plan counts only when it is so with all, not with all that are asked for.
        plans = Rows(self._provider).read(self._sold, chain.from_iterable(map(self._rows, PLANS)))
        wanted = [plan for plan in plans if _is_wanted(plan, requirements)]
        regions = {region.lower() for region in requirements.regions or countries}
        stock = self._stock(wanted, [place for place in countries if place.lower() in regions])
        rows = Rows(self._provider)
        for plan in wanted:
            with rows.row():
                found = lines(self._provider, _placed(plan, stock), None, countries, now)
                rows.add(
                    _live(offer, stock)
                    for offer in found
                    if offer.market is Market.ON_DEMAND
                    and (not requirements.regions or (offer.region or "").lower() in regions)
                )
        return rows.offers()

    def _rows(self, path: str) -> Iterator[object]:
        return rows_of(self._provider, self._http, path)

    def _sold(self, row: object) -> Plan | None:
        """A plan, if it has GPUs. Raises ``ValueError`` when that, or its price by the hour, is not told."""
        plan = Plan.model_validate(row)
        return plan if any(lines(self._provider, plan, None, {}, utcnow())) else None

    def _stock(self, plans: Sequence[Plan], places: Sequence[str]) -> Mapping[str, Set[str]]:
        """The plans of which each of these places has some left, as far as it may have any of these."""
        kinds: dict[str, set[str]] = {}
        for plan in plans:
            kind = METAL if plan.id.startswith(METAL) else plan.type
            for place in places:
                if kind and (kind == DEDICATED or place in (plan.locations or ())):
                    kinds.setdefault(place, set()).add(kind)
        return results(run_all({place: partial(self._left, place, of) for place, of in kinds.items()}))

    def _left(self, place: str, kinds: Set[str]) -> Set[str]:
        replies = (
            self._http.get(f"{REGIONS}/{place}/availability", params={"type": kind}) for kind in sorted(kinds)
        )
        return {
            id
            for reply in replies
            for id in understood(self._provider, Stock.model_validate, reply).available_plans
        }


def _is_wanted(plan: Plan, requirements: Requirements) -> bool:
    """Whether its GPUs are asked for."""
    return not requirements.gpus or any(wish.accepts(*gpus(plan)) for wish in requirements.gpus)


def _placed(plan: Plan, stock: Mapping[str, Set[str]]) -> Plan:
    """A plan with its locations; those of dedicated machines are told only by what they have left."""
    if plan.type != DEDICATED:
        return plan
    return plan.model_copy(update={"locations": [place for place in stock if plan.id in stock[place]]})


def _live(offer: Offer, stock: Mapping[str, Set[str]]) -> Offer:
    """An offer with what its location has left of it."""
    if offer.region is None:
        left, detail = Availability.UNAVAILABLE, "in no location"
    elif offer.region not in stock:
        left, detail = Availability.UNKNOWN, None
    elif offer.instance_type in stock[offer.region]:
        left, detail = Availability.AVAILABLE, None
    else:
        left, detail = Availability.UNAVAILABLE, "none left"
    return replace(offer, confidence="live", availability=left, availability_detail=detail)
