"""``gpucloud notebook`` as a user has it, with a stand-in for Jupyter on a machine behind a real sshd."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cli import Cli, installation
from tests.harness.sshd import SshHost, openssh_host
from tests.harness.waiting import eventually
from tests.integration.test_own_machines import configure

pytestmark = pytest.mark.needs_sshd

# What our side uses of Jupyter: its options, its configuration, its login, and what it tells of kernels.
JUPYTER = """\
import http.server, json, pathlib, sys, urllib.parse
options = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
mode = pathlib.Path("mode").read_text() if pathlib.Path("mode").exists() else ""
if mode == "broken":
    sys.exit("no module named \\x1b[31mtraitlets")
token = json.loads(pathlib.Path(options["config"]).read_text())["IdentityProvider"]["token"]
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        given = urllib.parse.parse_qs(url.query).get("token", [""])[0]
        header = self.headers.get("Authorization", "").removeprefix("token ")
        known = mode == "open" or token in (given, header)
        kernels = pathlib.Path("kernels.json")
        answer = kernels.read_bytes() if url.path == "/api/kernels" and kernels.exists() else b"[]"
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(answer) if known else 0))
        self.end_headers()
        self.wfile.write(answer if known else b"")
    def log_message(self, *_):
        pass
assert options["ip"] == "127.0.0.1" and "no-browser" in options
http.server.ThreadingHTTPServer(("127.0.0.1", int(options["port"])), Page).serve_forever()
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """A machine ``x``, who has rented it, and our folder there."""

    cli: Cli
    host: SshHost
    root: Path

    def shown(self, *words: str) -> dict[str, Any]:
        """What ``notebook`` says until Jupyter is there; it is interrupted then."""
        with notebook(self, *words) as document:
            return document

    @property
    def state(self) -> dict[str, Any]:
        """What the keeper knows."""
        return dict(json.loads((self.root / "notebook" / "state.json").read_text()))

    def servers(self) -> list[int]:
        """The processes of Jupyter that run here."""
        return [pid for pid, words in processes() if b"--no-browser" in words and self.told_from(words)]

    def told_from(self, words: bytes) -> bool:
        return str(self.root).encode() in words


