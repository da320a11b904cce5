"""Calendar mode: machines that are reserved for a time to come.

https://docs.cloud.google.com/compute/docs/instances/create-future-reservations-calendar-mode (as of
2026-11-21).
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, cast

from gpucloud.errors import NoCapacity, NotFound, ProviderError, Rejected
from gpucloud.model import (
    Block,
    InstanceRef,
    Market,
    Requirements,
    Reservation,
    ReservationState,
    Window,
    over_time,
    utcnow,
)
from gpucloud.parallel import results, run_all
from gpucloud.provider import LaunchSpec, Tagged
from gpucloud_gcp import api
from gpucloud_gcp.account import Account, Forbidden
from gpucloud_gcp.errors import EXISTS, PROVIDER
from gpucloud_gcp.launch import name_of
from gpucloud_gcp.machines import Machine, in_one_of, machines
from gpucloud_gcp.offers import some_at_once
from gpucloud_gcp.prices import PriceList, price_list
from gpucloud_gcp.sdk import Changes, Place, request_id
from gpucloud_gcp.tags import described

log = logging.getLogger(__name__)

TAKEN: Final = re.compile("a3-highgpu-8g|a3-(mega|ultra)gpu-8g|a4-.+")
"""What calendar mode takes.

https://docs.cloud.google.com/compute/docs/instances/about-reservation-bound-vms (as of 2026-11-21).
"""

SHORTEST: Final = timedelta(days=1)
LONGEST: Final = timedelta(days=90)
MOST_NODES: Final = 80

ASKED: Final = "wanted"
OURS: Final = "name eq 'gpucloud-.*'"

STATES: Final[Mapping[str, ReservationState]] = {
    "DRAFTING": ReservationState.PENDING,
    "PENDING_APPROVAL": ReservationState.PENDING,
    "PENDING_AMENDMENT_APPROVAL": ReservationState.PENDING,
    "APPROVED": ReservationState.SCHEDULED,
    "COMMITTED": ReservationState.SCHEDULED,
    "PROCURING": ReservationState.SCHEDULED,
    "PROVISIONING": ReservationState.SCHEDULED,
    "FULFILLED": ReservationState.ACTIVE,
    "FAILED_PARTIALLY_FULFILLED": ReservationState.ACTIVE,
    "CANCELLED": ReservationState.ENDED,
    "DECLINED": ReservationState.FAILED,
    "FAILED": ReservationState.FAILED,
}
"""The procurement status of https://docs.cloud.google.com/compute/docs/reference/rest/v1/futureReservations."""

OVER: Final = {ReservationState.ENDED, ReservationState.FAILED}


def blocks(
    account: Account,
    wanted: Requirements,
    window: Window,
    regions: Sequence[str],
    rates: Mapping[str, Decimal],
) -> Iterator[Block]:
    """The block that Google advises for each machine type and region that has a price, if it advises one.

    Raises what a read raises; ``AuthError`` where the machines, the prices or the advice are forbidden.
    """
    if not (SHORTEST <= window.lasting <= LONGEST and 1 <= window.nodes <= MOST_NODES):
        log.warning(
            "%s: no blocks: it reserves 1 to %s machines for 1 to %s days", PROVIDER, MOST_NODES, LONGEST.days
        )
        return
    reads: dict[str, Callable[[], Any]] = {
        "machines": partial(machines, account, wanted, regions),
        "prices": partial(price_list, account, rates),
    }
    told = results(run_all(reads))
    priced = _priced(told["machines"], told["prices"])
    tasks = {key: partial(_advised, account, *key, window) for key in priced}
    for key, places in some_at_once(tasks).items():
        machine, usd = priced[key]
        for place in places:
            zone = place.location.rpartition("/")[2]
            if place.start_time and place.end_time and zone and in_one_of(zone, wanted.regions):
                yield _block(machine, usd, window.nodes, zone, place)


def _priced(found: Sequence[Machine], prices: PriceList) -> dict[tuple[str, str], tuple[Machine, Decimal]]:
    """One of each machine type in each region with what an hour of it costs in calendar mode."""
    all_of = {
        (one.region, one.type): one for one in found if one.name == one.type and TAKEN.fullmatch(one.type)
    }
    costs = {key: prices.of(machine, Market.RESERVED) for key, machine in all_of.items()}
    lacking = sorted({machine_type for (_, machine_type), usd in costs.items() if usd is None})
    if lacking:
        log.warning(
            "%s: no blocks of %s in some regions: the price list lacks parts of them",
            PROVIDER,
            ", ".join(lacking),
        )
    return {key: (machine, usd) for key, machine in all_of.items() if (usd := costs[key]) is not None}


def _advised(account: Account, region: str, machine_type: str, window: Window) -> list[api.FutureAdvice]:
    lasting = f"{math.ceil(window.lasting.total_seconds())}s"
    question = {
        "futureResourcesSpecs": {
            ASKED: {
                "deploymentType": "DENSE",
                "targetResources": {
                    "specificSkuResources": {
                        "machineType": machine_type,
                        "instanceCount": str(window.nodes),
                    }
                },
                "timeRangeSpec": {
                    "startTimeNotEarlierThan": _written(window.earliest),
                    "startTimeNotLaterThan": _written(window.latest),
                    "minDuration": lasting,
                    "maxDuration": lasting,
                },
            }
        }
    }
    try:
        body = account.http.query(account.path(api.CALENDAR, region=region), json=question)
    except (NotFound, Rejected) as error:
        log.debug("%s: no blocks of %s in %s: %s", PROVIDER, machine_type, region, error.why)
        return []
    return account.read(api.CalendarAdvice, body).places


