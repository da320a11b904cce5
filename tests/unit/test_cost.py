"""What a job costs: each term by hand, and what is not known never passes for nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.catalog.cards import card
from gpucloud.market.cost import READY, Cost, Readiness, Term, Work, cost, parse_hours
from gpucloud.model import Market, Offer
from tests.harness.adapters import an_offer


def offer(**changes: Any) -> Offer:
    """An offer of a provider that nobody has heard of, at $2 an hour."""
    return an_offer(**{"provider": "unheard-of", "usd_per_hour": Decimal(2), **changes})


def work(hours: str, **changes: Any) -> Work:
    return Work(Decimal(hours), **changes)


def term(total: Cost, name: str) -> Term:
    (found,) = [term for term in total.terms if term.name == name]
    return found


def test_where_nobody_says_in_which_steps_it_is_billed_a_begun_hour_is_the_worst() -> None:
    total = cost(offer(), work("1.5"))
    assert (total.expected, total.worst, total.unknown) == (Decimal(3), Decimal(4), ())
    assert "in which steps it is billed is not known" in total.terms[0].how


def test_the_steps_of_a_billing_card_are_kept() -> None:
    grain = card("verda").facts["billing_grain_s"].value
    assert isinstance(grain, int) and grain > 1
    total = cost(offer(provider="verda", usd_per_hour=Decimal(3600)), work("0.0001"))
    assert card("verda").facts["billing_minimum_s"].value in (None, 0, grain)
    assert total.expected == total.worst == grain


def test_by_the_second_it_costs_what_was_used() -> None:
    assert card("runpod").facts["billing_grain_s"].value == 1
    total = cost(offer(provider="runpod"), work("1.5"))
    assert total.expected == total.worst == Decimal(3)


def test_what_spot_is_expected_to_redo_is_added_and_has_no_bound() -> None:
    total = cost(offer(market=Market.SPOT, interruptions_per_hour=Decimal("0.5")), work("1"))
    # With half of all hours interrupted, an hour in one go takes (2 - 1) / ln 2 hours.
    redone = term(total, "redone after interruptions")
    assert redone.expected is not None
    assert abs(redone.expected - 2 * (1 / Decimal(2).ln() - 1)) < Decimal("1e-20")
    assert total.worst is None


@pytest.mark.parametrize(
    ("chance", "how"),
    [(None, "is not known"), (Decimal(1), "always taken back"), (Decimal("0.999"), "long before it is done")],
)
def test_an_expectation_that_cannot_be_had_is_unknown(chance: Decimal | None, how: str) -> None:
    total = cost(offer(market=Market.SPOT, interruptions_per_hour=chance), work("100"))
    assert total.unknown == ("redone after interruptions",)
    assert how in term(total, "redone after interruptions").how
    assert total.expected == Decimal(200)
    assert total.worst is None


def test_disk_is_paid_by_the_month_or_comes_with_it_or_is_unknown() -> None:
    wanted = work("73", disk_gib=Decimal(100))
    paid = cost(offer(disk_usd_per_gib_month=Decimal("0.10"), disk_gib=Decimal(500)), wanted)
    assert term(paid, "disk").expected == Decimal(1)
    included = cost(offer(disk_gib=Decimal(100)), wanted)
    assert term(included, "disk").expected == term(included, "disk").worst == Decimal(0)
    for lacking in (offer(disk_gib=Decimal(99)), offer()):
        total = cost(lacking, wanted)
        assert (total.unknown, total.worst) == (("disk",), None)


def test_traffic_has_the_price_of_the_offer_or_of_the_card_or_none() -> None:
    far = work("1", egress_gib=Decimal(10))
    assert term(cost(offer(egress_usd_per_gib=Decimal("0.09")), far), "traffic out").expected == Decimal(
        "0.9"
    )
    assert card("runpod").facts["egress_usd_per_gb"].value == "free"
    assert term(cost(offer(provider="runpod"), far), "traffic out").expected == 0
    assert cost(offer(), far).unknown == ("traffic out",)


def test_what_getting_ready_costs_is_what_was_seen_of_that_provider_or_unknown_and_bounded() -> None:
    wanted = work("1", readiness=Readiness({"acme": Decimal(90)}, limit_s=Decimal(600)))
    seen = term(cost(offer(provider="acme"), wanted), READY)
    assert (seen.expected, seen.worst) == (2 * Decimal(90) / 3600, 2 * Decimal(600) / 3600)
    new = term(cost(offer(), wanted), READY)
    assert (new.expected, new.worst) == (None, 2 * Decimal(600) / 3600)
    slow = work("1", readiness=Readiness({"acme": Decimal(9000)}, limit_s=Decimal(600)))
    assert term(cost(offer(provider="acme"), slow), READY).expected == 2 * Decimal(600) / 3600


def test_bringing_data_costs_the_time_it_takes_and_has_no_bound() -> None:
    wanted = work("1", data_gib=Decimal(100))
    # 100 GiB are 858993.4592 megabits.
    known = term(cost(offer(inet_down_mbps=1000), wanted), "bringing data")
    assert known.expected == 2 * Decimal("858.9934592") / 3600
    assert known.worst is None
    for lacking in (offer(), offer(inet_down_mbps=0)):
        assert cost(lacking, wanted).unknown == ("bringing data",)


def test_what_was_not_asked_for_is_no_term() -> None:
    assert [term.name for term in cost(offer(), work("1")).terms] == ["instance"]


amounts = st.decimals(0, 1000, places=3)


@given(
    st.builds(
        offer,
        provider=st.sampled_from(["runpod", "vast", "verda", "unheard-of"]),
        usd_per_hour=amounts,
        market=st.sampled_from(Market),
        interruptions_per_hour=st.none() | st.decimals(0, 1, places=3),
        disk_gib=st.none() | amounts,
        disk_usd_per_gib_month=st.none() | amounts,
        egress_usd_per_gib=st.none() | amounts,
        inet_down_mbps=st.none() | st.integers(0, 10_000),
    ),
    st.builds(
        Work,
        hours=st.decimals("0.001", 10_000, places=3),
        disk_gib=st.none() | amounts,
        egress_gib=st.none() | amounts,
        data_gib=st.none() | amounts,
        readiness=st.none()
        | st.builds(Readiness, st.just({"vast": Decimal(60)}), st.integers(1, 900).map(Decimal)),
    ),
)
def test_the_sum_is_that_of_its_terms_and_no_more_than_the_worst(offer: Offer, work: Work) -> None:
    total = cost(offer, work)
    known = [term.expected for term in total.terms if term.expected is not None]
    assert total.expected == sum(known, Decimal(0)) >= 0
    assert set(total.unknown) == {term.name for term in total.terms if term.expected is None}
    assert total.worst is None or total.worst >= total.expected
    assert all(term.how for term in total.terms)


@pytest.mark.parametrize(("text", "hours"), [("6", "6"), ("1.5h", "1.5"), (" 0.25 ", "0.25")])
def test_hours_are_read(text: str, hours: str) -> None:
    assert parse_hours(text) == Decimal(hours)


@pytest.mark.parametrize("text", ["", "0", "-1", "six", "1e9", "6d", "nan"])
def test_what_is_no_number_of_hours_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no number of hours"):
        parse_hours(text)