def processes() -> Iterator[tuple[int, bytes]]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            yield int(entry.name), (entry / "cmdline").read_bytes()
        except OSError:
            continue


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with openssh_host(folder / "box") as host, installation(folder / "user") as cli:
        configure(cli, [host])
        # With the limit its sessions are told from those of other servers here.
        cli.ok("launch", "--name", "x", "--no-push", "--idle", "1d", "--yes")
        assert host.home is not None
        (root,) = (host.home / ".gpucloud").glob("gc-*")
        program(host.home / ".local" / "bin" / "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        yield Desk(cli, host, root)


@pytest.fixture
def jupyter(desk: Desk) -> Iterator[Desk]:
    """The machine with the stand-in where pip puts it for a user."""
    assert desk.host.home is not None
    installed = desk.host.home / ".local" / "bin" / "jupyter-lab"
    program(installed, f"#!{sys.executable}\n{JUPYTER}")
    yield desk
    desk.cli.ok("notebook", "x", "--stop")
    installed.unlink()
    for name in "mode", "kernels.json":
        (desk.root / "work" / name).unlink(missing_ok=True)


def program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


@contextmanager
def notebook(desk: Desk, *words: str) -> Iterator[dict[str, Any]]:
    """A ``notebook`` that goes on; yields its first line."""
    with desk.cli.start("notebook", "x", "--no-open", "--json", *words) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
    assert process.returncode == 130


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_without_jupyter_it_says_how_to_install_it(desk: Desk) -> None:
    done = desk.cli("notebook", "x")
    assert done.code == 84
    assert done.err.splitlines()[-3] == "gpucloud: x has no Jupyter"
    hint = done.err.splitlines()[-1]
    assert hint.startswith("    next: gpucloud exec x -- ")
    assert hint.endswith(("pip install --user jupyterlab", "pip install jupyterlab'"))


def test_it_starts_answers_and_is_found_again_with_its_token(jupyter: Desk) -> None:
    with notebook(jupyter) as first:
        assert status(first["url"]) == 200
        assert status(first["url"].partition("?")[0]) == 403
        token = first["url"].partition("token=")[2]
        with notebook(jupyter) as second:
            assert (first["reused"], second["reused"]) == (False, True)
            assert second["local_port"] != first["local_port"]
            assert second["url"].partition("token=")[2] == token
            assert status(second["url"]) == 200
        assert not [words for _, words in processes() if token.encode() in words]
    for file in (jupyter.root / "notebook").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    # It goes on when nobody is there, and its processes belong to no session of ours.
    assert len(jupyter.servers()) == 1
    for pid in jupyter.state["server"][0], jupyter.state["keeper"][0]:
        assert b"\0SSH_CONNECTION=" not in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    assert jupyter.shown()["reused"] is True


def test_two_first_calls_at_once_start_one(jupyter: Desk) -> None:
    with notebook(jupyter) as one, notebook(jupyter) as other:
        assert one["url"].partition("?")[2] == other["url"].partition("?")[2]
    assert len(jupyter.servers()) == 1


def test_a_port_that_is_asked_for_is_taken_or_refused(jupyter: Desk) -> None:
    shown = jupyter.shown("--port", "0")
    with notebook(jupyter, "--port", str(shown["local_port"])) as again:
        assert again["local_port"] == shown["local_port"]
        assert jupyter.cli("notebook", "x", "--port", str(shown["local_port"])).code == 2


def test_stop_ends_it_and_the_next_has_another_token(jupyter: Desk) -> None:
    first = jupyter.shown()
    assert jupyter.cli.ok("notebook", "x", "--stop", "--json").json["stopped"] is True
    assert jupyter.servers() == []
    assert jupyter.cli.ok("notebook", "x", "--stop", "--json").json["stopped"] is False
    assert jupyter.shown()["url"] != first["url"]


def test_a_keeper_that_was_killed_is_replaced_and_jupyter_goes_on(jupyter: Desk) -> None:
    first = jupyter.shown()
    before = jupyter.state
    os.kill(before["keeper"][0], signal.SIGKILL)
    again = jupyter.shown()
    assert (again["reused"], again["remote_port"]) == (True, first["remote_port"])
    assert jupyter.state["keeper"] != before["keeper"]
    os.kill(before["server"][0], signal.SIGKILL)
    eventually(lambda: not (jupyter.root / "notebook" / "state.json").exists())
    assert jupyter.shown()["reused"] is False


@pytest.mark.parametrize(
    ("mode", "why"), [("broken", "no module named  [31mtraitlets"), ("open", "it lets everybody in")]
)
def test_one_that_does_not_come_up_as_it_should_is_told(jupyter: Desk, mode: str, why: str) -> None:
    (jupyter.root / "work" / "mode").write_text(mode)
    done = jupyter.cli("notebook", "x", "--no-open")
    assert done.code == 84
    assert why in done.err
    assert jupyter.servers() == []


@pytest.mark.parametrize("file", ["config.json", "state.json", "lock"])
def test_a_file_that_cannot_be_written_is_told_and_nothing_is_left_running(jupyter: Desk, file: str) -> None:
    obstacle = jupyter.root / "notebook" / file
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir(parents=True)
    try:
        done = jupyter.cli("notebook", "x", "--no-open")
    finally:
        obstacle.rmdir()
    assert done.code == 84
    assert file in done.err
    assert jupyter.servers() == []


RUNNING = '{"state": "running", "port": %s, "token": %s, "kind": "lab", "reused": true}'
TOKEN = f'"{"0" * 48}"'


@pytest.mark.parametrize(
    "answer",
    [
        "echo hello",
        "echo '[]'",
        f"echo '{RUNNING % (0, TOKEN)}'",
        f"echo '{RUNNING % ('[]', TOKEN)}'",
        f"cat <<'end'\n{RUNNING % (80, json.dumps(chr(27) + ']0;'))}\nend",
        f"echo '{RUNNING % (80, 3)}'",
        "yes",
        "exit 7",
    ],
)
def test_a_host_that_tells_nonsense_is_not_believed(desk: Desk, answer: str) -> None:
    deceiver = desk.root / "work" / ".venv" / "bin" / "python3"
    program(deceiver, f"#!/bin/sh\n{answer}\n")
    try:
        done = desk.cli("notebook", "x", "--no-open")
    finally:
        deceiver.unlink()
    assert done.code == 85, done.err
    assert "\x1b" not in done.err
    assert "http" not in done.out


@pytest.mark.slow
def test_the_machine_is_busy_while_a_kernel_computes_and_idle_with_one_that_was_forgotten(
    jupyter: Desk,
) -> None:
    kernels = jupyter.root / "work" / "kernels.json"

    def use() -> str:
        return (jupyter.root / "busy").read_text().split()[1]

    jupyter.shown()
    for state, expected in ("idle", "none"), ("busy", "ssh"), ("idle", "none"):
        draft = kernels.with_suffix(".new")
        draft.write_text(
            json.dumps([{"execution_state": state, "last_activity": "2020-01-01T00:00:00.000000Z"}])
        )
        draft.replace(kernels)
        eventually(lambda wanted=expected: use() == wanted, timeout_s=60)  # type: ignore[misc]


@pytest.mark.parametrize("how", ["down", "lease"])
def test_it_ends_with_the_machine(tmp_path: Path, how: str) -> None:
    with openssh_host(tmp_path / "box") as host, installation(tmp_path / "user") as cli:
        configure(cli, [host])
        cli.ok("launch", "--name", "x", "--no-push")
        assert host.home is not None
        (root,) = (host.home / ".gpucloud").glob("gc-*")
        program(host.home / ".local" / "bin" / "jupyter-lab", f"#!{sys.executable}\n{JUPYTER}")
        here = Desk(cli, host, root)
        with notebook(here) as shown:
            assert status(shown["url"]) == 200
        assert here.servers()
        if how == "down":
            cli.ok("down", "x", "--yes")
        else:
            cli.ok("exec", "x", "--", "sh ../host.sh lease 0")
        eventually(lambda: not here.servers())
        if how == "down":
            assert not root.exists()


VISIT = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=60).status)"


