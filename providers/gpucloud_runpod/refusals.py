"""How RunPod says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import BalanceExhausted, NoCapacity, QuotaExceeded
from gpucloud.refusals import Refusal

SOLD_OUT: Final = (
    "no (longer any )?instances (currently )?available|does not have the resources to deploy"
    "|could not be placed"
)

REFUSALS: Final = (
    Refusal(NoCapacity, "there is none left", SOLD_OUT),
    Refusal(NoCapacity, "its machine has too few free GPUs now", "not enough free gpus"),
    Refusal(BalanceExhausted, "the account has too little money", "insufficient (balance|funds)"),
    Refusal(
        QuotaExceeded,
        "the account spends as much an hour as it may",
        "spend(ing)? limit",
        hint="ask for more at https://contact.runpod.io",
    ),
    Refusal(
        QuotaExceeded,
        "the account has no access to these machines",
        r"\bpool\b",
        statuses=(403,),
        hint="ask for it at https://contact.runpod.io, or take another --gpu",
    ),
)
"""Under 400 or 500, by prose alone. Wording of sold-out: the table of "Create a pod" in the API's document of
2026-08-20, which has that of the pool and of the balance too, https://github.com/runpod/runpodctl/issues/189
(2025-05), https://github.com/runpod/runpod-python/issues/168 (2023-10) and what others' clients look for
(2026-11). That there is a limit of spending, at first 80 dollars an hour, is told at
https://docs.runpod.io/accounts-billing/billing; its wording is not known.
"""
