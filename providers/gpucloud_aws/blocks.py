"""Capacity Blocks: instances for days to come, paid as a whole when they are bought.

They are sold by DescribeCapacityBlockOfferings and PurchaseCapacityBlock, and are then capacity reservations:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/capacity-blocks-purchase.html (as of 2026-11-21).
The purchase has no idempotency key, so it is sent once. Payment follows within twelve hours, or the block is
released. Blocks end at 11:30 UTC, so one may be some hours shorter or longer than was asked for. Thirty
minutes before that AWS begins to end the instances in it, which is when a reservation ends for us:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/capacity-blocks-monitor.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gpucloud.catalog.currencies import to_usd
from gpucloud.errors import BadReply, ProviderError, Rejected, Unreachable, Unsupported
from gpucloud.model import Block, InstanceRef, Requirements, Reservation, ReservationState, Window
from gpucloud.provider import LaunchSpec, Tagged
from gpucloud.replies import Rows
from gpucloud_aws import machines, tags
from gpucloud_aws.api import CapacityReservation, Offering
from gpucloud_aws.offers import Gaps, Kind, fits, from_each, kind_of
from gpucloud_aws.reader import written

if TYPE_CHECKING:
    from decimal import Decimal

    from types_boto3_ec2 import EC2Client

    from gpucloud_aws.account import Account

log = logging.getLogger(__name__)

SOLD_AS: Final = "capacity-block"
"""What EC2 calls it as a usage class, a market and a kind of reservation."""

SHUTDOWN: Final = timedelta(minutes=30)
"""So long before the end of a block AWS begins to end the instances in it."""

PLATFORM: Final = "Linux/UNIX"
DAYS: Final[Sequence[int]] = (*range(1, 15), *range(21, 183, 7))
"""For how many days blocks are sold: each up to 14, then whole weeks.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeCapacityBlockOfferings.html (2026-11-21)
"""

STATES: Final[Mapping[str, ReservationState]] = {
    "payment-pending": ReservationState.PENDING,
    "pending": ReservationState.PENDING,
    "assessing": ReservationState.PENDING,
    "scheduled": ReservationState.SCHEDULED,
    "active": ReservationState.ACTIVE,
    "expired": ReservationState.ENDED,
    "cancelled": ReservationState.ENDED,
    "failed": ReservationState.FAILED,
    "payment-failed": ReservationState.FAILED,
}

Rates = Mapping[str, "Decimal"]
"""Dollars for one unit of a currency, where the person has said so."""


def sold(
    account: Account, wanted: Requirements, window: Window, regions: Sequence[str], rates: Rates
) -> Iterator[Block]:
    """The blocks of the regions, which are asked at once. Raises as ``offers.read`` does.

    Raises ``Unsupported`` for a time that is longer than any block.
    """
    hours, gaps = _hours(account.provider, window.lasting), Gaps(account.provider)
    found = from_each(
        account,
        {region: partial(_within, account, region, wanted, window, hours, rates, gaps) for region in regions},
        gaps,
    )
    gaps.tell()
    for blocks in found.values():
        yield from blocks


def buy(account: Account, block: Block, spec: LaunchSpec) -> Reservation:
    """Buy one. Raises as ``Provider.reserve`` does."""
    carried = tags.listed({**spec.tags, "Name": f"gpucloud {spec.cluster}"})
    try:
        with account.translated(block.region):
            told = account.ec2(block.region, once=True).purchase_capacity_block(
                CapacityBlockOfferingId=block.ref,
                InstancePlatform=PLATFORM,
                TagSpecifications=[{"ResourceType": "capacity-reservation", "Tags": carried}],
            )
            return _reservation(account.provider, block.region, told.get("CapacityReservation"))
    except ProviderError as error:
        # Without an answer that can be read it may have been bought.
        if isinstance(error, Unreachable | BadReply):
            error.outcome_unknown = True
        raise


def bought(account: Account) -> list[Reservation]:
    """All that carry our tag. Raises rather than leave a region out."""

    def within(client: EC2Client, region: str) -> Iterator[Reservation]:
        # EC2 lists no tag among the filters of this request.
        for page in client.get_paginator("describe_capacity_reservations").paginate():
            for entry in page.get("CapacityReservations", []):
                carried = tags.read(entry.get("Tags", []))
                if entry.get("ReservationType") == SOLD_AS and machines.TOKEN in carried:
                    yield _reservation(account.provider, region, entry)

    return machines.everywhere(account, within)


def _hours(provider: str, lasting: timedelta) -> int:
    days = next((days for days in DAYS if timedelta(days=days) >= lasting), None)
    if days is None:
        raise Unsupported(
            f"{provider} sells no block for so long",
            provider=provider,
            why=f"the longest has {DAYS[-1]} days",
            hint=f"ask for {DAYS[-1]}d or less",
        )
    return days * 24


def _within(
    account: Account,
    region: str,
    wanted: Requirements,
    window: Window,
    hours: int,
    rates: Rates,
    gaps: Gaps,
) -> list[Block]:
    kinds = [kind for kind in _kinds(account, region, wanted) if fits(kind, wanted)]
    found: list[Block] = []
    with gaps.noted(region, "Capacity Blocks there are left out"):
        for kind in kinds:
            try:
                make = partial(_block, account.provider, region, kind, window, rates)
                found += Rows(account.provider).read(make, _offerings(account, region, kind, window, hours))
            except Rejected as error:
                # Some types are sold only in racks, which are asked for by another name.
                log.debug("%s: no blocks of %s: %s", region, kind.instance_type, error.why)
    return found


def _kinds(account: Account, region: str, wanted: Requirements) -> list[Kind]:
    filters = [{"Name": "supported-usage-class", "Value": [SOLD_AS]}]
    if wanted.instance_types:
        names = [name.lower() for name in wanted.instance_types]
        filters.append({"Name": "instance-type", "Value": names})
    told = account.reader.ec2(region, "DescribeInstanceTypes", {"Filter": filters}, "InstanceTypeSet")
    return Rows(account.provider).read(kind_of, told)


def _offerings(account: Account, region: str, kind: Kind, window: Window, hours: int) -> Iterator[Any]:
    asked = {
        "InstanceType": kind.instance_type,
        "InstanceCount": str(window.nodes),
        "CapacityDurationHours": str(hours),
        "StartDateRange": written(window.earliest),
        # It is the end of the block that lies before this, and a block may be longer than was asked for.
        "EndDateRange": written(window.latest + timedelta(hours=hours, days=1)),
    }
    return account.reader.ec2(region, "DescribeCapacityBlockOfferings", asked, "CapacityBlockOfferingSet")


def _block(provider: str, region: str, kind: Kind, window: Window, rates: Rates, entry: Any) -> Block | None:
    """One block; ``None`` where no launch of ours goes, or when it begins too late."""
    told = Offering.model_validate(entry)
    launchable = told.zone[:-1] == region and told.tenancy == "default" and len(told.segments) <= 1
    if not launchable or told.starts_at > window.latest:
        return None
    usd = to_usd(told.fee, told.currency, rates).usd
    return Block(
        provider=provider,
        ref=told.id,
        instance_type=told.instance_type,
        nodes=told.nodes,
        region=region,
        zone=told.zone,
        starts_at=told.starts_at.astimezone(UTC),
        ends_at=told.ends_at.astimezone(UTC),
        usd=usd,
        usd_upfront=usd,
        gpu=kind.gpu,
        gpu_count=kind.gpu_count,
        currency=told.currency,
        amount=told.fee,
    )


def _reservation(provider: str, region: str, entry: Any) -> Reservation:
    told = Rows(provider).envelope(CapacityReservation.model_validate, entry)
    tagged = Tagged.read(told.tags)
    return Reservation(
        provider=provider,
        ref=InstanceRef(told.id, region),
        state=STATES.get(told.state, ReservationState.UNKNOWN),
        instance_type=told.instance_type,
        nodes=told.nodes,
        zone=told.zone,
        starts_at=told.starts_at and told.starts_at.astimezone(UTC),
        ends_at=told.ends_at and told.ends_at.astimezone(UTC) - SHUTDOWN,
        free=told.free,
        token=tagged.token,
        name=tagged.cluster,
        owner=tagged.owner,
    )
