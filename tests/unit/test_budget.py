"""The budgets: what is spent and held never passes a cap, and a refusal leaves nothing behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucloud.config import load
from gpucloud.errors import BudgetRefused, ConfigError
from gpucloud.fleet.budget import caps as caps_of
from gpucloud.model import Cluster, ClusterState, Labels, Limits, Tariff, utcnow
from gpucloud.store import Store
from gpucloud.store.budget import Cap, Use
from gpucloud.store.ledger import Line
from tests.harness.books import a_rental, an_instance, opened
from tests.harness.launchers import launch_at_once, launchers

HOUR = timedelta(hours=1)
MICRO = Decimal("0.000001")
NEARLY = Decimal("0.05")
"""What a minute of a test would cost at the prices here."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "data") as store:
        yield store


def a_day(usd: str | int, project: str | None = None) -> Cap:
    """A cap on the last ten hours, whatever the time of day is."""
    return Cap("day", Decimal(usd), utcnow() - 10 * HOUR, project)


def rent(
    store: Store,
    name: str,
    *,
    price: str = "1",
    age: int = 0,
    lease: int | None = 10,
    caps: tuple[Cap, ...] = (),
    project: str = "",
    tariff: Tariff | None = None,
) -> Cluster:
    """A cluster with one instance that was rented ``age`` hours ago for ``lease`` hours in all."""
    token, begun = f"gc-{name}", utcnow() - age * HOUR
    cluster = store.clusters.create(name, 1, ephemeral=False, labels=Labels(project))
    rental = a_rental(
        cluster,
        token,
        usd_per_hour=Decimal(price),
        intended_at=begun,
        expires_at=None if lease is None else begun + lease * HOUR,
        tariff=tariff or Tariff(),
    )
    store.journal.intend(rental, caps)
    store.journal.accept(token, an_instance(token, created_at=begun))
    return store.clusters.by_id(cluster.id)


def end(store: Store, name: str) -> None:
    """Its instance is gone and it is settled."""
    cluster = store.clusters.get(name)
    assert cluster is not None
    for rental in cluster.rentals:
        store.journal.gone(rental.token, "down")
    store.clusters.update(cluster.id, ClusterState.ENDED)


def taken(store: Store, cap: Cap) -> Decimal:
    return sum((use.usd for use in store.budget.uses(cap)), Decimal(0))


def everything(store: Store) -> list[list[tuple[object, ...]]]:
    """All that is written down."""
    tables = ("clusters", "rentals", "journal", "ledger", "charges")
    return [[tuple(row) for row in store.db.read(f"SELECT * FROM {table}")] for table in tables]


def only(store: Store, cap: Cap) -> Use:
    (use,) = store.budget.uses(cap)
    return use


# What is held


def test_what_a_cluster_can_cost_is_held_from_its_entry_on(store: Store) -> None:
    cap = a_day(20)
    cluster = store.clusters.create("train", 1, ephemeral=False, most=Decimal("12.5"), caps=[cap])
    assert cluster.held == Decimal("12.5")
    assert store.budget.uses(cap) == [Use("train", Decimal(0), Decimal("12.5"))]


def test_an_intent_holds_more_only_when_its_cluster_can_cost_more_than_is_held(store: Store) -> None:
    cap = a_day(20)
    cluster = store.clusters.create("train", 2, ephemeral=False, most=Decimal(15), caps=[cap])
    for rank, held in enumerate((15, 20)):
        rental = a_rental(
            cluster,
            f"gc-{rank}",
            rank=rank,
            usd_per_hour=Decimal(1),
            intended_at=utcnow(),
            expires_at=utcnow() + 10 * HOUR,
        )
        store.journal.intend(rental, [a_day(21)])
        assert abs(store.clusters.by_id(cluster.id).held - held) < NEARLY


