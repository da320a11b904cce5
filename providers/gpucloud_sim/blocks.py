"""What the simulated market sells for a time to come, and what was bought of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from pydantic import AwareDatetime, BaseModel

from gpucloud.model import Market, Window
from gpucloud_local.api import Machine
from gpucloud_sim.market import CENT_OF_CENT, Line

SHARE: Final = Decimal("0.7")
"""Of the price on demand."""


class Bought(BaseModel):
    """A reservation as the market keeps it."""

    token: str
    name: str
    owner: str
    instance_type: str
    nodes: int
    region: str
    starts_at: AwareDatetime
    ends_at: AwareDatetime

    def taken(self, machines: Iterable[Machine]) -> int:
        """How many machines are launched into it."""
        return sum(machine.spec.reservation == self.token and not machine.ended for machine in machines)


def blocks(lines: Iterable[Line], window: Window) -> Iterator[tuple[str, Line, datetime, datetime, Decimal]]:
    """Handle, price line, start, end and price of what can be reserved: all with GPUs, as early as wanted."""
    for line in lines:
        if line.market is not Market.ON_DEMAND or not line.gpu:
            continue
        start, end = window.earliest, window.earliest + window.lasting
        hours = Decimal((end - start) // timedelta(seconds=1)) / 3600
        usd = (line.usd_per_hour * SHARE * hours * window.nodes).quantize(CENT_OF_CENT)
        yield f"block-{line.instance_type}-{line.region}", line, start, end, usd
