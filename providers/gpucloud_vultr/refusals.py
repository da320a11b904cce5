"""How Vultr says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import AuthError, NoCapacity, NotFound, QuotaExceeded
from gpucloud.refusals import Refusal

REFUSALS: Final = (
    Refusal(
        QuotaExceeded,
        "the account may not have more machines",
        "maximum number of active",
        hint="ask for more at https://my.vultr.com/support/",
    ),
    Refusal(NoCapacity, "there is none left in this location", "not available .*capacity"),
    Refusal(NoCapacity, "this plan is not to be had in this location", "plan .*not available"),
    Refusal(NoCapacity, "this plan is not sold any more", r"invalid plan\b"),
    Refusal(
        AuthError,
        "the key is not to be used from this address",
        "unauthorized ip address",
        statuses=(401, 403),
        hint="allow it at https://my.vultr.com/settings/#settingsapi",
    ),
    Refusal(NotFound, "there is no such machine", r"invalid (instance|bare-?metal)[- _]?id", statuses=(400,)),
)
"""By the words that other people's programs expect, since Vultr documents none: the limit, and the plan, in
https://github.com/ingvarch/tent, the capacity in https://github.com/rezajafari0970/Digital-ocean-bot, the
missing machine in https://github.com/dstackai/dstack (all of 2026), the address as its own API of 2026-07-25
answers it to the authors of alchemy-vultr."""
