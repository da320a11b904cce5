"""How TensorDock says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import BalanceExhausted, NoCapacity, Rejected
from gpucloud.refusals import Refusal

REFUSALS: Final = (
    Refusal(
        BalanceExhausted,
        "the account has not enough money",
        words="balance|insufficient funds",
        statuses=(200, 201, 400, 402, 403),
        hint="add funds at https://dashboard.tensordock.com/deposit",
    ),
    Refusal(
        NoCapacity,
        "it has no room for this machine now",
        words="no (available|suitable) |not (enough|available)|unavailable|insufficient (resources|capacity)",
        statuses=(200, 201, 400, 404, 409, 422, 500, 503),
    ),
    Refusal(Rejected, "it refused the request", words=".", statuses=(200, 201)),
)
"""Others who call it have seen these words (2026); TensorDock publishes no list."""
