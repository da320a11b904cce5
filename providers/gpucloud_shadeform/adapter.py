"""Shadeform in our words."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.account_keys import AccountKey, AccountKeys
from gpucloud.errors import NotFound
from gpucloud.labels import from_words, to_words
from gpucloud.model import (
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SshAddress,
    over_time,
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
from gpucloud.replies import Rows, numbers_of, ours
from gpucloud.rest import RestProvider
from gpucloud_shadeform.catalog import CENTS, Catalogue
from gpucloud_shadeform.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_shadeform import api

API_KEY: Final = Credential(
    "api_key", ("SHADEFORM_API_KEY",), page="https://platform.shadeform.ai/settings/api"
)
SSH_PORT: Final = 22
STATES: Final = {
    "creating": InstanceState.PENDING,
    "pending_provider": InstanceState.PENDING,
    "pending": InstanceState.PENDING,
    "active": InstanceState.RUNNING,
    "error": InstanceState.FAILED,
    "deleting": InstanceState.TERMINATING,
    "deleted": InstanceState.TERMINATED,
}


class Shadeform(AccountKeys, RestProvider, Catalogue):
    """Shadeform: one account for some twenty clouds."""

    name = "shadeform"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.PROVIDER,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.UNSUPPORTED,
        name_length=63,
        idempotent_launch=False,
        listing_lag_s=10,
        console="https://platform.shadeform.ai",
        end_command="shade instances delete {id}",
    )

    url = "https://api.shadeform.ai"
    header = ("X-API-KEY", "{}")
    refusals = REFUSALS

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each type in each region of each cloud, on demand and spot."""
        from gpucloud_shadeform.api import TYPES

        return self._offers(self._http.get(TYPES), self._live)

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; the spec's key is in the account afterwards."""
        from gpucloud_shadeform import api

        cloud, _, kind = offer.instance_type.partition("/")
        sold = self._http.get(api.TYPES, params={"cloud": cloud, "shade_instance_type": kind})
        self._still_sold(offer, self._offers(sold, self._live))
        wanted: dict[str, Any] = {
            "cloud": cloud,
            "region": offer.region,
            "shade_instance_type": kind,
            "shade_cloud": True,
            "rental_type": api.SPOT if offer.market is Market.SPOT else api.ON_DEMAND,
            "name": f"{spec.cluster}-{spec.rank}"[: self.traits.name_length],
            "ssh_key_id": self._key(spec),
            "tags": to_words(spec.tags),
        }
        if image := spec.image or newest(self._systems(sold)):
            wanted["os"] = image
        if spec.expires_at:
            wanted["auto_delete"] = _ending(spec.expires_at, offer.usd_per_hour, Decimal(0))
        made = self._read(api.Made.model_validate, self._http.post(api.CREATE, json=wanted), sent=True)
        return spec.begun(offer, InstanceRef(made.id, offer.region))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        return self._instance(self._told(ref))

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag."""
        from gpucloud_shadeform import api

        listed = self._read(api.Instances.model_validate, self._http.get(api.INSTANCES)).instances
        return ours(self._instance(self._read(api.Instance.model_validate, row)) for row in listed)

    def terminate(self, ref: InstanceRef) -> None:
        """End one; a missing one is success."""
        from gpucloud_shadeform.api import INSTANCES

        with suppress(NotFound):
            self._http.post(f"{INSTANCES}/{ref.id}/delete")

    def expire(self, ref: InstanceRef, at: datetime) -> None:
        """Let the date be another one, and the sum that may be spent until then."""
        from gpucloud_shadeform.api import INSTANCES

        told = self._told(ref)
        ending = _ending(at, _price(told), told.cost_estimate)
        self._http.post(f"{INSTANCES}/{ref.id}/update", json={"auto_delete": ending})

    def account_keys(self) -> Iterable[AccountKey]:
        """Every key of the account."""
        from gpucloud_shadeform.api import SSH_KEYS, SshKey, SshKeys

        for row in self._read(SshKeys.model_validate, self._http.get(SSH_KEYS)).ssh_keys:
            key = self._read(SshKey.model_validate, row)
            yield AccountKey(key.id, key.id, key.name, key.public_key)

    def add_account_key(self, name: str, public_key: str) -> str:
        """Add one. Raises ``Rejected`` for a name that is there already."""
        from gpucloud_shadeform.api import ADD_SSH_KEY, Made

        reply = self._http.post(ADD_SSH_KEY, json={"name": name, "public_key": public_key})
        return self._read(Made.model_validate, reply).id

    def delete_account_key(self, id: str) -> None:
        """Delete one. Raises ``Rejected`` while an instance uses it."""
        from gpucloud_shadeform.api import SSH_KEYS

        self._http.post(f"{SSH_KEYS}/{id}/delete")

    def _live(self, kind: api.InstanceType, place: api.Place | None, now: datetime) -> Iterable[Offer]:
        # A launch names the region, but cannot choose between lines that differ in the cloud's own type.
        if place:
            yield self._offer(kind, place, now)

    def _systems(self, sold: object) -> list[str]:
        kinds = self._kinds(Rows(self.name), sold)
        return [name for one in kinds for name in one.configuration.os_options]

    def _told(self, ref: InstanceRef) -> api.Instance:
        from gpucloud_shadeform import api

        return self._read(api.Instance.model_validate, self._http.get(f"{api.INSTANCES}/{ref.id}/info"))

    def _instance(self, told: api.Instance) -> Instance:
        from gpucloud_shadeform.api import ON_DEMAND, SPOT, TAKEN_BACK

        ssh = None
        if told.ip and told.ssh_user:
            ssh = SshAddress(told.ip, told.ssh_port or SSH_PORT, told.ssh_user)
        tagged = Tagged.read(from_words(told.tags))
        markets = {ON_DEMAND: Market.ON_DEMAND, SPOT: Market.SPOT}
        return tagged.instance(
            self.name,
            InstanceRef(told.id, told.region),
            STATES.get(told.status, InstanceState.UNKNOWN),
            ssh=ssh,
            instance_type=f"{told.cloud}/{told.shade_instance_type}",
            market=markets.get(told.rental_terms.rental_type or "") if told.rental_terms else None,
            usd_per_hour=_price(told),
            interrupted=told.status_details == TAKEN_BACK,
            expires_at=(told.auto_delete and told.auto_delete.date_threshold) or tagged.expires_at,
        )


def _price(told: api.Instance) -> Decimal | None:
    """Its dollars for an hour; those of its terms are of spot too."""
    agreed = told.rental_terms and told.rental_terms.hourly_price
    return agreed or (told.hourly_price / CENTS if told.hourly_price else None)


def _ending(at: datetime, usd_per_hour: Decimal | None, spent: Decimal | None) -> dict[str, str]:
    """Let it end at a moment, or once it has cost more than it can have by then."""
    ending = {"date_threshold": at.astimezone(UTC).isoformat(timespec="seconds")}
    if usd_per_hour is not None and spent is not None:
        most = spent + over_time(usd_per_hour, at - utcnow())
        # A dollar on top lets the date come first.
        ending["spend_threshold"] = f"{max(most, Decimal(0)).to_integral_value(ROUND_FLOOR) + 1}"
    return ending


def newest(systems: Iterable[str]) -> str | None:
    """Of a type's systems the newest with the GPU's driver, which those of Shadeform itself have."""
    own = [name for name in systems if name.endswith("_shade_os")]
    return max(own, key=numbers_of, default=None)
