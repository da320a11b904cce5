"""TensorDock in our words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.catalog.names import named
from gpucloud.errors import NotFound
from gpucloud.labels import from_text, to_text
from gpucloud.model import (
    Availability,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SshAddress,
    utcnow,
)
from gpucloud.provider import (
    Credential,
    Evidence,
    Fuse,
    Kind,
    LaunchSpec,
    Reach,
    StoppedBilling,
    Tagged,
    Traits,
)
from gpucloud.replies import Rows, ours
from gpucloud.rest import RestProvider
from gpucloud_tensordock.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_tensordock import api

USER: Final = "user"
COUNTS: Final = (1, 2, 4, 8)
VCPUS_PER_GPU: Final = 8
MEMORY_PER_GPU: Final = 32
LEAST_DISK: Final = 100
"""GB; less cannot be had."""
STATES: Final = {
    "starting": InstanceState.PENDING,
    "running": InstanceState.RUNNING,
    "stopping": InstanceState.STOPPING,
    "stopped": InstanceState.STOPPED,
    "stoppeddisassociated": InstanceState.STOPPED,
    "deleting": InstanceState.TERMINATING,
    "deleted": InstanceState.TERMINATED,
    "terminated": InstanceState.TERMINATED,
    "error": InstanceState.FAILED,
}


class Tensordock(RestProvider):
    """TensorDock's virtual machines on other people's hosts."""

    name = "tensordock"
    evidence = Evidence.COMMUNITY
    as_of = date(2026, 11, 21)
    credentials = (
        Credential("api_key", ("TENSORDOCK_TOKEN",), page="https://dashboard.tensordock.com/developers"),
    )
    url = "https://dashboard.tensordock.com"
    # 100 requests a minute for all members of an organisation.
    min_interval_s = 0.6
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.UNKNOWN,
        name_length=100,
        idempotent_launch=False,
        listing_lag_s=10,
        console="https://dashboard.tensordock.com/instances/{id}",
    )
    refusals = REFUSALS

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Machines with each number of GPUs in each location, with as much disk as is asked for."""
        from gpucloud_tensordock import api

        rows, now = Rows(self.name), utcnow()
        disk = max(LEAST_DISK, int(requirements.min_disk_gib or 0))
        body = api.unwrapped(self._http.get(api.LOCATIONS))
        for place in rows.read(
            api.Location.model_validate, self._read(api.Locations.model_validate, body).locations
        ):
            for entry in place.gpus:
                with rows.row():
                    rows.add(_offers(place, api.Gpus.model_validate(entry), disk, now))
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one of the shape that was offered."""
        from gpucloud_tensordock import api

        wanted: dict[str, Any] = {
            "name": to_text(spec.tags, self.traits.name_length),
            "type": "virtualmachine",
            "image": spec.image or api.IMAGE,
            "resources": {
                "vcpu_count": offer.vcpus,
                "ram_gb": int(offer.memory_gib or 0),
                "storage_gb": int(offer.disk_gib or LEAST_DISK),
                "gpus": {offer.ref: {"count": offer.gpu_count}},
            },
            "location_id": offer.region,
            "useDedicatedIp": True,
            "ssh_key": spec.public_key,
        }
        body = {"data": {"type": "virtualmachine", "attributes": wanted}}
        reply = self._http.post(api.INSTANCES, json=body)
        made = self._read(api.Instance.model_validate, reply, sent=True)
        return spec.begun(offer, InstanceRef(made.id))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        from gpucloud_tensordock import api

        reply = self._http.get(self._path(ref))
        return self._instance(self._read(api.Instance.model_validate, reply))

    def instances(self) -> Iterator[Instance]:
        """Everything whose name is one of ours."""
        from gpucloud_tensordock import api

        body = api.unwrapped(self._http.get(api.INSTANCES))
        rows = self._read(api.Instances.model_validate, body).instances
        return ours(self._instance(self._read(api.Instance.model_validate, row)) for row in rows)

    def terminate(self, ref: InstanceRef) -> None:
        """End one with its disk; a missing one is success."""
        with suppress(NotFound):
            self._http.delete(self._path(ref))

    def stop(self, ref: InstanceRef) -> None:
        """Stop one; what it costs then is not told."""
        self._http.post(self._path(ref, "stop"))

    def start(self, ref: InstanceRef) -> None:
        """Start one again, if its host has room for it."""
        self._http.post(self._path(ref, "start"))

    def _path(self, ref: InstanceRef, *more: str) -> str:
        from gpucloud_tensordock.api import INSTANCES

        return "/".join([INSTANCES, ref.id, *more])

    def _instance(self, told: api.Instance) -> Instance:
        return Tagged.read(from_text(told.name)).instance(
            self.name,
            InstanceRef(told.id),
            STATES.get(told.status.lower(), InstanceState.UNKNOWN),
            ssh=SshAddress(told.ip_address, user=USER) if told.ip_address else None,
            market=Market.ON_DEMAND,
            usd_per_hour=told.rate_hourly,
        )


def _offers(place: api.Location, gpus: api.Gpus, disk: int, now: datetime) -> Iterator[Offer]:
    """Raises ``ValueError`` when a part has no price."""
    rates, most = gpus.pricing, gpus.resources
    if not gpus.network_features.dedicated_ip_available or not gpus.max_count:
        return
    parts = (gpus.price_per_hr, rates.per_vcpu_hr, rates.per_gb_ram_hr, rates.per_gb_storage_hr)
    gpu, vcpu, memory, storage = (_priced(part, gpus.v0_name) for part in parts)
    for count in COUNTS:
        vcpus = min(VCPUS_PER_GPU * count, most.max_vcpus or 0) // 2 * 2
        ram = min(MEMORY_PER_GPU * count, most.max_ram_gb or 0)
        if count > gpus.max_count or not vcpus or not ram or disk > (most.max_storage_gb or 0):
            continue
        usd = gpu * count + vcpu * vcpus + memory * ram + storage * disk
        yield Offer(
            provider=Tensordock.name,
            instance_type=f"{count}x-{gpus.v0_name}",
            market=Market.ON_DEMAND,
            usd_per_hour=usd,
            amount=usd,
            as_of=now,
            source="dashboard.tensordock.com",
            gpu=named(gpus.display_name or gpus.v0_name),
            gpu_count=count,
            region=place.id,
            ref=gpus.v0_name,
            availability=Availability.AVAILABLE,
            availability_detail=f"at most {gpus.max_count} GPUs a machine",
            vcpus=vcpus,
            memory_gib=Decimal(ram),
            disk_gib=Decimal(disk),
        )


def _priced(part: Decimal | None, name: str) -> Decimal:
    if part is None:
        raise ValueError(f"a part of {name} has no price")
    return part
