"""Google's words: where its machines, prices and instances are, and what it says of them."""

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
ADVICE: Final = REGION + "/advice/capacity"
CALENDAR: Final = REGION + "/advice/calendarMode"
FUTURES: Final = PROJECT + "/aggregated/futureReservations"
RESERVATIONS: Final = PROJECT + "/aggregated/reservations"
FUTURE: Final = PROJECT + "/zones/{zone}/futureReservations/{name}"
REGIONS: Final = PROJECT + "/regions"
MACHINE_TYPE: Final = PROJECT + "/zones/{zone}/machineTypes/{name}"
ACCELERATOR_TYPES: Final = PROJECT + "/aggregated/acceleratorTypes"
INSTANCES: Final = PROJECT + "/aggregated/instances"
INSTANCE: Final = PROJECT + "/zones/{zone}/instances/{name}"
DISKS: Final = PROJECT + "/aggregated/disks"
DISK: Final = PROJECT + "/zones/{zone}/disks/{name}"
POLICIES: Final = PROJECT + "/aggregated/resourcePolicies"
NETWORKS: Final = PROJECT + "/global/networks"
SUBNETS: Final = PROJECT + "/aggregated/subnetworks"
SUBNETS_OF_REGION: Final = REGION + "/subnetworks"
FIREWALLS: Final = PROJECT + "/global/firewalls"
IMAGES: Final = "compute/v1/projects/{owner}/global/images"
OPERATIONS: Final = PROJECT + "/{place}/operations"
OPERATION: Final = OPERATIONS + "/{operation}"
WAIT: Final = OPERATION + "/wait"

BILLING_URL: Final = "https://cloudbilling.googleapis.com"
SKUS: Final = "v1/services/6F81-5844-456A/skus"
"""The price list of Compute Engine."""

