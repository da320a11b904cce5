"""One command on several machines at once: what comes out, what goes in, and how it ends."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest

from gpucloud.fleet.fan_out import AT_ONE_SERVER
from tests.harness.cli import COMMAND, Cli
from tests.harness.nodes import Node, enter, refusing, silent, ssh_hosts
from tests.harness.sshd import SshHost
from tests.harness.waiting import eventually

pytestmark = [
    pytest.mark.needs_sshd,
    # pexpect forks, which newer Pythons warn of when there have been threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]
NODES = 4
STAY = "echo $$ >pid; echo on; sleep 1000; echo never"
"""A shell that goes on, with a child."""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SshHost]]:
    with ssh_hosts(tmp_path_factory.mktemp("hosts"), NODES) as hosts:
        yield hosts


Entering = Callable[..., None]


@pytest.fixture
def x(cli: Cli, hosts: list[SshHost]) -> Entering:
    """Enters the cluster x, with these nodes or all hosts."""
    for host in hosts:
        for left in ("pid", "go"):
            place(host, left).unlink(missing_ok=True)
    return lambda *nodes: enter(cli, list(nodes) or hosts)


def place(host: Node, name: str) -> Path:
    assert isinstance(host, SshHost) and host.home is not None
    return host.home / name


def session(host: Node) -> int:
    """The session that ``STAY`` is in on a host, once it is."""
    file = place(host, "pid")
    return int(eventually(lambda: file.exists() and file.read_text().strip()))


def populated(session: int) -> bool:
    """Whether anything of a session is alive."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(sid) == session and state != "Z":
            return True
    return False


def by_rank(text: str) -> dict[int, list[str]]:
    """The lines of each node; fails where one is not behind a rank."""
    found: dict[int, list[str]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9]+)([|+]) (.*)", line)
        assert match, line
        found.setdefault(int(match[1]), []).append(match[3])
    return found


def test_lines_of_several_nodes_never_mix_and_streams_stay_apart(cli: Cli, x: Entering) -> None:
    x()
    wanted = [f"{number} {'x' * 300}" for number in range(300)]
    loop = f"i=0; while [ $i -lt 300 ]; do printf '%s ' $i; echo {'x' * 300}; echo $i >&2; i=$((i + 1)); done"
    done = cli.ok("exec", "x", "--all", "--", loop)
    assert by_rank(done.out) == dict.fromkeys(range(NODES), wanted)
    assert by_rank(done.err) == {rank: [str(number) for number in range(300)] for rank in range(NODES)}


def test_a_last_line_without_an_end_is_a_line(cli: Cli, x: Entering) -> None:
    x()
    assert sorted(cli.ok("exec", "--all", "x", "printf", "a").out.splitlines()) == [
        "0| a",
        "1| a",
        "2| a",
        "3| a",
    ]


def test_the_worst_status_counts_and_a_summary_says_which(cli: Cli, x: Entering) -> None:
    x()
    done = cli("exec", "x", "--all", "--", "exit $(($(cat rank) * 2))")
    assert done.code == 6
    assert done.out == ""
    assert done.err.splitlines() == [
        "gpucloud: 3 of 4 nodes did not succeed",
        "  x-1: exit status 2",
        "  x-2: exit status 4",
        "  x-3: exit status 6",
    ]
    assert cli("exec", "x", "--all", "--", "exit 3").err.splitlines()[1:] == ["  x-[0-3]: exit status 3"]


def test_a_node_that_is_gone_hides_no_other_and_counts_more_than_any_status(
    cli: Cli, hosts: list[SshHost], x: Entering
) -> None:
    with refusing() as gone:
        x(hosts[0], gone, hosts[1])
        done = cli("exec", "x", "--all", "--", "echo here; exit 200")
        assert done.code == 5
        assert by_rank(done.out) == {0: ["here"], 2: ["here"]}
        assert "gpucloud: 3 of 3 nodes did not succeed" in done.err
        assert "x-1: does not answer over SSH (root@" in done.err
        assert "x-[0,2]: exit status 200" in done.err
        told = cli("exec", "x", "--all", "--json", "--", "echo here; exit 200")
        assert told.code == 5
        assert [(node["rank"], node["exit_code"], node["state"]) for node in told.json["nodes"]] == [
            (0, 200, "exited"),
            (1, None, "failed"),
            (2, 200, "exited"),
        ]
        assert told.json["code_from"] == "broker"
        (failure,) = told.json["failures"]
        assert (failure["name"], failure["code"], failure["retryable"]) == ("x-1", "host-unreachable", True)
        assert cli("exec", "x-1", "--json", "--", "true").json["schema"] == "gpucloud.error/1"


