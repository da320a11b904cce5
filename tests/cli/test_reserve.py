"""Reservations: shown, bought once, held of the caps, launched into, and explained after any crash."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import pytest

from gpucloud.model import utcnow
from tests.cli.test_crashes import EVERY, KILLED, kill_at
from tests.harness.books import opened
from tests.harness.cli import Cli

SIM = ("--provider", "sim")
WANTED = (*SIM, "--gpu", "RTX4090", "--for", "2h", "--start", "0s..1h")


def sold(cli: Cli) -> list[str]:
    """The reservations that the market has sold, whatever the books say."""
    file = cli.data / "providers" / "sim" / "market.json"
    return sorted(json.loads(file.read_text())["reservations"]) if file.exists() else []


def buy(*more: str) -> tuple[str, ...]:
    return ("reserve", *WANTED, "--name", "blk", "--buy", "--yes", *more)


def test_what_can_be_reserved_is_shown_with_its_whole_price_and_nothing_is_bought(cli: Cli) -> None:
    shown = cli.ok("reserve", *WANTED, "--nodes", "3", "--json").json["blocks"]
    assert {block["zone"] for block in shown} == {"sim-east", "sim-west"}
    prices = [Decimal(block["usd"]) for block in shown]
    assert prices == sorted(prices)
    assert {block["nodes"] for block in shown} == {3}
    assert all(block["gpu"] == "RTX4090-24" for block in shown)
    hours = Decimal(6)
    listed = cli.ok("offers", *SIM, "--gpu", "RTX4090", "--market", "on-demand", "--json").json["offers"]
    assert prices[0] == (min(Decimal(offer["usd_per_hour"]) for offer in listed) * hours * Decimal("0.7"))
    assert sold(cli) == []
    assert "--buy" in cli.ok("reserve", *WANTED).err


def test_what_was_bought_is_charged_once_and_launched_into_until_it_ends(cli: Cli) -> None:
    bought = cli.ok(*buy("--nodes", "1", "--json"))
    (token,) = sold(cli)
    usd = Decimal(bought.json["blocks"][0]["usd"])
    (line,) = cli.ok("cost", "--json").json["lines"]
    assert (line["cluster"], Decimal(line["reservation"]), Decimal(line["total"])) == ("blk", usd, usd)

    again = cli.ok(*buy())
    assert "not bought again" in again.err
    assert sold(cli) == [token]

    launched = cli.ok("launch", "--name", "x", *SIM, "--reservation", "blk", "--no-push", "--json")
    assert "paid for with its reservation" in launched.err
    (cluster,) = launched.json["clusters"]
    assert cluster["usd_per_hour"] == "0"
    (node,) = cluster["nodes"]
    assert (node["market"], node["instance_type"]) == ("reserved", "sim.1x-rtx4090")
    (held,) = cli.ok("reservations", "--json").json["reservations"]
    assert (held["state"], held["nodes"], held["free"]) == ("active", 1, 0)
    assert cli("launch", "--name", "y", *SIM, "--reservation", "blk", "--no-push").code == 80
    kinds = {finding["kind"] for finding in cli.ok("fsck", "--json").json["findings"]}
    assert kinds == {"running", "reserved"}
    cli.ok("down", "x", "--yes")
    assert Decimal(cli.ok("cost", "--json").json["total"]) == usd


def test_what_has_not_begun_or_does_not_exist_is_not_launched_into(cli: Cli) -> None:
    cli.ok("reserve", *SIM, "--gpu", "RTX4090", "--start", "20h..30h", "--buy", "--yes", "--name", "later")
    (held,) = cli.ok("reservations", "--json").json["reservations"]
    assert held["state"] == "scheduled"
    early = cli("launch", *SIM, "--reservation", "later", "--no-push")
    assert (early.code, "it begins at" in early.err) == (80, True)
    assert cli("launch", *SIM, "--reservation", "nothing", "--no-push").code == 3


def test_a_purchase_needs_consent_and_stays_below_what_was_allowed(cli: Cli) -> None:
    assert cli("reserve", *WANTED, "--buy").code == 2
    assert cli(*buy("--max-cost", "0.10")).code == 83
    capped = {"GPUCLOUD_BUDGET_DAY": "0.70"}
    assert cli(*buy(), env={"GPUCLOUD_BUDGET_DAY": "0.10"}).code == 83
    assert sold(cli) == []
    cli.ok(*buy(), env=capped)
    refused = cli("reserve", *WANTED, "--name", "more", "--buy", "--yes", env=capped)
    assert (refused.code, "reservation blk" in refused.err) == (83, True)
    words = ("launch", *SIM, "--gpu", "RTX4090", "--max-duration", "1h", "--no-push", "--yes")
    assert cli(*words, env=capped).code == 83
    assert len(sold(cli)) == 1


def test_a_name_means_one_purchase_and_a_sold_block_is_said_so(cli: Cli) -> None:
    cli.ok(*buy())
    other = cli("reserve", *SIM, "--gpu", "H100", "--start", "0s..1h", "--name", "blk", "--buy", "--yes")
    assert (other.code, "something else" in other.err) == (2, True)
    assert len(cli.ok("reservations", "--json").json["reservations"]) == 1
    sold_out = cli("reserve", "--provider", "sim:stockout=1", *WANTED[2:], "--name", "two", "--buy", "--yes")
    assert sold_out.code == 80
    assert len(sold(cli)) == 1
    assert [each["name"] for each in cli.ok("reservations", "--json").json["reservations"]] == ["blk"]
    everything = cli.ok("reservations", "--all", "--json").json["reservations"]
    assert [(each["name"], each["state"]) for each in everything] == [("blk", "active"), ("two", "failed")]
    assert cli("reserve", *WANTED, "no-such-block", "--buy", "--yes").code == 3


def test_a_purchase_whose_answer_is_lost_is_found_again(cli: Cli) -> None:
    lost = ("reserve", "--provider", "sim:lost-reply=1", *WANTED[2:], "--name", "blk", "--buy", "--yes")
    cli.ok(*lost)
    (token,) = sold(cli)
    (held,) = cli.ok("reservations", "--json").json["reservations"]
    assert (held["reservation"], held["name"]) == (token, "blk")


def test_a_purchase_that_nobody_can_confirm_is_neither_forgotten_nor_repeated(cli: Cli) -> None:
    market = "sim:lost-reply=1,nolist=99"
    words = ("reserve", "--provider", market, *WANTED[2:], "--name", "blk", "--buy", "--yes")
    assert cli(*words).code == 88
    assert cli("fsck").code == 5
    assert cli("reservations").code == 5
    assert "1 provider(s) could not be asked" in cli("fsck").err
    assert cli(*words).code == 88
    assert len(sold(cli)) == 1
    assert cli.ok("budget", env={"GPUCLOUD_BUDGET_DAY": "9"}).out.count("reservation blk") == 1


def test_a_purchase_that_the_provider_gave_up_was_none_also_if_it_was_cut_off(cli: Cli) -> None:
    """As when the payment fails after a crash: the same name may be bought again, once."""
    cli.ok(*buy())
    (given_up,) = sold(cli)
    with opened(cli.data) as store:
        store.db.read("UPDATE bookings SET state = 'intended', reservation_id = NULL RETURNING token")
    file = cli.data / "providers" / "sim" / "market.json"
    market = json.loads(file.read_text())
    market["reservations"][given_up]["given_up"] = True
    file.write_text(json.dumps(market))
    assert "not bought again" not in cli.ok(*buy()).err
    assert len(sold(cli)) == 2
    (line,) = cli.ok("cost", "--json").json["lines"]
    assert line["reservation"] == cli.ok(*buy("--json")).json["blocks"][0]["usd"]


def test_a_purchase_killed_at_any_step_is_bought_at_most_once_and_explained(cli: Cli) -> None:
    for step in range(1, 100, EVERY):
        name = f"blk-{step}"
        before = set(sold(cli))
        words = ("reserve", *WANTED, "--name", name, "--buy", "--yes")
        code = kill_at(step, cli, *words)
        made = set(sold(cli)) - before
        assert len(made) <= 1, f"step {step}: bought twice"
        cli.ok(*words)
        after = set(sold(cli)) - before
        assert len(after) == 1 and made <= after, f"step {step}: the second purchase bought again"
        held = {each["reservation"] for each in cli.ok("reservations", "--json").json["reservations"]}
        assert after <= held
        if code != KILLED:
            break
    assert code == 0
    assert step > 5, "the walk found hardly any steps to die at"
    charged = cli.ok("cost", "--json").json["lines"]
    assert len([line for line in charged if line["reservation"] != "0"]) == len(sold(cli))


@pytest.mark.parametrize(
    "start", ["yesterday", "2020-01-01", "2030-01-05..2030-01-01", "5 bananas", "..", "2030-13-01"]
)
def test_a_start_that_makes_no_sense_is_refused(cli: Cli, start: str) -> None:
    refused = cli("reserve", *SIM, "--gpu", "RTX4090", "--start", start)
    assert (refused.code, "--start makes no sense" in refused.err) == (2, True)


def test_who_sells_no_reservations_is_said_so(cli: Cli) -> None:
    assert cli("reserve", "--provider", "local", "--for", "1h").code == 2
    assert cli("reserve", *SIM, "--gpu", "B200").code == 3


def test_a_day_is_wanted_from_its_first_moment_to_its_last(cli: Cli) -> None:
    day = f"{utcnow() + timedelta(days=3):%Y-%m-%d}"
    (block, *_) = cli.ok("reserve", *SIM, "--gpu", "RTX4090", "--start", day, "--json").json["blocks"]
    assert block["starts_at"].startswith(day)
