"""The on-host program on hosts that talk too much, do not do what they are asked, or end meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gpucloud.errors import HostUnreachable, RemoteError
from gpucloud.model import SshAddress
from gpucloud.remote.connection import Endpoint, connect
from gpucloud.remote.host import Host
from tests.harness.netns import Network, namespace_hosts
from tests.harness.sshd import SYSTEM_PATH, SshHost, openssh_host
from tests.harness.waiting import eventually
from tests.providers.rented import processes

ROUND_TRIP = bytes(range(256)) * 400
LONG = "echo on\nexec sleep 1000\n"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SshHost]:
    with openssh_host(tmp_path / "box") as host:
        yield host


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with namespace_hosts(1, folder=tmp_path_factory.mktemp("network")) as network:
        yield network


@contextmanager
def program(box: SshHost, *, installed: bool = True) -> Iterator[Host]:
    to = Endpoint(SshAddress(box.host, box.port, box.user), box.identity, "it", box.host_key)
    with connect(to, timeout_s=15) as connection:
        host = Host(connection, "gc-1")
        if installed:
            host.install(slots=0, claim="me", notice_probe="", at_end="")
        yield host
        if installed:
            host.clean()


def session(box: SshHost, script: str) -> None:
    """Let the server start this, with the command in ``$command``, for everybody who logs in."""
    assert box.home is not None
    wrapper = box.home.parent / "session.sh"
    wrapper.write_text(f'cd "$HOME" || exit\ncommand=$SSH_ORIGINAL_COMMAND\n{script}\n')


def works(host: Host) -> None:
    """Bytes and statuses come through as they are."""
    host.keep("key", ROUND_TRIP)
    assert host.sent("key") == ROUND_TRIP
    host.start("j", {"run": "printf 'one\\ntwo'; exit 6\n", "env": "export X='a b'\n"})
    seen = bytearray()
    host.follow("j", 0, lambda _: None)
    host.read("j", 0, seen.extend)
    assert bytes(seen) == b"one\ntwo"
    assert host.status("j").exit_code == 6
    with pytest.raises(RemoteError) as caught:
        host.read("k", 0, seen.extend)
    assert caught.value.why.endswith("there is no job k on this host")


@pytest.mark.needs_sshd
@pytest.mark.parametrize(
    "noise",
    [
        "echo welcome",
        "printf 'no newline'",
        "echo oops >&2",
        "printf '\\036gpu'; printf '\\377\\0'",
        "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2",
    ],
    ids=["a line", "no newline", "complaints", "what resembles our mark", "a lot"],
)
def test_what_login_scripts_print_is_not_taken_for_our_output(box: SshHost, noise: str) -> None:
    assert box.home is not None
    (box.home / ".profile").write_text(f"{noise}\n")
    session(box, 'exec sh -l -c "$command"')
    with program(box) as host:
        heard = host.connection.run("true")
        assert heard.stdout + heard.stderr
        works(host)


@pytest.mark.needs_netns
@pytest.mark.parametrize(
    ("shell", "script", "noise"),
    [
        ("bash", ".bashrc", "echo welcome; echo oops >&2"),
        ("dash", ".profile", ""),
        ("fish", ".config/fish/config.fish", "echo welcome; echo oops >&2"),
        ("tcsh", ".cshrc", "echo welcome"),
    ],
)
def test_whatever_shell_somebody_logs_in_with_it_works(
    network: Network, shell: str, script: str, noise: str
) -> None:
    path = shutil.which(shell, path=SYSTEM_PATH)
    if path is None:
        pytest.skip(f"no {shell} on this machine")
    (box,) = network.hosts
    assert box.home is not None
    (box.home / script).parent.mkdir(parents=True, exist_ok=True)
    (box.home / script).write_text(f"{noise}\n")
    login_shell(box, path)
    with program(box) as host:
        assert host.connection.run("true").stdout == (b"welcome\n" if noise else b"")
        works(host)


def login_shell(box: SshHost, path: str) -> None:
    """Change it for the one user of a host."""
    assert box.home is not None
    users = box.home.parent / "etc" / "passwd"
    users.write_text(re.sub("^(root:.*:).*", rf"\g<1>{path}", users.read_text(), flags=re.MULTILINE))


CALLS: dict[str, Callable[[Host], object]] = {
    "install": lambda host: host.install(slots=1, claim="me", notice_probe="", at_end=""),
    "start": lambda host: host.start("j", {"run": "true\n", "env": ""}),
    "follow": lambda host: host.follow("j", 0, nothing),
    "lease": lambda host: host.lease(5),
    "idle": lambda host: host.idle(5),
    "vitals": lambda host: host.vitals(),
    "clean": lambda host: host.clean(),
    "sent": lambda host: host.sent("key"),
    "keep": lambda host: host.keep("key", b"x"),
    "remove": lambda host: host.remove("work", ["a"]),
    "receive": lambda host: host.receive("work", lambda tar: tar.write(bytes(1024))),
    "files": lambda host: host.files(["a"]),
    "digest": lambda host: host.digest(["a"]),
    "pack": lambda host: host.pack(["a"], lambda reader: nothing(reader.read())),
}


def nothing(data: bytes) -> None:
    assert not data, "this is no output of ours"


@pytest.mark.needs_sshd
@pytest.mark.parametrize("status", [0, 1, 75])
def test_a_login_that_runs_nothing_is_told_in_its_own_words(box: SshHost, status: int) -> None:
    session(box, f"echo 'This account is for backups.'; exit {status}")
    with program(box, installed=False) as host:
        for call in CALLS.values():
            with pytest.raises(RemoteError) as caught:
                call(host)
            assert caught.value.message.startswith("it does not run commands")
            assert caught.value.why == "This account is for backups."


@pytest.mark.needs_sshd
def test_a_login_that_runs_nothing_and_says_nothing_is_told_by_its_status(box: SshHost) -> None:
    session(box, "exit 9")
    with program(box, installed=False) as host, pytest.raises(RemoteError) as caught:
        host.status("j")
    assert caught.value.message.startswith("it does not run commands")
    assert caught.value.why == "it ended with status 9"


@pytest.mark.needs_netns
@pytest.mark.parametrize("shell", ["/bin/false", "/usr/sbin/nologin"])
def test_a_login_shell_that_runs_nothing_is_an_error(network: Network, shell: str) -> None:
    (box,) = network.hosts
    login_shell(box, shell)
    with program(box, installed=False) as host, pytest.raises(RemoteError) as caught:
        host.install(slots=0, claim="me", notice_probe="", at_end="")
    assert not isinstance(caught.value, HostUnreachable)
    assert caught.value.message.startswith("it does not run commands")


@pytest.mark.needs_sshd
def test_to_ask_for_vitals_can_be_told_from_all_else_that_is_asked(box: SshHost) -> None:
    """The on-host program looks for the words in the command that the server was given."""
    session(box, 'printf %s "$command" >asked; exec sh -c "$command"')
    assert box.home is not None
    with program(box) as host:
        host.vitals()
        assert "host.sh vitals" in (box.home / "asked").read_text()
        host.status("j")
        assert "host.sh vitals" not in (box.home / "asked").read_text()


@pytest.mark.needs_sshd
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="sessions cannot be seen here")
def test_a_session_of_a_real_server_keeps_the_machine_busy(box: SshHost, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(box.known_hosts_line)
    with program(box) as host, subprocess.Popen(box.ssh("sleep 1000", known_hosts=known_hosts)) as client:
        host.idle(3600)
        eventually(lambda: host.vitals().busy == "ssh")
        assert host.vitals().sessions_known
        client.kill()


WRAPPERS = {"at once": 'exec sh -c "$command"', "behind a shell": 'sh -c "$command"; exit $?'}


def followers(box: SshHost, job: str) -> list[int]:
    """The processes of the host that follow a job, the program itself first."""
    assert box.home is not None
    log = str(box.home / ".gpucloud" / "gc-1" / "jobs" / job / "log")
    ours = [pid for pid in processes(job) if pid in processes("follow")]
    return [*ours, *processes(log)] if ours and processes(log) else []


@pytest.mark.needs_sshd
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_program_that_is_killed_on_the_host_is_a_host_that_may_be_ending(
    box: SshHost, wrapper: str, how: signal.Signals
) -> None:
    session(box, wrapper)
    with program(box) as host:
        job = f"job-{box.port}"
        host.start(job, {"run": LONG, "env": ""})

        def strike(_: bytes) -> None:
            for pid in eventually(lambda: followers(box, job)):
                # Some are only there for a moment, as the shell's own forks are.
                with suppress(ProcessLookupError):
                    os.kill(pid, how)

        with pytest.raises(HostUnreachable) as caught:
            host.follow(job, 0, strike)
        assert caught.value.retryable
        assert caught.value.message.startswith("it broke off")
        assert not host.status(job).over


@pytest.mark.needs_sshd
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_a_push_whose_program_is_killed_on_the_host_may_be_tried_again(box: SshHost, wrapper: str) -> None:
    session(box, wrapper)
    with program(box) as host:
        target = f"work/{box.port}"

        def strike(tar: object) -> None:
            for pid in eventually(lambda: processes(target)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        with pytest.raises(HostUnreachable):
            host.receive(target, strike)
        host.receive(target, lambda tar: tar.write(bytes(10240)))


@pytest.mark.needs_sshd
def test_a_connection_that_is_lost_while_a_job_is_followed_is_an_unreachable_host(box: SshHost) -> None:
    with program(box, installed=False) as host:
        host.install(slots=0, claim="me", notice_probe="", at_end="")
        host.start("j", {"run": LONG, "env": ""})
        server = int(host.connection.run("echo $PPID").stdout)
        with pytest.raises(HostUnreachable, match="does not answer over SSH"):
            host.follow("j", 0, lambda _: os.kill(server, signal.SIGKILL))
        with pytest.raises(HostUnreachable):
            host.status("j")
        with program(box) as again:
            assert not again.status("j").over
