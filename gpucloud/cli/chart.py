"""Price trends as pictures: a line of blocks for a terminal, an SVG file for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from gpucloud.market.trend import Trend

BLOCKS: Final = "▁▂▃▄▅▆▇█"
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""The palette of Okabe and Ito, which people who confuse colours can tell apart."""

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 960, 480, 70, 20, 40
LEGEND: Final = 260
GRID: Final = 5


def sparkline(prices: Sequence[Decimal | None]) -> str:
    """One block for each price, higher for dearer; a space where nothing was seen."""
    known = [price for price in prices if price is not None]
    low, high = min(known), max(known)
    top = len(BLOCKS) - 1

    def block(price: Decimal | None) -> str:
        if price is None:
            return " "
        return BLOCKS[int((price - low) / (high - low) * top) if high > low else 0]

    return "".join(map(block, prices))


def svg(trends: Sequence[Trend], start: datetime, end: datetime) -> str:
    """A chart of all trends as an SVG document: stairs in dollars per GPU-hour over time, with a legend."""
    top = max(price for trend in trends for price in trend.known)
    right, floor = WIDTH - LEGEND, HEIGHT - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        "<title>Dollars per GPU-hour</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for step in range(GRID + 1):
        y = floor - (floor - TOP) * step / GRID
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">${top * step / GRID:.2f}</text>'
        )
    for moment, x, anchor in (start, LEFT, "start"), (end, right, "end"):
        parts.append(
            f'<text x="{x}" y="{HEIGHT - 14}" text-anchor="{anchor}">{moment:%Y-%m-%d %H:%M} UTC</text>'
        )
    for number, trend in enumerate(trends):
        colour = COLOURS[number % len(COLOURS)]
        width = (right - LEFT) / len(trend.prices)
        path = "".join(
            f"M{LEFT + width * index:.1f} {floor - (floor - TOP) * float(price / top):.1f}h{width:.1f}"
            for index, price in enumerate(trend.prices)
            if price is not None
        )
        name = escape(f"{trend.gpu} {trend.provider} {trend.market}")
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{right + 12}" y="{TOP + 12 + 16 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
