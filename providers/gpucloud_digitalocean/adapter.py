"""DigitalOcean in our words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Final

from gpucloud.account_keys import SSH_KEY, AccountKey, AccountKeys
from gpucloud.catalog.names import named
from gpucloud.cloud_init import user_data
from gpucloud.errors import NotFound
from gpucloud.labels import from_words, is_firewall, to_words
from gpucloud.model import (
    Availability,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SideResource,
    SshAddress,
    utcnow,
)
from gpucloud.provider import (
    Credential,
    Evidence,
    Fuse,
    Kind,
    LaunchSpec,
    ProviderSettings,
    Reach,
    StoppedBilling,
    Tagged,
    Traits,
)
from gpucloud.replies import Rows, ours
from gpucloud.rest import RestProvider
from gpucloud_digitalocean.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_digitalocean import api
    from gpucloud_digitalocean.account import Account

API_KEY: Final = Credential(
    "api_key",
    ("DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN"),
    page="https://cloud.digitalocean.com/account/api/tokens",
)
STATES: Final = {
    "new": InstanceState.PENDING,
    "active": InstanceState.RUNNING,
    "off": InstanceState.STOPPED,
    # Nobody tells whether it still bills.
    "archive": InstanceState.UNKNOWN,
}
COUNTRIES: Final[Mapping[str, str]] = {
    "ams": "NL",
    "atl": "US",
    "blr": "IN",
    "fra": "DE",
    "lon": "GB",
    "nyc": "US",
    "sfo": "US",
    "sgp": "SG",
    "syd": "AU",
    "tor": "CA",
}
"""By how the names of regions begin, after the city where they are."""

HGX: Final = {("nvidia_h100", 8), ("nvidia_h200", 1), ("nvidia_h200", 8)}
"""What is known to be on such boards, by how many: those with eight have NVLink, and of H200 it is told
in https://www.digitalocean.com/blog/now-available-gpu-dropletsl-nvidia-h200s (2025-08-14)."""

MIB_IN_GIB: Final = 1024
NVLINKED: Final = 8


