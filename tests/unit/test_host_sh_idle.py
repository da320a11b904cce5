"""When a machine counts as idle on the host, what ends it then, and what the host tells of it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.host_sh import Facts, HostSh, facts
from tests.harness.waiting import eventually

CONNECTION = "192.0.2.1 50000 192.0.2.2 50022"
"""At a port of its own: whoever runs the tests may have come by SSH as well."""
FOREVER = "while :; do sleep 0.05; done\n"
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done\n"
LINUX = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="sessions cannot be seen here")

# Others may be logged in to the machine that the tests run on: of all processes tail reads only those that a
# test has shown to it. Each time that the watch looks at sessions it leaves a line.
TAIL = """\
case $* in *environ*) echo >>{looks} ;; esac
for word; do
  shift
  number=${{word#/proc/}}
  [ "$number" = "$word" ] || [ -e {shown}/"${{number%/environ}}" ] || continue
  set -- "$@" "$word"
done
exec {tail} "$@"
"""


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    """A machine on which only the sessions of a test are seen; its client comes by SSH."""
    (host_sh.folder / "shown").mkdir()
    (host_sh.folder / "looks").touch()
    words = {name: shlex.quote(str(host_sh.folder / name)) for name in ("shown", "looks")}
    host_sh.tool("tail", TAIL.format(tail=host_sh.real("tail"), **words))
    host_sh.env |= {"SSH_CONNECTION": CONNECTION, "SSH_CLIENT": "192.0.2.1 50000 22", "SSH_TTY": "/dev/pts/0"}
    host_sh.init()
    return host_sh


def show(host: HostSh, *pids: int) -> None:
    for pid in pids:
        (host.folder / "shown" / str(pid)).touch()


def shown(host: HostSh, script: str) -> list[str]:
    """What a server starts for a session: a login shell, which the watch can see from its beginning."""
    shell, folder = str(host.bin / "sh"), shlex.quote(str(host.folder / "shown"))
    return [shell, "-c", f': >{folder}/"$$"; exec "$0" -c "$1"', shell, script]


@contextlib.contextmanager
def session(host: HostSh, script: str = FOREVER, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A session that has begun and lasts."""
    up = host.home / "up"
    up.unlink(missing_ok=True)
    begun = f"touch {shlex.quote(str(up))}\n{script}"
    process = subprocess.Popen(shown(host, begun), env=host.env | env, cwd=host.home, start_new_session=True)
    try:
        eventually(up.exists)
        show(host, process.pid)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def vitals(host: HostSh) -> Facts:
    """Ask in a session that the watch can see."""
    command = shown(host, asking(host, "vitals"))
    return facts(subprocess.run(command, env=host.env, check=True, capture_output=True, timeout=60))


def asking(host: HostSh, command: str) -> str:
    """A command of the program as the client gives it to a login shell."""
    return f"exec sh {shlex.quote(str(host.root))}/host.sh {command}"


def becomes(host: HostSh, **wanted: str) -> None:
    """Return when the vitals are so; this is also a client that asks again and again."""
    eventually(lambda: wanted.items() <= vitals(host).items())


def looks(host: HostSh) -> None:
    """Return when the watch has looked at all sessions several times."""
    before = count(host.folder / "looks")
    eventually(lambda: count(host.folder / "looks") >= before + 4)


def beats(host: HostSh) -> None:
    """Return when the watch has seen for more than a second that the machine is busy."""
    before = last_busy(host)
    eventually(lambda: last_busy(host) >= before + 2)


def last_busy(host: HostSh) -> int:
    return int((host.root / "busy").read_text().split()[0])


def count(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def kill_watch(host: HostSh) -> None:
    os.killpg(int((host.root / "watch.pid").read_text().split()[0]), signal.SIGKILL)
    eventually(lambda: not host.processes("watch"))


def patch(host: HostSh, old: str, new: str) -> None:
    """Let the watch begin anew on another kind of machine."""
    kill_watch(host)
    program = host.root / "host.sh"
    assert old in program.read_text()
    program.write_text(program.read_text().replace(old, new))
    host.init()


def test_a_machine_without_limits_says_so(host: HostSh) -> None:
    first = vitals(host)
    assert first["busy"] in {"start", "none"}
    assert int(first["idle_for"]) >= 0
    becomes(host, busy="none")
    limits = {"lease_left": "none", "idle_limit": "none", "over": "none", "jobs": "0"}
    assert limits.items() <= vitals(host).items()


@LINUX
def test_what_is_to_be_done_at_the_end_is_done_once_when_the_machine_is_idle(host: HostSh) -> None:
    host.init(at_end='echo >>"$HOME/tries"; cp "$HOME"/.gpucloud/gc-1/over "$HOME/why"')
    host.run("idle", "1")
    eventually(lambda: not (host.root / "at-end").exists())
    becomes(host, over="idle", idle_limit="1", busy="none", sessions="known")
    assert (host.home / "why").read_text().split() == ["idle", "1"]
    looks(host)
    assert count(host.home / "tries") == 1


@LINUX
def test_a_lease_that_ends_with_idleness_ends_the_machine_once(host: HostSh) -> None:
    host.init(at_end='echo >>"$HOME/tries"')
    host.run("lease", "1")
    host.run("idle", "1")
    becomes(host, over="lease", lease_left="0")
    eventually(lambda: not (host.root / "at-end").exists())
    looks(host)
    assert count(host.home / "tries") == 1


@LINUX
def test_what_fails_at_the_end_is_tried_again_until_somebody_needs_the_machine(host: HostSh) -> None:
    tries = host.home / "tries"
    host.init(at_end=f"echo >>'{tries}'; exit 1")
    host.run("idle", "0")
    eventually(lambda: count(tries) >= 2)
    host.start("j", UNTIL_GO)
    becomes(host, over="none", busy="job", jobs="1")
    beats(host)
    before = count(tries)
    beats(host)
    assert count(tries) == before
    (host.work / "go").touch()
    assert host.ended("j")["exit"] == "0"
    eventually(lambda: count(tries) > before)


@LINUX
def test_a_job_that_began_since_it_was_found_idle_goes_on_and_so_does_the_lease(host: HostSh) -> None:
    host.run("idle", "0")
    becomes(host, over="idle")
    # Some processes cannot be looked at while the driver hangs.
    hangs = f"touch '{host.home}/hangs'; exec {host.real('sleep')} 1000"
    host.tool("tail", f'case $* in *environ*) {hangs} ;; esac\nexec {host.real("tail")} "$@"\n')
    eventually((host.home / "hangs").exists)
    host.start("j", f"touch up\n{FOREVER}")
    eventually((host.work / "up").exists)
    host.init(at_end='touch "$HOME/over"', probe='echo >>"$HOME/beats"; false')
    eventually(lambda: count(host.home / "beats") >= 5)
    assert not (host.home / "over").exists()
    assert host.status("j")["state"] == "going"
    host.run("lease", "0")
    assert host.ended("j")["expired"] == "yes"
    eventually((host.home / "over").exists)


@LINUX
def test_a_job_keeps_it_busy_and_is_over_when_the_machine_ends(host: HostSh) -> None:
    host.start("j", UNTIL_GO)
    host.init(at_end='cp "$HOME"/.gpucloud/gc-1/jobs/j/exit "$HOME/over"')
    host.run("idle", "0")
    becomes(host, busy="job", jobs="1")
    beats(host)
    assert vitals(host)["over"] == "none"
    assert not (host.home / "over").exists()
    (host.work / "go").touch()
    eventually((host.home / "over").exists)
    eventually(lambda: (host.home / "over").read_text().split()[:2] == ["run", "0"])
    assert "expired" not in host.status("j")


@LINUX
def test_a_session_keeps_it_busy_until_it_ends(host: HostSh) -> None:
    with session(host):
        host.run("idle", "0")
        becomes(host, busy="ssh")
        looks(host)
        assert vitals(host)["over"] == "none"
    becomes(host, busy="none", over="idle")


@LINUX
def test_a_session_that_begins_after_all_takes_the_end_back(host: HostSh) -> None:
    host.run("idle", "0")
    becomes(host, over="idle")
    with session(host):
        becomes(host, over="none", busy="ssh")
    becomes(host, over="idle")


@LINUX
def test_what_was_left_running_in_a_session_keeps_it_busy(host: HostSh) -> None:
    left = host.home / "left"
    script = f"(trap '' HUP; {FOREVER.strip()}) & echo $! >'{left}.new'; mv '{left}.new' '{left}'\n"
    subprocess.run(shown(host, script), env=host.env, check=True, start_new_session=True)
    show(host, int(left.read_text()))
    host.run("idle", "0")
    becomes(host, busy="ssh")
    os.kill(int(left.read_text()), signal.SIGKILL)
    becomes(host, busy="none", over="idle")


@LINUX
def test_what_a_job_leaves_running_is_no_session(host: HostSh) -> None:
    host.start("j", f"(trap '' HUP TERM; touch left; {FOREVER.strip()}) &\n{UNTIL_GO}")
    eventually((host.work / "left").exists)
    (host.work / "go").touch()
    assert host.ended("j")["exit"] == "0"
    left = [pid for pid in host.processes() if session_of(pid) == host.pid("j")]
    assert left
    for pid in host.processes():
        # What the watch starts is only there for a moment.
        with contextlib.suppress(OSError):
            assert b"SSH_" not in Path(f"/proc/{pid}/environ").read_bytes()
    show(host, *left)
    host.run("idle", "0")
    becomes(host, busy="none", over="idle")


@LINUX
@pytest.mark.parametrize("how", ["arguments", "environment", "a login script"])
def test_a_session_that_only_asks_for_vitals_is_none(host: HostSh, how: str) -> None:
    """However long it takes, and whatever the login shell starts meanwhile."""
    asks, folder = asking(host, "vitals"), shlex.quote(str(host.folder / "shown"))
    script = {
        "arguments": UNTIL_GO + asks,
        "environment": UNTIL_GO,
        "a login script": f"(: >{folder}/$(sh -c 'echo $PPID'); touch child; {UNTIL_GO.strip()})\n{asks}",
    }
    env = {"SSH_ORIGINAL_COMMAND": asks} if how == "environment" else {}
    with session(host, script[how], **env) as process:
        if how == "a login script":
            eventually((host.home / "child").exists)
        host.run("idle", "0")
        becomes(host, busy="none", over="idle")
        assert process.poll() is None


@LINUX
def test_every_other_command_of_ours_is_a_session(host: HostSh) -> None:
    with session(host, UNTIL_GO + asking(host, "status j")):
        host.run("idle", "0")
        becomes(host, busy="ssh", over="none")


def gpus(host: HostSh, *percent: str) -> None:
    """Be a machine with GPUs that are used so much."""
    lines = "".join(f"{index}, {used}, 4, 81559, 70.00, 33\n" for index, used in enumerate(percent))
    (host.folder / "gpus.new").write_text(lines)
    (host.folder / "gpus.new").rename(host.folder / "gpus.csv")
    host.tool("nvidia-smi", f"cat '{host.folder}/gpus.csv'\n")


@LINUX
def test_gpus_keep_it_busy_from_five_per_cent_on(host: HostSh) -> None:
    gpus(host, "0", "5")
    becomes(host, busy="gpu")
    host.run("idle", "0")
    looks(host)
    assert vitals(host)["over"] == "none"
    gpus(host, "4", "0")
    becomes(host, busy="none", over="idle")
    gpus(host, "100", "0")
    becomes(host, busy="gpu", over="none")


@LINUX
def test_what_a_gpu_cannot_measure_does_not_count(host: HostSh) -> None:
    gpus(host, "[N/A]", "[Not Supported]")
    eventually(lambda: count(host.root / "gpu.csv") >= 2)
    host.run("idle", "0")
    becomes(host, busy="none", over="idle")


@LINUX
@pytest.mark.parametrize("age", [70, -3600], ids=["old", "from the future"])
def test_a_sample_of_another_time_does_not_count_nor_does_a_driver_that_hangs(host: HostSh, age: int) -> None:
    kill_watch(host)
    host.tool("nvidia-smi", f"touch '{host.home}/asked'\nexec {host.real('sleep')} 1000\n")
    (host.root / "gpu.csv").write_text(f"{int(time.time()) - age}, 0, 99, 40536, 81559, 412.50, 61\n")
    host.init(at_end='touch "$HOME/over"')
    eventually((host.home / "asked").exists)
    host.run("idle", "0")
    eventually((host.home / "over").exists)


@LINUX
def test_the_last_sample_counts_while_the_driver_hangs(host: HostSh) -> None:
    kill_watch(host)
    host.tool("nvidia-smi", f"exec {host.real('sleep')} 1000\n")
    samples = [f"{int(time.time()) - age}, 0, {used}, 4, 9, 4.5, 6\n" for age, used in ((15, 0), (5, 99))]
    (host.root / "gpu.csv").write_text("".join(samples))
    host.init()
    becomes(host, busy="gpu")
    (host.root / "gpu.csv").write_text("".join(reversed(samples)))
    becomes(host, busy="none")


@LINUX
def test_the_limit_can_be_lifted_and_set_anew(host: HostSh) -> None:
    host.run("idle", "0")
    becomes(host, over="idle")
    host.run("idle", "none")
    assert {"over": "none", "idle_limit": "none"}.items() <= vitals(host).items()
    looks(host)
    assert vitals(host)["over"] == "none"
    host.run("idle", "3600")
    looks(host)
    assert {"over": "none", "idle_limit": "3600"}.items() <= vitals(host).items()
    host.run("idle", "0")
    becomes(host, over="idle")


def test_it_counts_from_the_moment_at_which_the_limit_is_set(host: HostSh) -> None:
    eventually(lambda: int(vitals(host)["idle_for"]) >= 2)
    before = time.monotonic()
    host.run("idle", "3600")
    idle_for = int(vitals(host)["idle_for"])
    # Each of two readings of a clock of whole seconds may be almost one off.
    assert idle_for <= time.monotonic() - before + 1


@LINUX
def test_where_the_client_does_not_come_by_ssh_sessions_are_not_known_and_nothing_ends(host: HostSh) -> None:
    del host.env["SSH_CONNECTION"]
    host.init(at_end='touch "$HOME/over"')
    assert vitals(host)["sessions"] == "unknown"
    host.run("idle", "0")
    becomes(host, busy="none", sessions="unknown", idle_limit="0")
    looks(host)
    assert vitals(host)["over"] == "none"
    assert not (host.home / "over").exists()
    host.run("lease", "0")
    eventually((host.home / "over").exists)


def test_without_proc_sessions_are_not_known_and_nothing_ends(host: HostSh) -> None:
    patch(host, "/proc", "/no-proc")
    host.run("idle", "0")
    becomes(host, busy="none", sessions="unknown", idle_limit="0")
    looks(host)
    assert vitals(host)["over"] == "none"
    host.start("j", UNTIL_GO)
    becomes(host, busy="job", jobs="1")
    (host.work / "go").touch()
    becomes(host, busy="none", jobs="0")
    host.start("k", FOREVER)
    host.run("lease", "0")
    assert host.ended("k")["expired"] == "yes"


def test_the_lease_is_told_and_its_end(host: HostSh) -> None:
    host.run("lease", "3600")
    told = vitals(host)
    assert told["over"] == "none"
    assert 3000 < int(told["lease_left"]) <= 3600
    host.run("lease", "0")
    becomes(host, over="lease", lease_left="0")
    host.run("lease", "none")
    becomes(host, over="none", lease_left="none")


@LINUX
def test_nothing_of_it_survives_a_reboot(host: HostSh) -> None:
    host.run("idle", "0")
    becomes(host, over="idle")
    kill_watch(host)
    done = host.run("vitals", status=1)
    assert b"the watch over this machine has ended" in done.stderr
    host.init(at_end='touch "$HOME/over"')
    assert {"over": "none", "idle_limit": "none"}.items() <= vitals(host).items()
    looks(host)
    assert not (host.home / "over").exists()


@LINUX
def test_to_take_it_again_leaves_the_limit_as_it_is(host: HostSh) -> None:
    host.run("idle", "3600")
    host.init()
    assert vitals(host)["idle_limit"] == "3600"
