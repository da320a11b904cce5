"""Oracle's shapes and price list as offers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.catalog.names import named
from gpucloud.http import Tell
from gpucloud.model import Gpu, Market, Offer, same_memory, utcnow
from gpucloud.provider import Adapter, Evidence, Published
from gpucloud.replies import Progress, Rows, query_of

if TYPE_CHECKING:
    from gpucloud_oci.api import Part, Product, Shape

MOST_PAGES: Final = 20
"""The price list comes in one page; one of many more than that does not end."""
VCPUS_PER_OCPU: Final = 2
PREEMPTIBLE_SHARE: Final = Decimal("0.5")
"""Of the price on demand: https://docs.oracle.com/en-us/iaas/Content/Compute/Concepts/preemptible.htm."""

_DECORATION: Final = re.compile(r"\s*\([^)]*\)\s*$")
_SHAPE: Final = re.compile(r"(?:VM|BM)\.(GPU[0-9]+|GPU\.[\w-]+)\.([0-9]{1,4})", re.ASCII)
_NVIDIAS_PROCESSOR: Final = re.compile("G[BH][0-9]|VR[0-9]")


class Oci(Adapter):
    """Oracle Cloud virtual and bare machines."""

    name = "oci"
    evidence = Evidence.DOCUMENT
    as_of = date(2026, 11, 20)

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """One list; a price is the same in every region."""
        return ("",)

    def catalog(self, part: str, validator: str | None, tell: Tell) -> Published | None:
        """Every GPU shape, on demand and preemptible; two documents together have no edition."""
        from gpucloud_oci.api import (
            PRICES_ASKED,
            PRICES_PATH,
            PRICES_URL,
            SHAPES_PATH,
            SHAPES_URL,
            Product,
            Shape,
        )

        now, table, progress = utcnow(), self.settings.table, Progress(tell)
        shapes = self._rows(table.get("catalog_url", SHAPES_URL), SHAPES_PATH, {}, progress)
        prices = self._rows(table.get("prices_url", PRICES_URL), PRICES_PATH, PRICES_ASKED, progress)
        products = {one.part_number: one for one in Rows(self.name).read(Product.model_validate, prices)}
        reply = Rows(self.name)
        for shape in filter(_is_sold, reply.read(Shape.model_validate, shapes)):
            with reply.row():
                reply.add(self._shape(shape, products, now))
        return Published(reply.offers())

    def _rows(self, url: str, path: str, asked: Mapping[str, str], progress: Progress) -> list[Any]:
        """What the pages of a list hold, as it came."""
        from gpucloud_oci.api import Listing

        reply, rows, params = Rows(self.name), list[Any](), asked
        with self.client(self.name, url) as http:
            for _ in range(MOST_PAGES):
                edition = http.get_edition(path, params=params, tell=progress.told)
                progress.next_request()
                page = reply.envelope(Listing.model_validate, edition and edition[0])
                rows += page.items
                if not page.items or page.next is None:
                    return rows
                params = {**asked, **reply.envelope(query_of, page.next)}
        raise reply.bad(f"there are more than {MOST_PAGES} pages of {path}")

    def _shape(self, shape: Shape, products: Mapping[str, Product], now: datetime) -> Iterator[Offer]:
        """What one shape costs; raises ``ValueError`` when it has no price or contradicts itself."""
        name = _DECORATION.sub("", shape.name)
        words, count = _words_of(name)
        if count != shape.gpu_qty:
            raise ValueError(f"{name}: it is said to have {shape.gpu_qty} GPUs")
        part = _billed(shape)
        usd = _price(part, count, products)
        markets = {Market.ON_DEMAND: usd}
        # Some bare machines are marked as preemptible, too, which Oracle has none of.
        if shape.allow_preemptible and name.startswith("VM."):
            markets[Market.SPOT] = usd * PREEMPTIBLE_SHARE
        for market, price in markets.items():
            yield Offer(
                provider=self.name,
                instance_type=name,
                market=market,
                usd_per_hour=price,
                amount=price,
                as_of=now,
                source="apexapps.oracle.com",
                confidence="published",
                gpu=_gpu(words, count, shape.gpu_memory_qty),
                gpu_count=count,
                vcpus=_vcpus(words, part),
                memory_gib=shape.bundle_memory_qty or None,
                any_disk=True,
            )


def _is_sold(shape: Shape) -> bool:
    from gpucloud_oci.api import ACTIVE

    return bool(shape.gpu_qty) and shape.status == ACTIVE and not shape.hidden


def _words_of(name: str) -> tuple[str, int]:
    """What a name says of the GPU, and the number of them: ``A10`` and 2 of ``VM.GPU.A10.2``."""
    match = _SHAPE.fullmatch(name)
    if match is None:
        raise ValueError(f"{name}: its name is not that of a GPU shape")
    return match[1].removeprefix("GPU."), int(match[2])


def _billed(shape: Shape) -> Part:
    from gpucloud_oci.api import OCPU

    if [part.type.value for part in shape.products] != [OCPU]:
        raise ValueError(f"{shape.name}: it is billed by other things than its GPUs")
    return shape.products[0]


def _price(part: Part, gpus: int, products: Mapping[str, Product]) -> Decimal:
    """Dollars for an hour of the whole shape."""
    from gpucloud_oci.api import BY_GPU, BY_OCPU

    product = products.get(part.part_number)
    if product is None:
        raise ValueError(f"part {part.part_number} is not in the price list")
    times = {BY_GPU: Decimal(gpus), BY_OCPU: part.qty}.get(product.metric_name)
    if not times:
        raise ValueError(f"nothing tells how many of {product.metric_name!r} part {part.part_number} is of")
    return _unit_price(product) * times


def _unit_price(product: Product) -> Decimal:
    from gpucloud_oci.api import AS_YOU_GO, PRICES_ASKED

    prices = {
        price.value
        for localization in product.currency_code_localizations
        if localization.currency_code == PRICES_ASKED["currencyCode"]
        for price in localization.prices
        if price.model == AS_YOU_GO and price.value is not None and price.value > 0
    }
    if len(prices) != 1:
        raise ValueError(f"part {product.part_number} has {len(prices)} prices")
    return prices.pop()


def _gpu(words: str, count: int, said_memory: Decimal | None) -> Gpu:
    """The GPU that the words mean. Raises ``ValueError`` at an impossible memory."""
    from gpucloud_oci.api import GPUS

    gpu = named(GPUS.get(words, words))
    if gpu.memory_gib and said_memory:
        one_or_all = (round(said_memory), round(said_memory / count))
        if not any(same_memory(gpu.memory_gib, said) for said in one_or_all):
            raise ValueError(f"{count} {gpu} have no {said_memory} GB, nor has one")
    return gpu


def _vcpus(words: str, part: Part) -> int | None:
    if not part.qty or _NVIDIAS_PROCESSOR.match(words):
        return None
    return int(part.qty * VCPUS_PER_OCPU)
