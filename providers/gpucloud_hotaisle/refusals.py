"""How Hot Aisle says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import NoCapacity, QuotaExceeded
from gpucloud.refusals import Refusal

CREATE_REFUSALS: Final = (
    Refusal(
        QuotaExceeded,
        "the team has as many machines as it may",
        statuses=(401,),
        hint="end one, or ask hello@hotaisle.ai for more",
    ),
    Refusal(NoCapacity, "there is none left of this kind", statuses=(404,)),
)
"""What these statuses mean of a create, after the document."""
