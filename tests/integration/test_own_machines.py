"""The whole product on machines of the user's own: OpenSSH on loopback, and hosts 50 ms away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.harness.cli import Cli, installation
from tests.harness.netns import namespace_hosts
from tests.harness.sshd import SshHost, logins, openssh_host
from tests.harness.waiting import eventually

COUNTING = "i=0; while [ ! -e stop ]; do i=$((i + 1)); echo line $i; sleep 0.05; done; echo over"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with installation(tmp_path) as runner:
        yield runner


def configure(cli: Cli, hosts: Iterable[SshHost], *, more: str = "") -> None:
    config = Path(cli.environ["XDG_CONFIG_HOME"]) / "gpucloud"
    config.mkdir(parents=True, exist_ok=True)
    tables = [
        f'[providers.ssh.hosts.{host.name}]\naddress = "{host.host}"\nport = {host.port}\n'
        f'user = "{host.user}"\nidentity_file = "{host.identity}"\n{more}'
        for host in hosts
    ]
    (config / "config.toml").write_text('[offers]\nproviders = ["ssh"]\n' + "\n".join(tables))


def snapshot(home: Path) -> set[str]:
    return {path.relative_to(home).as_posix() for path in home.rglob("*") if ".gpucloud" not in path.parts}


@pytest.mark.needs_sshd
def test_the_whole_cycle_on_a_machine_of_one_s_own(cli: Cli, ssh_host: SshHost) -> None:
    configure(cli, [ssh_host])
    assert ssh_host.home is not None
    (ssh_host.home / "mine.txt").write_text("mine")
    before = snapshot(ssh_host.home)
    (cli.project / "in.txt").write_text("3 4\n")
    done = cli("run", "--output", "out.txt", "--", "awk '{print $1 * $2}' in.txt > out.txt; exit 5")
    assert done.code == 5, done.err
    assert (cli.project / "out.txt").read_text() == "12\n"
    assert cli.ok("ps").out == ""
    assert cli("fsck").code == 0
    assert snapshot(ssh_host.home) == before
    assert not any((ssh_host.home / ".gpucloud").glob("gc-*"))


@pytest.mark.needs_sshd
def test_the_host_key_of_a_machine_is_pinned_over_all_rentals(cli: Cli, tmp_path: Path) -> None:
    from tests.harness.sshd import replace_host_key

    with openssh_host(tmp_path / "box") as host:
        # A connection that is open leads to where it has led.
        configure(cli, [host], more="\n[ssh]\npersist = 0\n")
        node = cli.ok("launch", "--name", "x", "--json").json["clusters"][0]["nodes"][0]
        assert (node["host_key"], node["host_key_source"]) == (host.host_key, "first-contact")
        cli.ok("down", "x", "--yes")
        cli.ok("launch", "--name", "x")
        replaced = replace_host_key(host)
        assert replaced.host_key != host.host_key
        done = cli("exec", "x", "--", "true")
        assert done.code == 85
        assert "another SSH host key than before" in done.err
        done = cli("down", "x", "--yes")
        assert done.code == 88, "a machine that cannot be cleaned up is not given back"


@pytest.mark.needs_sshd
def test_commands_right_after_each_other_log_in_once(cli: Cli, ssh_host: SshHost) -> None:
    configure(cli, [ssh_host])
    (cli.project / "in.txt").write_text("3 4\n")
    cli.ok("launch", "--name", "x")
    cli.ok("push", "x")
    assert cli.ok("exec", "x", "--", "cat in.txt").out == "3 4\n"
    assert cli.ok("ssh", "x", "--", "cat in.txt").out == "3 4\n"
    assert "logged" in cli.ok("run", "--name", "x", "--keep", "--", "echo logged").out
    cli.ok("config", "ssh")
    config = str(cli.data / "ssh" / "config")
    theirs = subprocess.run(["ssh", "-F", config, "x", "echo theirs"], capture_output=True, check=False)
    assert theirs.stdout == b"theirs\n", theirs.stderr
    assert logins(ssh_host) == 1
    masters = shared_with(ssh_host)
    assert len(masters) == 1
    cli.ok("down", "x", "--yes")
    eventually(lambda: not shared_with(ssh_host))


def shared_with(host: SshHost) -> list[int]:
    """The processes here that keep a connection to a host open."""
    port = f":{host.port:04X}"
    inodes = {
        row.split()[9]
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if row.split()[2].endswith(port) and row.split()[3] == "01"
    }
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            held = {str(link.readlink()) for link in (process / "fd").iterdir()}
            if held & {f"socket:[{inode}]" for inode in inodes}:
                found.append(int(process.name))
    return found


@pytest.mark.needs_sshd
def test_either_client_does_all_of_it(cli: Cli, ssh_host: SshHost) -> None:
    configure(cli, [ssh_host])
    cli.ok("launch", "--name", "x")
    for client in ("builtin", "openssh", "auto"):
        done = cli("exec", "x", "--", "cat; exit 3", stdin="in", env={"GPUCLOUD_SSH_CLIENT": client})
        assert (done.code, done.out) == (3, "in")
    done = cli("exec", "x", "--", "true", env={"GPUCLOUD_SSH_CLIENT": "putty"})
    assert done.code == 2
    assert "auto, openssh, builtin" in done.err
    done = cli("exec", "x", "--", "true", env={"GPUCLOUD_SSH_CLIENT": "openssh", "PATH": "/nonexistent"})
    assert "there is no ssh on this machine" in done.err
    cli.ok("down", "x", "--yes")


@pytest.mark.needs_sshd
def test_a_configured_host_key_is_what_the_provider_reports(cli: Cli, ssh_host: SshHost) -> None:
    configure(cli, [ssh_host], more=f'host_key = "{ssh_host.host_key}"\n')
    node = cli.ok("launch", "--name", "x", "--json").json["clusters"][0]["nodes"][0]
    assert node["host_key_source"] == "provider"
    cli.ok("down", "x", "--yes")


@pytest.mark.needs_sshd
def test_two_installations_do_not_share_a_machine(tmp_path: Path, ssh_host: SshHost) -> None:
    with installation(tmp_path / "ann") as ann, installation(tmp_path / "bob") as bob:
        for runner in (ann, bob):
            configure(runner, [ssh_host])
        ann.ok("launch", "--name", "a")
        done = bob("launch", "--name", "b")
        assert done.code == 80, done.err
        assert "in use" in done.err
        assert ann.ok("exec", "a", "--", "echo mine").out == "mine\n"
        ann.ok("down", "a", "--yes")
        bob.ok("launch", "--name", "b")
        bob.ok("down", "b", "--yes")


@pytest.mark.needs_sshd
def test_slots_let_launches_share_a_machine_and_keep_them_apart(cli: Cli, ssh_host: SshHost) -> None:
    configure(cli, [ssh_host], more="slots = 2\n")
    for name in ("a", "b"):
        cli.ok("launch", "--name", name)
        cli.ok("exec", name, "--", f"echo {name} > whose")
    assert cli("launch", "--name", "c").code == 80
    cli.ok("down", "a", "--yes")
    assert cli.ok("exec", "b", "--", "cat whose").out == "b\n"
    cli.ok("launch", "--name", "c")
    cli.ok("down", "--all", "--yes")


@pytest.mark.needs_sshd
def test_ending_kills_only_our_jobs(cli: Cli, ssh_host: SshHost, tmp_path: Path) -> None:
    configure(cli, [ssh_host])
    marker = tmp_path / "theirs"
    ssh = ssh_host.ssh(
        f"nohup sh -c 'while :; do date > {marker}; sleep 0.1; done' >/dev/null 2>&1 & echo $!",
        known_hosts=_known(ssh_host, tmp_path),
    )
    theirs = int(subprocess.run(ssh, capture_output=True, text=True, check=True).stdout)
    cli.ok("launch", "--name", "x", "--", "echo $$ > pid; exec sleep 1000")
    ours = int(eventually(lambda: cli.ok("exec", "x", "--", "cat pid 2>/dev/null || :").out))
    cli.ok("down", "x", "--yes")
    eventually(lambda: not _alive(ours))
    assert _alive(theirs)
    os.kill(theirs, signal.SIGKILL)


def _known(host: SshHost, folder: Path) -> Path:
    file = folder / "known_hosts"
    file.write_text(host.known_hosts_line)
    return file


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.needs_netns
def test_a_whole_run_over_50_ms(cli: Cli, tmp_path: Path) -> None:
    with namespace_hosts(2, rtt_ms=50, folder=tmp_path / "net") as network:
        configure(cli, network.hosts)
        (cli.project / "code.sh").write_text(
            'hostname > out.$GPUCLOUD_NODE_RANK; echo "rank $GPUCLOUD_NODE_RANK"\n'
        )
        done = cli("run", "--nodes", "2", "--output", "out.*", "--", "sh code.sh")
        assert (done.code, done.out) == (0, "rank 0\n"), done.err
        assert (cli.project / "out.0").read_text().startswith("host")
        assert cli.ok("ps").out == ""


@pytest.mark.needs_netns
def test_a_log_goes_on_at_its_byte_after_the_network_was_gone(cli: Cli, tmp_path: Path) -> None:
    with namespace_hosts(1, rtt_ms=50, folder=tmp_path / "net") as network:
        configure(cli, network.hosts)
        job = cli.ok("launch", "--name", "x", "--", COUNTING).out.strip()
        seen = tmp_path / "seen"
        with seen.open("w") as out:
            follower = cli.start("logs", "-f", job, stdout=out, stderr=subprocess.PIPE)
        eventually(lambda: "line 5\n" in seen.read_text())
        network.link("host1", down=True)
        assert follower.stderr is not None
        assert "trying again" in follower.stderr.readline()
        network.link("host1", down=False)
        had = seen.stat().st_size
        eventually(lambda: seen.stat().st_size > had, timeout_s=60)
        cli.ok("exec", "x", "--", "touch stop")
        assert follower.wait() == 0
        follower.communicate()
        lines = seen.read_text().splitlines()
        assert lines[-1] == "over"
        assert lines[:-1] == [f"line {n}" for n in range(1, len(lines))]
        cli.ok("down", "x", "--yes")


@pytest.mark.needs_netns
def test_a_machine_whose_power_is_cut_is_said_to_be_unreachable_and_kept_in_the_books(
    cli: Cli, tmp_path: Path
) -> None:
    with namespace_hosts(1, folder=tmp_path / "net") as network:
        configure(cli, network.hosts)
        cli.ok("launch", "--name", "x", "--", "sleep 1000")
        network.kill("host1")
        quick = {"GPUCLOUD_SSH_CONNECT_TIMEOUT": "1s", "GPUCLOUD_LAUNCH_END_TIMEOUT": "1s"}
        assert cli("exec", "x", "--", "true", env=quick).code == 5
        done = cli("down", "x", "--yes", env=quick)
        assert done.code == 88
        assert "could not be cleaned up" in done.err
        assert cli.ok("ps").out != ""
