"""The price list that ships with the program: what a dated source said that a GPU costs somewhere.

``prices.csv`` holds one line per price; a blank cell is what its source does not say. ``amount`` is the price
as the source has it, for one GPU or for the whole instance as ``basis`` tells, per hour. ``secure`` is yes or
no where the source tells data centres from hosts that anybody may offer. ``note`` is what else tells a line
from its neighbours: an edition of the card, or that the price is an average, a median or the lowest of
several. ``as_of`` is as exact as the source: 2026-11-09, 2026-06 or 2026. Older prices of a line stay in the
file. None of this can be launched, and none of it may enforce a cap.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from gpucloud.catalog import currencies
from gpucloud.catalog.gpus import by_chip
from gpucloud.model import Gpu, Market, Offer, fold, utcnow

if TYPE_CHECKING:
    from gpucloud.catalog.cache import Cache

PER_GPU: Final = "per_gpu"
PER_INSTANCE: Final = "per_instance"
SECURE: Final[Mapping[str, bool | None]] = {"yes": True, "no": False, "": None}
CONFIDENCES: Final = frozenset("ABC")

SUDDEN: Final = 10
"""A price so many times above or below the median of its kind is taken for a mistake."""

NAME: Final = "price list"
"""The name of the source that this is in the offer cache."""

_FILE: Final = Path(__file__).with_name("prices.csv")
_DAY: Final = re.compile(r"[0-9]{4}(?:-[0-9]{2}){0,2}")

_Key: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Price:
    """One line of the file, its cells as they are written there."""

    provider: str
    instance_type: str
    gpu: str
    gpu_count: str
    market: str
    secure: str
    note: str
    amount: str
    currency: str
    basis: str
    region: str
    as_of: str
    source: str
    confidence: str

    def __str__(self) -> str:
        where = f" in {self.region}" if self.region else ""
        what = self.instance_type or f"{self.gpu}:{self.gpu_count}"
        return f"{self.provider} {what} {self.market}{where} as of {self.as_of or 'no day'}"

    @property
    def line(self) -> _Key:
        """What is sold, where and how; two prices of one line differ in their day."""
        return (
            self.provider,
            self.gpu.casefold(),
            self.gpu_count.zfill(4),
            self.market,
            self.instance_type,
            self.region,
            self.secure,
            self.note,
        )

    @property
    def key(self) -> _Key:
        """The place of this price in the file, and what no other price there may share."""
        return (*self.line, self.as_of)

    @property
    def day(self) -> date:
        """The day of the price, or the first day of its month or year: it is never shown as too young.

        Raises:
            ValueError: when there is none.
        """
        if not _DAY.fullmatch(self.as_of):
            raise ValueError(f"{self.as_of!r} is no day")
        return date.fromisoformat(f"{self.as_of}-01-01"[: len("2026-01-01")])

    @property
    def total(self) -> Decimal:
        """What the whole instance costs per hour, in the currency of the source.

        Raises:
            ValueError: when the amount, the count or the basis cannot be read.
        """
        try:
            count, amount = int(self.gpu_count), Decimal(self.amount)
        except (ValueError, InvalidOperation) as error:
            raise ValueError(f"{self.amount!r} for {self.gpu_count!r} GPUs is no price") from error
        if self.basis not in {PER_GPU, PER_INSTANCE} or count < 1 or not amount.is_finite():
            raise ValueError(f"{self.amount} {self.basis!r} for {count} GPUs is no price")
        return amount * count if self.basis == PER_GPU else amount


@lru_cache(maxsize=1)
def rows() -> tuple[Price, ...]:
    """Every line of the file, older prices too, in its order."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(Price(**row) for row in csv.DictReader(file))


def prices(rates: Mapping[str, Decimal] = MappingProxyType({})) -> tuple[Offer, ...]:
    """The newest price of every line as an offer, whose availability is unknown; ``rates`` as in ``to_usd``.

    ``amount`` is for the whole instance, as ``usd_per_hour`` is. Where the source names no instance type, the
    offer has a description in its place, such as ``H100-SXM-80:8``, so that ids stay apart.
    """
    newest: dict[_Key, Price] = {}
    for row in rows():
        other = newest.get(row.line)
        if other is None or row.day > other.day:
            newest[row.line] = row
    return tuple(_offer(row, rates) for row in newest.values())


