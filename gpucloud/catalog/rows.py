"""Offers as rows of the cache, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias, overload

from gpucloud.catalog.columns import AVAILABILITIES, MARKETS, MICROS
from gpucloud.catalog.gpus import facts
from gpucloud.model import Gpu, Offer

Row: TypeAlias = tuple[Any, ...]

FIELDS: Final = (
    "key INTEGER PRIMARY KEY",
    "source INTEGER NOT NULL",
    "gpu INTEGER",
    "gpu_count INTEGER NOT NULL",
    "usd_per_hour INTEGER NOT NULL",
    "vcpus INTEGER",
    "memory_gib INTEGER",
    "disk_gib INTEGER",
    "market INTEGER NOT NULL",
    "availability INTEGER NOT NULL",
    "inet_down INTEGER",
    "inet_up INTEGER",
    "reliability INTEGER",
    "cuda INTEGER",
    "interruptions_per_hour INTEGER",
    "disk_usd_per_gib_month INTEGER",
    "egress_usd_per_gib INTEGER",
    "secure INTEGER",
    "verified INTEGER",
    "minimum_s INTEGER",
    "any_disk INTEGER NOT NULL",
    "as_of INTEGER",
    "country TEXT",
    "region TEXT",
    "zone TEXT",
    "instance_type TEXT NOT NULL",
    "interconnect TEXT",
    "driver TEXT",
    "currency TEXT NOT NULL",
    "amount TEXT",
    "confidence TEXT NOT NULL",
    "detail TEXT",
    "origin TEXT",
    "upstream TEXT",
    "ref TEXT NOT NULL",
)
"""The table ``offers``. Numbers come first, so that reading them need not step over text.

``key`` is the source, followed by a hash of what tells its offers apart. ``as_of`` (seconds since 1970) and
``origin`` are null where they are those of the last complete answer: a repeated answer changes no row.
"""

HASH_BITS: Final = 48
"""Of 100,000 offers of one source, one in 50,000 such answers would lose an offer to a clash."""

GPU_FIELDS: Final = (
    "id INTEGER PRIMARY KEY",
    "chip_key TEXT NOT NULL",
    "chip TEXT NOT NULL",
    "vram INTEGER",
    "form_factor TEXT",
    "name TEXT NOT NULL UNIQUE",
    "bf16_tflops INTEGER",
    "bandwidth_gb_s INTEGER",
)
"""The table ``gpus``: every GPU that was ever on offer."""

SAME_ANSWER_S: Final = 60
"""Offers of one answer may be as of moments that differ by so much, and count as of one moment."""

NAMES: Final = tuple(field.split()[0] for field in FIELDS)


def to_rows(
    offers: Iterable[Offer],
    source: int,
    name: str,
    complete_at: datetime | None,
    gpu_id: Callable[[Gpu], int],
) -> Iterator[Row]:
    """Rows for the answer of one source, which is called ``name``; ``complete_at`` if it has told all."""
    # Loading it takes longer than a listing that writes nothing.
    import hashlib

    asked, (first, _) = int(complete_at.timestamp()) if complete_at else None, keys_of(source)
    markets = {market: number for number, market in enumerate(MARKETS)}
    availabilities = {availability: number for number, availability in enumerate(AVAILABILITIES)}
    for offer in offers:
        gpu = gpu_id(offer.gpu) if offer.gpu else None
        identity = f"{offer.id} {offer.ref} {offer.gpu_count} {gpu}"
        digest = hashlib.blake2b(identity.encode(), digest_size=HASH_BITS // 8).digest()
        seen = int(offer.as_of.timestamp())
        yield (
            first + int.from_bytes(digest),
            source,
            gpu,
            offer.gpu_count,
            _micros(offer.usd_per_hour),
            offer.vcpus,
            _micros(offer.memory_gib),
            _micros(offer.disk_gib),
            markets[offer.market],
            availabilities[offer.availability],
            offer.inet_down_mbps,
            offer.inet_up_mbps,
            _micros(offer.reliability),
            _micros(offer.cuda),
            _micros(offer.interruptions_per_hour),
            _micros(offer.disk_usd_per_gib_month),
            _micros(offer.egress_usd_per_gib),
            offer.secure,
            offer.verified,
            offer.minimum_s,
            offer.any_disk,
            seen if asked is None or seen < asked - SAME_ANSWER_S else None,
            offer.country,
            offer.region,
            offer.zone,
            offer.instance_type,
            offer.interconnect,
            offer.driver,
            offer.currency,
            None if offer.amount is None else str(offer.amount),
            offer.confidence,
            offer.availability_detail,
            offer.source if offer.source != name else None,
            offer.upstream,
            offer.ref,
        )


def to_offer(row: Mapping[str, Any]) -> Offer:
    """The offer of a row of ``offers`` joined with ``sources`` and ``gpus``."""
    gpu = Gpu(row["chip"], row["vram"], row["form_factor"]) if row["chip"] else None
    return Offer(
        provider=row["provider"],
        instance_type=row["instance_type"],
        market=MARKETS[row["market"]],
        usd_per_hour=_amount(row["usd_per_hour"]),
        as_of=datetime.fromtimestamp(row["as_of"] or row["complete_at"], UTC),
        source=row["origin"] or row["name"],
        gpu=gpu,
        gpu_count=row["gpu_count"],
        region=row["region"],
        zone=row["zone"],
        availability=AVAILABILITIES[row["availability"]],
        currency=row["currency"],
        amount=None if row["amount"] is None else Decimal(row["amount"]),
        confidence=row["confidence"],
        vcpus=row["vcpus"],
        memory_gib=_amount(row["memory_gib"]),
        disk_gib=_amount(row["disk_gib"]),
        ref=row["ref"],
        availability_detail=row["detail"],
        country=row["country"],
        interconnect=row["interconnect"],
        secure=_flag(row["secure"]),
        verified=_flag(row["verified"]),
        inet_down_mbps=row["inet_down"],
        inet_up_mbps=row["inet_up"],
        reliability=_amount(row["reliability"]),
        cuda=_amount(row["cuda"]),
        driver=row["driver"],
        disk_usd_per_gib_month=_amount(row["disk_usd_per_gib_month"]),
        egress_usd_per_gib=_amount(row["egress_usd_per_gib"]),
        interruptions_per_hour=_amount(row["interruptions_per_hour"]),
        upstream=row["upstream"],
        minimum_s=row["minimum_s"],
        any_disk=bool(row["any_disk"]),
        margin=_amount(row["margin"]),
    )


def keys_of(source: int) -> tuple[int, int]:
    """The least and the greatest key that a row of a source can have."""
    return source << HASH_BITS, ((source + 1) << HASH_BITS) - 1


def gpu_row(gpu: Gpu) -> Row:
    """A GPU as the table ``gpus`` has it: what it is, its name, and what one of it can do."""
    known = facts(gpu)
    return (
        gpu.key,
        gpu.chip,
        gpu.memory_gib,
        gpu.form_factor,
        str(gpu),
        _micros(known.bf16_tflops) if known else None,
        _micros(known.bandwidth_gb_s) if known else None,
    )


@overload
def _micros(amount: Decimal) -> int: ...
@overload
def _micros(amount: Decimal | None) -> int | None: ...
def _micros(amount: Decimal | None) -> int | None:
    return None if amount is None else round(amount * MICROS)


@overload
def _amount(micros: int) -> Decimal: ...
@overload
def _amount(micros: int | None) -> Decimal | None: ...
def _amount(micros: int | None) -> Decimal | None:
    return None if micros is None else Decimal(micros) / MICROS


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)
