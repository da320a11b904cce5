"""The simulated market: what a vendor's API would be for another adapter, with the faults of its script.

Its state is one JSON file, locked for each request, so that all processes see one market. A market opens when
a process asks for prices or a launch and names a script that is not the current one, or finds no living
instance; it never opens anew while somebody only looks at or ends what is there. Whatever goes wrong beside
what the script says is an ``OSError``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel

from gpucloud.errors import AuthError, NoCapacity, QuotaExceeded, RateLimited, Unreachable
from gpucloud.model import utcnow
from gpucloud_local import api as local
from gpucloud_sim.script import Script

NAME: Final = "sim"
REGIONS: Final = ("sim-east", "sim-west")
TYPES: Final = (
    ("sim.cpu", "", 0, 4, 16, "0.05"),
    ("sim.1x-rtx4090", "RTX4090-24", 1, 16, 64, "0.40"),
    ("sim.1x-h100", "H100-SXM-80", 1, 26, 200, "2.50"),
    ("sim.8x-h100", "H100-SXM-80", 8, 208, 1800, "20.00"),
)
"""Instance type, GPU, how many, vCPUs, memory in GiB, base price in simulated dollars an hour."""

SPOT_DISCOUNT: Final = Decimal("0.4")
RETRY_AFTER_S: Final = 0.05


class Market(BaseModel):
    """The market as it is stored.

    ``counts`` are how often each fault has struck. ``hidden`` and ``ending`` say of a token in how many more
    listings its instance is missing, or goes on although it was terminated.
    """

    script: str
    opened_at: AwareDatetime
    counts: dict[str, int] = {}
    hidden: dict[str, int] = {}
    ending: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the price list."""

    instance_type: str
    gpu: str
    gpu_count: int
    vcpus: int
    memory_gib: int
    region: str
    spot: bool
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
            age = (utcnow() - market.opened_at).total_seconds()
            chance = random.Random(script.seed)
            factor = Decimal(1)
            for change, since in script.prices:
                factor *= change if age >= since else 1
            lines = []
            for region in REGIONS:
                tilt = factor * (Decimal(100 + chance.randint(0, 10)) / 100)
                for instance_type, gpu, count, vcpus, memory, base in TYPES:
                    for spot in (False, True):
                        price = (Decimal(base) * tilt * (SPOT_DISCOUNT if spot else 1)).quantize(
                            Decimal("0.0001")
                        )
                        lines.append(Line(instance_type, gpu, count, vcpus, memory, region, spot, price))
            return lines

    def create(self, spec: local.Spec, public_key: str) -> local.Machine:
        """Rent a machine, or fail as the script says."""
        with self._request(opening=True, create=True) as (market, script):
            if _strikes(market, "quota", script.quota):
                raise QuotaExceeded("sim: the quota is used up", provider=NAME, vendor_code="QUOTA")
            if _strikes(market, "stockout", script.stockout):
                raise NoCapacity(
                    f"sim: no {spec.instance_type} left in {spec.region}",
                    provider=NAME,
                    vendor_code="STOCKOUT",
                )
            spot = spec.market == "spot"
            turn = market.counts.get("spot", 0)
            market.counts["spot"] = turn + spot
            asked = spec.model_copy(
                update={
                    "boot_s": script.boot,
                    "dead": _strikes(market, "badhost", script.badhost),
                    "notice_s": script.notice,
                    "interrupt_after_s": script.interrupts[turn]
                    if spot and turn < len(script.interrupts)
                    else None,
                }
            )
            market.hidden[spec.token] = script.slow_list
            machine = local.create(self._root, asked, public_key, None)
            if _strikes(market, "lost-reply", script.lost_reply):
                raise Unreachable("sim: no answer to the launch", provider=NAME, outcome_unknown=True)
            return machine

    def get(self, machine_id: str) -> tuple[local.Machine, bool]:
        """One machine, and whether it is on its way out. Raises ``FileNotFoundError``."""
        with self._request() as (market, _):
            return local.read(local.folder_of(self._root, machine_id)), machine_id in market.ending

    def list(self) -> list[tuple[local.Machine, bool]]:
        """Every machine the listing shows, and whether it is on its way out."""
        with self._request() as (market, _):
            machines = {machine.spec.token: machine for machine in local.machines(self._root)}
            shown = []
            for token, machine in machines.items():
                if market.hidden.get(token):
                    market.hidden[token] -= 1
                    continue
                shown.append((machine, token in market.ending))
                if token in market.ending:
                    market.ending[token] -= 1
                    if market.ending[token] <= 0:
                        local.destroy(machine.folder)
            market.hidden = {token: left for token, left in market.hidden.items() if token in machines}
            market.ending = {token: left for token, left in market.ending.items() if token in machines}
            return shown

    def delete(self, machine_id: str) -> None:
        """End a machine, at once or when the script lets it. Raises ``FileNotFoundError``."""
        with self._request() as (market, script):
            folder = local.folder_of(self._root, machine_id)
            if script.stuck and folder.exists():
                market.ending.setdefault(machine_id, script.stuck)
            else:
                local.destroy(folder)

    @contextmanager
    def _request(self, *, opening: bool = False, create: bool = False) -> Iterator[tuple[Market, Script]]:
        from gpucloud_sim.script import parse

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
        if current and given in (None, current.script) and any(m.alive for m in local.machines(self._root)):
            return current
        opened = Market(script=given or "", opened_at=now)
        if current:
            opened.hidden, opened.ending = current.hidden, current.ending
        return opened

    def _faults(self, market: Market, script: Script, *, create: bool) -> None:
        if script.auth:
            raise AuthError(
                "sim: the credentials were refused", provider=NAME, hint="leave 'auth' out of the script"
            )
        if _strikes(market, "throttle", script.throttle):
            raise RateLimited("sim: too many requests", provider=NAME, retry_after=RETRY_AFTER_S)
        if _strikes(market, "api500", script.api500):
            raise Unreachable("sim: internal error", provider=NAME, vendor_code="500", outcome_unknown=create)


def _strikes(market: Market, fault: str, times: int) -> bool:
    struck = market.counts.get(fault, 0)
    if struck >= times:
        return False
    market.counts[fault] = struck + 1
    return True
