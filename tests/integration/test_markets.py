"""The rental markets through the program itself: their fakes, and machines that answer SSH."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpucloud.model import SshAddress
from tests.harness.cli import Cli, installation
from tests.harness.cloud_hosts import CloudHosts, cloud_hosts
from tests.harness.rental import RENTAL_RIGS
from tests.harness.rental.market import Boot
from tests.harness.rig import Rig, configure
from tests.harness.waiting import eventually

pytestmark = pytest.mark.needs_netns

JOB = "expr 6 \\* 7 >answer.txt; cat said.txt"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[CloudHosts]:
    with cloud_hosts(2, tmp_path / "hosts") as machines:
        yield machines


@contextmanager
def rigged(name: str, folder: Path, hosts: CloudHosts) -> Iterator[Rig]:
    """A market whose machines are these."""
    with RENTAL_RIGS[name](folder) as found:

        def boot(born: Boot) -> SshAddress:
            return SshAddress(hosts.boot(born.id, born.user_data, born.keys, found.gpus))

        found.state.on_boot = boot
        found.state.on_end = hosts.end
        yield found


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with installation(tmp_path) as runner:
        yield runner


def configured(cli: Cli, rig: Rig) -> dict[str, str]:
    """The environment of somebody who has an account there."""
    return configure(Path(cli.environ["XDG_CONFIG_HOME"]) / "gpucloud" / "config.toml", rig)


@pytest.mark.parametrize("name", RENTAL_RIGS)
def test_a_job_runs_and_nothing_bills_afterwards(
    cli: Cli, hosts: CloudHosts, name: str, tmp_path: Path
) -> None:
    with rigged(name, tmp_path, hosts) as rig:
        env = configured(cli, rig)
        (cli.project / "said.txt").write_text("it is said\n")
        words = ("--provider", name, "--gpu", rig.gpu, "--yes", "--output", "answer.txt")
        done = cli("run", *words, "--", JOB, env=env)
        assert done.code == 0, done.err
        assert "it is said" in done.out
        assert (cli.project / "answer.txt").read_text() == "42\n"
        assert not rig.state.billing()
        assert [machine.token is not None for machine in rig.state.instances()] == [True]
        assert cli.ok("ps", env=env).out == ""
        assert cli.ok("fsck", "--json", env=env).json["findings"] == []


def test_who_is_outbid_goes_on_elsewhere(cli: Cli, hosts: CloudHosts, tmp_path: Path) -> None:
    """Its machine is not gone then: it stays, stopped, and its disk bills until somebody ends it."""
    with rigged("vast", tmp_path, hosts) as rig:
        env = configured(cli, rig)
        words = ("--provider", "vast", "--market", "spot", "--gpu", rig.gpu, "--yes", "--recover")
        job = "touch /root/begun; test -f /root/second || sleep 1000; echo done >answer.txt"
        process = cli.start("run", *words, "--output", "answer.txt", "--", job, env=env)
        eventually(lambda: hosts.given)
        (first,) = rig.state.instances()
        root = Path(f"/proc/{hosts.given[first.id].pid}/root/root")
        eventually((root / "begun").exists)
        (Path(f"/proc/{hosts.free[0].pid}/root/root") / "second").touch()
        first.state, first.more["meant"] = "exited", "stopped"
        hosts.hang_up(first.id)
        _, told = process.communicate()
        assert process.returncode == 0, told
        assert (cli.project / "answer.txt").read_text() == "done\n"
        assert len(rig.state.instances()) == 2
        assert not rig.state.billing()
        assert cli.ok("fsck", "--json", env=env).json["findings"] == []
