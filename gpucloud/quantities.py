"""Durations, sizes and money as people write them, in both directions.

Parsers raise ``ValueError`` with a sentence that can be shown as it is.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal, InvalidOperation

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_GIB = {
    "": Decimal(1),
    "mb": Decimal(1) / 1024,
    "mib": Decimal(1) / 1024,
    "gb": Decimal(1),
    "gib": Decimal(1),
    "tb": Decimal(1024),
    "tib": Decimal(1024),
}


def parse_duration(text: str) -> timedelta:
    """Read ``90s``, ``15m``, ``6h``, ``2d`` or ``2h30m``. A bare number has no unit and is refused."""
    compact = text.strip().lower().replace(" ", "")
    if not re.fullmatch(r"(\d+(\.\d+)?[smhdw])+", compact):
        raise ValueError(f"{text!r} is not a duration; write 90s, 15m, 6h, 2d or 2h30m")
    pieces = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", compact)
    try:
        return timedelta(seconds=float(sum(Decimal(amount) * _SECONDS[unit] for amount, unit in pieces)))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than a calendar holds") from None


def format_duration(duration: timedelta) -> str:
    """Write a duration with its two largest units: ``2h30m``, ``45s``."""
    seconds = max(0, round(duration.total_seconds()))
    parts = []
    for unit in ("d", "h", "m", "s"):
        amount, seconds = divmod(seconds, _SECONDS[unit])
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts[:2]) or "0s"


def parse_gib(text: str) -> Decimal:
    """Read ``40GB``, ``1.5TB``, ``512MB`` or a bare number, as GiB; like vendors, GB is not told from GiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)?", text.strip(), re.IGNORECASE)
    unit = (match[2] or "").lower() if match else None
    if match is None or unit not in _GIB:
        raise ValueError(f"{text!r} is not a size; write 40GB, 1.5TB or 512MB")
    return Decimal(match[1]) * _GIB[unit]


def format_bytes(count: int) -> str:
    """Write bytes with one decimal and a binary unit: ``3.1 MiB``."""
    amount = Decimal(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.1f} {unit}" if unit != "B" else f"{count} B"
        amount /= 1024
    return f"{amount:.1f} TiB"


def parse_usd(text: str) -> Decimal:
    """Read ``30``, ``$30`` or ``2.50``; never negative."""
    try:
        amount = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount of money; write 30, $30 or 2.50") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{text!r} is not an amount of money; it must be zero or more")
    return amount


def format_usd(amount: Decimal) -> str:
    """Write ``$3.99``; amounts under a cent keep the digits that matter."""
    if amount and abs(amount) < Decimal("0.01"):
        return f"${amount:.6f}".rstrip("0")
    return f"${amount:.2f}"
