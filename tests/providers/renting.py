"""Adapters before the fakes of rental markets, which never make them wait."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gpucloud.http import HttpClient
from gpucloud.model import CANNOT_BE_HAD, Offer, Requirements
from gpucloud.provider import Provider
from gpucloud.remote.keys import Identity, identity
from tests.harness.catalogs import Clock
from tests.harness.rental.market import Served

P = TypeVar("P", bound=Provider)


def adapter_at(kind: type[P], served: Served, folder: Path, **table: Any) -> P:
    """An adapter that rents at this market; ``table`` are more of its settings."""
    time = Clock()
    adapter = kind(served.settings(folder, **table))
    adapter.client = partial(HttpClient, sleep=time.sleep, clock=lambda: time.now)
    return adapter


def identity_in(folder: Path) -> Identity:
    """The key of a person who rents."""
    return identity(folder / "ssh")


def cheapest(provider: Provider) -> Offer:
    """The cheapest offer with a GPU that can be had."""
    offers = provider.offers(Requirements(markets=()))
    had = [offer for offer in offers if offer.gpu_count and offer.availability not in CANNOT_BE_HAD]
    return min(had, key=lambda offer: (offer.usd_per_hour, offer.id))


def forgive(served: Served, words: str) -> None:
    """Let a test show what the vendor's document does not know: faults with these words."""
    served.market.violations[:] = [told for told in served.market.violations if words not in told]