def test_the_worst_case_has_the_billing_minimum_and_the_disk(store: Store) -> None:
    tariff = Tariff(grain_s=3600, minimum_s=6 * 3600, disk_usd_per_hour=Decimal("0.5"))
    with pytest.raises(BudgetRefused) as caught:
        rent(store, "train", price="2", lease=1, caps=(a_day(14),), tariff=tariff)
    assert "train can cost $15.0000" in caught.value.why
    assert rent(store, "other", price="2", lease=1, caps=(a_day(15),), tariff=tariff).held == 15


def test_what_is_spent_takes_the_place_of_what_is_held(store: Store) -> None:
    rent(store, "train", age=4)
    use = only(store, a_day(20))
    assert abs(use.spent - 4) < NEARLY
    assert use.spent + use.held == 10


def test_settlement_releases_what_was_held_and_keeps_what_was_spent(store: Store) -> None:
    cap = a_day(12)
    rent(store, "train", age=4, caps=(cap,))
    with pytest.raises(BudgetRefused):
        rent(store, "next", lease=5, caps=(cap,))
    end(store, "next")
    end(store, "train")
    assert abs(only(store, cap).spent - 4) < NEARLY
    assert only(store, cap).held == 0
    rent(store, "next", lease=7, caps=(cap,))


def test_an_instance_that_is_gone_keeps_its_hold_until_its_cluster_is_settled(store: Store) -> None:
    cap = a_day(10)
    rent(store, "train", caps=(cap,))
    store.journal.gone("gc-train", "interrupted")
    with pytest.raises(BudgetRefused):
        rent(store, "next", lease=1, caps=(cap,))


def test_a_launch_that_was_cut_off_keeps_its_hold(tmp_path: Path) -> None:
    cap = a_day(10)
    with opened(tmp_path) as store:
        store.clusters.create("train", 1, ephemeral=False, most=Decimal(10), caps=[cap])
    with opened(tmp_path) as store, pytest.raises(BudgetRefused):
        store.clusters.create("next", 1, ephemeral=False, most=MICRO, caps=[cap])


# What counts, and since when


def test_of_a_cluster_that_began_yesterday_only_what_it_costs_today_counts(store: Store) -> None:
    rent(store, "train", age=14, lease=20)
    use = only(store, a_day(30))
    assert abs(use.spent - 10) < NEARLY
    assert abs(use.held - 6) < NEARLY


def test_of_a_cluster_that_ended_today_only_what_it_cost_today_counts(store: Store) -> None:
    rent(store, "train", age=14, lease=20)
    end(store, "train")
    use = only(store, a_day(30))
    assert abs(use.spent - 10) < NEARLY
    assert use.held == 0


def test_what_ended_before_the_day_began_takes_nothing_of_it(store: Store) -> None:
    rent(store, "train", age=4)
    end(store, "train")
    assert store.budget.uses(Cap("day", Decimal(1), utcnow())) == []


def test_what_a_bill_brings_late_counts_when_it_comes(store: Store) -> None:
    rent(store, "train", age=4)
    end(store, "train")
    today = Cap("day", Decimal(1), utcnow())
    store.ledger.pay("gc-train", Line.EGRESS, Decimal("0.75"), "40 GiB")
    assert store.budget.uses(today) == [Use("train", Decimal("0.75"), Decimal(0))]


def test_an_instance_that_comes_back_after_its_cluster_has_ended_counts(store: Store) -> None:
    rent(store, "train", age=4, price="1000000")
    end(store, "train")
    today = Cap("day", Decimal(1), utcnow())
    store.journal.reappeared("gc-train", an_instance("gc-train"))
    assert only(store, today).spent > 0


def test_a_cap_of_a_project_counts_only_the_project(store: Store) -> None:
    cap = a_day(10, "eval")
    rent(store, "train", caps=(cap,), project="train", lease=100)
    rent(store, "plain", caps=(cap,), lease=100)
    rent(store, "eval", caps=(cap,), project="eval", lease=8)
    assert [use.cluster for use in store.budget.uses(cap)] == ["eval"]
    with pytest.raises(BudgetRefused, match=r"the cap of \$10 a day for project eval would be passed"):
        rent(store, "more", caps=(cap,), project="eval", lease=3)


