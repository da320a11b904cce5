"""The state of the tests' Azure: things with ids and properties, what becomes of them, and what they bill."""

from __future__ import annotations

import base64
import copy
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tests.harness.azure import market, networking
from tests.harness.azure.networking import IPV6
from tests.harness.azure.schemas import faults

Body = dict[str, Any]

MACHINE: Final = "microsoft.compute/virtualmachines"
DISK: Final = "microsoft.compute/disks"
PLACEMENT: Final = "microsoft.compute/proximityplacementgroups"
ADDRESS: Final = "microsoft.network/publicipaddresses"
INTERFACE: Final = "microsoft.network/networkinterfaces"
SECURITY: Final = "microsoft.network/networksecuritygroups"
RULE: Final = "microsoft.network/networksecuritygroups/securityrules"
NETWORK: Final = "microsoft.network/virtualnetworks"
GROUP: Final = "microsoft.resources/resourcegroups"
BILLED: Final = (MACHINE, DISK, ADDRESS)

ALLOCATION_FAILED: Final = "Allocation failed. We do not have sufficient capacity for the requested VM size."
SPELLINGS: Final = {
    MACHINE: "Microsoft.Compute/virtualMachines",
    DISK: "Microsoft.Compute/disks",
    PLACEMENT: "Microsoft.Compute/proximityPlacementGroups",
    ADDRESS: "Microsoft.Network/publicIPAddresses",
    INTERFACE: "Microsoft.Network/networkInterfaces",
    SECURITY: "Microsoft.Network/networkSecurityGroups",
    NETWORK: "Microsoft.Network/virtualNetworks",
    GROUP: "Microsoft.Resources/resourceGroups",
}


