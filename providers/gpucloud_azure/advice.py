"""How likely spot machines are to be had and to be kept, in Azure's own measures.

The placement score is told for some sizes in some regions at a time, and is rationed; how often machines are
taken back is in Resource Graph, for all at once. Each needs a permission of its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import AuthError
from gpucloud.model import Availability, Market, Offer
from gpucloud.parallel import run_all
from gpucloud.replies import Rows
from gpucloud_azure.errors import permission

if TYPE_CHECKING:
    from gpucloud.http import HttpClient
    from gpucloud_azure.account import Account
    from gpucloud_azure.api import EvictionRate, Score

log = logging.getLogger(__name__)

SIZES_AT_ONCE: Final = 5
REGIONS_AT_ONCE: Final = 8
"""Of more than that the recommender tells nothing."""

SCORES_ASK: Final = "Microsoft.Compute/locations/placementScores/generate/action"
GRAPH_ASK: Final = "Microsoft.ResourceGraph/resources/read"

MEANINGS: Final = {
    "high": Availability.AVAILABLE,
    "medium": Availability.LIMITED,
    "low": Availability.LIMITED,
    "restrictedskunotavailable": Availability.UNAVAILABLE,
}
"""What the words of the score mean, folded; any other, such as DataNotFoundOrStale, is unknown."""

Place = tuple[str, str]
"""A size and a region, folded."""


class Advice:
    """What is told of the spot market to one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def of(self, offers: Sequence[Offer], nodes: int) -> Iterator[Offer]:
        """Those of which something is told, with what is told. Raises ``AuthError`` when nothing may be."""
        spot = [offer for offer in offers if offer.market is Market.SPOT and offer.region]
        if not spot:
            return
        with self._account.http() as http:
            asked: dict[str, Callable[[], dict[Place, Any]]] = {
                SCORES_ASK: partial(self._scores, http, spot, nodes),
                GRAPH_ASK: partial(self._evictions, http, spot),
            }
            done = run_all(asked)
        told: dict[str, dict[Place, Any]] = {}
        for usual, answer in done.items():
            if not isinstance(answer, BaseException):
                told[usual] = answer
            elif not isinstance(answer, AuthError) or all(
                isinstance(e, BaseException) for e in done.values()
            ):
                raise answer
            else:
                lacking = permission(answer, usual)
                log.warning("%s: without the permission %s less is known", self._account.provider, lacking)
        scores, evictions = told.get(SCORES_ASK, {}), told.get(GRAPH_ASK, {})
        for offer in spot:
            score, rate = scores.get(_place(offer)), evictions.get(_place(offer))
            if score or rate:
                yield _advised(offer, score, rate)

    def _scores(self, http: HttpClient, offers: Sequence[Offer], nodes: int) -> dict[Place, Score]:
        from gpucloud_azure.api import SCORES, Score, Scores

        sizes = sorted({offer.instance_type for offer in offers})
        regions = sorted({offer.region for offer in offers if offer.region})
        found: dict[Place, Score] = {}
        rows = Rows(self._account.provider)
        for some in _chunks(sizes, SIZES_AT_ONCE):
            for where in _chunks(regions, REGIONS_AT_ONCE):
                near = f"providers/Microsoft.Compute/locations/{where[0]}/placementScores/spot/generate"
                wanted = {
                    "availabilityZones": False,
                    "desiredCount": nodes,
                    "desiredLocations": list(where),
                    "desiredSizes": [{"sku": size} for size in some],
                }
                body = http.query(self._account.path(near), json=wanted, params={"api-version": SCORES})
                scores = rows.envelope(Scores.model_validate, body).placement_scores
                for score in rows.read(Score.model_validate, scores):
                    found[score.sku.casefold(), score.region.casefold()] = score
        return found

    def _evictions(self, http: HttpClient, offers: Sequence[Offer]) -> dict[Place, EvictionRate]:
        from gpucloud_azure.api import EVICTIONS, GRAPH, EvictionRate, GraphReply

        query = EVICTIONS.format(
            sizes=_quoted({offer.instance_type for offer in offers}),
            regions=_quoted({offer.region or "" for offer in offers}),
        )
        rows, found, options = Rows(self._account.provider), list[Any](), dict[str, str]()
        while True:
            wanted = {"subscriptions": [self._account.subscription], "query": query, "options": options}
            path = "providers/Microsoft.ResourceGraph/resources"
            body = http.query(path, json=wanted, params={"api-version": GRAPH})
            reply = rows.envelope(GraphReply.model_validate, body)
            found += reply.data
            if not reply.skip_token or reply.skip_token == options.get("$skipToken"):
                break
            options = {"$skipToken": reply.skip_token}
        rates = rows.read(EvictionRate.model_validate, found)
        return {(rate.size.casefold(), rate.region.casefold()): rate for rate in rates}


def _advised(offer: Offer, score: Score | None, rate: EvictionRate | None) -> Offer:
    words = [f"placement score {score.score}"] if score else []
    availability = MEANINGS.get(score.score.lower(), Availability.UNKNOWN) if score else offer.availability
    if score and score.is_quota_available is False:
        words.append("no quota for so many")
        availability = Availability.NO_QUOTA
    if rate:
        words.append(f"{rate.rate}% taken back in an hour")
    return replace(
        offer,
        availability=availability,
        availability_detail=", ".join(words),
        interruptions_per_hour=_share(rate.rate) if rate else offer.interruptions_per_hour,
    )


def _share(band: str) -> Decimal | None:
    """The upper end of a band of per cents; where it is open, as ``20+``, its lower one."""
    numbers = re.findall(r"[0-9]+(?:\.[0-9]+)?", band)
    return Decimal(numbers[-1]) / 100 if numbers else None


def _place(offer: Offer) -> Place:
    return offer.instance_type.casefold(), (offer.region or "").casefold()


def _chunks(names: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    return (names[start : start + length] for start in range(0, len(names), length))


def _quoted(names: set[str]) -> str:
    # Names come from the provider's own lists and have no quotes; whatever else comes must not end the text.
    return ", ".join(f"'{re.sub('[^A-Za-z0-9_-]', '', name)}'" for name in sorted(names))
