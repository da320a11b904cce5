"""When everything on a host must end: the lease, an announced interruption, and the clock."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.host_sh import HostSh
from tests.harness.waiting import eventually

WAIT = "until [ -e go ]; do sleep 0.05; done\n"
FOREVER = "while :; do sleep 0.05; done\n"


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.install(grace_s=1)
    host_sh.init()
    return host_sh


def started(host: HostSh, run: str, setup: str | None = None) -> None:
    host.start("j", run, setup=setup)
    eventually((host.work / "up").exists)


def some_beats(host: HostSh) -> None:
    """Return when the watch has looked around several times."""
    beats = host.home / "beats"
    beats.unlink(missing_ok=True)
    host.tool("nvidia-smi", f"echo >>'{beats}'\nexit 1\n")
    eventually(lambda: beats.exists() and len(beats.read_text()) >= 4)


def kill_watch(host: HostSh) -> None:
    os.killpg(int((host.root / "watch.pid").read_text().split()[0]), signal.SIGKILL)
    eventually(lambda: not host.processes("watch"))


def group_of(pid: int) -> int | None:
    """The process group of a process, if it has not ended meanwhile."""
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def test_when_the_lease_is_over_a_job_is_told_to_end(host: HostSh) -> None:
    started(host, f"trap 'echo saved >saved; exit 7' TERM\ntouch up\n{FOREVER}")
    host.run("lease", "1")
    ended = host.ended("j")
    assert (ended["state"], ended["exit"], ended["expired"]) == ("ended", "7", "yes")
    assert (host.work / "saved").exists()


def test_a_job_that_does_not_listen_is_killed_when_the_lease_is_over(host: HostSh) -> None:
    started(host, f"sh -c \"trap '' TERM; touch up; {FOREVER.strip()}\" &\ntrap '' TERM\n{FOREVER}")
    leader = host.pid("j")
    host.run("lease", "0")
    ended = host.ended("j")
    assert (ended["state"], ended["exit"], ended["expired"]) == ("ended", "137", "yes")
    assert leader not in map(group_of, host.processes())


def test_a_lease_that_lasts_does_no_harm(host: HostSh) -> None:
    host.start("j", WAIT)
    host.run("lease", "3600")
    some_beats(host)
    (host.work / "go").touch()
    ended = host.ended("j")
    assert (ended["exit"], "expired" in ended) == ("0", False)


def test_a_lease_can_be_taken_away_and_given_again(host: HostSh) -> None:
    host.start("j", WAIT)
    host.run("lease", "2")
    host.run("lease", "none")
    host.run("lease", "none")
    some_beats(host)
    assert host.status("j")["state"] == "going"
    host.run("lease", "0")
    assert host.ended("j")["expired"] == "yes"


def test_a_setup_that_the_lease_ends_is_not_followed_by_the_run(host: HostSh) -> None:
    started(host, "touch ran\n", setup=f"trap 'exit 0' TERM\ntouch up\n{FOREVER}")
    host.run("lease", "0")
    ended = host.ended("j")
    assert (ended["state"], ended["exit"], ended["expired"]) == ("ended", "143", "yes")
    assert not (host.work / "ran").exists()


def test_a_job_that_comes_after_the_end_of_the_lease_does_not_run(host: HostSh) -> None:
    host.run("lease", "0")
    ended = host.finish("early", "touch ran\n")
    assert (ended["state"], ended["exit"], ended["expired"]) == ("ended", "143", "yes")
    some_beats(host)
    assert host.finish("late", "touch ran\n")["expired"] == "yes"
    assert not (host.work / "ran").exists()
    host.run("lease", "3600")
    assert host.finish("next", "exit 3\n")["exit"] == "3"


def test_what_is_to_be_done_at_the_end_is_done_when_the_jobs_are_over(host: HostSh) -> None:
    host.init(at_end='cp "$HOME"/.gpucloud/gc-1/jobs/j/exit "$HOME/over"')
    started(host, f"trap 'exit 7' TERM\ntouch up\n{FOREVER}")
    host.run("lease", "0")
    over = host.home / "over"
    eventually(over.exists)
    eventually(lambda: over.read_text().split()[:2] == ["run", "7"])
    eventually(lambda: not (host.root / "at-end").exists())
    over.unlink()
    some_beats(host)
    assert not over.exists()


def test_what_fails_at_the_end_is_tried_again(host: HostSh) -> None:
    tries = host.home / "tries"
    host.init(at_end=f"echo >>'{tries}'; [ \"$(wc -l <'{tries}')\" -ge 3 ]")
    host.run("lease", "0")
    eventually(lambda: not (host.root / "at-end").exists())
    assert tries.read_text() == "\n\n\n"


def set_time(host: HostSh, seconds: int) -> None:
    """Let ``date`` tell another time of day, from now on or changed."""
    offset = host.home / "offset"
    (host.home / "offset.new").write_text(str(seconds))
    (host.home / "offset.new").rename(offset)
    host.tool("date", f"echo $(($({host.real('date')} +%s) + $(cat '{offset}')))\n")


@pytest.mark.skipif(not Path("/proc/uptime").exists(), reason="there is no other clock to go by")
def test_a_clock_that_is_set_back_does_not_lengthen_the_lease(host: HostSh) -> None:
    set_time(host, 0)
    kill_watch(host)
    host.init()
    host.start("j", FOREVER)
    host.run("lease", "1")
    set_time(host, -86400)
    assert host.ended("j")["expired"] == "yes"


@pytest.mark.skipif(not Path("/proc/uptime").exists(), reason="there is no other clock to go by")
def test_a_clock_that_is_set_ahead_does_not_end_the_lease(host: HostSh) -> None:
    set_time(host, -86400)
    kill_watch(host)
    host.init()
    host.start("j", WAIT)
    host.run("lease", "3600")
    set_time(host, 0)
    some_beats(host)
    (host.work / "go").touch()
    assert host.ended("j")["exit"] == "0"


def test_a_lease_from_before_a_reboot_does_not_end_the_machine_again(host: HostSh) -> None:
    kill_watch(host)
    host.run("lease", "0")
    over = host.home / "over"
    host.init(at_end=f"touch '{over}'")
    some_beats(host)
    assert not over.exists()
    assert host.finish("j", "exit 3\n")["exit"] == "3"
    host.run("lease", "0")
    eventually(over.exists)


def test_tools_that_hang_do_not_keep_the_lease_from_ending(host: HostSh) -> None:
    host.tool("nvidia-smi", f"touch '{host.home}/asked'\nexec {host.real('sleep')} 1000\n")
    kill_watch(host)
    host.init(probe=f"touch '{host.home}/probed'; sleep 1000")
    eventually(lambda: (host.home / "asked").exists() and (host.home / "probed").exists())
    host.start("j", FOREVER)
    host.run("lease", "0")
    assert host.ended("j")["expired"] == "yes"


def test_an_announced_interruption_is_passed_on_to_the_job(host: HostSh) -> None:
    host.init(probe='[ -e "$HOME/taken back" ]')
    started(host, f"trap 'echo saved >saved; exit 7' TERM\ntouch up\n{FOREVER}")
    (host.home / "taken back").touch()
    ended = host.ended("j")
    assert (ended["state"], ended["exit"], ended["notice"]) == ("ended", "7", "yes")
    assert (host.work / "saved").exists()
    assert "expired" not in ended


def test_an_interrupted_job_is_over_only_when_it_has_saved_its_work(host: HostSh) -> None:
    host.init(probe='[ -e "$HOME/taken back" ]')
    training = (
        f"trap 'until [ -e go ]; do sleep 0.05; done; echo saved >saved; exit' TERM\ntouch up\n{FOREVER}"
    )
    (host.work / "train.sh").write_text(training)
    started(host, "sh train.sh\n")
    (host.home / "taken back").touch()
    eventually(lambda: "notice" in host.status("j"))
    some_beats(host)
    assert host.status("j")["state"] == "going"
    (host.work / "go").touch()
    assert host.ended("j")["notice"] == "yes"
    assert (host.work / "saved").exists()


def test_once_an_interruption_is_announced_nothing_more_begins(host: HostSh) -> None:
    host.init(probe='[ -e "$HOME/taken back" ]')
    started(host, "touch ran\n", setup=f"trap 'exit 0' TERM\ntouch up\n{FOREVER}")
    (host.home / "taken back").touch()
    ended = host.ended("j")
    assert (ended["state"], ended["exit"], ended["notice"]) == ("ended", "143", "yes")
    assert host.finish("late", "touch ran\n")["notice"] == "yes"
    assert not (host.work / "ran").exists()


def test_an_advice_to_leave_is_told_once_to_the_job_which_goes_on_until_the_notice(host: HostSh) -> None:
    host.init(probe='[ ! -e "$HOME/advised" ] || exit 3; [ -e "$HOME/taken back" ]')
    waiting = 'until [ -e "$GPUCLOUD_WARNING" ]; do sleep 0.05; done; touch warned\n'
    started(host, f"trap 'exit 7' TERM\ntouch up\n{waiting}{FOREVER}")
    (host.home / "advised").touch()
    eventually((host.work / "warned").exists)
    eventually(lambda: b"may soon take this machine back\n" in host.log("j"))
    some_beats(host)
    assert host.log("j").count(b"may soon take") == 1
    assert "notice" not in host.status("j")
    (host.home / "advised").rename(host.home / "taken back")
    ended = host.ended("j")
    assert (ended["exit"], ended["notice"]) == ("7", "yes")


def test_a_notice_from_before_a_reboot_is_forgotten(host: HostSh) -> None:
    host.init(probe='[ -e "$HOME/taken back" ]')
    (host.home / "taken back").touch()
    eventually((host.root / "notice").exists)
    host.init()
    assert (host.root / "notice").exists()
    kill_watch(host)
    (host.home / "taken back").unlink()
    host.init()
    assert not (host.root / "notice").exists()
    assert host.finish("j", "exit 3\n")["exit"] == "3"


def test_a_job_that_was_over_before_is_not_marked(host: HostSh) -> None:
    ended = host.finish("j", "exit 3\n")
    host.init(probe="true")
    eventually((host.root / "notice").exists)
    host.run("lease", "0")
    some_beats(host)
    assert host.status("j") == ended
