"""The columns of an offer: one line makes its word in ``--where``, ``--sort`` and ``--columns``."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from gpucloud.model import Availability, Market

MICROS: Final = 1_000_000
"""Amounts are stored as whole millionths, so that they compare exactly and are summed without error."""

AVAILABILITIES: Final = (
    Availability.AVAILABLE,
    Availability.LIMITED,
    Availability.UNKNOWN,
    Availability.NO_QUOTA,
    Availability.UNAVAILABLE,
)
"""Stored as their place in here, so that sorting puts first what can surely be had."""

MARKETS: Final = tuple(Market)


class Kind(StrEnum):
    """How the values of a column are stored, compared and typed."""

    TEXT = "text"
    CHOICE = "choice"
    COUNT = "count"
    AMOUNT = "amount"
    FLAG = "flag"


class Unit(StrEnum):
    """What a number counts, where it may be typed with a sign or a suffix."""

    NONE = ""
    USD = "USD"
    GIB = "GiB"
    SHARE = "a share of 1"


@dataclass(frozen=True, slots=True)
class Column:
    """One fact of an offer. ``sql`` is an expression over the tables ``offers``, ``sources`` and ``gpus``.

    ``choices`` are the words of a ``CHOICE`` in the order of the numbers that stand for them.
    """

    name: str
    kind: Kind
    sql: str
    help: str
    choices: tuple[str, ...] = ()
    unit: Unit = Unit.NONE

    def loaded(self, value: Any) -> Any:
        """What SQLite holds as a value of the model."""
        if value is None or self.kind in {Kind.TEXT, Kind.COUNT}:
            return value
        if self.kind is Kind.AMOUNT:
            return Decimal(value) / MICROS
        return self.choices[value] if self.kind is Kind.CHOICE else bool(value)


_MARKET_NAME: Final = (
    "CASE offers.market " + " ".join(f"WHEN {n} THEN '{market}'" for n, market in enumerate(MARKETS)) + " END"
)

_UPSTREAM: Final = (
    "(SELECT min(direct.usd_per_hour) FROM offers AS direct"
    " JOIN sources AS seller ON seller.id = direct.source"
    " WHERE seller.provider = offers.upstream AND direct.gpu = offers.gpu AND direct.usd_per_hour > 0"
    " AND direct.gpu_count = offers.gpu_count AND direct.market = offers.market)"
)
"""What the same costs at least where it comes from."""

COLUMNS: Final = {
    column.name: column
    for column in (
        Column(
            "id",
            Kind.TEXT,
            "sources.provider || '/' || offers.instance_type || '/'"
            f" || coalesce(offers.zone, offers.region, '-') || '/' || {_MARKET_NAME}",
            "provider/instance_type/place/market",
        ),
        Column("gpu", Kind.TEXT, "gpus.name", "chip, form factor and memory, as in H100-SXM-80"),
        Column("chip", Kind.TEXT, "gpus.chip", "the chip alone, as in H100"),
        Column("form_factor", Kind.TEXT, "gpus.form_factor", "SXM, PCIe, NVL or OAM"),
        Column("vram", Kind.COUNT, "gpus.vram", "memory of one GPU in GiB", unit=Unit.GIB),
        Column("gpu_count", Kind.COUNT, "offers.gpu_count", "GPUs in one instance"),
        Column("usd_per_hour", Kind.AMOUNT, "offers.usd_per_hour", "the whole instance", unit=Unit.USD),
        Column(
            "usd_per_gpu_hour",
            Kind.AMOUNT,
            "offers.usd_per_hour / offers.gpu_count",
            "its share for one GPU",
            unit=Unit.USD,
        ),
        Column("provider", Kind.TEXT, "sources.provider", "who rents it out"),
        Column("upstream", Kind.TEXT, "offers.upstream", "whose machine it is, where it is passed on"),
        Column(
            "margin",
            Kind.AMOUNT,
            f"CASE WHEN offers.upstream IS NOT NULL THEN"
            f" offers.usd_per_hour * {MICROS} / {_UPSTREAM} - {MICROS} END",
            "how much dearer than from its upstream itself",
            unit=Unit.SHARE,
        ),
        Column("instance_type", Kind.TEXT, "offers.instance_type", "the provider's own word"),
        Column("region", Kind.TEXT, "offers.region", "where, in the provider's words"),
        Column("zone", Kind.TEXT, "offers.zone", "where in the region"),
        Column("country", Kind.TEXT, "offers.country", "two letters of ISO 3166"),
        Column("market", Kind.CHOICE, "offers.market", "how it is sold", MARKETS),
        Column(
            "availability", Kind.CHOICE, "offers.availability", "whether it can be had now", AVAILABILITIES
        ),
        Column("vcpus", Kind.COUNT, "offers.vcpus", "virtual CPUs"),
        Column("memory_gib", Kind.AMOUNT, "offers.memory_gib", "main memory", unit=Unit.GIB),
        Column(
            "disk_gib",
            Kind.AMOUNT,
            "offers.disk_gib",
            "disk that comes with it, or that it can have",
            unit=Unit.GIB,
        ),
        Column("any_disk", Kind.FLAG, "offers.any_disk", "it is given a disk as large as is asked for"),
        Column("inet_down", Kind.COUNT, "offers.inet_down", "Mbit/s from the internet"),
        Column("inet_up", Kind.COUNT, "offers.inet_up", "Mbit/s to the internet"),
        Column(
            "reliability",
            Kind.AMOUNT,
            "offers.reliability",
            "a share of 1, as its marketplace measures it",
            unit=Unit.SHARE,
        ),
        Column("cuda", Kind.AMOUNT, "offers.cuda", "the highest CUDA version that its driver takes"),
        Column("driver", Kind.TEXT, "offers.driver", "version of the GPU driver"),
        Column("secure", Kind.FLAG, "offers.secure", "in a data centre that its provider vouches for"),
        Column("verified", Kind.FLAG, "offers.verified", "checked by its marketplace"),
        Column("minimum_s", Kind.COUNT, "offers.minimum_s", "seconds that are billed at least"),
        Column("interconnect", Kind.TEXT, "offers.interconnect", "nvlink, ib and the like"),
        Column(
            "interruptions_per_hour",
            Kind.AMOUNT,
            "offers.interruptions_per_hour",
            "the chance, for spot",
            unit=Unit.SHARE,
        ),
        Column(
            "disk_usd_per_gib_month",
            Kind.AMOUNT,
            "offers.disk_usd_per_gib_month",
            "price of disk",
            unit=Unit.USD,
        ),
        Column(
            "egress_usd_per_gib",
            Kind.AMOUNT,
            "offers.egress_usd_per_gib",
            "price of traffic out",
            unit=Unit.USD,
        ),
        Column(
            "bf16_tflops",
            Kind.AMOUNT,
            "gpus.bf16_tflops * offers.gpu_count",
            "dense, all GPUs of the instance",
        ),
        Column(
            "bandwidth_gb_s",
            Kind.AMOUNT,
            "gpus.bandwidth_gb_s * offers.gpu_count",
            "of memory, all GPUs of the instance",
        ),
        Column("currency", Kind.TEXT, "offers.currency", "what the provider's price is in"),
        Column("source", Kind.TEXT, "sources.name", "where the price comes from"),
        Column("confidence", Kind.TEXT, "offers.confidence", "how far to trust the price"),
    )
}
