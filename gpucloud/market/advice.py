"""What providers tell, when asked of chosen offers, of the chance to have them and to keep them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from gpucloud.market.ask import ask_all
from gpucloud.model import Failure, Offer
from gpucloud.provider import Advises, Provider

MOST: Final = 20
"""So many offers of one provider are asked about: what is further down is hardly ever tried."""


def advised(
    providers: Sequence[Provider], offers: Sequence[Offer], nodes: int, timeout_s: float
) -> tuple[list[Offer], list[Failure]]:
    """The offers in the order given, with what those who know more of them tell; and who could not answer."""
    able = [provider for provider in providers if isinstance(provider, Advises)]

    def ask(provider: Provider) -> list[Offer]:
        own = [offer for offer in offers if offer.provider == provider.name]
        return list(cast(Advises, provider).advise(own[:MOST], nodes)) if own else []

    told, failures = ask_all(able, ask, timeout_s)
    better = {(offer.id, offer.ref): offer for answer in told.values() for offer in answer}
    return [better.get((offer.id, offer.ref), offer) for offer in offers], failures
