"""What a machine of Vultr starts from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from uuid import UUID

from gpucloud.errors import Rejected
from gpucloud.http import HttpClient
from gpucloud.replies import understood
from gpucloud_vultr.api import SYSTEMS, System
from gpucloud_vultr.catalog import rows_of

TRIED_UBUNTU: Final = "22.04"
"""The edition of which it is known that machines with GPUs get it with drivers: dstack 0.22.5, of 2026-11."""


def image_of(provider: str, http: HttpClient, wanted: str | None) -> Mapping[str, object]:
    """An operating system by its number, a snapshot by its id, or an application by its name.

    Unless one is wanted, that is the long-term Ubuntu that is known to have drivers, or else the newest.
    """
    if wanted is None:
        return {"os_id": _ubuntu(provider, http)}
    if wanted.isdecimal():
        return {"os_id": int(wanted)}
    with suppress(ValueError):
        return {"snapshot_id": str(UUID(wanted))}
    return {"image_id": wanted}


def _ubuntu(provider: str, http: HttpClient) -> int:
    """Raises ``Rejected`` when there is none."""
    found: dict[str, int] = {}
    for row in rows_of(provider, http, SYSTEMS):
        system = understood(provider, System.model_validate, row)
        edition = re.fullmatch("Ubuntu ([0-9]{2}\\.04) LTS x64", system.name)
        if edition:
            found[edition[1]] = system.id
    if not found:
        what = f"{provider} has no long-term Ubuntu any more"
        raise Rejected(what, provider=provider, hint="--image with the number of an operating system")
    return found.get(TRIED_UBUNTU) or found[max(found)]
