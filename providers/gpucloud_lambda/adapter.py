"""Lambda in our words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from gpucloud.account_keys import AccountKey, AccountKeys
from gpucloud.catalog.names import named
from gpucloud.cloud_init import user_data
from gpucloud.errors import NotFound
from gpucloud.http import HttpClient
from gpucloud.labels import from_pairs
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
from gpucloud_lambda.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_lambda import api

API_KEY: Final = Credential("api_key", ("LAMBDA_API_KEY",), page="https://cloud.lambda.ai/api-keys")
USER: Final = "ubuntu"
CENTS: Final = 100
STATES: Final = {
    "booting": InstanceState.PENDING,
    "active": InstanceState.RUNNING,
    "unhealthy": InstanceState.RUNNING,
    "terminating": InstanceState.TERMINATING,
    "terminated": InstanceState.TERMINATED,
    "preempted": InstanceState.TERMINATED,
}
LAUNCH_INTERVAL_S: Final = 12


class Lambda(AccountKeys, RestProvider):
    """Lambda's virtual machines."""

    name = "lambda"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 20)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=60,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.UNSUPPORTED,
        name_length=64,
        idempotent_launch=False,
        listing_lag_s=10,
        plants_host_key=True,
        console="https://cloud.lambda.ai/instances",
    )

    url = "https://cloud.lambda.ai"
    min_interval_s = 1
    refusals = REFUSALS

    @cached_property
    def _launches(self) -> HttpClient:
        return self._client(LAUNCH_INTERVAL_S)

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each type in each region that has some left; one that is sold out is in no region."""
        from gpucloud_lambda.api import INSTANCE_TYPES, Data, Listed

        rows, now = Rows(self.name), utcnow()
        listed = self._read(Data[dict[str, Any]].model_validate, self._http.get(INSTANCE_TYPES))
        for row in listed.data.values():
            with rows.row():
                kind = Listed.model_validate(row)
                places: list[str | None] = [place.name for place in kind.regions_with_capacity_available]
                rows.add(self._offer(kind.instance_type, place, now) for place in places or [None])
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; the spec's key is in the account afterwards."""
        from gpucloud_lambda.api import LAUNCH, Data, Launched

        wanted: dict[str, Any] = {
            "region_name": offer.region,
            "instance_type_name": offer.instance_type,
            "ssh_key_names": [self._key(spec)],
            "name": f"{spec.cluster}-{spec.rank}"[: self.traits.name_length],
            "user_data": user_data(spec, powers_off=False),
            "tags": [{"key": key, "value": value} for key, value in spec.tags.items()],
        }
        if spec.image:
            by = "id" if re.fullmatch("[0-9a-f]{32}|[0-9a-f-]{36}", spec.image) else "family"
            wanted["image"] = {by: spec.image}
        reply = self._launches.post(LAUNCH, json=wanted)
        made = self._read(Data[Launched].model_validate, reply, sent=True).data
        return spec.begun(offer, InstanceRef(made.instance_ids[0], offer.region))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        from gpucloud_lambda import api

        reply = self._http.get(f"{api.INSTANCES}/{ref.id}")
        return self._instance(self._read(api.Data[api.Instance].model_validate, reply).data)

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag."""
        from gpucloud_lambda import api

        rows = self._rows(api.INSTANCES)
        return ours(self._instance(self._read(api.Instance.model_validate, row)) for row in rows)

    def terminate(self, ref: InstanceRef) -> None:
        """End one; a missing one is success."""
        from gpucloud_lambda.api import TERMINATE

        with suppress(NotFound):
            self._http.post(TERMINATE, json={"instance_ids": [ref.id]})

    def account_keys(self) -> Iterable[AccountKey]:
        """Every key of the account; a launch calls one by its name."""
        from gpucloud_lambda.api import SSH_KEYS, SshKey

        for row in self._rows(SSH_KEYS):
            key = self._read(SshKey.model_validate, row)
            yield AccountKey(key.name, key.id, key.name, key.public_key)

    def add_account_key(self, name: str, public_key: str) -> str:
        """Add one."""
        from gpucloud_lambda.api import SSH_KEYS

        self._http.post(SSH_KEYS, json={"name": name, "public_key": public_key})
        return name

    def delete_account_key(self, id: str) -> None:
        """Delete one; machines that run keep it."""
        from gpucloud_lambda.api import SSH_KEYS

        self._http.delete(f"{SSH_KEYS}/{id}")

    def _rows(self, path: str) -> Iterator[Any]:
        """A listing, which comes in one piece."""
        from gpucloud_lambda import api

        yield from self._read(api.Rows.model_validate, self._http.get(path)).data

    def _offer(self, kind: api.InstanceType, region: str | None, now: datetime) -> Offer:
        """Raises ``ValueError`` when there is no price."""
        if kind.price_cents_per_hour is None:
            raise ValueError(f"{kind.name} has no price")
        usd = kind.price_cents_per_hour / CENTS
        gpus = kind.specs.gpus
        return Offer(
            provider=self.name,
            instance_type=kind.name,
            market=Market.ON_DEMAND,
            usd_per_hour=usd,
            amount=usd,
            as_of=now,
            source="cloud.lambda.ai",
            gpu=named(kind.gpu_description) if gpus else None,
            gpu_count=gpus,
            region=region,
            availability=Availability.AVAILABLE if region else Availability.UNAVAILABLE,
            vcpus=kind.specs.vcpus or None,
            memory_gib=Decimal(kind.specs.memory_gib) if kind.specs.memory_gib else None,
            disk_gib=Decimal(kind.specs.storage_gib) if kind.specs.storage_gib else None,
            interconnect="nvlink" if gpus > 1 and "SXM" in kind.gpu_description else None,
        )

    def _instance(self, told: api.Instance) -> Instance:
        price = told.instance_type.price_cents_per_hour if told.instance_type else None
        return Tagged.read(from_pairs((tag.key, tag.value) for tag in told.tags)).instance(
            self.name,
            InstanceRef(told.id, told.region.name),
            STATES.get(told.status, InstanceState.UNKNOWN),
            ssh=SshAddress(told.ip, user=USER, inside=told.private_ip) if told.ip else None,
            instance_type=told.instance_type.name if told.instance_type else None,
            market=Market.ON_DEMAND,
            usd_per_hour=price / CENTS if price else None,
        )
