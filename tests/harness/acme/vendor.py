"""What is true at the vendor acme: everything that was ever made there, and what of it bills."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from gpucloud.model import SshAddress, utcnow
from tests.harness.acme.faults import Fault, Trouble, Verb

INSTANCE: Final = "instance"
DISK_USD: Final = Decimal("0.01")
ADDRESS_USD: Final = Decimal("0.005")
PAGE: Final = 2
"""Rows on one page of a listing; few, so that every test reads several."""

HOUR_S: Final = 3600
Struck = Mapping[Trouble, Fault]


@dataclass(frozen=True, slots=True)
class Type:
    """One line of the price list."""

    name: str
    usd_per_hour: Decimal
    gpu: str = ""
    gpus: int = 0
    region: str = "east"
    market: str = "on-demand"
    available: bool | None = None


TYPES: Final = (
    Type("a1.cpu", Decimal("0.05")),
    Type("a1.h100", Decimal("2.50"), "H100-SXM-80", 1),
    Type("a1.h100", Decimal("2.60"), "H100-SXM-80", 1, region="west"),
    Type("a1.h100", Decimal("1.00"), "H100-SXM-80", 1, market="spot"),
    Type("a1.8xh100", Decimal("20.00"), "H100-SXM-80", 8, available=False),
)


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which something billed, or bills while ``ended_at`` is ``None``."""

    began_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Thing:
    """An instance, or the disk or address made with it, whose ``instance_id`` is that instance's.

    ``hidden_until`` and ``lingers_until`` count listings of its kind.
    """

    id: str
    kind: str
    status: str
    tags: Mapping[str, str]
    usd_per_hour: Decimal
    created_at: datetime
    billed: tuple[Period, ...]
    region: str
    type: str = ""
    market: str = ""
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    instance_id: str = ""
    hidden_until: int = 0
    lingers_until: int | None = None

    @property
    def token(self) -> str | None:
        """Our token, if it carries one."""
        return self.tags.get("gpucloud-token")

    @property
    def billing(self) -> bool:
        """Whether it bills now."""
        return self.billed[-1].ended_at is None

    def cost(self, now: datetime) -> Decimal:
        """What it has cost until now, in US dollars."""
        spans = ((period.ended_at or now) - period.began_at for period in self.billed)
        return sum((self.usd_per_hour * Decimal(str(s.total_seconds())) / HOUR_S for s in spans), Decimal(0))


