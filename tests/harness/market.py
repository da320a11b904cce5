"""Offers by the thousand, the same in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal

from gpucloud.catalog.gpus import table
from gpucloud.model import Market, Offer, utcnow


def many_offers(provider: str, count: int) -> Iterator[Offer]:
    """Of one provider, each of them another."""
    chance = random.Random(provider)
    chips = [row.gpu for row in table()]
    now = utcnow()
    for number in range(count):
        yield Offer(
            provider=provider,
            instance_type=f"type-{number}",
            market=chance.choice([Market.SPOT, Market.ON_DEMAND]),
            usd_per_hour=Decimal(chance.randrange(10**5, 10**7)) / 10**6,
            as_of=now,
            source="bench",
            gpu=chance.choice(chips),
            gpu_count=chance.choice([1, 2, 4, 8]),
            region=f"region-{number % 20}",
            zone=f"region-{number % 20}-a",
            vcpus=chance.randrange(200),
            memory_gib=Decimal(64),
            inet_down_mbps=chance.randrange(10_000),
            reliability=Decimal(chance.randrange(9_000, 10_000)) / 10_000,
            cuda=Decimal("12.4"),
            driver="550.54.14",
            ref=str(number),
        )