def test_a_cap_of_a_launch_is_for_each_by_itself(store: Store) -> None:
    cap = Cap("launch", Decimal(10))
    rent(store, "one", caps=(cap,), lease=10)
    rent(store, "two", caps=(cap,), lease=10)
    with pytest.raises(BudgetRefused) as caught:
        rent(store, "three", caps=(cap,), lease=11)
    assert caught.value.message == "the cap of $10 a launch would be passed"
    assert caught.value.why == "three can cost $11.0000"


def test_every_cap_must_allow_it(store: Store) -> None:
    month = Cap("month", Decimal(30), utcnow() - 100 * HOUR)
    rent(store, "old", age=40, lease=41, price="0.5")
    end(store, "old")
    rent(store, "now", caps=(a_day(10), month), lease=4)
    with pytest.raises(BudgetRefused, match=r"\$10 a day"):
        rent(store, "next", caps=(a_day(10), month), lease=7)
    end(store, "next")
    with pytest.raises(BudgetRefused, match=r"\$30 a month"):
        rent(store, "next", caps=(a_day(100), month), lease=7)


# Refusals


def test_a_refusal_says_which_cap_how_much_is_held_and_by_what(store: Store) -> None:
    cap = a_day(20)
    rent(store, "small", price="0.25", lease=8)
    rent(store, "big", age=5, lease=10)
    end(store, "big")
    store.clusters.create("wide", 1, ephemeral=False, most=Decimal(9))
    with pytest.raises(BudgetRefused) as caught:
        store.clusters.create("next", 1, ephemeral=False, most=Decimal(6), caps=[cap])
    error = caught.value
    assert error.message == "the cap of $20 a day would be passed"
    assert error.why.startswith("next can cost $6.0000, and $5.00")
    assert " is spent and $1" in error.why and " held already by wide $9.0000, big $5.00" in error.why
    assert error.why.endswith(", small $2.0000")
    assert error.hint == "gpucloud budget, or a smaller --max-cost or --max-duration"


def test_a_refusal_names_the_five_that_take_most(store: Store) -> None:
    for number in range(1, 8):
        store.clusters.create(f"c{number}", 1, ephemeral=False, most=Decimal(number))
    with pytest.raises(BudgetRefused) as caught:
        store.clusters.create("next", 1, ephemeral=False, most=Decimal(1), caps=[a_day(28)])
    assert "$28.0000 held already by c7 $7.0000, c6 $6.0000" in caught.value.why
    assert caught.value.why.endswith("c3 $3.0000, 2 more")


def test_a_refusal_at_the_entry_of_a_cluster_leaves_nothing_behind(store: Store) -> None:
    rent(store, "train", lease=5)
    before = everything(store)
    with pytest.raises(BudgetRefused):
        store.clusters.create("next", 1, ephemeral=False, most=Decimal(6), caps=[a_day(10)])
    assert everything(store) == before
    assert store.clusters.create("next", 1, ephemeral=False).name == "next"


def test_a_refusal_of_an_intent_leaves_nothing_behind(store: Store) -> None:
    cluster = store.clusters.create("train", 1, ephemeral=False, most=Decimal(1))
    before = everything(store)
    rental = a_rental(cluster, intended_at=utcnow(), expires_at=utcnow() + 10 * HOUR)
    with pytest.raises(BudgetRefused):
        store.journal.intend(rental, [a_day(2)])
    assert everything(store) == before
    store.journal.intend(rental, [a_day(100)])


def test_a_refusal_to_go_on_for_longer_changes_nothing(store: Store) -> None:
    cluster = rent(store, "train", lease=5)
    before = everything(store)
    with pytest.raises(BudgetRefused):
        store.clusters.hold(cluster.id, Decimal(11), [a_day(10)], Limits(max_duration=11 * HOUR))
    assert everything(store) == before
    longer = store.clusters.hold(cluster.id, Decimal(10), [a_day(10)], Limits(max_duration=10 * HOUR))
    assert (longer.held, longer.limits.max_duration) == (Decimal(10), 10 * HOUR)


