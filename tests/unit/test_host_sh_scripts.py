"""What the scripts of a job find when they run, and what their end means."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness.host_sh import HostSh
from tests.harness.waiting import eventually

WAIT = "until [ -e go ]; do sleep 0.05; done\n"
SECRET = "hunter2-correct-horse"


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.init()
    return host_sh


def files_with(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 143, 255])
def test_the_status_of_a_job_is_that_of_its_script(host: HostSh, status: int) -> None:
    ended = host.finish("j", f"exit {status}\n")
    assert (ended["state"], ended["phase"], ended["exit"]) == ("ended", "run", str(status))
    assert "cancelled" not in ended


@pytest.mark.parametrize(("name", "status"), [("KILL", "137"), ("SEGV", "139"), ("TERM", "143")])
def test_a_script_that_a_signal_ends_has_the_status_that_a_shell_would_see(
    host: HostSh, name: str, status: str
) -> None:
    assert host.finish("j", f"echo before\nkill -{name} $$\nsleep 1\necho after\n")["exit"] == status
    assert host.log("j") == b"before\n"


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_run_126(host: HostSh) -> None:
    (host.work / "data").write_text("no program")
    assert host.finish("missing", "no-such-command-anywhere\n")["exit"] == "127"
    assert host.finish("data", "./data\n")["exit"] == "126"
    assert b"no-such-command-anywhere" in host.log("missing")


def test_the_first_command_that_fails_ends_the_script(host: HostSh) -> None:
    assert host.finish("j", "echo before\n(exit 9)\necho after\n")["exit"] == "9"
    assert host.log("j") == b"before\n"


def test_a_failure_within_a_pipe_counts_where_there_is_bash(host: HostSh) -> None:
    ended = host.finish("j", "(exit 6) | cat\necho after\n")
    expected = ("0", b"after\n") if host.userland == "busybox" else ("6", b"")
    assert (ended["exit"], host.log("j")) == expected


def test_setup_comes_first_and_each_phase_is_told(host: HostSh) -> None:
    begun = host.start("j", f"echo run\n{WAIT}", setup="echo setup\nuntil [ -e on ]; do sleep 0.05; done\n")
    assert begun["phase"] == "setup"
    eventually(lambda: host.log("j") == b"setup\n")
    assert host.status("j")["phase"] == "setup"
    (host.work / "on").touch()
    eventually(lambda: host.log("j") == b"setup\nrun\n")
    assert host.status("j")["phase"] == "run"
    (host.work / "go").touch()
    ended = host.ended("j")
    assert (ended["phase"], ended["exit"]) == ("run", "0")


def test_when_setup_fails_the_job_ends_there(host: HostSh) -> None:
    ended = host.finish("j", "echo ran >ran\n", setup="echo trying\nfalse\necho on\n", env={"TOKEN": SECRET})
    assert (ended["state"], ended["phase"], ended["exit"]) == ("ended", "setup", "1")
    assert host.log("j") == b"trying\n"
    assert not (host.work / "ran").exists()
    assert files_with(host.root, SECRET) == []


def test_a_job_starts_in_the_working_directory(host: HostSh) -> None:
    host.finish("j", "pwd -P >run\n", setup="pwd -P >setup\n")
    assert (host.work / "setup").read_text() == (host.work / "run").read_text() == f"{host.work}\n"


def test_without_its_working_directory_a_job_fails_and_says_why(host: HostSh) -> None:
    host.work.rmdir()
    ended = host.finish("j", "true\n")
    assert (ended["state"], ended["exit"]) == ("ended", "125")
    assert b"work" in host.log("j")


@pytest.mark.parametrize(
    "value",
    [
        *("", " two  words ", "a'b\"c", "$(touch hacked)`touch hacked`", "back\\slash\\n", "*", "~"),
        *("line\nline", "trailing\n", "\u00fc\u00df\u65e5", "-n", "a=b", "\t", "x" * 100_000),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_variables_arrive_as_they_are(host: HostSh, value: str) -> None:
    host.finish("j", 'printf %s "$X" >run\n', setup='printf %s "$X" >setup\n', env={"X": value})
    assert (host.work / "setup").read_text() == (host.work / "run").read_text() == value
    assert not (host.work / "hacked").exists()


def test_no_name_of_a_variable_gets_in_the_way_of_the_program(host: HostSh) -> None:
    names = ["job", "ROOT", "GRACE", "phase", "script", "code", "new", "environment", "shell", "leader", "up"]
    env = {name: f"mine-{name}" for name in [*names, "line", "n", "self", "number", "begun", "end", "uptime"]}
    text = "".join(f'printf "%s\\n" "${name}"\n' for name in env)
    assert host.finish("j", text, setup="true\n", env=env)["exit"] == "0"
    assert host.log("j").decode().splitlines() == list(env.values())


def test_a_path_among_the_variables_is_the_jobs_alone(host: HostSh) -> None:
    assert host.finish("j", 'echo "$PATH"\n', env={"PATH": "/nowhere"})["exit"] == "0"
    assert host.log("j") == b"/nowhere\n"


def test_secrets_are_gone_from_the_disk_once_the_job_runs(host: HostSh) -> None:
    hold = "until [ -e on ]; do sleep 0.05; done\n"
    host.start("j", WAIT + '[ "$TOKEN" ]\n', setup=hold, env={"TOKEN": SECRET})
    env = host.root / "jobs" / "j" / "env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    (host.work / "on").touch()
    eventually(lambda: host.status("j")["phase"] == "run" and not env.exists())
    assert files_with(host.home, SECRET) == []
    for pid in host.processes():
        with suppress(FileNotFoundError):
            assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    (host.work / "go").touch()
    assert host.ended("j")["exit"] == "0"


def test_a_job_makes_its_files_as_anybody_does(host: HostSh) -> None:
    host.finish("j", "umask\ntouch file\nmkdir folder\n", setup="umask\n")
    assert [int(line, 8) for line in host.log("j").split()] == [0o22, 0o22]
    assert stat.S_IMODE((host.work / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((host.work / "folder").stat().st_mode) == 0o755


def test_a_job_has_nothing_to_read(host: HostSh) -> None:
    assert host.finish("j", "readlink /proc/self/fd/0\nwc -c\n")["exit"] == "0"
    assert host.log("j").split() == [b"/dev/null", b"0"]


def test_both_outputs_are_one_log_in_the_order_they_were_written(host: HostSh) -> None:
    host.finish("j", "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done\n", setup="echo first\n")
    lines = ["first", *(f"{where} {n}" for n in range(1, 6) for where in ("out", "err"))]
    assert host.log("j").decode().splitlines() == lines


def test_output_is_kept_byte_by_byte(host: HostSh) -> None:
    blob = os.urandom(3_000_000) + bytes(1000) + bytes(range(256))
    (host.work / "blob").write_bytes(blob)
    host.finish("j", "cat blob\n")
    assert host.log("j") == blob
    assert host.run("read", "j", "0").stdout == blob


def test_the_log_is_only_ever_appended_to(host: HostSh) -> None:
    host.start("j", f"echo one\n{WAIT}echo three\n")
    eventually(lambda: host.log("j") == b"one\n")
    with (host.root / "jobs" / "j" / "log").open("ab") as log:
        log.write(b"two\n")
    (host.work / "go").touch()
    host.ended("j")
    assert host.log("j") == b"one\ntwo\nthree\n"


def test_a_job_leads_a_session_of_its_own(host: HostSh) -> None:
    host.start("j", WAIT)
    assert os.getsid(host.pid("j")) == os.getpgid(host.pid("j")) == host.pid("j")
    assert os.getsid(host.pid("j", "supervisor")) == host.pid("j", "supervisor")


def test_a_job_can_be_interrupted_as_from_a_keyboard(host: HostSh) -> None:
    if host.userland == "busybox":
        pytest.skip("busybox cannot undo what sh does to background processes")
    host.finish("j", "grep SigIgn /proc/self/status\n", setup="sh -c 'kill -INT $$' || echo $?\n")
    status, _, ignored = host.log("j").split()
    assert (status, int(ignored, 16)) == (b"130", 0)


@pytest.mark.parametrize("name", ["USR1", "USR2", "TERM", "ALRM"])
def test_a_job_may_signal_all_of_itself(host: HostSh, name: str) -> None:
    text = f"trap 'echo noticed' {name}\nkill -{name} 0\n{WAIT}exit 5\n"
    host.start("j", text)
    eventually(lambda: b"noticed\n" in host.log("j"))
    assert host.status("j")["state"] == "going"
    (host.work / "go").touch()
    assert host.ended("j")["exit"] == "5"
    assert host.log("j").count(b"noticed\n") == 1


def test_what_a_job_leaves_in_the_background_does_not_hold_up_its_end(host: HostSh) -> None:
    assert host.finish("j", "sleep 1000 &\necho $! >pid\n")["exit"] == "0"
    server = int((host.work / "pid").read_text())
    assert server in host.processes()
    host.run("clean")
    eventually(lambda: server not in host.processes())


def test_two_jobs_run_beside_each_other(host: HostSh) -> None:
    host.start("a", f"touch a\n{WAIT}echo a\n")
    host.start("b", f"until [ -e a ]; do sleep 0.05; done\n{WAIT}echo b\nexit 3\n")
    (host.work / "go").touch()
    assert (host.ended("a")["exit"], host.ended("b")["exit"]) == ("0", "3")
    assert (host.log("a"), host.log("b")) == (b"a\n", b"b\n")
