"""How Lambda says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import AuthError, BalanceExhausted, NoCapacity, QuotaExceeded, Rejected
from gpucloud.refusals import Refusal

SOLD_OUT: Final = "instance-operations/launch/insufficient-capacity"
MISSING: Final = "global/object-does-not-exist"

REFUSALS: Final = (
    Refusal(NoCapacity, "there is none left in this region", code=SOLD_OUT),
    Refusal(NoCapacity, "this type is not sold any more", "instance type", MISSING),
    Refusal(Rejected, "something that it needs is missing", code=MISSING, statuses=(400,)),
    Refusal(
        QuotaExceeded,
        "a quota of the account is used up",
        code="global/quota-exceeded",
        hint="ask for more at https://support.lambda.ai",
    ),
    Refusal(
        AuthError,
        "the account is not active",
        code="global/account-inactive",
        hint="verify the address and the payment method at https://cloud.lambda.ai",
    ),
    Refusal(
        BalanceExhausted,
        "the billing address was refused",
        code="global/invalid-address",
        hint="correct it at https://cloud.lambda.ai/settings/billing",
    ),
)
"""By the code of https://docs-api.lambda.ai/api/cloud#errors; what else there is goes by its status."""