def test_to_go_on_for_longer_is_weighed_by_what_it_costs_since_the_day_began(store: Store) -> None:
    cluster = rent(store, "train", age=14, lease=15)
    with pytest.raises(BudgetRefused):
        store.clusters.hold(cluster.id, Decimal(20), [a_day(15)], Limits())
    assert store.clusters.hold(cluster.id, Decimal(18), [a_day(15)], Limits()).held == 18


def test_what_takes_no_more_is_never_refused(store: Store) -> None:
    cluster = rent(store, "train", lease=10)
    nothing_left = [Cap("launch", Decimal(0)), a_day(0)]
    store.clusters.create("free", 1, ephemeral=False, most=Decimal(0), caps=nothing_left)
    assert store.clusters.hold(cluster.id, Decimal(9), nothing_left, Limits()).held == 9
    with pytest.raises(BudgetRefused):
        store.clusters.create("paid", 1, ephemeral=False, most=MICRO, caps=nothing_left)


def test_whether_there_is_room_can_be_asked_before_anything_is_entered(store: Store) -> None:
    cap = a_day(10)
    rent(store, "train", lease=8)
    before = everything(store)
    store.budget.check("next", "", Decimal("1.99"), [cap])
    store.budget.check("next", "", Decimal(0), [a_day(0)])
    store.budget.check("next", "", Decimal(100), [a_day(10, "eval")])
    with pytest.raises(BudgetRefused, match="would be passed"):
        store.budget.check("next", "", Decimal("2.01"), [cap])
    with pytest.raises(BudgetRefused, match="for project eval would be passed"):
        store.budget.check("next", "eval", Decimal(100), [a_day(10, "eval")])
    assert everything(store) == before


# What has no bound


@pytest.mark.parametrize("cap", [Cap("launch", Decimal(1000)), a_day(1000)], ids=["launch", "day"])
def test_a_launch_without_limit_is_refused_by_any_cap(store: Store, cap: Cap) -> None:
    with pytest.raises(BudgetRefused) as caught:
        store.clusters.create("train", 1, ephemeral=False, most=None, caps=[cap])
    assert caught.value.message.endswith("cannot be kept by a launch without limit")
    assert caught.value.hint == "give --max-duration or --max-cost"
    with pytest.raises(BudgetRefused):
        rent(store, "train", lease=None, caps=(cap,))


def test_nothing_is_rented_beside_what_has_no_bound(store: Store) -> None:
    endless = rent(store, "box", age=3, lease=None)
    cap = a_day(1000)
    assert only(store, cap).endless and abs(only(store, cap).spent - 3) < NEARLY
    with pytest.raises(BudgetRefused) as caught:
        rent(store, "train", lease=1, caps=(cap,))
    assert caught.value.why == "nothing bounds what box can cost"
    assert caught.value.hint == "gpucloud down box"
    end(store, "train")
    store.journal.extended("gc-box", utcnow() + HOUR)
    store.clusters.hold(endless.id, Decimal(4), [cap], Limits(max_duration=4 * HOUR))
    rent(store, "train", lease=1, caps=(cap,))


def test_to_lift_the_limit_of_what_runs_is_refused_by_a_cap(store: Store) -> None:
    cluster = rent(store, "train", lease=5)
    with pytest.raises(BudgetRefused):
        store.clusters.hold(cluster.id, None, [a_day(1000)], Limits(lifted=True))
    lifted = store.clusters.hold(cluster.id, None, [], Limits(lifted=True))
    assert (lifted.limits.lifted, lifted.held) == (True, Decimal(5))


def test_what_has_no_end_and_costs_nothing_takes_nothing(store: Store) -> None:
    rent(store, "free", price="0", lease=None, caps=(a_day(0),))
    assert store.budget.uses(a_day(0)) == []


