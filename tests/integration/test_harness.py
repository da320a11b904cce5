"""The harness itself: its hosts are real, private, as far away as told, and gone afterwards."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness import needs
from tests.harness.netns import Network, namespace_hosts
from tests.harness.sshd import SshHost, generate_key, openssh_host, replace_host_key, restart, stop
from tests.harness.wan import MAX_QUEUE_S, Line

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three hosts without any delay; a test that changes a line puts it back."""
    with namespace_hosts(3, folder=tmp_path_factory.mktemp("network")) as network:
        yield network


def ssh(
    host: SshHost, command: str, folder: Path, *, trusted: str | None = None, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` on ``host``, trusting its own announced key or the ``trusted`` known_hosts line."""
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(trusted or host.known_hosts_line)
    return subprocess.run(
        host.ssh(command, known_hosts=known_hosts, options=options),
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def children() -> set[int]:
    """The processes this one has started and not yet seen end."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in lists for pid in file.read_text().split()}


def await_end(processes: Sequence[int]) -> None:
    """Wait until each of these ``os.pidfd_open`` descriptors tells the end of its process; closes them."""
    for descriptor in processes:
        ended, _, _ = select.select([descriptor], [], [], DEADLINE_S)
        os.close(descriptor)
        assert ended


def connect_s(host: SshHost) -> float:
    """How long a TCP connection takes to come up, in seconds."""
    began = time.monotonic()
    socket.create_connection((host.host, host.port), timeout=DEADLINE_S).close()
    return time.monotonic() - began


def test_a_lack_skips_and_a_required_lack_fails() -> None:
    with pytest.raises(pytest.skip.Exception, match="needs sshd: no sshd here"):
        needs.insist("sshd", "no sshd here", {})
    with pytest.raises(pytest.skip.Exception, match="needs netns: not root"):
        needs.insist("netns", "not root", {needs.REQUIRE: "sshd"})
    for value in ("all", "netns, sshd"):
        with pytest.raises(pytest.fail.Exception, match="no sshd here"):
            needs.insist("sshd", "no sshd here", {needs.REQUIRE: value})


def test_a_need_that_is_met_neither_skips_nor_fails() -> None:
    needs.insist("sshd", None, {needs.REQUIRE: "all"})


def test_a_misspelt_requirement_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown shd; known: all, sshd, netns"):
        needs.required({needs.REQUIRE: "shd,netns"})


def test_a_line_delays_and_queues_each_way_by_itself() -> None:
    line = Line(delay_ms=25, rate_bytes_s=1000)
    assert line.carry(100, entered=10, outward=True) == pytest.approx(10.125)
    assert line.carry(100, entered=10, outward=True) == pytest.approx(10.225)
    assert line.carry(100, entered=10, outward=False) == pytest.approx(10.125)


def test_a_line_drops_what_would_wait_too_long() -> None:
    line = Line(rate_bytes_s=1000)
    too_long = int(1000 * MAX_QUEUE_S) + 1
    assert line.carry(too_long, entered=10, outward=True) is not None
    assert line.carry(1, entered=10, outward=True) is None
    assert line.carry(1, entered=11, outward=True) is not None


def test_jitter_stays_around_the_delay_and_never_goes_back_in_time() -> None:
    line = Line(delay_ms=5, jitter_ms=10)
    times = [line.carry(100, entered=1, outward=True) for _ in range(200)]
    assert all(due is not None and 1 <= due <= 1.015 for due in times)
    assert len(set(times)) > 1


@pytest.mark.parametrize("line", [Line(loss=1.0), Line(down=True)])
def test_a_line_that_is_down_or_loses_all_carries_nothing(line: Line) -> None:
    assert line.carry(100, entered=0, outward=True) is None


@pytest.mark.needs_sshd
def test_loopback_runs_commands_under_the_announced_key(ssh_host: SshHost, tmp_path: Path) -> None:
    done = ssh(ssh_host, "echo out; echo err >&2; exit 7", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.needs_sshd
def test_loopback_has_a_home_of_its_own(ssh_host: SshHost, tmp_path: Path) -> None:
    assert ssh_host.home is not None
    done = ssh(ssh_host, 'pwd; echo "$HOME"; echo ~; touch here; env', tmp_path)
    assert done.stdout.splitlines()[:3] == [str(ssh_host.home)] * 3
    assert [entry.name for entry in ssh_host.home.iterdir()] == ["here"]
    assert "SSH_ORIGINAL_COMMAND" not in done.stdout


@pytest.mark.needs_sshd
def test_loopback_gives_a_shell_when_no_command_is_given(ssh_host: SshHost, tmp_path: Path) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(ssh_host.known_hosts_line)
    command = ssh_host.ssh(known_hosts=known_hosts)
    done = subprocess.run(command, check=True, input="pwd\n", capture_output=True, text=True)
    assert done.stdout == f"{ssh_host.home}\n"


@pytest.mark.needs_sshd
def test_loopback_takes_files_over_sftp(ssh_host: SshHost, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text(ssh_host.known_hosts_line)
    (tmp_path / "sent").write_text("content")
    options = [f"-oUserKnownHostsFile={tmp_path}/known_hosts", f"-oIdentityFile={ssh_host.identity}"]
    place = f"sftp://{ssh_host.user}@{ssh_host.host}:{ssh_host.port}"
    command = ["sftp", "-F", "/dev/null", *options, "-oIdentityAgent=none", "-b", "-", place]
    subprocess.run(command, check=True, input=f"put {tmp_path}/sent got\n", capture_output=True, text=True)
    assert ssh_host.home is not None
    assert (ssh_host.home / "got").read_text() == "content"


@pytest.mark.needs_sshd
def test_a_changed_host_key_is_refused(ssh_host: SshHost, tmp_path: Path) -> None:
    replaced = replace_host_key(ssh_host)
    assert (replaced.port, replaced.identity) == (ssh_host.port, ssh_host.identity)
    refused = ssh(replaced, "true", tmp_path, trusted=ssh_host.known_hosts_line)
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    assert ssh(replaced, "true", tmp_path).returncode == 0


@pytest.mark.needs_sshd
def test_restart_keeps_the_port_and_the_key(ssh_host: SshHost, tmp_path: Path) -> None:
    restarted = restart(ssh_host)
    assert (restarted.port, restarted.host_key) == (ssh_host.port, ssh_host.host_key)
    assert restarted.pid != ssh_host.pid
    assert ssh(restarted, "true", tmp_path).returncode == 0


@pytest.mark.needs_sshd
def test_a_stopped_server_refuses_until_restarted(ssh_host: SshHost, tmp_path: Path) -> None:
    stop(ssh_host)
    with pytest.raises(ConnectionRefusedError):
        connect_s(ssh_host)
    assert ssh(restart(ssh_host), "true", tmp_path).returncode == 0


@pytest.mark.needs_sshd
def test_only_the_authorized_keys_log_in(tmp_path: Path) -> None:
    mine, strange = tmp_path / "mine", tmp_path / "strange"
    generate_key(strange)
    with openssh_host(tmp_path / "host", authorized=generate_key(mine)) as host:
        for key, status in ((host.identity, 0), (mine, 0), (strange, 255)):
            command = host.ssh("true", known_hosts=tmp_path / "known_hosts")
            (tmp_path / "known_hosts").write_text(host.known_hosts_line)
            command[command.index("-i") + 1] = str(key)
            assert subprocess.run(command, check=False, capture_output=True).returncode == status


@pytest.mark.needs_sshd
@pytest.mark.skipif(sys.platform != "linux", reason="tells processes by /proc")
def test_nothing_is_left_of_a_loopback_host(tmp_path: Path) -> None:
    before = children()
    with openssh_host(tmp_path / "host") as host:
        started = ssh(host, "setsid sleep 1000 >/dev/null 2>&1 & echo $!", tmp_path)
        job = os.pidfd_open(int(started.stdout))
    await_end([job])
    assert children() == before
    with pytest.raises(ConnectionRefusedError):
        connect_s(host)


@pytest.mark.needs_netns
def test_each_namespaced_host_is_itself(network: Network, tmp_path: Path) -> None:
    for host in network.hosts:
        done = ssh(host, "hostname; id -un; pwd; echo $HOME; cat /proc/1/comm", tmp_path)
        assert done.stdout.split() == [host.name, "root", "/root", "/root", "sshd"]
    assert len({host.host_key for host in network.hosts}) == 3


@pytest.mark.needs_netns
def test_namespaced_files_are_private(network: Network, tmp_path: Path) -> None:
    first, second, _ = network.hosts
    assert ssh(first, "touch ~/mine /tmp/mine /etc/mine /usr/mine", tmp_path).returncode == 0
    listing = "ls -A /root /tmp /etc /usr | grep -x mine"
    assert ssh(first, listing, tmp_path).stdout.split() == ["mine"] * 4
    assert ssh(second, listing, tmp_path).stdout == ""
    assert not any(Path(folder, "mine").exists() for folder in ("/root", "/tmp", "/etc", "/usr"))
    assert first.home is not None
    assert (first.home / "mine").exists()


@pytest.mark.needs_netns
def test_the_environment_of_a_namespaced_host_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_TEST_PROCESS", "yes")
    with namespace_hosts(1, folder=tmp_path / "network") as network:
        found = ssh(network.hosts[0], "env; cat /proc/1/environ", tmp_path).stdout
    assert "HOME=/root" in found
    assert "SECRET_OF_THE_TEST_PROCESS" not in found


@pytest.mark.needs_netns
def test_a_namespaced_host_with_another_key_is_refused(network: Network, tmp_path: Path) -> None:
    first, second, _ = network.hosts
    wrong = f"{first.host} {second.host_key}\n"
    refused = ssh(first, "true", tmp_path, trusted=wrong)
    assert (refused.returncode, "IDENTIFICATION HAS CHANGED" in refused.stderr) == (255, True)


@pytest.mark.needs_netns
def test_hosts_reach_each_other_by_name(network: Network, tmp_path: Path) -> None:
    for host, other in zip(network.hosts, reversed(network.hosts), strict=True):
        done = ssh(host, f"exec 3<>/dev/tcp/{other.name}/22; head -c 4 <&3", tmp_path)
        assert done.stdout == "SSH-"


@pytest.mark.needs_netns
def test_a_host_is_as_far_away_as_told(tmp_path: Path) -> None:
    with namespace_hosts(2, rtt_ms=50, folder=tmp_path / "network") as network:
        assert min(connect_s(host) for host in network.hosts) >= 0.045
        network.link("host1", delay_ms=60)
        assert connect_s(network.hosts[0]) >= 0.115


@pytest.mark.needs_netns
def test_a_line_that_is_down_heals(network: Network, tmp_path: Path) -> None:
    host, other, _ = network.hosts
    network.link(host.name, down=True)
    try:
        failed = ssh(host, "true", tmp_path, options=["ConnectTimeout=2"])
        assert (failed.returncode, "timed out" in failed.stderr) == (255, True)
        assert ssh(other, "true", tmp_path).returncode == 0
    finally:
        network.link(host.name, down=False)
    assert ssh(host, "true", tmp_path).returncode == 0


@pytest.mark.needs_netns
def test_a_session_survives_a_short_break(network: Network, tmp_path: Path) -> None:
    host = network.hosts[0]
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(host.known_hosts_line)
    command = host.ssh("echo ready; cat", known_hosts=known_hosts)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdin is not None and session.stdout is not None
        assert session.stdout.readline() == b"ready\n"
        network.link(host.name, down=True)
        session.stdin.write(b"typed while down\n")
        session.stdin.close()
        assert select.select([session.stdout], [], [], 0.1)[0] == []
        network.link(host.name, down=False)
        assert session.stdout.read() == b"typed while down\n"


@pytest.mark.needs_netns
def test_a_killed_host_is_silent_and_the_others_go_on(tmp_path: Path) -> None:
    with namespace_hosts(2, folder=tmp_path / "network") as network:
        gone, other = network.hosts
        first_process = os.pidfd_open(gone.pid)
        network.kill(gone.name)
        await_end([first_process])
        failed = ssh(gone, "true", tmp_path, options=["ConnectTimeout=1"])
        assert (failed.returncode, "timed out" in failed.stderr) == (255, True)
        assert ssh(other, "true", tmp_path).returncode == 0


@pytest.mark.needs_netns
def test_networks_stand_side_by_side(network: Network, tmp_path: Path) -> None:
    with namespace_hosts(1, folder=tmp_path / "network") as second:
        assert second.interface != network.interface
        host = second.hosts[0]
        assert host.host not in {other.host for other in network.hosts}
        assert ssh(host, "hostname", tmp_path).stdout == "host1\n"
    assert ssh(network.hosts[0], "true", tmp_path).returncode == 0


@pytest.mark.needs_netns
def test_nothing_is_left_of_a_network(tmp_path: Path) -> None:
    before = children()

    class Failure(Exception):
        pass

    with pytest.raises(Failure), namespace_hosts(2, folder=tmp_path / "network") as network:
        started = ssh(network.hosts[0], "setsid sleep 1000 >/dev/null 2>&1 & echo $!", tmp_path)
        assert started.returncode == 0
        inside = {Path(f"/proc/{host.pid}/ns/net").stat().st_ino for host in network.hosts}
        raise Failure
    assert children() == before
    assert network.interface not in {name for _, name in socket.if_nameindex()}
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not inside & set(_network_namespaces())


def _network_namespaces() -> Iterator[int]:
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            yield link.stat().st_ino
        except OSError:
            continue


_VICTIM = """\
import sys
from pathlib import Path
from tests.harness.netns import namespace_hosts
from tests.harness.sshd import openssh_host
folder = Path(sys.argv[1])
with openssh_host(folder / "loopback"), namespace_hosts(2, folder=folder / "network") as network:
    started = [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
    print(network.interface, *started, *(host.pid for host in network.hosts), flush=True)
    sys.stdin.read()
"""


@pytest.mark.needs_netns
def test_hosts_die_with_a_test_process_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _VICTIM, str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        interface, *pids = victim.stdout.readline().decode().split()
        assert len(pids) == 6
        processes = [os.pidfd_open(int(pid)) for pid in pids]
        victim.send_signal(signal.SIGKILL)
        await_end(processes)
    assert interface not in {name for _, name in socket.if_nameindex()}
