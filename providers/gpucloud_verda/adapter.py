"""Verda in our words."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gpucloud.account_keys import AccountKey, AccountKeys
from gpucloud.errors import NoCapacity, NotFound, Rejected, Unreachable
from gpucloud.http import HttpClient
from gpucloud.labels import from_pairs, from_text, to_text
from gpucloud.model import (
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    SideResource,
    SshAddress,
)
from gpucloud.provider import (
    Credential,
    Evidence,
    FileFormat,
    Fuse,
    Kind,
    LaunchSpec,
    ProviderSettings,
    Reach,
    StoppedBilling,
    Tagged,
    Traits,
    VendorFile,
)
from gpucloud.replies import numbers_of, ours
from gpucloud_verda.offers import VerdaMarket
from gpucloud_verda.refusals import REFUSALS
from gpucloud_verda.token import Tokens

if TYPE_CHECKING:
    from gpucloud_verda import api

T = TypeVar("T")

FILE: Final = "~/.verda/credentials"
PAGE: Final = "https://console.verda.com/account/api-keys"
CLIENT_ID: Final = Credential(
    "client_id",
    ("VERDA_CLIENT_ID",),
    (VendorFile(FILE, FileFormat.INI, "default.client_id"),),
    PAGE,
)
CLIENT_SECRET: Final = Credential(
    "client_secret",
    ("VERDA_CLIENT_SECRET",),
    (VendorFile(FILE, FileFormat.INI, "default.client_secret"),),
    PAGE,
)
DISK_GIB: Final = 100
"""Room for an image with CUDA, of some 50 GB, and for work."""

VOLUME_NAME_LENGTH: Final = 60
"""How long a name may be is not known; that of an instance may be as long."""

STATES: Final = {
    "new": InstanceState.PENDING,
    "ordered": InstanceState.PENDING,
    "pending": InstanceState.PENDING,
    "provisioning": InstanceState.PENDING,
    "validating": InstanceState.PENDING,
    "running": InstanceState.RUNNING,
    "offline": InstanceState.STOPPED,
    "deleting": InstanceState.TERMINATING,
    "discontinued": InstanceState.TERMINATED,
    "error": InstanceState.FAILED,
    "no_capacity": InstanceState.FAILED,
    "installation_failed": InstanceState.FAILED,
}


class Verda(VerdaMarket, AccountKeys):
    """Verda virtual machines, formerly DataCrunch."""

    name = "verda"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (CLIENT_ID, CLIENT_SECRET)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=600,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.FULL,
        name_length=60,
        idempotent_launch=False,
        listing_lag_s=60,
        interruption_notice_s=0,
        console="https://console.verda.com",
        end_command="verda vm delete {id}",
        usual_disk_gib=DISK_GIB,
    )

    url = "https://api.verda.com"
    refusals = REFUSALS

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(settings)
        self._tokens = Tokens(
            self.name, lambda: (settings.credential(CLIENT_ID), settings.credential(CLIENT_SECRET))
        )

    @cached_property
    def _client_with_token(self) -> HttpClient:
        url = self.settings.table.get("url", self.url)
        return self.client(self.name, url, headers=self._tokens.headers, classify=self._refusal)

    @property
    def _http(self) -> HttpClient:
        """The client, with a token that is still good for a while."""
        self._tokens.renew(self._client_with_token)
        return self._client_with_token

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; the spec's key is in the account afterwards."""
        from gpucloud_verda.api import INSTANCES, SOLD_OUT, Id

        spot = offer.market is Market.SPOT
        name = f"{spec.cluster}-{spec.rank}"[: self.traits.name_length]
        disk: dict[str, Any] = {
            "name": to_text(spec.tags, VOLUME_NAME_LENGTH),
            "size": spec.disk_gib or DISK_GIB,
        }
        if spot:
            disk["on_spot_discontinue"] = "delete_permanently"
        wanted = {
            "instance_type": offer.instance_type,
            "image": spec.image or self._image(offer.instance_type),
            "hostname": name,
            "description": name,
            "ssh_key_ids": [self._key(spec)],
            "location_code": offer.region,
            "os_volume": disk,
            "is_spot": spot,
            **({} if spot else {"contract": "PAY_AS_YOU_GO"}),
            "tags": [{"key": key, "value": value} for key, value in spec.tags.items()],
        }
        try:
            reply = self._http.post_for_text(INSTANCES, json=wanted)
        except Unreachable as error:
            # Of anything else the same code means that it is to be asked again later.
            if error.vendor_code != SOLD_OUT:
                raise
            raise NoCapacity(
                f"{self.name}: there is none left in this location",
                provider=self.name,
                why=error.why,
                vendor_code=error.vendor_code,
                vendor_text=error.vendor_text,
            ) from error
        id = self._read(Id.validate_python, reply, sent=True)
        return spec.begun(offer, InstanceRef(id, offer.region))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        from gpucloud_verda import api

        reply = self._http.get(f"{api.INSTANCES}/{ref.id}")
        return self._instance(self._read(api.Instance.model_validate, reply))

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag."""
        from gpucloud_verda import api

        return ours(map(self._instance, self._rows(api.INSTANCES, api.Instance.model_validate)))

    def terminate(self, ref: InstanceRef) -> None:
        """End one with its disk; a missing one is success."""
        from gpucloud_verda.api import INSTANCES

        wanted: dict[str, Any] = {"action": "delete", "id": [ref.id]}
        with suppress(NotFound):
            token = self.get(ref).token
            volumes = [each.ref.id for each in self.side_resources() if token and each.token == token]
            if volumes:
                # Only volumes that are named are deleted past the trash. Without any named it is the disk,
                # and what somebody has attached is kept either way.
                wanted |= {"volume_ids": volumes, "delete_permanently": True}
            self._http.put(INSTANCES, json=wanted)

    def side_resources(self) -> Iterable[SideResource]:
        """The disks that launches have made."""
        from gpucloud_verda import api

        for volume in self._rows(api.VOLUMES, api.Volume.model_validate):
            tags = Tagged.read(from_text(volume.name))
            if tags.token and volume.status != api.DELETED:
                yield SideResource(
                    self.name,
                    "volume",
                    InstanceRef(volume.id),
                    tags.token,
                    tags.cluster,
                    tags.owner,
                    self._usd(volume.base_hourly_cost, volume.currency),
                )

    def remove(self, resource: SideResource) -> None:
        """Delete one for good; a missing one is success."""
        from gpucloud_verda.api import VOLUMES

        with suppress(NotFound):
            self._http.delete(f"{VOLUMES}/{resource.ref.id}", json={"is_permanent": True})

    def account_keys(self) -> Iterable[AccountKey]:
        """Every key of the account."""
        from gpucloud_verda.api import SSH_KEYS, SshKey

        for key in self._rows(SSH_KEYS, SshKey.model_validate):
            yield AccountKey(key.id, key.id, key.name, key.key)

    def add_account_key(self, name: str, public_key: str) -> str:
        """Add one."""
        from gpucloud_verda.api import SSH_KEYS, Id

        reply = self._http.post_for_text(SSH_KEYS, json={"name": name, "key": public_key})
        return self._read(Id.validate_python, reply)

    def delete_account_key(self, id: str) -> None:
        """Delete one; machines that run keep it."""
        from gpucloud_verda.api import SSH_KEYS

        self._http.delete(f"{SSH_KEYS}/{id}")

    def _image(self, instance_type: str) -> str:
        """The image of which machines of a type are made unless another one is asked for.

        That is one with CUDA if there is any, the vendor's own default before others, and then the newest.
        """
        from gpucloud_verda import api

        def rank(image: api.Image) -> tuple[bool, bool, tuple[int, ...]]:
            kind = image.image_type
            return "cuda" in kind, image.is_default, numbers_of(kind)

        listed = self._rows(api.IMAGES, api.Image.model_validate, instance_type=instance_type)
        fit = [image for image in listed if not image.is_cluster]
        if not fit:
            raise Rejected(
                f"{self.name} names no image for {instance_type}",
                provider=self.name,
                why="its list of images for this type is empty",
                hint="name one with --image",
            )
        return max(fit, key=rank).image_type

    def _instance(self, told: api.Instance) -> Instance:
        state = STATES.get(told.status, InstanceState.UNKNOWN)
        return Tagged.read(from_pairs((tag.key, tag.value) for tag in told.tags)).instance(
            self.name,
            InstanceRef(told.id, told.location),
            state,
            ssh=SshAddress(told.ip) if told.ip else None,
            created_at=told.created_at,
            instance_type=told.instance_type,
            market=Market.SPOT if told.is_spot else Market.ON_DEMAND,
            # What we end ourselves is deleted, and not listed any more.
            interrupted=told.is_spot and state is InstanceState.TERMINATED,
        )
