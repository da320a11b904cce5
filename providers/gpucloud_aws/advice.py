"""How likely Spot capacity is to be had: the placement score of EC2, with the band of the advisor.

A score is from 1 to 10, for a request of so many instances in one zone at this moment, and no promise. Of a
single instance type, as here, EC2 says that scores are always low: a high one counts, a low one proves
nothing. An account may ask for about fifty different requests in a day, so only chosen offers are asked
about.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-placement-score.html (as of 2026-11-21)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from gpucloud.model import Availability, Market, Offer
from gpucloud.parallel import results, run_all
from gpucloud_aws.catalog import BAND
from gpucloud_aws.offers import Gaps

if TYPE_CHECKING:
    from gpucloud_aws.account import Account

GOOD: Final = 7
"""From this score on a request is likely to succeed; EC2 itself draws no line."""

REGIONS_AT_ONCE: Final = 10
"""How many regions one request may name."""

Bands = Callable[[Mapping[str, Set[str]]], Mapping[tuple[str, str], str]]
"""What the advisor says of the instance types of each region, by type and region."""

Scores = Mapping[tuple[str, str], int]
"""Scores by instance type and zone."""


def read(account: Account, offers: Sequence[Offer], nodes: int, bands: Bands) -> Iterator[Offer]:
    """The Spot offers of which something is told, with what that is. Raises as ``advise`` does."""
    spot = [offer for offer in offers if offer.market is Market.SPOT and offer.region]
    types: dict[str, set[str]] = {}
    for offer in spot:
        types.setdefault(offer.region or "", set()).add(offer.instance_type)
    gaps = Gaps(account.provider)
    scores: Scores = {}
    with gaps.noted(", ".join(sorted(types)), "there are no placement scores"):
        scores = _scores(account, types, nodes)
    gaps.tell()
    told = bands(types) if types else {}
    for offer in spot:
        score = scores.get((offer.instance_type, offer.zone or ""))
        band = told.get((offer.instance_type, offer.region or ""))
        words = [f"placement score {score} of 10" if score else None, BAND.format(band) if band else None]
        detail = "; ".join(word for word in words if word)
        if not detail:
            continue
        if offer.availability is Availability.NO_QUOTA:
            # However likely it is, the account may not have it.
            yield replace(
                offer, availability_detail="; ".join(filter(None, [offer.availability_detail, detail]))
            )
        elif score is not None and score >= GOOD:
            yield replace(offer, availability=Availability.AVAILABLE, availability_detail=detail)
        else:
            yield replace(offer, availability_detail=detail)


def _scores(account: Account, types: Mapping[str, Set[str]], nodes: int) -> Scores:
    zones = results(run_all({region: partial(_zones, account, region) for region in types}))
    names = {id: zone for each in zones.values() for id, zone in each.items()}
    asked: dict[str, list[str]] = {}
    for region, kinds in types.items():
        for kind in kinds:
            asked.setdefault(kind, []).append(region)
    answers = run_all(
        {kind: partial(_score, account, kind, regions, nodes) for kind, regions in asked.items()}
    )
    return {
        (kind, names[id]): score
        for kind, told in results(answers).items()
        for id, score in told.items()
        if id in names
    }


def _zones(account: Account, region: str) -> dict[str, str]:
    """Zones by their ids, which mean the same for everybody; the names are the account's own."""
    with account.translated(region):
        told = account.ec2(region).describe_availability_zones()["AvailabilityZones"]
        return {zone.get("ZoneId", ""): zone.get("ZoneName", "") for zone in told}


def _score(account: Account, kind: str, regions: Sequence[str], nodes: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for first in range(0, len(regions), REGIONS_AT_ONCE):
        some = sorted(regions)[first : first + REGIONS_AT_ONCE]
        with account.translated(some[0]):
            pages = (
                account.ec2(some[0])
                .get_paginator("get_spot_placement_scores")
                .paginate(
                    InstanceTypes=[kind],
                    TargetCapacity=nodes,
                    TargetCapacityUnitType="units",
                    SingleAvailabilityZone=True,
                    RegionNames=some,
                )
            )
            scores = (score for page in pages for score in page.get("SpotPlacementScores", []))
            found |= {each["AvailabilityZoneId"]: each["Score"] for each in scores if "Score" in each}
    return found
