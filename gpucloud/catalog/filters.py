"""What a person wants, as named conditions of SQL, so that it can be told which of them removed how much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

from gpucloud.catalog.columns import MARKETS, MICROS
from gpucloud.catalog.where import ALL, Condition, Value, escaped, parse
from gpucloud.model import MEMORY_TOLERANCE, GpuWish, Requirements

_DISK: Final = f"iif(offers.any_disk, {2**62}, offers.disk_gib)"
"""How large a disk can be had."""


def filters(wanted: Requirements) -> dict[str, Condition]:
    """One condition for each requirement that restricts; an unknown value meets no minimum and no maximum.

    Raises:
        UsageError: when ``wanted.where`` makes no sense.
    """
    found = {
        "gpu": _any(_wish(wish) for wish in wanted.gpus),
        "market": _one_of("offers.market", [MARKETS.index(market) for market in wanted.markets]),
        "region": _any(_in_region(region) for region in wanted.regions),
        "country": _one_of("offers.country", wanted.countries),
        "instance type": _one_of("offers.instance_type", wanted.instance_types),
        "vcpus": _at_least("offers.vcpus", wanted.min_vcpus),
        "memory": _at_least("offers.memory_gib", _micros(wanted.min_memory_gib)),
        "disk": _at_least(_DISK, _micros(wanted.min_disk_gib)),
        "interconnect": _any(_contains("offers.interconnect", word) for word in wanted.interconnects),
        "secure only": Condition("offers.secure = 1") if wanted.secure_only else ALL,
        "verified": Condition("offers.verified = 1") if wanted.verified_only else ALL,
        "where": parse(wanted.where) if wanted.where else ALL,
        "price": ALL
        if wanted.max_usd_per_hour is None
        else Condition("offers.usd_per_hour <= ?", (int(wanted.max_usd_per_hour * MICROS),)),
    }
    return {name: condition for name, condition in found.items() if condition != ALL}


def all_of(conditions: Iterable[Condition]) -> Condition:
    """What meets every one of these."""
    given = [condition for condition in conditions if condition != ALL]
    values = tuple(value for condition in given for value in condition.values)
    return Condition(" AND ".join(f"({condition.sql})" for condition in given), values) if given else ALL


def _any(conditions: Iterable[Condition]) -> Condition:
    given = list(conditions)
    values = tuple(value for condition in given for value in condition.values)
    return Condition(" OR ".join(f"({condition.sql})" for condition in given), values) if given else ALL


def _wish(wish: GpuWish) -> Condition:
    """As ``GpuWish.accepts`` has it."""
    sql, values = "vram >= ?", list[Value]([wish.min_memory_gib or 0])
    if wish.gpu:
        sql, values = "chip_key = ?", [wish.gpu.key]
        if wish.gpu.form_factor:
            sql += " AND form_factor = ? COLLATE NOCASE"
            values.append(wish.gpu.form_factor)
        if wish.gpu.memory_gib is not None:
            sql += " AND vram BETWEEN ? AND ?"
            values += _tolerated(wish.gpu.memory_gib)
    return Condition(
        f"offers.gpu IN (SELECT id FROM gpus WHERE {sql}) AND offers.gpu_count = ?", (*values, wish.count)
    )


def _tolerated(memory_gib: int) -> tuple[float, float]:
    """Between which figures another vendor's count of the same memory may be."""
    return float(memory_gib * (1 - MEMORY_TOLERANCE)), float(memory_gib / (1 - MEMORY_TOLERANCE))


def _in_region(name: str) -> Condition:
    """A region or zone of that name, or one whose name begins with it as a word: ``eu`` for ``eu-west-1``."""
    begins = [f"{escaped(name)}-%", f"{escaped(name)}\\_%"]
    tests = [f"{field} = ? COLLATE NOCASE" for field in ("offers.region", "offers.zone")]
    tests += ["offers.region LIKE ? ESCAPE '\\'"] * len(begins)
    return Condition(" OR ".join(tests), (name, name, *begins))


def _contains(field: str, word: str) -> Condition:
    return Condition(f"{field} LIKE ? ESCAPE '\\'", (f"%{escaped(word)}%",))


def _one_of(field: str, values: Sequence[str | int]) -> Condition:
    if not values:
        return ALL
    return Condition(f"{field} COLLATE NOCASE IN ({', '.join('?' * len(values))})", tuple(values))


def _at_least(field: str, least: int | None) -> Condition:
    return ALL if least is None else Condition(f"{field} >= ?", (least,))


def _micros(gib: int | Decimal | None) -> int | None:
    return None if gib is None else int(gib * MICROS)
