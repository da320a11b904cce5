"""How the market of Vast.ai is asked.

- https://docs.vast.ai/api-reference/search/search-offers (2026-08-07): each condition is an object with an
  operator, ``eq``, ``gte``, ``in``, ``notin`` and the like.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from gpucloud.catalog.names import named
from gpucloud.model import GpuWish, Market, Requirements

MIB_IN_GIB: Final = 1024

MOST: Final = 64
"""So many offers it tells at once, whatever is asked for. A reply with fewer is the last."""

PARTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "1-gpu": {"eq": 1},
    "2-gpu": {"eq": 2},
    "4-gpu": {"eq": 4},
    "8-gpu": {"eq": 8},
    "other-counts": {"notin": [1, 2, 4, 8]},
}
"""The parts of the market, and which numbers of GPUs each has."""

MARKETS: Final = {Market.ON_DEMAND: "ondemand", Market.SPOT: "bid"}

COMMON: Final = (
    *("A10", "A100 PCIE", "A100 SXM4", "A40", "B200", "H100 NVL", "H100 PCIE", "H100 SXM", "H200"),
    *("H200 NVL", "L4", "L40", "L40S", "Tesla T4", "Tesla V100", "Tesla P100", "Q RTX 6000", "Q RTX 8000"),
    *("RTX A2000", "RTX A4000", "RTX A4500", "RTX A5000", "RTX A6000", "RTX 4000Ada", "RTX 4500Ada"),
    *("RTX 5000Ada", "RTX 6000Ada", "RTX PRO 4000", "RTX PRO 4500", "RTX PRO 5000", "RTX PRO 6000 S"),
    *("RTX PRO 6000 WS", "GTX 1060", "GTX 1070", "GTX 1070 Ti", "GTX 1080", "GTX 1080 Ti", "GTX 1650"),
    *("GTX 1660", "GTX 1660 S", "GTX 1660 Ti", "RTX 2060", "RTX 2060S", "RTX 2070", "RTX 2070S"),
    *("RTX 2080", "RTX 2080S", "RTX 2080 Ti", "RTX 3050", "RTX 3060", "RTX 3060 Ti", "RTX 3070"),
    *("RTX 3070 Ti", "RTX 3080", "RTX 3080 Ti", "RTX 3090", "RTX 3090 Ti", "RTX 4060", "RTX 4060 Ti"),
    *("RTX 4070", "RTX 4070 Ti", "RTX 4070S", "RTX 4070S Ti", "RTX 4080", "RTX 4080S", "RTX 4090"),
    *("RTX 4090D", "RTX 5060", "RTX 5060 Ti", "RTX 5070", "RTX 5070 Ti", "RTX 5080", "RTX 5090"),
)
"""What most of the market has, as it spells them (November 2026); those that nobody wants are not asked for.

What is missing here, or spelt in another way by now, only makes an answer longer.
"""

SPARE: Final = Decimal("0.85")
"""What it tells of a GPU's memory is what is left of it for use."""

# The second word is of no matter, but the document wants two.
_CHEAPEST_FIRST: Final = [["dph_total", "asc"], ["machine_id", "asc"]]
_FREE: Final[Mapping[str, Any]] = {
    "rentable": {"eq": True},
    "rented": {"eq": False},
    "external": {"eq": False},
}


def question(part: str, price: Mapping[str, float]) -> dict[str, str]:
    """The parameters that ask for the cheapest of a part whose ``dph_total`` meets ``price``."""
    asked = {
        "type": "on-demand",
        **_FREE,
        "num_gpus": PARTS[part],
        "order": [["dph_total", "asc"]],
        "limit": MOST,
    }
    return {"q": json.dumps({**asked, "dph_total": price} if price else asked)}


def search(market: Market, wanted: Requirements, price: Mapping[str, float]) -> dict[str, Any]:
    """The body that asks for the cheapest of a market that may answer ``wanted``; see ``question``."""
    places = wanted.countries or wanted.regions
    asked: dict[str, Any] = {
        "type": MARKETS[market],
        **_FREE,
        **_gpus(wanted.gpus),
        "order": _CHEAPEST_FIRST,
        "limit": MOST,
    }
    if places and all(len(place) == 2 for place in places):
        asked["geolocation"] = {"in": [place.upper() for place in places]}
    if wanted.verified_only:
        asked["verified"] = {"eq": True}
    if wanted.min_vcpus:
        asked["cpu_cores_effective"] = {"gte": wanted.min_vcpus}
    if wanted.min_disk_gib:
        asked["disk_space"] = {"gte": wanted.min_disk_gib}
    return {**asked, "dph_total": price} if price else asked


def _gpus(wishes: tuple[GpuWish, ...]) -> dict[str, Any]:
    """What of the wishes it can be asked for: how many, and which not."""
    if not wishes:
        return {}
    asked: dict[str, Any] = {"num_gpus": {"in": sorted({wish.count for wish in wishes})}}
    chips = {wish.gpu.key for wish in wishes if wish.gpu}
    sizes = [wish.min_memory_gib for wish in wishes if wish.gpu is None and wish.min_memory_gib]
    if chips and not sizes:
        asked["gpu_name"] = {"notin": [name for name in COMMON if named(name).key not in chips]}
    if sizes and not chips:
        asked["gpu_ram"] = {"gte": int(min(sizes) * MIB_IN_GIB * SPARE)}
    return asked
