"""kill -9 at every step: nothing may bill that fsck does not explain, and nothing is rented twice."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.model import ClusterState, utcnow
from gpucloud.store import Store
from gpucloud_local import api
from gpucloud_sim.market import DISK_USD_PER_HOUR
from tests.harness.cli import Cli
from tests.harness.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
KILLED = -9
EVERY = int(os.environ.get("GPUCLOUD_CRASH_EVERY", "6"))
"""Which steps of the longest walks are taken; 1 takes all of them, and takes minutes."""


def kill_at(step: int, cli: Cli, *words: str) -> int:
    """Run a command, killed at a step; its exit status is ``KILLED`` unless it ended before."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.harness.killer", str(step), *words],
        cwd=ROOT,
        env={**cli.environ, "PWD": str(cli.project)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def rented(cli: Cli) -> set[str]:
    """The instances that bill at the provider, whatever the books say."""
    folder = cli.data / "providers" / "sim" / "instances"
    return {machine.spec.token for machine in api.machines(folder) if not machine.ended}


def running(cli: Cli) -> set[str]:
    """Those of them that have got as far as to run."""
    folder = cli.data / "providers" / "sim" / "instances"
    return {machine.spec.token for machine in api.machines(folder) if machine.alive}


def billed_per_hour(cli: Cli) -> Decimal:
    """What the sole instance bills at the provider once it has settled, whatever the books say."""
    folder = cli.data / "providers" / "sim" / "instances"

    def settled() -> list[api.Machine]:
        return [machine for machine in api.machines(folder) if machine.halted or not machine.stopped]

    (machine,) = eventually(settled)
    return DISK_USD_PER_HOUR if machine.halted else Decimal(machine.spec.usd_per_hour)


def booked_per_hour(cli: Cli) -> Decimal:
    """What the next hour costs by the books."""
    store, now = Store(cli.data), utcnow()
    cluster = store.clusters.get("x")
    assert cluster
    later, sooner = (store.ledger.cost(cluster.id, at) for at in (now + timedelta(hours=1), now))
    store.db.close()
    assert later is not None and sooner is not None
    return later - sooner


def launch_words(cli: Cli, script: str) -> list[str]:
    return [
        "launch", "--name", "x", "--provider", f"sim:{script}", "--workdir", str(cli.project), "--yes",
    ]  # fmt: skip


@pytest.mark.parametrize(("script", "first"), [("boot=0s", 1), ("lost-reply=1,slow-list=2", 3)])
def test_a_launch_killed_at_any_step_is_explained_and_can_be_taken_up(
    cli: Cli, script: str, first: int
) -> None:
    for step in range(first, 200, EVERY):
        code = kill_at(step, cli, *launch_words(cli, script))
        billing = rented(cli)
        assert len(billing) <= 1, f"step {step}: rented twice"

        report = cli("fsck", "--json")
        assert report.code == 0, f"step {step}: {report.out} {report.err}"
        found = {finding["token"] for finding in report.json["findings"] if finding["kind"] == "running"}
        assert found == billing, f"step {step}: fsck does not show what bills"
        assert not any(finding["unexplained"] for finding in report.json["findings"])

        cli.ok(*launch_words(cli, script))
        assert len(rented(cli)) == 1, f"step {step}: the second launch rented again"
        assert billing <= rented(cli), f"step {step}: the second launch left the first machine behind"

        cli.ok("down", "x", "--yes")
        assert not rented(cli)
        assert cli.ok("ps").out == ""
        if code != KILLED:
            break
    assert code == 0
    assert step > 10, "the walk found hardly any steps to die at"


def test_a_teardown_killed_at_any_step_is_finished_by_fsck(cli: Cli) -> None:
    for step in range(1, 200, EVERY):
        cli.ok(*launch_words(cli, "stuck=1"))
        code = kill_at(step, cli, "down", "x", "--yes")
        billing = rented(cli)

        report = cli("fsck", "--json")
        explained = {finding["token"] for finding in report.json["findings"]}
        assert billing <= explained, f"step {step}: fsck does not show what bills"
        assert report.code == (6 if any(f["unexplained"] for f in report.json["findings"]) else 0)

        cli("fsck", "--fix", "--yes")
        cli("down", "x", "--yes")
        assert not rented(cli), f"step {step}"
        assert cli.ok("ps").out == ""
        if code != KILLED:
            break
    assert code == 0
    assert step > 5, "the walk found hardly any steps to die at"


def test_a_stop_or_start_killed_at_any_step_is_explained_and_finished_by_the_next(cli: Cli) -> None:
    cli.ok(*launch_words(cli, "boot=0s"))
    (token,) = rented(cli)
    for step in range(1, 200, EVERY):
        codes: dict[str, int] = {}
        for verb in ("stop", "start"):
            where = f"{verb}, step {step}"
            codes[verb] = kill_at(step, cli, verb, "x", "--yes")
            assert billed_per_hour(cli) <= booked_per_hour(cli), f"{where}: more bills than the books know"

            report = cli("fsck", "--json")
            assert report.code == 0, f"{where}: {report.out} {report.err}"
            assert [finding["token"] for finding in report.json["findings"]] == [token]
            assert booked_per_hour(cli) == billed_per_hour(cli), f"{where}: fsck left the wrong price"

            cli.ok(verb, "x", "--yes")
            assert rented(cli) == {token}
            assert (billed_per_hour(cli) == DISK_USD_PER_HOUR) == (verb == "stop"), where
            assert booked_per_hour(cli) == billed_per_hour(cli), f"{where}: it was not booked"
        if KILLED not in codes.values():
            break
    assert set(codes.values()) == {0}
    assert step > 10, "the walk found hardly any steps to die at"
    cli.ok("down", "x", "--yes")
    assert not rented(cli)


def test_a_machine_that_was_being_given_up_when_its_launch_was_killed_is_not_taken_up(cli: Cli) -> None:
    cli.ok(*launch_words(cli, "boot=0s"))
    (given_up,) = rented(cli)
    store = Store(cli.data)
    cluster = store.clusters.get("x")
    assert cluster
    # What is on disk between the two writes of a launch that drops a machine.
    store.clusters.update(cluster.id, ClusterState.LAUNCHING)
    store.journal.ending(given_up, "it could not be used")

    cli.ok(*launch_words(cli, "boot=0s"))
    assert len(rented(cli)) == 1
    assert given_up not in rented(cli)
    cli.ok("down", "x", "--yes")


def test_a_launch_killed_while_it_waits_for_ssh_is_taken_up(cli: Cli) -> None:
    process = cli.start(*launch_words(cli, "boot=2s"))
    before = eventually(lambda: running(cli))
    process.kill()
    process.communicate()
    assert cli.ok("fsck", "--json").json["findings"][0]["token"] in before
    cli.ok(*launch_words(cli, "boot=2s"))
    assert rented(cli) == before
    cli.ok("down", "x", "--yes")
