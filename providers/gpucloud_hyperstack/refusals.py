"""How Hyperstack says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import BalanceExhausted, NoCapacity, NotFound, QuotaExceeded, RateLimited
from gpucloud.refusals import Refusal

REFUSALS: Final = (
    Refusal(
        BalanceExhausted,
        "the account has no money left",
        "insufficient (balance|credit|funds)",
        hint="add credit at https://console.hyperstack.cloud, then run it again",
    ),
    Refusal(
        QuotaExceeded,
        "a quota of the account is used up",
        "quota",
        statuses=(400, 403, 409),
        hint="ask support@hyperstack.cloud for more",
    ),
    Refusal(
        NoCapacity,
        "there is none left in this region",
        "no valid host|(not enough|insufficient) (stock|capacity|resources)|out of stock",
    ),
    Refusal(NoCapacity, "this flavor is not sold any more", r"flavor.* (not exist|not found)"),
    Refusal(NotFound, "there is no such thing", "not found|not exist", statuses=(400,)),
    # A conflict is a name that exists already, or else a machine between two states.
    Refusal(RateLimited, "it is busy, and has to be asked again", "^(?!.*exist)", statuses=(409,)),
)
"""By text and status, for error_reason only repeats the status. The text about the balance is of
https://docs.hyperstack.cloud/docs/api-reference/errors (transcript of 2026-08-26); a conflict when a machine
is deleted is of the document."""
