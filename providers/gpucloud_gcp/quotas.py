"""Whether the account may rent a machine: the quotas of its project and of each region.

They are told with the project and its regions, for the metrics of
https://docs.cloud.google.com/compute/resource-usage#gpu_quota (as of 2026-11-21). Of newer GPUs only the
Cloud Quotas API tells; what is not told here is not known. Spot machines, and those of the queue, count
against the quota for preemptible GPUs where there is one above zero, and otherwise against the usual one.
TPUs count against TPUS_PER_TPU_FAMILY of their region, which only the Cloud Quotas API tells, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gpucloud.model import Market
from gpucloud_gcp import api
from gpucloud_gcp.account import Account
from gpucloud_gcp.machines import Machine

EVERYWHERE: Final = "GPUS_ALL_REGIONS"
PREEMPTIBLE: Final = "PREEMPTIBLE_"
SPARED: Final = {Market.SPOT, Market.QUEUED}
"""The markets that the quota for preemptible GPUs is for."""

METRICS: Final[Mapping[str, str]] = {
    "nvidia-tesla-t4": "NVIDIA_T4_GPUS",
    "nvidia-tesla-p4": "NVIDIA_P4_GPUS",
    "nvidia-tesla-v100": "NVIDIA_V100_GPUS",
    "nvidia-tesla-p100": "NVIDIA_P100_GPUS",
    "nvidia-tesla-a100": "NVIDIA_A100_GPUS",
    "nvidia-a100-80gb": "NVIDIA_A100_80GB_GPUS",
    "nvidia-l4": "NVIDIA_L4_GPUS",
    "nvidia-h100-80gb": "NVIDIA_H100_GPUS",
    "nvidia-h100-mega-80gb": "NVIDIA_H100_MEGA_GPUS",
    "nvidia-h200-141gb": "NVIDIA_H200_GPUS",
    "nvidia-b200": "NVIDIA_B200_GPUS",
    "nvidia-gb200": "NVIDIA_GB200_GPUS",
}
"""Which quota an accelerator counts against."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """What is told of the quotas, by region (``""`` for the whole project) and metric."""

    told: Mapping[tuple[str, str], api.Quota]

    def short_of(self, machine: Machine, market: Market) -> str | None:
        """The quota that does not suffice for one more machine, with its figures; ``None`` if all do."""
        if machine.tpu:
            return None
        usual = METRICS.get(machine.accelerator, "")
        own = self.told.get((machine.region, usual))
        spared = self.told.get((machine.region, PREEMPTIBLE + usual))
        if market in SPARED and spared and spared.limit > 0:
            own = spared
        for quota, where in ((own, f"in {machine.region}"), (self.told.get(("", EVERYWHERE)), "everywhere")):
            if quota and quota.usage + machine.gpu_count > quota.limit:
                used = f"{quota.usage.normalize():f} of {quota.limit.normalize():f} used"
                return f"{quota.metric} {where}: {used}, {machine.gpu_count} wanted"
        return None


def regional(account: Account) -> dict[tuple[str, str], api.Quota]:
    """The quotas of all regions. Raises what a read raises."""
    found = (account.read(api.Quotas, row) for row in account.listed(api.REGIONS))
    return {(region.name, quota.metric): quota for region in found for quota in region.quotas}


def of_project(account: Account) -> dict[tuple[str, str], api.Quota]:
    """The quotas of the whole project. Raises what a read raises."""
    return {("", quota.metric): quota for quota in account.one(api.Quotas, api.PROJECT).quotas}
