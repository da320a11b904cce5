"""Sockets that lead through an SSH connection: their ends, their refusals, and what becomes of them."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpucloud.errors import HostUnreachable, PortClosed, RemoteError
from gpucloud.model import SshAddress
from gpucloud.remote.connection import Client, Connection, Endpoint, connect
from tests.harness.far_side import cut, free_port, read_all, serving, sessions
from tests.harness.sshd import SshHost, generate_key, openssh_host
from tests.harness.waiting import eventually

pytestmark = pytest.mark.needs_sshd

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    with openssh_host(tmp_path_factory.mktemp("box")) as host:
        yield host


@pytest.fixture(params=[Client.BUILTIN, Client.OPENSSH])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


def but_openssh(reason: str) -> pytest.MarkDecorator:
    """For what a master of OpenSSH's does otherwise, as its own ``ssh -W`` does."""
    flaw = pytest.mark.xfail(strict=True, reason=reason)
    return pytest.mark.parametrize("client", [Client.BUILTIN, pytest.param(Client.OPENSSH, marks=flaw)])


@pytest.fixture
def connection(host: SshHost, client: Client) -> Iterator[Connection]:
    with connected(host, client) as connection:
        yield connection


def connected(host: SshHost, client: Client, identity: Path | None = None) -> Connection:
    address = SshAddress(host.host, host.port, host.user)
    endpoint = Endpoint(address, identity or host.identity, host.name)
    return connect(endpoint, timeout_s=15, client=client)


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def answer_with_digest(client: socket.socket) -> None:
    client.sendall(digest(read_all(client)))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def through(connection: Connection, port: int) -> socket.socket:
    tunnel = connection.through((HERE, port))
    tunnel.settimeout(60)
    return tunnel


def test_an_answer_comes_after_the_end_of_the_question(connection: Connection) -> None:
    data = os.urandom(8_000_000)
    with serving(answer_with_digest) as port, through(connection, port) as tunnel:
        tunnel.sendall(data)
        tunnel.shutdown(socket.SHUT_WR)
        assert read_all(tunnel) == digest(data)


@but_openssh("it ends both ways once the far side has ended its own")
def test_the_far_side_may_end_its_half_first(connection: Connection) -> None:
    heard: list[bytes] = []

    def speak_then_listen(client: socket.socket) -> None:
        client.sendall(b"over")
        client.shutdown(socket.SHUT_WR)
        heard.append(read_all(client))

    with serving(speak_then_listen) as port, through(connection, port) as tunnel:
        assert read_all(tunnel) == b"over"
        tunnel.sendall(b"still here")
        tunnel.shutdown(socket.SHUT_WR)
        assert eventually(lambda: heard) == [b"still here"]


def test_many_at_once_do_not_mix(connection: Connection) -> None:
    def ask(number: int) -> bool:
        data = str(number).encode() * 50_000
        with through(connection, port) as tunnel:
            tunnel.sendall(data)
            tunnel.shutdown(socket.SHUT_WR)
            return read_all(tunnel) == digest(data)

    with serving(answer_with_digest) as port, ThreadPoolExecutor(40) as pool:
        assert all(pool.map(ask, range(80)))


def test_one_that_is_not_read_holds_the_far_side_up_and_no_other(connection: Connection) -> None:
    sent: list[int] = []

    def pour(client: socket.socket) -> None:
        client.settimeout(1)
        total = 0
        try:
            while total < 200_000_000:
                total += client.send(bytes(65536))
        finally:
            sent.append(total)

    with (
        serving(pour) as port,
        serving(answer_with_digest) as other,
        through(connection, port),
        through(connection, other) as tunnel,
    ):
        assert eventually(lambda: sent)[0] < 100_000_000
        tunnel.sendall(b"x")
        tunnel.shutdown(socket.SHUT_WR)
        assert read_all(tunnel) == digest(b"x")


def test_who_leaves_is_missed_at_the_far_side(connection: Connection) -> None:
    ended = threading.Event()

    def speak_for_ever(client: socket.socket) -> None:
        try:
            while True:
                client.sendall(bytes(1000))
        finally:
            ended.set()

    with serving(speak_for_ever) as port:
        through(connection, port).close()
        assert eventually(ended.is_set)


def test_who_leaves_is_missed_by_one_who_only_listens(connection: Connection) -> None:
    heard: list[bytes] = []
    with serving(lambda client: heard.append(read_all(client))) as port:
        with through(connection, port) as tunnel:
            tunnel.sendall(b"all of it")
        assert eventually(lambda: heard) == [b"all of it"]


def test_threads_and_descriptors_are_given_back(connection: Connection) -> None:
    with serving(answer_with_digest) as port:

        def ask() -> None:
            with through(connection, port) as tunnel:
                tunnel.shutdown(socket.SHUT_WR)
                read_all(tunnel)

        ask()
        before = descriptors()
        for _ in range(20):
            ask()
        eventually(lambda: not any(t.name.startswith("ssh-tunnel") for t in threading.enumerate()))
        assert eventually(lambda: descriptors() <= before)


def test_a_port_where_nothing_answers_is_told_from_a_host_that_does_not(connection: Connection) -> None:
    port = free_port()
    with pytest.raises(PortClosed) as caught:
        connection.through((HERE, port))
    assert f"127.0.0.1:{port}" in caught.value.message
    assert connection.run("echo in").stdout == b"in\n"


def test_many_refusals_at_once_are_all_of_the_port(connection: Connection) -> None:
    port = free_port()

    def refused(_: int) -> bool:
        try:
            connection.through((HERE, port))
        except PortClosed:
            return True
        return False

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(refused, range(40)))


@but_openssh("it passes on that it was refused, and not why")
def test_a_host_that_lets_nobody_through_is_told(tmp_path: Path, client: Client) -> None:
    key = tmp_path / "restricted"
    line = generate_key(key)
    with (
        openssh_host(tmp_path / "box", authorized=f"no-port-forwarding {line}") as host,
        connected(host, client, key) as connection,
        serving(answer_with_digest) as port,
        pytest.raises(RemoteError, match="lets nobody through") as caught,
    ):
        connection.through((HERE, port))
    assert not isinstance(caught.value, PortClosed | HostUnreachable)


def test_a_lost_connection_ends_what_it_carried(tmp_path: Path, client: Client) -> None:
    with (
        openssh_host(tmp_path / "box") as host,
        connected(host, client) as connection,
        serving(lambda client: client.recv(1)) as port,
        through(connection, port) as tunnel,
    ):
        cut(sessions(host.pid))
        assert tunnel.recv(1) == b""
        with pytest.raises(HostUnreachable):
            connection.check()
        with pytest.raises(HostUnreachable):
            connection.through((HERE, port))
