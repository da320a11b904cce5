"""What was spent, on what and for whom, and whether it was billed so."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pexpect
import pytest

from gpucloud.cli.exit_codes import ExitCode
from gpucloud.model import Gpu, InstanceRef, Labels, Tariff, utcnow
from gpucloud.store import Store
from gpucloud.store.ledger import Line, meter
from tests.harness.books import a_rental, an_instance, opened
from tests.harness.cli import Cli

BEGIN = datetime(2026, 1, 31, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)
JANUARY = ("--month", "2026-01")


def entered(
    store: Store, name: str, labels: Labels, price: str | None, provider: str = "acme", **changes: object
) -> None:
    """A cluster of one node that ran for four hours, of which two were in January."""
    cluster = store.clusters.create(name, 1, ephemeral=False, labels=labels)
    rental = a_rental(
        cluster,
        f"gc-{name}",
        usd_per_hour=None if price is None else Decimal(price),
        intended_at=BEGIN,
        provider=provider,
        tariff=Tariff(disk_usd_per_hour=Decimal("0.5")),
        **changes,
    )
    store.journal.intend(rental)
    store.journal.accept(
        rental.token, an_instance(rental.token, ref=InstanceRef(f"i-{name}"), created_at=BEGIN)
    )
    with store.db.write() as db:
        for line in Line.INSTANCE, Line.DISK:
            meter(db, rental, BEGIN + 4 * HOUR, running=False, line=line)


@pytest.fixture
def books(cli: Cli) -> Iterator[Store]:
    with opened(cli.data) as store:
        entered(store, "train-1", Labels("vision", "ann", {"team": "blue"}), "2", gpu=Gpu("H100", 80))
        entered(store, "train-2", Labels("vision", "bob"), "3")
        entered(store, "eval", Labels(), "1", provider="other")
        yield store


def test_without_books_nothing_was_spent_and_none_are_made(cli: Cli) -> None:
    assert cli.ok("cost").out == ""
    document = cli.ok("cost", "--json").json
    assert document["schema"] == "gpucloud.cost/1"
    assert (document["lines"], document["total"], document["complete"]) == ([], "0", True)
    assert not cli.data.exists()


def test_nothing_in_the_time_is_an_empty_table(cli: Cli, books: Store) -> None:
    assert cli.ok("cost", "--month", "2025-12").out == ""
    assert cli.ok("cost", "--month", "2025-12", "--csv").out.startswith("cluster,hours,")
    assert cli.ok("cost", "--since", "1h").out == ""


def test_a_month_is_shown_by_cluster_and_the_most_first(cli: Cli, books: Store) -> None:
    rows = [line.split("\t") for line in cli.ok("cost", *JANUARY).out.splitlines()]
    assert rows == [
        ["train-2", "2.00", "6.0000", "1.0000", "0.0000", "0.0000", "7.0000"],
        ["train-1", "2.00", "4.0000", "1.0000", "0.0000", "0.0000", "5.0000"],
        ["eval", "2.00", "2.0000", "1.0000", "0.0000", "0.0000", "3.0000"],
    ]


def test_the_default_is_this_month(cli: Cli, books: Store) -> None:
    cluster = books.clusters.create("now", 1, ephemeral=False)
    books.journal.intend(a_rental(cluster, "gc-now", intended_at=utcnow()))
    books.journal.accept("gc-now", an_instance("gc-now", created_at=utcnow()))
    document = cli.ok("cost", "--json").json
    assert [line["cluster"] for line in document["lines"]] == ["now"]
    assert document["since"].endswith("-01T00:00:00Z") and document["until"].endswith("-01T00:00:00Z")


def test_json_has_the_keys_as_fields_and_exact_amounts(cli: Cli, books: Store) -> None:
    document = cli.ok("cost", *JANUARY, "--by", "project,tag:team", "--json").json
    assert document["lines"][0] == {
        "project": "vision",
        "tag:team": None,
        "hours": "2",
        "instance": "6",
        "disk": "1",
        "egress": "0",
        "rounding": "0",
        "reservation": "0",
        "total": "7",
        "at_least": "7",
        "complete": True,
        "currency": "USD",
    }
    assert [line["tag:team"] for line in document["lines"]] == [None, "blue", None]
    assert {key: document[key] for key in ("total", "since", "until", "currency", "failures")} == {
        "total": "15",
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-02-01T00:00:00Z",
        "currency": "USD",
        "failures": [],
    }


@pytest.mark.parametrize(
    "by", ["project", "provider", "gpu", "user", "tag:team", "line", "day", "month,market", "region"]
)
def test_every_grouping_adds_up_to_the_same(cli: Cli, books: Store, by: str) -> None:
    document = cli.ok("cost", "--since", "36500d", "--by", by, "--json").json
    assert document["total"] == "30"
    assert sum(Decimal(line["total"]) for line in document["lines"]) == 30


def test_days_are_those_of_utc_wherever_one_is(cli: Cli, books: Store) -> None:
    words = ("cost", "train-1", "--since", "36500d", "--by", "day", "--csv")
    for zone in "UTC", "Asia/Tokyo":
        lines = list(csv.DictReader(io.StringIO(cli.ok(*words, env={"TZ": zone}).out)))
        assert [(line["day"], line["total"], line["complete"]) for line in lines] == [
            ("2026-01-31", "5", "true"),
            ("2026-02-01", "5", "true"),
        ]


def test_clusters_are_picked_by_name_or_pattern(cli: Cli, books: Store) -> None:
    def names(*patterns: str) -> list[str]:
        return [line["cluster"] for line in cli.ok("cost", *patterns, *JANUARY, "--json").json["lines"]]

    assert names("eval") == ["eval"]
    assert names("train-*") == ["train-2", "train-1"]
    done = cli("cost", "eval2", *JANUARY)
    assert done.code == ExitCode.NOTHING_MATCHED
    assert "did you mean 'eval'?" in done.err


def test_at_a_terminal_there_is_a_header_and_a_total(cli: Cli, books: Store) -> None:
    process = pexpect.spawn(
        sys.executable,
        ["-m", "gpucloud", "cost", *JANUARY, "--by", "provider"],
        cwd=str(cli.project),
        env={**cli.environ, "TERM": "dumb"},
        encoding="utf-8",
        dimensions=(30, 120),
        timeout=60,
    )
    heading, *rows, total = process.read().splitlines()
    process.close()
    assert process.exitstatus == 0
    columns = ["PROVIDER", "HOURS", "$ INSTANCE", "$ DISK", "$ EGRESS", "$ ROUNDING", "$ TOTAL"]
    assert heading.split() == " ".join(columns).split()
    assert [row.split()[0] for row in rows] == ["acme", "other"]
    assert total == "$15.0000 since 2026-01-01 00:00 UTC"


def test_what_is_not_known_is_shown_as_such_beside_what_is(cli: Cli, books: Store) -> None:
    entered(books, "found", Labels(), None)
    done = cli.ok("cost", "found", *JANUARY)
    assert done.out.rstrip("\n").split("\t") == [
        "found",
        "2.00",
        "unknown",
        "1.0000",
        "0.0000",
        "0.0000",
        "at least 1.0000",
    ]
    document = cli.ok("cost", *JANUARY, "--json").json
    (line,) = [line for line in document["lines"] if line["cluster"] == "found"]
    assert (line["instance"], line["total"], line["at_least"], line["complete"]) == (None, None, "1", False)
    assert (document["total"], document["at_least"], document["complete"]) == (None, "16", False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--by", "provder"), "did you mean 'provider'?"),
        (("--by", "tag:"), "tag:KEY"),
        (("--by", ","), "--by names nothing"),
        (("--month", "november"), "is not a month; write 2026-11"),
        (("--month", "9999-12"), "too far ahead"),
        (("--since", "30"), "--since makes no sense"),
        (("--month", "2026-01", "--since", "30d"), "give one of them"),
        (("--strict",), "--import FILE"),
        (("--provider", "sim"), "--import FILE"),
        (("eval", "--import", "x.csv"), "leave out the names"),
        (("--by", "day", "--import", "x.csv"), "leave out the names"),
        (("--import", "x.csv"), "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_told(cli: Cli, words: tuple[str, ...], said: str) -> None:
    done = cli("cost", *words)
    assert done.code == ExitCode.USAGE
    assert said in done.err
    assert "next: " in done.err


def test_lost_books_are_told(cli: Cli, books: Store) -> None:
    books.db.set_needs_rebuild(True)
    assert "gpucloud fsck --rebuild" in cli.ok("cost").err


INVOICE = """\
resource id,start,end,cost
i-train-1,2026-01-31T22:00:00Z,2026-02-01T02:00:00Z,"$10.00"
arn/i-train-2,2026-01-31T22:00:00Z,2026-02-01T02:00:00Z,14.25
vol-7,2026-01-31T22:00:00Z,2026-02-01T02:00:00Z,3
,2026-01-31T22:00:00Z,2026-02-01T02:00:00Z,0.50
"""


def test_an_invoice_is_compared_with_the_books(cli: Cli, books: Store) -> None:
    (cli.project / "bill.csv").write_text(INVOICE)
    done = cli.ok("cost", "--import", "bill.csv", "--json")
    assert done.json["schema"] == "gpucloud.cost-import/1"
    assert done.json["since"] == "2026-01-31T22:00:00Z"
    assert [
        (line["id"], line["found"], line["cluster"], line["ours"], line["billed"], line["difference"])
        for line in done.json["lines"]
    ] == [
        ("vol-7", "billed", None, "0", "3", "3"),
        (None, "billed", None, "0", "0.5", "0.5"),
        ("i-train-2", "both", "train-2", "14", "14.25", "0.25"),
        ("i-train-1", "both", "train-1", "10", "10", "0"),
    ]
    assert "$3.0000 is billed for what is not in the books: vol-7" in done.err
    rows = cli.ok("cost", "--import", "bill.csv").out.splitlines()
    assert rows[0].split("\t") == ["vol-7", "-", "billed", "0.0000", "3.0000", "3.0000"]
    comma = cli.ok("cost", "--import", "bill.csv", "--csv").out.splitlines()
    assert comma[0] == "id,found,provider,cluster,ours,billed,difference,currency"
    assert comma[3] == "i-train-2,both,acme,train-2,14,14.25,0.25,USD"


def test_only_with_strict_is_it_6_that_something_is_only_billed(cli: Cli, books: Store) -> None:
    (cli.project / "bill.csv").write_text(INVOICE)
    assert cli("cost", "--import", "bill.csv", "--strict").code == ExitCode.UNEXPLAINED
    (cli.project / "good.csv").write_text(INVOICE.replace("vol-7", "i-eval"))
    assert cli("cost", "--import", "good.csv", "--strict").code == ExitCode.OK
    (cli.project / "odd.csv").write_text(INVOICE.replace("vol-7", "i-eval").replace("14.25", "much"))
    odd = cli("cost", "--import", "odd.csv", "--strict")
    assert odd.code == ExitCode.UNEXPLAINED
    assert "line 3 is left out: 'much' is not an amount of money" in odd.err


def test_a_month_may_be_compared_by_itself(cli: Cli, books: Store) -> None:
    (cli.project / "bill.csv").write_text("vm,date,paid\ni-eval,2026-01-31,3\ni-eval,2026-02-01,9\n")
    words = ("cost", "--import", "bill.csv", "--column-id", "vm", "--column-amount", "paid", *JANUARY)
    (line,) = cli.ok(*words, "--json").json["lines"]
    assert (line["ours"], line["billed"]) == ("3", "3")
    done = cli("cost", "--import", "bill.csv")
    assert done.code == ExitCode.USAGE
    assert "vm, date, paid" in done.err and "--column-id NAME" in done.err


def test_an_invoice_of_a_provider_counts_against_its_instances_only(cli: Cli, books: Store) -> None:
    (cli.project / "bill.csv").write_text("id,cost\ni-eval,6\n")
    done = cli("cost", "--import", "bill.csv", "--provider", "simm")
    assert done.code == ExitCode.NOTHING_MATCHED
    lines = cli.ok("cost", "--import", "bill.csv", "--provider", "sim", "--json").json["lines"]
    assert [(line["id"], line["found"]) for line in lines] == [("i-eval", "billed")]
    lines = cli.ok("cost", "--import", "bill.csv", "--json").json["lines"]
    assert [(line["id"], line["found"]) for line in lines] == [("i-eval", "both")]


def test_an_invoice_in_another_currency_is_compared_in_dollars(cli: Cli, books: Store) -> None:
    (cli.project / "bill.csv").write_text("id,cost,currency\ni-eval,5,EUR\n")
    environ = {"GPUCLOUD_CURRENCY_RATES": "EUR=1.2"}
    (line,) = cli.ok("cost", "--import", "bill.csv", "--json", env=environ).json["lines"]
    assert (line["billed"], line["difference"]) == ("6", "0")
