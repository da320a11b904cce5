"""Google's words: where its machine types and past spot prices are, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

URL: Final = "https://compute.googleapis.com"
PROJECT: Final = "compute/v1/projects/{project}"
MACHINE_TYPES: Final = PROJECT + "/aggregated/machineTypes"
REGION: Final = PROJECT + "/regions/{region}"
HISTORY: Final = REGION + "/advice/capacityHistory"

ASKED: Final[Mapping[str, str]] = {
    # A regular expression that must match the whole name.
    "filter": "name eq '[ag][0-9].*'",
    "maxResults": "500",
    # One zone in trouble is not to hide all others.
    "returnPartialSuccess": "true",
}
"""What is asked of the list of machine types; it has ten times as many of them without accelerators."""

DEFAULT_REGIONS: Final = ("us-central1", "us-east4", "us-west1", "europe-west4")

TOO_OFTEN: Final = {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"}
"""Reasons of a 403 that means: later."""

ACCELERATORS: Final[Mapping[str, str]] = {
    "nvidia-tesla-a100": "NVIDIA A100 SXM 40GB",
    "nvidia-a100-80gb": "NVIDIA A100 SXM 80GB",
    "nvidia-h100-80gb": "NVIDIA H100 SXM 80GB",
    "nvidia-h100-mega-80gb": "NVIDIA H100 SXM 80GB",
    "nvidia-h200-141gb": "NVIDIA H200 SXM 141GB",
}
"""What https://docs.cloud.google.com/compute/docs/gpus says of accelerators beyond their names.

It says "H100 SXM" and "H200 SXM", and NVLink between all of the A100, which is SXM.
"""


def question(machine_type: str) -> dict[str, Any]:
    """What is asked about the past of a machine type."""
    return {
        "instanceProperties": {
            "machineType": machine_type,
            "scheduling": {"provisioningModel": "SPOT"},
        },
        "types": ["PRICE", "PREEMPTION"],
    }


class _Words(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)


class Accelerator(_Words):
    """So many of one type in a machine."""

    guest_accelerator_type: str = Field(min_length=1)
    guest_accelerator_count: int = Field(ge=1)


class MachineType(_Words):
    """A machine type as one zone has it. ``memory_mb`` is MiB."""

    name: str = Field(min_length=1)
    guest_cpus: int | None = Field(default=None, ge=1)
    memory_mb: Decimal | None = Field(default=None, gt=0)
    accelerators: list[Accelerator] = Field(default_factory=list)


class Scope(_Words):
    """What one zone has, each machine type to be read for itself."""

    machine_types: list[Any] = Field(default_factory=list)


class Page(_Words):
    """Some machine types, by ``zones/us-central1-a``, and what to ask for the next page, if there is one."""

    kind: Literal["compute#machineTypeAggregatedList"]
    items: dict[str, Scope] = Field(default_factory=dict)
    next_page_token: str = ""
    unreachables: list[Any] = Field(default_factory=list)


class Money(_Words):
    """An amount in whole units of a currency and billionths of one."""

    currency_code: str = Field(pattern="^[A-Z]{3}$")
    units: int = Field(default=0, lt=10**9)
    nanos: int = Field(default=0, gt=-(10**9), lt=10**9)

    @property
    def amount(self) -> Decimal:
        """All of it, exactly."""
        return self.units + Decimal(self.nanos).scaleb(-9)


class Interval(_Words):
    """From ``start_time`` on, until before ``end_time``; without an end it goes on."""

    start_time: AwareDatetime
    end_time: AwareDatetime | None = None

    def reaches(self, since: datetime, until: datetime | None) -> bool:
        """Whether a part of it is since ``since``, and before ``until``."""
        some = self.end_time is None or self.end_time > max(self.start_time, since)
        return some and (until is None or self.start_time < until)


class Price(_Words):
    """What a spot machine cost for an hour during an interval."""

    interval: Interval
    list_price: Money | None = None


class Preemption(_Words):
    """The share of spot machines that were preempted, of those that stopped running during an interval."""

    interval: Interval
    preemption_rate: Decimal | None = Field(default=None, ge=0, le=1)


class History(_Words):
    """The past of a machine type; each record is to be read for itself. ``location`` is an address."""

    location: str = ""
    price_history: list[Any] = Field(default_factory=list)
    preemption_history: list[Any] = Field(default_factory=list)


class _Reason(_Words):
    reason: str = ""


class _Fault(_Words):
    errors: list[_Reason] = Field(default_factory=list)
    details: list[_Reason] = Field(default_factory=list)


class Failure(_Words):
    """An error as Google tells it."""

    error: _Fault

    @property
    def reasons(self) -> set[str]:
        """Its reasons in one word each."""
        return {told.reason for told in (*self.error.errors, *self.error.details)}