def test_an_unknown_price_is_said(store: Store) -> None:
    cluster = store.clusters.create("found", 1, ephemeral=False)
    store.journal.intend(a_rental(cluster, usd_per_hour=None))
    store.journal.accept("gc-1", an_instance())
    assert store.budget.uses(a_day(1)) == [Use("found", Decimal(0), Decimal(0), known=False)]


def test_what_became_dearer_than_was_held_counts_in_full(store: Store) -> None:
    cluster = rent(store, "spot", price="5", age=8, lease=10)
    with store.db.write() as db:
        db.execute("UPDATE clusters SET held_micros = 20000000")
    assert abs(only(store, a_day(100)).usd - 40) < NEARLY
    with pytest.raises(BudgetRefused, match="would be passed"):
        store.clusters.hold(cluster.id, Decimal(21), [a_day(39)], Limits())


# Days, months and settings


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), st.integers(-14, 14))
def test_days_and_months_are_those_of_utc(naive: datetime, hours: int) -> None:
    now = naive.replace(tzinfo=timezone(timedelta(hours=hours)))
    environ = {"GPUCLOUD_BUDGET_DAY": "2", "GPUCLOUD_BUDGET_MONTH": "$30", "GPUCLOUD_BUDGET_LAUNCH": "1"}
    launch, day, month = caps_of(load({}, environ, Path("/")), now)
    assert (launch.name, launch.usd, launch.since) == ("launch", Decimal(1), None)
    assert day.since is not None and month.since is not None
    utc = now.astimezone(UTC)
    assert day.since <= now < day.since + 24 * HOUR
    assert (day.since.date(), month.since.date()) == (utc.date(), utc.date().replace(day=1))
    for since in (day.since, month.since):
        assert since.utcoffset() == timedelta() and since.time() == datetime.min.time()


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        ("2026-03-01T00:00:00+00:00", "2026-03-01", "2026-03-01"),
        ("2026-02-28T23:59:59.999999+00:00", "2026-02-28", "2026-02-01"),
        ("2026-03-01T00:30:00+01:00", "2026-02-28", "2026-02-01"),
        ("2026-12-31T23:00:00-05:00", "2027-01-01", "2027-01-01"),
    ],
)
def test_the_first_moment_of_a_day_belongs_to_it(now: str, day: str, month: str) -> None:
    environ = {"GPUCLOUD_BUDGET_DAY": "2", "GPUCLOUD_BUDGET_MONTH": "3"}
    found = caps_of(load({}, environ, Path("/")), datetime.fromisoformat(now))
    assert [str(cap.since) for cap in found] == [f"{day} 00:00:00+00:00", f"{month} 00:00:00+00:00"]


def test_a_cap_is_whole_again_at_midnight_but_for_what_is_still_held(store: Store) -> None:
    rent(store, "old", age=4, lease=5)
    end(store, "old")
    rent(store, "train", age=4, lease=10)
    midnight = Cap("day", Decimal(10), utcnow())
    assert abs(taken(store, midnight) - 6) < NEARLY
    store.clusters.create("next", 1, ephemeral=False, most=Decimal("3.9"), caps=[midnight])


def test_no_cap_is_set_unless_somebody_sets_it(home: Path) -> None:
    assert caps_of(load({}, {}, home), utcnow()) == ()


def test_caps_of_projects_are_by_month(home: Path) -> None:
    found = caps_of(load({}, {"GPUCLOUD_BUDGET_PROJECTS": "train=100, eval=$20.50"}, home), utcnow())
    assert [str(cap) for cap in found] == [
        "$100 a month for project train",
        "$20.50 a month for project eval",
    ]


