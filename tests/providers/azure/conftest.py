"""An Azure on loopback, and an adapter that rents there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpucloud.http import HttpClient
from gpucloud.model import Market, Offer, Requirements
from gpucloud.provider import ProviderSettings
from gpucloud_azure import Azure
from tests.harness.azure import Cloud, Server, serving
from tests.harness.azure.market import A100
from tests.harness.catalogs import Clock

Make = Callable[..., Azure]


@pytest.fixture
def cloud() -> Cloud:
    """The state of the server."""
    return Cloud()


@pytest.fixture
def server(tmp_path: Path, cloud: Cloud) -> Iterator[Server]:
    """The server; what is sent and answered there must be as Azure's own libraries have it."""
    with serving(tmp_path / "server", cloud) as running:
        yield running
    assert cloud.violations == []


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Make:
    """``make(**table)`` is an adapter of somebody who is signed in, with these settings."""

    def make(environ: dict[str, str] | None = None, **table: Any) -> Azure:
        given = {**server.environ, "HOME": str(tmp_path)} if environ is None else environ
        settings = ProviderSettings("azure", tmp_path / "state", {**server.table, **table}, given)
        adapter, clock = Azure(settings), Clock()
        adapter.client = partial(HttpClient, sleep=clock.sleep, clock=lambda: clock.now)
        adapter.look_s = 0.2
        return adapter

    return make


@pytest.fixture
def azure(make: Make) -> Azure:
    """An adapter with nothing but a login."""
    return make()


@pytest.fixture
def offer(azure: Azure) -> Offer:
    """One A100 in Virginia, on demand."""
    wanted = Requirements(instance_types=(A100,), regions=("eastus",), markets=(Market.ON_DEMAND,))
    (found,) = azure.offers(wanted)
    return found


@pytest.fixture
def spot(azure: Azure) -> Offer:
    """The same as spot."""
    wanted = Requirements(instance_types=(A100,), regions=("eastus",), markets=(Market.SPOT,))
    (found,) = azure.offers(wanted)
    return found
