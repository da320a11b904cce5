"""What one launch makes: an address, a network interface, a machine with its disk, and all of it away again.

Azure takes an order for a machine and looks for hardware only then: that there is none comes seconds later,
and the machine, which bills nothing but its address and disk, stays. So a launch looks at the machine for a
short while, and takes away what Azure refuses.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import ROUND_DOWN, Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gpucloud.cloud_init import user_data
from gpucloud.errors import NotFound, ProviderError, Rejected, Unsupported
from gpucloud.model import Market, Offer
from gpucloud.parallel import results, run_all
from gpucloud.provider import LaunchSpec
from gpucloud.replies import Rows
from gpucloud_azure.account import ResourceId
from gpucloud_azure.errors import refusal
from gpucloud_azure.images import Gallery, reference
from gpucloud_azure.network import SHARED, WAIT_S, Network, ipv6_alone

if TYPE_CHECKING:
    from gpucloud.http import HttpClient
    from gpucloud_azure.account import Account, Clients
    from gpucloud_azure.api import Machine, Sku

log = logging.getLogger(__name__)

USER: Final = "azureuser"
UNLIMITED: Final = -1.0
"""As a maximum price: that on demand, above which spot never is."""
PRICE_GRAIN: Final = Decimal("0.00001")
LOOK_AGAIN_S: Final = 2.0
UP: Final = {"starting", "running"}
"""How a machine is that has been given hardware."""

TAKEN: Final = "PropertyChangeNotAllowed"
"""What Azure says when a machine of that name is there already, of the same token but not the same order."""


class Names(NamedTuple):
    """What the parts of one instance are called."""

    machine: str

    @classmethod
    def of(cls, token: str) -> Names:
        """By a token; one that Azure would not take as a name is hashed."""
        fits = re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,56}[a-z0-9])?", token)
        return cls(token if fits else f"gc-{hashlib.sha256(token.encode()).hexdigest()[:20]}")

    @property
    def address(self) -> str:
        return f"{self.machine}-ip"

    @property
    def interface(self) -> str:
        return f"{self.machine}-nic"

    @property
    def disk(self) -> str:
        return f"{self.machine}-disk"


class Rental:
    """One instance in the making, or on its way out; ``look_s`` is how long it is looked at once ordered.

    ``placements`` are the placement groups of machines that go, by name: a group can go only once they have.
    """

    def __init__(
        self, account: Account, http: HttpClient, clients: Clients, look_s: float, placements: dict[str, str]
    ) -> None:
        self._account = account
        self._http = http
        self._clients = clients
        self._look_s = look_s
        self._placements = placements

    def make(self, offer: Offer, spec: LaunchSpec, sku: Callable[[], Sku | None]) -> Machine:
        """Order all parts; raises once everything that was made is away again, or is surely going.

        Else the error says in ``outcome_unknown`` that something may be left.
        """
        names, group = Names.of(spec.token), self._account.group
        if (there := self.machine(group, names.machine)) is not None:
            return there
        try:
            return self._made(offer, spec, names, sku)
        except ProviderError as error:
            if not error.outcome_unknown:
                error.outcome_unknown = not self._undone(group, names)
            raise

    def machine(self, group: str, name: str) -> Machine | None:
        """One machine with what it does now; ``None`` when it is not there."""
        from gpucloud_azure.api import COMPUTE, Machine

        where = self._account.vm_id(group, name)
        try:
            body = self._http.get(where, params={"api-version": COMPUTE, "$expand": "instanceView"})
        except NotFound:
            return None
        return Rows(self._account.provider).envelope(Machine.model_validate, body)

    def settled(self, group: str, name: str) -> Machine | None:
        """The machine once it has hardware, or is refused it, or ``look_s`` have passed."""
        from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

        def undecided(machine: Machine | None) -> bool:
            return machine is not None and machine.power not in UP and not machine.failure

        looking = Retrying(
            retry=retry_if_result(undecided),
            stop=stop_after_delay(self._look_s),
            wait=wait_fixed(min(LOOK_AGAIN_S, self._look_s)),
            retry_error_callback=lambda last: last.outcome.result() if last.outcome else None,
        )
        return looking(self.machine, group, name)

    def refused(self, machine: Machine) -> ProviderError | None:
        """Why Azure could not give it hardware; ``None`` while it has not said so."""
        failure = machine.failure
        if failure is None or machine.power in UP:
            return None
        return refusal(self._account.provider, 409, failure.code, failure.message)

    def discard(self, group: str, names: Names, wait_s: float = 0) -> None:
        """Let everything go; a part that another still uses goes with that, or the next time.

        Without ``wait_s`` nothing is waited for.
        """
        compute, network = self._clients.compute, self._clients.network
        machine = self.machine(group, names.machine)
        if machine is not None:
            # Disk, interface and address go with it: they say so in their delete options.
            self._delete(partial(compute.virtual_machines.begin_delete, group, names.machine), wait_s)
            if placement := machine.properties.proximity_placement_group:
                self._placements[names.machine] = placement.id
            if not wait_s:
                return
        for begin in (
            partial(network.network_interfaces.begin_delete, group, names.interface),
            partial(network.public_ip_addresses.begin_delete, group, names.address),
            partial(compute.disks.begin_delete, group, names.disk),
        ):
            with suppress(Rejected):
                self._delete(begin, wait_s)
        self._leave(self._placements.pop(names.machine, ""))

    def _made(
        self, offer: Offer, spec: LaunchSpec, names: Names, of_sku: Callable[[], Sku | None]
    ) -> Machine:
        region, group, network = offer.region or "", self._account.group, Network(self._account)
        sku = of_sku()
        if sku is None:
            raise refusal(
                self._account.provider, 409, "SkuNotAvailable", f"{region} has no {offer.instance_type}"
            )
        image = self._image(offer, spec, sku)
        subnet = network.make(self._http, self._clients, region, ipv6=ipv6_alone(spec.ssh_from))
        parallel: dict[str, Callable[[], Any]] = {
            "rules": partial(network.let_in, self._http, self._clients, region, spec.ssh_from),
            "address": partial(self._address, region, spec, names),
            "placement": partial(self._placement, region, spec, sku),
        }
        done = results(run_all(parallel))
        interface = self._interface(region, spec, names, sku, subnet, done["address"])
        # Whoever made the firewall at the same moment may have written it anew, without our rules.
        network.let_in(self._http, self._clients, region, spec.ssh_from)
        body = _order(offer, spec, names, sku, image, interface, done["placement"])
        try:
            with self._account.translated():
                # The type of what is asked for knows the fields only one by one.
                order: Any = body
                self._clients.compute.virtual_machines.begin_create_or_update(
                    group, names.machine, order, polling=False
                )
        except Rejected as error:
            if error.vendor_code != TAKEN:
                raise
        machine = self.settled(group, names.machine)
        if machine is None:
            text = f"{names.machine} was gone a moment after it was ordered"
            raise refusal(self._account.provider, 409, "AllocationFailed", text)
        if refused := self.refused(machine):
            raise refused
        return machine

    def _image(self, offer: Offer, spec: LaunchSpec, sku: Sku) -> Mapping[str, str]:
        if not spec.image:
            return Gallery(self._account).current(self._http, offer.region or "", sku, offer.gpu)
        image = reference(spec.image)
        if image is None:
            raise Unsupported(
                f"{spec.image!r} is no image of {self._account.provider}",
                provider=self._account.provider,
                why="it is neither PUBLISHER:OFFER:SKU:VERSION nor an id",
                hint="az vm image list --publisher microsoft-dsvm --all --output table",
            )
        return image

    def _address(self, region: str, spec: LaunchSpec, names: Names) -> str:
        version = "IPv6" if ipv6_alone(spec.ssh_from) else "IPv4"
        body: Any = {
            "location": region,
            "tags": spec.tags,
            "sku": {"name": "Standard"},
            "properties": {"publicIPAllocationMethod": "Static", "publicIPAddressVersion": version},
        }
        with self._account.translated():
            made = self._clients.network.public_ip_addresses.begin_create_or_update(
                self._account.group, names.address, body
            ).result(WAIT_S)
            return str(made.id)

    def _interface(
        self, region: str, spec: LaunchSpec, names: Names, sku: Sku, subnet: str, address: str
    ) -> str:
        public = {"publicIPAddress": {"id": address, "properties": {"deleteOption": "Delete"}}}
        inside = {"subnet": {"id": subnet}}
        configurations = {"primary": {"primary": True, **inside}}
        # The primary one must be of IPv4.
        if ipv6_alone(spec.ssh_from):
            configurations["ipv6"] = {"privateIPAddressVersion": "IPv6", **inside, **public}
        else:
            configurations["primary"] |= public
        body: Any = {
            "location": region,
            "tags": spec.tags,
            "properties": {
                "enableAcceleratedNetworking": sku.can("AcceleratedNetworkingEnabled"),
                "ipConfigurations": [
                    {"name": name, "properties": each} for name, each in configurations.items()
                ],
            },
        }
        create = self._clients.network.network_interfaces.begin_create_or_update
        order = partial(create, self._account.group, names.interface, body)
        return self._account.in_turn(lambda: str(order().result(WAIT_S).id))

    def _placement(self, region: str, spec: LaunchSpec, sku: Sku) -> str | None:
        """The placement group that the nodes have in common; its last node takes it away."""
        if not spec.group or spec.nodes < 2:
            return None
        body: Any = {
            "location": region,
            "tags": SHARED,
            "properties": {"proximityPlacementGroupType": "Standard", "intent": {"vmSizes": [sku.name]}},
        }
        name = Names.of(spec.group).machine
        with self._account.translated():
            made = self._clients.compute.proximity_placement_groups.create_or_update(
                self._account.group, f"gpucloud-{name}", body
            )
            return str(made.id)

    def _undone(self, group: str, names: Names) -> bool:
        """Whether everything is surely away."""
        try:
            self.discard(group, names, WAIT_S)
            return self.machine(group, names.machine) is None
        except ProviderError as error:
            log.warning(
                "%s: what %s left is still there: %s", self._account.provider, names.machine, error.message
            )
            return False

    def _delete(self, begin: Callable[..., Any], wait_s: float) -> None:
        with suppress(NotFound), self._account.translated():
            if wait_s:
                begin().result(wait_s)
            else:
                begin(polling=False)

    def _leave(self, placement: str) -> None:
        """Delete a placement group of ours whose last node has gone; Azure refuses while there are others."""
        found = ResourceId.parse(placement)
        if found and found.name.startswith("gpucloud-"):
            with suppress(Rejected, NotFound), self._account.translated():
                self._clients.compute.proximity_placement_groups.delete(found.group, found.name)


def _order(
    offer: Offer,
    spec: LaunchSpec,
    names: Names,
    sku: Sku,
    image: Mapping[str, str],
    interface: str,
    placement: str | None,
) -> dict[str, Any]:
    """The machine as Azure wants it described."""
    key = {"path": f"/home/{USER}/.ssh/authorized_keys", "keyData": spec.public_key}
    disk = {
        "name": names.disk,
        "createOption": "FromImage",
        "deleteOption": "Delete",
        "managedDisk": {"storageAccountType": "Premium_LRS" if sku.can("PremiumIO") else "Standard_LRS"},
    }
    properties: dict[str, Any] = {
        "hardwareProfile": {"vmSize": offer.instance_type},
        "storageProfile": {
            "imageReference": dict(image),
            "osDisk": disk | ({"diskSizeGB": spec.disk_gib} if spec.disk_gib else {}),
        },
        "osProfile": {
            "computerName": names.machine,
            "adminUsername": USER,
            "customData": base64.b64encode(user_data(spec, powers_off=False).encode()).decode(),
            "linuxConfiguration": {"disablePasswordAuthentication": True, "ssh": {"publicKeys": [key]}},
        },
        "networkProfile": {
            "networkInterfaces": [
                {"id": interface, "properties": {"primary": True, "deleteOption": "Delete"}}
            ]
        },
    }
    if offer.market is Market.SPOT:
        most = spec.max_usd_per_hour
        price = float(most.quantize(PRICE_GRAIN, ROUND_DOWN)) if most is not None else UNLIMITED
        properties |= {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": price}}
    if placement:
        properties["proximityPlacementGroup"] = {"id": placement}
    return {"location": offer.region, "tags": spec.tags, "properties": properties}
