"""Vast.ai's words: how its market is asked, and what it says of one offer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints

URL: Final = "https://console.vast.ai"
PATH: Final = "api/v0/bundles/"

MOST: Final = 64
"""So many offers it tells at once to whom it does not know. A reply with fewer is the last."""

PARTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "1-gpu": {"eq": 1},
    "2-gpu": {"eq": 2},
    "4-gpu": {"eq": 4},
    "8-gpu": {"eq": 8},
    "other-counts": {"notin": [1, 2, 4, 8]},
}
"""The parts of the market, and which numbers of GPUs each has."""


def question(part: str, price: Mapping[str, float]) -> dict[str, str]:
    """The parameters that ask for the cheapest of a part whose ``dph_total`` meets ``price``."""
    asked = {
        "type": "on-demand",
        "rentable": {"eq": True},
        "rented": {"eq": False},
        "external": {"eq": False},
        "num_gpus": PARTS[part],
        "order": [["dph_total", "asc"]],
        "limit": MOST,
    }
    return {"q": json.dumps({**asked, "dph_total": price} if price else asked)}


def _number(value: object) -> Decimal | None:
    """A number that is not negative; ``None`` for anything else."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


Number = Annotated[Decimal | None, BeforeValidator(_number)]
Text = Annotated[str | None, BeforeValidator(_text)]


class Row(BaseModel):
    """One offer. Money is dollars: an hour for all its GPUs, by GB of traffic, by GB and month of disk."""

    id: int
    gpu_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    num_gpus: int = Field(ge=0, le=10_000)
    dph_base: Number = None
    dph_total: Number = None
    min_bid: Number = None
    gpu_ram: Number = None
    cpu_ram: Number = None
    cpu_cores: Number = None
    cpu_cores_effective: Number = None
    disk_space: Number = None
    storage_cost: Number = None
    inet_up: Number = None
    inet_down: Number = None
    inet_up_cost: Number = None
    reliability2: Number = None
    cuda_max_good: Number = None
    driver_version: Text = None
    bw_nvlink: Number = None
    geolocation: Text = None
    verification: Text = None
    hosting_type: Number = None
    rentable: bool | None = None


class Reply(BaseModel):
    """The answer; each offer is read for itself, so that one that is malformed does not cost the others."""

    offers: list[Any]
