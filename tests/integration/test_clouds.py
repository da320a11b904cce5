"""The three clouds through the program itself: their own SDKs, their fakes, and machines that answer SSH."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from gpucloud.model import HostKeySource, utcnow
from tests.harness.acme import Verb
from tests.harness.aws.blocks import Offering
from tests.harness.books import opened
from tests.harness.cli import Cli, installation
from tests.harness.cloud_hosts import CloudHosts, cloud_hosts
from tests.harness.clouds import RIGS
from tests.harness.rig import Rig, configure
from tests.harness.waiting import eventually

pytestmark = pytest.mark.needs_netns

JOB = "expr 6 \\* 7 >answer.txt; nvidia-smi"
INTO = ("--provider", "aws", "--reservation", "blk", "--no-push")
GPUS = ("--gpu", "H100:8", "--yes")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[CloudHosts]:
    with cloud_hosts(3, tmp_path / "hosts") as machines:
        yield machines


@pytest.fixture
def rigs(tmp_path: Path, hosts: CloudHosts) -> Iterator[dict[str, Rig]]:
    """All three clouds, which hand out the same machines."""
    with ExitStack() as stack:
        found = {name: stack.enter_context(rigged(tmp_path)) for name, rigged in RIGS.items()}
        for rig in found.values():
            rig.state.on_boot = lambda boot: hosts.boot(boot.id, boot.user_data)
            rig.state.on_end = hosts.end
        yield found


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with installation(tmp_path) as runner:
        yield runner


def config_of(cli: Cli) -> Path:
    return Path(cli.environ["XDG_CONFIG_HOME"]) / "gpucloud" / "config.toml"


@pytest.mark.parametrize("name", RIGS)
def test_a_job_runs_and_nothing_bills_afterwards(cli: Cli, rigs: dict[str, Rig], name: str) -> None:
    rig = rigs[name]
    env = configure(config_of(cli), rig)
    done = cli("run", "--provider", name, *GPUS, "--output", "answer.txt", "--", JOB, env=env)
    assert done.code == 0, done.err
    assert (cli.project / "answer.txt").read_text() == "42\n"
    assert "NVIDIA-SMI" in done.out
    assert not rig.state.billing()
    assert [machine.token is not None for machine in rig.state.instances()] == [True]
    assert cli.ok("ps", env=env).out == ""
    assert cli.ok("fsck", "--json", env=env).json["findings"] == []


@pytest.mark.parametrize("name", RIGS)
def test_the_first_connection_is_to_the_machine_that_was_rented(
    cli: Cli, rigs: dict[str, Rig], name: str
) -> None:
    env = configure(config_of(cli), rigs[name])
    cli.ok("launch", "--name", "x", "--provider", name, *GPUS, "--no-push", env=env)
    with opened(cli.data) as store:
        (rental,) = store.journal.rentals()
        assert rental.host_key_source is HostKeySource.PLANTED
        assert rental.host_key == rental.planted_key
    assert cli.ok("exec", "x", "--", "echo in", env=env).out == "in\n"
    cli.ok("down", "x", "--yes", env=env)
    assert not rigs[name].state.billing()


# The others wait out the lag of a listing, for half a minute each.
MOMENTS = ["before", "after"] if os.environ.get("GPUCLOUD_CRASH_EVERY") == "1" else ["after"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("verb", [Verb.CREATE, Verb.TERMINATE])
@pytest.mark.parametrize("name", RIGS)
def test_a_command_killed_at_its_call_is_explained_and_finished(
    cli: Cli, rigs: dict[str, Rig], name: str, verb: Verb, moment: str
) -> None:
    rig = rigs[name]
    env = configure(config_of(cli), rig)
    launch = ("launch", "--name", "x", "--provider", name, *GPUS, "--no-push")
    if verb is Verb.TERMINATE:
        cli.ok(*launch, env=env)
    process = cli.start(*(launch if verb is Verb.CREATE else ("down", "x", "--yes")), env=env)

    def called(at: str, asked: Verb | None) -> None:
        if (at, asked) == (moment, verb):
            process.kill()
            process.wait()
            if moment == "before":
                raise ConnectionAbortedError

    rig.faults.called = called
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    rig.faults.called = lambda at, asked: None

    shown = {finding["token"] for finding in cli("fsck", "--json", env=env).json["findings"]}
    assert {rig.token(id) for id in rig.state.billing()} <= shown
    if verb is Verb.CREATE:
        cli.ok(*launch, env=env)
        assert len([machine for machine in rig.state.instances() if machine.ended_at is None]) == 1
    # When its end was seen by fsck there is none of that name any more.
    assert cli("down", "x", "--yes", env=env).code in {0, 3}
    assert cli("fsck", "--fix", "--yes", env=env).code in {0, 6}
    assert not rig.state.billing()
    assert cli.ok("fsck", "--json", env=env).json["findings"] == []


def test_a_machine_waits_unbilled_until_google_has_one(cli: Cli, rigs: dict[str, Rig]) -> None:
    rig = rigs["gcp"]
    env = configure(config_of(cli), rig)
    words = ("--market", "queued", "--wait", "30m", "--max-duration", "2h", "--no-push")
    process = cli.start("launch", "--name", "x", "--provider", "gcp", *GPUS, *words, env=env)
    eventually(rig.state.instances)
    assert process.stderr is not None
    told = iter(process.stderr.readline, "")
    assert any("waits for capacity" in line for line in told)
    assert not rig.state.billing()
    rig.state.serve_queue()
    process.communicate()
    assert process.returncode == 0
    assert rig.state.billing()
    assert cli.ok("exec", "x", "--", "echo in", env=env).out == "in\n"
    cli.ok("down", "x", "--yes", env=env)
    assert not rig.state.billing()


def test_a_block_is_bought_once_and_launched_into_at_google(cli: Cli, rigs: dict[str, Rig]) -> None:
    rig = rigs["gcp"]
    rig.state.calendar["a3-highgpu-8g", "us-central1-a"] = utcnow(), 2
    env = configure(config_of(cli), rig)
    wanted = ("--provider", "gcp", "--gpu", "H100:8", "--for", "24h", "--start", "0s..1h")
    (shown,) = cli.ok("reserve", *wanted, "--json", env=env).json["blocks"]
    for _ in range(2):
        cli.ok("reserve", *wanted, "--name", "blk", "--buy", "--yes", env=env)
    (held,) = cli.ok("reservations", "--json", env=env).json["reservations"]
    assert (held["state"], held["free"], held["usd"]) == ("active", 1, shown["usd"])
    cli.ok("launch", "--name", "x", "--provider", "gcp", "--reservation", "blk", "--no-push", env=env)
    assert cli.ok("exec", "x", "--", "echo in", env=env).out == "in\n"
    (held,) = cli.ok("reservations", "--json", env=env).json["reservations"]
    assert held["free"] == 0
    cli.ok("down", "x", "--yes", env=env)
    findings = cli.ok("fsck", "--json", env=env).json["findings"]
    assert [finding["kind"] for finding in findings] == ["reserved"]


def test_a_block_is_bought_once_and_launched_into_at_amazon(cli: Cli, rigs: dict[str, Rig]) -> None:
    rig = rigs["aws"]
    starts_at = utcnow().replace(microsecond=0) + timedelta(minutes=30)
    offering = Offering("cb-1", "p5.48xlarge", "us-east-1a", starts_at, starts_at + timedelta(days=1))
    rig.state.offerings = [offering]
    env = configure(config_of(cli), rig)
    wanted = ("--provider", "aws", "--gpu", "H100:8", "--for", "24h", "--start", "0s..1h")
    (shown,) = cli.ok("reserve", *wanted, "--json", env=env).json["blocks"]
    assert (shown["usd"], shown["usd_upfront"]) == ("5400", "5400")
    cli.ok("reserve", *wanted, "--name", "blk", "--buy", "--yes", env=env)
    (reservation,) = rig.state.reservations.values()
    assert cli("launch", "--name", "x", *INTO, env=env).code == 80
    offering.starts_at -= timedelta(minutes=31)
    cli.ok("launch", "--name", "x", *INTO, env=env)
    assert cli.ok("exec", "x", "--", "echo in", env=env).out == "in\n"
    (held,) = cli.ok("reservations", "--json", env=env).json["reservations"]
    assert (held["reservation"], held["free"]) == (reservation.id, 0)
    assert cli.ok("cost", "--json", env=env).json["lines"][0]["reservation"] == "5400"
    cli.ok("down", "x", "--yes", env=env)
    assert not [machine for machine in rig.state.instances() if machine.ended_at is None]


def test_out_of_stock_at_two_clouds_it_is_the_third(cli: Cli, rigs: dict[str, Rig]) -> None:
    aws, gcp, azure = (rigs[name].state for name in ("aws", "gcp", "azure"))
    aws.capacity |= {("p5.48xlarge", f"{region}{zone}"): 0 for region in aws.regions for zone in "ab"}
    gcp.full |= {("a3-highgpu-8g", zone) for zone in gcp.machines}
    env = configure(config_of(cli), *rigs.values()) | {"GPUCLOUD_LAUNCH_PRICE_FACTOR": "1000000"}
    names = ("--provider", "aws", "--provider", "gcp", "--provider", "azure")
    done = cli("launch", "--name", "x", *names, *GPUS, "--no-push", env=env)
    assert done.code == 0, done.err
    refused = {line.split()[1].split("/")[0] for line in done.err.splitlines() if "refused" in line}
    assert refused == {"aws", "gcp"}
    assert not aws.billing() + gcp.billing()
    assert azure.billing()
    assert cli.ok("fsck", env=env).code == 0
    cli.ok("down", "x", "--yes", env=env)
    assert not azure.billing()
