"""``gpucloud forward`` as a user has it, to a machine behind a real sshd."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import UsageError
from gpucloud.fleet.forward import Route, parse_route
from tests.harness.cli import Cli, installation
from tests.harness.far_side import cut, free_port, read_all, serving, sessions
from tests.harness.sshd import SshHost, openssh_host, restart, stop
from tests.harness.waiting import eventually
from tests.integration.test_own_machines import configure

pytestmark = pytest.mark.needs_sshd

HERE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Running:
    """A ``forward`` that goes on; ``listening`` is its first line, ``said`` where its stderr goes."""

    process: subprocess.Popen[str]
    listening: dict[str, Any]
    said: Path

    def connect(self, which: int = 0, host: str = HERE) -> socket.socket:
        return socket.create_connection((host, self.port(which)), timeout=60)

    def port(self, which: int = 0) -> int:
        return int(self.listening["forwards"][which]["local_port"])

    def await_said(self, text: str) -> None:
        eventually(lambda: text in self.said.read_text())

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    with openssh_host(tmp_path_factory.mktemp("box")) as host:
        yield host


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, host: SshHost) -> Iterator[Cli]:
    """An installation with the machine ``x``."""
    with installation(tmp_path_factory.mktemp("user")) as runner:
        configure(runner, [host])
        runner.ok("launch", "--name", "x", "--no-push")
        yield runner


@contextmanager
def forwarding(cli: Cli, said: Path, *words: str) -> Iterator[Running]:
    with said.open("w") as err:
        process = cli.start("forward", "x", *words, "--json", stderr=err)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, said.read_text()
        yield Running(process, json.loads(line), said)
    finally:
        with process:
            process.kill()
    assert "Traceback" not in said.read_text()


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def answer_with_digest(client: socket.socket) -> None:
    client.sendall(digest(read_all(client)))


def ask(running: Running, data: bytes, **where: Any) -> bytes:
    with running.connect(**where) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def test_megabytes_go_both_ways_many_at_once_and_none_mixes(cli: Cli, tmp_path: Path) -> None:
    down = os.urandom(12_000_000)

    def pour(client: socket.socket) -> None:
        client.sendall(down)

    with (
        serving(answer_with_digest) as up,
        serving(pour) as out,
        forwarding(cli, tmp_path / "said", f"0:{up}", f"0:localhost:{out}") as running,
    ):

        def upload(number: int) -> bool:
            data = str(number).encode() * 200_000
            return ask(running, data) == digest(data)

        def download(_: int) -> bool:
            with running.connect(1) as client:
                return digest(read_all(client)) == digest(down)

        with ThreadPoolExecutor(34) as pool:
            uploads, downloads = pool.map(upload, range(30)), pool.map(download, range(4))
            assert all(uploads)
            assert all(downloads)


def test_one_who_does_not_read_holds_up_the_sender_but_nobody_else(cli: Cli, tmp_path: Path) -> None:
    sent: list[int] = []

    def pour(client: socket.socket) -> None:
        client.settimeout(1)
        total = 0
        try:
            while total < 400_000_000:
                total += client.send(bytes(65536))
        finally:
            sent.append(total)

    with (
        serving(pour) as port,
        serving(answer_with_digest) as other,
        forwarding(cli, tmp_path / "said", f"0:{port}", f"0:{other}") as running,
        running.connect(),
    ):
        assert eventually(lambda: sent)[0] < 100_000_000
        assert ask(running, b"x", which=1) == digest(b"x")


def test_a_cut_in_the_middle_is_a_reset_and_the_port_works_again(tmp_path: Path) -> None:
    begun = b"half of it"

    def half(client: socket.socket) -> None:
        client.sendall(begun)
        read_all(client)

    with (
        machine(tmp_path) as (cli, host),
        serving(half) as port,
        serving(answer_with_digest) as other,
        forwarding(cli, tmp_path / "said", f"0:{port}", f"0:{other}") as running,
    ):
        with running.connect() as client:
            assert client.recv(100) == begun
            there = sessions(host.pid)
            stop(host)
            cut(there)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        running.await_said("the connection was lost")
        with ThreadPoolExecutor(1) as pool:
            # It comes while there is no connection, and waits for the next one.
            answer = pool.submit(ask, running, b"x", which=1)
            restart(host)
            assert answer.result(60) == digest(b"x")
        running.await_said("the connection is back")
        assert running.end() == 130


def test_a_machine_that_ends_ends_it_with_a_word(tmp_path: Path) -> None:
    with machine(tmp_path) as (cli, _), forwarding(cli, tmp_path / "said", f"0:{free_port()}") as running:
        cli.ok("down", "x", "--yes")
        assert running.process.wait(60) == 87
        assert "x is gone" in running.said.read_text()


@contextmanager
def machine(folder: Path) -> Iterator[tuple[Cli, SshHost]]:
    """A machine ``x`` for one test alone, with who has rented it."""
    with openssh_host(folder / "box") as host, installation(folder / "user") as cli:
        configure(cli, [host])
        cli.ok("launch", "--name", "x", "--no-push")
        yield cli, host


def test_where_nothing_answers_yet_is_a_reset_and_is_said_once(cli: Cli, tmp_path: Path) -> None:
    port = free_port()
    with forwarding(cli, tmp_path / "said", f"0:{port}") as running:
        for _ in range(3):
            with pytest.raises(ConnectionResetError), running.connect() as client:
                client.recv(1)
        running.await_said(f"nothing answers at localhost:{port} of x")
        with serving(answer_with_digest, port=port):
            assert ask(running, b"x") == digest(b"x")
        assert running.end() == 130
        assert running.said.read_text().count("nothing answers") == 1


def test_ctrl_c_ends_it_with_a_sentence(cli: Cli, tmp_path: Path) -> None:
    with (
        serving(answer_with_digest) as port,
        forwarding(cli, tmp_path / "said", f"0:{port}") as running,
        running.connect() as client,
    ):
        assert running.end() == 130
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert "nothing is forwarded any more; x goes on" in running.said.read_text()


def test_a_taken_port_is_replaced_by_a_free_one_unless_it_was_asked_for(cli: Cli, tmp_path: Path) -> None:
    with serving(answer_with_digest) as port, forwarding(cli, tmp_path / "said", str(port)) as running:
        (shown,) = running.listening["forwards"]
        assert shown["moved"] is True
        assert shown["local_port"] != port
        assert ask(running, b"x") == digest(b"x")
        said = running.said.read_text()
        assert f"port {port} is not free here; 127.0.0.1:{shown['local_port']} leads to it" in said
        done = cli("forward", "x", f"{port}:{free_port()}", "--json")
        assert done.code == 2
        assert done.json["message"] == f"port {port} of 127.0.0.1 cannot be used here"
        assert len(done.err.splitlines()) == 3


def test_a_port_that_is_taken_at_ipv6_alone_is_taken(cli: Cli, tmp_path: Path) -> None:
    try:
        other = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with other:
        done = cli("forward", "x", f"{other.getsockname()[1]}:{free_port()}")
    assert done.code == 2


def test_two_at_once_have_ports_of_their_own(cli: Cli, tmp_path: Path) -> None:
    with (
        serving(answer_with_digest) as port,
        forwarding(cli, tmp_path / "a", str(port)) as a,
        forwarding(cli, tmp_path / "b", str(port)) as b,
    ):
        assert a.port() != b.port()
        assert ask(a, b"a") == digest(b"a")
        assert ask(b, b"b") == digest(b"b")


def test_it_listens_at_both_loopbacks_and_nowhere_else(cli: Cli, tmp_path: Path) -> None:
    with serving(answer_with_digest) as port, forwarding(cli, tmp_path / "said", f"0:{port}") as running:
        hosts = running.listening["forwards"][0]["local_hosts"]
        assert hosts in (["127.0.0.1"], ["127.0.0.1", "::1"])
        for host in hosts:
            assert ask(running, b"x", host=host) == digest(b"x")
        with suppress(OSError), socket.create_connection(("127.0.0.2", running.port()), timeout=5):
            pytest.fail("it listens elsewhere too")
        assert "warning" not in running.said.read_text()


def test_who_binds_to_the_world_is_warned(cli: Cli, tmp_path: Path) -> None:
    with (
        serving(answer_with_digest) as port,
        forwarding(cli, tmp_path / "said", f"0:{port}", "--bind", "0.0.0.0") as running,
    ):
        assert "warning: whoever reaches this computer at 0.0.0.0 can" in running.said.read_text()
        assert ask(running, b"x", host="127.0.0.2") == digest(b"x")


@pytest.mark.parametrize("bind", ["192.0.2.1", "no such host", "x" * 300])
def test_an_address_that_is_none_of_ours_is_refused(cli: Cli, bind: str) -> None:
    done = cli("forward", "x", "0:80", "--bind", bind)
    assert done.code == 2
    assert len(done.err.splitlines()) == 3


def test_the_browser_is_opened_once_the_far_side_answers(cli: Cli, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >>"{opened}"\n')
    browser.chmod(0o755)
    port = free_port()
    words = ("forward", "x", f"0:{port}", "--open", "--json")
    with cli.start(*words, env={"BROWSER": str(browser)}, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            assert not opened.exists()
            with serving(answer_with_digest, port=port):
                eventually(opened.exists)
            url = eventually(opened.read_text)
            assert url == f"http://127.0.0.1:{line['forwards'][0]['local_port']}/\n"
        finally:
            process.kill()


def test_what_is_piped_is_a_line_for_each_route(cli: Cli) -> None:
    with cli.start("forward", "x", "0:9", "0:db.internal:5432", stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
        finally:
            process.kill()
    assert re.fullmatch(r"127\.0\.0\.1:\d+\tlocalhost:9 of x\n", lines[0])
    assert re.fullmatch(r"127\.0\.0\.1:\d+\tdb\.internal:5432 of x\n", lines[1])


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("8888", Route(None, "localhost", 8888)),
        ("8080:8888", Route(8080, "localhost", 8888)),
        ("0:8888", Route(0, "localhost", 8888)),
        ("db.internal:5432", Route(None, "db.internal", 5432)),
        ("7:db-1:5432", Route(7, "db-1", 5432)),
        ("10.0.0.2:80", Route(None, "10.0.0.2", 80)),
        ("8080:10.0.0.2:80", Route(8080, "10.0.0.2", 80)),
        ("[fd00::1]:80", Route(None, "fd00::1", 80)),
        ("8080:[::1]:80", Route(8080, "::1", 80)),
    ],
)
def test_routes_are_read(text: str, route: Route) -> None:
    assert parse_route(text) == route


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "70000:80",
        "80:70000",
        "x",
        "host:",
        ":80",
        "1:2:3",
        "8080:host:",
        "::1:80",
        "٣٣",
        "a b:80",
    ],
)
def test_what_is_no_route_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no port to forward"):
        parse_route(text)
