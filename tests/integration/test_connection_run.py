"""What an SSH connection carries: commands with their streams, over jump hosts, until it is lost."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import HostKeyChanged, HostUnreachable, RemoteError
from gpucloud.model import SshAddress
from gpucloud.remote import liveness
from gpucloud.remote.connection import KILLED, Client, Connection, Endpoint, KeyRefused
from gpucloud.remote.connection import connect as connect_with
from gpucloud.remote.keys import identity, new_key_pair
from gpucloud.remote.streams import Reader, Writer
from tests.harness.netns import namespace_hosts
from tests.harness.sshd import SshHost, logins, openssh_host, stop
from tests.harness.waiting import eventually

MEGABYTES = 4_000_000


CLIENT = [Client.BUILTIN]
"""The client whose turn it is."""


@pytest.fixture(
    params=[Client.BUILTIN, pytest.param(Client.OPENSSH, marks=pytest.mark.needs_sshd)], autouse=True
)
def client(request: pytest.FixtureRequest) -> Client:
    """Each test is for either client."""
    CLIENT[0] = request.param
    return CLIENT[0]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    with openssh_host(tmp_path_factory.mktemp("box")) as host:
        yield host


@pytest.fixture
def connection(host: SshHost) -> Iterator[Connection]:
    with connect(endpoint(host)) as connection:
        yield connection


def endpoint(host: SshHost, **changes: Any) -> Endpoint:
    return replace(Endpoint(SshAddress(host.host, host.port, host.user), host.identity, host.name), **changes)


def connect(to: Endpoint) -> Connection:
    return connect_with(to, timeout_s=15, client=CLIENT[0])


def refusal(to: Endpoint) -> RemoteError:
    """The error that there is instead of a connection."""
    with pytest.raises(RemoteError) as caught:
        connect(to).close()
    return caught.value


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def endless(command: Writer) -> None:
    """Input that never ends."""
    while True:
        command.write(bytes(65536))


def fail(_: object) -> None:
    # As when a local disk is full; of the connection it says nothing.
    raise OSError(errno.ENOSPC, "no space left here")


FAILURES: dict[str, dict[str, Any]] = {
    "stdin": {"stdin": fail},
    "stdout": {"stdin": endless, "stdout": fail},
    "stderr": {"stdin": endless, "stderr": fail},
    "consume": {"stdin": endless, "consume": fail},
}


@pytest.mark.needs_sshd
@pytest.mark.parametrize("stream", FAILURES)
def test_what_a_stream_s_other_end_raises_comes_out_and_ends_the_command(
    connection: Connection, host: SshHost, stream: str
) -> None:
    assert host.home is not None
    pid = host.home / f"pid of {stream}"
    with pytest.raises(OSError, match="no space left here") as caught:
        connection.run(f"echo $$ >'{pid}'; echo out; echo err >&2; exec cat", **FAILURES[stream])
    assert caught.value.errno == errno.ENOSPC
    number = int(eventually(lambda: pid.exists() and pid.read_text()) or 0)
    eventually(lambda: not alive(number))
    assert connection.run("echo on").stdout == b"on\n"


@pytest.mark.needs_sshd
def test_all_three_streams_are_full_at_once_and_exact(connection: Connection) -> None:
    data = os.urandom(MEGABYTES)
    out, err = bytearray(), bytearray()
    command = "cat >f; (cat f >&2)& cat f; wait; cat f >&2; cat f; exit 7"
    done = connection.run(command, stdin=data, stdout=out.extend, stderr=err.extend)
    assert (done.status, done.stdout, done.stderr) == (7, b"", b"")
    assert out == err == data * 2


@pytest.mark.needs_sshd
def test_a_command_is_fed_while_it_is_read(connection: Connection) -> None:
    echoed: list[bytes] = []
    arrived = threading.Event()

    def talk(command: Writer) -> None:
        command.write(b"first\n")
        assert arrived.wait(20)
        command.write(b"\0\xff\r\n")

    def listen(output: Reader) -> None:
        echoed.append(output.read(6))
        arrived.set()

    done = connection.run("cat; echo complaint >&2", stdin=talk, consume=listen)
    # What the reader leaves is not lost.
    assert (done.status, b"".join(echoed) + done.stdout) == (0, b"first\n\0\xff\r\n")
    assert done.stderr == b"complaint\n"


@pytest.mark.needs_sshd
def test_a_keyboard_that_stays_open_does_not_hold_up_the_end(connection: Connection) -> None:
    idle, typed = os.pipe()
    try:
        done = connection.run("exit 3", stdin=lambda _: os.read(idle, 1), endless_stdin=True)
        assert done.status == 3
    finally:
        os.close(typed)
        # The thread that reads it ends with it.
        eventually(lambda: not [t for t in threading.enumerate() if t.name == "ssh-stream"])
        os.close(idle)


@pytest.mark.needs_sshd
@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
def test_a_command_that_a_signal_ends_has_no_status_of_its_own(connection: Connection, name: str) -> None:
    done = connection.run(f"echo before; kill -{name} $$; echo after")
    assert (done.status, done.stdout) == (KILLED, b"before\n")
    assert connection.run("exit 0").status == 0


@pytest.mark.needs_sshd
def test_commands_run_side_by_side_over_one_connection(connection: Connection) -> None:
    found: dict[int, bytes] = {}

    def one(number: int) -> None:
        found[number] = connection.run(f"cat; echo {number}", stdin=b"x" * 100_000).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: b"x" * 100_000 + f"{number}\n".encode() for number in range(8)}


def lost(connection: Connection, how: signal.Signals, command: str = "exec cat", **streams: Any) -> str:
    """Why a command broke off whose session's server got a signal once it ran."""

    servers: list[int] = []

    def strike(output: Reader) -> None:
        servers.append(int(output.read(20)))
        os.kill(servers[0], how)
        while output.read(20):
            pass
        pytest.fail("that was taken for the end of the output")

    with pytest.raises(HostUnreachable) as caught:
        connection.run(f"echo $PPID; {command}", consume=strike, **streams)
    # Nobody else would end one that was only stopped.
    with suppress(ProcessLookupError):
        os.kill(servers[0], signal.SIGKILL)
    return caught.value.why


