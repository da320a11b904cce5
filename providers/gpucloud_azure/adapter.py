"""Azure in our words."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar, Final

from gpucloud.errors import NotFound, Rejected
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
from gpucloud.parallel import results, run_all
from gpucloud.provider import (
    Evidence,
    Fuse,
    Kind,
    LaunchSpec,
    Provider,
    ProviderSettings,
    Reach,
    StoppedBilling,
    Tagged,
    Traits,
)
from gpucloud.replies import Rows
from gpucloud_azure.account import Account, ResourceId, signed_in
from gpucloud_azure.catalog import RetailPrices

if TYPE_CHECKING:
    from gpucloud.http import HttpClient
    from gpucloud_azure.account import Clients
    from gpucloud_azure.api import Machine, Thing
    from gpucloud_azure.launch import Rental
    from gpucloud_azure.stock import Stock

log = logging.getLogger(__name__)

TOKEN: Final = "gpucloud-token"

NOTICE: Final = """(unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
u='http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01'
curl -fs -m 1 -H 'Metadata: true' "$u" 2>/dev/null ||
  wget -q -T 1 -t 1 -O - --header 'Metadata: true' "$u" 2>/dev/null) |
  grep -q '"EventType" *: *"Preempt"'"""
"""https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events: the first question turns the
service on, which takes up to two minutes."""

POWERS: Final = {
    "running": InstanceState.RUNNING,
    "starting": InstanceState.PENDING,
    "stopping": InstanceState.STOPPING,
    "deallocating": InstanceState.STOPPING,
    "deallocated": InstanceState.STOPPED,
}
"""A machine that was powered off from within is ``stopped`` and bills in full, so to us it is not."""


class Azure(RetailPrices, Provider):
    """Azure virtual machines."""

    name: ClassVar[str] = "azure"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 20)
    rehearsable = True
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.CLIENT,
        billing_grain_s=None,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.STORAGE,
        name_length=64,
        idempotent_launch=True,
        listing_lag_s=30,
        interruption_notice_s=30,
        notice_probe=NOTICE,
        plants_host_key=True,
        console="https://portal.azure.com/#resource{id}",
        end_command="az vm delete --yes --ids {id}",
        firewalled=True,
    )

    look_s: float = 20
    """How long an order is looked at: Azure refuses most within seconds, and hardware is given as fast."""

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(settings)
        self._placements: dict[str, str] = {}

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """When somebody is signed in by variables or ``az login``, or the settings name a subscription."""
        return signed_in(settings)

    @cached_property
    def _account(self) -> Account:
        return Account(self.settings, self.client)

    @cached_property
    def _stock(self) -> Stock:
        from gpucloud_azure.stock import Stock

        return Stock(self._account, self)

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Every size with whole GPUs in every region, at retail prices, as far as quotas allow."""
        return self._stock.offers(requirements)

    def advise(self, offers: Sequence[Offer], nodes: int) -> Iterable[Offer]:
        """Placement scores and eviction rates of spot offers."""
        from gpucloud_azure.advice import Advice

        return list(Advice(self._account).of(offers, nodes))

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one. Looks at it for up to ``look_s``, because a refusal comes only after the order."""
        with self._rental() as (http, _, rental):
            sku = partial(self._stock.sku, http, offer.region or "", offer.instance_type)
            machine = rental.make(offer, spec, sku)
            return self._instance(machine, self._ssh(http, machine))

    def get(self, ref: InstanceRef) -> Instance:
        """One instance as it is now; why it failed, if it did, is in the log."""
        with self._account.http() as http:
            return self._found(http, self._named(ref))

    def instances(self) -> Iterable[Instance]:
        """Every machine with our tag, in all regions and resource groups."""
        from gpucloud_azure.api import MACHINES

        with self._account.http() as http:
            named = [ResourceId.parse(thing.id) for thing in self._tagged(http, MACHINES)]
            # Only when asked for one does Azure tell what a machine does.
            tasks = {id: partial(self._seen, http, id) for id in named if id}
            return [each for each in results(run_all(tasks)).values() if each]

    def terminate(self, ref: InstanceRef) -> None:
        """End one; its disk, interface and address go with it, and so does what a broken launch has left."""
        from gpucloud_azure.launch import Names

        if found := ResourceId.parse(ref.id):
            with self._rental() as (_, _, rental):
                rental.discard(found.group, Names(found.name))

    def stop(self, ref: InstanceRef) -> None:
        """Deallocate it: its disk and its address bill on."""
        found = self._named(ref)
        with self._account.clients() as clients, self._account.translated():
            clients.compute.virtual_machines.begin_deallocate(found.group, found.name, polling=False)

    def start(self, ref: InstanceRef) -> None:
        """Start it again; there may be no hardware for it, which is looked for as at a launch."""
        found = self._named(ref)
        with self._rental() as (_, clients, rental):
            with self._account.translated():
                clients.compute.virtual_machines.begin_start(found.group, found.name, polling=False)
            machine = rental.settled(found.group, found.name)
            refused = rental.refused(machine) if machine else None
            if refused:
                # It is kept, and is to be nothing else than stopped.
                self.stop(ref)
                raise refused

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Let networks reach SSH of all machines in the region of an instance."""
        from gpucloud_azure.network import Network

        instance = self.get(ref)
        with self._account.http() as http, self._account.clients() as clients:
            Network(self._account).let_in(http, clients, instance.ref.region or "", networks)

    def side_resources(self) -> Iterable[SideResource]:
        """Addresses, interfaces and disks that were made for an instance. An interface costs nothing."""
        from gpucloud_azure.api import ADDRESS, DISK, INTERFACE, MACHINES
        from gpucloud_azure.launch import Names

        with self._account.http() as http:
            kinds = (MACHINES, INTERFACE, ADDRESS)
            tasks = {kind: partial(self._tagged, http, kind) for kind in kinds}
            found = results(run_all({**tasks, DISK: partial(self._all, http, DISK)}))
        tags = {Names.of(each.tags[TOKEN]).machine: each.tags for kind in kinds for each in found[kind]}
        for kind in (INTERFACE, ADDRESS, DISK):
            for thing in found[kind]:
                # Azure makes the disk with the machine, and need not give it the tags.
                known = thing.tags if TOKEN in thing.tags else tags.get(thing.name.removesuffix("-disk"))
                if known:
                    yield self._beside(kind, thing, known)

    def remove(self, resource: SideResource) -> None:
        """Delete one; what is still in use is left to who uses it."""
        from gpucloud_azure.api import ADDRESS, DISK, INTERFACE

        found = ResourceId.parse(resource.ref.id)
        if found is None:
            return
        with self._account.clients() as clients, suppress(NotFound, Rejected), self._account.translated():
            if resource.kind == INTERFACE:
                clients.network.network_interfaces.begin_delete(found.group, found.name, polling=False)
            elif resource.kind == ADDRESS:
                clients.network.public_ip_addresses.begin_delete(found.group, found.name, polling=False)
            elif resource.kind == DISK:
                clients.compute.disks.begin_delete(found.group, found.name, polling=False)

    def shared_resources(self) -> Iterable[SideResource]:
        """Placement groups, networks, firewalls and the resource group that launches share."""
        from gpucloud_azure.network import Network

        with self._account.http() as http:
            return list(Network(self._account).listed(http))

    def remove_shared(self, resource: SideResource) -> None:
        """Delete one; raises ``Rejected`` while something is in it."""
        from gpucloud_azure.network import Network

        with self._account.http() as http, self._account.clients() as clients:
            Network(self._account).remove(http, clients, resource)

    @contextmanager
    def _rental(self) -> Iterator[tuple[HttpClient, Clients, Rental]]:
        from gpucloud_azure.launch import Rental

        with self._account.http() as http, self._account.clients() as clients:
            yield http, clients, Rental(self._account, http, clients, self.look_s, self._placements)

    def _named(self, ref: InstanceRef) -> ResourceId:
        found = ResourceId.parse(ref.id)
        if found is None:
            raise NotFound(f"{self.name} has no instance {ref.id}", provider=self.name)
        return found

    def _seen(self, http: HttpClient, found: ResourceId) -> Instance | None:
        """One that was listed; ``None`` when it has gone since."""
        with suppress(NotFound):
            return self._found(http, found)
        return None

    def _found(self, http: HttpClient, found: ResourceId) -> Instance:
        from gpucloud_azure.api import COMPUTE, Machine

        where = self._account.vm_id(found.group, found.name)
        body = http.get(where, params={"api-version": COMPUTE, "$expand": "instanceView"})
        machine = Rows(self.name).envelope(Machine.model_validate, body)
        return self._instance(machine, self._ssh(http, machine))

    def _ssh(self, http: HttpClient, machine: Machine) -> SshAddress | None:
        """Where SSH answers; with its address in the network where it is one of several nodes."""
        from gpucloud_azure.api import ADDRESS, INTERFACE
        from gpucloud_azure.launch import USER, Names

        found = ResourceId.parse(machine.id)
        if found is None:
            return None
        names = Names(found.name)
        public = self._part(http, found.group, ADDRESS, names.address)
        if public is None or not public.properties.ip_address:
            return None
        inside = None
        if machine.properties.proximity_placement_group:
            interface = self._part(http, found.group, INTERFACE, names.interface)
            listed = interface.properties.ip_configurations if interface else []
            told = (each.properties for each in listed)
            inside = next((each.private_address for each in told if each.version == "IPv4"), None)
        return SshAddress(public.properties.ip_address, user=USER, inside=inside)

    def _part(self, http: HttpClient, group: str, kind: str, name: str) -> Thing | None:
        """Something that was made for an instance; ``None`` when it is not there."""
        from gpucloud_azure.api import NETWORK, Thing

        path = self._account.path(f"resourceGroups/{group}/providers/{kind}/{name}")
        with suppress(NotFound):
            body = http.get(path, params={"api-version": NETWORK})
            return Rows(self.name).envelope(Thing.model_validate, body)
        return None

    def _all(self, http: HttpClient, kind: str) -> list[Thing]:
        """Everything of one type in the account."""
        from gpucloud_azure.api import VERSIONS, Thing

        path = self._account.path(f"providers/{kind}")
        rows = self._account.rows(http, path, **{"api-version": VERSIONS[kind]})
        # A row that cannot be read might be of an instance that bills.
        return [Rows(self.name).envelope(Thing.model_validate, row) for row in rows]

    def _tagged(self, http: HttpClient, kind: str) -> list[Thing]:
        return [thing for thing in self._all(http, kind) if TOKEN in thing.tags]

    def _beside(self, kind: str, thing: Thing, tags: dict[str, str]) -> SideResource:
        told = Tagged.read(tags)
        return SideResource(
            provider=self.name,
            kind=kind,
            ref=InstanceRef(thing.id, thing.location),
            token=told.token,
            cluster=told.cluster,
            owner=told.owner,
        )

    def _instance(self, machine: Machine, ssh: SshAddress | None) -> Instance:
        told, properties = Tagged.read(machine.tags), machine.properties
        found = ResourceId.parse(machine.id)
        return Instance(
            provider=self.name,
            ref=InstanceRef(
                self._account.vm_id(found.group, machine.name) if found else machine.id, machine.location
            ),
            state=_state(machine),
            token=told.token,
            cluster=told.cluster,
            rank=told.rank,
            owner=told.owner,
            ssh=ssh,
            created_at=properties.time_created,
            instance_type=properties.hardware_profile.vm_size,
            market=Market.SPOT if properties.priority == "Spot" else Market.ON_DEMAND,
            expires_at=told.expires_at,
        )


def _state(machine: Machine) -> InstanceState:
    from gpucloud_azure.launch import UP

    provisioning, failure = machine.properties.provisioning_state, machine.failure
    if provisioning == "Deleting":
        return InstanceState.TERMINATING
    if failure:
        log.warning("%s: %s failed: %s %s", Azure.name, machine.name, failure.code, failure.message)
        if machine.power not in UP:
            return InstanceState.FAILED
    if machine.power == "stopped":
        log.warning("%s: %s was powered off from within, and bills in full", Azure.name, machine.name)
    if not machine.power and provisioning in {"Creating", "Updating"}:
        return InstanceState.PENDING
    return POWERS.get(machine.power, InstanceState.UNKNOWN)
