"""Machines that know only a password, as some vendors rent them: our key is installed with it, once."""

from __future__ import annotations

import asyncio
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest

from gpucloud.errors import RemoteError
from gpucloud.model import SshAddress
from gpucloud.remote.connection import Client, Endpoint, KeyRefused, connect
from gpucloud.remote.keys import identity

PASSWORD = "a secret; $(of) 'theirs'"


@dataclass
class Vendor:
    """A server that takes its password, and the keys in a file that only a command of ours can write."""

    home: Path
    host: str
    port: int = 0
    ways: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    open: list[asyncssh.SSHServerConnection] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """The lines that let keys in."""
        file = self.home / ".ssh" / "authorized_keys"
        return file.read_text().split("\n") if file.exists() else []


class Door(asyncssh.SSHServer):
    """Notes by which way somebody came in."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor

    def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
        """Somebody is there."""
        self._vendor.open.append(connection)

    def public_key_auth_supported(self) -> bool:
        """Keys are taken."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """One that was installed."""
        line = " ".join(key.export_public_key().decode().split()[:2])
        return self._noted("key", any(line in known for known in self._vendor.keys))

    def password_auth_supported(self) -> bool:
        """Passwords are taken."""
        return True

    def validate_password(self, username: str, password: str) -> bool:
        """The one there is."""
        return self._noted("password", password == PASSWORD)

    def _noted(self, way: str, fits: bool) -> bool:
        self._vendor.ways += [way] * fits
        return fits


@contextmanager
def serving(vendor: Vendor) -> Iterator[None]:
    ports: queue.Queue[int] = queue.Queue()
    closing = threading.Event()

    async def session(process: asyncssh.SSHServerProcess[bytes]) -> None:
        # All that anybody on this machine can see of a process.
        listing = await asyncio.create_subprocess_exec(
            "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null", stdout=subprocess.PIPE
        )
        vendor.seen.append((await listing.communicate())[0].decode(errors="replace"))
        command = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            process.command or ":",
            env={"HOME": str(vendor.home), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        said, _ = await command.communicate(await process.stdin.read())
        process.stdout.write(said)
        process.exit(command.returncode or 0)

    async def serve() -> None:
        acceptor = await asyncssh.listen(
            vendor.host,
            0,
            server_factory=lambda: Door(vendor),
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            process_factory=session,
            encoding=None,
        )
        ports.put(acceptor.get_port())
        await asyncio.to_thread(closing.wait)
        acceptor.close()
        await acceptor.wait_closed()
        for connection in vendor.open:
            connection.abort()
            await connection.wait_closed()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        vendor.port = ports.get(timeout=20)
        yield
    finally:
        closing.set()
        thread.join()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture(params=["127.0.0.1", "::1"])
def vendor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vendor]:
    if request.param == "::1" and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    vendor = Vendor(tmp_path / "home", request.param)
    vendor.home.mkdir()
    with serving(vendor):
        yield vendor


def endpoint(vendor: Vendor, folder: Path, password: str | None) -> Endpoint:
    address = SshAddress(vendor.host, vendor.port, "root", password=password)
    return Endpoint(address, identity(folder).file, "box")


@pytest.fixture(params=[Client.BUILTIN, pytest.param(Client.OPENSSH, marks=pytest.mark.needs_sshd)])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


def test_our_key_is_installed_with_the_password_and_used_from_then_on(
    vendor: Vendor, tmp_path: Path, client: Client
) -> None:
    (vendor.home / ".ssh").mkdir()
    # As people leave it: without an end of the last line.
    (vendor.home / ".ssh" / "authorized_keys").write_text("ssh-ed25519 AAAA somebody else")
    for password in (PASSWORD, PASSWORD, None):
        with connect(endpoint(vendor, tmp_path, password), timeout_s=15, client=client) as connection:
            assert connection.run("echo in").stdout == b"in\n"
    assert vendor.ways.count("password") == 1
    first, *ours = [line for line in vendor.keys if line]
    assert first == "ssh-ed25519 AAAA somebody else"
    assert [" ".join(line.split()[:2]) for line in ours] == [identity(tmp_path).public]


def test_nobody_sees_the_password_in_a_process(vendor: Vendor, tmp_path: Path, client: Client) -> None:
    there = endpoint(vendor, tmp_path, PASSWORD)
    with connect(there, timeout_s=15, client=client) as connection:
        connection.run("true")
    assert vendor.seen
    assert not [seen for seen in vendor.seen if "a secret" in seen]
    assert "a secret" not in repr(there)


def test_a_wrong_password_is_a_refusal(vendor: Vendor, tmp_path: Path, client: Client) -> None:
    with pytest.raises(KeyRefused) as caught:
        connect(endpoint(vendor, tmp_path, "another"), timeout_s=15, client=client)
    assert "another" not in caught.value.why + caught.value.hint + caught.value.message


def test_a_home_that_cannot_be_written_is_told(vendor: Vendor, tmp_path: Path, client: Client) -> None:
    (vendor.home / ".ssh").write_text("in the way")
    with pytest.raises(RemoteError, match="could not be installed on box"):
        connect(endpoint(vendor, tmp_path, PASSWORD), timeout_s=15, client=client)