@pytest.mark.needs_sshd
@pytest.mark.parametrize("stdin", [b"", b"x" * MEGABYTES, endless], ids=["none", "much", "endless"])
def test_a_connection_that_breaks_off_under_a_command_is_no_end_of_it(
    connection: Connection, stdin: Any
) -> None:
    why = lost(connection, signal.SIGKILL, "exec sleep 1000", stdin=stdin)
    assert f"127.0.0.1:{connection.endpoint.address.port}: the connection was lost" in why
    with pytest.raises(HostUnreachable):
        connection.run("true")
    with pytest.raises(HostUnreachable):
        connection.check()


@pytest.mark.needs_sshd
def test_a_server_that_hangs_is_a_lost_connection(host: SshHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "KEEPALIVE_S", 0.1)
    monkeypatch.setattr(liveness, "DEAD_AFTER_S", 0.5)
    with connect(endpoint(host)) as connection:
        assert "the connection was lost" in lost(connection, signal.SIGSTOP, "exec sleep 1000")


@pytest.mark.needs_sshd
def test_a_host_that_answers_but_says_nothing_is_waited_for(
    host: SshHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "KEEPALIVE_S", 0.1)
    monkeypatch.setattr(liveness, "DEAD_AFTER_S", 1.5)
    with connect(endpoint(host)) as connection:
        assert connection.run("sleep 2; echo there").stdout == b"there\n"


@pytest.mark.needs_netns
def test_a_line_that_goes_dead_is_a_lost_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "KEEPALIVE_S", 0.1)
    monkeypatch.setattr(liveness, "DEAD_AFTER_S", 0.5)
    with namespace_hosts(1, folder=tmp_path) as network, connect(endpoint(network.hosts[0])) as connection:

        def cut(output: Reader) -> None:
            assert output.read(20) == b"on\n"
            network.link("host1", down=True)

        with pytest.raises(HostUnreachable, match="host1 does not answer"):
            connection.run("echo on; exec sleep 1000", consume=cut)


