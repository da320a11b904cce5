"""The quotas of EC2 for running instances: in vCPUs, by family, market and region.

The codes are as ListServiceQuotas tells them (as of 2026-11-21). A family that is not here, as P6 on Spot,
has a quota that could not be confirmed, and counts as unknown. See
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Final

from gpucloud.model import Market

if TYPE_CHECKING:
    from gpucloud_aws.account import Account

SERVICE: Final = "ec2"
PAGE: Final = 100
"""The most that a page may have."""

PERMISSION: Final = "servicequotas:ListServiceQuotas"


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota: the families that it is of as a pattern, its market, and AWS's code and name."""

    families: str
    market: Market
    code: str
    name: str

    def to_raise(self, region: str) -> str:
        """The command that asks AWS for more."""
        return (
            f"aws service-quotas request-service-quota-increase --service-code {SERVICE} "
            f"--quota-code {self.code} --region {region} --desired-value VCPUS"
        )


_STANDARD: Final = "[acdhimrtz][0-9].*"

QUOTAS: Final = (
    Quota("g[0-9].*|vt[0-9].*", Market.ON_DEMAND, "L-DB2E81BA", "Running On-Demand G and VT instances"),
    Quota("p[0-9].*", Market.ON_DEMAND, "L-417A185B", "Running On-Demand P instances"),
    Quota("trn[0-9].*", Market.ON_DEMAND, "L-2C3B7624", "Running On-Demand Trn instances"),
    Quota("inf[0-9].*", Market.ON_DEMAND, "L-1945791B", "Running On-Demand Inf instances"),
    Quota("dl[0-9].*", Market.ON_DEMAND, "L-6E869C2A", "Running On-Demand DL instances"),
    Quota(
        _STANDARD,
        Market.ON_DEMAND,
        "L-1216C47A",
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    ),
    Quota("g[0-9].*|vt[0-9].*", Market.SPOT, "L-3819A6DF", "All G and VT Spot Instance Requests"),
    Quota("p[2-4].*", Market.SPOT, "L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    Quota("p5.*", Market.SPOT, "L-C4BD4855", "All P5 Spot Instance Requests"),
    Quota("trn[0-9].*", Market.SPOT, "L-6B0D517C", "All Trn Spot Instance Requests"),
    Quota("inf[0-9].*", Market.SPOT, "L-B5D1601B", "All Inf Spot Instance Requests"),
    Quota("dl[0-9].*", Market.SPOT, "L-85EED4F7", "All DL Spot Instance Requests"),
    Quota(
        _STANDARD,
        Market.SPOT,
        "L-34B43A08",
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    ),
)


@cache
def quota_of(instance_type: str, market: Market) -> Quota | None:
    """The quota that an instance type is subject to; ``None`` where that is not known."""
    family = instance_type.partition(".")[0]
    fitting = (each for each in QUOTAS if each.market is market and re.fullmatch(each.families, family))
    return next(fitting, None)


def read(account: Account, region: str) -> Mapping[str, Decimal]:
    """How many vCPUs each quota allows in a region, by its code."""
    from gpucloud_aws import reader
    from gpucloud_aws.api import PageOfQuotas

    codes, asked = {quota.code for quota in QUOTAS}, {"ServiceCode": SERVICE, "MaxResults": PAGE}
    told = account.reader.json(reader.QUOTAS, region, "ListServiceQuotas", asked, PageOfQuotas)
    return {
        quota["QuotaCode"]: Decimal(str(quota["Value"]))
        for quota in told
        if quota.get("QuotaCode") in codes and isinstance(quota.get("Value"), int | float)
    }
