"""The adapter before Amazon's cloud on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from gpucloud.model import Market, Offer, Requirements
from gpucloud.provider import LaunchSpec, ProviderSettings
from gpucloud_aws import Aws
from tests.harness.aws import LOGIN, Cloud, Served, serving

MakeAdapter = Callable[..., Aws]
Find = Callable[..., Offer]


@pytest.fixture(scope="session")
def elsewhere_nothing() -> Iterator[None]:
    """Neither variables nor the machine itself give credentials."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        # Reading botocore's descriptions anew for each adapter would take half of the time of the tests.
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture
def served(elsewhere_nothing: None) -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture
def cloud(served: Served) -> Cloud:
    return served.cloud


def an_adapter(served: Served, home: Path, attempts: int = 1, **table: Any) -> Aws:
    """The adapter as a process has it; it asks once, as who asks again really waits."""
    environ = {**LOGIN, "HOME": str(home), "AWS_MAX_ATTEMPTS": str(attempts)}
    addresses = {"endpoint_url": served.url, "advisor_url": served.url}
    return Aws(ProviderSettings("aws", home / "state", table={**addresses, **table}, environ=environ))


@pytest.fixture
def make_adapter(served: Served, tmp_path: Path) -> MakeAdapter:
    """Another adapter before the same cloud."""
    return partial(an_adapter, served, tmp_path)


@pytest.fixture
def adapter(make_adapter: MakeAdapter) -> Aws:
    return make_adapter()


@pytest.fixture
def find(adapter: Aws) -> Find:
    """One offer of a type: on demand in us-east-1a unless it is said otherwise."""

    def one(name: str = "g5.xlarge", zone: str = "us-east-1a", market: Market = Market.ON_DEMAND) -> Offer:
        wanted = Requirements(markets=(market,), regions=(zone,), instance_types=(name,))
        (offer,) = [offer for offer in adapter.offers(wanted) if offer.zone == zone]
        return offer

    return one


def a_spec(token: str = "gc-token", **more: Any) -> LaunchSpec:
    """What to launch, with a key that is none."""
    words: dict[str, Any] = {
        "cluster": "c",
        "rank": 0,
        "owner": "me",
        "public_key": "ssh-ed25519 AAAA me",
        **more,
    }
    return LaunchSpec(token=token, **words)
