"""Verda's price list as offers: what it tells to everybody."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from gpucloud.catalog.currencies import to_usd
from gpucloud.catalog.names import named
from gpucloud.http import Tell
from gpucloud.model import Market, Offer, utcnow
from gpucloud.provider import Adapter, Published
from gpucloud.replies import Rows

if TYPE_CHECKING:
    from gpucloud_verda.api import InstanceType


class VerdaCatalog(Adapter):
    """Every instance type with a GPU, on demand and spot; of no place, for the list names none."""

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One list, in which no region is told."""
        return ("",)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Every instance type with a GPU, on demand and spot."""
        from gpucloud_verda.api import CURRENCY, INSTANCE_TYPES, URL

        with self.client(self.name, self.settings.table.get("catalog_url", URL)) as http:
            params = {"currency": CURRENCY}
            edition = http.get_edition(INSTANCE_TYPES, params=params, validator=validator, tell=tell)
        if edition is None:
            return None
        body, validator = edition
        return Published(self._published(body), validator)

    def _published(self, body: object) -> list[Offer]:
        from gpucloud_verda import api

        reply, now = Rows(self.name), utcnow()
        for row in reply.envelope(api.Rows.validate_python, body):
            with reply.row():
                reply.add(self._row(api.InstanceType.model_validate(row), now))
        return reply.offers()

    def _row(self, row: InstanceType, now: datetime) -> Iterator[Offer]:
        """The offers of one row; none for one without a GPU. Raises ``ValueError`` when there is no price."""
        from gpucloud_verda.api import CURRENCY

        if row.gpu is None or not row.gpu.number_of_gpus:
            return
        count = row.gpu.number_of_gpus
        prices = ((Market.ON_DEMAND, row.price_per_hour), (Market.SPOT, row.spot_price))
        if not any(price for _, price in prices):
            raise ValueError(f"{row.instance_type} has no price")
        total = row.gpu_memory.size_in_gigabytes if row.gpu_memory else None
        # The words for a GPU begin with how many there are: "8x H100 SXM5 80GB".
        words = re.sub("^[0-9]+x ", "", row.gpu.description or row.name or row.model or "")
        currency = (row.currency or CURRENCY).upper()
        linked = count > 1 and any("nvlink" in word.lower() for word in row.best_for or ())
        for market, price in prices:
            if price is not None:
                yield Offer(
                    provider=self.name,
                    instance_type=row.instance_type,
                    market=market,
                    usd_per_hour=to_usd(price, currency, self.settings.rates).usd,
                    currency=currency,
                    amount=price,
                    as_of=now,
                    source="api.verda.com",
                    confidence="published",
                    gpu=named(words, memory_gib=total and total / count),
                    gpu_count=count,
                    vcpus=(row.cpu.number_of_cores if row.cpu else None) or None,
                    memory_gib=(row.memory.size_in_gigabytes if row.memory else None) or None,
                    interconnect="nvlink" if linked else None,
                )
