"""The terminal for people without an ``ssh`` of their own, at a real terminal, with either SSH server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pexpect
import pytest

from gpucloud.model import SshAddress
from tests.harness.cli import installation
from tests.harness.sshd import SshHost
from tests.providers.local.conftest import BOTH, a_provider
from tests.providers.rented import Rented, rented

# pexpect forks, which newer Pythons warn of when there have been threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

DRIVER = """\
import sys
from pathlib import Path
from gpucloud.errors import HostUnreachable
from gpucloud.model import SshAddress
from gpucloud.remote.builtin import Builtin
from gpucloud.remote.connection import Endpoint
host, port, user, key, command = sys.argv[1:]
try:
    with Builtin(Endpoint(SshAddress(host, int(port), user), Path(key), "it"), timeout_s=15) as connection:
        sys.exit(connection.interact(command))
except HostUnreachable as error:
    sys.exit(f"unreachable: {error.why}")
"""
AROUND = 'stty -g; "$@"; status=$?; stty -g; exit $status'
LOST = 1


@pytest.fixture(scope="module", params=BOTH)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rented]:
    folder = tmp_path_factory.mktemp("machine")
    with rented(a_provider(folder / "state", request.param), folder) as instance:
        yield instance


@contextmanager
def terminal(
    address: SshAddress, key: Path, command: str, around: str = '"$@"'
) -> Iterator[pexpect.spawn[bytes]]:
    """A person's terminal, 25 lines of 90 columns, in which the command runs on the host."""
    driver = [sys.executable, "-c", DRIVER, address.host, str(address.port), address.user, str(key), command]
    environ = {**os.environ, "TERM": "screen-256color"}
    person: pexpect.spawn[bytes] = pexpect.spawn(
        "/bin/sh", ["-c", around, "sh", *driver], dimensions=(25, 90), timeout=30, env=environ, encoding=None
    )
    try:
        yield person
    finally:
        person.close(force=True)


def at(machine: Rented, command: str, around: str = '"$@"') -> AbstractContextManager[pexpect.spawn[bytes]]:
    return terminal(machine.address, machine.identity.file, command, around)


def rest(person: pexpect.spawn[bytes]) -> bytes:
    """All that is still shown; the command is over then."""
    shown = bytes(person.read())
    person.wait()
    return shown


def test_what_is_typed_is_echoed_once_and_arrives(machine: Rented) -> None:
    with at(machine, "echo ready; read line; echo got $line") as person:
        person.expect_exact("ready\r\n")
        person.send("some words\r")
        assert rest(person) == b"some words\r\ngot some words\r\n"


def test_every_byte_goes_there_and_comes_back(machine: Rented) -> None:
    everything = bytes(range(256)) * 20
    with at(machine, f"stty raw -echo; printf ready; head -c {len(everything)}; printf over") as person:
        person.expect_exact("ready")
        person.send(everything)
        assert rest(person) == everything + b"over"


def test_a_long_output_is_whole(machine: Rented) -> None:
    with at(machine, "stty -opost; seq 100000; echo over") as person:
        assert rest(person) == b"".join(b"%d\n" % n for n in range(1, 100_001)) + b"over\n"


@pytest.mark.parametrize(("key", "name"), [("\x03", "INT"), ("\x1c", "QUIT")])
def test_keys_that_signal_do_so_on_the_host(machine: Rented, key: str, name: str) -> None:
    command = f"trap 'echo caught; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
    with at(machine, command) as person:
        person.expect_exact("ready\r\n")
        person.send(key)
        assert rest(person).endswith(b"caught\r\n")
        assert person.exitstatus == 7


def test_ctrl_d_ends_the_input_there(machine: Rented) -> None:
    with at(machine, "echo ready; cat; echo over") as person:
        person.expect_exact("ready\r\n")
        person.send("last\r\x04")
        assert rest(person) == b"last\r\nlast\r\nover\r\n"
        assert person.exitstatus == 0


@pytest.mark.parametrize(("end", "status"), [("exit 5", 5), ("exit 255", 255), ("kill -9 $$", 255)])
def test_the_status_of_the_command_is_the_status(machine: Rented, end: str, status: int) -> None:
    with at(machine, f"echo over; {end}") as person:
        assert rest(person) == b"over\r\n"
        assert person.exitstatus == status


def test_the_window_is_as_large_there_as_here_and_grows_with_it(machine: Rented) -> None:
    command = (
        "echo $TERM; stty size; until test \"$(stty size)\" = '33 101'; do sleep 0.05; done; echo resized"
    )
    with at(machine, command) as person:
        person.expect_exact("screen-256color\r\n25 90\r\n")
        person.setwinsize(33, 101)
        assert rest(person) == b"resized\r\n"


def test_the_terminal_is_afterwards_as_it_was(machine: Rented) -> None:
    with at(machine, "stty raw; echo in; exit 3", AROUND) as person:
        before, *_, after = rest(person).split()
        assert before == after
        assert person.exitstatus == 3


@pytest.mark.needs_sshd
def test_a_connection_that_is_lost_is_told_at_a_terminal_that_is_as_it_was(ssh_host: SshHost) -> None:
    address = SshAddress(ssh_host.host, ssh_host.port, ssh_host.user)
    with terminal(address, ssh_host.identity, "echo $PPID; exec sleep 1000", AROUND) as person:
        before = person.readline()
        os.kill(int(person.readline()), signal.SIGKILL)
        reason, after = rest(person).splitlines(keepends=True)
        assert reason.startswith(b"unreachable: ")
        assert b"the connection was lost" in reason
        assert before == after
        assert person.exitstatus == LOST


def test_only_the_keyboard_has_to_be_a_terminal(machine: Rented, tmp_path: Path) -> None:
    with at(machine, "stty size; echo err >&2", f'"$@" >"{tmp_path}/out"') as person:
        assert rest(person) == b""
        assert person.exitstatus == 0
    assert (tmp_path / "out").read_bytes() == b"25 90\r\nerr\r\n"


def test_without_a_terminal_there_is_a_clear_refusal(tmp_path: Path) -> None:
    with installation(tmp_path) as cli:
        cli.ok("launch", "--name", "x", "--no-push")
        done = cli("ssh", "x", "--", "echo in", stdin="typed\n", env={"PATH": str(tmp_path)})
        assert (done.code, done.out) == (2, "")
        assert "ssh needs a terminal" in done.err
        assert "gpucloud exec x -- CMD" in done.err