ASKED: Final[Mapping[str, str]] = {
    # A regular expression that must match the whole name.
    "filter": "name eq '[ag][0-9].*'",
    "maxResults": "500",
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


PRICE: Final = "PRICE"
PREEMPTION: Final = "PREEMPTION"


def question(machine_type: str, *what: str) -> dict[str, Any]:
    """What is asked about the past of a machine type: its prices, its preemption rates or both."""
    return {
        "instanceProperties": {
            "machineType": machine_type,
            "scheduling": {"provisioningModel": "SPOT"},
        },
        "types": list(what),
    }


class _Words(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)


class Accelerator(_Words):
    """So many of one type in a machine."""

    guest_accelerator_type: str = Field(min_length=1)
    guest_accelerator_count: int = Field(ge=1)


class LocalSsds(_Words):
    """The disks that a machine type brings along, all of one size."""

    partition_count: int = Field(default=0, ge=0)


class MachineType(_Words):
    """A machine type as one zone has it. ``memory_mb`` is MiB."""

    name: str = Field(min_length=1)
    guest_cpus: int | None = Field(default=None, ge=1)
    memory_mb: Decimal | None = Field(default=None, gt=0)
    architecture: str = ""
    bundled_local_ssds: LocalSsds = Field(default_factory=LocalSsds)
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


class AcceleratorType(_Words):
    """Accelerators that may be attached to machines of a zone."""

    name: str = Field(min_length=1)


class Quota(_Words):
    """How much of something there may be, and is."""

    metric: str
    limit: Decimal
    usage: Decimal = Decimal(0)


class Quotas(_Words):
    """A region, or a project, with what may be in it."""

    name: str = Field(min_length=1)
    quotas: list[Quota] = Field(default_factory=list)


class Scores(_Words):
    """How likely a request for spot machines is to succeed, and for how long they would stay."""

    obtainability: Decimal | None = Field(default=None, ge=0, le=1)
    estimated_uptime: str = ""


class Recommendation(_Words):
    """What is advised."""

    scores: Scores = Field(default_factory=Scores)


class Advice(_Words):
    """The answer to a question about capacity; none where Google has nothing to tell."""

    recommendations: list[Recommendation] = Field(default_factory=list)


class FutureAdvice(_Words):
    """When and where to reserve what was asked for; without a location nowhere."""

    recommendation_id: str = ""
    location: str = ""
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None


class _FutureRecommendation(_Words):
    recommendations_per_spec: dict[str, FutureAdvice] = Field(default_factory=dict)


class CalendarAdvice(_Words):
    """The answer to a question about reservations."""

    recommendations: list[_FutureRecommendation] = Field(default_factory=list)

    @property
    def places(self) -> list[FutureAdvice]:
        """All that is advised."""
        return [one for each in self.recommendations for one in each.recommendations_per_spec.values()]


class _FutureStatus(_Words):
    procurement_status: str = ""


class _Reserved(_Words):
    machine_type: str = ""


class _ReservedMachines(_Words):
    total_count: int = Field(default=0, ge=0)
    instance_properties: _Reserved = Field(default_factory=_Reserved)


class _TimeWindow(_Words):
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None


class FutureReservation(_Words):
    """Machines that are, or were, reserved for a time."""

    name: str = Field(min_length=1)
    description: str = ""
    specific_sku_properties: _ReservedMachines = Field(default_factory=_ReservedMachines)
    time_window: _TimeWindow = Field(default_factory=_TimeWindow)
    status: _FutureStatus = Field(default_factory=_FutureStatus)


class _Used(_Words):
    count: int = Field(default=0, ge=0)
    in_use_count: int = Field(default=0, ge=0)


class Delivered(_Words):
    """The machines of a reservation that has begun."""

    name: str = Field(min_length=1)
    specific_reservation: _Used = Field(default_factory=_Used)

    @property
    def free(self) -> int:
        """How many are not used."""
        return max(self.specific_reservation.count - self.specific_reservation.in_use_count, 0)


class _Tier(_Words):
    unit_price: Money


class _Expression(_Words):
    base_unit: str
    base_unit_conversion_factor: Decimal = Field(gt=0)
    tiered_rates: list[_Tier] = Field(min_length=1)


class _Pricing(_Words):
    pricing_expression: _Expression


class _Category(_Words):
    usage_type: str


class Sku(_Words):
    """A part of a machine as the price list has it; the last of its prices is that of now."""

    description: str
    category: _Category
    service_regions: list[str] = Field(default_factory=list)
    pricing_info: list[_Pricing] = Field(min_length=1)


class SkuPage(_Words):
    """Some lines of the price list, each to be read for itself."""

    skus: list[Any]
    next_page_token: str = ""


class _Deprecation(_Words):
    state: str = "ACTIVE"


class Image(_Words):
    """An image of a disk."""

    name: str
    family: str = ""
    architecture: str = ""
    creation_timestamp: str = ""
    status: str = ""
    self_link: str
    deprecated: _Deprecation = Field(default_factory=_Deprecation)


WAITS: Final = "PENDING"
"""The status of an instance for which there is no capacity yet."""


class _Item(_Words):
    key: str
    value: str = ""


class Metadata(_Words):
    """What a machine is told; the only place that takes any text as it is."""

    items: list[_Item] = Field(default_factory=list)


class _Config(_Words):
    nat_ip: str = Field(default="", alias="natIP")


class _Interface(_Words):
    network: str = ""
    subnetwork: str = ""
    network_ip: str | None = Field(default=None, alias="networkIP")
    access_configs: list[_Config] = Field(default_factory=list)


class _Scheduling(_Words):
    provisioning_model: str = ""


class _Tags(_Words):
    items: list[str] = Field(default_factory=list)
    fingerprint: str = ""


class _Disk(_Words):
    type: str = ""


class Machine(_Words):
    """An instance. Its zone and its machine type are addresses."""

    name: str = Field(min_length=1)
    zone: str = Field(min_length=1)
    status: str
    machine_type: str = ""
    creation_timestamp: AwareDatetime | None = None
    last_start_timestamp: AwareDatetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    metadata: Metadata = Field(default_factory=Metadata)
    tags: _Tags = Field(default_factory=_Tags)
    scheduling: _Scheduling = Field(default_factory=_Scheduling)
    network_interfaces: list[_Interface] = Field(default_factory=list)
    resource_policies: list[str] = Field(default_factory=list)
    disks: list[_Disk] = Field(default_factory=list)


class Thing(_Words):
    """Something beside instances: a disk, a placement policy, a network, a subnet or a rule of a firewall."""

    name: str = Field(min_length=1)
    labels: dict[str, str] = Field(default_factory=dict)
    description: str = ""


class _Warning(_Words):
    code: str = ""


class ListScope(BaseModel):
    """What one zone or region has, in a list whose name differs from kind to kind."""

    model_config = ConfigDict(extra="allow")

    warning: _Warning = Field(default_factory=_Warning)

    @property
    def rows(self) -> list[Any]:
        """All of it."""
        lists = (value for value in (self.model_extra or {}).values() if isinstance(value, list))
        return [row for rows in lists for row in rows]


class AggregatedPage(_Words):
    """Some of what there is in all zones, or regions; ``unreachables`` are those that could not be asked."""

    kind: str = Field(pattern="^compute#[a-zA-Z]+AggregatedList(Response)?$")
    items: dict[str, ListScope] = Field(default_factory=dict)
    next_page_token: str = ""
    unreachables: list[str] = Field(default_factory=list)


class ListPage(_Words):
    """Some of what there is in one place."""

    kind: str = Field(pattern="^compute#[a-zA-Z]+List$")
    items: list[Any] = Field(default_factory=list)
    next_page_token: str = ""


class _QuotaInfo(_Words):
    metric_name: str = ""


class _Detail(_Words):
    quota_info: _QuotaInfo = Field(default_factory=_QuotaInfo)


class Problem(_Words):
    """Why an operation has failed."""

    code: str = ""
    message: str = ""
    error_details: list[_Detail] = Field(default_factory=list)


class _Problems(_Words):
    errors: list[Problem] = Field(default_factory=list)


class Operation(_Words):
    """A change under way, or done. Refusals come here, too, and not in the reply to the request."""

    name: str = Field(min_length=1)
    status: str
    operation_type: str = ""
    insert_time: str = ""
    error: _Problems = Field(default_factory=_Problems)
    http_error_status_code: int = 0

    @property
    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self.status == "DONE"


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
