"""A launch in Google's words: the body of the instance, and what has to be there before it.

https://docs.cloud.google.com/compute/docs/reference/rest/v1/instances/insert (as of 2026-11-21).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from gpucloud.cloud_init import user_data
from gpucloud.errors import NotFound, Rejected
from gpucloud.model import Instance, InstanceRef, InstanceState, Market, Offer, utcnow
from gpucloud.provider import LaunchSpec
from gpucloud_gcp import api
from gpucloud_gcp.account import Account
from gpucloud_gcp.errors import EXISTS, PROVIDER
from gpucloud_gcp.fabric import fabric
from gpucloud_gcp.images import chosen
from gpucloud_gcp.machines import parts
from gpucloud_gcp.network import NETWORK, placement, prepare
from gpucloud_gcp.sdk import Changes, Place, request_id

SHORTEST: Final = timedelta(seconds=30)
LONGEST: Final = timedelta(days=120)
"""What Google ends by itself: https://docs.cloud.google.com/compute/docs/instances/limit-vm-runtime."""

QUEUED_SHORTEST: Final = timedelta(minutes=10)
QUEUED_LONGEST: Final = timedelta(days=7)
SHORTEST_WAIT: Final = timedelta(seconds=90)
LONGEST_WAIT: Final = timedelta(hours=2)
"""What a machine of the queue may run and wait for.

https://docs.cloud.google.com/compute/docs/instances/create-flex-start-vm (as of 2026-11-21).
"""

MODELS: Final = {
    Market.ON_DEMAND: "STANDARD",
    Market.SPOT: "SPOT",
    Market.QUEUED: "FLEX_START",
    Market.RESERVED: "RESERVATION_BOUND",
}

RESERVATION: Final = "compute.googleapis.com/reservation-name"
"""https://docs.cloud.google.com/ai-hypercomputer/docs/create/create-vm (as of 2026-11-21)."""

HYPERDISK: Final = re.compile(r"(a3-ultragpu|a4|a4x|g4|c4|c4a|c4d|ct6e|n4|tpu7x)-")
"""The series that take no disks of the older kinds.

https://docs.cloud.google.com/compute/docs/disks/hyperdisks, and for TPUs
https://docs.cloud.google.com/tpu/docs/storage-options-compute (as of 2026-11-21).
"""

TYPE: Final = "gpucloud-type"
"""The metadata in which the whole of our instance type is, with the accelerators that were attached."""


def name_of(token: str) -> str:
    """The name of an instance and of its disk; a token need not be written as Google wants names."""
    return f"gpucloud-{request_id(token)}"


def launch(account: Account, changes: Changes, offer: Offer, spec: LaunchSpec) -> Instance:
    """Rent one machine, and wait some seconds for the refusal that Google may hide in its operation.

    Raises ``NoCapacity``, ``QuotaExceeded`` or ``RateLimited`` when nothing was made, ``Rejected`` for what
    Google takes for wrong, and any error with ``outcome_unknown`` when a machine may be there.
    """
    zone = offer.zone or ""
    try:
        made = _made(account, changes, offer, spec, zone)
    except NotFound as error:
        raise Rejected(
            f"{PROVIDER} does not have all that the machine needs",
            provider=PROVIDER,
            why=error.why,
            hint="check --image, and whether the zone still has the machine type",
            vendor_code=error.vendor_code,
            vendor_text=error.vendor_text,
        ) from error
    except Rejected as error:
        # Google forgets a request after some hours, and the name does not.
        if error.vendor_code not in EXISTS:
            raise
        made = name_of(spec.token)
    return Instance(
        provider=PROVIDER,
        ref=InstanceRef(made, zone),
        state=InstanceState.PENDING,
        token=spec.token,
        cluster=spec.cluster,
        rank=spec.rank,
        owner=spec.owner,
        created_at=utcnow(),
        instance_type=offer.instance_type,
        market=offer.market,
        usd_per_hour=offer.usd_per_hour,
        expires_at=spec.expires_at,
        waiting=offer.market is Market.QUEUED,
    )


def _made(account: Account, changes: Changes, offer: Offer, spec: LaunchSpec, zone: str) -> str:
    machine_type = parts(offer.instance_type)[0]
    kind = account.one(api.MachineType, api.MACHINE_TYPE, zone=zone, name=machine_type)
    image = chosen(account, spec.image, kind, driver=offer.gpu is not None)
    tags = prepare(account, changes, spec)
    region = zone.rpartition("-")[0]
    policy = placement(account, changes, spec, machine_type, region)
    beside = fabric(account, changes, spec, machine_type, zone)
    body = instance_body(offer, spec, zone=zone, image=image, tags=[*tags, *beside.tags])
    body["networkInterfaces"] += beside.cards
    if policy:
        body["resourcePolicies"] = [
            f"projects/{account.who.project}/regions/{region}/resourcePolicies/{policy}"
        ]
    operation = changes.insert("Instances", "Instance", body, Place(zone=zone), request_id(spec.token))
    name = str(body["name"])
    if offer.market is Market.QUEUED:
        account.queued(operation, zone, name)
    else:
        account.confirm(operation, f"zones/{zone}")
    return name


