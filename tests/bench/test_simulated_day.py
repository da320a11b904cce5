"""A day in the life of somebody whose vendor, and whose computer, fail at random.

``GPUCLOUD_BENCH_LAUNCHES`` says how many launches there are in it, ``GPUCLOUD_BENCH_SEED`` which day it is.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.fleet.reconcile import fsck
from gpucloud.model import over_time
from gpucloud.store.ledger import Line
from tests.harness.acme import EVERY_FAULT, DiesAt, Fault, Moment, Thing, Trouble, Vendor, Verb, serving
from tests.harness.fleets import World, attempt, fix, give_back, rent, request, virtual_time

LAUNCHES = int(os.environ.get("GPUCLOUD_BENCH_LAUNCHES", "30"))
SEED = int(os.environ.get("GPUCLOUD_BENCH_SEED", "4"))
HOUR_S = 3600
DAY_S = 24 * HOUR_S
FAULTY = 0.3
DEADLY = 0.2
STEPS = 30
"""A process that is to die does so at one of its first so many writes and calls."""

LISTINGS = 2
"""From so many listings acme leaves out, at most, what it has just made."""
INSTANCE = "instance"
MICRO = Decimal("0.000001")

# A timeout passes for real, and what it does is done by a lost reply as well.
USUAL = [
    fault
    for fault in EVERY_FAULT
    if fault.trouble is not Trouble.TIMEOUT and fault.verb not in {Verb.STOP, Verb.START, Verb.EXPIRE}
]


@dataclass
class Day:
    """What happens when, by the seconds of the day."""

    world: World
    chance: random.Random
    happened: Counter[str] = field(default_factory=Counter)
    told: set[str] = field(default_factory=set)
    """What ``fsck`` has named as something that nobody wants."""

    def passes(self) -> None:
        """Live through it."""
        order = itertools.count()
        plan: list[tuple[float, int, str, str]] = [
            (HOUR_S * hour, next(order), "fsck", "") for hour in range(1, 25)
        ]
        for number in range(LAUNCHES):
            begins = self.chance.uniform(0, DAY_S)
            lasts = self.chance.uniform(300, 3 * HOUR_S)
            plan.append((begins, next(order), "launch", f"c{number}"))
            plan.append((begins + lasts, next(order), "end", f"c{number}"))
        heapq.heapify(plan)
        time = self.world.time
        while plan:
            at, _, act, name = heapq.heappop(plan)
            if at > DAY_S:
                break
            if at > time.now:
                time.sleep(at - time.now)
            if self.chance.random() < FAULTY:
                self.world.server.strike(self._fault())
            if act == "fsck":
                self._compare()
            else:
                self._act(act, name)

    def _fault(self) -> Fault:
        usual = self.chance.choice(USUAL)
        return Fault(
            usual.verb, usual.trouble, self.chance.choice((1, 1, 1, 4)), self.chance.choice((0, 0, 2))
        )

    def _act(self, act: str, name: str) -> None:
        dies = None
        if self.chance.random() < DEADLY:
            dies = DiesAt(self.chance.randint(1, STEPS), self.chance.choice(list(Moment)))
        lease = timedelta(seconds=self.chance.choice((1800, HOUR_S, 12 * HOUR_S)))
        with self.world.process(dies) as fleet:
            if act == "launch":
                error = attempt(lambda: rent(fleet, request(name, max_duration=lease)))
            else:
                error = attempt(lambda: give_back(fleet, name))
        outcome = "died" if dies and dies.dead else type(error).__name__ if error else "went well"
        self.happened[f"{act} {outcome}"] += 1

    def _compare(self) -> None:
        """As cron does every hour: what nobody wants is ended, if the vendor lets us."""
        with self.world.process() as fleet:
            report = fsck(fleet)
            for _ in range(LISTINGS):
                # What acme does not show it counts in listings, not in seconds.
                if self.world.unseen(report) and not report.failures:
                    report = fsck(fleet)
            if not report.failures:
                assert not self.world.unseen(report), (SEED, self.world.unseen(report))
            for finding in report.findings:
                if finding.unexplained:
                    self.happened[f"fsck {finding.kind}"] += 1
                    self.told.add(str(finding.instance_id))
                    attempt(lambda finding=finding: fix(fleet, finding))  # type: ignore[misc]
        assert not self.world.rented_twice(), SEED


@dataclass
class Bill:
    """What the vendor has billed against what the books say, in dollars.

    ``beside`` are disks and addresses and ``twins`` second instances, none of which the books have a price
    for; ``late`` is what the books have beyond the bill because they learned late that something had ended.
    """

    billed: Decimal = Decimal(0)
    booked: Decimal = Decimal(0)
    beside: Decimal = Decimal(0)
    twins: Decimal = Decimal(0)
    late: Decimal = Decimal(0)
    missing: Decimal = Decimal(0)


def settled(day: Day) -> Bill:
    """Compare the bill of the vendor with the books, instance by instance."""
    world, bill = day.world, Bill()
    now = world.time.elsewhere()
    with world.process() as fleet:
        rentals = {rental.token: rental for rental in fleet.store.journal.rentals(gone=True)}
        booked: defaultdict[str, Decimal] = defaultdict(Decimal)
        for each in fleet.store.ledger.charges():
            if each.line in {Line.INSTANCE, Line.ROUNDING}:
                assert each.usd is not None
                booked[each.token] += each.usd
    for thing in world.server.vendor.things():
        cost = thing.cost(now)
        bill.billed += cost
        assert thing.token in rentals, (SEED, thing)
        ref = rentals[thing.token].ref
        if thing.kind != INSTANCE:
            bill.beside += cost
        elif ref is None or ref.id != thing.id:
            bill.twins += cost
            assert thing.id in day.told or _short(thing), (SEED, thing)
        else:
            ours = booked.pop(thing.token, Decimal(0))
            bill.booked += ours
            # The books may round each rental up to the second, and to the micro-dollar.
            bill.missing += max(cost - ours - MICRO, Decimal(0))
            bill.late += max(ours - cost, Decimal(0))
            gone_at = rentals[thing.token].gone_at
            assert gone_at and thing.ended_at
            late = max(gone_at - thing.ended_at, timedelta()) + timedelta(seconds=1)
            assert ours - cost <= over_time(thing.usd_per_hour, late) + MICRO, (SEED, thing, gone_at)
    assert not any(booked.values()), (SEED, "the books have what nobody has billed", booked)
    return bill


def _short(thing: Thing) -> bool:
    """Whether it was over before anybody compared anything."""
    return thing.ended_at is not None and thing.ended_at - thing.created_at < timedelta(hours=1.5)


@pytest.mark.slow
def test_a_day_ends_with_no_unexplained_dollar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Many are there at once, and the pages of a listing are not what this is about.
    monkeypatch.setattr("tests.harness.acme.vendor.PAGE", 200)
    settings = {"launch.end_timeout": "1m", "launch.ready_timeout": "1m"}
    with virtual_time() as time, serving(Vendor(time.elsewhere)) as server:
        day = Day(World(server, tmp_path, time, settings), random.Random(SEED))
        day.passes()
        day.world.cleaned_up()
        bill = settled(day)
        struck = Counter(str(fault) for fault in server.struck)
        made = len(server.vendor.instances())
    with capsys.disabled():
        print(f"\nseed {SEED}: {LAUNCHES} launches, {made} instances, {sum(struck.values())} faults")  # noqa: T201
        print(dict(sorted(day.happened.items())), bill, sep="\n")  # noqa: T201
    assert bill.missing == 0, (SEED, bill)
