"""How Vast.ai says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import AuthError, BalanceExhausted, NoCapacity, NotFound, RateLimited, Rejected
from gpucloud.refusals import Refusal

ADD_CREDIT: Final = "add credit at https://cloud.vast.ai/billing/"
_GONE: Final = "no_such_ask|is (not|no longer) available"
_QUEUED: Final = "required resources are currently unavailable|state change queued"
_POOR: Final = "insufficient.credit|not enough credit|lacks credit"
_NO: Final = (200, 400, 403, 404, 409, 410)
"""What it says no with; some of its noes have the status of success."""

REFUSALS: Final = (
    Refusal(NoCapacity, "somebody else has rented it", _GONE, statuses=_NO),
    Refusal(NoCapacity, "somebody else has rented it", code="no_such_ask", statuses=_NO),
    Refusal(NoCapacity, "its price has changed, and the bid is too low now", code="invalid_price"),
    Refusal(NoCapacity, "its GPU is rented to somebody else meanwhile", _QUEUED, statuses=_NO),
    Refusal(
        BalanceExhausted,
        "the account has no credit left",
        code="insufficient_credit",
        statuses=_NO,
        hint=ADD_CREDIT,
    ),
    Refusal(BalanceExhausted, "the account has no credit left", _POOR, statuses=_NO, hint=ADD_CREDIT),
    Refusal(
        RateLimited,
        "the account has been told as many offers as it may be in a day",
        code="search_quota_exceeded",
        statuses=(429,),
        hint="gpucloud offers --offline shows what was seen last; the quota is renewed at 00:00 UTC",
    ),
    Refusal(AuthError, "the key is not known", "invalid user key", hint="gpucloud login vast"),
    Refusal(Rejected, "who lets machines there may rent only those", "only rent their own"),
    Refusal(NotFound, "there is no such instance", code="no_such_instance"),
)
"""By the examples of https://docs.vast.ai/api-reference (2026-08-07) and its page on limits (November 2026).
That credit is lacking, and the queued start, whose status is that of success, are told by who has met them
(June to October 2026).
"""
