"""What a provider only passes on, and is to be had from its upstream itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gpucloud.catalog.columns import AVAILABILITIES
from gpucloud.model import Offer

LIVE: Final = "live"


def once(offers: Iterable[Offer]) -> list[Offer]:
    """The offers without those that their upstream, which was asked itself, has as well for no more.

    What is dearer there, not to be had, or only on a list stays: each is then of use to somebody.
    """
    told = list(offers)
    direct: dict[tuple[object, ...], list[Offer]] = {}
    for offer in told:
        if offer.upstream is None and offer.confidence == LIVE:
            direct.setdefault(_kind(offer.provider, offer), []).append(offer)
    return [
        offer
        for offer in told
        if not any(_as_good(twin, offer) for twin in direct.get(_kind(offer.upstream, offer), ()))
    ]


def _kind(seller: str | None, offer: Offer) -> tuple[object, ...]:
    gpu = offer.gpu
    return seller, gpu and (gpu.key, gpu.memory_gib, gpu.form_factor), offer.gpu_count, offer.market


def _as_good(twin: Offer, offer: Offer) -> bool:
    """Whether one would be rented rather than the other; places are told in two vendors' words."""
    apart = twin.country and offer.country and twin.country != offer.country
    return (
        offer.upstream is not None
        and not apart
        and twin.usd_per_hour <= offer.usd_per_hour
        and AVAILABILITIES.index(twin.availability) <= AVAILABILITIES.index(offer.availability)
    )
