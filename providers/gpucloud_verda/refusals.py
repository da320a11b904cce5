"""How Verda says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import AuthError, BalanceExhausted, NotFound, RateLimited, Rejected
from gpucloud.refusals import Refusal

_PARTLY: Final = 207
"""Of several things, some were not done: we ask for one at a time."""
_REFUSED: Final = (_PARTLY, *range(400, 500))

REFUSALS: Final = (
    Refusal(
        NotFound,
        "there is no such thing",
        "invalid (instance|volume) id|discontinued instance",
        statuses=_REFUSED,
    ),
    Refusal(
        RateLimited, "what is being made cannot be ended yet", "provisioning instance", statuses=_REFUSED
    ),
    Refusal(Rejected, "it was not done", ".", statuses=(_PARTLY,)),
    Refusal(
        BalanceExhausted,
        "the account has no money left",
        code="insufficient_funds",
        hint="add funds at https://console.verda.com, then run it again",
    ),
    Refusal(
        AuthError,
        "the credentials were refused",
        code="unauthorized_request",
        hint="gpucloud login verda",
    ),
)
"""The codes are those of PyPI verda 1.25.0 (2026-11); the words are those that dstack 0.22 looks for."""
