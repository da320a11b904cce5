"""One project at Google: what is in it, what it may do, and what goes wrong there when a test says so."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from tests.harness.gcp import shelf
from tests.harness.gcp.cards import card_faults, name_of, network_faults, profile_of, subnet_faults
from tests.harness.gcp.fields import masked
from tests.harness.gcp.shelf import region_of

Row = dict[str, Any]
WWW: Final = "https://www.googleapis.com/compute/v1/"
ADDRESS: Final = "203.0.113.10"
GONE: Final = "GONE"
QUEUED: Final = "FLEX_START"
QUEUE_LIMITS: Final = {"maxRunDuration": (600, 7 * 86400), "requestValidForDuration": (90, 7200)}
HYPERDISK: Final = ("a4", "g4", "a3-ultragpu", "c4", "ct6e", "tpu7x")
"""What takes no other disks."""

RUNS: Final = {"PROVISIONING", "STAGING", "RUNNING", "STOPPING"}
STOCK_OUT: Final = (
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
    "The zone 'projects/acme/zones/{zone}' does not have enough resources available to fulfill the request.",
)
TPU_QUOTA: Final = "TPUS_PER_TPU_FAMILY"
"""That of TPUs, which counts and is not told with the region."""

QUOTA_OF: Final = {"nvidia-tesla-a100": "A100", "nvidia-l4": "L4", "nvidia-tesla-t4": "T4"}


class Refused(Exception):
    """A request that Google does not do: the HTTP status, Google's word for why, and its sentence."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class BootInfo:
    """What a new instance is told: its own name, and its metadata, as its metadata server would have it."""

    id: str
    zone: str
    metadata: Mapping[str, str]

    @property
    def user_data(self) -> str:
        """What cloud-init would read."""
        return self.metadata.get("user-data", "")


@dataclass(frozen=True, slots=True)
class Seen:
    """One instance, living or not, as a test wants to see it."""

    id: str
    zone: str
    token: str | None
    tags: Mapping[str, str]
    state: str
    created_at: datetime
    ended_at: datetime | None


@dataclass(slots=True)
class Machine:
    """One instance. ``hidden`` is in how many listings it will still be missing."""

    row: Row
    zone: str
    made_at: datetime
    address: str
    hidden: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def metadata(self) -> dict[str, str]:
        return {item["key"]: item["value"] for item in self.row.get("metadata", {}).get("items", [])}


@dataclass(slots=True)
class Work:
    """An operation. ``looks`` is how often it will still be found unfinished, as it is while it ``waits``."""

    row: Row
    looks: int
    error: tuple[str, str] | None = None
    details: list[Row] = field(default_factory=list)
    waits: bool = False


def nobody_boots(_: BootInfo) -> str:
    """An address where nobody answers."""
    return ADDRESS


def nobody_cares(_: str) -> None:
    """Nobody wants to know that an instance has ended."""


