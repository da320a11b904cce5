"""How Crusoe says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import BalanceExhausted, NoCapacity, QuotaExceeded
from gpucloud.refusals import Refusal

REFUSALS: Final = (
    Refusal(NoCapacity, "there is none left of this type here", code="out_of_stock"),
    Refusal(NoCapacity, "there is none left of this type here", "out of stock|insufficient capacity"),
    Refusal(
        QuotaExceeded,
        "a quota of the project is used up",
        "quota",
        statuses=(400, 403),
        hint="ask for more at https://console.crusoecloud.com",
    ),
    Refusal(
        BalanceExhausted,
        "the account may not be billed",
        "(no|invalid|missing) (payment|billing)|credits? (are )?(exhausted|used up)",
        statuses=(400, 402, 403),
        hint="look at https://console.crusoecloud.com/billing",
    ),
)
"""``out_of_stock`` is what operations say (clients of 2026-11); the document names no other codes."""
