"""Google Cloud in our words: each verb loads what it needs of Google's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import NotFound, Rejected
from gpucloud.model import (
    Block,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    Reservation,
    SideResource,
    SshAddress,
    Window,
)
from gpucloud.provider import (
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
from gpucloud_gcp.history import PastPrices
from gpucloud_gcp.tags import described

if TYPE_CHECKING:
    from gpucloud_gcp import api
    from gpucloud_gcp.account import Account
    from gpucloud_gcp.sdk import Changes, Place

LOGIN_USER: Final = "ubuntu"
"""Whom cloud-init lets in on the images that are chosen here."""

DISK: Final = "disk"
POLICY: Final = "placement policy"
PREEMPTED: Final = "compute.instances.preempted"

STATES: Final = {
    "PENDING": InstanceState.PENDING,
    "PROVISIONING": InstanceState.PENDING,
    "STAGING": InstanceState.PENDING,
    "RUNNING": InstanceState.RUNNING,
    "PENDING_STOP": InstanceState.STOPPING,
    # That of an instance that is being deleted, too.
    "STOPPING": InstanceState.STOPPING,
    "SUSPENDING": InstanceState.STOPPING,
    "SUSPENDED": InstanceState.STOPPED,
    "STOPPED": InstanceState.STOPPED,
    "TERMINATED": InstanceState.STOPPED,
    "DEPROVISIONING": InstanceState.TERMINATING,
}
"""Google says TERMINATED of an instance that is stopped and can be started; one that is gone is not told."""

MARKETS: Final = {
    "SPOT": Market.SPOT,
    "STANDARD": Market.ON_DEMAND,
    "FLEX_START": Market.QUEUED,
    "RESERVATION_BOUND": Market.RESERVED,
}

NOTICE_PROBE: Final = """\
at=http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/preempted
if command -v curl >/dev/null; then
  curl -s -f -m 1 -H 'Metadata-Flavor: Google' "$at"
else
  wget -q -O - -T 1 -t 1 --header 'Metadata-Flavor: Google' "$at"
fi 2>/dev/null | grep -q '^TRUE'"""
"""https://docs.cloud.google.com/compute/docs/instances/create-use-spot (as of 2026-11-21)."""