@dataclass(slots=True)
class Project:
    """The project ``acme``. Everything public is for tests to set before, or between, requests.

    ``profiles`` are those that networks may have. ``full`` are machine types and zones without stock,
    ``limits`` quotas by region (``""`` for the whole project) and metric, ``forbidden`` ids of methods, with
    ``@region`` for one region alone. ``throttled`` is how often a method, or with ``""`` any, is still
    answered by ``throttling``. ``breaks`` are zones in which an instance fails after its disk was made.
    ``lag`` is in how many listings a new instance is missing. ``slow`` is how often an operation is found
    unfinished. ``unreachable`` zones are left out of listings. ``calendar`` is from when on how many machines
    of a type can be reserved in a zone; what is asked for is declined when it ``declines``.
    """

    name: str = "acme"
    on_boot: Callable[[BootInfo], str] = nobody_boots
    on_end: Callable[[str], None] = nobody_cares
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    machines: dict[str, list[Row]] = field(default_factory=shelf.machines)
    skus: list[Row] = field(default_factory=shelf.skus)
    images: dict[str, list[Row]] = field(default_factory=shelf.images)
    spot: dict[tuple[str, str], str] = field(default_factory=shelf.spot_prices)
    spot_currency: str = "USD"
    obtainability: dict[tuple[str, str], float] = field(default_factory=dict)
    calendar: dict[tuple[str, str], tuple[datetime, int]] = field(default_factory=dict)
    declines: bool = False
    profiles: set[str] = field(default_factory=lambda: {f"us-central1-{zone}-vpc-roce" for zone in "ab"})
    full: set[tuple[str, str]] = field(default_factory=set)
    stock_out: tuple[str, str] = STOCK_OUT
    limits: dict[tuple[str, str], float] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    throttled: dict[str, int] = field(default_factory=dict)
    throttling: tuple[int, str] = (429, "rateLimitExceeded")
    breaks: set[str] = field(default_factory=set)
    lag: int = 0
    slow: int = 1
    unreachable: set[str] = field(default_factory=set)
    page: int = 500
    lock: threading.RLock = field(default_factory=threading.RLock)
    _machines: dict[tuple[str, str], Machine] = field(default_factory=dict)
    _ended: list[Machine] = field(default_factory=list)
    _disks: dict[tuple[str, str], Row] = field(default_factory=dict)
    _networks: dict[str, Row] = field(default_factory=dict)
    _subnets: dict[tuple[str, str], Row] = field(default_factory=dict)
    _leaving: dict[str, Row] = field(default_factory=dict)
    _firewalls: dict[str, Row] = field(default_factory=dict)
    _policies: dict[tuple[str, str], Row] = field(default_factory=dict)
    _futures: dict[tuple[str, str], Row] = field(default_factory=dict)
    _works: dict[str, Work] = field(default_factory=dict)
    _asked: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1000))

    # -- what tests look at ------------------------------------------------------------------------

    def instances(self) -> list[Seen]:
        """All instances that ever were."""
        with self.lock:
            return [
                Seen(
                    id=machine.row["name"],
                    zone=machine.zone,
                    token=machine.metadata.get("gpucloud-token"),
                    tags={k: v for k, v in machine.metadata.items() if k.startswith("gpucloud-")},
                    state=GONE if machine.ended_at else machine.row["status"],
                    created_at=machine.made_at,
                    ended_at=machine.ended_at,
                )
                for machine in (*self._ended, *self._machines.values())
            ]

    def billing(self) -> list[str]:
        """What costs money at this moment: instances that run, and disks of which none runs."""
        with self.lock:
            running = {key for key, one in self._machines.items() if one.row["status"] in RUNS}
            return sorted(
                [f"instances/{name}" for _, name in running]
                + [f"disks/{name}" for zone, name in self._disks if (zone, name) not in running]
            )

    def row(self, name: str) -> Row:
        """A living instance as Google has it."""
        with self.lock:
            return next(one.row for (_, known), one in self._machines.items() if known == name)

    @property
    def networks(self) -> list[str]:
        """The names of the networks."""
        return sorted(self._networks)

    @property
    def subnets(self) -> dict[str, Row]:
        """The subnets that were made one by one, by name."""
        return {name: row for (_, name), row in self._subnets.items()}

    def network(self, name: str) -> Row:
        """A network as Google has it."""
        return self._networks[name]

    @property
    def firewalls(self) -> dict[str, Row]:
        """The rules of firewalls by name."""
        return dict(self._firewalls)

    @property
    def policies(self) -> list[str]:
        """The names of the placement policies."""
        return sorted(name for _, name in self._policies)

    @property
    def futures(self) -> list[Row]:
        """All reservations."""
        return list(self._futures.values())

    def add_future(self, zone: str, **row: Any) -> None:
        """A reservation that somebody else has made."""
        self._futures[zone, row["name"]] = {"kind": "compute#futureReservation", **row}

    def preempt(self, name: str) -> None:
        """Take a spot instance back."""
        with self.lock:
            machine = next(one for (_, known), one in self._machines.items() if known == name)
            machine.row["status"] = "STOPPING"
            self._work("compute.instances.preempted", "instances", name, zone=machine.zone)

    def serve_queue(self) -> None:
        """Give capacity to all instances that wait for it."""
        with self.lock:
            for machine in self._queue():
                self._start(machine)
                self._insert_of(machine).waits = False

    def close_queue(self) -> None:
        """Let the time of all instances be over that wait for capacity."""
        with self.lock:
            for machine in self._queue():
                code, text = self.stock_out
                work = self._insert_of(machine)
                work.waits, work.error = False, (code, text.format(zone=machine.zone))
                self._end((machine.zone, machine.row["name"]))

    def _queue(self) -> list[Machine]:
        return [machine for machine in self._machines.values() if machine.row["status"] == "PENDING"]

    def _insert_of(self, machine: Machine) -> Work:
        ends = f"/zones/{machine.zone}/instances/{machine.row['name']}"
        return next(one for one in self._works.values() if one.row["targetLink"].endswith(ends))

    def forget(self) -> None:
        """Forget which requests were answered, as Google does after some hours."""
        self._asked.clear()

    def finish(self) -> None:
        """Let all operations be over."""
        with self.lock:
            for work in self._works.values():
                work.looks = 0

    def add_machine(self, name: str, zone: str, **row: Any) -> None:
        """An instance that somebody else has made."""
        with self.lock:
            self._machines[zone, name] = Machine(
                {
                    "kind": "compute#instance",
                    "id": "1",
                    "name": name,
                    "zone": f"{WWW}projects/{self.name}/zones/{zone}",
                    "status": "RUNNING",
                    **row,
                },
                zone,
                self.clock(),
                ADDRESS,
            )

    def add_firewall(self, name: str, **row: Any) -> None:
        """A rule that somebody else has made."""
        self._firewalls[name] = {"kind": "compute#firewall", "name": name, **row}

    # -- requests ----------------------------------------------------------------------------------

    def answer(self, method: str, path: Mapping[str, str], query: Mapping[str, str], body: Any) -> Row:
        """Do what is asked. Raises ``Refused``."""
        with self.lock:
            self._prevent(method, path)
            self._pass_time()
            known = self._asked.get(query.get("requestId", ""))
            if known:
                return self._told(self._works[known])
            interface, _, rest = method.partition(".")
            handler = getattr(self, f"_{interface}_{rest.replace('.', '_')}".lower(), None)
            if handler is None:
                raise Refused(501, "notImplemented", f"{method} is not there")
            told: Row = handler(path, query, body)
            if told.get("kind") == "compute#operation" and "requestId" in query:
                self._asked[query["requestId"]] = told["name"]
                self._works[told["name"]].row["clientOperationId"] = query["requestId"]
            return told

    def _prevent(self, method: str, path: Mapping[str, str]) -> None:
        for name in (method, ""):
            if self.throttled.get(name, 0) > 0:
                self.throttled[name] -= 1
                raise Refused(*self.throttling, "Quota exceeded for quota metric 'Queries'.")
        if method.partition(".")[0] in self.disabled:
            text = "API has not been used in project acme before or it is disabled."
            raise Refused(403, "accessNotConfigured", text)
        place = path.get("region") or region_of(path.get("zone", ""))
        if {method, f"{method}@{place}"} & self.forbidden:
            text = f"Required '{method}' permission for 'projects/{self.name}'"
            raise Refused(403, "forbidden", text)

    def _pass_time(self) -> None:
        """By the next request what starts is up, what stops is down, and what has expired is gone."""
        for key, machine in list(self._machines.items()):
            row, scheduling = machine.row, machine.row.get("scheduling", {})
            lasts = scheduling.get("maxRunDuration", {}).get("seconds")
            began = machine.started_at
            if lasts and began and began + timedelta(seconds=int(lasts)) <= self.clock():
                self._end(key)
            elif row["status"] in {"PROVISIONING", "STAGING"}:
                row["status"] = "RUNNING"
            elif row["status"] == "STOPPING" and row.pop("_ends", None):
                self._end(key)
            elif row["status"] == "STOPPING":
                delete = scheduling.get("instanceTerminationAction") == "DELETE" and "_stops" not in row
                row.pop("_stops", None)
                row.update({"_ends": True} if delete else {"status": "TERMINATED"})

    def _end(self, key: tuple[str, str]) -> None:
        machine = self._machines.pop(key)
        machine.ended_at = self.clock()
        self._ended.append(machine)
        for disk in machine.row.get("disks", []):
            if disk.get("autoDelete"):
                self._disks.pop((machine.zone, disk["source"].rpartition("/")[2]), None)
        self.on_end(key[1])

    # -- operations --------------------------------------------------------------------------------

    def _work(
        self,
        kind: str,
        collection: str,
        target: str,
        *,
        zone: str = "",
        region: str = "",
        error: tuple[str, str] | None = None,
        details: list[Row] | None = None,
    ) -> Row:
        number = next(self._numbers)
        place = {"zones": zone, "regions": region}
        where = next((f"{key}/{value}" for key, value in place.items() if value), "global")
        now = f"{self.clock():%Y-%m-%dT%H:%M:%S}.000-00:00"
        row: Row = {
            "kind": "compute#operation",
            "id": str(number),
            "name": f"operation-{number}",
            "operationType": kind,
            "targetLink": f"{WWW}projects/{self.name}/{where}/{collection}/{target}",
            "targetId": str(number),
            "user": "somebody@example.com",
            "insertTime": now,
            **({"zone": f"{WWW}projects/{self.name}/zones/{zone}"} if zone else {}),
            **({"region": f"{WWW}projects/{self.name}/regions/{region}"} if region else {}),
        }
        self._works[row["name"]] = work = Work(row, self.slow, error, details or [])
        return self._told(work)

    def _told(self, work: Work) -> Row:
        if work.looks or work.waits:
            status = "PENDING" if work.looks == self.slow else "RUNNING"
            return {**work.row, "status": status, "progress": 0}
        done: Row = {**work.row, "status": "DONE", "progress": 100}
        if work.error:
            code, message = work.error
            fault: Row = {"code": code, "message": message}
            if work.details:
                fault["errorDetails"] = work.details
            done |= {
                "error": {"errors": [fault]},
                "httpErrorStatusCode": 503,
                "httpErrorMessage": "SERVICE UNAVAILABLE",
            }
        return done

    def _seen_again(self, path: Mapping[str, str]) -> Row:
        work = self._works.get(path["operation"])
        if work is None:
            raise not_found(f"operations/{path['operation']}")
        work.looks = max(0, work.looks - 1)
        return self._told(work)

    def _compute_zoneoperations_wait(self, path: Mapping[str, str], *_: Any) -> Row:
        return self._seen_again(path)

    def _compute_zoneoperations_get(self, path: Mapping[str, str], *_: Any) -> Row:
        return self._seen_again(path)

    def _compute_globaloperations_wait(self, path: Mapping[str, str], *_: Any) -> Row:
        return self._seen_again(path)

    def _compute_regionoperations_wait(self, path: Mapping[str, str], *_: Any) -> Row:
        return self._seen_again(path)

    def _compute_zoneoperations_list(self, path: Mapping[str, str], query: Mapping[str, str], _: Any) -> Row:
        rows = [
            self._told(work)
            for work in self._works.values()
            if work.row.get("zone", "").endswith(path["zone"])
        ]
        return {"kind": "compute#operationList", "items": [one for one in rows if matches(query, one)]}

    # -- what there is to rent ---------------------------------------------------------------------

    def _by_scope(
        self, kind: str, rows: list[tuple[str, Row]], key: str, query: Mapping[str, str], scopes: list[str]
    ) -> Row:
        """An aggregated list: so many rows of a page, each below its zone or region."""
        first = int(query.get("pageToken", "page-0").removeprefix("page-"))
        size = min(self.page, int(query.get("maxResults", 500)))
        good = [(scope, row) for scope, row in rows if matches(query, row)]
        lost = [scope for scope in scopes if scope.removeprefix("zones/") in self.unreachable]
        shown = [(scope, row) for scope, row in good if scope not in lost][first : first + size]
        items: dict[str, Row] = {
            scope: {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results."}}
            for scope in scopes
        }
        for scope, row in shown:
            items[scope].pop("warning", None)
            items[scope].setdefault(key, []).append(row)
        for scope in lost:
            items[scope] = {"warning": {"code": "UNREACHABLE", "message": f"{scope} does not answer"}}
        more = first + size < len(good)
        return {
            "kind": kind,
            "id": f"projects/{self.name}/aggregated/{key}",
            "items": items,
            **({"unreachables": lost} if lost else {}),
            **({"nextPageToken": f"page-{first + size}"} if more else {}),
        }

    def _zones(self) -> list[str]:
        return [f"zones/{zone}" for zone in shelf.ZONES]

    def _compute_machinetypes_aggregatedlist(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        rows = [(f"zones/{zone}", row) for zone, types in self.machines.items() for row in types]
        return self._by_scope("compute#machineTypeAggregatedList", rows, "machineTypes", query, self._zones())

    def _compute_machinetypes_get(self, path: Mapping[str, str], *_: Any) -> Row:
        return self._type(path["zone"], path["machineType"])

    def _type(self, zone: str, name: str) -> Row:
        for row in self.machines.get(zone, []):
            if row["name"] == name:
                return row
        raise not_found(f"zones/{zone}/machineTypes/{name}")

    def _compute_acceleratortypes_aggregatedlist(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        rows = [
            (f"zones/{zone}", {"kind": "compute#acceleratorType", "name": name, "maximumCardsPerInstance": 4})
            for zone, names in shelf.ACCELERATORS.items()
            for name in names
        ]
        kind = "compute#acceleratorTypeAggregatedList"
        return self._by_scope(kind, rows, "acceleratorTypes", query, self._zones())

    def _quotas(self, region: str) -> list[Row]:
        return [
            {"metric": metric, "limit": limit, "usage": self._used(metric, region)}
            for (place, metric), limit in self.limits.items()
            if place == region and metric != TPU_QUOTA
        ]

    def _used(self, metric: str, region: str) -> float:
        if metric == "NETWORKS":
            return float(len(self._networks))
        used = 0
        for (zone, _), machine in self._machines.items():
            if region in {"", region_of(zone)}:
                used += self._wanted(machine.row, zone).get(metric, 0)
        return float(used)

    def _wanted(self, row: Row, zone: str) -> dict[str, int]:
        """What an instance takes of each quota."""
        kind = self._type(zone, row["machineType"].rpartition("/")[2]) if "machineType" in row else {}
        fitted = [
            (each["guestAcceleratorType"], each["guestAcceleratorCount"])
            for each in kind.get("accelerators", [])
        ]
        fitted += [
            (each["acceleratorType"].rpartition("/")[2], each["acceleratorCount"])
            for each in row.get("guestAccelerators", [])
        ]
        spot = row.get("scheduling", {}).get("provisioningModel") in {"SPOT", QUEUED}
        wanted: dict[str, int] = {}
        for name, number in fitted:
            if name.startswith(("ct", "tpu")):
                wanted[TPU_QUOTA] = number
                continue
            metric = f"NVIDIA_{QUOTA_OF.get(name, name)}_GPUS"
            region = region_of(zone)
            if spot and self.limits.get((region, f"PREEMPTIBLE_{metric}")):
                metric = f"PREEMPTIBLE_{metric}"
            wanted |= {metric: number, "GPUS_ALL_REGIONS": number}
        return wanted

    def _compute_regions_list(self, *_: Any) -> Row:
        names = sorted({region_of(zone) for zone in shelf.ZONES})
        return {"kind": "compute#regionList", "items": [self._region(name) for name in names]}

    def _compute_regions_get(self, path: Mapping[str, str], *_: Any) -> Row:
        return self._region(path["region"])

    def _region(self, name: str) -> Row:
        return {"kind": "compute#region", "name": name, "status": "UP", "quotas": self._quotas(name)}

    def _compute_projects_get(self, *_: Any) -> Row:
        return {"kind": "compute#project", "name": self.name, "quotas": self._quotas("")}

    def _compute_advice_capacityhistory(self, path: Mapping[str, str], _: Any, body: Row) -> Row:
        kind = body["instanceProperties"]["machineType"]
        price = self.spot.get((path["region"], kind))
        ends = {"startTime": shelf.SINCE}
        rates = [{"interval": {**ends, "endTime": "2026-11-20T08:00:00Z"}, "preemptionRate": 0.05}]
        return {
            "machineType": kind,
            "location": f"{WWW}projects/{self.name}/regions/{path['region']}",
            "priceHistory": [{"interval": ends, "listPrice": shelf.money(price, self.spot_currency)}]
            if price and "PRICE" in body["types"]
            else [],
            "preemptionHistory": rates if price and "PREEMPTION" in body["types"] else [],
        }

    def _compute_advice_capacity(self, path: Mapping[str, str], _: Any, body: Row) -> Row:
        zone = body["distributionPolicy"]["zones"][0]["zone"].rpartition("/")[2]
        (selection,) = body["instanceFlexibilityPolicy"]["instanceSelections"].values()
        (kind,) = selection["machineTypes"]
        self._type(zone, kind)
        fitted = [f"+{each['acceleratorType']}" for each in selection.get("guestAccelerators", [])]
        score = self.obtainability.get(("".join([kind, *fitted]), zone))
        if score is None:
            return {"recommendations": []}
        shard = {"machineType": kind, "zone": f"zones/{zone}", "provisioningModel": "SPOT"}
        told = {"scores": {"obtainability": score, "estimatedUptime": "3600s"}, "shards": [shard]}
        return {"recommendations": [told | {"shards": [{**shard, "instanceCount": body["size"]}]}]}

    def _compute_advice_calendarmode(self, path: Mapping[str, str], _: Any, body: Row) -> Row:
        ((name, spec),) = body["futureResourcesSpecs"].items()
        asked, times = spec["targetResources"]["specificSkuResources"], spec["timeRangeSpec"]
        kind, number = asked["machineType"], int(asked["instanceCount"])
        lasts = timedelta(seconds=int(times["minDuration"].removesuffix("s")))
        self._check_reserved(number, lasts)
        earliest, latest = (
            datetime.fromisoformat(times[f"startTimeNot{which}Than"]) for which in ("Earlier", "Later")
        )
        others = {}
        for (of_kind, zone), (free_from, free) in self.calendar.items():
            if of_kind != kind or region_of(zone) != path["region"]:
                continue
            starts = max(earliest, free_from)
            if starts <= latest and number <= free:
                found = {
                    "recommendationId": "3f1e4b6e-0c86-4f7e-a3a4-0f4c4cf7f4d1",
                    "recommendationType": "FUTURE_RESERVATION",
                    "location": f"zones/{zone}",
                    "startTime": written(starts),
                    "endTime": written(starts + lasts),
                }
                return {"recommendations": [{"recommendationsPerSpec": {name: found}}]}
            others[f"zones/{zone}"] = {"status": "NO_CAPACITY", "details": "There is no capacity."}
        return {"recommendations": [{"recommendationsPerSpec": {name: {"otherLocations": others}}}]}

    def _check_reserved(self, number: int, lasts: timedelta) -> None:
        if not (1 <= number <= 80 and timedelta(days=1) <= lasts <= timedelta(days=90)):
            raise Refused(400, "invalid", f"{number} VMs for {lasts} cannot be reserved in calendar mode")

    def _compute_futurereservations_insert(self, path: Mapping[str, str], _: Any, body: Row) -> Row:
        zone, name = path["zone"], body["name"]
        if (zone, name) in self._futures:
            raise Refused(409, "alreadyExists", f"The resource 'futureReservations/{name}' already exists")
        wanted = {
            "reservationMode": "CALENDAR",
            "planningStatus": "SUBMITTED",
            "deploymentType": "DENSE",
            "specificReservationRequired": True,
            "autoDeleteAutoCreatedReservations": True,
        }
        for key, value in wanted.items():
            if body.get(key) != value:
                raise Refused(400, "invalid", f"{key} must be {value} in calendar mode")
        starts, ends = (datetime.fromisoformat(body["timeWindow"][f"{at}Time"]) for at in ("start", "end"))
        machines = body["specificSkuProperties"]
        number, kind = int(machines["totalCount"]), machines["instanceProperties"]["machineType"]
        self._check_reserved(number, ends - starts)
        self._type(zone, kind)
        free_from, free = self.calendar.get((kind, zone), (ends, 0))
        if number > free or starts < free_from:
            code, text = self.stock_out
            error = (code, text.format(zone=zone))
            return self._work("insert", "futureReservations", name, zone=zone, error=error)
        self.calendar[kind, zone] = free_from, free - number
        self._futures[zone, name] = {
            **body,
            "kind": "compute#futureReservation",
            "zone": f"{WWW}projects/{self.name}/zones/{zone}",
        }
        return self._work("insert", "futureReservations", name, zone=zone)

    def _future(self, row: Row) -> Row:
        """A reservation as it is told at this moment; once it begins, what was reserved is there."""
        if "status" in row:
            return row
        starts = datetime.fromisoformat(row["timeWindow"]["startTime"])
        status = "FULFILLED" if starts <= self.clock() else "APPROVED"
        return {**row, "status": {"procurementStatus": "DECLINED" if self.declines else status}}

    def _compute_futurereservations_get(self, path: Mapping[str, str], *_: Any) -> Row:
        row = self._futures.get((path["zone"], path["futureReservation"]))
        if row is None:
            raise not_found(f"futureReservations/{path['futureReservation']}")
        return self._future(row)

    def _compute_futurereservations_aggregatedlist(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        rows = [(f"zones/{zone}", self._future(row)) for (zone, _), row in self._futures.items()]
        kind = "compute#futureReservationsAggregatedListResponse"
        return self._by_scope(kind, rows, "futureReservations", query, self._zones())

    def _check_reservation(self, zone: str, kind: str, body: Row) -> None:
        """Raises for an instance that is in no reservation, or in one that it does not fit into."""
        affinity = body.get("reservationAffinity", {})
        names = affinity.get("values", [])
        specific = affinity.get("consumeReservationType") == "SPECIFIC_RESERVATION"
        if (
            not specific
            or affinity.get("key") != "compute.googleapis.com/reservation-name"
            or len(names) != 1
        ):
            raise Refused(400, "invalid", "RESERVATION_BOUND needs one SPECIFIC_RESERVATION")
        rows = [self._future(row) for (place, _), row in self._futures.items() if place == zone]
        row = next((one for one in rows if one.get("reservationName") == names[0]), None)
        if row is None or row["status"]["procurementStatus"] != "FULFILLED":
            raise Refused(400, "invalid", f"Specified reservation {names[0]} does not exist")
        if row["specificSkuProperties"]["instanceProperties"]["machineType"] != kind:
            raise Refused(400, "invalid", f"{names[0]} has no {kind}")
        if self._users(zone, names[0]) >= int(row["specificSkuProperties"]["totalCount"]):
            raise Refused(400, "invalid", f"Specified reservation {names[0]} has no capacity left")

    def _users(self, zone: str, name: str) -> int:
        return sum(
            place == zone and machine.row.get("reservationAffinity", {}).get("values") == [name]
            for (place, _), machine in self._machines.items()
        )

    def _compute_reservations_aggregatedlist(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        rows = []
        for zone, future in ((zone, self._future(row)) for (zone, _), row in self._futures.items()):
            if "reservationName" in future and future["status"]["procurementStatus"] == "FULFILLED":
                name, properties = future["reservationName"], future["specificSkuProperties"]
                used = {"count": properties["totalCount"], "inUseCount": str(self._users(zone, name))}
                specific = {**used, "instanceProperties": properties["instanceProperties"]}
                row = {"kind": "compute#reservation", "name": name, "specificReservation": specific}
                rows.append((f"zones/{zone}", row))
        return self._by_scope("compute#reservationAggregatedList", rows, "reservations", query, self._zones())

    def _cloudbilling_services_skus_list(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        first = int(query.get("pageToken") or 0)
        last = first + min(self.page, int(query.get("pageSize", 5000)))
        more = str(last) if last < len(self.skus) else ""
        told: Row = {"skus": self.skus[first:last], "nextPageToken": more}
        try:
            return masked(told, query["fields"]) if "fields" in query else told
        except ValueError as error:
            raise Refused(400, "invalidParameter", str(error)) from error

    def _compute_images_list(self, path: Mapping[str, str], query: Mapping[str, str], _: Any) -> Row:
        rows = [one for one in self.images.get(path["project"], []) if matches(query, one)]
        links = {"selfLink": f"{WWW}projects/{path['project']}/global/images/"}
        return {
            "kind": "compute#imageList",
            "items": [{**one, "selfLink": links["selfLink"] + one["name"]} for one in rows],
        }

    # -- instances ---------------------------------------------------------------------------------

    def _compute_instances_insert(self, path: Mapping[str, str], _: Any, body: Row) -> Row:
        zone, name = path["zone"], body["name"]
        kind = body["machineType"].rpartition("/")[2]
        if (zone, name) in self._machines:
            raise Refused(409, "alreadyExists", f"The resource 'instances/{name}' already exists")
        self._type(zone, kind)
        self._check_parts(zone, body)
        model = body.get("scheduling", {}).get("provisioningModel")
        queued = model == QUEUED
        if model == "RESERVATION_BOUND":
            self._check_reservation(zone, kind, body)
        if queued:
            self._check_queued(zone, kind, body)
        if (kind, zone) in self.full and not queued:
            code, text = self.stock_out
            return self._refuse(zone, name, (code, text.format(zone=zone)))
        for metric, number in self._wanted(body, zone).items():
            place = "" if metric == "GPUS_ALL_REGIONS" else region_of(zone)
            limit = self.limits.get((place, metric))
            if limit is not None and self._used(metric, place) + number > limit:
                return self._refuse_quota(zone, name, metric, limit)
        if zone in self.breaks:
            self._make_disks(zone, body)
            return self._refuse(zone, name, ("INTERNAL_ERROR", "Internal error. Please try again."))
        self._make(zone, body, queued=queued)
        work = self._work("insert", "instances", name, zone=zone)
        self._works[work["name"]].waits = queued
        return work

    def _refuse(self, zone: str, name: str, error: tuple[str, str], details: list[Row] | None = None) -> Row:
        return self._work("insert", "instances", name, zone=zone, error=error, details=details)

    def _refuse_quota(self, zone: str, name: str, metric: str, limit: float) -> Row:
        where = "globally" if metric == "GPUS_ALL_REGIONS" else f"in region {region_of(zone)}"
        info = {
            "metricName": f"compute.googleapis.com/{metric.lower()}",
            "limitName": f"{metric.replace('_', '-')}-per-project-region",
            "limit": limit,
            "dimensions": {"region": region_of(zone)},
        }
        text = f"Quota '{metric}' exceeded.  Limit: {limit} {where}."
        return self._refuse(zone, name, ("QUOTA_EXCEEDED", text), [{"quotaInfo": info}])

    def _check_parts(self, zone: str, body: Row) -> None:
        """Raises for an instance that refers to what is not there."""
        cards = body["networkInterfaces"]
        for card in cards:
            self._ready(card["network"], self._networks.get(name_of(card["network"])))
            if "subnetwork" in card:
                key = region_of(zone), name_of(card["subnetwork"])
                self._ready(card["subnetwork"], self._subnets.get(key))
        kind = name_of(body["machineType"])
        self._check(card_faults(zone, kind, cards, self._networks, self._subnets))
        for policy in body.get("resourcePolicies", []):
            if (region_of(zone), policy.rpartition("/")[2]) not in self._policies:
                raise not_found(policy)
        for disk in body["disks"]:
            new = body["machineType"].rpartition("/")[2].startswith(HYPERDISK)
            if ("hyperdisk" in disk["initializeParams"]["diskType"]) is not new:
                text = f"{disk['initializeParams']['diskType']} disk type cannot be used by this machine type"
                raise Refused(400, "invalid", text)
            source = disk["initializeParams"]["sourceImage"].removeprefix(WWW)
            found = re.fullmatch(r"projects/([^/]+)/global/images/(.+)", source)
            family = found[2].removeprefix("family/") if found else ""
            shelves = self.images.get(found[1], []) if found else []
            if not any(family in {one["name"], one["family"]} for one in shelves):
                raise Refused(400, "invalid", f"Invalid value for field 'sourceImage': '{source}'")

    def _ready(self, link: str, row: Row | None) -> Row:
        """What an address leads to. Raises while that is not there or just being made."""
        if row is None:
            raise not_found(link)
        work = self._works[row["_work"]]
        if work.looks:
            # It gets done also when whoever asked for it looks at it no more.
            work.looks -= 1
            raise Refused(400, "resourceNotReady", f"The resource '{link}' is not ready")
        return row

    def _check(self, faults: Iterator[str]) -> None:
        for fault in faults:
            raise Refused(400, "invalid", fault)

    def _check_queued(self, zone: str, kind: str, body: Row) -> None:
        """Raises for what cannot wait for capacity, or not like that."""
        scheduling = body["scheduling"]
        told = {
            "maxRunDuration": scheduling.get("maxRunDuration", {}),
            "requestValidForDuration": body.get("params", {}).get("requestValidForDuration", {}),
        }
        for name, (least, most) in QUEUE_LIMITS.items():
            seconds = int(told[name].get("seconds", 0))
            if not least <= seconds <= most:
                raise Refused(400, "invalid", f"{name} is {seconds}, and must be from {least} to {most}")
        if body.get("reservationAffinity", {}).get("consumeReservationType") != "NO_RESERVATION":
            raise Refused(400, "invalid", "reservationAffinity must be NO_RESERVATION with FLEX_START")
        if scheduling.get("instanceTerminationAction") is None:
            raise Refused(400, "required", "instanceTerminationAction is missing")
        if kind.startswith("a4x-") or not self._type(zone, kind).get("accelerators"):
            raise Refused(400, "invalid", f"{kind} does not support FLEX_START")

    def _make_disks(self, zone: str, body: Row) -> None:
        for disk in body["disks"]:
            asked = disk["initializeParams"]
            name = asked.get("diskName", body["name"])
            self._disks[zone, name] = {
                "kind": "compute#disk",
                "id": str(next(self._numbers)),
                "name": name,
                "zone": f"{WWW}projects/{self.name}/zones/{zone}",
                "status": "READY",
                "sizeGb": asked.get("diskSizeGb", "10"),
                "labels": asked.get("labels", {}),
                "description": asked.get("description", ""),
            }

    def _make(self, zone: str, body: Row, *, queued: bool) -> None:
        name, now = body["name"], self.clock()
        disks = [
            {
                "kind": "compute#attachedDisk",
                "boot": disk.get("boot", False),
                "autoDelete": disk.get("autoDelete", False),
                "type": "PERSISTENT",
                "source": f"{WWW}projects/{self.name}/zones/{zone}/disks/{name}",
            }
            for disk in body["disks"]
        ]
        if self._type(zone, body["machineType"].rpartition("/")[2]).get("bundledLocalSsds"):
            disks.append(
                {"kind": "compute#attachedDisk", "type": "SCRATCH", "autoDelete": True, "source": "-"}
            )
        row = {
            **body,
            "kind": "compute#instance",
            "id": str(next(self._numbers)),
            "status": "PENDING",
            "zone": f"{WWW}projects/{self.name}/zones/{zone}",
            "machineType": f"{WWW}projects/{self.name}/{body['machineType']}",
            "creationTimestamp": f"{now:%Y-%m-%dT%H:%M:%S}.000-00:00",
            "disks": disks,
            "_asked": body["disks"],
            "tags": {**body.get("tags", {}), "fingerprint": "42WmSpB8rSM="},
        }
        machine = Machine(row, zone, now, "", hidden=self.lag)
        self._machines[zone, name] = machine
        if not queued:
            self._start(machine)

    def _start(self, machine: Machine) -> None:
        """Let a machine for which there is capacity come up, with its disks."""
        now, name = self.clock(), machine.row["name"]
        self._make_disks(machine.zone, {**machine.row, "disks": machine.row["_asked"]})
        machine.started_at = now
        machine.row |= {"status": "PROVISIONING", "lastStartTimestamp": f"{now:%Y-%m-%dT%H:%M:%S}.000-00:00"}
        machine.address = self.on_boot(BootInfo(name, machine.zone, machine.metadata))

    def _shown(self, machine: Machine) -> Row:
        """An instance as it is told: an address of its own only while it runs."""
        row = {name: value for name, value in machine.row.items() if not name.startswith("_")}
        cards = []
        for card in row.get("networkInterfaces", []):
            configs = [
                {**config, **({"natIP": machine.address} if row["status"] == "RUNNING" else {})}
                for config in card.get("accessConfigs", [])
            ]
            cards.append({**card, "networkIP": "10.128.0.2", "accessConfigs": configs})
        return {**row, "networkInterfaces": cards}

    def _compute_instances_aggregatedlist(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        rows = []
        for machine in self._machines.values():
            if machine.hidden == 0:
                rows.append((f"zones/{machine.zone}", self._shown(machine)))
            machine.hidden = max(0, machine.hidden - 1)
        return self._by_scope("compute#instanceAggregatedList", rows, "instances", query, self._zones())

    def _found(self, path: Mapping[str, str]) -> Machine:
        machine = self._machines.get((path["zone"], path["instance"]))
        if machine is None:
            raise not_found(f"projects/{self.name}/zones/{path['zone']}/instances/{path['instance']}")
        return machine

    def _compute_instances_get(self, path: Mapping[str, str], *_: Any) -> Row:
        return self._shown(self._found(path))

    def _compute_instances_delete(self, path: Mapping[str, str], *_: Any) -> Row:
        machine = self._found(path)
        machine.row |= {"status": "STOPPING", "_ends": True}
        return self._work("delete", "instances", path["instance"], zone=path["zone"])

    def _compute_instances_stop(self, path: Mapping[str, str], query: Mapping[str, str], _: Any) -> Row:
        machine = self._found(path)
        scratch = any(disk["type"] == "SCRATCH" for disk in machine.row["disks"])
        if scratch and "discardLocalSsd" not in query:
            raise Refused(400, "invalid", "VM has a Local SSD attached but an undefined value")
        if machine.row["status"] != "TERMINATED":
            machine.row |= {"status": "STOPPING", "_stops": True}
        return self._work("stop", "instances", path["instance"], zone=path["zone"])

    def _compute_instances_settags(self, path: Mapping[str, str], _: Any, body: Row) -> Row:
        machine = self._found(path)
        if body.get("fingerprint") != machine.row.get("tags", {}).get("fingerprint"):
            raise Refused(412, "conditionNotMet", "Supplied fingerprint does not match current.")
        machine.row["tags"] = {**body, "fingerprint": f"{next(self._numbers)}"}
        return self._work("setTags", "instances", path["instance"], zone=path["zone"])

    def _compute_instances_start(self, path: Mapping[str, str], *_: Any) -> Row:
        machine, name, zone = self._found(path), path["instance"], path["zone"]
        if machine.row["status"] == "TERMINATED":
            if (machine.row["machineType"].rpartition("/")[2], zone) in self.full:
                code, text = self.stock_out
                error = (code, text.format(zone=zone))
                return self._work("start", "instances", name, zone=zone, error=error)
            machine.row["status"] = "PROVISIONING"
        return self._work("start", "instances", name, zone=zone)

    # -- what is beside them -----------------------------------------------------------------------

    def _compute_disks_aggregatedlist(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        rows = [(f"zones/{zone}", row) for (zone, _), row in self._disks.items()]
        return self._by_scope("compute#diskAggregatedList", rows, "disks", query, self._zones())

    def _compute_disks_get(self, path: Mapping[str, str], *_: Any) -> Row:
        row = self._disks.get((path["zone"], path["disk"]))
        if row is None:
            raise not_found(f"disks/{path['disk']}")
        return row

    def _compute_disks_delete(self, path: Mapping[str, str], *_: Any) -> Row:
        key = path["zone"], path["disk"]
        if key not in self._disks:
            raise not_found(f"disks/{path['disk']}")
        if key in self._machines:
            raise in_use(f"disks/{path['disk']}", f"instances/{path['disk']}")
        del self._disks[key]
        return self._work("delete", "disks", path["disk"], zone=path["zone"])

    def _compute_networks_insert(self, _: Any, __: Any, body: Row) -> Row:
        if body["name"] in self._networks:
            raise Refused(409, "alreadyExists", f"The resource 'networks/{body['name']}' already exists")
        self._check(network_faults(body))
        profile = profile_of(body)
        if profile and profile not in self.profiles:
            raise not_found(body["networkProfile"])
        limit = self.limits.get(("", "NETWORKS"))
        if limit is not None and len(self._networks) >= limit:
            raise Refused(403, "quotaExceeded", f"Quota 'NETWORKS' exceeded.  Limit: {limit} globally.")
        work = self._work("insert", "networks", body["name"])
        self._networks[body["name"]] = {**body, "kind": "compute#network", "_work": work["name"]}
        return work

    def _compute_networks_list(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        return self._listed("compute#networkList", self._networks.values(), query)

    def _listed(self, kind: str, rows: Any, query: Mapping[str, str]) -> Row:
        told = [{name: value for name, value in row.items() if name != "_work"} for row in rows]
        return {"kind": kind, "items": [row for row in told if matches(query, row)]}

    def _compute_networks_delete(self, path: Mapping[str, str], *_: Any) -> Row:
        name = path["network"]
        if name not in self._networks:
            raise not_found(f"networks/{name}")
        users = self._attached("network", name)
        leaving = [row for work, row in self._leaving.items() if self._works[work].looks]
        rows = [*self._firewalls.values(), *self._subnets.values(), *leaving]
        users += [row["name"] for row in rows if name_of(row.get("network", "")) == name]
        if users:
            raise in_use(f"networks/{name}", users[0])
        del self._networks[name]
        return self._work("delete", "networks", name)

    def _attached(self, what: str, name: str) -> list[str]:
        """The instances that have a card in a network, or a subnet."""
        return [
            machine.row["name"]
            for machine in self._machines.values()
            if any(name_of(card.get(what, "")) == name for card in machine.row.get("networkInterfaces", []))
        ]

    def _compute_subnetworks_insert(self, path: Mapping[str, str], _: Any, body: Row) -> Row:
        region, name = path["region"], body["name"]
        if (region, name) in self._subnets:
            raise Refused(409, "alreadyExists", f"The resource 'subnetworks/{name}' already exists")
        network = self._ready(body["network"], self._networks.get(name_of(body["network"])))
        others = [row for row in self._subnets.values() if name_of(row["network"]) == network["name"]]
        self._check(subnet_faults(region, body, network, others))
        work = self._work("insert", "subnetworks", name, region=region)
        self._subnets[region, name] = {**body, "kind": "compute#subnetwork", "_work": work["name"]}
        return work

    def _compute_subnetworks_list(self, path: Mapping[str, str], query: Mapping[str, str], _: Any) -> Row:
        rows = [row for (region, _), row in self._subnets.items() if region == path["region"]]
        return self._listed("compute#subnetworkList", rows, query)

    def _compute_subnetworks_aggregatedlist(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        rows = [
            (f"regions/{region}", {name: value for name, value in row.items() if name != "_work"})
            for (region, _), row in self._subnets.items()
        ]
        scopes = sorted({f"regions/{region_of(zone)}" for zone in shelf.ZONES})
        return self._by_scope("compute#subnetworkAggregatedList", rows, "subnetworks", query, scopes)

    def _compute_subnetworks_delete(self, path: Mapping[str, str], *_: Any) -> Row:
        key = path["region"], path["subnetwork"]
        if key not in self._subnets:
            raise not_found(f"subnetworks/{key[1]}")
        if users := self._attached("subnetwork", key[1]):
            raise in_use(f"subnetworks/{key[1]}", users[0])
        work = self._work("delete", "subnetworks", key[1], region=key[0])
        self._leaving[work["name"]] = self._subnets.pop(key)
        return work

    def _compute_firewalls_insert(self, _: Any, __: Any, body: Row) -> Row:
        if body["name"] in self._firewalls:
            raise Refused(409, "alreadyExists", f"The resource 'firewalls/{body['name']}' already exists")
        network = self._networks.get(name_of(body["network"]))
        if network is None:
            raise not_found(body["network"])
        if profile_of(network):
            raise Refused(400, "invalid", f"{network['name']} takes no VPC firewall rules")
        self._firewalls[body["name"]] = {**body, "kind": "compute#firewall"}
        return self._work("insert", "firewalls", body["name"])

    def _compute_firewalls_list(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        return self._listed("compute#firewallList", self._firewalls.values(), query)

    def _compute_firewalls_delete(self, path: Mapping[str, str], *_: Any) -> Row:
        if self._firewalls.pop(path["firewall"], None) is None:
            raise not_found(f"firewalls/{path['firewall']}")
        return self._work("delete", "firewalls", path["firewall"])

    def _compute_resourcepolicies_insert(self, path: Mapping[str, str], _: Any, body: Row) -> Row:
        key = path["region"], body["name"]
        if key in self._policies:
            raise Refused(409, "alreadyExists", f"The resource 'resourcePolicies/{key[1]}' already exists")
        self._policies[key] = {**body, "kind": "compute#resourcePolicy", "region": key[0], "status": "READY"}
        return self._work("insert", "resourcePolicies", key[1], region=key[0])

    def _compute_resourcepolicies_aggregatedlist(self, _: Any, query: Mapping[str, str], __: Any) -> Row:
        rows = [(f"regions/{region}", row) for (region, _), row in self._policies.items()]
        scopes = sorted({f"regions/{region_of(zone)}" for zone in shelf.ZONES})
        kind = "compute#resourcePolicyAggregatedList"
        return self._by_scope(kind, rows, "resourcePolicies", query, scopes)

    def _compute_resourcepolicies_delete(self, path: Mapping[str, str], *_: Any) -> Row:
        key = path["region"], path["resourcePolicy"]
        if key not in self._policies:
            raise not_found(f"resourcePolicies/{key[1]}")
        for machine in self._machines.values():
            if any(link.endswith(f"/{key[1]}") for link in machine.row.get("resourcePolicies", [])):
                raise in_use(f"resourcePolicies/{key[1]}", machine.row["name"])
        del self._policies[key]
        return self._work("delete", "resourcePolicies", key[1], region=key[0])


def written(moment: datetime) -> str:
    """A moment as Google writes it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def not_found(what: str) -> Refused:
    """What Google says of a thing that is not there."""
    return Refused(404, "notFound", f"The resource '{what}' was not found")


def in_use(what: str, user: str) -> Refused:
    """What Google says of a thing that cannot be deleted yet."""
    return Refused(
        400, "resourceInUseByAnotherResource", f"The resource '{what}' is already being used by '{user}'"
    )


def matches(query: Mapping[str, str], row: Row) -> bool:
    """Whether a row answers the filter of a list. Raises ``Refused`` for one that is not understood here."""
    for term in re.split(r"(?<=\)) (?=\()", query.get("filter", "")):
        if not term:
            continue
        said = re.fullmatch(r"\(?([\w.-]+)(:\*| eq |=)'?(.*?)'?\)?", term)
        if said is None:
            raise Refused(400, "invalid", f"Invalid list filter expression: {term}")
        value: Any = row
        for part in said[1].split(".", 1):
            value = value.get(part) if isinstance(value, dict) else None
        wanted = {
            ":*": value is not None,
            "=": value == said[3].strip('"'),
            " eq ": isinstance(value, str) and re.fullmatch(said[3], value) is not None,
        }
        if not wanted[said[2]]:
            return False
    return True
