"""One command on 64 hosts, side by side with what else does that, each as a whole process, in one run.

A bare loop over paramiko or asyncssh is always there. parallel-ssh and ansible are taken from the virtual
environment that GPUCLOUD_BENCH_FANOUT_PEERS names; without one none of it is run, as it takes minutes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.bench import fan_out_peers
from tests.bench.ports import many_hosts
from tests.harness.cli import COMMAND, Cli, installation
from tests.harness.nodes import enter
from tests.harness.sshd import SshHost
from tests.harness.timing import PYTHON, best_ratio, seconds

HOSTS = 64
RUNS = 5
VARIABLE = "GPUCLOUD_BENCH_FANOUT_PEERS"
FOLDER = Path(fan_out_peers.__file__).parent
WARM = 20
"""0.2 s, where Python takes 10 ms to start."""

pytestmark = [
    pytest.mark.needs_sshd,
    pytest.mark.slow,
    pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} is not set"),
]


@dataclass(frozen=True)
class Bench:
    """The hosts, and an installation in whose books they are the cluster x."""

    hosts: list[SshHost]
    cli: Cli
    folder: Path

    @property
    def places(self) -> Path:
        """A file with host and port of each."""
        return self.folder / "places"

    def ours(self, runtime: Path) -> float:
        """How long we take, with the connections that are open in a runtime folder."""
        runtime.mkdir(mode=0o700, exist_ok=True)
        environ = {**self.cli.environ, "XDG_RUNTIME_DIR": str(runtime)}
        return seconds([*COMMAND, "exec", "x", "--all", "--", "true"], environ)

    def cold(self) -> Callable[[], float]:
        """We without any open connection."""
        numbers = count()
        return lambda: self.ours(self.folder / f"r{next(numbers)}")

    def peer(self, name: str) -> Callable[[], float] | None:
        """How long another takes; ``None`` where it is not installed."""
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        words = self._words(name)
        return (lambda: seconds(words, environ)) if words else None

    def _words(self, name: str) -> list[str] | None:
        host, venv = self.hosts[0], os.environ.get(VARIABLE, "")
        if name in {"paramiko", "asyncssh"}:
            python: str | None = sys.executable
        else:
            python = shutil.which("ansible" if name == "ansible" else "python", path=f"{venv}/bin")
        if not python or (name == "parallel-ssh" and not list(Path(venv).glob("lib/*/site-packages/pssh"))):
            return None
        if name == "ansible":
            return [python, "all", "-i", str(self._inventory()), "-m", "raw", "-a", "true", "-f", str(HOSTS)]
        script = FOLDER / f"over_{name.replace('-', '_')}.py"
        return [python, str(script), str(self.places), str(host.identity), host.user]

    def _inventory(self) -> Path:
        file = self.folder / "inventory"
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlMaster=no"
        file.write_text(
            "".join(
                f"h{host.port} ansible_host={host.host} ansible_port={host.port} ansible_user={host.user}"
                f" ansible_ssh_private_key_file={host.identity} ansible_ssh_common_args='{options}'\n"
                for host in self.hosts
            )
        )
        return file


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    # Short, as sockets have to be.
    folder = tmp_path_factory.mktemp("e")
    with many_hosts(folder / "hosts", HOSTS) as hosts, installation(folder) as cli:
        enter(cli, hosts)
        bench = Bench(hosts, cli, folder)
        bench.places.write_text("".join(f"{host.host} {host.port}\n" for host in hosts))
        yield bench


@pytest.mark.parametrize(
    ("peer", "limit"), [("paramiko", 1.1), ("asyncssh", 1.1), ("parallel-ssh", 0.7), ("ansible", 0.2)]
)
def test_sixty_four_hosts_take_at_most_so_much_of_the_time_of(bench: Bench, peer: str, limit: float) -> None:
    theirs = bench.peer(peer)
    if theirs is None:
        pytest.skip(f"{peer} is not installed in what {VARIABLE} names")
    assert best_ratio(bench.cold(), theirs, limit, RUNS) <= limit


def test_sixty_four_open_connections_take_so_many_times_as_long_as_python_takes_to_start(
    bench: Bench,
) -> None:
    runtime = bench.folder / "w"
    bench.ours(runtime)
    if not any(path.is_socket() for path in runtime.rglob("*")):
        pytest.skip("no connection is left open here: there is no ssh on this machine")
    found = best_ratio(lambda: bench.ours(runtime), lambda: seconds(PYTHON, bench.cli.environ), WARM, RUNS)
    assert found <= WARM
