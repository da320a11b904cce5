"""CloudRift in our words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import BadReply, NoCapacity, NotFound, Rejected
from gpucloud.labels import from_host_name, from_words, to_host_name, to_words
from gpucloud.model import (
    Availability,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SshAddress,
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
from gpucloud_cloudrift.catalog import CENTS, NO_ADDRESSES, Catalog
from gpucloud_cloudrift.images import chosen
from gpucloud_cloudrift.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_cloudrift import api

API_KEY: Final = Credential("api_key", ("CLOUDRIFT_API_KEY",), page="https://console.cloudrift.ai")
USER: Final = "riftuser"
SSH_PORT: Final = 22

STATES: Final = {
    "Initializing": InstanceState.PENDING,
    "Active": InstanceState.RUNNING,
    "Deactivating": InstanceState.TERMINATING,
    "Inactive": InstanceState.TERMINATED,
    # It never became active, was given back by the vendor, and costs nothing.
    "Failed": InstanceState.TERMINATED,
}
MACHINE_STATES: Final = {
    "NoState": InstanceState.PENDING,
    "Shutdown": InstanceState.STOPPING,
    "Shutoff": InstanceState.STOPPED,
    "Paused": InstanceState.STOPPED,
    "PMSuspended": InstanceState.STOPPED,
    "Crashed": InstanceState.FAILED,
}
"""What the machine of an active instance does, where it does not run."""


class Cloudrift(Catalog, RestProvider):
    """CloudRift virtual machines."""

    name = "cloudrift"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 10, 6)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=1,
        billing_minimum_s=0,
        billed_while_stopped=StoppedBilling.UNSUPPORTED,
        name_length=200,
        idempotent_launch=False,
        listing_lag_s=10,
        console="https://console.cloudrift.ai",
    )

    url = "https://api.cloudrift.ai"
    header = ("X-API-Key", "{}")
    refusals = REFUSALS

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each variant in each data centre; without public addresses there it cannot be reached."""
        offers = self.offers_of(self._types(None), "live")
        lines = Counter(offer.id for offer in offers)
        for offer in offers:
            # A rent names neither of two lines of one name.
            if lines[offer.id] > 1:
                continue
            unreached = (offer.availability_detail or "").endswith(NO_ADDRESSES)
            yield replace(offer, availability=Availability.UNAVAILABLE) if unreached else offer

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; the price is looked at once more, as is which image starts on such a machine."""
        from gpucloud_cloudrift import api

        machine: dict[str, Any] = {**self._image(offer, spec), "ssh_key": {"PublicKeys": [spec.public_key]}}
        place = {"datacenters": [offer.region]} if offer.region else {}
        team = self.settings.table.get("team")
        wanted = {
            "selector": {"ByInstanceTypeAndLocation": {"instance_type": offer.instance_type, **place}},
            "with_public_ip": True,
            "config": {"VirtualMachine": machine},
            "name": to_host_name(spec.tags),
            "tags": to_words(spec.tags),
            **({"team_id": str(team)} if team else {}),
        }
        reply = self._http.post(api.RENT, json=api.asked(wanted))
        made = self._read(api.Told[api.Rented].model_validate, reply, sent=True).data.instance_ids
        if not made:
            full = NoCapacity(f"{self.name}: nothing was rented", provider=self.name)
            # A listing settles whether that is so.
            full.outcome_unknown = True
            raise full
        return spec.begun(offer, InstanceRef(made[0]))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now; what is over is not found."""
        for told in self._instances():
            if told.id == ref.id:
                return self._instance(told)
        raise NotFound(f"{self.name} knows no such thing", provider=self.name)

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tags, of the user and of the user's teams."""
        return ours(map(self._instance, self._instances()))

    def terminate(self, ref: InstanceRef) -> None:
        """End one; a missing one is success."""
        from gpucloud_cloudrift.api import TERMINATE, asked

        with suppress(NotFound):
            self._http.post(TERMINATE, json=asked({"selector": {"ById": [ref.id]}}))

    def check_credentials(self, values: Mapping[str, str]) -> str:
        """Whose key it is, by e-mail address."""
        return self._with(values)._whose()

    def _whose(self) -> str:
        from gpucloud_cloudrift import api

        reply = self._http.query(api.USER, json=api.asked({}))
        return self._read(api.Told[api.User].model_validate, reply).data.email

    def _types(self, region: str | None) -> Any:
        from gpucloud_cloudrift.api import PATH, SERVICES, asked

        services = {**SERVICES, **({"datacenters": [region]} if region else {})}
        return self._http.query(PATH, json=asked({"selector": {"ByServiceAndLocation": services}}))

    def _instances(self) -> Iterator[api.Instance]:
        """All instances that are not over. Raises ``BadReply`` when they may not be all."""
        from gpucloud_cloudrift import api

        chosen = {"statuses": list(api.SHOWN), "scope": "All", "limit": api.MOST_LISTED}
        mask = {"with_connection_info": True, "with_usage_info": True}
        reply = self._http.query(
            api.INSTANCES, json=api.asked({"selector": {"ByStatus": chosen}, "mask": mask})
        )
        rows = self._read(api.Told[api.Instances].model_validate, reply).data.instances
        if len(rows) >= api.MOST_LISTED:
            raise BadReply(f"{self.name} has more instances than it lists", provider=self.name)
        yield from (self._read(api.Instance.model_validate, row) for row in rows)

    def _image(self, offer: Offer, spec: LaunchSpec) -> dict[str, Any]:
        """The image that was asked for, by address or name, or the newest that fits.

        Raises ``NoCapacity`` when the offer is no more as it was, and ``Rejected`` for an unknown name.
        """
        from gpucloud_cloudrift.api import Told, Types

        body = self._types(offer.region)
        self._still_sold(offer, self.offers_of(body, "live"))
        if spec.image and re.match("https?://", spec.image):
            return {"image_url": spec.image}
        types = self._read(Told[Types].model_validate, body).data
        image = chosen(self._recipes(), types, offer.instance_type, spec.image)
        if image is None:
            raise Rejected(
                f"{self.name}: there is no image {spec.image or 'with a driver for this GPU'}",
                provider=self.name,
                hint="name one of https://console.cloudrift.ai with --image, or the address of one",
            )
        return image.model_dump(exclude_none=True)

    def _recipes(self) -> list[api.Recipe]:
        from gpucloud_cloudrift import api

        body = self._http.query(api.RECIPES, json=api.asked({}))
        groups = self._read(api.Told[api.Recipes].model_validate, body).data.groups
        rows = (row for group in groups for row in group.recipes)
        return Rows(self.name).read(api.Recipe.model_validate, rows)

    def _instance(self, told: api.Instance) -> Instance:
        resource = told.resource_info
        price = resource.cost_per_hour if resource else None
        # The name tells less, and is told by every version.
        tags = Tagged.read(from_words(told.tags or ()) or from_host_name(told.instance_name or ""))
        return tags.instance(
            self.name,
            InstanceRef(told.id),
            _state(told),
            ssh=_ssh(told),
            instance_type=resource.instance_type if resource else None,
            market=Market.ON_DEMAND,
            usd_per_hour=price / CENTS if price else None,
        )


def _state(told: api.Instance) -> InstanceState:
    state = STATES.get(told.status, InstanceState.UNKNOWN)
    if state is not InstanceState.RUNNING:
        return state
    if not told.virtual_machines:
        return InstanceState.PENDING
    machine = told.virtual_machines[0]
    runs = InstanceState.RUNNING if machine.ready else InstanceState.PENDING
    return MACHINE_STATES.get(machine.state, runs)


def _ssh(told: api.Instance) -> SshAddress | None:
    """At its own address, or where a shared one leads to it; of a pair of ports one is the machine's."""
    if not told.host_address:
        return None
    pairs = [pair for pair in told.port_mappings or () if len(pair) == 2 and SSH_PORT in pair]
    port = next((sum(pair) - SSH_PORT for pair in pairs), SSH_PORT)
    logins = told.virtual_machines[0].login_info if told.virtual_machines else None
    user = next((login.username for login in (logins or {}).values() if login.username), USER)
    return SshAddress(told.host_address, port, user, inside=told.internal_host_address)