@pytest.mark.needs_sshd
def test_a_jump_host_that_is_lost_takes_the_connection_along(host: SshHost, tmp_path: Path) -> None:
    with openssh_host(tmp_path) as hop, connect(endpoint(host, jump=endpoint(hop))) as connection:
        assert connection.jump is not None
        server = int(connection.jump.run("echo $PPID").stdout)

        def strike(output: Reader) -> None:
            assert output.read(20) == b"on\n"
            os.kill(server, signal.SIGKILL)

        with pytest.raises(HostUnreachable, match=host.name):
            connection.run("echo on; exec sleep 1000", consume=strike)


@pytest.mark.needs_netns
def test_a_jump_host_is_where_the_connection_comes_from(tmp_path: Path) -> None:
    with namespace_hosts(2, folder=tmp_path) as network:
        hop, target = network.hosts
        way = endpoint(target, pinned=target.host_key, jump=endpoint(hop, pinned=hop.host_key))
        with connect(way) as connection:
            assert connection.run("echo ${SSH_CLIENT%% *} $(hostname)").stdout.split() == [
                hop.host.encode(),
                target.name.encode(),
            ]
            assert connection.jump is not None
            assert (connection.jump.host_key, connection.host_key) == (hop.host_key, target.host_key)


@pytest.mark.needs_sshd
def test_whichever_of_two_hosts_fails_is_the_one_that_is_named(host: SshHost, tmp_path: Path) -> None:
    with openssh_host(tmp_path / "hop") as hop:
        hop_key, nobody = identity(tmp_path).file, new_key_pair().public
        ways: dict[str, tuple[Endpoint, type[RemoteError]]] = {
            f"{hop.name} refused": (endpoint(host, jump=endpoint(hop, identity=hop_key)), KeyRefused),
            f"{host.name} refused": (endpoint(host, identity=hop_key, jump=endpoint(hop)), KeyRefused),
            f"{hop.name} showed": (endpoint(host, jump=endpoint(hop, pinned=nobody)), HostKeyChanged),
            f"{host.name} showed": (endpoint(host, pinned=nobody, jump=endpoint(hop)), HostKeyChanged),
        }
        before = threading.active_count()
        for message, (way, kind) in ways.items():
            error = refusal(way)
            assert isinstance(error, kind)
            assert error.message.startswith(message)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            gone = replace(endpoint(host, jump=endpoint(hop)), address=SshAddress(*closed.getsockname()))
            error = refusal(gone)
        assert isinstance(error, HostUnreachable)
        assert error.message.startswith(host.name)
        stop(hop)
        error = refusal(endpoint(host, jump=endpoint(hop)))
        assert isinstance(error, HostUnreachable)
        assert error.message.startswith(hop.name)
        # Else a connection to the jump host would be left open.
        eventually(lambda: threading.active_count() <= before)


@pytest.mark.needs_sshd
def test_keys_agent_and_settings_of_the_user_play_no_part(host: SshHost, tmp_path: Path, home: Path) -> None:
    theirs = home / ".ssh"
    theirs.mkdir(mode=0o700)
    contents = {
        "known_hosts": f"[127.0.0.1]:{host.port} {new_key_pair().public}\n".encode(),
        "config": b"Host *\n  ProxyCommand false\n  Port 1\n  User nobody\n",
        "id_ed25519": host.identity.read_bytes(),
    }
    for name, content in contents.items():
        (theirs / name).write_bytes(content)
        (theirs / name).chmod(0o600)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.PIPE)
    with agent, pytest.MonkeyPatch.context() as environment:
        assert agent.stdout is not None and agent.stdout.readline()
        environment.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-add", "-q", str(host.identity)], check=True, stdin=subprocess.DEVNULL)
        try:
            with connect(endpoint(host)) as connection:
                assert connection.run("echo in").stdout == b"in\n"
            ours = identity(tmp_path).file
            assert "refused our SSH key" in refusal(endpoint(host, identity=ours)).message
        finally:
            agent.terminate()
    assert {file.name: file.read_bytes() for file in theirs.iterdir()} == contents