class Refusal(Exception):
    """An answer that is no: an HTTP status and the vendor's prose."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Vendor:
    """The vendor without its wires. ``clock`` is the vendor's own time.

    ``types`` is the price list and may be replaced at any time. ``address`` is where SSH answers on every
    instance that runs; ``None`` when none can be reached by SSH.
    """

    def __init__(self, clock: Callable[[], datetime] = utcnow, address: SshAddress | None = None) -> None:
        self.clock = clock
        self.address = address
        self.types: tuple[Type, ...] = TYPES
        self._things: dict[str, Thing] = {}
        self._listings: Counter[bool] = Counter()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    # -- the truth, for tests ------------------------------------------------------------------------

    def things(self, token: str | None = None) -> tuple[Thing, ...]:
        """Everything that was ever made, in that order; with a token, what carries it."""
        with self._lock:
            self._pass_time()
            return tuple(thing for thing in self._things.values() if token in (None, thing.token))

    def instances(self, token: str | None = None) -> tuple[Thing, ...]:
        """Every instance that was ever made; with a token, one for each create that was carried out."""
        return tuple(thing for thing in self.things(token) if thing.kind == INSTANCE)

    def thing(self, thing_id: str) -> Thing:
        """One of them, by its id, also when it is gone."""
        return next(thing for thing in self.things() if thing.id == thing_id)

    def billing(self) -> tuple[Thing, ...]:
        """What bills now."""
        return tuple(thing for thing in self.things() if thing.billing)

    def cost(self, token: str | None = None) -> Decimal:
        """What all, or all with that token, has cost until now, in US dollars."""
        things, now = self.things(token), self.clock()
        return sum((thing.cost(now) for thing in things), Decimal(0))

    def take_back(self, instance_id: str) -> None:
        """End an instance as no client has asked for."""
        with self._lock:
            self._end(self._found(instance_id), self.clock())

    # -- what clients ask ----------------------------------------------------------------------------

    def answer(self, verb: Verb, thing_id: str, asked: Mapping[str, Any], struck: Struck) -> dict[str, Any]:
        """Do what is asked, as the faults that have struck will have it. Raises ``Refusal``."""
        with self._lock:
            self._pass_time()
            match verb:
                case Verb.OFFERS:
                    return {"items": [_type_row(line) for line in self.types], "next": None}
                case Verb.LIST:
                    return self._page(asked, instances=True)
                case Verb.LIST_RESOURCES:
                    return self._page(asked, instances=False)
                case Verb.CREATE:
                    return self._row(self._create(asked, struck))
            return self._row(self._change(verb, self._found(thing_id), asked, struck))

    def _change(self, verb: Verb, thing: Thing, asked: Mapping[str, Any], struck: Struck) -> Thing:
        if verb in {Verb.STOP, Verb.START, Verb.EXPIRE} and thing.status == "terminating":
            raise Refusal(409, f"{thing.id} is on its way out")
        match verb:
            case Verb.STOP if thing.status != "stopped":
                thing = self._put(_stop_billing(replace(thing, status="stopped"), self.clock()))
            case Verb.START if thing.status == "stopped":
                again = (*thing.billed, Period(self.clock()))
                thing = self._put(replace(thing, status="starting", billed=again))
            case Verb.EXPIRE:
                self._put(replace(thing, expires_at=datetime.fromisoformat(asked["expires_at"])))
                self._pass_time()
                thing = self._things[thing.id]
            case Verb.TERMINATE | Verb.REMOVE:
                thing = self._delete(thing, struck)
        return thing

    def _create(self, asked: Mapping[str, Any], struck: Struck) -> Thing:
        wanted = (asked["type"], asked["region"], asked["market"])
        line = next((t for t in self.types if (t.name, t.region, t.market) == wanted), None)
        if line is None:
            raise Refusal(400, f"there is no {asked['type']} in {asked['region']}")
        if line.available is False:
            raise Refusal(400, f"There is no capacity left for {line.name} in {line.region}.")
        lag = struck[Trouble.LAG].listings if Trouble.LAG in struck else 0
        for _ in range(2 if Trouble.TWICE in struck else 1):
            made = self._make(line, asked, lag, failing=Trouble.LEFT_BEHIND in struck)
        return made

    def _make(self, line: Type, asked: Mapping[str, Any], lag: int, *, failing: bool) -> Thing:
        """Make an instance, with a disk and an address; ``failing`` once these two are there."""
        now, number = self.clock(), next(self._numbers)
        expires_at = asked.get("expires_at")
        instance = Thing(
            id=f"i-{number}",
            kind=INSTANCE,
            status="starting",
            tags=dict(asked.get("tags", {})),
            usd_per_hour=line.usd_per_hour,
            created_at=now,
            billed=(Period(now),),
            region=line.region,
            type=line.name,
            market=line.market,
            expires_at=datetime.fromisoformat(expires_at) if expires_at else None,
            hidden_until=self._listings[True] + lag,
        )
        for kind, price in (("disk", DISK_USD), ("address", ADDRESS_USD)):
            beside = replace(
                instance,
                id=f"{kind}-{number}",
                kind=kind,
                status="ready",
                usd_per_hour=price,
                expires_at=None,
                instance_id=instance.id,
                hidden_until=self._listings[False] + lag,
            )
            self._put(beside)
        if failing:
            raise Refusal(500, "something broke while the instance was made")
        return self._put(instance)

    def _delete(self, thing: Thing, struck: Struck) -> Thing:
        used_by = self._things.get(thing.instance_id)
        if used_by is not None and used_by.ended_at is None:
            raise Refusal(409, f"{thing.id} is in use by {used_by.id}")
        if thing.status == "terminating":
            return thing
        if Trouble.LINGER in struck:
            until = self._listings[thing.kind == INSTANCE] + struck[Trouble.LINGER].listings
            return self._put(replace(thing, status="terminating", lingers_until=until))
        return self._end(thing, self.clock(), alone=Trouble.LEFT_BEHIND in struck)

    def _page(self, asked: Mapping[str, Any], *, instances: bool) -> dict[str, Any]:
        """A page of what is there; the first page begins another listing."""
        cursor = str(asked.get("cursor", ""))
        if not cursor:
            self._listings[instances] += 1
            self._end_what_has_lingered(instances)
        known = list(self._things)
        after = known[known.index(cursor) + 1 :] if cursor in known else known
        shown = [thing for thing in map(self._things.__getitem__, after) if self._shown(thing, instances)]
        page = shown[:PAGE]
        return {
            "items": [self._row(thing) for thing in page],
            "next": page[-1].id if len(shown) > PAGE else None,
        }

    def _shown(self, thing: Thing, instances: bool) -> bool:
        there = thing.ended_at is None and (thing.kind == INSTANCE) is instances
        return there and thing.hidden_until < self._listings[instances]

    # -- how things change ---------------------------------------------------------------------------

    def _found(self, thing_id: str) -> Thing:
        thing = self._things.get(thing_id)
        if thing is None or thing.ended_at is not None:
            raise Refusal(404, f"there is no {thing_id}")
        return thing

    def _put(self, thing: Thing) -> Thing:
        self._things[thing.id] = thing
        return thing

    def _end(self, thing: Thing, when: datetime, *, alone: bool = False) -> Thing:
        """Let it be gone, with what was made with it unless it ends ``alone``."""
        ended = self._put(_stop_billing(replace(thing, status="gone", ended_at=when), when))
        for beside in self._alive() if not alone else ():
            if beside.instance_id == thing.id:
                self._end(beside, when)
        return ended

    def _end_what_has_lingered(self, instances: bool) -> None:
        for thing in self._alive():
            if (
                thing.lingers_until is not None
                and (thing.kind == INSTANCE) is instances
                and thing.lingers_until < self._listings[instances]
            ):
                self._end(thing, self.clock())

    def _pass_time(self) -> None:
        """What starts is up by the next request, and what has expired is gone since then."""
        now = self.clock()
        for thing in self._alive():
            if thing.expires_at is not None and thing.expires_at <= now:
                self._end(thing, max(thing.expires_at, thing.billed[-1].began_at))
            elif thing.status == "starting":
                self._put(replace(thing, status="running"))

    def _alive(self) -> Iterable[Thing]:
        return [thing for thing in self._things.values() if thing.ended_at is None]

    def _row(self, thing: Thing) -> dict[str, Any]:
        """What the vendor tells of a thing."""
        reachable = self.address if thing.status == "running" else None
        return {
            "id": thing.id,
            "kind": thing.kind,
            "status": thing.status,
            "region": thing.region,
            "type": thing.type,
            "market": thing.market,
            "tags": dict(thing.tags),
            "usd_per_hour": str(thing.usd_per_hour),
            "created_at": thing.created_at.isoformat(),
            "ssh": reachable and {"host": reachable.host, "port": reachable.port, "user": reachable.user},
        }


def _stop_billing(thing: Thing, when: datetime) -> Thing:
    if not thing.billing:
        return thing
    return replace(thing, billed=(*thing.billed[:-1], replace(thing.billed[-1], ended_at=when)))


def _type_row(line: Type) -> dict[str, Any]:
    return {
        "name": line.name,
        "gpu": line.gpu or None,
        "gpus": line.gpus,
        "region": line.region,
        "market": line.market,
        "usd_per_hour": str(line.usd_per_hour),
        "available": line.available,
    }
