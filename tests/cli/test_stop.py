"""Stopping machines where that saves money, and starting them again."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from decimal import Decimal

import pexpect
import pytest

from gpucloud.model import utcnow
from gpucloud.store import Store
from gpucloud_local import api
from gpucloud_sim.market import ADDRESS_USD_PER_HOUR, DISK_USD_PER_HOUR
from tests.harness.cli import Cli
from tests.harness.waiting import eventually

BESIDE = DISK_USD_PER_HOUR + ADDRESS_USD_PER_HOUR


def launch(cli: Cli, *words: str, name: str = "x") -> None:
    cli.ok("launch", "--name", name, "--yes", "--provider", "sim:boot=0s", *words)


def machines(cli: Cli) -> list[api.Machine]:
    return list(api.machines(cli.data / "providers" / "sim" / "instances"))


def stopped(cli: Cli) -> list[bool]:
    """Of each machine at the provider whether it is stopped."""
    return [machine.halted for machine in machines(cli)]


def state(cli: Cli, name: str = "x") -> str:
    (found,) = [c for c in cli.ok("ps", "--json").json["clusters"] if c["name"] == name]
    return str(found["state"])


def next_hour(cli: Cli) -> Decimal:
    """What the cluster costs in the next hour by the books."""
    store, now = Store(cli.data), utcnow()
    cluster = store.clusters.get("x")
    assert cluster
    later, sooner = (store.ledger.cost(cluster.id, at) for at in (now + timedelta(hours=1), now))
    store.db.close()
    assert later is not None and sooner is not None
    return later - sooner


def trouble(cli: Cli, script: str) -> None:
    """Let the market go on by another script from now on."""
    file = cli.data / "providers" / "sim" / "market.json"
    market = json.loads(file.read_text())
    file.write_text(json.dumps({**market, "script": script, "counts": {}}))


def test_what_is_stopped_keeps_its_files_and_costs_less(cli: Cli) -> None:
    (cli.project / "data").write_text("mine")
    launch(cli)
    full = next_hour(cli)
    done = cli.ok("stop", "x", "--yes", "--json")
    assert stopped(cli) == [True]
    assert next_hour(cli) == DISK_USD_PER_HOUR < full
    assert (done.json["schema"], done.json["clusters"][0]["state"]) == ("gpucloud.stop/1", "stopped")
    assert "x is stopped, confirmed" in done.err
    assert f"bills on ${BESIDE:.4f}/h" in done.err

    again = cli.ok("start", "x", "--yes", "--json")
    assert (again.json["schema"], again.json["clusters"][0]["state"]) == ("gpucloud.start/1", "ready")
    assert next_hour(cli) == full
    assert cli.ok("exec", "x", "--", "cat", "data").out == "mine"
    cli.ok("down", "x", "--yes")


def test_the_plan_says_what_is_saved_and_what_bills_on(cli: Cli) -> None:
    launch(cli, "--no-push")
    price = Decimal(machines(cli)[0].spec.usd_per_hour)
    done = cli.ok("stop", "x", "--dry-run", "--json")
    assert f"saves ${price - BESIDE:.4f}/h of ${price:.4f}/h" in done.err
    assert f"goes on billing ${BESIDE:.4f}/h: disk $0.0100/h, address $0.0050/h" in done.err
    assert "The GPU is no longer billed. The disk bills on" in done.err
    assert "its lease goes on" in done.err
    (plan,) = done.json["plans"]
    assert plan["saved_usd_per_hour"] == f"{price - BESIDE}"
    assert [each["kind"] for each in plan["bills_on"]] == ["disk", "address"]
    assert (done.json["dry_run"], stopped(cli), state(cli)) == (True, [False], "ready")
    cli.ok("down", "x", "--yes")


def test_a_dry_run_of_start_tells_the_price_and_the_end(cli: Cli) -> None:
    launch(cli, "--no-push", "--max-duration", "2h")
    cli.ok("stop", "x", "--yes")
    done = cli.ok("start", "x", "--dry-run", "--json")
    price = Decimal(machines(cli)[0].spec.usd_per_hour)
    (plan,) = done.json["plans"]
    assert (plan["usd_per_hour"], plan["name"]) == (f"{price}", "x")
    assert price < Decimal(plan["worst_cost"]) <= 2 * price
    assert plan["expires_at"] == done.json["clusters"][0]["nodes"][0]["expires_at"]
    assert f"start x: ${price:.4f}/h until " in done.err
    assert (stopped(cli), state(cli)) == ([True], "stopped")
    cli.ok("down", "x", "--yes")


def test_without_consent_nothing_is_done(cli: Cli) -> None:
    launch(cli, "--no-push")
    done = cli("stop", "x")
    assert (done.code, stopped(cli)) == (2, [False])
    assert "add --yes" in done.err
    cli.ok("stop", "x", "--yes")
    assert (cli("start", "x").code, stopped(cli)) == (2, [True])
    cli.ok("down", "x", "--yes")


def test_a_provider_that_cannot_stop_says_what_to_do_instead(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push")
    done = cli("stop", "x", "--yes", "--json")
    assert (done.code, done.json["name"], done.json["hint"]) == (2, "unsupported", "gpucloud down x")
    assert done.json["message"] == "x cannot be stopped"
    assert "until then it bills" in done.json["why"]


def test_a_job_is_ended_only_when_it_is_named(cli: Cli) -> None:
    launch(cli, "--output", "result")
    job = cli.ok("launch", "--name", "x", "--yes", "--output", "part", "--", "echo some >part; sleep 1000")
    name = job.out.strip()
    eventually(lambda: cli("exec", "x", "--", "test -s part").code == 0)
    refused = cli("stop", "x", "--yes")
    assert (refused.code, stopped(cli)) == (2, [False])
    assert f"--cancel {name}" in refused.err
    done = cli.ok("stop", "x", "--yes", "--cancel", name)
    assert f"ends {name}" in done.err
    assert stopped(cli) == [True]
    assert (cli.project / "part").read_text() == "some\n"
    assert [j["state"] for j in cli.ok("jobs", "--json").json["jobs"]] == ["cancelled"]
    cli.ok("down", "x", "--yes")


@pytest.mark.parametrize("answer", ["n", "y"])
def test_a_question_at_a_terminal_names_the_job(cli: Cli, answer: str) -> None:
    launch(cli, "--", "sleep 1000")
    (job,) = cli.ok("jobs", "--json").json["jobs"]
    person = pexpect.spawn(
        sys.executable,
        ["-m", "gpucloud", "stop", "x"],
        cwd=str(cli.project),
        env=dict(cli.environ),
        encoding="utf-8",
        timeout=60,
    )
    person.expect_exact(f"Stop it, and end {job['id']}? [y/N] ")
    person.sendline(answer)
    person.read()
    person.close()
    assert (person.exitstatus, stopped(cli)) == ((0, [True]) if answer == "y" else (2, [False]))
    cli.ok("down", "x", "--yes")


def test_a_job_that_is_over_does_not_stand_in_the_way(cli: Cli) -> None:
    launch(cli, "--output", "result", "--", "echo done >result")
    cli.ok("logs", "-f", "x")
    cli.ok("stop", "x", "--yes")
    assert (cli.project / "result").read_text() == "done\n"
    cli.ok("down", "x", "--yes")


def test_a_machine_whose_outputs_are_not_home_goes_on(cli: Cli) -> None:
    launch(cli, "--output", "never", "--", "true")
    cli.ok("logs", "-f", "x")
    done = cli("stop", "x", "--yes")
    assert (done.code, stopped(cli), state(cli)) == (86, [False], "ready")
    cli.ok("down", "x", "--yes", "--discard-outputs")


def test_again_is_the_same(cli: Cli) -> None:
    launch(cli, "--no-push", "--nodes", "2")
    for _ in range(2):
        cli.ok("stop", "x", "--yes")
        assert (stopped(cli), state(cli)) == ([True, True], "stopped")
    for _ in range(2):
        cli.ok("start", "x", "--yes")
        assert (stopped(cli), state(cli)) == ([False, False], "ready")
    assert len(cli.ok("exec", "--all", "--json", "x", "--", "true").json["nodes"]) == 2
    cli.ok("down", "x", "--yes")


@pytest.mark.parametrize("faults", ["api500=3", "throttle=4", "nolist=3"])
def test_a_troubled_provider_stops_and_starts_all_the_same(cli: Cli, faults: str) -> None:
    launch(cli, "--no-push")
    trouble(cli, faults)
    cli.ok("stop", "x", "--yes")
    assert (stopped(cli), next_hour(cli)) == ([True], DISK_USD_PER_HOUR)
    trouble(cli, faults)
    cli.ok("start", "x", "--yes")
    assert (stopped(cli), state(cli)) == ([False], "ready")
    cli.ok("down", "x", "--yes")


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_several_at_once_wait_or_are_told_to(cli: Cli, verb: str) -> None:
    launch(cli, "--no-push")
    if verb == "start":
        cli.ok("stop", "x", "--yes")
    racers = [cli.start(verb, "x", "--yes") for _ in range(4)]
    errors = [racer.communicate()[1] for racer in racers]
    codes = {racer.returncode for racer in racers}
    assert 0 in codes
    assert codes <= {0, 75}, errors
    assert stopped(cli) == [verb == "stop"]
    assert next_hour(cli) == (
        DISK_USD_PER_HOUR if verb == "stop" else Decimal(machines(cli)[0].spec.usd_per_hour)
    )
    cli.ok("down", "x", "--yes")


def test_a_stop_while_another_is_at_work_is_told_to_come_back(cli: Cli) -> None:
    launch(cli, "--no-push")
    store = Store(cli.data)
    with store.db.lock("cluster-x"):
        done = cli("stop", "x", "--yes")
        assert (done.code, stopped(cli)) == (75, [False])
    store.db.close()
    cli.ok("down", "x", "--yes")


def test_a_stopped_machine_leaves_room_under_a_cap_that_its_start_needs(cli: Cli) -> None:
    env = {"GPUCLOUD_BUDGET_DAY": "2"}
    words = ("launch", "--no-push", "--yes", "--provider", "sim:boot=0s", "--max-duration", "20h")
    cli.ok(*words, "--name", "x", env=env)
    assert cli(*words, "--name", "y", env=env).code == 83
    cli.ok("stop", "x", "--yes", env=env)
    cli.ok(*words, "--name", "y", env=env)
    refused = cli("start", "x", "--yes", env=env)
    assert (refused.code, state(cli), next_hour(cli)) == (83, "stopped", DISK_USD_PER_HOUR)
    cli.ok("down", "y", "--yes", env=env)
    cli.ok("start", "x", "--yes", env=env)
    cli.ok("down", "x", "--yes")


def test_a_lease_that_is_over_is_not_started_again(cli: Cli) -> None:
    launch(cli, "--no-push", "--max-duration", "12s")
    cli.ok("stop", "x", "--yes")
    eventually(lambda: cli("start", "x", "--dry-run").code == 83)
    done = cli("start", "x", "--yes")
    assert done.code == 83
    assert "gpucloud extend x 2h" in done.err
    cli.ok("down", "x", "--yes")


def test_a_stopped_machine_goes_down_like_any_other(cli: Cli) -> None:
    launch(cli, "--no-push")
    cli.ok("stop", "x", "--yes")
    assert [f["kind"] for f in cli.ok("fsck", "--json").json["findings"]] == ["running"]
    cli.ok("down", "x", "--yes")
    assert [machine for machine in machines(cli) if not machine.ended] == []
    assert cli.ok("ps").out == ""
    assert cli.ok("fsck", "--json").json["findings"] == []