@contextmanager
def echoing(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server that says all it was told once the other side has said everything, then ``answer``."""

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                told = b"".join(iter(partial(client.recv, 65536), b""))
                client.sendall(told + answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=serve)
        serving.start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)
        serving.join()


@pytest.mark.needs_sshd
def test_a_socket_leads_through_the_host_and_each_way_ends_by_itself(connection: Connection) -> None:
    data = os.urandom(MEGABYTES)
    with echoing(b"over") as place:
        for _ in range(3):
            with connection.through(place) as through:
                through.settimeout(30)

                def tell(through: socket.socket = through) -> None:
                    through.sendall(data)
                    through.shutdown(socket.SHUT_WR)

                sender = threading.Thread(target=tell)
                sender.start()
                heard = b"".join(iter(partial(through.recv, 65536), b""))
                sender.join()
            assert heard == data + b"over"
    eventually(lambda: not [t for t in threading.enumerate() if t.name == "ssh-tunnel"])


@pytest.mark.needs_sshd
def test_a_place_where_nothing_answers_is_named_and_the_connection_goes_on(connection: Connection) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(RemoteError) as caught:
            connection.through(("127.0.0.1", port))
    assert not isinstance(caught.value, HostUnreachable)
    assert f"127.0.0.1:{port}" in caught.value.message
    assert connection.run("echo on").stdout == b"on\n"


@pytest.mark.needs_sshd
def test_an_extra_connection_has_a_stream_of_its_own(connection: Connection, host: SshHost) -> None:
    before = logins(host)
    servers = {connection.run("echo $PPID").stdout}
    for lane in (1, 2):
        with connection.extra(lane) as extra:
            assert extra.host_key == connection.host_key
            servers.add(extra.run("echo $PPID").stdout)
    assert len(servers) == 3
    assert logins(host) == before + 2
    assert connection.run("echo on").stdout == b"on\n"


PROXY = """\
import socket, sys, threading, os
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while data := far.recv(65536): os.write(1, data)
    os._exit(0)
threading.Thread(target=back, daemon=True).start()
while data := os.read(0, 65536): far.sendall(data)
"""


@pytest.mark.needs_sshd
def test_a_command_can_be_the_way_to_a_host(host: SshHost, tmp_path: Path) -> None:
    program = tmp_path / "a 100% proxy's program"
    program.write_text(PROXY)
    proxy = (sys.executable, str(program), "%h", "%p")
    address = SshAddress(host.host, host.port, host.user, proxy=proxy)
    with connect(endpoint(host, address=address)) as connection:
        data = os.urandom(300_000)
        assert connection.run("cat", stdin=data).stdout == data
        assert connection.host_key == host.host_key


@pytest.mark.needs_sshd
@pytest.mark.parametrize("proxy", [("/nonexistent/proxy",), ("sh", "-c", "echo no tunnel today >&2; exit 1")])
def test_a_way_that_leads_nowhere_is_a_host_that_does_not_answer(
    host: SshHost, proxy: tuple[str, ...]
) -> None:
    address = SshAddress(host.host, host.port, host.user, proxy=proxy)
    assert isinstance(refusal(endpoint(host, address=address)), HostUnreachable)


@pytest.mark.needs_sshd
def test_nothing_is_left_open_by_commands(connection: Connection) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    connection.run("true")
    before = descriptors()
    for _ in range(5):
        connection.run("cat; exit 3", stdin=b"x" * 200_000)
        connection.run("cat", stdin=lambda command: command.write(b"x"))
        with pytest.raises(OSError, match="no space"):
            connection.run("echo x", stdout=fail)
    eventually(lambda: descriptors() <= before)
