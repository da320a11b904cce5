"""How Shadeform says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import BalanceExhausted, NoCapacity, QuotaExceeded
from gpucloud.refusals import Refusal

UNFULFILLED: Final = (400, 403, 404, 409, 422)

REFUSALS: Final = (
    Refusal(
        BalanceExhausted,
        "the account has no money left",
        code="INSUFFICIENT_FUNDS",
        hint="add funds at https://platform.shadeform.ai/settings/billing",
    ),
    Refusal(
        QuotaExceeded,
        "a limit of the account is reached",
        r"\b(quota|limit)\b.*\b(exceed|reach)|\b(exceed|reach)\w*\b.*\b(quota|limit)\b",
        statuses=UNFULFILLED,
        hint="ask for more at support@shadeform.ai",
    ),
    Refusal(
        NoCapacity,
        "there is none left of this type in this region",
        r"out of (stock|capacity)|sold out|(no|insufficient|not enough) (capacity|stock|resources)"
        r"|(not|no longer|un) ?(currently )?available",
        statuses=UNFULFILLED,
    ),
)
"""The document has no refusals. The code for want of funds is what a client has met
(``konash``, ``cloud.py``, read 2026-11-21); the words of the others are those that the clouds behind it use.
"""