def test_a_cap_that_is_no_amount_is_an_error_and_not_no_cap(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget\.day is wrong"):
        caps_of(load({}, {"GPUCLOUD_BUDGET_DAY": "lots"}, home), utcnow())


# Whatever the order


class Ledgers:
    """Books on which acts are tried in any order, each under the same caps."""

    def __init__(self, store: Store, caps: tuple[Cap, ...]) -> None:
        self.store = store
        self.caps = caps
        self.refusals = 0

    def act(self, kind: str, which: int, micros: int, hours: int) -> None:
        """Try one act; when a cap refuses it, nothing may have been written."""
        living = self.store.clusters.living()
        cluster = living[which % len(living)] if living else None
        before = everything(self.store)
        try:
            if kind == "create":
                self._create(Decimal(micros) / 1_000_000 * hours, which)
            elif cluster and kind == "extend":
                self._extend(cluster, hours)
            elif cluster and kind == "intend":
                self._intend(cluster, Decimal(micros) / 1_000_000, which % hours, hours)
            elif cluster and kind == "end":
                end(self.store, cluster.name)
            elif cluster and cluster.rentals:
                token = cluster.rentals[which % len(cluster.rentals)].token
                if kind == "accept":
                    begun = self.store.journal.get(token).intended_at
                    self.store.journal.accept(token, an_instance(token, created_at=begun))
                else:
                    self.store.journal.gone(token, "interrupted")
        except BudgetRefused:
            self.refusals += 1
            assert everything(self.store) == before

    def _create(self, most: Decimal, which: int) -> None:
        name = f"c{len(self.store.clusters.all())}"
        labels = Labels("eval" if which % 2 else "")
        self.store.clusters.create(
            name, 1, ephemeral=False, labels=labels, most=most if which % 3 else Decimal(0), caps=self.caps
        )

    def _intend(self, cluster: Cluster, price: Decimal, age: int, lease: int) -> None:
        """One that began up to a day before, so that some of its cost may be yesterday's."""
        begun = utcnow() - age * HOUR
        rental = a_rental(
            cluster,
            f"gc-{len(self.store.journal.rentals(gone=True))}",
            usd_per_hour=price,
            intended_at=begun,
            expires_at=begun + lease * HOUR,
            tariff=Tariff(grain_s=3600 * (age % 3), minimum_s=600, disk_usd_per_hour=price / 4),
        )
        self.store.journal.intend(rental, self.caps)

    def _extend(self, cluster: Cluster, hours: int) -> None:
        # With the disk, and a billing step of two hours that is begun.
        more = sum(
            (4 * hours * (rental.usd_per_hour or Decimal(0)) for rental in cluster.rentals), Decimal(0)
        )
        self.store.clusters.hold(cluster.id, cluster.held + more, self.caps, Limits())
        for rental in cluster.rentals:
            assert rental.expires_at is not None
            self.store.journal.extended(rental.token, rental.expires_at + hours * HOUR)


ACTS = st.tuples(
    st.sampled_from(["create", "create", "intend", "intend", "accept", "accept", "extend", "gone", "end"]),
    st.integers(0, 30),
    st.integers(0, 1_000_000),
    st.integers(1, 30),
)


@settings(max_examples=60)
@given(st.lists(ACTS, min_size=1, max_size=30))
def test_no_order_of_acts_passes_a_cap(acts: list[tuple[str, int, int, int]]) -> None:
    caps = (
        Cap("launch", Decimal(12)),
        a_day(20),
        Cap("month", Decimal(25), utcnow() - 1000 * HOUR),
        Cap("month", Decimal(9), utcnow() - 1000 * HOUR, "eval"),
    )
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as store:
        books = Ledgers(store, caps)
        for act in acts:
            books.act(*act)
            # Each line of each rental is rounded to the micro-dollar by itself.
            rounding = 3 * MICRO * (1 + len(store.journal.rentals(gone=True)))
            for cap in caps[1:]:
                assert taken(store, cap) <= cap.usd + rounding
            assert all(cluster.held <= 12 for cluster in store.clusters.living())


def test_fifty_processes_that_launch_at_once_do_not_pass_a_cap_together(tmp_path: Path) -> None:
    with launchers(50, 7, tmp_path) as processes:
        launch_at_once(processes, tmp_path / "books", 7)
