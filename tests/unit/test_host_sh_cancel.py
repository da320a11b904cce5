"""Ending a job, and what becomes of one whose processes were killed by somebody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.harness.host_sh import Facts, HostSh, facts, scripts
from tests.harness.waiting import eventually

WAIT = "until [ -e go ]; do sleep 0.05; done\n"
FOREVER = "while :; do sleep 0.05; done\n"


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.init()
    return host_sh


def cancel(host: HostSh, job: str, grace_s: int = 30) -> Facts:
    return facts(host.run("cancel", job, str(grace_s)))


def started(host: HostSh, run: str, setup: str | None = None) -> None:
    """Start a job and return when its script has made the file ``up``."""
    host.start("j", run, setup=setup)
    eventually((host.work / "up").exists)


def of_job(host: HostSh) -> list[int]:
    """What runs of the job itself, in the session that its leader began."""
    leader = host.pid("j")
    return [pid for pid in host.processes() if session(pid) == leader]


def session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def test_a_job_is_told_to_end_and_may_say_how_it_ended(host: HostSh) -> None:
    started(host, f"trap 'echo bye; exit 7' TERM\ntouch up\n{FOREVER}")
    ended = cancel(host, "j")
    assert (ended["state"], ended["exit"], ended["cancelled"]) == ("ended", "7", "yes")
    assert host.log("j").endswith(b"bye\n")
    assert host.status("j") == ended


def test_a_job_that_does_not_listen_is_killed(host: HostSh) -> None:
    started(host, f"trap '' TERM\ntouch up\n{FOREVER}")
    processes = of_job(host)
    ended = cancel(host, "j", 1)
    assert (ended["state"], ended["exit"], ended["cancelled"]) == ("ended", "137", "yes")
    assert processes and not set(processes) & set(host.processes())


def test_all_that_a_job_has_started_ends_with_it(host: HostSh) -> None:
    tree = f"sh -c 'sleep 1000 & trap \"\" TERM; touch up; {FOREVER.strip()}' &\nsleep 1000 &\nwait\n"
    started(host, tree)
    assert len(of_job(host)) >= 5
    assert cancel(host, "j", 1)["state"] == "ended"
    assert of_job(host) == []


def test_what_a_script_has_started_may_save_its_work_though_the_script_is_gone(host: HostSh) -> None:
    # The usual job: the script dies of SIGTERM at once, and the training below it writes a checkpoint.
    training = f"trap 'sleep 0.5; echo saved >saved; exit' TERM\ntouch up\n{FOREVER}"
    (host.work / "train.sh").write_text(training)
    started(host, "sh train.sh\necho not reached >on\n")
    ended = cancel(host, "j")
    assert (host.work / "saved").exists()
    assert (ended["state"], ended["cancelled"]) == ("ended", "yes")
    assert ended["exit"] != "0"
    assert not (host.work / "on").exists()


def test_a_job_that_is_cancelled_during_setup_never_runs(host: HostSh) -> None:
    started(host, "touch ran\n", setup=f"touch up\n{FOREVER}")
    ended = cancel(host, "j")
    assert (ended["state"], ended["phase"], ended["exit"]) == ("ended", "setup", "143")
    assert not (host.work / "ran").exists()


def test_a_setup_that_ends_well_though_it_was_cancelled_is_not_followed_by_the_run(host: HostSh) -> None:
    started(host, "touch ran\n", setup=f"trap 'exit 0' TERM\ntouch up\n{FOREVER}")
    ended = cancel(host, "j")
    assert (ended["state"], ended["exit"], ended["cancelled"]) == ("ended", "143", "yes")
    assert not (host.work / "ran").exists()


@pytest.mark.parametrize("setup", [None, "true\n"])
def test_no_moment_of_a_start_is_one_in_which_a_cancel_goes_unnoticed(
    host: HostSh, setup: str | None
) -> None:
    for n in range(5):
        host.start(f"j{n}", "sleep 1000\n", setup=setup)
        # It ends by SIGTERM, or does not even begin; after SIGKILL the status would be another one.
        ended = cancel(host, f"j{n}")
        assert (ended["state"], ended["exit"], ended["cancelled"]) == ("ended", "143", "yes")


def test_a_cancel_before_the_job_has_a_process_keeps_it_from_running(host: HostSh) -> None:
    # What starts a session for the job is held up, so that nothing can be signalled yet.
    gate = f"until [ ! -e '{host.home}/hold' ]; do sleep 0.05; done\n"
    real = host.real("setsid")
    host.tool("setsid", f'case "$*" in *perform*) {gate};; esac\nexec {real} "$@"\n')
    (host.home / "hold").touch()
    host.start("j", "touch ran\n")
    with host.popen("cancel", "j", "30") as canceller:
        eventually((host.root / "jobs" / "j" / "cancelled").exists)
        assert host.status("j")["state"] == "going"
        (host.home / "hold").unlink()
        ended = canceller.communicate(timeout=60)[0]
    assert b"state=ended\nphase=run\nexit=143\n" in ended
    assert not (host.work / "ran").exists()


def test_to_cancel_what_is_over_changes_nothing(host: HostSh) -> None:
    ended = host.finish("j", "sleep 1000 &\nexit 3\n")
    left = of_job(host)
    assert cancel(host, "j") == ended
    assert "cancelled" not in ended
    assert left and of_job(host) == left


def test_two_cancels_at_once_do_what_one_does(host: HostSh) -> None:
    started(host, f"trap 'echo bye; exit 7' TERM\ntouch up\n{FOREVER}")
    both = [host.popen("cancel", "j", "30") for _ in range(2)]
    answers = [one.communicate(timeout=60)[0] for one in both]
    assert answers[0] == answers[1]
    assert b"exit=7\n" in answers[0]


def test_one_that_comes_late_to_the_same_end_leaves_the_mark_of_the_first(host: HostSh) -> None:
    # It saw the job going, and was held up until the job had ended by the first one's signal.
    ended = host.finish("j", "exit 7\n")
    job = host.root / "jobs" / "j"
    (job / "cancelled").touch()
    host.call("mark", str(job), "cancelled")
    assert host.status("j") == ended | {"cancelled": "yes"}
    (job / "cancelled").unlink()
    host.call("mark", str(job), "cancelled")
    assert host.status("j") == ended


def test_a_job_goes_on_without_its_supervisor_and_is_lost_when_it_ends(host: HostSh) -> None:
    started(host, f"touch up\n{WAIT}echo done\n")
    os.kill(host.pid("j", "supervisor"), signal.SIGKILL)
    assert host.status("j")["state"] == "going"
    (host.work / "go").touch()
    lost = host.ended("j")
    assert lost == {"state": "lost", "started": lost["started"], "bytes": "5"}
    assert host.run("read", "j", "0").stdout == b"done\n"
    assert cancel(host, "j") == lost


def test_a_job_without_its_supervisor_can_be_cancelled(host: HostSh) -> None:
    started(host, f"touch up\n{FOREVER}")
    os.kill(host.pid("j", "supervisor"), signal.SIGKILL)
    ended = cancel(host, "j")
    assert (ended["state"], ended["cancelled"]) == ("lost", "yes")
    assert of_job(host) == []


def test_a_job_all_of_which_was_killed_by_somebody_has_ended_with_137(host: HostSh) -> None:
    started(host, f"touch up\n{FOREVER}")
    os.killpg(host.pid("j"), signal.SIGKILL)
    ended = host.ended("j")
    assert (ended["state"], ended["exit"]) == ("ended", "137")
    assert "cancelled" not in ended


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process group of somebody else."""
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("over", [True, False])
def test_a_number_that_means_another_process_by_now_is_left_alone(
    host: HostSh, stranger: subprocess.Popen[bytes], over: bool
) -> None:
    # As after a reboot, which takes the processes and gives their numbers to others.
    host.start("j", "exit 4\n" if over else f"touch up\n{FOREVER}")
    if over:
        host.ended("j")
        eventually(lambda: host.pid("j", "supervisor") not in host.processes())
    else:
        eventually((host.work / "up").exists)
        os.kill(host.pid("j", "supervisor"), signal.SIGKILL)
        os.killpg(host.pid("j"), signal.SIGKILL)
    for file in ("supervisor", "pid"):
        begun = (host.root / "jobs" / "j" / file).read_text().split()[1]
        (host.root / "jobs" / "j" / file).write_text(f"{stranger.pid} {begun}\n")
    assert host.status("j")["state"] == ("ended" if over else "lost")
    cancel(host, "j", 0)
    host.run("clean")
    assert stranger.poll() is None


def test_the_dead_that_nobody_collects_hold_up_no_end(host: HostSh) -> None:
    # In containers process 1 is often one that collects no children; here this subreaper is.
    reaper = (
        "import ctypes, subprocess, sys\n"
        "assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n"
        "job = subprocess.run(sys.argv[2:], stdin=open(sys.argv[1]), stdout=subprocess.DEVNULL)\n"
        "print(job.returncode, flush=True)\n"
        "sys.stdin.read()\n"
    )
    tar = host.folder / "job.tar"
    tar.write_bytes(scripts(f"sleep 1000 &\ntouch up\n{FOREVER}"))
    with subprocess.Popen(
        [sys.executable, "-c", reaper, str(tar), *map(os.fsdecode, host.command("start", "j"))],
        env=host.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as init:
        assert init.stdout
        assert init.stdout.readline() == b"0\n"
        eventually((host.work / "up").exists)
        ended = cancel(host, "j")
        assert (ended["state"], ended["cancelled"]) == ("ended", "yes")
        init.kill()
