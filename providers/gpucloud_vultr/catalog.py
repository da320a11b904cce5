"""Vultr's plans as offers, and what everybody is told of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.catalog.names import named, normalise
from gpucloud.http import HttpClient, Tell, untold
from gpucloud.model import Availability, Gpu, Market, Offer, same_memory, utcnow
from gpucloud.provider import Adapter, Published
from gpucloud.replies import Progress, Rows, every_row, understood

if TYPE_CHECKING:
    from gpucloud_vultr.api import Costs, Plan

MIB_IN_GIB: Final = 1024

SOLD_SIZES: Final[Mapping[str, int]] = {"A100": 80, "H100": 80}
"""Memory of one, of chips that are made with several and that Vultr has only with this:
https://www.vultr.com/pricing/#cloud-gpu, of November 2026."""

COUNTS: Final = (1, 2, 4, 8, 16)
"""How many GPUs there may be in a plan that does not say it."""


class PublicPlans(Adapter):
    """What Vultr tells of its plans without an account."""

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One list of plans, each with its locations."""
        return ("",)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Every plan with a GPU in every location; what is told in several lists has no editions."""
        from gpucloud_vultr.api import PLANS, REGIONS, URL, Plan

        tell(0, None)
        rows, now = Rows(self.name), utcnow()
        # How many pages there are shows only at the last one.
        progress = Progress(lambda read, _: tell(read, None))
        with self.client(self.name, self.settings.table.get("catalog_url", URL)) as http:
            countries = countries_of(rows_of(self.name, http, REGIONS, progress))
            for path, hours in PLANS.items():
                for row in rows_of(self.name, http, path, progress):
                    with rows.row():
                        plan = Plan.model_validate(row)
                        rows.add(lines(self.name, plan, hours, countries, now))
        return Published(rows.offers())


def rows_of(provider: str, http: HttpClient, path: str, progress: Progress | None = None) -> Iterator[object]:
    """Every row of a list, from all its pages."""
    from gpucloud_vultr.api import PER_PAGE, Page

    reading = progress or Progress(untold)

    def page(cursor: str | None) -> tuple[list[Any], str | None]:
        params = {"per_page": PER_PAGE, **({"cursor": cursor} if cursor else {})}
        edition = http.get_edition(path, params=params, tell=reading.told)
        reading.next_request()
        told = understood(provider, Page.model_validate, edition and edition[0])
        return told.rows, told.meta.links.next or None

    return every_row(provider, path, page)


def lines(
    provider: str, plan: Plan, hours: int | None, countries: Mapping[str, str], now: datetime
) -> Iterator[Offer]:
    """An offer for each location and market of a plan with GPUs.

    ``hours`` are those of a month, by which a price by the month counts; without them it does not. Raises
    ``ValueError`` for what cannot be understood.
    """
    from gpucloud_vultr.api import DEDICATED

    gpu, count = gpus(plan)
    if gpu is None or not count:
        return
    places = sorted({place for place in plan.locations or () if place})
    nowhere = not places and plan.type != DEDICATED
    priced = False
    for place in places or (None,):
        for market, price in _prices(plan, plan.location_cost.get(place or "", plan), hours):
            priced = True
            yield Offer(
                provider=provider,
                instance_type=plan.id,
                ref=plan.id,
                market=market,
                usd_per_hour=price,
                amount=price,
                as_of=now,
                source="api.vultr.com",
                confidence="published",
                gpu=gpu,
                gpu_count=count,
                region=place,
                country=countries.get(place or ""),
                availability=Availability.UNAVAILABLE if nowhere else Availability.UNKNOWN,
                availability_detail="in no location" if nowhere else None,
                vcpus=int(plan.vcpu_count or plan.cpu_threads or 0) or None,
                memory_gib=plan.ram / MIB_IN_GIB if plan.ram else None,
                disk_gib=plan.disk * (plan.disk_count or 1) if plan.disk else None,
            )
    if not priced:
        raise ValueError(f"{plan.id} has no price")


def countries_of(rows: Iterable[object]) -> dict[str, str]:
    """The country of each location, where one is told."""
    from gpucloud_vultr.api import Region

    found = {}
    for row in rows:
        with suppress(ValueError):
            region = Region.model_validate(row)
            found[region.id] = region.country
    return found


def _prices(plan: Plan, costs: Costs, hours: int | None) -> Iterator[tuple[Market, Decimal]]:
    """What an hour costs, in each market where the plan is sold."""
    on_demand = _hourly(costs.hourly_cost, costs.monthly_cost, hours)
    preemptible = _hourly(costs.hourly_cost_preemptible, costs.monthly_cost_preemptible, hours)
    if on_demand and plan.deploy_ondemand is not False:
        yield Market.ON_DEMAND, on_demand
    if preemptible and plan.deploy_preemptible:
        yield Market.SPOT, preemptible


def _hourly(hourly: Decimal | None, monthly: Decimal | None, hours: int | None) -> Decimal | None:
    if hourly is not None or not monthly or hours is None:
        return hourly
    return (monthly / hours).quantize(Decimal("0.000001"))


def gpus(plan: Plan) -> tuple[Gpu | None, int]:
    """One GPU of a plan, and how many it has; none for a part of one and for plans without.

    Raises ``ValueError`` when it has some and does not say how many.
    """
    from gpucloud_vultr.api import NO_BRAND

    metal = re.search("-(?:([0-9]{1,4})-)?([a-z0-9]+)-gpu$", plan.id)
    virtual = re.search("^vcg-([a-z0-9]+)-.*-([0-9]{1,6})vram$", plan.id)
    text = plan.gpu_type or (metal[2] if metal else "") or (virtual[1] if virtual else "")
    if not text and (plan.gpu_brand or NO_BRAND).lower() == NO_BRAND:
        return None, 0
    total = plan.gpu_vram_gb or (Decimal(virtual[2]) if virtual else None)
    one = normalise(text)
    sold = SOLD_SIZES.get(one.chip) or one.memory_gib if one else None
    if plan.gpu_count not in (None, ""):
        count = _whole(str(plan.gpu_count))
    elif metal:
        count = int(metal[1] or 1)
    else:
        count = _fitting(sold, total)
    if count is None:
        raise ValueError(f"{plan.id} does not say how many GPUs it has")
    memory = total / count if total and count else sold
    # The name of a plan is none of a GPU: the numbers in it are no memory.
    return named(text, memory_gib=memory) if text else Gpu(plan.id, round(memory or 0) or None), count


def _whole(text: str) -> int | None:
    """How many GPUs ``8`` or ``1/4`` are; 0 for a part of one, ``None`` for what is no number."""
    match = re.fullmatch("([0-9]{1,4})(?:/([0-9]{1,4}))?", text.strip())
    if match is None:
        return None
    count, parts = int(match[1]), int(match[2] or 1)
    return 0 if not parts or count % parts else count // parts


def _fitting(memory: int | None, total: Decimal | None) -> int | None:
    """How many GPUs have so much memory together; 0 for a part of one, ``None`` when it cannot be told."""
    if not memory or not total:
        return None
    fitting = (count for count in COUNTS if same_memory(round(total / count), memory))
    return next(fitting, 0 if total < memory else None)
