"""Making an SSH connection: whose key is shown, whose is taken, and what is said when none comes about."""

from __future__ import annotations

import asyncio
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gpucloud.errors import HostKeyChanged, HostUnreachable, RemoteError
from gpucloud.model import SshAddress
from gpucloud.remote.connection import Client, Connection, Endpoint
from gpucloud.remote.connection import connect as connect_with
from gpucloud.remote.keys import identity, new_key_pair
from tests.harness.sshd import SshHost, generate_key, openssh_host, replace_host_key

KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa")


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


def endpoint(host: SshHost, **changes: Any) -> Endpoint:
    return replace(Endpoint(SshAddress(host.host, host.port, host.user), host.identity, host.name), **changes)


def connect(to: Endpoint, timeout_s: float = 15) -> Connection:
    return connect_with(to, timeout_s=timeout_s, client=CLIENT[0])


def refusal(to: Endpoint, timeout_s: float = 15) -> RemoteError:
    """The error that there is instead of a connection."""
    with pytest.raises(RemoteError) as caught:
        connect(to, timeout_s).close()
    return caught.value


class Door(asyncssh.SSHServer):
    """Notes who wants to log in; nobody may, and with ``silent`` nobody is told so either."""

    def __init__(self, seen: list[str], silent: bool, open_: list[asyncssh.SSHServerConnection]) -> None:
        self._seen = seen
        self._silent = silent
        self._open = open_

    def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
        """Somebody is there."""
        self._open.append(connection)

    async def begin_auth(self, username: str) -> bool:
        """A login begins."""
        self._seen.append(username)
        if self._silent:
            await asyncio.Event().wait()
        return True


@contextmanager
def doorman(
    keys: Sequence[asyncssh.SSHKey], folder: Path, *, silent: bool = False
) -> Iterator[tuple[Endpoint, list[str]]]:
    """A server with several host keys; gives its endpoint and the logins that were tried."""
    seen: list[str] = []
    ports: queue.Queue[int] = queue.Queue()
    closing = threading.Event()

    async def serve() -> None:
        open_: list[asyncssh.SSHServerConnection] = []
        acceptor = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=lambda: Door(seen, silent, open_), server_host_keys=list(keys)
        )
        ports.put(acceptor.get_port())
        await asyncio.to_thread(closing.wait)
        acceptor.close()
        await acceptor.wait_closed()
        for connection in open_:
            connection.abort()
            await connection.wait_closed()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield (
            Endpoint(SshAddress("127.0.0.1", ports.get(timeout=20), "ann"), identity(folder).file, "box"),
            seen,
        )
    finally:
        closing.set()
        thread.join()


@pytest.fixture(scope="module")
def host_keys() -> dict[str, asyncssh.SSHKey]:
    return {kind: asyncssh.generate_private_key(kind) for kind in KINDS}


def public(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])


@pytest.mark.needs_sshd
def test_what_is_shown_at_first_contact_is_told_and_accepted_from_then_on(host: SshHost) -> None:
    with connect(endpoint(host)) as first:
        assert first.host_key == host.host_key
    with connect(endpoint(host, pinned=f"{first.host_key} a comment")) as second:
        assert second.run("echo in").stdout == b"in\n"


@pytest.mark.needs_sshd
def test_a_machine_that_shows_another_key_than_before_is_refused(tmp_path: Path) -> None:
    with openssh_host(tmp_path) as host:
        changed = replace_host_key(host)
        error = refusal(endpoint(changed, pinned=host.host_key))
    fingerprints = [
        subprocess.run(["ssh-keygen", "-lf", "-"], input=key, text=True, capture_output=True, check=True)
        for key in (host.host_key, changed.host_key)
    ]
    assert isinstance(error, HostKeyChanged)
    assert error.message == f"{host.name} showed another SSH host key than before"
    for shown in fingerprints:
        assert f"ssh-ed25519 {shown.stdout.split()[1]}" in error.why


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_logs_in_where_the_wrong_key_is_shown(
    tmp_path: Path, host_keys: dict[str, asyncssh.SSHKey], kind: str
) -> None:
    wrong = public(asyncssh.generate_private_key(kind))
    with doorman(list(host_keys.values()), tmp_path) as (there, seen):
        error = refusal(replace(there, pinned=wrong))
        assert isinstance(error, HostKeyChanged)
        assert seen == []
        assert refusal(replace(there, pinned=public(host_keys[kind]))).message == "box refused our SSH key"
        assert seen == ["ann"]


def test_a_machine_with_several_keys_shows_the_one_that_is_pinned(
    tmp_path: Path, host_keys: dict[str, asyncssh.SSHKey]
) -> None:
    with doorman(list(host_keys.values()), tmp_path) as (there, seen):
        for key in host_keys.values():
            assert not isinstance(refusal(replace(there, pinned=public(key))), HostKeyChanged)
    assert seen == ["ann"] * len(host_keys)


