"""How DigitalOcean says no."""

from __future__ import annotations

from typing import Final

from gpucloud.errors import NoCapacity, QuotaExceeded
from gpucloud.refusals import Refusal

REFUSALS: Final = (
    Refusal(
        QuotaExceeded,
        "the account may not have more Droplets",
        "exceed your droplet limit",
        hint="ask for more at https://cloud.digitalocean.com/account/team/droplet_limit_increase",
    ),
    Refusal(
        QuotaExceeded,
        "the account may not have this size",
        "size is currently restricted",
        hint="ask for it at https://cloud.digitalocean.com/support/tickets/new",
    ),
    Refusal(NoCapacity, "there is none left in this region", "size .*unavailable|capacity"),
    Refusal(NoCapacity, "this size is not to be had in this region", "(size|region) is not available"),
    Refusal(NoCapacity, "this size is not sold any more", "invalid size"),
)
"""By the words of replies with 422 that people have shown, since the document tells none: the limit in
https://github.com/OpenRouterLabs/spawn/issues/2516 (2026-03-12), the region in
https://github.com/OpenRouterLabs/spawn/pull/2768 (2026-03-18), the capacity in
https://www.digitalocean.com/community/questions/high-cpu-droplet-availability-via-the-digtialocean-api
(2017-10-12), the restriction in https://github.com/digitalocean/api-v2/issues/36 (2014-06-28)."""
