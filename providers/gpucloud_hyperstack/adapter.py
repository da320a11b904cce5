"""Hyperstack in our words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from gpucloud.cloud_init import user_data
from gpucloud.errors import NotFound, Unsupported
from gpucloud.labels import from_words, to_words
from gpucloud.model import (
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
    Reach,
    StoppedBilling,
    Tagged,
    Traits,
)
from gpucloud.replies import Rows, ours
from gpucloud.rest import RestProvider
from gpucloud_hyperstack.offers import market_of, offers_of, prices_at, stock_of
from gpucloud_hyperstack.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_hyperstack import api
    from gpucloud_hyperstack.account import Account

API_KEY: Final = Credential(
    "api_key", ("HYPERSTACK_API_KEY",), page="https://console.hyperstack.cloud/api-keys"
)
USER: Final = "ubuntu"
SSH_PORT: Final = 22
EVERYBODY: Final = ("0.0.0.0/0", "::/0")
STATES: Final = {
    "CREATING": InstanceState.PENDING,
    "BUILD": InstanceState.PENDING,
    "STARTING": InstanceState.PENDING,
    "RESTORING": InstanceState.PENDING,
    "ACTIVE": InstanceState.RUNNING,
    "REBOOTING": InstanceState.RUNNING,
    "HIBERNATING": InstanceState.STOPPING,
    "STOPPING": InstanceState.STOPPING,
    "HIBERNATED": InstanceState.STOPPED,
    # It bills in full all the same, until ``stop`` hibernates it.
    "SHUTOFF": InstanceState.STOPPED,
    "DELETING": InstanceState.TERMINATING,
    "DELETED": InstanceState.TERMINATED,
    "ERROR": InstanceState.FAILED,
}
HIBERNATED: Final = {"HIBERNATING", "HIBERNATED"}


class Hyperstack(RestProvider):
    """Hyperstack's virtual machines."""

    name = "hyperstack"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 21)
    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=60,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.STORAGE,
        name_length=50,
        idempotent_launch=False,
        listing_lag_s=30,
        plants_host_key=True,
        firewalled=True,
        console="https://console.hyperstack.cloud/virtual-machines",
    )

    url = "https://infrahub-api.nexgencloud.com"
    header = ("api_key", "{}")
    # 500 a minute from one address (transcript of docs.hyperstack.cloud, 2026-08-26).
    min_interval_s = 0.12
    refusals = REFUSALS

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each flavor of each region whose GPU is in the price book."""
        from gpucloud_hyperstack import api

        now, rows = utcnow(), Rows(self.name)
        book = self._read(api.PriceBook.validate_python, self._http.get(api.PRICEBOOK))
        prices = prices_at(now, Rows(self.name).read(api.Line.model_validate, book))
        stock = stock_of(self._read(api.Stocks.model_validate, self._http.get(api.STOCKS)))
        told = self._read(api.Flavors.model_validate, self._http.get(api.FLAVORS))
        for group in rows.read(api.FlavorGroup.model_validate, told.data):
            for flavor in group.flavors:
                with rows.row():
                    rows.add(offers_of(group, api.Flavor.model_validate(flavor), prices, stock, now))
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one; our environment of the region, with the spec's key, is there afterwards."""
        from gpucloud_hyperstack.api import MACHINES, Launched
        from gpucloud_hyperstack.images import newest_in

        region = offer.region or ""
        environment = self._account.environment(region)
        wanted = {
            # Names are taken once in an account, and this one tells the token, too.
            "name": f"{spec.token}-{spec.cluster}-{spec.rank}"[: self.traits.name_length],
            "environment_name": environment,
            "flavor_name": offer.instance_type,
            "image_name": spec.image or newest_in(self.name, self._http, region),
            "key_name": self._account.key(spec, environment),
            "count": 1,
            "assign_floating_ip": True,
            # Or the port of SSH would be one that no reply tells.
            "enable_port_randomization": False,
            "user_data": user_data(spec, powers_off=False),
            "security_rules": [_rule(network) for network in spec.ssh_from or EVERYBODY],
            "labels": to_words(spec.tags),
        }
        reply = self._http.post(MACHINES, json=wanted)
        made = self._read(Launched.model_validate, reply, sent=True).instances[0]
        return spec.begun(offer, InstanceRef(str(made.id), offer.region))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now."""
        return self._instance(self._machine(ref))

    def instances(self) -> Iterable[Instance]:
        """Everything that carries our tag."""
        from gpucloud_hyperstack.api import MACHINES, Machine

        return ours(map(self._instance, self._account.listed(MACHINES, "instances", Machine.model_validate)))

    def terminate(self, ref: InstanceRef) -> None:
        """End one, and with it its address and its rules; a missing one is success."""
        from gpucloud_hyperstack.api import MACHINES

        with suppress(NotFound):
            self._http.delete(f"{MACHINES}/{ref.id}")

    def stop(self, ref: InstanceRef) -> None:
        """Hibernate one, for what is only shut down goes on billing in full."""
        told = self._machine(ref)
        if told.status in HIBERNATED:
            return
        features = told.flavor.features if told.flavor else None
        if features and features.no_hibernation:
            raise Unsupported(
                f"{self.name} cannot hibernate {told.flavor.name if told.flavor else ref.id}",
                provider=self.name,
                why="machines of this flavor can only be shut down, which bills in full",
                hint="end it with gpucloud down",
            )
        self._tell(ref, "hibernate")

    def start(self, ref: InstanceRef) -> None:
        """Wake one, or start one that was shut down."""
        told = self._machine(ref)
        if told.status in HIBERNATED:
            self._tell(ref, "hibernate-restore")
        elif told.status == "SHUTOFF":
            self._tell(ref, "start")

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Let networks reach SSH too."""
        from gpucloud_hyperstack.api import MACHINES

        admitted = {
            rule.remote_ip_prefix
            for rule in self._machine(ref).security_rules or ()
            if rule.direction == "ingress" and rule.port_range_min == rule.port_range_max == SSH_PORT
        }
        for network in networks:
            if network not in admitted:
                self._http.post(f"{MACHINES}/{ref.id}/sg-rules", json=_rule(network))

    def shared_resources(self) -> Iterable[SideResource]:
        """The keys that we have added, and our environments, which must be empty to be removed."""
        return self._account.shared()

    def remove_shared(self, resource: SideResource) -> None:
        """Delete one; machines that run keep their keys."""
        self._account.remove(resource)

    @cached_property
    def _account(self) -> Account:
        from gpucloud_hyperstack.account import Account

        return Account(self.name, self._http)

    def _tell(self, ref: InstanceRef, what: str) -> None:
        from gpucloud_hyperstack.api import MACHINES

        # A GET, but one that changes something: if it were tried again like a read, the second one could
        # undo what somebody has done in between.
        self._http.get_once(f"{MACHINES}/{ref.id}/{what}")

    def _machine(self, ref: InstanceRef) -> api.Machine:
        from gpucloud_hyperstack.api import MACHINES, One

        return self._read(One.model_validate, self._http.get(f"{MACHINES}/{ref.id}")).instance

    def _instance(self, told: api.Machine) -> Instance:
        flavor = told.flavor
        reachable = told.floating_ip and not told.port_randomization
        return Tagged.read(from_words(told.labels or ())).instance(
            self.name,
            InstanceRef(str(told.id), told.environment.region if told.environment else None),
            STATES.get(told.status, InstanceState.UNKNOWN),
            ssh=SshAddress(str(told.floating_ip), user=USER, inside=told.fixed_ip) if reachable else None,
            created_at=told.created_at,
            instance_type=flavor.name if flavor else None,
            market=market_of(flavor.gpu or "") if flavor else None,
        )


def _rule(network: str) -> dict[str, Any]:
    """Whoever is in a network may reach SSH."""
    return {
        "direction": "ingress",
        "ethertype": "IPv6" if ":" in network else "IPv4",
        "protocol": "tcp",
        "port_range_min": SSH_PORT,
        "port_range_max": SSH_PORT,
        "remote_ip_prefix": network,
    }
