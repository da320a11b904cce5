"""Interactive sessions: a real terminal on the other side, with either SSH server."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paramiko
import pexpect
import pytest

from tests.harness.waiting import eventually
from tests.providers.rented import Rented, processes


@contextmanager
def terminal(machine: Rented, command: str, width: int = 132, height: int = 43) -> Iterator[paramiko.Channel]:
    """A command with a terminal of that size."""
    with machine.builtin() as connection:
        channel = connection.open_channel()
        channel.settimeout(20)
        channel.get_pty("xterm-256color", width, height)
        channel.exec_command(command)
        yield channel


def everything(channel: paramiko.Channel) -> bytes:
    """All that a terminal shows until its command ends."""
    return b"".join(iter(lambda: channel.recv(65536), b""))


def until(channel: paramiko.Channel, wanted: bytes) -> bytes:
    """What a terminal shows up to and with ``wanted``."""
    shown = b""
    while wanted not in shown:
        data = channel.recv(65536)
        assert data, shown
        shown += data
    return shown


def test_a_terminal_has_a_name_a_kind_a_size_and_both_outputs(machine: Rented) -> None:
    with terminal(
        machine, "tty; echo $TERM; stty size; test -t 0 && test -t 2; echo $? >&2; exit 9"
    ) as channel:
        shown = everything(channel).split(b"\r\n")
        assert channel.recv_exit_status() == 9
    assert shown[0].startswith(b"/dev/pts/")
    assert shown[1:] == [b"xterm-256color", b"43 132", b"0", b""]


def test_a_window_that_changes_its_size_is_followed(machine: Rented) -> None:
    command = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    with terminal(machine, command) as channel:
        until(channel, b"ready\r\n")
        channel.resize_pty(width=77, height=11)
        assert everything(channel).endswith(b"11 77\r\n")


def test_what_is_typed_is_echoed_once_and_arrives(machine: Rented) -> None:
    with terminal(machine, "read line; echo got $line") as channel:
        channel.sendall(b"some words\n")
        assert everything(channel) == b"some words\r\ngot some words\r\n"


def test_ctrl_c_interrupts_the_command_and_ctrl_d_ends_its_input(machine: Rented) -> None:
    command = (
        "trap 'echo interrupted; on=' INT; on=1; echo on; while [ $on ]; do sleep 0.05; done; cat; echo over"
    )
    with terminal(machine, command) as channel:
        until(channel, b"on\r\n")
        channel.sendall(b"\x03")
        until(channel, b"interrupted\r\n")
        channel.sendall(b"last\n\x04")
        assert everything(channel) == b"last\r\nlast\r\nover\r\n"


def test_a_login_shell_starts_at_home(machine: Rented) -> None:
    with machine.builtin() as connection:
        channel = connection.open_channel()
        channel.settimeout(20)
        channel.get_pty("dumb", 80, 24)
        channel.invoke_shell()
        channel.sendall(b"pwd -P; echo is $((40 + 2)); exit 3\n")
        shown = everything(channel).decode()
        assert channel.recv_exit_status() == 3
    assert str((machine.folder / "home").resolve()) in shown
    assert "is 42" in shown


def test_a_large_output_through_a_terminal_is_exact(machine: Rented) -> None:
    size = 8_000_000
    with terminal(machine, f"stty raw; head -c {size} /dev/zero | tr '\\0' y; printf end") as channel:
        digest = hashlib.sha256()
        for data in iter(lambda: channel.recv(65536), b""):
            digest.update(data)
        assert channel.recv_exit_status() == 0
    assert digest.digest() == hashlib.sha256(b"y" * size + b"end").digest()


def test_a_program_that_reads_nothing_holds_up_nobody_else(machine: Rented) -> None:
    with terminal(machine, "stty raw -echo; echo deaf; exec sleep 1000") as channel:
        until(channel, b"deaf")
        channel.setblocking(False)
        with pytest.raises(socket.timeout):
            while True:
                channel.send(bytes(65536))
        assert machine.say("echo served") == "served"


def test_a_terminal_ends_with_its_command_and_takes_what_is_left_in_it_along(machine: Rented) -> None:
    mark = f"{1000 + os.getpid()}.25"
    with terminal(machine, f"sleep {mark} & echo started; exit 5") as channel:
        assert everything(channel) == b"started\r\n"
        assert channel.recv_exit_status() == 5
    eventually(lambda: not processes(mark))


def test_a_terminal_is_hung_up_when_its_client_is_gone(machine: Rented, tmp_path: Path) -> None:
    report = tmp_path / "report"
    with terminal(
        machine, f"trap 'echo hung up >{report}; exit' HUP; echo $$; while :; do sleep 0.05; done"
    ) as channel:
        pid = int(until(channel, b"\n"))
        channel.get_transport().sock.shutdown(socket.SHUT_RDWR)
        eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert report.read_text() == "hung up\n"
    with terminal(machine, "echo the next one works") as channel:
        assert everything(channel) == b"the next one works\r\n"


# pexpect forks, which newer Pythons warn of when there have been threads.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.needs_sshd
@pytest.mark.parametrize("term", ["xterm", ""])
def test_the_systems_ssh_is_at_home_in_it(machine: Rented, term: str) -> None:
    words = machine.ssh("-tt", machine.login)
    environment = {**os.environ, "TERM": term}
    ssh = pexpect.spawn(words[0], words[1:], dimensions=(25, 90), timeout=20, env=environment)
    try:
        ssh.expect("[#$] ")
        ssh.sendline("PS1=; stty -echo; echo be''gin")
        ssh.expect_exact("begin\r\n")
        ssh.sendline("stty size")
        ssh.expect_exact("25 90\r\n")
        ssh.setwinsize(33, 101)
        ssh.sendline("until test \"$(stty size)\" = '33 101'; do sleep 0.05; done; echo res''ized")
        ssh.expect_exact("resized\r\n")
        ssh.sendline("sh -c \"echo slee''ping; exec sleep 1000\"")
        # An interrupt throws away what was typed and not yet read.
        ssh.expect_exact("sleeping\r\n")
        ssh.sendintr()
        ssh.sendline("echo $?")
        ssh.expect_exact("130\r\n")
        ssh.sendline("exit 12")
        ssh.expect(pexpect.EOF)
    finally:
        ssh.close()
    assert ssh.exitstatus == 12
