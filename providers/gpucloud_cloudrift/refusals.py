"""How CloudRift says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import BalanceExhausted, NoCapacity, QuotaExceeded
from gpucloud.refusals import Refusal

REFUSALS: Final = (
    Refusal(
        NoCapacity,
        "no node is free",
        "NodeAllocation|no (free|available|suitable) node|(no|not enough|insufficient) (capacity|resources)",
    ),
    Refusal(
        BalanceExhausted,
        "the account has too little money",
        "balance|insufficient funds",
        statuses=(400, 402, 403),
        hint="add funds at https://console.cloudrift.ai",
    ),
    Refusal(
        QuotaExceeded,
        "a quota of the account is used up",
        "quota",
        statuses=(400, 403),
        hint="ask for more at https://www.cloudrift.ai/contact",
    ),
)
"""The document names no errors; these are its own words for such things, and 503 is told of full nodes."""