def instance_body(
    offer: Offer, spec: LaunchSpec, *, zone: str, image: str, tags: list[str]
) -> dict[str, Any]:
    """The instance as it is asked for; nothing in it lets the machine act in the name of the project.

    Raises ``Rejected`` for a lease that Google would not keep.
    """
    machine_type, accelerator, count = parts(offer.instance_type)
    labels = {key: label(value) for key, value in spec.tags.items()}
    card: dict[str, Any] = {
        "network": f"global/networks/{NETWORK}",
        "accessConfigs": [{"name": "External NAT", "type": "ONE_TO_ONE_NAT"}],
    }
    if spec.nodes > 1:
        # The one for which https://docs.cloud.google.com/compute/docs/networking/using-gvnic is fast.
        card["nicType"] = "GVNIC"
    disk: dict[str, Any] = {"sourceImage": image, "labels": labels, "description": json.dumps(spec.tags)}
    kind = "hyperdisk-balanced" if HYPERDISK.match(machine_type) else "pd-balanced"
    disk["diskType"] = f"zones/{zone}/diskTypes/{kind}"
    if spec.disk_gib:
        disk["diskSizeGb"] = str(spec.disk_gib)
    body: dict[str, Any] = {
        "name": name_of(spec.token),
        "machineType": f"zones/{zone}/machineTypes/{machine_type}",
        "labels": labels,
        "tags": {"items": tags},
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": disk}],
        "networkInterfaces": [card],
        "metadata": {"items": _metadata(offer, spec)},
        "scheduling": _scheduling(offer, spec),
    }
    if offer.market is Market.QUEUED:
        body["params"] = {"requestValidForDuration": _seconds(_wait(spec))}
        body["reservationAffinity"] = {"consumeReservationType": "NO_RESERVATION"}
    if offer.market is Market.RESERVED:
        body["reservationAffinity"] = _affinity(spec)
    if accelerator:
        link = f"zones/{zone}/acceleratorTypes/{accelerator}"
        body["guestAccelerators"] = [{"acceleratorType": link, "acceleratorCount": count}]
    return body


def label(value: str) -> str:
    """A value as labels may have it: for looking for, while the metadata has it as it is."""
    return re.sub("[^a-z0-9_-]", "-", value.lower())[:63]


def _metadata(offer: Offer, spec: LaunchSpec) -> list[dict[str, str]]:
    told: Mapping[str, str] = {
        **spec.tags,
        TYPE: offer.instance_type,
        "user-data": user_data(spec),
        # Whoever has a key in the project has not rented this machine.
        "block-project-ssh-keys": "TRUE",
    }
    return [{"key": key, "value": value} for key, value in told.items()]


def _scheduling(offer: Offer, spec: LaunchSpec) -> dict[str, Any]:
    told: dict[str, Any] = {
        "provisioningModel": MODELS[offer.market],
        # Machines with GPUs or TPUs cannot be moved to another host.
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
    }
    if offer.market in {Market.SPOT, Market.RESERVED} or spec.expires_at:
        told["instanceTerminationAction"] = "DELETE"
    if offer.market is Market.RESERVED:
        # Google ends it with the reservation, which costs the same until then.
        return told
    shortest, longest, wait = SHORTEST, LONGEST, timedelta()
    if offer.market is Market.QUEUED:
        shortest, longest, wait = QUEUED_SHORTEST, QUEUED_LONGEST, spec.wait or wait
    if spec.expires_at:
        left = max(spec.expires_at - utcnow() - wait, shortest)
        if left > longest:
            raise Rejected(
                f"{PROVIDER} ends no such machine by itself after more than {longest.days} days",
                provider=PROVIDER,
                why=f"the lease is for {left.days} days",
                hint=f"give it at most --max-duration {longest.days}d",
            )
        told["maxRunDuration"] = _seconds(left)
    elif offer.market is Market.QUEUED:
        raise Rejected(
            f"{PROVIDER} queues for no machine without a lease",
            provider=PROVIDER,
            why="it wants to know for how long the machine will be needed",
            hint=f"give it --max-duration, at most {longest.days}d",
        )
    return told


def _affinity(spec: LaunchSpec) -> dict[str, Any]:
    if not spec.reservation:
        raise Rejected(
            f"{PROVIDER} does not know which reservation is meant",
            provider=PROVIDER,
            why="the machine is to be launched into one, and none is named",
            hint="name it with --reservation",
        )
    return {
        "consumeReservationType": "SPECIFIC_RESERVATION",
        "key": RESERVATION,
        "values": [spec.reservation],
    }


def _wait(spec: LaunchSpec) -> timedelta:
    """How long Google may look for capacity. Raises ``Rejected`` for longer than it does."""
    wait = LONGEST_WAIT if spec.wait is None else max(spec.wait, SHORTEST_WAIT)
    if wait > LONGEST_WAIT:
        raise Rejected(
            f"{PROVIDER} looks for capacity for two hours at most",
            provider=PROVIDER,
            why=f"it is to wait for {wait}",
            hint="give it at most --wait 2h",
        )
    return wait


def _seconds(lasting: timedelta) -> dict[str, str]:
    return {"seconds": str(math.ceil(lasting.total_seconds()))}
