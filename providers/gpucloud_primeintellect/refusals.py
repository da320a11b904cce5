"""How Prime Intellect says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import BalanceExhausted, NoCapacity, QuotaExceeded
from gpucloud.refusals import Refusal

REFUSED: Final = (400, 402, 403, 404, 409, 422)

REFUSALS: Final = (
    Refusal(
        BalanceExhausted,
        "the account has no money left",
        r"insufficient (balance|funds|credit)|add funds",
        statuses=REFUSED,
        hint="add funds at https://app.primeintellect.ai/dashboard/billing",
    ),
    Refusal(
        NoCapacity,
        "its price is above the cap now",
        r"max(imum)? ?price",
        statuses=REFUSED,
        hint="look at it again: gpucloud offers --live",
    ),
    Refusal(
        QuotaExceeded,
        "a limit of the account is reached",
        r"(quota|limit) (is |was |has been )?(exceeded|reached)",
        statuses=REFUSED,
        hint="ask for more at https://app.primeintellect.ai",
    ),
    Refusal(
        NoCapacity,
        "there is none left of it",
        r"capacity|out of stock|insufficient|unavailable|(not|no longer) available",
        statuses=REFUSED,
    ),
)
"""The document has no words. Those of capacity and limits are the ones that SkyPilot's adapter looks for
(``sky/provision/primeintellect/utils.py``); want of funds is told as in discussion 1454 of
github.com/PrimeIntellect-ai/prime-agent. Both read 2026-11-21; those of the price are a guess by its name.
"""
