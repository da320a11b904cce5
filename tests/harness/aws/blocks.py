"""Capacity Blocks in the cloud of the tests: what is sold, and what becomes of it once it is bought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

NEXT: Final = {"payment-pending": "scheduled"}
"""What a state becomes once it has been seen."""


@dataclass
class Offering:
    """A block that is sold once. ``more`` is what else is told of it."""

    id: str
    instance_type: str
    zone: str
    starts_at: datetime
    ends_at: datetime
    usd: str = "5400.00"
    nodes: int = 1
    currency: str = "USD"
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def region(self) -> str:
        """Where it is sold."""
        return self.zone[:-1]

    @property
    def facts(self) -> dict[str, Any]:
        """What DescribeCapacityBlockOfferings tells of it."""
        minutes = int((self.ends_at - self.starts_at).total_seconds()) // 60
        return {
            "CapacityBlockOfferingId": self.id,
            "InstanceType": self.instance_type,
            "AvailabilityZone": self.zone,
            "InstanceCount": self.nodes,
            "StartDate": self.starts_at,
            "EndDate": self.ends_at,
            "CapacityBlockDurationHours": minutes // 60,
            "CapacityBlockDurationMinutes": minutes % 60,
            "UpfrontFee": str(Decimal(self.usd)),
            "CurrencyCode": self.currency,
            "Tenancy": "default",
            "ZoneType": "availability-zone",
            **self.more,
        }


@dataclass
class Reservation:
    """A block that was bought. ``state`` is what EC2 says until it begins, or for good when it failed."""

    id: str
    offering: Offering
    tags: list[dict[str, str]]
    state: str = "payment-pending"

    @property
    def region(self) -> str:
        """Where it is."""
        return self.offering.region

    def state_at(self, now: datetime) -> str:
        """As EC2 says it at a moment."""
        if self.state == "scheduled" and now >= self.offering.starts_at:
            return "active" if now < self.offering.ends_at else "expired"
        return self.state

    def facts(self, now: datetime, used: int) -> dict[str, Any]:
        """What DescribeCapacityReservations tells of it, with so many instances in it."""
        return {
            "CapacityReservationId": self.id,
            "InstanceType": self.offering.instance_type,
            "InstancePlatform": "Linux/UNIX",
            "AvailabilityZone": self.offering.zone,
            "TotalInstanceCount": self.offering.nodes,
            "AvailableInstanceCount": self.offering.nodes - used,
            "State": self.state_at(now),
            "StartDate": self.offering.starts_at,
            "EndDate": self.offering.ends_at,
            "EndDateType": "limited",
            "InstanceMatchCriteria": "targeted",
            "ReservationType": "capacity-block",
            "Tags": self.tags,
        }
