"""Our machines for the system's own ssh, sftp, scp and rsync, by the configuration that we write."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.cli import Cli, installation
from tests.harness.far_side import free_port
from tests.harness.sshd import SshHost, openssh_host
from tests.integration.test_own_machines import configure

pytestmark = pytest.mark.needs_sshd


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    with openssh_host(tmp_path_factory.mktemp("box")) as host:
        yield host


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, host: SshHost) -> Iterator[Cli]:
    """An installation with the machine ``x``, and room for three more."""
    with installation(tmp_path_factory.mktemp("user")) as runner:
        configure(runner, [host], more="slots = 4\n")
        runner.ok("launch", "--name", "x", "--no-push")
        yield runner


@pytest.fixture
def config(cli: Cli) -> Path:
    return Path(cli.ok("config", "ssh").out.removesuffix("\n"))


def theirs(cli: Cli) -> Path:
    """The user's own configuration."""
    return cli.project.parent / ".ssh" / "config"


def run(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )


def ssh(config: Path, name: str, command: str) -> str:
    done = run("ssh", "-F", config, "-o", "BatchMode=yes", name, command)
    return done.stdout or done.stderr


@pytest.mark.parametrize("name", ["x", "x-0", "x.gpucloud", "x-0.gpucloud"])
def test_ssh_reaches_a_machine_by_each_of_its_names(config: Path, name: str) -> None:
    assert ssh(config, name, "echo in") == "in\n"


@pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync on this machine")
def test_rsync_brings_a_folder_there_and_back(config: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a file").write_text("content\n")
    # The folder of the configuration has spaces, as a user's may.
    assert " " in str(config)
    for source, target in ("here/", "x.gpucloud:synced"), ("x.gpucloud:synced/", "back"):
        done = subprocess.run(
            ["rsync", "-a", "-e", f"ssh -F '{config}'", source, target],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "back" / "a file").read_text() == "content\n"


def test_sftp_and_scp_bring_a_file_there_and_back(config: Path, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("content\n")
    done = run("sftp", "-F", config, "-b", "-", "x", stdin=f"put {tmp_path / 'sent'} by-sftp\n")
    assert done.returncode == 0, done.stderr
    done = run("scp", "-F", config, "x:by-sftp", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_text() == "content\n"


def test_an_editor_s_shell_with_a_socks_port_starts(config: Path) -> None:
    # As VS Code Remote does it: no terminal, a dynamic forward, a script on stdin.
    script = "uname >/dev/null && echo ready\nexit 0\n"
    options = ("-F", config, "-T", "-D", str(free_port()), "-o", "ConnectTimeout=15")
    done = run("ssh", *options, "x", "sh", stdin=script)
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr


def test_launch_and_down_keep_it_up_to_date(cli: Cli, config: Path) -> None:
    cli.ok("launch", "--name", "y", "--no-push")
    assert ssh(config, "y", "echo in") == "in\n"
    cli.ok("down", "y", "--yes")
    assert "Host x " in config.read_text()
    assert "y" not in {name for line in config.read_text().splitlines() for name in line.split()}


def test_launches_at_once_are_all_in_it(cli: Cli, config: Path) -> None:
    names = ("a", "b", "c")
    started = [cli.start("launch", "--name", name, "--no-push") for name in names]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert [ssh(config, name, "echo in") for name in names] == ["in\n"] * 3
    cli.ok("down", *names, "--yes")


def test_writers_at_once_leave_one_whole_configuration(cli: Cli, config: Path) -> None:
    before = config.read_bytes()
    started = [cli.start("config", "ssh") for _ in range(6)]
    for process in started:
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said
        assert config.read_bytes() == before
    assert [file.name for file in config.parent.iterdir() if file.name.startswith(".config")] == []


def test_a_host_of_the_user_s_own_is_not_taken_away(cli: Cli) -> None:
    theirs(cli).parent.mkdir(mode=0o700)
    theirs(cli).write_text("Host x\n  HostName mine.invalid\n")
    cli.ok("config", "ssh", "--install")
    shown = run("ssh", "-G", "-F", theirs(cli), "x").stdout.splitlines()
    assert "hostname mine.invalid" in shown
    assert ssh(theirs(cli), "x.gpucloud", "echo in") == "in\n"
    assert cli("ssh", "x", "--", "echo ours").out == "ours\n"

    removed = cli.ok("config", "ssh", "--remove", "--json").json
    assert removed["removed"] is True
    assert theirs(cli).read_text() == "Host x\n  HostName mine.invalid\n"
    theirs(cli).unlink()


def test_to_install_and_remove_at_once_is_no_wish(cli: Cli) -> None:
    assert cli("config", "ssh", "--install", "--remove").code == 2
