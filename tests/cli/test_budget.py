"""Caps on spending: shown by ``gpucloud budget``, and kept by whatever rents."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.model import ClusterState, Labels, utcnow
from tests.harness.books import a_rental, an_instance, opened
from tests.harness.cli import Cli, Finished

RENT = ("launch", "--provider", "sim", "--no-push", "--max-duration", "1h", "--yes")
PRICE = Decimal("0.0530")
"""What the cheapest offer of the simulated market costs an hour."""


def configure(cli: Cli, text: str) -> None:
    file = Path(cli.environ["XDG_CONFIG_HOME"]) / "gpucloud" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)


def hold(cli: Cli, name: str = "train", usd: str = "12.5") -> None:
    """A cluster of a project of its name, that can cost so much."""
    with opened(cli.data) as store:
        store.clusters.create(name, 1, ephemeral=False, most=Decimal(usd), labels=Labels(name))


def seed(cli: Cli) -> None:
    """Something that can cost, something that has cost, and something found at an unknown price."""
    hold(cli)
    now = utcnow()
    with opened(cli.data) as store:
        for name, price in ("done", Decimal(4_000_000)), ("found", None):
            cluster = store.clusters.create(name, 1, ephemeral=False)
            rental = a_rental(
                cluster,
                f"gc-{name}",
                usd_per_hour=price,
                intended_at=now,
                expires_at=now + timedelta(hours=1),
            )
            store.journal.intend(rental)
            store.journal.accept(rental.token, an_instance(rental.token, created_at=now))
        store.journal.gone("gc-done", "down")
        done = store.clusters.get("done")
        assert done is not None
        store.clusters.update(done.id, ClusterState.ENDED)


def refused(done: Finished) -> list[str]:
    """What was said in three lines."""
    assert done.code == 83, done.err
    return done.err.splitlines()[-3:]


def named(document: dict[str, Any]) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(cap["name"], cap["project"]): cap for cap in document["caps"]}


def test_without_a_cap_it_says_how_to_set_one(cli: Cli) -> None:
    done = cli.ok("budget")
    assert done.out == ""
    assert "there is no cap" in done.err
    example = done.err.partition("config.toml:\n")[2].partition("a project's own file")[0]
    configure(cli, example)
    caps = named(cli.ok("budget", "--json").json)
    assert {key: cap["limit"] for key, cap in caps.items()} == {
        ("launch", None): "10",
        ("day", None): "20",
        ("month", None): "300",
        ("month", "train"): "100",
    }
    assert not (cli.data / "gpucloud.db").exists()


def test_without_a_cap_the_document_has_none(cli: Cli) -> None:
    document = cli.ok("budget", "--json").json
    assert document == {"schema": "gpucloud.budget/1", "caps": [], "failures": []}


def test_it_shows_what_is_spent_and_held_and_by_what(cli: Cli) -> None:
    configure(cli, '[budget]\nlaunch = 15\nmonth = 100000\nprojects = ["train=20", "eval=5"]\n')
    seed(cli)
    done = cli.ok("budget")
    rows = [line.split("\t") for line in done.out.splitlines()]
    spent = rows[1][2]
    assert Decimal(spent) > 0
    left = Decimal(100_000) - Decimal(spent) - Decimal("12.5")
    assert rows[0] == ["launch", "15.00", "-", "-", "-", "-"]
    assert rows[1][:4] == ["month", "100000.00", spent, "12.50"]
    assert abs(Decimal(rows[1][4]) - left) <= Decimal("0.01")
    assert set(rows[1][5].split(", ")) == {"train 12.50", f"done {spent}", "found 0.00 (price unknown)"}
    assert rows[2] == ["month, project train", "20.00", "0.00", "12.50", "7.50", "train 12.50"]
    assert rows[3] == ["month, project eval", "5.00", "0.00", "0.00", "5.00", "-"]
    assert "found: a price is not known, so it may have cost more than is shown" in done.err


def test_its_document_has_every_figure(cli: Cli) -> None:
    configure(cli, '[budget]\nlaunch = 15\nmonth = 100000\nprojects = ["train=20"]\n')
    seed(cli)
    document = cli.ok("budget", "--json").json
    caps = named(document)
    assert document["schema"] == "gpucloud.budget/1"
    launch = caps["launch", None]
    assert (launch["spent"], launch["held"], launch["left"], launch["since"]) == (None,) * 4
    assert caps["month", "train"]["since"] == f"{utcnow():%Y-%m}-01T00:00:00Z"
    assert caps["month", "train"]["uses"] == [
        {"cluster": "train", "spent": "0", "held": "12.5", "price_known": True, "bounded": True}
    ]
    month = caps["month", None]
    uses = {use["cluster"]: use for use in month["uses"]}
    assert not uses["found"]["price_known"]
    assert Decimal(month["spent"]) == Decimal(uses["done"]["spent"])
    assert Decimal(month["left"]) == 100_000 - Decimal(month["spent"]) - Decimal(month["held"])


def test_a_cap_that_was_passed_has_nothing_left(cli: Cli) -> None:
    hold(cli)
    done = cli.ok("budget", "--json", env={"GPUCLOUD_BUDGET_DAY": "1"})
    assert done.json["caps"][0]["left"] == "0"


def test_what_nothing_bounds_is_said_with_what_to_do(cli: Cli) -> None:
    with opened(cli.data) as store:
        store.journal.intend(a_rental(store.clusters.create("box", 1, ephemeral=False)))
    done = cli.ok("budget", env={"GPUCLOUD_BUDGET_DAY": "1"})
    assert done.out.split("\t")[5] == "box 0.00 (no limit)\n"
    assert "so no other launch is allowed until gpucloud down box" in done.err
    what, why, hint = refused(cli(*RENT, "--name", "x", env={"GPUCLOUD_BUDGET_DAY": "1"}))
    assert what == "gpucloud: the cap of $1 a day cannot be kept"
    assert why == "     why: nothing bounds what box can cost"
    assert hint == "    next: gpucloud down box"


def test_the_file_of_a_project_sets_no_cap(cli: Cli) -> None:
    (cli.project / "gpucloud.toml").write_text("[budget]\nday = 1000000\n")
    done = cli("budget")
    assert done.code == 2
    assert "a project file may not say how much of your money may be spent" in done.err


@pytest.mark.parametrize("kind", ["launch", "day", "month"])
def test_a_launch_that_would_pass_a_cap_is_refused_before_anything_is_rented(cli: Cli, kind: str) -> None:
    what, why, hint = refused(cli(*RENT, "--name", "x", env={f"GPUCLOUD_BUDGET_{kind.upper()}": "0.05"}))
    assert what == f"gpucloud: the cap of $0.05 a {kind} would be passed"
    assert why == f"     why: x can cost ${PRICE}"
    assert hint == "    next: gpucloud budget, or a smaller --max-cost or --max-duration"
    assert cli.ok("ps").out == ""
    assert cli.ok("fsck", "--json").json["findings"] == []


def test_a_refusal_names_what_holds_the_rest_of_the_cap(cli: Cli) -> None:
    hold(cli)
    _, why, _ = refused(cli(*RENT, "--name", "x", env={"GPUCLOUD_BUDGET_DAY": "12.53"}))
    assert why == (
        f"     why: x can cost ${PRICE}, and $0.0000 is spent and $12.5000 held already by train $12.5000"
    )


def test_a_project_s_cap_refuses_the_project_and_nobody_else(cli: Cli) -> None:
    environ = {"GPUCLOUD_BUDGET_PROJECTS": "train=0.01"}
    what, _, _ = refused(cli(*RENT, "--name", "x", "--project", "train", env=environ))
    assert what == "gpucloud: the cap of $0.01 a month for project train would be passed"
    cli.ok(*RENT, "--name", "x", "--project", "eval", env=environ)
    assert cli.ok("budget", env=environ).out.split("\t")[3] == "0.00"


def test_what_a_launch_holds_is_shown_and_given_back(cli: Cli) -> None:
    environ = {"GPUCLOUD_BUDGET_MONTH": "0.06"}
    cli.ok(*RENT, "--name", "one", env=environ)
    (cap,) = cli.ok("budget", "--json", env=environ).json["caps"]
    (use,) = cap["uses"]
    assert use["cluster"] == "one"
    assert Decimal(use["spent"]) + Decimal(use["held"]) == PRICE
    refused(cli(*RENT, "--name", "two", env=environ))
    cli.ok("down", "one", "--yes", env=environ)
    (cap,) = cli.ok("budget", "--json", env=environ).json["caps"]
    assert cap["held"] == "0"
    assert 0 < Decimal(cap["spent"]) < PRICE


def test_launches_at_once_do_not_pass_a_cap_together(cli: Cli) -> None:
    environ = {"GPUCLOUD_BUDGET_MONTH": str(2 * PRICE)}
    racers = [cli.start(*RENT, "--name", f"c{number}", env=environ) for number in range(5)]
    for racer in racers:
        racer.communicate(timeout=120)
    assert sorted(racer.returncode for racer in racers) == [0, 0, 83, 83, 83]
    assert len(cli.ok("ps").out.splitlines()) == 2
