"""The requests of the simulated market: what a vendor's API would be, with the faults of its script.

Its state is one JSON file, locked for each request, so that all processes see one market. A market opens when
a process asks for prices or a launch and names a script that is not the current one, or finds no living
instance; it never opens anew while somebody only looks at or ends what is there. What of it can be told from
the folders of the instances is not in the file, so that whoever is killed between the two leaves no gap.
Whatever goes wrong beside what the script says is an ``OSError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel

from gpucloud.errors import (
    AuthError,
    NoCapacity,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.model import utcnow
from gpucloud_local import api as local
from gpucloud_local import orders
from gpucloud_sim import smi
from gpucloud_sim.market import TYPES, Line, Resource, disk, price_list, resources, usd_per_hour
from gpucloud_sim.script import Script, parse

NAME: Final = "sim"
RETRY_AFTER_S: Final = 0.05
TWIN: Final = "-twin"
"""What the id of an instance ends with that was made twice."""


class Bought(BaseModel):
    """A reservation as the market keeps it. ``given_up``: it is not sold after all, as if nobody had paid."""

    token: str
    name: str
    owner: str
    instance_type: str
    nodes: int
    region: str
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    given_up: bool = False

    def taken(self, machines: Iterable[local.Machine]) -> int:
        """How many machines are launched into it."""
        return sum(machine.spec.reservation == self.token and not machine.ended for machine in machines)


class Market(BaseModel):
    """The market as it is stored.

    ``counts`` are how often each fault has struck. Of the id of an instance ``hidden``, ``hidden_resources``
    and ``unknown`` say how many more listings, listings of what is beside it and requests for it do not know
    of it; ``ending`` in how many more listings it goes on although it was terminated, none for one that is
    only about to be gone. ``leaked`` are the disks that stay behind, by their id.
    ``reservations`` are by the token of their purchase.
    """

    script: str
    opened_at: AwareDatetime
    counts: dict[str, int] = {}
    hidden: dict[str, int] = {}
    hidden_resources: dict[str, int] = {}
    unknown: dict[str, int] = {}
    ending: dict[str, int] = {}
    leaked: dict[str, Resource] = {}
    reservations: dict[str, Bought] = {}

    def strikes(self, fault: str, times: int) -> bool:
        """Whether a fault that strikes so many times has not done so yet; then it has once more."""
        struck = self.counts.get(fault, 0)
        if struck >= times:
            return False
        self.counts[fault] = struck + 1
        return True

    def forget(self, there: set[str]) -> None:
        """Keep nothing of the instances but of those that are there."""
        for said in (self.hidden, self.hidden_resources, self.unknown, self.ending):
            for gone in said.keys() - there:
                del said[gone]


def passes(left: dict[str, int], instance_id: str) -> bool:
    """Whether an instance is known of by now; else that is so one time less."""
    if not left.get(instance_id):
        return True
    left[instance_id] -= 1
    return False


class ListingDown(Exception):
    """The listing fails, and not only for a moment: asking again at once does not help."""


@dataclass(frozen=True, slots=True)
class Sight:
    """An instance as the market shows it; ``ending``: it goes on although it was terminated."""

    machine: local.Machine
    ending: bool
    usd_per_hour: Decimal


class Api:
    """The requests a simulated vendor answers. ``script`` is ``None`` to go on with the current market."""

    def __init__(self, folder: Path, script: Script | None) -> None:
        self._file = folder / "market.json"
        self._root = folder / "instances"
        self._given = script
        self._joined = False

    def prices(self) -> list[Line]:
        """The price list of this moment."""
        with self._request(opening=True) as (market, script):
            return list(price_list(script, market.opened_at, utcnow()))

    def create(self, spec: local.Spec, public_key: str) -> Sight:
        """Rent a machine, or fail as the script says."""
        with self._request(opening=True, create=True) as (market, script):
            if market.strikes("quota", script.quota):
                raise QuotaExceeded("sim: the quota is used up", provider=NAME, vendor_code="QUOTA")
            if market.strikes("stockout", script.stockout):
                raise NoCapacity(
                    f"sim: no {spec.instance_type} left in {spec.region}",
                    provider=NAME,
                    vendor_code="STOCKOUT",
                )
            if spec.reservation:
                self._require_room(market, spec.reservation)
            ids = [spec.token]
            if market.strikes("twice", script.twice):
                ids.append(spec.token + TWIN)
            asked = spec.model_copy(update=_fate(market, script, spec))
            chip, count = _gpus(market, script, spec)
            for instance_id in ids:
                market.hidden[instance_id] = market.hidden_resources[instance_id] = script.slow_list
                market.unknown[instance_id] = script.forget
                programs = {smi.NAME: smi.script(chip, count, instance_id)}
                local.create(self._root, asked, public_key, programs=programs, instance_id=instance_id)
            if market.strikes("lost-reply", script.lost_reply):
                raise Unreachable("sim: no answer to the launch", provider=NAME, outcome_unknown=True)
            if market.strikes("error-but-created", script.error_but_created):
                raise Rejected(
                    "sim: the launch failed",
                    provider=NAME,
                    vendor_code="ALLOCATION_FAILED",
                    vendor_text="the allocation failed; what was made of it may be there",
                    outcome_unknown=True,
                )
            return self._sight(market, script, self._machine(spec.token))

    def reserve(self, bought: Bought) -> None:
        """Sell a block, or fail as the script says."""
        with self._request(opening=True, create=True) as (market, script):
            if market.strikes("stockout", script.stockout):
                raise NoCapacity("sim: the block is sold", provider=NAME, vendor_code="STOCKOUT")
            market.reservations[bought.token] = bought
            if market.strikes("lost-reply", script.lost_reply):
                raise Unreachable("sim: no answer to the purchase", provider=NAME, outcome_unknown=True)

    def reservations(self) -> list[tuple[Bought, int]]:
        """What was sold, and how many machines are in it. Raises ``ListingDown``."""
        with self._request() as (market, script):
            if market.strikes("nolist", script.nolist):
                raise ListingDown
            machines = list(self._machines().values())
            return [(each, each.taken(machines)) for each in market.reservations.values()]

    def _require_room(self, market: Market, token: str) -> None:
        """Raises ``NoCapacity`` unless a reservation holds now, and has room."""
        place = market.reservations.get(token)
        taken = place.taken(self._machines().values()) if place else 0
        if place is None or not place.starts_at <= utcnow() < place.ends_at or taken >= place.nodes:
            raise NoCapacity(f"sim: no room in {token}", provider=NAME, vendor_code="RESERVATION")

    def get(self, machine_id: str) -> Sight:
        """One machine. Raises ``FileNotFoundError``."""
        with self._request() as (market, script):
            machine = self._machine(machine_id)
            if not passes(market.unknown, machine_id):
                raise FileNotFoundError(f"there is no instance {machine_id}")
            return self._sight(market, script, machine)

    def machines(self) -> list[Sight]:
        """Every machine the listing shows. Raises ``ListingDown``."""
        with self._request() as (market, script):
            if market.strikes("nolist", script.nolist):
                raise ListingDown
            machines = self._machines()
            shown = []
            for machine_id, machine in machines.items():
                if not passes(market.hidden, machine_id):
                    continue
                shown.append(self._sight(market, script, machine))
                if machine_id in market.ending:
                    market.ending[machine_id] -= 1
                    if market.ending[machine_id] <= 0:
                        local.destroy(machine.folder)
            market.forget(set(machines))
            return shown

    def stop(self, machine_id: str) -> None:
        """Stop a machine. Raises ``FileNotFoundError``."""
        with self._request():
            orders.stop(self._machine(machine_id).folder)

    def start(self, machine_id: str) -> None:
        """Start a machine again. Raises ``FileNotFoundError``."""
        with self._request():
            orders.start(self._machine(machine_id).folder)

    def expire(self, machine_id: str, at: datetime) -> None:
        """Let a machine end by itself then. Raises ``FileNotFoundError``."""
        with self._request():
            orders.expire(self._machine(machine_id).folder, at)

    def delete(self, machine_id: str) -> None:
        """End a machine, at once or when the script lets it. Raises ``FileNotFoundError``."""
        with self._request() as (market, script):
            folder = local.folder_of(self._root, machine_id)
            if market.strikes("terminate500", script.terminate500):
                raise Unreachable("sim: internal error", provider=NAME, vendor_code="500")
            if folder.exists():
                self._leak(market, script, machine_id)
                if market.ending.setdefault(machine_id, script.stuck) <= 0:
                    local.destroy(folder)
            if market.strikes("lost-terminate", script.lost_terminate):
                raise Unreachable("sim: no answer to the terminate", provider=NAME)

    def resources(self) -> list[Resource]:
        """What the listing shows of disks and addresses."""
        with self._request() as (market, _):
            machines = self._machines()
            leaked = dict(market.leaked)
            shown = []
            for machine_id, machine in machines.items():
                beside = resources(machine)
                for resource in beside:
                    leaked.pop(resource.id, None)
                shown += beside if passes(market.hidden_resources, machine_id) else []
            market.forget(set(machines))
            return [*shown, *leaked.values()]

    def remove(self, resource_id: str) -> None:
        """Delete a disk or an address that no machine uses; one that is not there is fine."""
        with self._request() as (market, _):
            for machine_id, machine in self._machines().items():
                ended = market.ending.get(machine_id, 1) <= 0
                if not ended and resource_id in {resource.id for resource in resources(machine)}:
                    raise Rejected(
                        f"sim: {resource_id} cannot be removed",
                        provider=NAME,
                        why=f"the instance {machine_id} uses it",
                        hint="end the instance, and it goes with it: gpucloud down",
                        vendor_code="IN_USE",
                    )
            market.leaked.pop(resource_id, None)

    def _leak(self, market: Market, script: Script, machine_id: str) -> None:
        if market.counts.get("leak", 0) >= script.leak:
            return
        machine = self._machine(machine_id)
        if not machine.ended and disk(machine).id not in market.leaked:
            market.strikes("leak", script.leak)
            market.leaked[disk(machine).id] = disk(machine)
            # The disk must be known of before the instance is gone.
            local.publish(self._file, market)

    def _machine(self, machine_id: str) -> local.Machine:
        return orders.lapse(local.read(local.folder_of(self._root, machine_id)))

    def _machines(self) -> dict[str, local.Machine]:
        return {machine.folder.name: orders.lapse(machine) for machine in local.machines(self._root)}

    def _sight(self, market: Market, script: Script, machine: local.Machine) -> Sight:
        price = usd_per_hour(machine, script, market.opened_at, utcnow())
        return Sight(machine, machine.folder.name in market.ending, price)

    @contextmanager
    def _request(self, *, opening: bool = False, create: bool = False) -> Iterator[tuple[Market, Script]]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._file.with_suffix(".lock")):
            market = self._market(utcnow(), opening=opening)
            script = parse(market.script)
            try:
                self._faults(market, script, create=create)
                yield market, script
            finally:
                local.publish(self._file, market)

    def _market(self, now: datetime, *, opening: bool) -> Market:
        current = local.load(self._file, Market)
        if current and (self._joined or not opening):
            return current
        self._joined = opening
        given = self._given.text if self._given else None
        living = any(machine.alive or machine.halted for machine in local.machines(self._root))
        if current and given in (None, current.script) and living:
            return current
        opened = {"script": given or "", "opened_at": now, "counts": {}}
        return current.model_copy(update=opened) if current else Market.model_validate(opened)

    def _faults(self, market: Market, script: Script, *, create: bool) -> None:
        if script.auth:
            raise AuthError(
                "sim: the credentials were refused", provider=NAME, hint="leave 'auth' out of the script"
            )
        if market.strikes("throttle", script.throttle):
            raise RateLimited("sim: too many requests", provider=NAME, retry_after=RETRY_AFTER_S)
        if market.strikes("api500", script.api500):
            raise Unreachable("sim: internal error", provider=NAME, vendor_code="500", outcome_unknown=create)


def _fate(market: Market, script: Script, spec: local.Spec) -> dict[str, object]:
    """What the script has in store for the next instance."""
    spot = spec.market == "spot"
    turn = market.counts.get("spot", 0)
    market.counts["spot"] = turn + spot
    queue_s = script.queue or 0 if spec.market == "queued" else 0
    waited = timedelta(seconds=spec.wait_s - queue_s)
    return {
        "queue_s": queue_s,
        # Its lease begins when its turn comes.
        "expires_at": spec.expires_at - waited if spec.expires_at else None,
        "boot_s": script.boot,
        "dead": market.strikes("badhost", script.badhost),
        "notice_s": script.notice,
        "interrupt_at": script.interrupts[turn] if spot and turn < len(script.interrupts) else None,
    }


def _gpus(market: Market, script: Script, spec: local.Spec) -> tuple[smi.Chip | None, int]:
    """The GPUs that are really there, and how many."""
    for instance_type, gpu, count, *_ in TYPES:
        if instance_type == spec.instance_type and gpu:
            if market.strikes("wronggpu", script.wronggpu):
                return smi.WRONG, 1
            return smi.CHIPS[gpu], count
    return None, 0
