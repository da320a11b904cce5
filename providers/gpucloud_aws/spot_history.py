"""What Spot instances have cost, as EC2 tells whoever has an account: by availability zone, for 90 days.

It tells no moment at which a price was looked at, only since when each has held; the first of a type and zone
is the one that held when the time in question began, so it may be older:
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import AuthError, NotFound
from gpucloud.model import Gpu, Market, Offer, utcnow
from gpucloud.parallel import results, run_all
from gpucloud.replies import Rows

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client

    from gpucloud_aws.account import Account

log = logging.getLogger(__name__)

LINUX: Final = "Linux/UNIX"
SOURCE: Final = "ec2:DescribeSpotPriceHistory"

Chips = Mapping[str, tuple[Gpu, int]]
"""What is in an instance type, and how many of it."""


def meant(account: Account, names: Iterable[str]) -> dict[str, bool]:
    """The regions that ``names`` mean, and whether each was named in full.

    ``eu`` is every region whose name begins with it as a word, of the first group of regions that has any:
    ``us`` means none of the government's. Raises ``NotFound``.
    """
    groups, found = account.regions(), dict[str, bool]()
    for name in names:
        regions = _meant(account.provider, groups, name)
        found |= {region: region == name or found.get(region, False) for region in regions}
    return found


def read(account: Account, regions: Mapping[str, bool], since: datetime) -> list[Offer]:
    """What Spot instances with an accelerator have cost since then; all regions are asked at once.

    A region that refuses the credentials which others take is not open to the account; then it is left out,
    unless it was named in full, as ``regions`` says. Raises what asking a region raises.
    """
    account.check("past Spot prices are told only to who has an account")
    clients = {region: account.ec2(region) for region in regions}
    answers = run_all(
        {region: partial(_prices, account, region, client, since) for region, client in clients.items()}
    )
    closed = {region for region, answer in answers.items() if isinstance(answer, AuthError | NotFound)}
    if len(closed) < len(answers):
        for region in sorted(closed):
            if not regions[region]:
                refusal = answers.pop(region)
                log.debug("%s: %s is left out: %s", account.provider, region, refusal)
    return [offer for offers in results(answers).values() for offer in offers]


def _meant(provider: str, groups: Sequence[Sequence[str]], name: str) -> Sequence[str]:
    if any(name in group for group in groups):
        return [name]
    for group in groups:
        if found := [region for region in group if region.startswith(f"{name}-")]:
            return found
    known = sorted(region for group in groups for region in group)
    close = difflib.get_close_matches(name, known, n=3)
    raise NotFound(
        f"{provider} has no region {name}",
        provider=provider,
        why=f"boto3 knows {len(known)} regions, and none of that name",
        hint=f"did you mean {', '.join(close)}?" if close else "for a new one: pip install --upgrade boto3",
    )


def _prices(account: Account, region: str, client: EC2Client, since: datetime) -> list[Offer]:
    rows = Rows(account.provider)
    with account.translated(region):
        chips = dict(rows.read(_chips, _types(client)))
        if not chips:
            return []
        make = partial(_offer, account.provider, region, chips)
        return rows.read(make, _history(client, chips.keys(), since))


def _types(client: EC2Client) -> Iterator[Any]:
    # EC2 has no filter for accelerators, and names of families to ask for would leave out new ones.
    pages = client.get_paginator("describe_instance_types").paginate(
        Filters=[{"Name": "supported-usage-class", "Values": ["spot"]}]
    )
    return (kind for page in pages for kind in page.get("InstanceTypes", []))


def _history(client: EC2Client, types: Set[str], since: datetime) -> Iterator[Any]:
    pages = client.get_paginator("describe_spot_price_history").paginate(
        StartTime=since,
        InstanceTypes=sorted(types),  # type: ignore[arg-type] # The stubs list those that they know.
        ProductDescriptions=[LINUX],
    )
    return (price for page in pages for price in page.get("SpotPriceHistory", []))


def _chips(entry: Any) -> tuple[str, tuple[Gpu, int]] | None:
    """What is in an instance type; ``None`` without an accelerator, or with a part of one."""
    from gpucloud_aws.api import InstanceType
    from gpucloud_aws.hardware import chips

    kind = InstanceType.model_validate(entry)
    found = chips(kind)
    return found and (kind.instance_type, found)


def _offer(provider: str, region: str, chips: Chips, entry: Any) -> Offer | None:
    from gpucloud_aws.api import PastPrice

    price = PastPrice.model_validate(entry)
    if price.product != LINUX or price.instance_type not in chips:
        return None
    gpu, count = chips[price.instance_type]
    return Offer(
        provider=provider,
        instance_type=price.instance_type,
        market=Market.SPOT,
        usd_per_hour=price.usd,
        amount=price.usd,
        as_of=min(utcnow(), price.since),
        source=SOURCE,
        gpu=gpu,
        gpu_count=count,
        region=region,
        zone=price.zone,
        confidence="history",
    )
