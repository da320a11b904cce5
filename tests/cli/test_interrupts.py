"""Ctrl-C, closed terminals and dead clients: the job goes on, the log goes on, and a sentence says so."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.harness.cli import Cli
from tests.harness.waiting import eventually

COUNTING = (
    "i=0; while [ $i -lt 200 ] && [ ! -e stop ]; do i=$((i + 1)); echo line $i; sleep 0.05; done; echo over"
)


def read_until(file: Path, text: str) -> None:
    eventually(lambda: text in file.read_text())


def follow(cli: Cli, job: str, into: Path) -> subprocess.Popen[str]:
    with into.open("w") as out:
        return cli.start("logs", "-f", job, stdout=out, stderr=subprocess.STDOUT)


def test_ctrl_c_in_logs_detaches_and_the_job_goes_on(cli: Cli, tmp_path: Path) -> None:
    job = cli.ok("launch", "--name", "x", "--", COUNTING).out.strip()
    seen = tmp_path / "seen"
    follower = follow(cli, job, seen)
    read_until(seen, "line 3\n")
    follower.send_signal(signal.SIGINT)
    follower.wait()
    assert follower.returncode == 130
    assert f"{job} goes on: gpucloud logs -f {job}" in seen.read_text()
    assert cli.ok("jobs", "--json").json["jobs"][0]["state"] == "running"


def test_a_second_follower_has_every_byte_once(cli: Cli, tmp_path: Path) -> None:
    job = cli.ok("launch", "--name", "x", "--", COUNTING).out.strip()
    first = tmp_path / "first"
    follower = follow(cli, job, first)
    read_until(first, "line 5\n")
    # The terminal is closed: everything in its session dies at once.
    os.killpg(follower.pid, signal.SIGKILL)
    follower.wait()
    had = first.read_text()

    cli.ok("exec", "x", "--", "touch stop")
    whole = cli.ok("logs", "-f", job).out
    lines = whole.splitlines()
    assert lines[-1] == "over"
    assert lines[:-1] == [f"line {n}" for n in range(1, len(lines))]
    assert whole.startswith(had)
    copy = cli.data / "jobs" / job / "log.1"
    assert copy.read_text() == whole

    resumed = cli.ok("logs", "-f", job, "--offset", str(len(had))).out
    assert had + resumed == whole


def test_two_followers_at_once_both_have_all_of_it(cli: Cli, tmp_path: Path) -> None:
    job = cli.ok("launch", "--name", "x", "--", COUNTING).out.strip()
    seen = [tmp_path / "a", tmp_path / "b"]
    followers = [follow(cli, job, file) for file in seen]
    read_until(seen[0], "line 5\n")
    cli.ok("exec", "x", "--", "touch stop")
    for follower in followers:
        assert follower.wait() == 0
    assert seen[0].read_text() == seen[1].read_text() == cli.ok("logs", job).out


def test_ctrl_c_in_run_leaves_the_job_and_says_what_it_costs(cli: Cli, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with seen.open("w") as out:
        running = cli.start("run", "--name", "x", "--", COUNTING, stdout=out, stderr=subprocess.STDOUT)
    read_until(seen, "line 3\n")
    running.send_signal(signal.SIGINT)
    running.wait()
    assert running.returncode == 130
    assert "x goes on for $0.00/h: gpucloud logs -f x" in seen.read_text()
    assert cli.ok("ps", "--json").json["clusters"][0]["name"] == "x"

    again = cli("run", "--name", "x", "--", "true")
    assert again.code == 0
    assert cli.ok("ps").out == "", "the run that came later ends the machine that was made for a run"


def test_a_killed_run_leaves_its_machine_in_the_books_and_the_job_running(cli: Cli, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with seen.open("w") as out:
        running = cli.start("run", "--name", "x", "--", COUNTING, stdout=out, stderr=subprocess.STDOUT)
    read_until(seen, "line 3\n")
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert cli("fsck").code == 0
    cli.ok("exec", "x", "--", "touch stop")
    assert cli.ok("logs", "-f", "x").out.endswith("over\n")
    assert cli.ok("jobs", "--json").json["jobs"][0]["state"] == "succeeded"
    cli.ok("down", "x", "--yes")


def test_two_runs_of_one_name_do_not_meet(cli: Cli, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with seen.open("w") as out:
        running = cli.start("run", "--name", "x", "--", COUNTING, stdout=out, stderr=subprocess.STDOUT)
    read_until(seen, "line 1\n")
    assert cli("run", "--name", "x", "--", "true").code == 75
    cli.ok("exec", "x", "--", "touch stop")
    assert running.wait() == 0


def test_down_from_elsewhere_ends_a_run_with_a_clear_word(cli: Cli, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with seen.open("w") as out:
        running = cli.start("run", "--name", "x", "--", COUNTING, stdout=out, stderr=subprocess.STDOUT)
    read_until(seen, "line 3\n")
    cli.ok("down", "x", "--yes")
    running.wait()
    assert running.returncode in {87, 143}
    assert cli.ok("ps").out == ""
    assert cli.ok("jobs", "--json").json["jobs"][0]["state"] in {"cancelled", "interrupted"}


def test_ctrl_c_while_renting_says_what_is_rented_and_the_next_launch_takes_it_up(
    cli: Cli, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    words = ("launch", "--name", "x", "--no-push", "--yes", "--provider", "sim:boot=4s")
    with seen.open("w") as out:
        renting = cli.start(*words, stdout=out, stderr=subprocess.STDOUT)
    read_until(seen, "waiting for SSH")
    renting.send_signal(signal.SIGINT)
    assert renting.wait() == 130
    assert "gpucloud ps" in seen.read_text()
    token = cli.ok("ps", "--json").json["clusters"][0]["nodes"][0]["token"]
    cli.ok(*words)
    nodes = cli.ok("ps", "--json").json["clusters"][0]["nodes"]
    assert [node["token"] for node in nodes] == [token]
    cli.ok("down", "x", "--yes")
