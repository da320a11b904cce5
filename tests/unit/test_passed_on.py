"""Offers that a provider only passes on: shown once, with what the way through it costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from gpucloud.market import Terms, search
from gpucloud.model import Availability, Gpu, Market, Offer, Requirements, utcnow
from tests.harness.adapters import an_offer, stated

H100 = Gpu("H100", 80, "SXM")
ANYTHING = Requirements(markets=())


def direct(**changes: Any) -> Offer:
    standard = {
        "provider": "mill",
        "usd_per_hour": Decimal(2),
        "gpu": H100,
        "gpu_count": 1,
        "as_of": utcnow(),
    }
    return an_offer(**{**standard, **changes})


def passed_on(**changes: Any) -> Offer:
    return direct(**{"provider": "shop", "upstream": "mill", "usd_per_hour": Decimal("2.5"), **changes})


def shown(*offers: Offer, limit: int | None = None, wanted: Requirements = ANYTHING) -> list[Offer]:
    """What a search among the providers of these offers finds."""
    by_provider: dict[str, list[Offer]] = {}
    for offer in offers:
        by_provider.setdefault(offer.provider, []).append(offer)
    sellers = [stated(name, lambda told=told: told) for name, told in by_provider.items()]  # type: ignore[misc]
    return list(search(sellers, wanted, Terms(30, limit=limit)).offers)


def test_what_its_upstream_has_for_no_more_is_shown_once() -> None:
    assert [offer.provider for offer in shown(direct(), passed_on())] == ["mill"]
    assert [offer.provider for offer in shown(direct(), passed_on(usd_per_hour=Decimal(2)))] == ["mill"]


@pytest.mark.parametrize(
    "twin",
    [
        direct(usd_per_hour=Decimal(3)),
        direct(availability=Availability.UNAVAILABLE),
        direct(confidence="published"),
        direct(country="DE"),
        direct(gpu=Gpu("H100", 80, "PCIe")),
        direct(gpu_count=2),
        direct(market=Market.SPOT),
        direct(provider="forge"),
    ],
    ids=["dearer", "out of stock", "on a list", "elsewhere", "another", "more", "spot", "of another"],
)
def test_what_its_upstream_has_not_as_good_is_shown(twin: Offer) -> None:
    offer = passed_on(country="US", availability=Availability.AVAILABLE)
    assert "shop" in {found.provider for found in shown(twin, offer)}


def test_what_is_left_out_takes_no_place() -> None:
    mine = [direct(instance_type=f"t{n}", usd_per_hour=Decimal(n + 1), gpu_count=n + 1) for n in range(3)]
    theirs = [
        passed_on(instance_type=f"t{n}", usd_per_hour=Decimal(n + 1), gpu_count=n + 1) for n in range(3)
    ]
    others = [passed_on(instance_type=f"u{n}", upstream="forge", usd_per_hour=Decimal(9)) for n in range(3)]
    found = shown(*mine, *theirs, *others, limit=5)
    assert [offer.provider for offer in found] == ["mill", "mill", "mill", "shop", "shop"]


def test_the_margin_is_over_the_cheapest_that_the_upstream_is_known_to_have() -> None:
    found = {
        offer.instance_type: offer.margin
        for offer in shown(
            direct(usd_per_hour=Decimal(2), confidence="published"),
            direct(instance_type="dear", usd_per_hour=Decimal(4), confidence="published"),
            passed_on(instance_type="a", usd_per_hour=Decimal("2.5")),
            passed_on(instance_type="b", usd_per_hour=Decimal("1.5")),
            passed_on(instance_type="c", gpu_count=8),
            passed_on(instance_type="d", upstream="forge"),
        )
    }
    told = [found[name] for name in "abcd"]
    assert told == [Decimal("0.25"), Decimal("-0.25"), None, None]
    assert found["dear"] is None


def test_it_can_be_asked_how_dear_the_way_may_be() -> None:
    offers = (
        direct(confidence="published"),
        passed_on(),
        passed_on(instance_type="b", usd_per_hour=Decimal(4)),
    )
    found = shown(*offers, wanted=Requirements(markets=(), where="margin <= 25%"))
    assert [(offer.provider, offer.usd_per_hour) for offer in found] == [("shop", Decimal("2.5"))]