def test_a_machine_that_has_no_key_of_the_pinned_kind_is_another_one(
    tmp_path: Path, host_keys: dict[str, asyncssh.SSHKey]
) -> None:
    with doorman([host_keys["ssh-rsa"]], tmp_path) as (there, seen):
        error = refusal(replace(there, pinned=new_key_pair().public))
    assert isinstance(error, HostKeyChanged)
    assert "a key of another type" in error.why
    assert seen == []


@pytest.mark.needs_sshd
def test_a_pinned_key_of_a_kind_that_nobody_can_check_is_no_change(host: SshHost) -> None:
    error = refusal(endpoint(host, pinned="ssh-dss AAAAB3NzaC1kc3M="))
    assert not isinstance(error, HostKeyChanged)
    assert "ssh-dss" in error.why
    assert "ssh-ed25519" in error.hint


@pytest.mark.needs_sshd
def test_a_key_that_is_not_accepted_is_named_with_user_and_host(host: SshHost, tmp_path: Path) -> None:
    ours = identity(tmp_path).file
    error = refusal(endpoint(host, identity=ours))
    assert not isinstance(error, HostUnreachable)
    assert error.message == f"{host.name} refused our SSH key"
    assert f"{host.user}@127.0.0.1:{host.port} does not accept {ours}" in error.why
    assert f"authorized_keys of {host.user}" in error.hint


@pytest.mark.needs_sshd
def test_the_identity_file_of_an_address_is_used_in_place_of_ours(
    host: SshHost, tmp_path: Path, home: Path
) -> None:
    (home / "their key").write_bytes(host.identity.read_bytes())
    # OpenSSH refuses one that others may read.
    (home / "their key").chmod(0o600)
    address = SshAddress(host.host, host.port, host.user, identity_file="~/their key")
    with connect(Endpoint(address, tmp_path / "none", "box")) as connection:
        assert connection.endpoint.identity_file == home / "their key"


@pytest.mark.needs_sshd
@pytest.mark.parametrize("trouble", ["missing", "folder", "garbage", "public half", "passphrase"])
def test_an_identity_file_that_is_of_no_use_is_named(host: SshHost, tmp_path: Path, trouble: str) -> None:
    file = tmp_path / "key"
    if trouble == "folder":
        file.mkdir()
    elif trouble == "garbage":
        file.write_bytes(bytes(range(256)))
    elif trouble == "public half":
        file.write_text(new_key_pair().public)
    elif trouble == "passphrase":
        generate_key(file)
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(file)], check=True)
    address = SshAddress(host.host, host.port, host.user, identity_file=str(file))
    error = refusal(Endpoint(address, host.identity, "box"))
    assert not isinstance(error, HostUnreachable)
    assert error.message == "the key for box cannot be used"
    reason = error.why.removeprefix(f"{file}: ")
    assert reason not in ("", "None", error.why)
    assert "without a passphrase" in error.hint


@contextmanager
def stranger(says: bytes | None) -> Iterator[SshAddress]:
    """A server that says this and hangs up, or says nothing and waits."""

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.sendall(says or b"")

    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=serve)
        if says is not None:
            serving.start()
        yield SshAddress("127.0.0.1", server.getsockname()[1], "ann")
        if says is not None:
            server.shutdown(socket.SHUT_RDWR)
            serving.join()


@pytest.mark.parametrize(
    "says",
    [
        None,
        b"",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-nonsense\r\n" + bytes(range(256)) * 40,
        b"\xff\xfe\x00" * 40_000,
    ],
    ids=["silence", "a hang-up", "HTTP", "SSH that breaks off", "noise"],
)
def test_what_is_no_ssh_server_is_a_host_that_does_not_answer(tmp_path: Path, says: bytes | None) -> None:
    with stranger(says) as address:
        error = refusal(Endpoint(address, identity(tmp_path).file, "box"), timeout_s=0.5)
    assert isinstance(error, HostUnreachable)
    assert error.message == "box does not answer over SSH"
    reason = error.why.removeprefix(f"ann@127.0.0.1:{address.port}: ")
    assert reason not in ("", error.why)
    assert error.hint.startswith("gpucloud ")


def test_a_closed_port_and_a_name_that_is_none_are_hosts_that_do_not_answer(
    tmp_path: Path, client: Client
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for address, reason in (
            (SshAddress("127.0.0.1", nobody.getsockname()[1]), "refused"),
            (SshAddress("no..name"), "label" if client is Client.BUILTIN else "not known"),
        ):
            error = refusal(Endpoint(address, identity(tmp_path).file, "box"))
            assert isinstance(error, HostUnreachable)
            assert f"{address.host}:{address.port}: " in error.why
            assert reason in error.why


def test_a_server_that_never_answers_a_login_is_not_waited_for(
    tmp_path: Path, host_keys: dict[str, asyncssh.SSHKey]
) -> None:
    with doorman([host_keys["ssh-ed25519"]], tmp_path, silent=True) as (there, seen):
        error = refusal(there, timeout_s=2)
    assert seen == ["ann"]
    assert isinstance(error, HostUnreachable)
    assert "did not answer when we logged in" in error.why