def remember(cache: Cache, rates: Mapping[str, Decimal]) -> None:
    """Put the price list into a cache that does not have this edition of it yet.

    ``rates`` are dollars for one unit of a currency where the person has said so.
    """
    from gpucloud.catalog.cache import SourceKind

    # Enough to tell editions apart, and there without loading OpenSSL.
    content = _FILE.read_bytes() + repr(sorted(rates.items())).encode()
    edition = f"{zlib.crc32(content):08x}{zlib.adler32(content):08x}"
    if edition in cache.validators(SourceKind.LISTED).values():
        return
    by_provider: dict[str, list[Offer]] = {}
    for offer in prices(rates):
        by_provider.setdefault(offer.provider, []).append(offer)
    for provider, offers in by_provider.items():
        cache.put(provider, offers, name=NAME, kind=SourceKind.LISTED, at=utcnow(), validator=edition)


def problems(rows: Sequence[Price], today: date) -> list[str]:
    """What is wrong with a price list, one sentence per finding; empty when nothing is."""
    found: list[str] = []
    for number, row in enumerate(rows):
        found += [f"{row}: {fault}" for fault in _faults(row, today)]
        if number and row.key < rows[number - 1].key:
            found.append(f"{row}: stands after {rows[number - 1]}, but sorts before it")
    seen: set[_Key] = set()
    for row in rows:
        if row.key in seen:
            found.append(f"{row}: is there twice")
        seen.add(row.key)
    return found + list(_sudden(rows))


def _faults(row: Price, today: date) -> Iterator[str]:
    """What is wrong with one price, whatever the others are."""
    if not row.provider:
        yield "the provider is missing"
    if row.market not in set(Market):
        yield f"the market {row.market!r} is none of {', '.join(Market)}"
    if not _in_table(row.gpu):
        yield f"{row.gpu!r} is not how the GPU table writes any GPU"
    if row.secure not in SECURE:
        yield f"secure is {row.secure!r}, neither yes nor no nor blank"
    if row.confidence not in CONFIDENCES:
        yield f"the confidence {row.confidence!r} is none of {', '.join(sorted(CONFIDENCES))}"
    if row.currency not in {currencies.DOLLAR, *currencies.table()}:
        yield f"there is no rate for the currency {row.currency!r}"
    if not row.source.strip():
        yield "the source is missing"
    try:
        if row.total <= 0:
            yield f"the price {row.amount} is not above zero"
    except ValueError as error:
        yield str(error)
    try:
        if row.day > today:
            yield "is of the future"
    except ValueError:
        yield f"the date is missing: {row.as_of!r}"


def _sudden(rows: Sequence[Price]) -> Iterator[str]:
    """The prices of one GPU that are far from the median of the same GPU on the same market."""
    kinds: dict[tuple[str, str], list[tuple[Price, Decimal]]] = {}
    for row in rows:
        try:
            usd = currencies.to_usd(row.total, row.currency, {}).usd / int(row.gpu_count)
        except ValueError:
            continue  # said already of the row itself
        if usd > 0:
            kinds.setdefault((row.gpu, row.market), []).append((row, usd))
    for (gpu, market), members in kinds.items():
        median = _median([usd for _, usd in members])
        for row, usd in members:
            if usd > median * SUDDEN or usd * SUDDEN < median:
                yield f"{row}: ${usd:.4f} per GPU is far from ${median:.4f}, the median of {gpu} {market}"


def _median(values: Sequence[Decimal]) -> Decimal:
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _in_table(name: str) -> bool:
    """Whether ``name`` is ``str`` of a GPU whose chip, memory and form factor a row of the GPU table has."""
    try:
        gpu = Gpu.parse(name)
    except ValueError:
        return False
    return str(gpu) == name and any(
        gpu.chip == row.chip
        and gpu.memory_gib in {None, row.memory_gib}
        and gpu.form_factor in {None, row.form_factor}
        for row in by_chip().get(fold(gpu.chip), ())
    )


def _offer(row: Price, rates: Mapping[str, Decimal]) -> Offer:
    return Offer(
        provider=row.provider,
        instance_type=row.instance_type or _description(row),
        market=Market(row.market),
        usd_per_hour=currencies.to_usd(row.total, row.currency, rates).usd,
        as_of=datetime.combine(row.day, time(), UTC),
        source=row.source,
        gpu=Gpu.parse(row.gpu),
        gpu_count=int(row.gpu_count),
        region=row.region or None,
        currency=row.currency,
        amount=row.total,
        confidence=row.confidence,
        secure=SECURE[row.secure],
    )


def _description(row: Price) -> str:
    """``H100-SXM-80:1+community``: in our words, what the source offers without a name of its own."""
    place = {"yes": "secure", "no": "community", "": ""}[row.secure]
    remarks = (place, *row.note.replace(" ", "-").split(",-"))
    return "+".join([f"{row.gpu}:{row.gpu_count}", *filter(None, remarks)])
