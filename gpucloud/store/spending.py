"""What was spent, by what a person asks for: project, provider, GPU, day and the like."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from types import MappingProxyType
from typing import Final, TypeAlias

from gpucloud.model import Gpu
from gpucloud.store.database import Database
from gpucloud.store.ledger import Charge, Ledger, Line, PeriodEnd

TAG: Final = "tag:"
"""What the key of a tag begins with, which goes on with the name of the tag."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose a rental was and what was rented; ``None`` is not known, or not said."""

    cluster: str
    provider: str
    market: str
    region: str | None = None
    gpu: str | None = None
    instance_id: str | None = None
    project: str | None = None
    user: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


Key: TypeAlias = Callable[[Origin, Charge], str | None]

KEYS: Final[Mapping[str, Key]] = MappingProxyType(
    {
        "cluster": lambda origin, _: origin.cluster,
        "project": lambda origin, _: origin.project,
        "user": lambda origin, _: origin.user,
        "provider": lambda origin, _: origin.provider,
        "region": lambda origin, _: origin.region,
        "market": lambda origin, _: origin.market,
        "gpu": lambda origin, _: origin.gpu,
        "instance_id": lambda origin, _: origin.instance_id,
        "line": lambda _, charge: charge.line,
        "day": lambda _, charge: f"{charge.since:%Y-%m-%d}",
        "month": lambda _, charge: f"{charge.since:%Y-%m}",
    }
)
"""What charges can be grouped by, beside tags; days and months are those of UTC."""


def next_day(at: datetime) -> datetime:
    """The midnight that ends the day of a moment in UTC."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def next_month(at: datetime) -> datetime:
    """The midnight that ends the month of a moment in UTC."""
    # From its 28th day four more lead into the next month, whichever month it is.
    return next_day(at.replace(day=28) + timedelta(days=3)).replace(day=1)


_PERIODS: Final[Mapping[str, PeriodEnd]] = MappingProxyType({"day": next_day, "month": next_month})
"""The keys that are times, the shortest first."""


@dataclass(frozen=True, slots=True)
class Group:
    """What the charges with the same ``keys`` come to, in dollars.

    ``known`` is what is known of each line, ``unknown`` are the lines of which something is not. ``lasted``
    is for how long instances were paid for.
    """

    keys: tuple[str | None, ...]
    known: Mapping[Line, Decimal]
    unknown: frozenset[Line]
    lasted: timedelta

    def of(self, line: Line) -> Decimal | None:
        """What one line came to; ``None`` when something of it is not known."""
        return None if line in self.unknown else self.known.get(line, Decimal(0))

    @property
    def at_least(self) -> Decimal:
        """What is known of all lines."""
        return sum(self.known.values(), Decimal(0))

    @property
    def total(self) -> Decimal | None:
        """All lines together; ``None`` when something is not known."""
        return None if self.unknown else self.at_least


class Spending:
    """The ledger, joined with what was rented and for whom."""

    def __init__(self, db: Database, ledger: Ledger) -> None:
        self._db = db
        self._ledger = ledger

    def clusters(self) -> list[str]:
        """The names of all clusters and reservations that there ever were, sorted."""
        rows = self._db.read("SELECT name FROM clusters UNION SELECT name FROM bookings ORDER BY name")
        return [row["name"] for row in rows]

    def by(
        self,
        keys: Sequence[str],
        since: datetime | None = None,
        until: datetime | None = None,
        patterns: Sequence[str] = (),
    ) -> list[Group]:
        """What was spent within a time, by keys: those of ``KEYS``, and tags.

        ``patterns`` are names of clusters in which ``*`` and ``?`` stand for letters; without any, it is all.
        """
        period = next((end for key, end in _PERIODS.items() if key in keys), None)
        charges = self._ledger.charges(since, until, period=period)
        return grouped(charges, self._origins(patterns), keys)

    def _origins(self, patterns: Sequence[str]) -> dict[str, Origin]:
        rows = self._db.read(
            "SELECT token, name, provider, market, region, gpu, instance_id, project, user, tags"
            " FROM rentals JOIN clusters ON clusters.id = cluster_id UNION ALL"
            " SELECT token, name, provider, 'reserved', region, gpu, reservation_id, project, user, tags"
            " FROM bookings"
        )
        wanted = cache(lambda name: not patterns or any(fnmatchcase(name, each) for each in patterns))
        return {
            row["token"]: Origin(
                cluster=row["name"],
                provider=row["provider"],
                market=row["market"],
                region=row["region"],
                gpu=_gpu(row["gpu"]),
                instance_id=row["instance_id"],
                project=row["project"] or None,
                user=row["user"] or None,
                tags=_tags(row["tags"]),
            )
            for row in rows
            if wanted(row["name"])
        }


def grouped(charges: Iterable[Charge], origins: Mapping[str, Origin], keys: Sequence[str]) -> list[Group]:
    """The charges of rentals that have an origin, by keys.

    Times follow on each other; else what cost the most comes first.
    """
    key_of = [_key(name) for name in keys]
    found: dict[tuple[str | None, ...], list[Charge]] = {}
    for charge in charges:
        origin = origins.get(charge.token)
        if origin is not None:
            found.setdefault(tuple(key(origin, charge) for key in key_of), []).append(charge)
    groups = [_summed(values, members) for values, members in found.items()]
    if _PERIODS.keys() & set(keys):
        return sorted(groups, key=_by_keys)
    return sorted(groups, key=lambda group: (-group.at_least, _by_keys(group)))


def together(groups: Iterable[Group]) -> Group:
    """All groups as one, without keys."""
    known: dict[Line, Decimal] = {}
    unknown: frozenset[Line] = frozenset()
    lasted = timedelta()
    for group in groups:
        for line, usd in group.known.items():
            known[line] = known.get(line, Decimal(0)) + usd
        unknown |= group.unknown
        lasted += group.lasted
    return Group((), known, unknown, lasted)


def _key(name: str) -> Key:
    if name.startswith(TAG):
        tag = name.removeprefix(TAG)
        return lambda origin, _: origin.tags.get(tag)
    return KEYS[name]


def _summed(keys: tuple[str | None, ...], charges: Sequence[Charge]) -> Group:
    known: dict[Line, Decimal] = {}
    for charge in charges:
        if charge.usd is not None:
            known[charge.line] = known.get(charge.line, Decimal(0)) + charge.usd
    unknown = frozenset(charge.line for charge in charges if charge.usd is None)
    instances = (charge.lasted for charge in charges if charge.line is Line.INSTANCE)
    return Group(keys, known, unknown, sum(instances, timedelta()))


def _by_keys(group: Group) -> tuple[tuple[bool, str], ...]:
    return tuple((key is None, key or "") for key in group.keys)


@cache
def _gpu(text: str | None) -> str | None:
    return str(Gpu(**json.loads(text))) if text else None


@cache
def _tags(text: str) -> Mapping[str, str]:
    return MappingProxyType(json.loads(text))
