"""Machines that wait in their provider's queue: what is told, billed, given up and taken up again."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from gpucloud.model import utcnow
from tests.cli.test_crashes import rented, running
from tests.harness.cli import Cli
from tests.harness.waiting import eventually

LONG = "sim:queue=1h"


def words(cli: Cli, market: str, wait: str) -> list[str]:
    return [
        "launch", "--name", "x", "--provider", market, "--market", "queued", "--gpu", "RTX4090",
        "--wait", wait, "--max-duration", "30m", "--workdir", str(cli.project), "--yes",
    ]  # fmt: skip


def test_a_queued_machine_starts_when_its_turn_comes_and_so_does_its_lease(cli: Cli) -> None:
    done = cli.ok(*words(cli, "sim:queue=1s", "50m"), "--json")
    assert "waits for capacity for at most 50m, which costs nothing" in done.err
    assert "for $0.13" in done.err
    (cluster,) = done.json["clusters"]
    left = datetime.fromisoformat(cluster["nodes"][0]["expires_at"]) - utcnow()
    assert timedelta(minutes=28) < left <= timedelta(minutes=30)
    finding = cli.ok("fsck", "--json").json["findings"][0]
    assert (finding["kind"], finding["detail"]) == ("running", "up")
    cli.ok("down", "x", "--yes")


def test_all_queues_together_take_no_longer_than_was_agreed_to(cli: Cli) -> None:
    done = cli(*words(cli, LONG, "1s"))
    assert done.code == 80
    assert "no capacity came" in done.err
    assert done.err.count("rented") == 1
    assert not rented(cli)
    assert cli.ok("cost", "--json").json["total"] == "0"


def test_whoever_is_killed_while_a_machine_waits_finds_it_unbilled_and_takes_it_up(cli: Cli) -> None:
    process = cli.start(*words(cli, "sim:queue=4s", "50m"))
    (token,) = eventually(lambda: running(cli))
    process.kill()
    process.communicate()
    finding = cli.ok("fsck", "--json").json["findings"][0]
    assert finding["token"] == token
    cli.ok(*words(cli, "sim:queue=4s", "50m"))
    assert rented(cli) == {token}
    cli.ok("down", "x", "--yes")


def test_what_waits_costs_nothing_and_is_given_up_by_down(cli: Cli) -> None:
    process = cli.start(*words(cli, LONG, "50m"))
    (token,) = eventually(lambda: running(cli))
    process.kill()
    process.communicate()
    finding = cli.ok("fsck", "--json").json["findings"][0]
    assert finding["token"] == token
    assert finding["usd_per_hour"] == "0"
    cli.ok("down", "x", "--yes")
    assert not rented(cli)
    assert cli.ok("cost", "--json").json["total"] == "0"


@pytest.mark.parametrize("wait", ["soon", "-1h"])
def test_a_wait_that_makes_no_sense_is_refused(cli: Cli, wait: str) -> None:
    assert cli(*words(cli, LONG, wait)).code == 2