class Gcp(PastPrices, Provider):
    """Google Cloud virtual machines."""

    rehearsable = True
    traits = Traits(
        kind=Kind.VM,
        markets=frozenset({Market.ON_DEMAND, Market.SPOT, Market.QUEUED, Market.RESERVED}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.PROVIDER,
        billing_grain_s=1,
        billing_minimum_s=60,
        billed_while_stopped=StoppedBilling.STORAGE,
        name_length=63,
        idempotent_launch=True,
        listing_lag_s=15,
        interruption_notice_s=30,
        notice_probe=NOTICE_PROBE,
        plants_host_key=True,
        console="https://console.cloud.google.com/compute/instancesDetail/zones/{region}/instances/{id}",
        end_command="gcloud compute instances delete {id} --zone {region}",
        firewalled=True,
    )
    patience_s: float = 45
    """How long a change is tried again while Google says "later"."""
    refusal_s: float = 10
    """How long a refusal inside an operation is waited for; most come within five seconds."""

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(settings)
        self._grouped: dict[str, str] = {}
        """Placement policies by the token of those whose instances were ended here."""

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """When Google's own login is there, or the settings name a project."""
        from gpucloud_gcp.auth import found

        return bool(settings.table.get("project")) or found(settings)

    @cached_property
    def _account(self) -> Account:
        from gpucloud_gcp.account import Account

        return Account(self.settings, self.client, self.refusal_s)

    @property
    def _changes(self) -> Changes:
        from gpucloud_gcp.sdk import Changes

        return Changes(self.name, self._account.who, self._account.url, self.patience_s)

    # -- the five verbs ----------------------------------------------------------------------------

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Every machine with GPUs, in each zone and market, at the prices of this moment.

        They cost what their parts do in Google's price list, and spot machines that it lacks what Google
        tells of them as a whole. The setting ``regions`` leaves out all others.
        """
        from gpucloud_gcp.offers import offers

        return offers(self._account, requirements, self.settings.names("regions"), self.settings.rates)

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one, or queue for it. Google may refuse some seconds later, for which this waits."""
        from gpucloud_gcp.launch import launch

        return launch(self._account, self._changes, offer, spec)

    def get(self, ref: InstanceRef) -> Instance:
        """One instance. Of one that is not there ``NotFound`` says why, if Google tells."""
        machine = self._machine(ref)
        told = self._instance(machine)
        over = told.state in {InstanceState.STOPPING, InstanceState.STOPPED}
        if over and told.market is Market.SPOT and self._taken_back(machine):
            return self._instance(machine, interrupted=True)
        return told

    def instances(self) -> Iterable[Instance]:
        """All of the project that carry our labels, in every zone."""
        return [self._instance(machine) for machine in self._ours()]

    def terminate(self, ref: InstanceRef) -> None:
        """Delete one with its disk; without an instance the disk that a failed launch may have left.

        The placement policy of its group can be deleted once nothing uses it, and is then told as something
        beside the instance.
        """
        try:
            machine = self._machine(ref, explain=False)
        except NotFound:
            if ref.region:
                self._delete_disk(ref.id, ref.region)
            return
        tags, policies = _tags(machine), machine.resource_policies
        if policies and "gpucloud-token" in tags:
            self._grouped[tags["gpucloud-token"]] = _last(policies[0])
        with suppress(NotFound):
            self._act("delete", machine)

    # -- abilities ---------------------------------------------------------------------------------

    def stop(self, ref: InstanceRef) -> None:
        """Stop one: from then on its disk bills. What is on the local disks of the machine is lost."""
        machine = self._machine(ref)
        if STATES.get(machine.status) is not InstanceState.STOPPED:
            scratch = any(disk.type == "SCRATCH" for disk in machine.disks)
            self._act("stop", machine, **({"discard_local_ssd": True} if scratch else {}))

    def start(self, ref: InstanceRef) -> None:
        """Start one again. Google may refuse inside the operation, for which this waits some seconds."""
        machine = self._machine(ref)
        if STATES.get(machine.status) not in {InstanceState.RUNNING, InstanceState.PENDING}:
            self._account.confirm(self._act("start", machine), f"zones/{_last(machine.zone)}")

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Let networks reach SSH of one instance: by rules of the firewall, and their tags on it."""
        from gpucloud_gcp.network import admit

        machine = self._machine(ref)
        known, wanted = machine.tags.items, admit(self._account, self._changes, networks)
        if not set(wanted) <= set(known):
            # With the fingerprint Google refuses it when somebody else has changed them meanwhile.
            tags = {"items": sorted({*known, *wanted}), "fingerprint": machine.tags.fingerprint}
            operation = self._act("set_tags", machine, tags_resource=tags)
            self._account.confirm(operation, f"zones/{_last(machine.zone)}")

    def side_resources(self) -> Iterable[SideResource]:
        """The disks of our instances, and the placement policies that no instance uses any more."""
        from gpucloud_gcp import api

        things = (
            (scope, self._account.read(api.Thing, row))
            for scope, row in self._account.all(api.DISKS, "labels.gpucloud-token:*")
        )
        for scope, thing in things:
            yield from self._beside(DISK, thing, _last(scope))
        yield from self._unused_policies()

    def remove(self, resource: SideResource) -> None:
        """Delete a disk or a placement policy."""
        from gpucloud_gcp.sdk import Place

        place = resource.ref.region or ""
        if resource.kind == DISK:
            self._delete_disk(resource.ref.id, place)
        else:
            with suppress(NotFound):
                where = Place(region=place)
                self._changes.act("ResourcePolicies", "ResourcePolicy", "delete", resource.ref.id, where)

    def shared_resources(self) -> Iterable[SideResource]:
        """The networks that launches made, their subnets and the rules of their firewalls."""
        from gpucloud_gcp.network import shared

        return shared(self._account)

    def remove_shared(self, resource: SideResource) -> None:
        """Delete one that no instance of ours uses. Raises ``Rejected`` for others."""
        from gpucloud_gcp.network import remove

        remove(self._account, self._changes, resource, list(self._ours()))

    def advise(self, offers: Sequence[Offer], nodes: int) -> Iterable[Offer]:
        """How likely spot machines are to be had, and for how long, as Google estimates it."""
        from gpucloud_gcp.offers import advice

        return advice(self._account, offers, nodes)

    def blocks(self, wanted: Requirements, window: Window) -> Iterable[Block]:
        """When and where Google would reserve machines, at the prices of this moment ("calendar mode").

        What a reservation costs is billed while it lasts. The setting ``regions`` leaves out all others.
        """
        from gpucloud_gcp.reservations import blocks

        return blocks(self._account, wanted, window, self.settings.names("regions"), self.settings.rates)

    def reserve(self, block: Block, spec: LaunchSpec) -> Reservation:
        """Ask for a block, which cannot be taken back. Google may still decline it within a minute."""
        from gpucloud_gcp.reservations import reserve

        return reserve(self._account, self._changes, block, spec)

    def reservations(self) -> Iterable[Reservation]:
        """All of the project that have our tags, in every zone."""
        from gpucloud_gcp.reservations import reservations

        return reservations(self._account)

    # -- what they have in common ------------------------------------------------------------------

    def _ours(self) -> Iterator[api.Machine]:
        from gpucloud_gcp import api

        for _, row in self._account.all(api.INSTANCES, "labels.gpucloud-token:*"):
            yield self._account.read(api.Machine, row)

    def _machine(self, ref: InstanceRef, *, explain: bool = True) -> api.Machine:
        """Look one up. Raises ``NotFound``; to ``explain`` it takes another request."""
        from gpucloud_gcp import api
        from gpucloud_gcp.account import zone_of

        zone = ref.region or zone_of(self._account, ref.id)
        if zone is None:
            raise NotFound(f"{self.name} knows no instance {ref.id}", provider=self.name)
        try:
            return self._account.one(api.Machine, api.INSTANCE, zone=zone, name=ref.id)
        except NotFound as error:
            fate = self._fate(zone, ref.id) if explain else ""
            if not fate:
                raise
            raise NotFound(f"{self.name}: {fate}", provider=self.name, why=error.why) from error

    def _fate(self, zone: str, name: str) -> str:
        """Why there is no such instance, as far as operations tell."""
        from gpucloud_gcp.account import past

        for operation in past(self._account, zone, name):
            refusal = self._account.refusal(operation)
            if operation.operation_type == "insert" and refusal:
                return f"it was never made, because of {refusal.vendor_code}"
            if operation.operation_type == PREEMPTED:
                return "it was taken back"
        return ""

    def _taken_back(self, machine: api.Machine) -> bool:
        from gpucloud_gcp.account import past

        done = past(self._account, _last(machine.zone), machine.name)
        return any(operation.operation_type == PREEMPTED for operation in done)

    def _act(self, verb: str, machine: api.Machine, **more: Any) -> str:
        return self._changes.act("Instances", "Instance", verb, machine.name, self._place(machine), **more)

    def _place(self, machine: api.Machine) -> Place:
        from gpucloud_gcp.sdk import Place

        return Place(zone=_last(machine.zone))

    def _delete_disk(self, name: str, zone: str) -> None:
        """Delete a disk, if there is one; that there is none is found out without the SDK.

        One that an instance still uses stays, and goes on being listed.
        """
        from gpucloud_gcp import api
        from gpucloud_gcp.errors import IN_USE
        from gpucloud_gcp.sdk import Place

        try:
            self._account.one(api.Thing, api.DISK, zone=zone, name=name)
            self._changes.act("Disks", "Disk", "delete", name, Place(zone=zone))
        except (NotFound, Rejected) as error:
            if isinstance(error, Rejected) and error.vendor_code not in IN_USE:
                raise

    def _unused_policies(self) -> Iterator[SideResource]:
        """Each with the token of its maker, and with those of its group whose instances were ended here."""
        from gpucloud_gcp import api

        used = {_last(policy) for machine in self._ours() for policy in machine.resource_policies}
        rows = self._account.all(api.POLICIES, "name eq 'gpucloud-.*'")
        for scope, row in rows:
            policy = self._account.read(api.Thing, row)
            if policy.name not in used:
                tokens = [token for token, name in self._grouped.items() if name == policy.name]
                for token in tokens or [""]:
                    yield from self._beside(POLICY, policy, _last(scope), token)

    def _beside(self, kind: str, thing: api.Thing, place: str, token: str = "") -> Iterator[SideResource]:
        told = Tagged.read({**thing.labels, **described(thing.description)})
        if told.token:
            yield SideResource(
                provider=self.name,
                kind=kind,
                ref=InstanceRef(thing.name, place),
                token=token or told.token,
                cluster=told.cluster,
                owner=told.owner,
            )

    def _instance(self, machine: api.Machine, *, interrupted: bool = False) -> Instance:
        from gpucloud_gcp.api import WAITS

        tags = _tags(machine)
        told = Tagged.read(tags)
        configs = [config for card in machine.network_interfaces for config in card.access_configs]
        host = next((config.nat_ip for config in configs if config.nat_ip), None)
        market = MARKETS.get(machine.scheduling.provisioning_model)
        waiting = machine.status == WAITS
        inside = next((card.network_ip for card in machine.network_interfaces), None)
        return Instance(
            provider=self.name,
            ref=InstanceRef(machine.name, _last(machine.zone)),
            state=STATES.get(machine.status, InstanceState.UNKNOWN),
            token=told.token,
            cluster=told.cluster,
            rank=told.rank,
            owner=told.owner,
            ssh=SshAddress(host, user=LOGIN_USER, inside=inside) if host else None,
            created_at=machine.creation_timestamp,
            instance_type=tags.get("gpucloud-type") or _last(machine.machine_type),
            market=market,
            interrupted=interrupted,
            expires_at=told.expires_at,
            waiting=waiting,
            started_at=machine.last_start_timestamp if market is Market.QUEUED and not waiting else None,
        )


def _last(address: str) -> str:
    """The name at the end of an address."""
    return address.rpartition("/")[2]


def _tags(machine: api.Machine) -> dict[str, str]:
    """Our tags: from the labels, and as they are from the metadata, unless somebody has taken it away."""
    return {**machine.labels, **{item.key: item.value for item in machine.metadata.items}}