def test_a_node_that_hangs_holds_up_no_other(cli: Cli, hosts: list[SshHost], x: Entering) -> None:
    with silent() as hung:
        x(hung, hosts[0], hosts[1])
        patient = {"GPUCLOUD_SSH_CONNECT_TIMEOUT": "10m"}
        with cli.start("exec", "x", "--all", "--", "echo here", env=patient) as running:
            assert running.stdout and running.stderr
            assert {running.stdout.readline() for _ in range(2)} == {"1| here\n", "2| here\n"}
            running.send_signal(signal.SIGINT)
            assert running.wait(30) == 130
            assert "x-0: not started" in running.stderr.read()


def test_one_server_is_not_asked_by_more_than_a_few_at_a_time(cli: Cli) -> None:
    # sshd refuses at random from ten that have not logged in.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        enter(cli, [server.getsockname()] * 20)
        with cli.start("exec", "x", "--all", "--", "true") as running, ExitStack() as accepted:
            for _ in range(AT_ONE_SERVER):
                accepted.enter_context(server.accept()[0])
            more, _, _ = select.select([server], [], [], 0.5)
            assert not more
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 130


def test_an_output_that_is_closed_ends_nothing(cli: Cli, hosts: list[SshHost], x: Entering) -> None:
    x(hosts[0], hosts[1])
    words = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "exec", "x", "--all", "--", "cat rank; exit 4"]
    done = subprocess.run(words, cwd=cli.project, env=dict(cli.environ), capture_output=True, check=False)
    assert done.returncode == 4
    assert b"x-[0-1]: exit status 4" in done.stderr


def test_the_time_of_a_node_includes_how_long_it_takes_to_connect(
    cli: Cli, hosts: list[SshHost], x: Entering
) -> None:
    with silent() as hung:
        x(hung, hosts[0])
        done = cli("exec", "x", "--all", "--timeout", "5s", "--", "echo here")
        assert done.code == 5
        assert done.out == "1| here\n"
        assert "x-0: does not answer over SSH (there was no connection within 5 s)" in done.err


def test_the_same_outputs_are_shown_once_by_group(cli: Cli, x: Entering) -> None:
    x()
    done = cli("exec", "x", "--all", "--group", "--", 'echo a; echo b; [ "$(cat rank)" != 2 ] || echo c')
    assert done.out == "[0-1,3]\na\nb\n[2]\na\nb\nc\n"
    assert cli.ok("exec", "x", "--all", "--group", "--", "printf e >&2").err == "[0-3]\ne\n"
    assert cli.ok("exec", "x", "--all", "--group", "--", "true").out == ""


def test_the_document_has_what_each_node_wrote(cli: Cli, x: Entering) -> None:
    x()
    done = cli("exec", "x", "--all", "--json", "--", "cat rank; echo err >&2; exit 4")
    document = done.json
    assert (done.code, document["schema"], document["code_from"]) == (4, "gpucloud.exec/1", "job")
    assert [(n["rank"], n["name"], n["exit_code"], n["stdout"], n["stderr"]) for n in document["nodes"]] == [
        (rank, f"x-{rank}", 4, str(rank), "err\n") for rank in range(NODES)
    ]
    assert document["failures"] == []


def test_lines_as_documents(cli: Cli, hosts: list[SshHost], x: Entering) -> None:
    x(hosts[0], hosts[1])
    *events, last = map(
        json.loads, cli.ok("exec", "x", "--all", "--json", "--stream", "--", "cat rank").out.splitlines()
    )
    assert {event["schema"] for event in events} == {"gpucloud.exec-event/1"}
    lines = [(event["rank"], event["stream"], event["text"]) for event in events if event["event"] == "line"]
    assert sorted(lines) == [(0, "stdout", "0"), (1, "stdout", "1")]
    assert sorted(event["rank"] for event in events if event["event"] == "end") == [0, 1]
    assert last["schema"] == "gpucloud.exec/1"
    assert "stdout" not in last["nodes"][0]
    assert cli("exec", "x", "--stream", "--", "true").code == 2


def test_options_may_stand_behind_the_name_and_those_of_the_command_are_its_own(
    cli: Cli, hosts: list[SshHost], x: Entering
) -> None:
    x(hosts[0], hosts[1])
    assert by_rank(cli.ok("exec", "x", "--all", "--timeout", "60s", "echo", "--all", "--", "-x").out) == {
        rank: ["--all -- -x"] for rank in range(2)
    }
    assert cli.ok("exec", "x", "echo", "--group", "--", "y").out == "--group -- y\n"
    assert cli("exec", "x", "--timeout", "soon", "--", "true").code == 2
    assert cli("exec", "x", "--nonsense", "--", "true").code == 2


