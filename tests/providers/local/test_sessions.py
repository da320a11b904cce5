"""What a command sees and does in an instance: the same with either SSH server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import paramiko
import pytest

from gpucloud.remote.streams import Reader
from gpucloud_local.api import read
from tests.harness.waiting import eventually
from tests.providers.rented import Rented, processes

MEGABYTES = 50

T = TypeVar("T")


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 255])
def test_the_status_of_a_command_comes_back(machine: Rented, status: int) -> None:
    assert machine.run(f"exit {status}").status == status


def test_a_session_knows_its_connection_as_with_any_sshd(machine: Rented) -> None:
    client, client_port, server, server_port = machine.say('echo "$SSH_CONNECTION"').split()
    assert (client, server) == ("127.0.0.1", "127.0.0.1")
    assert int(server_port) == machine.address.port
    assert 0 < int(client_port) < 65536
    with machine.connect() as one, machine.connect() as other:
        said = [connection.run('echo "$SSH_CONNECTION"').stdout for connection in (one, one, other)]
    assert said[0] == said[1] != said[2]


def test_a_session_in_a_terminal_knows_its_connection_too(machine: Rented) -> None:
    words = machine.ssh("-tt", machine.login, 'echo "<$SSH_CONNECTION>"')
    done = subprocess.run(words, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert f" 127.0.0.1 {machine.address.port}>" in done.stdout


def test_a_command_that_is_not_there_is_127(machine: Rented) -> None:
    done = machine.run("no-such-program")
    assert (done.status, done.stdout) == (127, b"")
    assert b"no-such-program" in done.stderr


def test_output_and_error_output_are_told_apart(machine: Rented) -> None:
    done = machine.run("echo out; echo err >&2; echo more")
    assert (done.stdout, done.stderr) == (b"out\nmore\n", b"err\n")


def test_input_arrives_whole_and_ends(machine: Rented) -> None:
    data = os.urandom(1_000_000)
    done = machine.run("cat", data)
    assert done.status == 0
    assert done.stdout == data


def test_a_command_that_does_not_read_its_input_is_not_held_up(machine: Rented) -> None:
    done = machine.run("exec <&-; echo done; exit 4", os.urandom(5_000_000))
    assert (done.status, done.stdout) == (4, b"done\n")


def test_a_large_output_is_exact_and_its_end_is_not_cut_off(machine: Rented) -> None:
    size = MEGABYTES * 1_000_000
    script = f"head -c {size} /dev/zero | tr '\\0' x; printf end; exit 3"
    digest, length = hashlib.sha256(), 0

    def consume(reader: Reader) -> None:
        nonlocal length
        while data := reader.read(65536):
            digest.update(data)
            length += len(data)

    with machine.connect() as connection:
        done = connection.run(script, consume=consume)
    assert done.status == 3
    assert length == size + 3
    assert digest.digest() == hashlib.sha256(b"x" * size + b"end").digest()


def test_the_end_of_the_output_is_said_before_the_command_is_over(machine: Rented) -> None:
    with machine.builtin() as connection:
        for command in ("echo output", "exit 1", "kill -9 $$"):
            with connection.open_channel() as channel:
                channel.exec_command(command)
                eventually(partial(getattr, channel, "closed"))
                assert channel.eof_received


def test_an_empty_request_is_a_shell_that_reads_its_input(machine: Rented) -> None:
    async def talk() -> tuple[str | bytes | None, int | None]:
        async with connected(machine) as connection:
            done = await connection.run(None, input="echo $((6 * 7)); exit 5\n", check=False)
            return done.stdout, done.returncode

    assert within_reason(talk()) == ("42\n", 5)


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "USR1", "SEGV"])
def test_a_command_that_a_signal_ends_is_told_from_one_that_exits(machine: Rented, name: str) -> None:
    async def talk() -> tuple[int | None, str | None]:
        async with connected(machine) as connection:
            done = await connection.run(f"kill -{name} $$", check=False)
            assert done.exit_signal is not None
            return done.exit_status, done.exit_signal[0]

    assert within_reason(talk()) == (-1, name)


def test_a_signal_without_a_name_ends_a_command_and_not_the_connection(machine: Rented) -> None:
    with machine.connect() as connection:
        assert connection.run("kill -40 $$").status != 0
        assert connection.run("exit 6").status == 6


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1"])
def test_a_signal_of_the_client_reaches_the_command(machine: Rented, name: str) -> None:
    if kind(machine) == "openssh":
        pytest.skip("sshd passes no signals on to a forced command")

    async def talk() -> str:
        async with connected(machine) as connection:
            command = f"trap 'echo caught {name}; exit 0' {name}; echo ready; while :; do sleep 0.05; done"
            async with connection.create_process(command) as process:
                assert await process.stdout.readline() == "ready\n"
                process.send_signal("NONSENSE")
                process.send_signal(name)
                return str(await process.stdout.readline())

    assert within_reason(talk()) == f"caught {name}\n"


def test_background_work_that_is_detached_does_not_hold_up_the_end(machine: Rented) -> None:
    mark = f"{hash(machine.folder) % 10_000_000}.5"
    assert machine.run(f"sleep {mark} </dev/null >/dev/null 2>&1 &").status == 0
    (pid,) = eventually(lambda: processes(mark))
    os.kill(pid, signal.SIGKILL)


def test_a_command_is_hung_up_on_when_its_client_is_killed(machine: Rented, tmp_path: Path) -> None:
    report = tmp_path / "report"
    command = (
        f"trap 'echo hung up >{report}; exit' HUP PIPE; echo $$; while :; do sleep 0.05; echo tick; done"
    )
    transport = paramiko.Transport((machine.address.host, machine.address.port))
    transport.start_client(timeout=15)
    transport.auth_publickey(machine.address.user, paramiko.PKey.from_path(machine.identity.file))
    channel = transport.open_session()
    channel.exec_command(command)
    pid = int(channel.makefile().readline())
    # As the kernel does it for a process that was killed.
    transport.sock.shutdown(socket.SHUT_RDWR)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert report.read_text() == "hung up\n"
    transport.close()


def test_a_silent_command_is_hung_up_on_too(machine: Rented) -> None:
    if kind(machine) == "openssh":
        pytest.skip("sshd leaves a command alone that writes nothing")
    transport = paramiko.Transport((machine.address.host, machine.address.port))
    transport.start_client(timeout=15)
    transport.auth_publickey(machine.address.user, paramiko.PKey.from_path(machine.identity.file))
    channel = transport.open_session()
    channel.exec_command("echo $$; exec >&- 2>&-; exec sleep 1000")
    pid = int(channel.makefile().readline())
    transport.sock.shutdown(socket.SHUT_RDWR)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    transport.close()


def test_thirty_connections_at_once_each_get_their_own_answer(machine: Rented) -> None:
    gate = threading.Barrier(30)

    def one(number: int) -> bytes:
        with machine.connect() as connection:
            gate.wait(60)
            return connection.run(f"echo {number}; cat", stdin=str(number).encode()).stdout

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(one, range(30))) == [f"{n}\n{n}".encode() for n in range(30)]


def test_one_connection_carries_many_commands_at_once(machine: Rented) -> None:
    async def talk() -> list[str]:
        async with connected(machine) as connection:
            done = await asyncio.gather(*(connection.run(f"sleep 0.1; echo {n}") for n in range(9)))
            return [str(each.stdout) for each in done]

    assert within_reason(talk()) == [f"{n}\n" for n in range(9)]


def test_a_port_of_the_instance_is_reached_through_the_connection(machine: Rented) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, machine.builtin() as connection:
        channel = connection._transport.open_channel(
            "direct-tcpip", server.getsockname()[:2], ("127.0.0.1", 0)
        )
        inner, _ = server.accept()
        with inner:
            channel.sendall(b"hello")
            assert inner.recv(5) == b"hello"
            inner.sendall(b"and back")
            assert channel.recv(8) == b"and back"


def test_files_travel_by_sftp_relative_to_home(machine: Rented, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    with machine.builtin() as connection:
        sftp = paramiko.SFTPClient.from_transport(connection._transport)
        assert sftp is not None
        assert sftp.normalize(".") == machine.say("pwd -P")
        sftp.put(str(tmp_path / "file"), "by sftp")
        sftp.get("by sftp", str(tmp_path / "back"))
        sftp.close()
    assert (tmp_path / "back").read_bytes() == data
    assert (machine.folder / "home" / "by sftp").read_bytes() == data


@pytest.mark.needs_sshd
@pytest.mark.parametrize("protocol", [(), ("-O",)], ids=["sftp", "legacy"])
def test_the_systems_scp_copies_a_folder_both_ways(
    machine: Rented, tmp_path: Path, protocol: tuple[str, ...]
) -> None:
    there, source = f"copied{len(protocol)}", tmp_path / "source"
    source.mkdir()
    (source / "a file").write_bytes(os.urandom(100_000))
    scp = [*machine.ssh(tool="scp", port="-P"), *protocol, "-q", "-r"]
    subprocess.run([*scp, str(source), f"{machine.login}:{there}"], check=True)
    subprocess.run([*scp, f"{machine.login}:{there}", str(tmp_path / "back")], check=True)
    assert (machine.folder / "home" / there / "a file").is_file()
    assert (tmp_path / "back" / "a file").read_bytes() == (source / "a file").read_bytes()


@pytest.mark.needs_sshd
def test_the_systems_sftp_works(machine: Rented, tmp_path: Path) -> None:
    if shutil.which("sftp") is None:
        pytest.skip("no sftp on this machine")
    (tmp_path / "batch").write_text(f'mkdir "from sftp"\ncd "from sftp"\nput {tmp_path}/batch\nls -l\n')
    command = [*machine.ssh(tool="sftp", port="-P"), "-b", str(tmp_path / "batch"), machine.login]
    subprocess.run(command, check=True, capture_output=True)
    assert (machine.folder / "home" / "from sftp" / "batch").is_file()


def within_reason(talk: Coroutine[Any, Any, T]) -> T:
    """What a conversation comes to; one that hangs is a failure."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await talk

    return asyncio.run(bounded())


def kind(machine: Rented) -> str:
    """Which SSH server an instance has."""
    return read(machine.folder).spec.sshd


@asynccontextmanager
async def connected(machine: Rented) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """An asyncssh connection, which can do what paramiko cannot."""
    async with asyncssh.connect(
        machine.address.host,
        machine.address.port,
        username=machine.address.user,
        client_keys=[str(machine.identity.file)],
        known_hosts=None,
        config=None,
        agent_path=None,
    ) as connection:
        yield connection
