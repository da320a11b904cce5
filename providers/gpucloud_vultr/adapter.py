"""Vultr in our words."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from functools import cached_property
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from gpucloud.account_keys import SSH_KEY, AccountKey, AccountKeys
from gpucloud.cloud_init import user_data
from gpucloud.errors import NotFound
from gpucloud.labels import from_text, from_words, to_text, to_words
from gpucloud.model import (
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SideResource,
    SshAddress,
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
from gpucloud.replies import ours
from gpucloud.rest import RestProvider
from gpucloud_vultr.catalog import PublicPlans, rows_of
from gpucloud_vultr.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_vultr import api
    from gpucloud_vultr.account import Account

API_KEY: Final = Credential("api_key", ("VULTR_API_KEY",), page="https://my.vultr.com/settings/#settingsapi")
STATES: Final = {
    "pending": InstanceState.PENDING,
    "active": InstanceState.RUNNING,
    "resizing": InstanceState.PENDING,
    "suspended": InstanceState.STOPPED,
}
BOOTING: Final = {"none", "locked", "installingbooting"}
NO_ADDRESS: Final = "0.0.0.0"


class Vultr(PublicPlans, AccountKeys, RestProvider):
    """Vultr cloud GPUs and bare metal."""

    name = "vultr"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=3600,
        billing_minimum_s=3600,
        billed_while_stopped=StoppedBilling.FULL,
        name_length=63,
        idempotent_launch=False,
        listing_lag_s=10,
        plants_host_key=True,
        console="https://my.vultr.com/subs/?id={id}",
        end_command="vultr-cli instance delete {id}",
        firewalled=True,
    )

    url = "https://api.vultr.com"
    min_interval_s = 1 / 30
    refusals = REFUSALS

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(settings)
        # Nodes are launched at once, and what they share is to be made once.
        self._preparing = Lock()

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each plan that is asked for in each of its locations; these tell what they have left."""
        from gpucloud_vultr.offers import Plans

        return Plans(self.name, self._http).offers(requirements)

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; the spec's key and its firewall group are in the account afterwards."""
        from gpucloud_vultr.api import BARE_METALS, INSTANCES, METAL, Answer
        from gpucloud_vultr.images import image_of

        metal = offer.instance_type.startswith(METAL)
        wanted: dict[str, Any] = {
            "region": offer.region,
            "plan": offer.instance_type,
            "label": to_text(spec.tags),
            "hostname": f"{spec.cluster}-{spec.rank}",
            "tags": to_words(spec.tags),
            "user_data": base64.b64encode(user_data(spec, powers_off=False).encode()).decode(),
            "activation_email": False,
            **image_of(self.name, self._http, spec.image),
        }
        with self._preparing:
            wanted["sshkey_id"] = [self._key(spec)]
            if spec.ssh_from and not metal:
                wanted["firewall_group_id"] = self._account.group(spec.ssh_from)
        if spec.nodes > 1 and not metal:
            wanted["enable_vpc"] = True
        reply = self._http.post(BARE_METALS if metal else INSTANCES, json=wanted)
        made = self._read(Answer.model_validate, reply, sent=True).made
        return spec.begun(offer, InstanceRef(made.id, offer.region))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        return self._instance(self._server(ref))

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag, virtual and bare metal."""
        from gpucloud_vultr.api import BARE_METALS, INSTANCES, Server

        rows = chain(self._rows(INSTANCES), self._rows(BARE_METALS))
        return ours(self._instance(self._read(Server.model_validate, row)) for row in rows)

    def terminate(self, ref: InstanceRef) -> None:
        """End one, virtual or bare metal; a missing one is success."""
        from gpucloud_vultr.api import BARE_METALS, INSTANCES

        try:
            self._http.delete(f"{INSTANCES}/{ref.id}")
        except NotFound:
            with suppress(NotFound):
                self._http.delete(f"{BARE_METALS}/{ref.id}")

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Put an instance into a wider group; without one of ours everybody is let in already."""
        from gpucloud_vultr.api import INSTANCES

        group = self._server(ref).firewall_group_id
        if group is None:
            return
        with self._preparing:
            wider = self._account.widened(group, networks)
        if wider and wider != group:
            self._http.patch(f"{INSTANCES}/{ref.id}", json={"firewall_group_id": wider})

    def shared_resources(self) -> Iterable[SideResource]:
        """Our firewall groups, and the keys that we have added to the account."""
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
        from gpucloud_vultr.api import SSH_KEYS, SshKey

        for row in self._rows(SSH_KEYS):
            key = self._read(SshKey.model_validate, row)
            yield AccountKey(key.id, key.id, key.name, key.ssh_key)

    def add_account_key(self, name: str, public_key: str) -> str:
        """Add one."""
        from gpucloud_vultr.api import SSH_KEYS, Answer

        reply = self._http.post(SSH_KEYS, json={"name": name, "ssh_key": public_key})
        return self._read(Answer.model_validate, reply).made.id

    def delete_account_key(self, id: str) -> None:
        """Delete one."""
        from gpucloud_vultr.api import SSH_KEYS

        self._http.delete(f"{SSH_KEYS}/{id}")

    @cached_property
    def _account(self) -> Account:
        from gpucloud_vultr.account import Account

        return Account(self.name, self._http)

    def _rows(self, path: str) -> Iterator[object]:
        return rows_of(self.name, self._http, path)

    def _server(self, ref: InstanceRef) -> api.Server:
        """A machine, virtual or bare metal. Raises ``NotFound``."""
        from gpucloud_vultr.api import BARE_METALS, INSTANCES, OneServer

        try:
            reply = self._http.get(f"{INSTANCES}/{ref.id}")
        except NotFound:
            reply = self._http.get(f"{BARE_METALS}/{ref.id}")
        return self._read(OneServer.model_validate, reply).server

    def _instance(self, told: api.Server) -> Instance:
        host = told.main_ip if told.main_ip != NO_ADDRESS else None
        # The label has been there longer than tags, and keeps what it is given.
        return Tagged.read(from_text(told.label) or from_words(told.tags)).instance(
            self.name,
            InstanceRef(told.id, told.region),
            _state(told),
            ssh=SshAddress(host, inside=told.internal_ip) if host else None,
            instance_type=told.plan,
            market=Market.ON_DEMAND,
        )


def _state(told: api.Server) -> InstanceState:
    state = STATES.get(told.status, InstanceState.UNKNOWN)
    if state is not InstanceState.RUNNING:
        return state
    # A machine is active from when it is set up on.
    if told.server_status in BOOTING:
        return InstanceState.PENDING
    return InstanceState.STOPPED if told.power_status == "stopped" else InstanceState.RUNNING
