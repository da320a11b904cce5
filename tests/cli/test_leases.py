"""When machines end: the limits of a launch, more time, and what a cron job ends."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gpucloud.model import ClusterState, utcnow
from gpucloud.store import Store
from gpucloud.store.rows import stamp
from gpucloud_local import api
from gpucloud_local.orders import expiry
from tests.harness.cli import Cli, Finished
from tests.harness.waiting import eventually

SIM = ("--provider", "sim:boot=0s", "--gpu", "H100", "--no-push", "--yes")


def launch(cli: Cli, *more: str, name: str = "x", provider: str = "sim:boot=0s") -> Finished:
    return cli("launch", "--name", name, *("--provider", provider, *SIM[2:]), *more)


def billing(cli: Cli) -> set[str]:
    folder = cli.data / "providers" / "sim" / "instances"
    return {machine.folder.name for machine in api.machines(folder) if not machine.ended}


def age(cli: Cli, by: timedelta) -> None:
    """Let everything have been rented earlier than it was."""
    with sqlite3.connect(cli.data / "gpucloud.db") as db:
        for row in db.execute("SELECT token, intended_at, expires_at FROM rentals").fetchall():
            times = [stamp(_moment(text) - by) for text in row[1:]]
            db.execute("UPDATE rentals SET intended_at = ?, expires_at = ? WHERE token = ?", (*times, row[0]))
        for row_id, at in db.execute("SELECT id, at FROM ledger").fetchall():
            ticks = by // timedelta(microseconds=1)
            earlier = (stamp(_moment(at) - by), ticks, row_id)
            db.execute("UPDATE ledger SET at = ?, ticks = ticks - ? WHERE id = ?", earlier)
        for row_id, at in db.execute("SELECT id, created_at FROM clusters").fetchall():
            db.execute("UPDATE clusters SET created_at = ? WHERE id = ?", (stamp(_moment(at) - by), row_id))
    db.close()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# -- limits -----------------------------------------------------------------------------------------


def test_a_launch_has_limits_that_nobody_asked_for(cli: Cli) -> None:
    done = launch(cli, "--json")
    assert done.code == 0, done.err
    (cluster,) = done.json["clusters"]
    assert cluster["max_cost"] == "100"
    assert cluster["nodes"][0]["expires_at"]
    assert float(cluster["held"]) > 50
    assert "ends after 1d at the latest" in done.err


def test_no_limit_must_be_said_aloud_and_is_told_aloud(cli: Cli) -> None:
    done = launch(cli, "--no-limit", "--json")
    assert done.code == 0, done.err
    assert "NO LIMIT" in done.err
    (cluster,) = done.json["clusters"]
    assert (cluster["max_cost"], cluster["nodes"][0]["expires_at"]) == (None, None)
    refused = launch(cli, "--no-limit", "--max-cost", "5", name="y")
    assert refused.code == 2
    assert "contradict" in refused.err


def test_no_limit_is_refused_under_a_budget(cli: Cli) -> None:
    done = cli("launch", "--name", "x", *SIM, "--no-limit", env={"GPUCLOUD_BUDGET_DAY": "1000"})
    assert done.code == 83
    assert not billing(cli)


def test_a_launch_that_was_cut_off_is_taken_up_under_the_cap_that_allowed_it(cli: Cli) -> None:
    cap = {"GPUCLOUD_BUDGET_DAY": "3"}
    process = cli.start(
        "launch", "--name", "x", "--provider", "sim:boot=2s", *SIM[2:], "--max-duration", "1h", env=cap
    )
    eventually(lambda: billing(cli))
    process.kill()
    process.communicate()
    before = billing(cli)
    done = cli("launch", "--name", "x", *SIM, "--max-duration", "1h", env=cap)
    assert done.code == 0, done.err
    assert billing(cli) == before


@pytest.mark.parametrize(("fuse", "code"), [("A", 83), ("b", 83), ("D", 0), ("E", 2)])
def test_what_ends_less_surely_than_asked_for_is_refused(cli: Cli, fuse: str, code: int) -> None:
    config = Path(cli.environ["XDG_CONFIG_HOME"]) / "gpucloud"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(
        "[providers.ssh.hosts.box]\naddress = '127.0.0.1'\nport = 1\nusd_per_hour = 1\n"
    )
    done = cli("launch", "--provider", "ssh", "--require-fuse", fuse, "--dry-run", "--json")
    assert done.code == code, done.err
    if code == 83:
        assert "ssh has D" in done.err


def test_a_dry_run_of_what_is_up_is_a_plan_to_rent_nothing(cli: Cli) -> None:
    cli.ok("launch", "--provider", "local", "--name", "x", "--no-push", "--yes")
    done = cli.ok("launch", "--provider", "local", "--name", "x", "--no-push", "--dry-run", "--json")
    assert (done.json["offers"], done.json["worst_cost"]) == ([], "0")
    assert "would be used again" in done.err


def test_a_dry_run_rents_nothing_and_is_refused_as_the_launch_would_be(cli: Cli) -> None:
    done = cli.ok("launch", "--name", "x", *SIM, "--dry-run", "--json")
    assert done.json["schema"] == "gpucloud.plan/1"
    assert float(done.json["worst_cost"]) > 50
    assert cli("run", *SIM, "--dry-run", "--", "true").code == 0
    assert cli("launch", *SIM, "--dry-run", env={"GPUCLOUD_BUDGET_LAUNCH": "1"}).code == 83
    assert not billing(cli)
    assert cli.ok("ps").out == ""


# -- prices and machines that are not what was agreed -------------------------------------------------


def test_a_machine_that_is_not_what_was_sold_is_ended_and_the_next_one_taken(cli: Cli) -> None:
    done = launch(cli, provider="sim:wronggpu=1")
    assert done.code == 0, done.err
    assert "found 1 x A10" in done.err
    assert len(billing(cli)) == 1
    cli.ok("check", "x")


def test_no_more_is_spent_on_bad_machines_than_was_allowed(cli: Cli) -> None:
    done = launch(cli, "--audition-budget", "0", provider="sim:wronggpu=9")
    assert done.code == 85
    assert "--audition-budget" in done.err
    assert not billing(cli)


def test_with_no_good_machine_left_the_launch_fails_and_nothing_bills(cli: Cli) -> None:
    assert launch(cli, provider="sim:wronggpu=9").code == 85
    assert not billing(cli)


def test_what_one_launch_made_twice_is_ended_at_once(cli: Cli) -> None:
    done = launch(cli, provider="sim:twice=1")
    assert done.code == 0, done.err
    assert len(billing(cli)) == 1
    assert cli("fsck").code == 0


# -- more time --------------------------------------------------------------------------------------


def test_more_time_moves_every_end_and_holds_more(cli: Cli) -> None:
    before = launch(cli, "--max-duration", "1h", "--json").json["clusters"][0]
    token = before["nodes"][0]["token"]
    after = cli.ok("extend", "x", "2h", "--yes", "--json").json["clusters"][0]
    longer = _moment(after["nodes"][0]["expires_at"]) - _moment(before["nodes"][0]["expires_at"])
    assert longer == timedelta(hours=2)
    assert float(after["held"]) == pytest.approx(3 * float(before["held"]), rel=0.01)
    folder = cli.data / "providers" / "sim" / "instances" / token
    machine = api.read(folder)
    until = expiry(folder, machine.spec)
    assert until is not None
    assert abs(until - _moment(after["nodes"][0]["expires_at"])) < timedelta(seconds=1)


def test_more_time_is_refused_beyond_a_cap_or_the_clusters_own_limit(cli: Cli) -> None:
    launch(cli, "--max-duration", "1h", "--max-cost", "3")
    done = cli("extend", "x", "2h", "--yes")
    assert done.code == 83
    assert "add --max-cost" in done.err
    assert cli("extend", "x", "2h", "--max-cost", "9", "--yes", env={"GPUCLOUD_BUDGET_DAY": "4"}).code == 83
    assert cli("extend", "x", "2h", "--max-cost", "9", "--dry-run").code == 0
    assert cli("extend", "x", "2h", "--max-cost", "9").code == 2, "nobody agreed"
    cli.ok("extend", "x", "2h", "--max-cost", "9", "--yes")


def test_what_has_no_end_cannot_be_extended(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--provider", "local", "--no-push")
    assert cli("extend", "x", "2h", "--yes").code == 2
    assert cli("extend", "nosuch", "2h", "--yes").code == 3
    assert cli("extend", "x", "soon", "--yes").code == 2


# -- reap -------------------------------------------------------------------------------------------


def test_without_books_there_is_nothing_to_reap_and_none_are_made(cli: Cli) -> None:
    assert cli.ok("reap", "--json").json["due"] == []
    assert not (cli.data / "gpucloud.db").exists()


def test_what_is_not_due_is_left_alone(cli: Cli) -> None:
    launch(cli)
    assert cli.ok("reap", "--json").json["due"] == []
    assert len(billing(cli)) == 1


def test_a_lease_that_is_over_is_ended_with_its_outputs_home(cli: Cli) -> None:
    (cli.project / "job.sh").write_text("echo kept > out.txt\n")
    words = ("launch", "--name", "x", "--provider", "sim:boot=0s", "--yes", "--max-duration", "1h")
    cli.ok(*words, "--output", "out.txt", "--", "sh job.sh")
    eventually(lambda: "succeeded" in cli("jobs").out)
    age(cli, timedelta(minutes=59))
    due = cli.ok("reap", "--dry-run", "--json").json["due"]
    assert due == [{"cluster": "x", "reason": "its lease is over"}]
    assert billing(cli)
    cli.ok("reap")
    assert not billing(cli)
    assert (cli.project / "out.txt").read_text() == "kept\n"
    assert cli.ok("reap").out == ""
    assert cli.ok("ps").out == ""


def test_what_has_cost_its_limit_is_ended(cli: Cli) -> None:
    launch(cli, "--max-duration", "40d", "--max-cost", "100")
    with sqlite3.connect(cli.data / "gpucloud.db") as db:
        db.execute("UPDATE clusters SET limits = json_set(limits, '$.max_cost', '0.000001')")
    db.close()
    done = cli.ok("reap", "--json")
    assert [each["reason"] for each in done.json["due"]] == ["it has cost its $0.000001"]
    assert not billing(cli)


def test_an_idle_machine_is_ended_and_a_busy_one_is_not(cli: Cli) -> None:
    launch(cli, "--idle", "1s", name="idle")
    cli.ok("launch", "--name", "busy", *SIM, "--idle", "1s", "--", "sleep 600")
    eventually(lambda: "idle" not in (cli.ok("reap").out and cli.ok("ps").out) or None)
    assert cli.ok("ps").out.startswith("busy\t")
    cli.ok("reap")
    assert cli.ok("ps").out.startswith("busy\t")
    cli.ok("down", "busy", "--yes")


def test_an_end_that_was_cut_off_is_finished(cli: Cli) -> None:
    launch(cli)
    store = Store(cli.data)
    cluster = store.clusters.get("x")
    assert cluster
    store.clusters.update(cluster.id, ClusterState.ENDING)
    assert [each["cluster"] for each in cli.ok("reap", "--json").json["due"]] == ["x"]
    assert not billing(cli)


def test_two_reapers_do_not_meet(cli: Cli) -> None:
    launch(cli)
    with Store(cli.data).db.lock("reap"):
        assert cli("reap").code == 75


def test_a_provider_that_does_not_end_it_makes_the_reaper_fail(cli: Cli) -> None:
    launch(cli, provider="sim:terminate500=999999", name="x")
    age(cli, timedelta(days=2))
    done = cli("reap", env={"GPUCLOUD_LAUNCH_END_TIMEOUT": "1s"})
    assert done.code == 88
    assert "may still be billing" in done.err


# -- down -------------------------------------------------------------------------------------------


def test_down_takes_patterns_and_ages_and_can_be_rehearsed(cli: Cli) -> None:
    for name in ("eval-1", "eval-2", "train"):
        launch(cli, name=name)
    assert cli("down", "nosuch-*", "--yes").code == 3
    rehearsed = cli.ok("down", "eval-*", "--dry-run")
    assert "down eval-1" in rehearsed.err
    assert "down train" not in rehearsed.err
    assert len(billing(cli)) == 3
    assert cli.ok("down", "--all", "--older-than", "1h", "--yes").err == ""
    cli.ok("down", "eval-*", "--yes")
    assert [row.split("\t")[0] for row in cli.ok("ps").out.splitlines()] == ["train"]
    age(cli, timedelta(hours=2))
    cli.ok("down", "--all", "--older-than", "1h", "--yes")
    assert not billing(cli)


def test_ps_tells_what_all_of_it_costs_an_hour(cli: Cli) -> None:
    launch(cli, name="a")
    launch(cli, "--project", "vision", "--tag", "team=blue", name="b")
    told = cli.ok("ps", "--json").json
    assert float(told["usd_per_hour"]) == sum(float(c["usd_per_hour"]) for c in told["clusters"]) > 5
    labels = {c["name"]: (c["project"], c["tags"]) for c in told["clusters"]}
    assert labels == {"a": (None, {}), "b": ("vision", {"team": "blue"})}
    assert utcnow() > _moment(told["clusters"][0]["created_at"])


def test_what_comes_home_is_charged_where_traffic_costs(cli: Cli) -> None:
    (cli.project / "job.sh").write_text("head -c 10485760 /dev/zero > out.bin\n")
    words = ("launch", "--name", "x", "--provider", "sim:boot=0s", "--yes", "--output", "out.bin")
    cli.ok(*words, "--", "sh job.sh")
    eventually(lambda: "succeeded" in cli("jobs").out)
    with sqlite3.connect(cli.data / "gpucloud.db") as db:
        db.execute("UPDATE rentals SET tariff = json_set(tariff, '$.egress_usd_per_gib', '0.09')")
    db.close()
    cli.ok("pull", "x")
    (line,) = cli.ok("cost", "--json").json["lines"]
    assert float(line["egress"]) == pytest.approx(10 / 1024 * 0.09, abs=1e-6)
