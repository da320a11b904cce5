"""Simulated markets for tests, and what is launched in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpucloud.model import Instance, Market, Offer
from gpucloud.provider import ProviderSettings
from gpucloud.remote.keys import Identity, identity
from gpucloud_local import api
from gpucloud_sim import Sim
from tests.harness.waiting import eventually
from tests.providers.rented import a_spec, an_offer

MakeMarket = Callable[..., Sim]


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[MakeMarket]:
    """``sim(script, folder="market")`` is a provider of a process that has just begun."""
    folders = set()

    def make(script: str = "", folder: str = "market") -> Sim:
        folders.add(tmp_path / folder)
        return Sim(ProviderSettings("sim", tmp_path / folder, script=script))

    yield make

    def left() -> list[api.Machine]:
        return [machine for folder in folders for machine in api.machines(folder / "instances")]

    for machine in left():
        api.destroy(machine.folder)
    eventually(lambda: not any(machine.alive for machine in left()))


@pytest.fixture
def key(tmp_path: Path) -> Identity:
    """The key that opens what is launched."""
    return identity(tmp_path)


@pytest.fixture
def offer(sim: MakeMarket) -> Offer:
    """An offer on demand, had without asking the market under test."""
    return an_offer(sim(folder="elsewhere"), instance_type="sim.cpu", market=Market.ON_DEMAND)


@pytest.fixture
def spot(sim: MakeMarket) -> Offer:
    """A spot offer, had without asking the market under test."""
    return an_offer(sim(folder="elsewhere"), instance_type="sim.cpu", market=Market.SPOT)


@pytest.fixture
def launch(key: Identity) -> Callable[..., Instance]:
    """``launch(provider, offer)`` rents one."""

    def launch(provider: Sim, offer: Offer, **given: Any) -> Instance:
        return provider.launch(offer, a_spec(key, **given))

    return launch
