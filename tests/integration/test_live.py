"""One real, small rental at each provider that ``GPUCLOUD_LIVE`` names, for at most a dollar."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpucloud.config import load
from gpucloud.provider import Provider
from gpucloud.registry import Registry
from gpucloud.store import new_id
from tests.harness.cli import Cli

PROVIDERS = [name.strip() for name in os.environ.get("GPUCLOUD_LIVE", "").split(",") if name.strip()]
CEILING = "1"
LONGEST = "20m"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The login of the person, and books of our own."""
    project = tmp_path / "project"
    project.mkdir()
    return Cli(project, {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")})


@pytest.fixture(params=PROVIDERS or [""])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Provider:
    """One that is set up."""
    if not request.param:
        pytest.skip("GPUCLOUD_LIVE names nobody")
    config = replace(load({}, os.environ, tmp_path), data_dir=tmp_path / "data" / "gpucloud")
    registry = Registry(config)
    if not registry.is_set_up(request.param):
        pytest.skip(f"there are no credentials for {request.param}")
    return registry.get(request.param)


@pytest.fixture
def name(cli: Cli, provider: Provider) -> Iterator[str]:
    """A cluster's name; whatever bills under it afterwards is ended by its tag, without the books."""
    cluster = new_id("live-", 8).lower()
    try:
        yield cluster
    finally:
        left = [each for each in provider.instances() if each.cluster == cluster and each.alive]
        for instance in left:
            provider.terminate(instance.ref)
        assert not left, f"still there after the test, and ended now: {left}"


@pytest.mark.live
def test_a_real_machine_is_rented_used_and_given_back(cli: Cli, provider: Provider, name: str) -> None:
    limits = ("--max-price", CEILING, "--max-cost", CEILING, "--max-duration", LONGEST)
    (cli.project / "in.txt").write_text("7")
    cli.ok("launch", "--name", name, "--provider", provider.name, "--gpu", "8GB+", *limits, "--yes")
    assert cli.ok("exec", name, "--", "nvidia-smi -L").out.startswith("GPU 0")
    cli.ok("exec", name, "--", "expr 6 \\* $(cat in.txt) > answer.txt")
    cli.ok("pull", name, "answer.txt")
    assert (cli.project / "answer.txt").read_text() == "42\n"
    cli.ok("down", name, "--yes")
    cli.ok("fsck")