def most_memory(cli: Cli, *words: str) -> tuple[int, int]:
    """How many bytes a command wrote to stdout, and the most memory it ever had, in KiB."""
    script = (
        "import sys; from gpucloud.cli import execute;"
        f"assert execute({list(words)!r}) == 0;"
        "lines = dict(line.split(':', 1) for line in open('/proc/self/status'));"
        "print(lines['VmHWM'].split()[0], file=sys.stderr)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=cli.project,
        env=dict(cli.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout and running.stderr
        size = 0
        while data := running.stdout.read(1_000_000):
            size += len(data)
        return size, int(running.stderr.read().split()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells it like this")
@pytest.mark.parametrize("how", [(), ("--json",), ("--group",)], ids=["lines", "json", "group"])
def test_a_line_without_an_end_fills_no_memory(
    cli: Cli, hosts: list[SshHost], x: Entering, how: tuple[str, ...]
) -> None:
    x(hosts[0], hosts[1])
    much = 48_000_000
    command = f"head -c {much} /dev/zero | tr '\\0' x"
    size, most = most_memory(cli, "exec", "x", "--all", *how, "--", command)
    parts, kept = -(-much // 65_536), 16 * 1024 * 1024
    least = {(): 2 * (much + parts * len("0| \n")), ("--json",): 2 * kept, ("--group",): kept}[how]
    assert least <= size < least + 300_000
    assert most < 160 * 1024


def piped(cli: Cli, *words: str, stdin: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """A command between pipes."""
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=cli.project,
        env=dict(cli.environ),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_bytes_of_one_node_and_into_one_node_are_left_as_they_are(
    cli: Cli, hosts: list[SshHost], x: Entering
) -> None:
    x(hosts[0], hosts[1])
    data = os.urandom(3_000_000)
    with piped(cli, "exec", "x-1", "--", "cat; exit 7") as running:
        out, err = running.communicate(data, timeout=60)
    assert (running.returncode, err) == (7, b"")
    assert out == data


def test_all_nodes_have_the_same_input_and_one_that_reads_none_stalls_no_other(cli: Cli, x: Entering) -> None:
    x()
    data = os.urandom(5_000_000)
    command = '[ "$(cat rank)" = 1 ] || exec sha256sum; until [ -e go ]; do sleep 0.05; done'
    with piped(cli, "exec", "x", "--all", "--", command) as running:
        assert running.stdin and running.stdout
        running.stdin.write(data)
        running.stdin.close()
        lines = sorted(running.stdout.readline() for _ in range(3))
        digest = hashlib.sha256(data).hexdigest()
        assert lines == [f"{rank}| {digest}  -\n".encode() for rank in (0, 2, 3)]
        running.terminate()
        assert running.wait(60) == 130


def test_input_that_never_ends_holds_up_nobody(cli: Cli, x: Entering) -> None:
    x()
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        with piped(cli, "exec", "x", "--all", "--", "head -n 1", stdin=endless.stdout) as running:
            out, _ = running.communicate(timeout=60)
        endless.kill()
    assert running.returncode == 0
    assert by_rank(out.decode()) == {rank: ["y"] for rank in range(NODES)}


def test_the_first_failure_ends_the_others(cli: Cli, hosts: list[SshHost], x: Entering) -> None:
    x()
    first = 'if [ "$(cat rank)" = 0 ]; then until [ -e go ]; do sleep 0.05; done; exit 3; fi; '
    with cli.start("exec", "x", "--all", "--fail-fast", "--", first + STAY) as running:
        sessions = [session(host) for host in hosts[1:]]
        assert all(map(populated, sessions))
        place(hosts[0], "go").touch()
        out, err = running.communicate(timeout=60)
    assert running.returncode == 3
    assert by_rank(out) == {rank: ["on"] for rank in range(1, NODES)}
    assert "x-0: exit status 3" in err
    assert "x-[1-3]: ended" in err
    assert not any(map(populated, sessions))


def test_a_node_that_takes_too_long_is_ended_and_the_others_are_not(
    cli: Cli, hosts: list[SshHost], x: Entering
) -> None:
    x()
    command = f'case $(cat rank) in 0) {STAY} ;; 1) trap "" TERM; {STAY} ;; esac; echo done'
    with cli.start("exec", "x", "--all", "--timeout", "4s", "--json", "--", command) as running:
        sessions = [session(host) for host in hosts[:2]]
        out, err = running.communicate(timeout=60)
    assert running.returncode == 124
    nodes = json.loads(out)["nodes"]
    assert [(node["exit_code"], node["state"]) for node in nodes] == [
        (124, "timed-out"),
        (124, "timed-out"),
        (0, "exited"),
        (0, "exited"),
    ]
    assert [node["stdout"] for node in nodes] == ["on\n", "on\n", "done\n", "done\n"]
    assert "x-0: timed out, ended" in err
    assert "x-1: timed out, killed" in err
    assert not any(map(populated, sessions))


def test_what_has_left_the_session_is_left_alone(cli: Cli, hosts: list[SshHost], x: Entering) -> None:
    x(hosts[0])
    command = f"setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >daemon; {STAY}"
    done = cli("exec", "x", "--timeout", "3s", "--", command)
    assert done.code == 124
    assert "x: timed out, ended" in done.err
    assert not populated(session(hosts[0]))
    daemon = int(place(hosts[0], "daemon").read_text())
    os.kill(daemon, signal.SIGKILL)


@contextmanager
def at_terminal(cli: Cli, *words: str) -> Iterator[pexpect.spawn[str]]:
    person: pexpect.spawn[str] = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], *words],
        cwd=str(cli.project),
        env={**cli.environ, "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=60,
    )
    try:
        yield person
    finally:
        person.close(force=True)


def test_ctrl_c_ends_it_everywhere_and_says_so(cli: Cli, hosts: list[SshHost], x: Entering) -> None:
    x(hosts[0], hosts[1], hosts[2])
    with at_terminal(cli, "exec", "x", "--all", "--", f'[ "$(cat rank)" != 2 ] || exit 9; {STAY}') as person:
        for _ in range(2):
            person.expect(r"\x1b\[3[0-9]m[01]\|\x1b\[0m on\r\n")
        sessions = [session(host) for host in hosts[:2]]
        person.sendintr()
        rest = str(person.read())
        person.wait()
    assert person.exitstatus == 130
    assert "x-[0-1]: ended" in rest
    assert "x-2: exit status 9" in rest
    assert "gpucloud: interrupted" in rest
    assert not any(map(populated, sessions))


@pytest.mark.parametrize("how", [(), ("--all",), ("--all", "--group")], ids=["one", "lines", "grouped"])
def test_what_would_drive_the_terminal_does_not_come_out(
    cli: Cli, hosts: list[SshHost], x: Entering, how: tuple[str, ...]
) -> None:
    x(*hosts[: 1 + bool(how)])
    nasty = r"printf '\033]0;title\007\033[31mred\033[0m\033[2J end\n'"
    with at_terminal(cli, "exec", "x", *how, "--", nasty) as person:
        shown = str(person.read())
        person.wait()
    assert person.exitstatus == 0
    assert "\x1b[31mred\x1b[0m end" in shown
    assert "title" not in shown
    assert "\x1b[2J" not in shown


def test_a_second_ctrl_c_does_not_wait(cli: Cli, hosts: list[SshHost], x: Entering) -> None:
    x(hosts[0])
    with at_terminal(cli, "exec", "x", "--", f'trap "echo told" TERM; while :; do {STAY}; done') as person:
        person.expect("on")
        person.sendintr()
        person.expect("told")
        person.sendintr()
        rest = str(person.read())
        person.wait()
    assert person.exitstatus == 130
    assert "x: it may still run there" in rest
    # The end that was asked for goes on there without us.
    eventually(lambda: not populated(session(hosts[0])))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["told to end", "hung up"])
def test_a_signal_to_us_ends_it_there(
    cli: Cli, hosts: list[SshHost], x: Entering, number: signal.Signals
) -> None:
    x(hosts[0], hosts[1])
    with cli.start("exec", "x", "--all", "--", STAY) as running:
        sessions = [session(host) for host in hosts[:2]]
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "x-[0-1]: ended" in err
    assert not any(map(populated, sessions))


@pytest.mark.parametrize("name", ["x", "x-1"], ids=["all", "one"])
def test_a_reader_that_has_had_enough_ends_it(cli: Cli, hosts: list[SshHost], x: Entering, name: str) -> None:
    x(hosts[0], hosts[1])
    everywhere = ["--all"] if name == "x" else []
    with cli.start("exec", name, *everywhere, "--", "echo $$ >pid; exec yes") as running:
        assert running.stdout and running.stderr
        assert running.stdout.readline().endswith("y\n")
        sessions = [session(host) for host in (hosts[:2] if everywhere else hosts[1:2])]
        running.stdout.close()
        assert running.wait(60) == 0
        assert running.stderr.read() == ""
    assert not any(map(populated, sessions))


def test_nothing_stays_behind_on_a_host(cli: Cli, hosts: list[SshHost], x: Entering) -> None:
    x(hosts[0])
    home = place(hosts[0], ".")
    before = sorted(home.rglob("*"))
    assert cli("exec", "x", "--timeout", "2s", "--", "sleep 1000").code == 124
    assert cli.ok("exec", "x", "--", "env").out.count("gpucloud") == 0
    assert sorted(home.rglob("*")) == before
