"""A project at Google on loopback, and adapters that ask it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpucloud.http import HttpClient
from gpucloud.model import Market, Offer, Requirements
from gpucloud.provider import LaunchSpec, ProviderSettings
from gpucloud.remote.keys import new_key_pair
from gpucloud.store import new_id
from gpucloud_gcp import Gcp
from tests.harness.gcp import Google, Project, serving

MakeAdapter = Callable[..., Gcp]
MakeSpec = Callable[..., LaunchSpec]


@pytest.fixture
def project() -> Project:
    """The project, which has everything and nothing in it yet."""
    return Project()


@pytest.fixture
def server_of_google(project: Project) -> Iterator[Google]:
    """The project behind HTTP."""
    with serving(project) as google:
        yield google


@pytest.fixture
def adapter(server_of_google: Google, tmp_path: Path) -> MakeAdapter:
    """``adapter(**table)`` is one of a process that has just begun; it waits for nothing."""
    return partial(make_adapter, server_of_google, tmp_path)


def make_adapter(
    google: Google,
    folder: Path,
    deadline_s: float = 10,
    patience_s: float = 10,
    refusal_s: float = 10,
    **table: Any,
) -> Gcp:
    """An adapter that asks a server, with the login that gcloud would have left in a folder."""
    file = google.credentials(folder / "gcloud")
    urls = {"endpoint_url": google.url, "billing_url": google.url}
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "PATH": os.environ["PATH"]}
    made = Gcp(ProviderSettings("gcp", folder, table={**urls, **table}, environ=environ))
    made.client = partial(HttpClient, sleep=lambda _: None, deadline_s=deadline_s)
    made.patience_s, made.refusal_s = patience_s, refusal_s
    return made


@pytest.fixture
def gcp(adapter: MakeAdapter) -> Gcp:
    """An adapter."""
    return adapter()


@pytest.fixture
def spec() -> MakeSpec:
    """``spec(**given)`` is what to launch, with a fresh token."""

    def make(**given: Any) -> LaunchSpec:
        usual: dict[str, Any] = {
            "token": new_id("gc-", 20),
            "cluster": "Anna's",
            "rank": 0,
            "owner": "anna@example.com",
            "public_key": new_key_pair().public,
        }
        return LaunchSpec(**{**usual, **given})

    return make


@pytest.fixture
def offer(gcp: Gcp) -> Callable[..., Offer]:
    """``offer(instance_type, zone, market)`` is one of this moment."""

    def find(
        instance_type: str = "g2-standard-4",
        zone: str = "us-central1-a",
        market: Market = Market.ON_DEMAND,
    ) -> Offer:
        wanted = Requirements(markets=(market,), instance_types=(instance_type,))
        return next(one for one in gcp.offers(wanted) if one.zone == zone)

    return find
