"""In which order offers are told, and which of them stand for a group, as expressions of SQL."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import Final

from gpucloud.catalog.columns import COLUMNS
from gpucloud.errors import UsageError

RANK: Final = (
    "offers.usd_per_hour",
    "offers.availability",
    "offers.gpu_count DESC",
    "coalesce(offers.vcpus, 0) DESC",
)
"""Cheapest first; at one price what can surely be had, then the better provided, then by name."""

_TFLOPS: Final = "nullif(gpus.bf16_tflops * offers.gpu_count, 0)"
_BANDWIDTH: Final = "nullif(gpus.bandwidth_gb_s * offers.gpu_count, 0)"

SORTS: Final = MappingProxyType(
    {
        "price": RANK,
        "value": (
            f"offers.usd_per_hour * 1.0 / {_TFLOPS} NULLS LAST",
            f"offers.usd_per_hour * 1.0 / {_BANDWIDTH} NULLS LAST",
            *RANK,
        ),
        "vram": ("gpus.vram * offers.gpu_count DESC NULLS LAST", *RANK),
        "availability": ("offers.availability", *RANK),
    }
)
"""The keys of ``--sort``. Value is the price of a dense bf16 TFLOP-hour, or else of memory bandwidth."""


def ordered(key: str) -> tuple[str, ...]:
    """The order of a sort key, best first. Raises ``UsageError`` for an unknown one."""
    if key not in SORTS:
        close = difflib.get_close_matches(key, SORTS, n=1, cutoff=0.5)
        raise UsageError(
            f"--sort knows no {key!r}",
            why=f"known are {', '.join(SORTS)}",
            hint=f"--sort {close[0]}" if close else "--sort price",
        )
    return SORTS[key]


def grouped(columns: str) -> tuple[str, ...]:
    """What offers of one group have in common: columns separated by commas. Raises ``UsageError``."""
    names = [name.strip().lower() for name in columns.split(",") if name.strip()]
    for name in names:
        if name not in COLUMNS:
            close = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.5)
            raise UsageError(
                f"there is no column {name!r} to group by",
                why=f"known are {', '.join(COLUMNS)}",
                hint=f"--group-by {close[0]}" if close else "--group-by gpu,provider",
            )
    return tuple(COLUMNS[name].sql for name in names)