def test_the_browser_is_led_there_once_without_the_token_among_its_words(
    jupyter: Desk, tmp_path: Path
) -> None:
    opened = tmp_path / "opened"
    program(tmp_path / "browser", f'#!/bin/sh\necho "$1" >"{opened}.new"; mv "{opened}.new" "{opened}"\n')
    browser = {"BROWSER": str(tmp_path / "browser")}
    with jupyter.cli.start("notebook", "x", env=browser, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            token = process.stdout.readline().rstrip().partition("token=")[2]
            eventually(opened.exists)
            url = opened.read_text().rstrip()
            assert token not in url
            if os.geteuid() == 0 and shutil.which("python3", path="/usr/bin:/bin"):
                stranger = subprocess.run(
                    ["/usr/bin/env", "python3", "-c", VISIT, url],
                    user=65534,
                    env={"PATH": "/usr/bin:/bin"},
                    cwd="/",
                    capture_output=True,
                    check=False,
                )
                assert b"404" in stranger.stderr
            assert status(url) == 200
            with pytest.raises(OSError, match="refused"):
                status(url)
        finally:
            process.kill()


def test_ctrl_c_says_how_to_go_on(jupyter: Desk) -> None:
    process = jupyter.cli.start("notebook", "x", "--no-open", stderr=subprocess.PIPE)
    assert process.stdout is not None
    url = process.stdout.readline()
    assert url.startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "Jupyter goes on: gpucloud notebook x, gpucloud notebook x --stop" in said
