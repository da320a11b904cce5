"""Spoilt replies of rental markets: never a crash, and no price rather than a wrong one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug import Response

from gpucloud.errors import ProviderError
from gpucloud.model import InstanceState, Offer, Requirements
from gpucloud.provider import Provider
from gpucloud.registry import load
from tests.harness.rental import MARKETS
from tests.harness.rental.market import Market, Served, serving
from tests.providers.rented import a_spec
from tests.providers.renting import adapter_at, cheapest, identity_in

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

EXAMPLES: Final = 20
HOPELESS: Final[tuple[Any, ...]] = (
    None,
    [],
    {},
    "",
    "a text",
    True,
    -1,
    "-3.5",
    "NaN",
    1e300,
    "\u0000",
    [None],
    {"": None},
)
"""What takes the place of a value: nothing that could be another value of the same thing."""


class Spoiling:
    """A market whose replies, once there is a ``seed``, have so many values spoilt in them."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.seed: int | None = None

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer as the market does, but for what is spoilt."""
        told = Response.from_app(self.market, environ)
        if self.seed is not None and told.status_code < 400 and told.is_json:
            body = json.loads(told.get_data())
            spoil(body, random.Random(self.seed))
            told.set_data(json.dumps(body))
        return told(environ, start)


def spoil(body: Any, chance: random.Random) -> None:
    """Take values away or replace them, somewhere in a reply; add what nobody knows."""
    places = list(_places(body))
    for holder, key in chance.sample(places, min(len(places), chance.randint(1, 3))):
        if isinstance(holder, dict) and chance.random() < 0.4:
            holder.pop(key, None)
        elif isinstance(holder, dict) or key < len(holder):
            value = chance.choice(HOPELESS)
            # True for False would be another value of the same thing.
            holder[key] = None if isinstance(value, bool) and isinstance(holder[key], bool) else value
    for holder, _ in places[:3]:
        if isinstance(holder, dict):
            holder["a_field_of_tomorrow"] = {"of": ["any", 1]}


def _places(body: Any) -> Iterator[tuple[Any, Any]]:
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in list(items):
        yield body, key
        yield from _places(value)


def told(do: Callable[[], Any]) -> Any:
    """What is told; ``None`` when it fails by an error of ours. Anything else is a bug."""
    try:
        return do()
    except ProviderError:
        return None


def line(offer: Offer) -> tuple[str, str, int]:
    """By what an offer is told from the others of its provider."""
    return offer.id, offer.ref, offer.gpu_count


@pytest.fixture(params=MARKETS.values(), ids=lambda kind: kind.name)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with serving(request.param(), around=Spoiling) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Provider:
    adapter = load(served.market.name)
    assert issubclass(adapter, Provider)
    return adapter_at(adapter, served, tmp_path)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spoilt_prices_are_no_prices(served: Served, provider: Provider, seed: int) -> None:
    served.around.seed = None
    true: dict[tuple[str, str, int], Decimal] = {
        line(offer): offer.usd_per_hour for offer in provider.offers(Requirements(markets=()))
    }
    served.around.seed = seed
    for offer in told(lambda: list(provider.offers(Requirements(markets=())))) or ():
        assert offer.usd_per_hour in true.values()
        assert true.get(line(offer), offer.usd_per_hour) == offer.usd_per_hour


@given(seed=st.integers(0, 2**32))
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spoilt_instances_are_ours_or_none(
    served: Served, provider: Provider, tmp_path: Path, seed: int
) -> None:
    served.around.seed = None
    if not served.market.billing():
        spec = a_spec(identity_in(tmp_path))
        provider.launch(cheapest(provider), spec)
    (mine,) = [instance for instance in provider.instances() if instance.alive]
    served.around.seed = seed
    for instance in told(lambda: list(provider.instances())) or ():
        assert instance.token == mine.token
        assert isinstance(instance.state, InstanceState)
    got = told(lambda: provider.get(mine.ref))
    assert got is None or isinstance(got.state, InstanceState)


def test_a_launch_whose_reply_is_spoilt_may_have_taken_place(
    served: Served, provider: Provider, tmp_path: Path
) -> None:
    offer = cheapest(provider)
    key = identity_in(tmp_path)
    for seed in range(60):
        served.around.seed = seed
        before = len(served.market.instances())
        try:
            provider.launch(offer, a_spec(key))
        except ProviderError as error:
            made = len(served.market.instances()) > before
            assert error.outcome_unknown or not made, error
