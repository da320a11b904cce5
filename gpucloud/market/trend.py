"""How the price of one GPU has moved: the cheapest quote in each of some equal pieces of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from gpucloud.catalog.history import Line
from gpucloud.model import Availability, Gpu, Market

OUT_OF_REACH = (Availability.UNAVAILABLE, Availability.NO_QUOTA)


@dataclass(frozen=True, slots=True)
class Trend:
    """Dollars for one GPU and hour at one provider on one market.

    ``prices`` has the least that was seen in each piece of time, ``None`` where nothing was.
    """

    gpu: Gpu
    provider: str
    market: Market
    prices: tuple[Decimal | None, ...]

    @property
    def known(self) -> list[Decimal]:
        """The pieces of time in which it was seen, in order; at least one."""
        return [price for price in self.prices if price is not None]


def trends(lines: Sequence[Line], start: datetime, end: datetime, pieces: int) -> list[Trend]:
    """One trend for each GPU, provider and market among the lines, in their order.

    What was known to be out of reach does not count. A quote holds until the next one, or until its line was
    seen last.
    """
    kinds: dict[tuple[Gpu, str, Market], list[Line]] = {}
    for line in lines:
        kinds.setdefault((line.gpu, line.provider, line.market), []).append(line)
    found = [Trend(*kind, _least(members, start, end, pieces)) for kind, members in kinds.items()]
    return [trend for trend in found if trend.known]


def _least(lines: Iterable[Line], start: datetime, end: datetime, pieces: int) -> tuple[Decimal | None, ...]:
    piece = max((end - start) / pieces, timedelta(seconds=1))
    least: list[Decimal | None] = [None] * pieces
    for line in lines:
        ends = [quote.at for quote in line.quotes[1:]] + [line.seen_at]
        for quote, until in zip(line.quotes, ends, strict=True):
            if quote.availability in OUT_OF_REACH or until < start:
                continue
            price = quote.usd_per_hour / line.gpu_count
            first, last = (min(max(int((at - start) / piece), 0), pieces - 1) for at in (quote.at, until))
            for index in range(first, last + 1):
                before = least[index]
                least[index] = price if before is None else min(before, price)
    return tuple(least)