class Digitalocean(AccountKeys, RestProvider):
    """DigitalOcean's GPU Droplets."""

    name = "digitalocean"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.FULL,
        name_length=255,
        idempotent_launch=False,
        listing_lag_s=10,
        plants_host_key=True,
        console="https://cloud.digitalocean.com/droplets/{id}",
        end_command="doctl compute droplet delete {id}",
        firewalled=True,
    )

    url = "https://api.digitalocean.com"
    refusals = REFUSALS

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(settings)
        # Nodes are launched at once, and what they share is to be made once.
        self._preparing = Lock()

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each size with GPUs in each region where it can be created; one in none cannot be had."""
        from gpucloud_digitalocean.api import SIZES, Size

        rows, now = Rows(self.name), utcnow()
        for row in self._account.rows(SIZES):
            with rows.row():
                size = Size.model_validate(row)
                places: list[str | None] = [*size.regions] if size.available else []
                rows.add(self._offer(size, place, now) for place in places or [None] if size.gpu_info)
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; the spec's key and its firewall are in the account afterwards."""
        from gpucloud_digitalocean.api import DROPLETS, MadeDroplet

        image = spec.image or _image(offer)
        with self._preparing:
            key = self._key(spec)
            firewalls = [self._account.firewall(spec.ssh_from)] if spec.ssh_from else []
        wanted = {
            "name": f"{spec.cluster}-{spec.rank}",
            "region": offer.region,
            "size": offer.instance_type,
            "image": int(image) if image.isdecimal() else image,
            "ssh_keys": [int(key)],
            "user_data": user_data(spec, powers_off=False),
            "tags": [*to_words(spec.tags), *firewalls],
        }
        reply = self._http.post(DROPLETS, json=wanted)
        made = self._read(MadeDroplet.model_validate, reply, sent=True).droplet
        return spec.begun(offer, InstanceRef(str(made.id), offer.region))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        return self._instance(self._droplet(ref))

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag."""
        from gpucloud_digitalocean.api import DROPLETS, Droplet

        rows = self._account.rows(DROPLETS, type="gpus")
        return ours(self._instance(self._read(Droplet.model_validate, row)) for row in rows)

    def terminate(self, ref: InstanceRef) -> None:
        """End one, with its disks; a missing one is success."""
        from gpucloud_digitalocean.api import DROPLETS

        with suppress(NotFound):
            self._http.delete(f"{DROPLETS}/{ref.id}")

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Put an instance under one more firewall; without any of ours everybody is let in already."""
        if not any(is_firewall(tag) for tag in self._droplet(ref).tags):
            return
        with self._preparing:
            firewall = self._account.firewall(networks)
        self._account.tag(ref.id, firewall)

    def shared_resources(self) -> Iterable[SideResource]:
        """Our firewalls, the tags of ours that nothing carries, and the keys that we have added."""
        yield from self._account.shared()
        yield from super().shared_resources()

    def remove_shared(self, resource: SideResource) -> None:
        """Delete one; machines that run keep their key."""
        if resource.kind == SSH_KEY:
            super().remove_shared(resource)
        else:
            self._account.remove(resource)

    def account_keys(self) -> Iterable[AccountKey]:
        """Every key of the account."""
        from gpucloud_digitalocean.api import SSH_KEYS, SshKey

        for row in self._account.rows(SSH_KEYS):
            key = self._read(SshKey.model_validate, row)
            yield AccountKey(str(key.id), str(key.id), key.name, key.public_key)

    def add_account_key(self, name: str, public_key: str) -> str:
        """Add one."""
        from gpucloud_digitalocean.api import SSH_KEYS, MadeKey

        reply = self._http.post(SSH_KEYS, json={"name": name, "public_key": public_key})
        return str(self._read(MadeKey.model_validate, reply).ssh_key.id)

    def delete_account_key(self, id: str) -> None:
        """Delete one."""
        from gpucloud_digitalocean.api import SSH_KEYS

        self._http.delete(f"{SSH_KEYS}/{id}")

    @cached_property
    def _account(self) -> Account:
        from gpucloud_digitalocean.account import Account

        return Account(self.name, self._http)

    def _droplet(self, ref: InstanceRef) -> api.Droplet:
        from gpucloud_digitalocean.api import DROPLETS, OneDroplet

        return self._read(OneDroplet.model_validate, self._http.get(f"{DROPLETS}/{ref.id}")).droplet

    def _offer(self, size: api.Size, region: str | None, now: datetime) -> Offer:
        """Raises ``ValueError`` when there is no price."""
        if size.price_hourly is None or size.gpu_info is None:
            raise ValueError(f"{size.slug} has no price")
        gpu, count = size.gpu_info, size.gpu_info.count
        board = "HGX " if (gpu.model, count) in HGX else ""
        return Offer(
            provider=self.name,
            instance_type=size.slug,
            market=Market.ON_DEMAND,
            usd_per_hour=size.price_hourly,
            amount=size.price_hourly,
            as_of=now,
            source="api.digitalocean.com",
            gpu=named(f"{board}{gpu.model}", memory_gib=_memory(size.slug, count)),
            gpu_count=count,
            region=region,
            country=COUNTRIES.get((region or "").rstrip("0123456789")),
            availability=Availability.AVAILABLE if region else Availability.UNAVAILABLE,
            availability_detail=None if region else "in no region" if size.available else "not available",
            vcpus=size.vcpus or None,
            memory_gib=Decimal(size.memory) / MIB_IN_GIB if size.memory else None,
            disk_gib=Decimal(size.disk) if size.disk else None,
            interconnect="nvlink" if board and count == NVLINKED else None,
        )

    def _instance(self, told: api.Droplet) -> Instance:
        by_type = {address.type: address.ip_address for address in told.networks.v4}
        host = by_type.get("public")
        return Tagged.read(from_words(told.tags)).instance(
            self.name,
            InstanceRef(str(told.id), told.region.slug),
            STATES.get(told.status, InstanceState.UNKNOWN),
            ssh=SshAddress(host, inside=by_type.get("private")) if host else None,
            created_at=told.created_at,
            instance_type=told.size_slug,
            market=Market.ON_DEMAND,
            usd_per_hour=told.size.price_hourly,
        )


def _image(offer: Offer) -> str:
    """The vendor's own image for the GPUs of an offer, which has their drivers; its newest edition.

    https://docs.digitalocean.com/products/droplets/getting-started/recommended-gpu-setup/ of 2026-11.
    """
    if offer.gpu and offer.gpu.chip.startswith("MI"):
        return "gpu-amd-base"
    return "gpu-h100x8-base" if offer.gpu_count == NVLINKED else "gpu-h100x1-base"


def _memory(slug: str, count: int) -> Decimal | None:
    """GiB of one GPU, by the size's name: whether ``gpu_info.vram`` is of one or of all is not told."""
    total = re.search("-([0-9]{1,5})gb", slug)
    return Decimal(total[1]) / count if total else None
