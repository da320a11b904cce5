"""Hyperstack's flavors as offers: with their prices from its price book, and what is left from its stock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.catalog.names import named
from gpucloud.model import Availability, Market, Offer

if TYPE_CHECKING:
    from gpucloud_hyperstack import api

SPOT: Final = "-spot"
"""How the GPUs of spot flavors end."""

COUNTRIES: Final = {"CANADA": "CA", "NORWAY": "NO", "US": "US"}
"""By the first part of a region's name, such as ``CANADA-1``."""


def prices_at(now: datetime, book: Iterable[api.Line]) -> Mapping[str, Decimal]:
    """What an hour of each resource costs in US dollars; of several prices at once the highest."""
    prices: dict[str, Decimal] = {}
    for line in book:
        if line.value is not None and line.holds(now):
            prices[line.name] = max(line.value, prices.get(line.name, line.value))
    return prices


def stock_of(told: api.Stocks) -> Mapping[tuple[str, str], Mapping[str, int | None]]:
    """How many machines of each size (``8x``) are left, by region and GPU."""
    return {
        (stock.region, model.model): model.configurations or {}
        for stock in told.stocks
        for model in stock.models
    }


def market_of(gpu: str) -> Market:
    """How a flavor with that GPU is sold."""
    return Market.SPOT if gpu.endswith(SPOT) else Market.ON_DEMAND


def offers_of(
    group: api.FlavorGroup,
    flavor: api.Flavor,
    prices: Mapping[str, Decimal],
    stock: Mapping[tuple[str, str], Mapping[str, int | None]],
    now: datetime,
) -> Iterator[Offer]:
    """The offer of one flavor; none of one without GPUs.

    Raises ``ValueError`` when there is no price, or when it and its group do not agree on the GPU.
    """
    if not flavor.gpu:
        return
    if not flavor.gpu_count:
        raise ValueError(f"{flavor.name} does not tell how many GPUs it has")
    if flavor.gpu.removesuffix(SPOT) != group.gpu.removesuffix(SPOT):
        raise ValueError(f"{flavor.name} of {flavor.gpu} is among those of {group.gpu}")
    price = prices.get(flavor.gpu)
    if price is None:
        raise ValueError(f"the price book has no line for {flavor.gpu}")
    # What is left is told by GPU, and not how much of it is for spot: for that there is no such GPU.
    left = stock.get((flavor.region_name, flavor.gpu), {}).get(f"{flavor.gpu_count}x")
    linked = flavor.gpu_count > 1 and re.search("sxm|nvlink", flavor.gpu, re.IGNORECASE)
    usd = price * flavor.gpu_count
    yield Offer(
        provider="hyperstack",
        instance_type=flavor.name,
        market=market_of(flavor.gpu),
        usd_per_hour=usd,
        amount=usd,
        as_of=now,
        source="infrahub-api.nexgencloud.com",
        gpu=named(flavor.gpu.removesuffix(SPOT)),
        gpu_count=flavor.gpu_count,
        region=flavor.region_name,
        country=COUNTRIES.get(flavor.region_name.partition("-")[0]),
        availability=_availability(flavor.stock_available, left),
        availability_detail=None if left is None else f"{left} left",
        vcpus=flavor.cpu or None,
        memory_gib=flavor.ram or None,
        disk_gib=Decimal(flavor.disk) if flavor.disk else None,
        interconnect="nvlink" if linked else None,
    )


def _availability(stocked: bool | None, left: int | None) -> Availability:
    """What the flavor says itself, unless the stock, which is counted apart, has none."""
    if stocked is False or left == 0:
        return Availability.UNAVAILABLE
    return Availability.AVAILABLE if stocked else Availability.UNKNOWN