def _block(machine: Machine, usd: Decimal, nodes: int, zone: str, place: api.FutureAdvice) -> Block:
    starts_at, ends_at = cast(datetime, place.start_time), cast(datetime, place.end_time)
    return Block(
        provider=PROVIDER,
        ref=place.recommendation_id,
        instance_type=machine.name,
        nodes=nodes,
        region=machine.region,
        zone=zone,
        starts_at=starts_at,
        ends_at=ends_at,
        usd=over_time(usd, ends_at - starts_at) * nodes,
        usd_upfront=Decimal(0),
        gpu=machine.gpu,
        gpu_count=machine.gpu_count,
    )


def reserve(account: Account, changes: Changes, block: Block, spec: LaunchSpec) -> Reservation:
    """Ask for a block. The same token asks for it once.

    Raises ``NoCapacity`` when Google declines it at once, ``QuotaExceeded`` or ``Rejected`` when it refuses,
    and any error with ``outcome_unknown`` when it may have been reserved.
    """
    name = name_of(spec.token)
    body = {
        "name": name,
        "description": json.dumps(spec.tags),
        "reservationMode": "CALENDAR",
        "planningStatus": "SUBMITTED",
        "deploymentType": "DENSE",
        "specificReservationRequired": True,
        "reservationName": name,
        "autoDeleteAutoCreatedReservations": True,
        "timeWindow": {"startTime": _written(block.starts_at), "endTime": _written(block.ends_at)},
        "specificSkuProperties": {
            "totalCount": str(block.nodes),
            "instanceProperties": {"machineType": block.instance_type},
        },
        "shareSettings": {"shareType": "LOCAL"},
    }
    place, request = Place(zone=block.zone), request_id(spec.token)
    try:
        operation = changes.insert("FutureReservations", "FutureReservation", body, place, request)
        account.confirm(operation, f"zones/{block.zone}")
    except Rejected as error:
        # Google forgets a request after some hours, and the name does not.
        if error.vendor_code not in EXISTS:
            raise
    asked = Reservation(
        provider=PROVIDER,
        ref=InstanceRef(name, block.zone),
        state=ReservationState.PENDING,
        instance_type=block.instance_type,
        nodes=block.nodes,
        zone=block.zone,
        starts_at=block.starts_at,
        ends_at=block.ends_at,
        token=spec.token,
        name=spec.cluster,
        owner=spec.owner,
    )
    # It has been accepted, whatever becomes of a look at it.
    with suppress(ProviderError):
        row = account.one(api.FutureReservation, api.FUTURE, zone=block.zone, name=name)
        asked = _reservation(row, block.zone) or asked
    if asked.state is ReservationState.FAILED:
        raise NoCapacity(
            f"{PROVIDER} declines to reserve it",
            provider=PROVIDER,
            why="somebody else may have reserved the machines meanwhile",
            hint="ask for blocks again",
        )
    return asked


def reservations(account: Account) -> Iterator[Reservation]:
    """Every reservation with our tags, of every owner. Raises what a read raises."""
    free = account.allowed(partial(_free, account))
    if isinstance(free, Forbidden):
        log.warning(
            "%s: how much of a reservation is free is not known: the permission compute.reservations.list is "
            "missing (%s)",
            PROVIDER,
            free.why,
        )
        free = {}
    for scope, row in account.all(api.FUTURES, OURS):
        found = _reservation(account.read(api.FutureReservation, row), scope.rpartition("/")[2])
        if found:
            yield replace(found, free=free.get(found.ref))


def _free(account: Account) -> dict[InstanceRef, int]:
    """How many machines there is still room for in each reservation that has begun."""
    told: dict[InstanceRef, int] = {}
    for scope, row in account.all(api.RESERVATIONS, OURS):
        there = account.read(api.Delivered, row)
        told[InstanceRef(there.name, scope.rpartition("/")[2])] = there.free
    return told


def _reservation(row: api.FutureReservation, zone: str) -> Reservation | None:
    """What a row tells; ``None`` for one of somebody else."""
    tags = Tagged.read(described(row.description))
    if tags.token is None:
        return None
    ends_at = row.time_window.end_time
    state = STATES.get(row.status.procurement_status, ReservationState.UNKNOWN)
    if ends_at and ends_at <= utcnow() and state not in OVER:
        state = ReservationState.ENDED
    machines_of = row.specific_sku_properties
    return Reservation(
        provider=PROVIDER,
        ref=InstanceRef(row.name, zone),
        state=state,
        instance_type=machines_of.instance_properties.machine_type.rpartition("/")[2],
        nodes=machines_of.total_count,
        zone=zone,
        starts_at=row.time_window.start_time,
        ends_at=ends_at,
        token=tags.token,
        name=tags.cluster,
        owner=tags.owner,
    )


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
