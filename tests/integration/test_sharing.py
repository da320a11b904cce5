"""Connections that are shared: by commands one after the other, at the same time, and after accidents."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import HostKeyChanged, HostUnreachable
from gpucloud.model import SshAddress
from gpucloud.remote import mux, sockets
from gpucloud.remote.builtin import Builtin
from gpucloud.remote.connection import Client, Connection, Endpoint, connect, forget
from gpucloud.remote.multiplexed import Multiplexed
from gpucloud.remote.mux import Control, Gone
from gpucloud.remote.streams import Reader
from tests.harness.netns import namespace_hosts
from tests.harness.sshd import SshHost, logins, openssh_host, replace_host_key, restart, stop
from tests.harness.waiting import eventually

pytestmark = pytest.mark.needs_sshd


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SshHost]:
    with openssh_host(tmp_path / "box") as host:
        yield host
        forget(endpoint(host))


def endpoint(host: SshHost, **changes: Any) -> Endpoint:
    there = SshAddress(host.host, host.port, host.user)
    return replace(Endpoint(there, host.identity, host.name, host.host_key), **changes)


def shared(to: Endpoint, timeout_s: float = 15) -> Connection:
    return connect(to, timeout_s=timeout_s, persist_s=60, client=Client.OPENSSH)


def say(to: Endpoint, timeout_s: float = 15) -> bytes:
    """What a command says over the connection that is shared."""
    with shared(to, timeout_s) as connection:
        return connection.run("echo in").stdout


def master(to: Endpoint) -> int:
    """The process that holds the shared connection."""
    with Control(sockets.shared(to)) as control:
        return control.pid()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_commands_one_after_the_other_log_in_once(host: SshHost) -> None:
    for pinned in (None, host.host_key, f"{host.host_key} a comment", host.host_key):
        assert say(endpoint(host, pinned=pinned)) == b"in\n"
    assert logins(host) == 1


def test_commands_that_come_at_once_log_in_once(host: SshHost) -> None:
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda _: say(endpoint(host)), range(12))) == [b"in\n"] * 12
    assert logins(host) == 1
    assert not list(sockets.folder().glob(f"{sockets.shared(endpoint(host)).name}*.lock"))


def test_one_that_is_not_shared_ends_with_its_object(host: SshHost) -> None:
    with connect(endpoint(host), timeout_s=15, client=Client.OPENSSH) as connection:
        assert isinstance(connection, Multiplexed)
        pid = connection._pid
        assert running(pid)
    eventually(lambda: not running(pid))
    with pytest.raises(Gone):
        master(endpoint(host))


def test_another_host_key_another_user_and_another_key_share_nothing(host: SshHost, tmp_path: Path) -> None:
    assert say(endpoint(host)) == b"in\n"
    copy = tmp_path / "copy"
    shutil.copy(host.identity, copy)
    assert say(endpoint(host, identity=copy)) == b"in\n"
    assert logins(host) == 2
    changed = replace_host_key(host)
    # What is open leads to where it has led; a new one is looked at.
    assert say(endpoint(host)) == b"in\n"
    assert say(endpoint(changed)) == b"in\n"
    forget(endpoint(host))
    with pytest.raises(HostKeyChanged):
        say(endpoint(host))
    forget(endpoint(changed))


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_after_the_death_of_the_master_there_is_a_new_one(host: SshHost, death: signal.Signals) -> None:
    with shared(endpoint(host)) as connection:
        connection.run("true")
        pid = master(endpoint(host))
        os.kill(pid, death)
        eventually(lambda: not running(pid))
        with pytest.raises(HostUnreachable, match="does not answer"):
            connection.run("true")
    assert say(endpoint(host)) == b"in\n"
    assert logins(host) == 2


def test_a_master_that_is_killed_under_a_command_is_no_end_of_it(host: SshHost) -> None:
    def strike(output: Reader) -> None:
        assert output.read(20) == b"on\n"
        os.kill(master(endpoint(host)), signal.SIGKILL)
        output.read(20)
        pytest.fail("that was taken for the end of the output")

    with shared(endpoint(host)) as connection, pytest.raises(HostUnreachable) as caught:
        connection.run("echo on; exec sleep 1000", consume=strike)
    assert "the connection was lost" in caught.value.why


def test_a_host_that_was_restarted_is_connected_to_anew(host: SshHost) -> None:
    with shared(endpoint(host)) as connection:
        server = int(connection.run("echo $PPID").stdout)
    os.kill(server, signal.SIGKILL)
    assert say(endpoint(restart(host))) == b"in\n"
    assert logins(host) == 2


def test_a_host_that_is_gone_is_told_when_the_shared_connection_is_gone_too(host: SshHost) -> None:
    with shared(endpoint(host)) as connection:
        server = int(connection.run("echo $PPID").stdout)
    stop(host)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(HostUnreachable, match=f"{host.name} does not answer"):
        say(endpoint(host))


def test_a_server_that_hangs_behind_the_shared_connection_is_left_for_a_new_one(host: SshHost) -> None:
    with shared(endpoint(host)) as connection:
        server = int(connection.run("echo $PPID").stdout)
        old = master(endpoint(host))
    os.kill(server, signal.SIGSTOP)
    try:
        assert say(endpoint(host), timeout_s=3) == b"in\n"
    finally:
        os.kill(server, signal.SIGKILL)
    assert not running(old)
    assert master(endpoint(host)) != old


@pytest.mark.needs_netns
def test_a_line_that_swallows_everything_is_noticed_and_healed(tmp_path: Path) -> None:
    with namespace_hosts(1, folder=tmp_path) as network:
        there = endpoint(network.hosts[0])
        assert say(there) == b"in\n"
        old = master(there)
        network.link("host1", down=True)
        with pytest.raises(HostUnreachable, match="host1 does not answer"):
            say(there, timeout_s=4)
        # Its command must not run when the line comes back.
        assert not running(old)
        network.link("host1", down=False)
        assert say(there) == b"in\n"
        forget(there)


def test_where_the_host_allows_no_more_sessions_there_is_another_connection(tmp_path: Path) -> None:
    with openssh_host(tmp_path, settings="MaxSessions 1") as host, shared(endpoint(host)) as connection:
        inside = threading.Event()
        outside = threading.Event()

        def hold(output: Reader) -> None:
            assert output.read(20) == b"in\n"
            inside.set()
            assert outside.wait(20)

        first = threading.Thread(target=connection.run, args=("echo in; cat",), kwargs={"consume": hold})
        first.start()
        assert inside.wait(20)
        try:
            done = connection.run("cat; exit 4", stdin=b"more")
        finally:
            outside.set()
            first.join()
        assert (done.status, done.stdout) == (4, b"more")
        assert logins(host) == 2
        forget(endpoint(host))


def test_a_socket_that_nobody_serves_is_no_obstacle(host: SshHost) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(sockets.shared(endpoint(host))))
    assert [say(endpoint(host)), say(endpoint(host))] == [b"in\n"] * 2
    assert logins(host) == 1


@contextmanager
def stranger(path: Path, says: bytes) -> Iterator[None]:
    """Something else that listens where a master should, and says this."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                kept.append(client)
                client.sendall(says)

        kept: list[socket.socket] = []
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in kept:
                client.close()


