"""Starting a job: all of it or nothing, once, and out of reach of what happens to the connection."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness.host_sh import HostSh, archive, facts, scripts
from tests.harness.waiting import eventually

BLOCK = 512
WAIT = "until [ -e go ]; do sleep 0.05; done\n"


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.init()
    return host_sh


def left(host: HostSh) -> list[str]:
    return sorted(path.name for path in (host.root / "jobs").iterdir())


def test_a_started_job_is_going_until_it_has_ended(host: HostSh) -> None:
    begun = host.start("j", f"echo hello\n{WAIT}exit 4\n")
    assert (begun["state"], begun["phase"]) == ("going", "run")
    eventually(lambda: host.status("j")["bytes"] == "6")
    assert host.status("j") == {**begun, "bytes": "6"}
    (host.work / "go").touch()
    ended = host.ended("j")
    assert ended == {
        "state": "ended",
        "phase": "run",
        "exit": "4",
        "ended": ended["ended"],
        "started": begun["started"],
        "bytes": "6",
    }
    assert int(begun["started"]) <= int(ended["ended"]) <= int(begun["started"]) + 60


def test_a_job_that_was_never_started_is_unknown(host: HostSh) -> None:
    assert host.status("j") == {"state": "unknown"}
    assert facts(host.run("cancel", "j", "0")) == {"state": "unknown"}
    host.run("lease", "3600")
    assert host.status("*") == {"state": "unknown"}


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", os.urandom(5000), bytes(10240)])
def test_what_is_no_tar_starts_nothing_and_leaves_nothing(host: HostSh, rubbish: bytes) -> None:
    done = host.run("start", "j", stdin=rubbish, status=1)
    assert b"the job could not be written" in done.stderr
    assert done.stdout == b""
    assert left(host) == []
    assert host.status("j") == {"state": "unknown"}


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 6, 7])
def test_a_tar_that_was_cut_off_starts_nothing(host: HostSh, blocks: int) -> None:
    whole = scripts("echo ran >ran\n", setup="true\n", env={"X": "1"})
    # Head and content of three files are six blocks, and the end of the archive two more.
    host.run("start", "j", stdin=whole[: blocks * BLOCK], status=1)
    assert left(host) == []
    host.start("j", "true\n")


@pytest.mark.parametrize("names", [["run"], ["env"], ["setup", "env"]])
def test_a_job_without_its_script_or_its_variables_is_refused(host: HostSh, names: list[str]) -> None:
    host.run("start", "j", stdin=archive(dict.fromkeys(names, b"")), status=1)
    assert left(host) == []


def test_a_repeated_start_starts_nothing_and_tells_the_status(host: HostSh) -> None:
    text = f"echo once >>count\n{WAIT}"
    first = host.start("j", text)
    supervisor = host.pid("j", "supervisor")
    again = host.start("j", "echo another >>count\n")
    assert again["state"] == "going"
    assert again["started"] == first["started"]
    assert host.pid("j", "supervisor") == supervisor
    (host.work / "go").touch()
    ended = host.ended("j")
    assert host.start("j", text) == ended
    assert (host.work / "count").read_text() == "once\n"
    assert left(host) == ["j"]


def at_once(processes: list[subprocess.Popen[bytes]], stdin: bytes) -> list[bytes]:
    """What processes print that read the same at the same time."""
    with ThreadPoolExecutor(len(processes)) as threads:
        return [out for out, _ in threads.map(lambda process: process.communicate(stdin), processes)]


def test_of_many_starts_at_once_one_starts_the_job(host: HostSh) -> None:
    for n in range(3):
        starters = [host.popen("start", f"j{n}", stdin=subprocess.PIPE) for _ in range(6)]
        answers = at_once(starters, scripts(f"echo once >>count.{n}\n{WAIT}"))
        assert [starter.returncode for starter in starters] == [0] * 6
        # Those that came second must not take a job that is just being started for a lost one.
        assert all(answer.startswith(b"state=going\n") for answer in answers), answers
        eventually((host.work / f"count.{n}").exists)
        assert len([pid for pid in host.processes(f"j{n}") if os.getsid(pid) == pid]) == 2
    (host.work / "go").touch()
    for n in range(3):
        assert host.ended(f"j{n}")["exit"] == "0"
        assert (host.work / f"count.{n}").read_text() == "once\n"
    assert left(host) == ["j0", "j1", "j2"]


def test_a_job_is_never_taken_for_lost_while_it_starts_or_ends(host: HostSh) -> None:
    seen: list[str] = []
    for n in range(8):
        starter = host.popen("start", f"j{n}", stdin=-1)
        assert starter.stdin
        starter.stdin.write(scripts("true\n", setup="true\n"))
        starter.stdin.close()
        while not seen or seen[-1] != "ended":
            seen.append(host.status(f"j{n}")["state"])
        starter.wait()
        assert starter.stdout and starter.stderr
        assert starter.stderr.read() == b""
        starter.stdout.close()
        starter.stderr.close()
        assert set(seen) <= {"unknown", "going", "ended"}
        seen.clear()


def test_a_job_that_ends_while_it_is_looked_at_has_ended(host: HostSh) -> None:
    # Whether a process is alive is the first thing that is looked at, and kill looks. The job ends just then.
    host.start("j", WAIT)
    job = host.root / "jobs" / "j"
    probe = host.root / "probe.sh"
    text = (host.root / "host.sh").read_text()
    ending = f'kill() {{ : >"{host.work}/go"; until [ -e "{job}/exit" ]; do sleep 0.05; done; false; }}\n'
    probe.write_text(text.replace("\nset -u\n", f"\nset -u\n{ending}"))
    command = [str(host.bin / "sh"), str(probe), "status", "j"]
    done = subprocess.run(command, env=host.env, capture_output=True, check=True)
    assert done.stdout.startswith(b"state=ended\nphase=run\nexit=0\n")


def test_a_job_that_is_handed_to_its_supervisor_while_it_is_looked_at_is_going(host: HostSh) -> None:
    # Whoever starts a job is named until its supervisor is there, and may be gone once that is.
    host.start("j", WAIT)
    job = host.root / "jobs" / "j"
    leader, supervisor = (job / "pid").read_bytes(), (job / "supervisor").read_bytes()
    (job / "pid").write_bytes(b" " * 64 + b"\n")
    (host.work / "supervisor").write_bytes(supervisor)
    probe = host.root / "probe.sh"
    text = (host.root / "host.sh").read_text()
    handing = f'kill() {{ unset -f kill; cat "{host.work}/supervisor" >"{job}/supervisor"; false; }}\n'
    probe.write_text(text.replace("\nset -u\n", f"\nset -u\n{handing}"))
    command = [str(host.bin / "sh"), str(probe), "status", "j"]
    done = subprocess.run(command, env=host.env, capture_output=True, check=True)
    (job / "pid").write_bytes(leader)
    assert done.stdout.startswith(b"state=going\n")
    (host.work / "go").touch()
    assert host.ended("j")["exit"] == "0"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_a_job_outlives_the_whole_session_that_started_it(host: HostSh, how: signal.Signals) -> None:
    starter = host.popen("start", "j", stdin=-1)
    assert starter.stdin and starter.stdout and starter.stderr
    starter.stdin.write(scripts(f"{WAIT}echo survived\n"))
    starter.stdin.close()
    # As soon as it answers the job is safe, so it is killed together with all that is still around it.
    assert starter.stdout.readline() == b"state=going\n"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(starter.pid, how)
    starter.wait()
    starter.stdout.close()
    starter.stderr.close()
    (host.work / "go").touch()
    assert host.ended("j")["exit"] == "0"
    assert host.log("j") == b"survived\n"


def test_a_job_may_be_started_without_anyone_having_taken_the_machine_before(host_sh: HostSh) -> None:
    host_sh.work.mkdir()
    assert host_sh.finish("j", "exit 5\n")["exit"] == "5"


def test_nobody_else_can_read_what_a_job_is_told(host: HostSh) -> None:
    host.start("j", WAIT, setup="true\n", env={"TOKEN": "secret"})
    eventually(lambda: host.status("j")["phase"] == "run")
    for path in [host.root / "jobs" / "j", *(host.root / "jobs" / "j").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path
