"""Two markets of which one passes on what the other has, through the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cli import Cli, installation
from tests.harness.rental import RENTAL_RIGS
from tests.harness.rig import configure


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with installation(tmp_path) as runner:
        yield runner


@pytest.fixture
def accounts(cli: Cli, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An account at Shadeform, and one at each of two that it passes on."""
    with ExitStack() as stack:
        names = ("shadeform", "hyperstack", "verda")
        rigs = [stack.enter_context(RENTAL_RIGS[name](tmp_path)) for name in names]
        yield configure(Path(cli.environ["XDG_CONFIG_HOME"]) / "gpucloud" / "config.toml", *rigs)


def passed_on(cli: Cli, env: dict[str, str], *providers: str) -> list[tuple[Any, ...]]:
    """What Shadeform has to offer beside these, and by how much each is dearer than from its upstream."""
    words = [word for name in ("shadeform", *providers) for word in ("--provider", name)]
    offers = cli.ok("offers", "--json", "--market", "on-demand", *words, env=env).json["offers"]
    told = [offer for offer in offers if offer["provider"] == "shadeform"]
    return [(offer["upstream"], offer["country"], offer["usd_per_hour"], offer["margin"]) for offer in told]


def test_what_is_passed_on_names_its_upstream_and_its_margin(cli: Cli, accounts: dict[str, str]) -> None:
    others = [("massedcompute", "US", "21", None), ("verda", "FI", "22.96", "-0.102845")]
    alone = passed_on(cli, accounts)
    assert [line[:3] for line in alone] == [
        ("hyperstack", "CA", "19.2"),
        ("hyperstack", "US", "19.2"),
        *(line[:3] for line in others),
    ]
    # Hyperstack has the one in Canada itself, for no more, and none in the US.
    assert passed_on(cli, accounts, "hyperstack", "verda") == [("hyperstack", "US", "19.2", "0"), *others]
    found = cli.ok("offers", "--where", "margin < 0 and upstream = verda", env=accounts).out
    assert [line.split("\t")[4] for line in found.splitlines()] == ["shadeform"]