def test_what_speaks_another_protocol_there_is_left_alone(host: SshHost) -> None:
    with (
        stranger(sockets.shared(endpoint(host)), b"\0\0\0\x08\0\0\0\x01\0\0\0\x63"),
        connect(endpoint(host), timeout_s=15, persist_s=60) as connection,
    ):
        assert isinstance(connection, Builtin)
        assert connection.run("echo in").stdout == b"in\n"


def test_a_master_that_does_not_answer_is_replaced(host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux, "ANSWER_S", 0.5)
    with stranger(sockets.shared(endpoint(host)), b""):
        assert say(endpoint(host)) == b"in\n"


def test_who_uses_a_connection_that_is_given_up_goes_on_with_it(host: SshHost) -> None:
    def give_up(output: Reader) -> None:
        assert output.read(20) == b"on\n"
        forget(endpoint(host))

    with shared(endpoint(host)) as connection:
        pid = master(endpoint(host))
        done = connection.run("echo on; sleep 0.2; echo over", consume=give_up)
        assert (done.status, done.stdout) == (0, b"over\n")
    eventually(lambda: not running(pid))
    assert say(endpoint(host)) == b"in\n"
    assert logins(host) == 2


DRIVER = """\
import os, signal, sys
from pathlib import Path
from gpucloud.model import SshAddress
from gpucloud.remote import multiplexed
from gpucloud.remote.connection import Client, Endpoint, connect
host, port, user, key, pinned, persist, end = sys.argv[1:]
multiplexed.PRIVATE_S = 1
there = Endpoint(SshAddress(host, int(port), user), Path(key), "it", pinned)
connection = connect(there, timeout_s=15, persist_s=int(persist), client=Client.OPENSSH)
print(connection.run("echo in").stdout.decode(), connection._pid, flush=True)
if end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
connection.close()
"""


def driven(host: SshHost, persist_s: int, end: str) -> int:
    """Connect in a process of its own that ends so; returns the master's process id."""
    words = [host.host, str(host.port), host.user, str(host.identity), host.host_key, str(persist_s), end]
    # Returns only when nobody holds its pipes any more.
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    said, pid = done.stdout.split()
    assert said == "in"
    return int(pid)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_the_master_outlives_the_command_but_holds_none_of_its_pipes(host: SshHost, end: str) -> None:
    pid = driven(host, 60, end)
    assert running(pid)
    assert say(endpoint(host)) == b"in\n"
    assert logins(host) == 1
    held = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    assert not [target for target in held if target.startswith("pipe:")]


def test_one_that_is_not_shared_ends_soon_after_the_process_that_was_killed(host: SshHost) -> None:
    pid = driven(host, 0, "kill")
    eventually(lambda: not running(pid))


def test_a_master_ends_by_itself_when_nobody_uses_it(host: SshHost) -> None:
    pid = driven(host, 1, "close")
    eventually(lambda: not running(pid))
    assert say(endpoint(host)) == b"in\n"


def test_a_jump_host_is_logged_in_to_once_for_all_behind_it(host: SshHost, tmp_path: Path) -> None:
    with openssh_host(tmp_path / "hop") as hop, openssh_host(tmp_path / "other") as other:
        for target in (host, other, host, other):
            assert say(endpoint(target, jump=endpoint(hop))) == b"in\n"
        assert [logins(hop), logins(host), logins(other)] == [1, 1, 1]
        os.kill(master(endpoint(hop)), signal.SIGKILL)
        assert say(endpoint(host, jump=endpoint(hop))) == b"in\n"
        assert [logins(hop), logins(host)] == [2, 2]
        for left in (endpoint(host, jump=endpoint(hop)), endpoint(other, jump=endpoint(hop)), endpoint(hop)):
            forget(left)


def test_many_hosts_cost_one_descriptor_each(host: SshHost) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    held = [shared(endpoint(host)) for _ in range(20)]
    try:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 20
    finally:
        for connection in held:
            connection.close()
