"""Taking a machine: the folders, the watch that runs there, and what the host needs for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys

import pytest

from tests.harness.host_sh import HostSh, facts
from tests.harness.waiting import eventually


def watches(host_sh: HostSh) -> list[int]:
    """The leaders of all watches of this host; the loops of each have the same arguments."""
    leaders = []
    for pid in host_sh.processes("watch"):
        # One may end while it is looked at.
        with contextlib.suppress(ProcessLookupError):
            leaders += [pid] if os.getsid(pid) == pid else []
    return leaders


def watch_pid(host_sh: HostSh) -> int:
    return int((host_sh.root / "watch.pid").read_text().split()[0])


def end_watch(host_sh: HostSh) -> None:
    os.killpg(watch_pid(host_sh), signal.SIGKILL)
    eventually(lambda: not host_sh.processes("watch"))


def keep_only(host_sh: HostSh, tool: str) -> None:
    """Leave one of the tools that can start a session, if this machine has it."""
    found = sys.executable if tool == "python3" else shutil.which(tool)
    host_sh.lose_tools("setsid", "perl", "python3")
    if tool == "setsid" and host_sh.userland == "busybox":
        found = shutil.which("busybox")
    if not found:
        pytest.skip(f"no {tool} on this machine")
    (host_sh.bin / tool).symlink_to(found)


def test_it_says_where_it_lives_and_which_protocol_it_speaks(host_sh: HostSh) -> None:
    assert facts(host_sh.init()) == {"protocol": "1", "root": str(host_sh.root)}


def test_nobody_else_can_look_into_what_it_makes(host_sh: HostSh) -> None:
    (host_sh.root / "host.sh").chmod(0o600)
    command = host_sh.command("init", "1", "me", "false", "true")
    subprocess.run(command, env=host_sh.env, check=True, stdout=subprocess.DEVNULL, umask=0)
    made = list(host_sh.root.rglob("*"))
    assert {path.name for path in made} == {
        *("host.sh", "claim", "notice-probe", "at-end", "watch.pid", "busy", "over"),
        *("jobs", "work", "sent"),
    }
    for path in made:
        assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_taking_it_again_changes_nothing(host_sh: HostSh) -> None:
    first = host_sh.init(slots=1)
    watch = watches(host_sh)
    (host_sh.work / "result").write_text("kept")
    again = host_sh.init(slots=1)
    assert again.stdout == first.stdout
    assert watches(host_sh) == watch == [watch_pid(host_sh)]
    assert (host_sh.work / "result").read_text() == "kept"


def test_of_many_that_take_it_at_once_one_watch_remains(host_sh: HostSh) -> None:
    takers = [host_sh.popen("init", "0", "me", "", "") for _ in range(8)]
    for taker in takers:
        assert taker.communicate(timeout=30)[1] == b""
        assert taker.returncode == 0
    eventually(lambda: len(watches(host_sh)) <= 1)
    assert eventually(lambda: watches(host_sh) == [watch_pid(host_sh)])


def test_a_watch_that_was_killed_is_started_again(host_sh: HostSh) -> None:
    host_sh.init()
    end_watch(host_sh)
    host_sh.init()
    assert eventually(lambda: watches(host_sh) == [watch_pid(host_sh)])


def test_a_stranger_with_the_number_of_the_old_watch_is_no_watch(host_sh: HostSh) -> None:
    host_sh.init()
    end_watch(host_sh)
    (host_sh.root / "watch.pid").write_text(f"{os.getpid()} 1\n")
    host_sh.init()
    assert eventually(lambda: watches(host_sh) == [watch_pid(host_sh)])


def test_the_watch_ends_when_its_folder_is_gone(host_sh: HostSh) -> None:
    host_sh.init()
    shutil.rmtree(host_sh.root)
    eventually(lambda: not watches(host_sh))


def test_a_probe_that_is_replaced_is_never_seen_in_part(host_sh: HostSh) -> None:
    host_sh.init(probe="false # the first")
    with (host_sh.root / "notice-probe").open() as old:
        host_sh.init(probe="false # the second")
        assert old.read() == "false # the first\n"
    assert (host_sh.root / "notice-probe").read_text() == "false # the second\n"


@pytest.mark.parametrize("tool", ["setsid", "perl", "python3"])
def test_any_one_of_three_tools_is_enough_to_detach_a_job(host_sh: HostSh, tool: str) -> None:
    keep_only(host_sh, tool)
    host_sh.init()
    # What Python ignores, the job must not: many a pipe ends by SIGPIPE.
    host_sh.start("j", "sh -c 'kill -PIPE $$' || echo $?\necho ready\nuntil [ -e go ]; do sleep 0.05; done\n")
    eventually(lambda: b"ready" in host_sh.log("j"))
    assert os.getsid(host_sh.pid("j")) == host_sh.pid("j")
    (host_sh.work / "go").touch()
    assert host_sh.ended("j")["exit"] == "0"
    assert host_sh.log("j") == b"141\nready\n"


def test_without_such_a_tool_it_says_so_and_makes_nothing(host_sh: HostSh) -> None:
    host_sh.lose_tools("setsid", "perl", "python3")
    done = host_sh.run("init", "1", "me", "", "", status=1)
    assert b"neither setsid nor perl nor python3" in done.stderr
    assert sorted(path.name for path in host_sh.root.iterdir()) == ["host.sh"]


def test_without_tar_it_says_so_and_makes_nothing(host_sh: HostSh) -> None:
    host_sh.lose_tools("tar")
    done = host_sh.run("init", "1", "me", "", "", status=1)
    assert b"no tar" in done.stderr
    assert sorted(path.name for path in host_sh.root.iterdir()) == ["host.sh"]


def test_a_home_behind_a_symlink_is_one_and_the_same(host_sh: HostSh) -> None:
    alias = host_sh.folder / "alias"
    alias.symlink_to(host_sh.home)
    host_sh.init()
    script = str(alias / ".gpucloud" / host_sh.root.name / "host.sh")
    command = [*host_sh.command()[:1], script, "init", "0", "me", "", ""]
    done = subprocess.run(command, env=host_sh.env, check=True, capture_output=True)
    assert facts(done)["root"] == str(host_sh.root)
    assert eventually(lambda: watches(host_sh) == [watch_pid(host_sh)])
