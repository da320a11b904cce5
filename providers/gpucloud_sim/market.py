"""What the simulated market sells, and what that costs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.model import Market, Window

if TYPE_CHECKING:
    from gpucloud_local.api import Machine
    from gpucloud_sim.script import Script

REGIONS: Final = ("sim-east", "sim-west")
TYPES: Final = (
    ("sim.cpu", "", 0, 4, 16, "0.05"),
    ("sim.1x-rtx4090", "RTX4090-24", 1, 16, 64, "0.40"),
    ("sim.1x-h100", "H100-SXM-80", 1, 26, 200, "2.50"),
    ("sim.8x-h100", "H100-SXM-80", 8, 208, 1800, "20.00"),
)
"""Instance type, GPU, how many, vCPUs, memory in GiB, base price in simulated dollars an hour."""

SHARE: Final = {Market.ON_DEMAND: Decimal(1), Market.SPOT: Decimal("0.4"), Market.QUEUED: Decimal("0.6")}
"""Of the base price."""

RESERVED_SHARE: Final = Decimal("0.7")
DISK_USD_PER_HOUR: Final = Decimal("0.01")
ADDRESS_USD_PER_HOUR: Final = Decimal("0.005")
CENT_OF_CENT: Final = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Resource:
    """A disk or an address that was made with an instance, and what it costs an hour."""

    kind: str
    id: str
    token: str
    cluster: str
    owner: str
    region: str | None
    usd_per_hour: Decimal


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the price list."""

    instance_type: str
    gpu: str
    gpu_count: int
    vcpus: int
    memory_gib: int
    region: str
    market: Market
    usd_per_hour: Decimal


def price_list(script: Script, opened_at: datetime, now: datetime) -> Iterator[Line]:
    """All that is sold, at the prices of this moment."""
    chance = random.Random(script.seed)
    factor = _change(script, None, (now - opened_at).total_seconds())
    markets = [market for market in SHARE if market is not Market.QUEUED or script.queue is not None]
    for region in REGIONS:
        tilt = factor * (Decimal(100 + chance.randint(0, 10)) / 100)
        for instance_type, gpu, count, vcpus, memory, base in TYPES:
            for market in markets:
                price = (Decimal(base) * tilt * SHARE[market]).quantize(CENT_OF_CENT)
                yield Line(instance_type, gpu, count, vcpus, memory, region, market, price)


def blocks(lines: Iterable[Line], window: Window) -> Iterator[tuple[str, Line, datetime, datetime, Decimal]]:
    """Handle, price line, start, end and price of what can be reserved: all with GPUs, as early as wanted."""
    start, end = window.earliest, window.earliest + window.lasting
    hours = Decimal(window.lasting // timedelta(seconds=1)) / 3600
    for line in lines:
        if line.market is Market.ON_DEMAND and line.gpu:
            usd = (line.usd_per_hour * RESERVED_SHARE * hours * window.nodes).quantize(CENT_OF_CENT)
            yield f"block-{line.instance_type}-{line.region}", line, start, end, usd


def usd_per_hour(machine: Machine, script: Script, opened_at: datetime, now: datetime) -> Decimal:
    """What an instance costs at this moment: spot prices move, and of a stopped one only its disk bills.

    One that waits for its turn costs nothing.
    """
    if now < machine.spec.starts_at:
        return Decimal(0)
    if machine.halted:
        return DISK_USD_PER_HOUR
    agreed = Decimal(machine.spec.usd_per_hour)
    if machine.spec.market != Market.SPOT:
        return agreed
    launched = (machine.spec.created_at - opened_at).total_seconds()
    moved = agreed * _change(script, launched, (now - opened_at).total_seconds())
    return moved.quantize(CENT_OF_CENT)


def resources(machine: Machine) -> list[Resource]:
    """What was made with an instance, and ends with it."""
    if machine.ended:
        return []
    return [disk(machine), _beside(machine, "address", ADDRESS_USD_PER_HOUR)]


def disk(machine: Machine) -> Resource:
    """The disk of an instance."""
    return _beside(machine, "disk", DISK_USD_PER_HOUR)


def _beside(machine: Machine, kind: str, price: Decimal) -> Resource:
    spec = machine.spec
    return Resource(
        kind=kind,
        id=f"{kind}-{machine.folder.name}",
        token=spec.token,
        cluster=spec.cluster,
        owner=spec.owner,
        region=spec.region,
        usd_per_hour=price,
    )


def _change(script: Script, since: float | None, until: float) -> Decimal:
    """By how much prices changed between two ages of the market in seconds; without the first since ever."""
    factor = Decimal(1)
    for change, at in script.prices:
        if at <= until and (since is None or at > since):
            factor *= change
    return factor
