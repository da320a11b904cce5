"""The rental markets behind HTTP on loopback: stateful fakes that speak as the vendors' documents say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from tests.harness.rental.cloudrift import CloudRift
from tests.harness.rental.crusoe import CrusoeCloud
from tests.harness.rental.digitalocean import DigitalOceanCloud
from tests.harness.rental.hotaisle import HotAisleCloud
from tests.harness.rental.hyperstack_cloud import Hyperstack
from tests.harness.rental.lambda_cloud import LambdaCloud
from tests.harness.rental.market import Market, serving
from tests.harness.rental.primeintellect import PrimeIntellectCloud
from tests.harness.rental.runpod import RunpodCloud
from tests.harness.rental.shadeform import ShadeformCloud
from tests.harness.rental.tensordock import TensorDock
from tests.harness.rental.vast import VastAi
from tests.harness.rental.verda_cloud import VerdaCloud
from tests.harness.rental.vultr import VultrCloud
from tests.harness.rig import Rig

MARKETS: Final[Mapping[str, type[Market]]] = {
    market.name: market
    for market in (
        CloudRift,
        CrusoeCloud,
        DigitalOceanCloud,
        HotAisleCloud,
        Hyperstack,
        LambdaCloud,
        PrimeIntellectCloud,
        RunpodCloud,
        ShadeformCloud,
        TensorDock,
        VastAi,
        VerdaCloud,
        VultrCloud,
    )
}


class Rigged(Protocol):
    """What makes a rig, whose files go into a folder."""

    def __call__(self, folder: Path) -> AbstractContextManager[Rig]:
        """For as long as the context lasts."""


@contextmanager
def _rigged(market: type[Market], folder: Path) -> Iterator[Rig]:
    with serving(market()) as served:
        yield served.rig()


RENTAL_RIGS: Final[Mapping[str, Rigged]] = {name: partial(_rigged, kind) for name, kind in MARKETS.items()}
"""Each market as tests of all vendors use it."""
