"""Durations, sizes and money as people write them, in both directions.

Parsers raise ``ValueError`` with a sentence that can be shown as it is.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

LONGEST: Final = timedelta(days=36_500)
"""Added to today it is still a date."""

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
    if not re.fullmatch(r"(\s*[0-9]+(\.[0-9]+)?\s*[smhdw])+\s*", text, re.IGNORECASE | re.ASCII):
        raise ValueError(f"{text!r} is not a duration; write 90s, 15m, 6h, 2d or 2h30m")
    pieces = re.findall(r"([0-9.]+)\s*([smhdw])", text.lower())
    seconds = sum(Decimal(amount) * _SECONDS[unit] for amount, unit in pieces)
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"{text!r} is longer than a hundred years")
    return timedelta(seconds=float(seconds))


def format_duration(duration: timedelta) -> str:
    """Write a duration with its two largest units: ``2h30m``, ``45s``."""
    seconds = max(0, round(duration.total_seconds()))
    parts = []
    for unit in ("d", "h", "m", "s"):
        amount, seconds = divmod(seconds, _SECONDS[unit])
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts[:2]) or "0s"


def format_age(age: timedelta) -> str:
    """Write how old something is with its largest unit: ``45s``, ``3h``, ``12d``."""
    seconds = max(0, int(age.total_seconds()))
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _SECONDS[unit]), "s")
    return f"{seconds // _SECONDS[unit]}{unit}"


def parse_gib(text: str) -> Decimal:
    """Read ``40GB``, ``1.5TB``, ``512MB`` or a bare number, as GiB; like vendors, GB is not told from GiB."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([mgt]i?b)?", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write 40GB, 1.5TB or 512MB")
    return Decimal(match[1]) * _GIB[(match[2] or "").lower()]


def format_count(count: int, noun: str) -> str:
    """Write ``1 file`` or ``3 files``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_bytes(count: int) -> str:
    """Write bytes with one decimal and a binary unit: ``3.1 MiB``."""
    amount = Decimal(count)
    if amount < 1024:
        return f"{count} B"
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if round(amount, 1) < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def parse_usd(text: str) -> Decimal:
    """Read ``30``, ``$30`` or ``2.50``; plain digits, never negative."""
    match = re.fullmatch(r"\$?\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of money; write 30, $30 or 2.50")
    return Decimal(match[1])


def printable(text: str) -> str:
    """A stranger's words as one line, with all that would drive a terminal shown as an escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in text
    )