class Refusal(Exception):
    """What Azure answers instead."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class BootInfo:
    """What a new machine is told: its id, the user data for cloud-init, and of which kind its address is."""

    id: str
    user_data: str
    version: str


@dataclass(slots=True)
class Machine:
    """One instance that was ever made."""

    id: str
    token: str
    tags: dict[str, str]
    state: str
    created_at: datetime
    ended_at: datetime | None = None
    body: Body = field(default_factory=dict)


@dataclass(slots=True)
class Thing:
    """Anything with an id; ``reads`` are left until it changes, and ``hidden`` listings do not show it."""

    id: str
    kind: str
    body: Body
    power: str = ""
    reads: int = 0
    failure: tuple[str, str] | None = None
    hidden: int = 0

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]

    @property
    def group(self) -> str:
        return self.id.split("/")[4].lower()

    @property
    def properties(self) -> Body:
        found: Body = self.body.setdefault("properties", {})
        return found

    @property
    def provisioning(self) -> str:
        return str(self.properties.get("provisioningState", ""))

    @provisioning.setter
    def provisioning(self, state: str) -> None:
        self.properties["provisioningState"] = state


def _quiet(_: str) -> None:
    return None


def _somewhere(info: BootInfo) -> str:
    return "2001:db8::10" if info.version == IPV6 else "203.0.113.10"


class Cloud:
    """One subscription. All that it does is done under ``lock``."""

    def __init__(self, regions: tuple[str, ...] = ("eastus", "westeurope")) -> None:
        self.lock = threading.RLock()
        self.regions = regions
        self.skus = {region: market.skus(region) for region in regions}
        self.prices = {region: market.prices(region) for region in regions}
        self.usages = {region: {"cores": (10, 1000), "lowPriorityCores": (0, 500)} for region in regions}
        self.images = {path: list(kinds) for path, kinds in market.IMAGES.items()}
        self.scores: dict[tuple[str, str], tuple[str, bool]] = {}
        self.evictions: dict[tuple[str, str], str] = {}
        self.on_boot: Callable[[BootInfo], str] = _somewhere
        self.on_end: Callable[[str], None] = _quiet
        self.requests: list[tuple[str, str]] = []
        self.violations: list[str] = []
        """What was sent or answered against Azure's own types."""
        self.boot_reads = 0
        """How often a new machine is read before it has hardware."""
        self.end_reads = 1
        self.operation_reads = 1
        self.listing_lag = 0
        """How many listings of its type do not show what was just made."""
        self.hooks: dict[tuple[str, str], Callable[[], object]] = {}
        """What happens, once, just before a request of that method for that kind of thing."""
        self._things: dict[str, Thing] = {}
        self._machines: dict[str, Machine] = {}
        self._no_capacity: dict[tuple[str, str], tuple[str, str]] = {}
        self._failing: list[tuple[str, str, int]] = []
        self._refusals: list[tuple[str, str, Refusal]] = []
        self._forbidden: list[tuple[str, str]] = []
        self._throttles: list[float] = []
        self._numbers = itertools.count(1)
        self._operations: dict[str, int] = {}

    # -- what tests see ----------------------------------------------------------------------------

    def instances(self) -> list[Machine]:
        """All machines that were ever made."""
        with self.lock:
            for machine in self._machines.values():
                thing = self._things.get(machine.id.lower())
                machine.state = thing.power or thing.provisioning if thing else "gone"
            return list(self._machines.values())

    def billing(self) -> list[str]:
        """The ids of what costs something at this moment."""
        with self.lock:
            return [
                each.id
                for each in self._things.values()
                if each.kind in BILLED and (each.kind != MACHINE or each.power != "deallocated")
            ]

    def things(self, kind: str) -> list[Thing]:
        """What there is of one type, by id."""
        with self.lock:
            return [self._things[key] for key in sorted(self._things) if self._things[key].kind == kind]

    # -- what tests let happen ---------------------------------------------------------------------

    def out_of(self, size: str, region: str, code: str = "AllocationFailed") -> None:
        """Let there be none: at once for ``SkuNotAvailable``, else only after the machine is there."""
        self._no_capacity[size, region] = (code, ALLOCATION_FAILED)

    def back_in(self, size: str, region: str) -> None:
        """Let there be some again."""
        self._no_capacity.pop((size, region), None)

    def quota(self, region: str, name: str, limit: int, used: int = 0) -> None:
        """Limit the vCPUs of a family, of all machines, or of all spot machines."""
        self.usages[region][name] = (used, limit)

    def fail_next(self, code: str, message: str, after_reads: int = 0) -> None:
        """Let the next machine fail once it was read so often."""
        self._failing.append((code, message, after_reads))

    def refuse(self, method: str, kind: str, refusal: Refusal) -> None:
        """Answer the next request of that method for that kind of thing, or to such a path, so."""
        self._refusals.append((method, kind.lower(), refusal))

    def forbid(self, action: str, path_part: str) -> None:
        """Do not allow what has this in its path or its filter, for want of the permission for ``action``."""
        self._forbidden.append((action, path_part.lower()))

    def throttle(self, times: int, retry_after: float = 0.01) -> None:
        """Answer so many requests with 429."""
        self._throttles += [retry_after] * times

    def evict(self, name: str) -> None:
        """Take a spot machine back."""
        with self.lock:
            for thing in self.things(MACHINE):
                if thing.name == name and thing.properties.get("priority") == "Spot":
                    self._end(thing)

    def put_by_others(self, kind: str, group: str, name: str, body: Body) -> Thing:
        """Something that somebody else has made."""
        path = f"/subscriptions/S/resourceGroups/{group}/providers/{SPELLINGS[kind]}/{name}"
        with self.lock:
            return self._things.setdefault(path.lower(), Thing(path, kind, copy.deepcopy(body)))

    # -- what requests do --------------------------------------------------------------------------

    def check(self, method: str, path: str) -> None:
        """Raises what was to be refused."""
        with self.lock:
            if self._throttles:
                raise Refusal(
                    429, "TooManyRequests", "The request is being throttled.", self._throttles.pop()
                )
            folded = path.lower()
            for action, part in self._forbidden:
                if part in folded:
                    text = (
                        f"The client 'us' does not have authorization to perform action '{action}' over scope"
                    )
                    raise Refusal(403, "AuthorizationFailed", text)
            for rule in self._refusals:
                if rule[0] == method and rule[1] in folded:
                    self._refusals.remove(rule)
                    raise rule[2]
            due = [key for key in self.hooks if key[0] == method and key[1] in folded]
            hooks = [self.hooks.pop(key) for key in due]
        for hook in hooks:
            hook()

    def operation(self) -> str:
        """The id of something that takes a while."""
        with self.lock:
            number = f"op-{next(self._numbers)}"
            self._operations[number] = self.operation_reads
            return number

    def operation_status(self, number: str) -> Body:
        """How far it is."""
        with self.lock:
            if number not in self._operations:
                raise Refusal(404, "NotFound", f"There is no operation {number}.")
            self._operations[number] -= 1
            if self._operations[number] >= 0:
                return {"status": "InProgress"}
            # What was waited for has come to its end.
            for thing in self.things(MACHINE):
                if thing.provisioning == "Deleting":
                    self._end(thing)
            return {"status": "Succeeded"}

    def put(self, path: str, kind: str, body: Body, edition: str | None = None) -> tuple[Body, bool]:
        """Make or change something, if it is of that edition; returns it, and whether it is new."""
        with self.lock:
            self._checked(kind, body)
            known = self._things.get(path.lower())
            if edition and (known is None or known.body.get("etag") != edition):
                text = f"Etag provided in if-match header {edition} does not match that of {path}."
                raise Refusal(412, "PreconditionFailed", text)
            if kind == RULE:
                return self._put_rule(path, body)
            if kind == GROUP:
                if known and known.body["location"] != body["location"]:
                    text = "A resource with the same name exists in another location."
                    raise Refusal(409, "InvalidResourceGroupLocation", text)
            elif f"/subscriptions/s/resourcegroups/{path.split('/')[4].lower()}" not in self._groups():
                raise Refusal(404, "ResourceGroupNotFound", "Resource group could not be found.")
            if kind == MACHINE:
                return self._put_machine(path, body, known)
            self._fitting(kind, known or Thing(path, kind, {}), body)
            thing = known or Thing(path, kind, {}, hidden=self.listing_lag)
            thing.body = copy.deepcopy(body)
            self._complete(thing)
            self._things[path.lower()] = thing
            return self.shown(thing), known is None

    def get(self, path: str, *, expand: bool = False) -> Body:
        """Read one thing; what waits for being read goes on."""
        with self.lock:
            if "/securityrules/" in path.lower():
                return self._rule(path)
            thing = self._found(path)
            self._step(thing)
            return self.shown(self._found(path), expand=expand)

    def listing(self, kind: str) -> list[Body]:
        """Everything of one type."""
        with self.lock:
            rows = []
            for thing in self.things(kind):
                self._step(thing)
                if thing.hidden > 0:
                    thing.hidden -= 1
                elif thing.id.lower() in self._things:
                    rows.append(self.shown(thing))
            return rows

    def tagged(self, name: str, value: str, kinds: Callable[[str], bool]) -> list[Body]:
        """Everything that carries a tag."""
        with self.lock:
            found = (each for each in self._things.values() if kinds(each.kind))
            return [self.shown(each) for each in found if each.body.get("tags", {}).get(name) == value]

    def in_group(self, group: str) -> list[Body]:
        """Everything in a resource group."""
        with self.lock:
            return [
                self.shown(each)
                for each in self._things.values()
                if each.kind != GROUP and each.group == group.lower()
            ]

    def delete(self, path: str) -> bool:
        """Delete something; whether it was there. Raises ``Refusal`` while something uses it."""
        with self.lock:
            thing = self._things.get(path.lower())
            if thing is None:
                return False
            if thing.kind == MACHINE:
                thing.provisioning, thing.reads = "Deleting", self.end_reads
                return True
            self._unused(thing)
            del self._things[path.lower()]
            if thing.kind == GROUP:
                for key in [k for k in self._things if k.startswith(f"{path.lower()}/")]:
                    del self._things[key]
            return True

    def power(self, path: str, action: str) -> None:
        """Start or deallocate a machine."""
        with self.lock:
            thing = self._found(path)
            size, region = thing.properties["hardwareProfile"]["vmSize"], thing.body["location"]
            if action == "deallocate":
                thing.power, thing.failure, thing.provisioning = "deallocated", None, "Succeeded"
            elif action == "start" and thing.power == "deallocated":
                if (size, region) in self._no_capacity:
                    thing.failure, thing.provisioning = self._no_capacity[size, region], "Failed"
                else:
                    thing.power, thing.provisioning, thing.reads = "starting", "Updating", self.boot_reads
            elif action == "powerOff":
                thing.power = "stopped"

    def shown(self, thing: Thing, *, expand: bool = False) -> Body:
        """A thing as Azure tells of it; machines are in a group of upper case."""
        name = (
            thing.id
            if thing.kind != MACHINE
            else thing.id.replace(f"/{thing.group}/", f"/{thing.group.upper()}/")
        )
        body = {"id": name, "name": thing.name, "type": SPELLINGS[thing.kind], **copy.deepcopy(thing.body)}
        if thing.kind == MACHINE:
            body["properties"]["osProfile"].pop("customData", None)
            if expand:
                body["properties"]["instanceView"] = {"statuses": list(self._statuses(thing))}
        if thing.kind in {GROUP}:
            return body
        if thing.kind == PLACEMENT:
            body["properties"]["virtualMachines"] = [{"id": each.id} for each in self._placed(thing)]
        self.violations += faults(thing.kind, body)
        return body

    # -- how things change -------------------------------------------------------------------------

    def _put_machine(self, path: str, body: Body, known: Thing | None) -> tuple[Body, bool]:
        properties = body["properties"]
        if known is not None:
            if known.provisioning == "Deleting":
                raise Refusal(409, "OperationNotAllowed", "The machine is being deleted.")
            if properties["osProfile"]["customData"] != known.properties["osProfile"]["customData"]:
                text = "Changing property 'osProfile.customData' is not allowed."
                raise Refusal(409, "PropertyChangeNotAllowed", text)
            return self.shown(known), False
        size, region = properties["hardwareProfile"]["vmSize"], body["location"]
        self._allowed(size, region, spot=properties.get("priority") == "Spot")
        (interface,) = properties["networkProfile"]["networkInterfaces"]
        if interface["id"].lower() not in self._things:
            raise Refusal(400, "InvalidResourceReference", f"There is no {interface['id']}.")
        placement = properties.get("proximityPlacementGroup", {}).get("id", "")
        if placement and placement.lower() not in self._things:
            raise Refusal(404, "ResourceNotFound", f"There is no {placement}.")
        thing = Thing(path, MACHINE, copy.deepcopy(body), reads=self.boot_reads, hidden=self.listing_lag)
        now = datetime.now(UTC)
        thing.provisioning = "Creating"
        thing.properties.update({"vmId": f"vm-{next(self._numbers)}", "timeCreated": now.isoformat()})
        lacking = self._no_capacity.get((size, region))
        if lacking or self._failing:
            code, text, after = (*lacking, 0) if lacking else self._failing.pop(0)
            thing.failure, thing.reads = (code, text), after
        self._things[path.lower()] = thing
        self._make_disk(thing)
        tags = dict(body.get("tags", {}))
        self._machines[path.lower()] = Machine(path, tags.get("gpucloud-token", ""), tags, "", now, body=body)
        if not thing.failure:
            data = base64.b64decode(properties["osProfile"]["customData"]).decode()
            address = self._address_of(thing)
            address["ipAddress"] = self.on_boot(BootInfo(path, data, address["publicIPAddressVersion"]))
        return self.shown(thing), True

    def _allowed(self, size: str, region: str, *, spot: bool) -> None:
        """Raises what is refused before anything is made."""
        found = next((each for each in self.skus.get(region, []) if each["name"] == size), None)
        told = {each["name"]: each["value"] for each in found["capabilities"]} if found else {}
        code, text = self._no_capacity.get((size, region), ("", ""))
        if found is None or code in {"SkuNotAvailable", "SpotPriceGreaterThanProvidedMaxPrice"}:
            raise Refusal(409, code or "SkuNotAvailable", text or f"{size} is not available in {region}.")
        for name in ("lowPriorityCores",) if spot else (found["family"], "cores"):
            used, limit = self.usages[region].get(name, (0, 10**6))
            if used + int(told["vCPUs"]) > limit:
                raise Refusal(409, "OperationNotAllowed", over_quota(name, region, used, limit))

    def _make_disk(self, machine: Thing) -> None:
        # Azure does not promise that it has the tags of its machine.
        wanted = machine.properties["storageProfile"]["osDisk"]
        path = machine.id.replace("/virtualMachines/", "/disks/").rpartition("/")[0] + f"/{wanted['name']}"
        body = {
            "location": machine.body["location"],
            "managedBy": machine.id,
            "properties": {
                "diskSizeGB": wanted.get("diskSizeGB", 30),
                "creationData": {"createOption": "FromImage"},
            },
        }
        self._things[path.lower()] = Thing(path, DISK, body, hidden=self.listing_lag)

    def _step(self, thing: Thing) -> None:
        """What a machine does once it was read often enough."""
        if thing.kind != MACHINE:
            return
        if thing.reads > 0:
            thing.reads -= 1
        elif thing.provisioning == "Deleting":
            self._end(thing)
        elif thing.failure and thing.provisioning == "Creating":
            thing.provisioning = "Failed"
        elif thing.provisioning in {"Creating", "Updating"}:
            if thing.power == "starting":
                thing.power, thing.provisioning = "running", "Succeeded"
            else:
                thing.power = "starting"

    def _end(self, thing: Thing) -> None:
        """Let a machine be gone, with what says so in its delete option."""
        del self._things[thing.id.lower()]
        for interface in thing.properties["networkProfile"]["networkInterfaces"]:
            if interface.get("properties", {}).get("deleteOption") == "Delete":
                gone = self._things.pop(interface["id"].lower(), None)
                for part in gone.properties["ipConfigurations"] if gone else ():
                    public = part["properties"].get("publicIPAddress", {})
                    if public.get("properties", {}).get("deleteOption") == "Delete":
                        self._things.pop(public["id"].lower(), None)
        disk = thing.properties["storageProfile"]["osDisk"]
        if disk.get("deleteOption") == "Delete":
            self._things.pop(
                f"{thing.id.rpartition('/virtualMachines/')[0]}/disks/{disk['name']}".lower(), None
            )
        self._machines[thing.id.lower()].ended_at = datetime.now(UTC)
        self.on_end(thing.id)

    def _complete(self, thing: Thing) -> None:
        """What Azure adds to what it was told to make."""
        thing.provisioning = "Succeeded"
        if thing.kind == GROUP:
            return
        if thing.kind == PLACEMENT:
            del thing.properties["provisioningState"]
        if thing.kind == NETWORK:
            thing.body["etag"] = f'W/"{next(self._numbers)}"'
            for part in thing.properties.get("subnets", []):
                part["id"] = f"{thing.id}/subnets/{part['name']}"
        if thing.kind == SECURITY:
            thing.properties.setdefault("securityRules", [])
        if thing.kind == INTERFACE:
            for part in thing.properties["ipConfigurations"]:
                version = part["properties"].setdefault("privateIPAddressVersion", networking.IPV4)
                number = next(self._numbers) % 250 + 4
                inside = f"fd00::{number}" if version == IPV6 else f"10.28.0.{number}"
                part["properties"]["privateIPAddress"] = inside

    def _put_rule(self, path: str, body: Body) -> tuple[Body, bool]:
        firewall = self._found(path.rpartition("/securityRules/")[0])
        name, rules = path.rpartition("/")[2], firewall.properties["securityRules"]
        others = [rule for rule in rules if rule["name"] != name]
        wanted = body["properties"]
        self._refuse(networking.of_rule(body))
        for rule in others:
            if all(rule["properties"][key] == wanted[key] for key in ("priority", "direction")):
                text = f"Security rule {name} conflicts with rule {rule['name']}."
                raise Refusal(400, "SecurityRuleConflict", text)
        made = {
            "id": path,
            "name": name,
            "properties": {**copy.deepcopy(wanted), "provisioningState": "Succeeded"},
        }
        firewall.properties["securityRules"] = [*others, made]
        return made, len(others) == len(rules)

    def _rule(self, path: str) -> Body:
        firewall, _, name = path.rpartition("/securityRules/")
        found = (each for each in self._found(firewall).properties["securityRules"] if each["name"] == name)
        rule: Body | None = next(found, None)
        if rule is None:
            raise Refusal(404, "ResourceNotFound", f"There is no rule {name}.")
        return rule

    def _unused(self, thing: Thing) -> None:
        """Raises while something uses it."""
        users = {
            ADDRESS: (INTERFACE, "PublicIPAddressCannotBeDeleted"),
            INTERFACE: (MACHINE, "NicInUse"),
            NETWORK: (INTERFACE, "InUseSubnetCannotBeDeleted"),
            SECURITY: (NETWORK, "InUseNetworkSecurityGroupCannotBeDeleted"),
        }
        if thing.kind == DISK and thing.body.get("managedBy", "").lower() in self._things:
            raise Refusal(409, "OperationNotAllowed", f"Disk {thing.name} is attached.")
        if thing.kind == PLACEMENT and self._placed(thing):
            raise Refusal(409, "OperationNotAllowed", f"{thing.name} has machines in it.")
        if thing.kind in users:
            kind, code = users[thing.kind]
            for other in self.things(kind):
                if thing.id.lower() in str(other.body).lower():
                    raise Refusal(400, code, f"{thing.name} is used by {other.name}.")

    def _placed(self, placement: Thing) -> list[Thing]:
        wanted = placement.id.lower()
        return [
            each
            for each in self.things(MACHINE)
            if each.properties.get("proximityPlacementGroup", {}).get("id", "").lower() == wanted
        ]

    def _address_of(self, machine: Thing) -> Body:
        (interface,) = machine.properties["networkProfile"]["networkInterfaces"]
        parts = networking.configurations(self._found(interface["id"]).body)
        (public,) = (part["publicIPAddress"] for part in parts if "publicIPAddress" in part)
        return self._found(public["id"]).properties

    def _statuses(self, thing: Thing) -> Iterator[Body]:
        state = thing.provisioning.lower()
        if thing.failure and thing.provisioning == "Failed":
            code, text = thing.failure
            yield {"code": f"ProvisioningState/failed/{code}", "level": "Error", "message": text}
        else:
            yield {"code": f"ProvisioningState/{state}", "level": "Info"}
        if thing.power:
            yield {"code": f"PowerState/{thing.power}", "level": "Info"}

    def _fitting(self, kind: str, known: Thing, body: Body) -> None:
        """Raises where IPv4 and IPv6 do not fit together."""
        if kind == NETWORK:
            interfaces = [each.body for each in self.things(INTERFACE)]
            self._refuse(networking.of_network({"name": known.name, **body}, known.body, interfaces))
        if kind == INTERFACE:
            bodies = {key: each.body for key, each in self._things.items()}
            self._refuse(networking.of_interface(body, bodies))

    def _refuse(self, found: Iterable[networking.Fault]) -> None:
        for fault in found:
            raise Refusal(400, fault.code, fault.text)

    def _checked(self, kind: str, body: Body) -> None:
        if kind == GROUP:
            found = sorted(set(body) - {"location", "tags", "properties", "managedBy"})
        else:
            found = faults(kind, body)
        if found:
            self.violations += found
            raise Refusal(400, "InvalidRequestContent", "; ".join(found)[:300])

    def _found(self, path: str) -> Thing:
        with suppress(KeyError):
            return self._things[path.lower()]
        code = "ResourceGroupNotFound" if path.count("/") == 4 else "ResourceNotFound"
        raise Refusal(404, code, f"The resource '{path}' was not found.")

    def _groups(self) -> set[str]:
        return {key for key, each in self._things.items() if each.kind == GROUP}


def over_quota(name: str, region: str, used: int, limit: int) -> str:
    """How Azure says that a quota does not suffice."""
    what = name if name == "lowPriorityCores" else f"{name} Cores"
    where = f"Deployment Model: Resource Manager, Location: {region}"
    return (
        f"Operation could not be completed as it results in exceeding approved {what} quota. Additional "
        f"details - {where}, Current Limit: {limit}, Current Usage: {used}. "
        "Submit a request for Quota increase at https://aka.ms/ProdportalCRP/ask by specifying parameters."
    )
