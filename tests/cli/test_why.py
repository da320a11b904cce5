"""What is known of one offer, and what a job would cost by it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.harness.cli import Cli

OFFER = "sim/sim.1x-h100/sim-east/spot"


@pytest.fixture
def known(cli: Cli) -> Cli:
    cli.ok("offers", "--provider", "sim")
    return cli


def test_all_that_is_known_is_told_and_what_is_not_is_called_unknown(known: Cli) -> None:
    told = dict(line.split("\t") for line in known.ok("why", OFFER).out.splitlines())
    assert told["id"] == OFFER
    assert told["gpu"] == "H100-SXM-80"
    assert told["country"] == "unknown"
    assert told["confidence"] == "simulated"


def test_a_cost_is_told_term_by_term_and_adds_up(known: Cli) -> None:
    (offer,) = known.ok("why", OFFER, "--hours", "6", "--disk", "50GB", "--egress", "5GB", "--json").json[
        "offers"
    ]
    cost = offer["cost"]
    terms = {term["name"]: term["expected"] for term in cost["terms"]}
    assert Decimal(terms["instance"]) == 6 * Decimal(offer["usd_per_hour"])
    assert sum(Decimal(amount) for amount in terms.values() if amount) == Decimal(cost["expected"])
    assert cost["unknown"] == [name for name, amount in terms.items() if amount is None]
    lines = known.ok("why", OFFER, "--hours", "6").out.splitlines()
    assert lines[-1].startswith(
        f"together\t${Decimal(terms['instance']):.4f}\tunknown\twithout getting ready"
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing/like/it/spot"], 3, "gpucloud offers --columns id"),
        ([OFFER, "--hours", "six"], 2, "--hours makes no sense"),
        ([OFFER, "--egress", "5GB"], 2, "--egress needs --hours"),
        ([OFFER, "--data", "5GB"], 2, "--data needs --hours"),
        ([OFFER, "--hours", "6", "--egress", "much"], 2, "--egress makes no sense"),
    ],
)
def test_what_makes_no_sense_is_answered_in_three_lines(
    known: Cli, words: list[str], code: int, said: str
) -> None:
    done = known("why", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert [line.split(":")[0].strip() for line in done.err.splitlines()] == ["gpucloud", "why", "next"]


def test_how_long_machines_took_here_is_what_getting_ready_is_expected_to_cost(known: Cli) -> None:
    words = ("why", OFFER, "--hours", "6", "--json")

    def ready() -> dict[str, str | None]:
        (offer,) = known.ok(*words).json["offers"]
        terms: dict[str, dict[str, str | None]] = {term["name"]: term for term in offer["cost"]["terms"]}
        return terms["getting ready"]

    before = ready()
    assert before["expected"] is None
    assert "nothing of sim was rented from here yet" in str(before["how"])
    known.ok("launch", "--name", "x", "--no-push", "--yes", "--provider", "sim:boot=0s")
    known.ok("down", "x", "--yes")
    after = ready()
    assert after["expected"] is not None
    assert Decimal(after["expected"]) > 0
    assert before["worst"] == after["worst"]
