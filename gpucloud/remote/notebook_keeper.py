"""Starts a notebook server on a host and looks after it; run there, by its own Python (3.7 or later).

``start`` and ``stop`` answer with one line of JSON. ``keep`` goes on beside the server: it ends it when our
folder is gone or the machine is to end, and lets the machine count as busy while a kernel computes or
somebody works in it, and only then: a notebook that was forgotten must not keep a meter running.

It imports nothing of ours. In its folder are ``config.json`` with the server's token, ``state.json`` and
``log``.
"""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

KINDS = (("lab", "jupyter-lab"), ("notebook", "jupyter-notebook"))
START_S = 120
END_S = 10
ANSWER_S = 10
LOOK_S = 5
"""How often it is asked what it does."""
HOLD_S = 9
"""For so long after each of those the machine counts as busy."""
FRESH_S = 30
"""What a kernel or a terminal did so long ago is still going on."""

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SESSION = "GPUCLOUD_SESSION"
"""Where the variable of the SSH session is passed on by which host.sh tells who is there."""


def start() -> dict[str, Any]:
    """Start a server, or find the one that is there."""
    with locked():
        state = read_state()
        if state and alive(state["server"]):
            if not answers(state["port"], state["token"]):
                return failed("one is there, but does not answer")
            if not alive(state["keeper"]):
                launch_keeper("adopt")
            return {**shown(state), "reused": True}
        kind, program = find_program()
        if not program:
            managed = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()
            return {"state": "missing", "managed": managed}
        return launch_keeper("keep", kind, program)


def stop() -> dict[str, Any]:
    """End the server, if there is one."""
    with locked():
        state = read_state()
        there = [state[who] for who in ("keeper", "server") if alive(state[who])] if state else []
        for process in there:
            if alive(process):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process[0], signal.SIGTERM)
                wait_until(partial(gone, process), END_S + 5)
        with contextlib.suppress(FileNotFoundError):
            (HERE / "state.json").unlink()
        return {"state": "stopped" if there else "none"}


def keep(kind: str, program: str) -> None:
    """Start a server, tell on stdout how that went, and stay with it."""
    token, port = secrets.token_hex(24), free_port()
    server = subprocess.Popen(
        command(program, port, token),
        cwd=str(ROOT / "work"),
        env={name: value for name, value in os.environ.items() if name != SESSION},
        stdin=subprocess.DEVNULL,
        stdout=os.open(str(HERE / "log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND, 0o600),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    process = identity(server.pid)
    try:
        wait_until(lambda: server.poll() is not None or answers(port, token), START_S)
        fault = ""
        if not answers(port, token):
            fault = last_words(token)
        elif answers(port, ""):
            fault = "it lets everybody in, token or not"
        state = {"port": port, "token": token, "kind": kind, "server": process}
        if not fault:
            write("state.json", {**state, "keeper": identity(os.getpid())})
    except OSError as error:
        fault = str(error)
    if fault:
        end(process)
        report(failed(fault))
    else:
        report({**shown(state), "reused": False})
        look_after(state)


def adopt() -> None:
    """Stay with a server whose keeper was killed."""
    state = read_state()
    if state:
        write("state.json", {**state, "keeper": identity(os.getpid())})
        report({})
        look_after(state)


def look_after(state: dict[str, Any]) -> None:
    """Return when the server has ended, and end it when it must not go on."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    next_look = time.monotonic()
    while alive(state["server"]) and not told and (HERE / "state.json").exists() and not machine_ends():
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + LOOK_S
            if in_use(state["port"], state["token"]):
                hold()
        time.sleep(0.5)
        reap()
    end(state["server"])
    with contextlib.suppress(OSError):
        (HERE / "state.json").unlink()


def command(program: str, port: int, token: str) -> list[str]:
    """How to start the server. Its token is in a file that nobody else can read, not among its words."""
    # In this place a configuration stands for that of the user, which may let everybody in.
    settings = {"token": token, "password": ""}
    write(
        "config.json", {"IdentityProvider": {"token": token}, "ServerApp": settings, "NotebookApp": settings}
    )
    words = [program, f"--config={HERE / 'config.json'}", "--no-browser", "--ip=127.0.0.1"]
    words += [f"--port={port}", "--port-retries=0"]
    return [*words, "--allow-root"] if os.geteuid() == 0 else words


def find_program() -> tuple[str, str]:
    """What there is of JupyterLab and Notebook, and where; empty when there is neither."""
    known = shutil.which("jupyter")
    if known:
        os.environ["PATH"] += os.pathsep + str(Path(known).resolve().parent)
    for kind, name in KINDS:
        program = shutil.which(name)
        if program:
            return kind, program
    return "", ""


def launch_keeper(*words: str) -> dict[str, Any]:
    """Go on in a session of its own, which is no SSH session any more; returns what that reports first."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
    environ[SESSION] = os.environ.get("SSH_CONNECTION", "")
    keeper = subprocess.Popen(
        [sys.executable, __file__, *words],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert keeper.stdout is not None
    line = keeper.stdout.readline()
    answer: dict[str, Any] = json.loads(line) if line else failed("it was killed while it started")
    return answer


def in_use(port: int, token: str) -> bool:
    """Whether a kernel computes, or somebody works with one or in a terminal; an open page does not count."""
    for kind in ("kernels", "terminals"):
        for each in ask(port, token, f"{kind}?no_track_activity=1") or ():
            if not isinstance(each, dict):
                continue
            if each.get("execution_state") == "busy" or recent(each.get("last_activity")):
                return True
    return False


def recent(moment: Any) -> bool:
    """Whether a time as the server writes it is not long ago."""
    try:
        then = calendar.timegm(time.strptime(str(moment)[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return False
    return time.time() - then < FRESH_S


def hold() -> None:
    """Let the machine count as busy for a while: host.sh sees a process of an SSH session."""
    session = os.environ.get(SESSION)
    if session:
        environ = {"PATH": os.environ.get("PATH", os.defpath), "SSH_CONNECTION": session}
        subprocess.Popen(["sleep", str(HOLD_S)], env=environ, stdin=subprocess.DEVNULL)


def machine_ends() -> bool:
    """Whether the lease is over, or the machine was idle for too long."""
    try:
        return (ROOT / "over").read_text().split(maxsplit=1)[0] in {"lease", "idle"}
    except (OSError, IndexError):
        return False


def answers(port: int, token: str) -> bool:
    """Whether the server lets in who has that token."""
    return ask(port, token, "kernels?no_track_activity=1") is not None


def ask(port: int, token: str, what: str) -> Any:
    """What the server says; ``None`` without a proper answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{what}")
    if token:
        request.add_header("Authorization", f"token {token}")
    try:
        # A proxy that the host is told to use leads elsewhere.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=ANSWER_S) as reply:
            return json.loads(reply.read(1 << 20))
    except (OSError, ValueError, urllib.error.URLError):
        return None


def end(server: list[int]) -> None:
    """End a server with all that it started: gently, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not alive(server):
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server[0], number)
        wait_until(partial(gone, server), END_S)


def identity(pid: int) -> list[int]:
    """A process as its number and its start: the number alone may mean somebody else later."""
    try:
        return [pid, int(stat_of(pid)[19])]
    except (OSError, IndexError):
        return [pid, 0]


def alive(process: list[int]) -> bool:
    """Whether a process is there, and is still the same."""
    reap()
    try:
        os.kill(process[0], 0)
        if not process[1]:
            return True
        words = stat_of(process[0])
        return words[0] != "Z" and int(words[19]) == process[1]
    except (OSError, IndexError):
        return False


def gone(process: list[int]) -> bool:
    """Whether a process has ended."""
    return not alive(process)


def stat_of(pid: int) -> list[str]:
    """What Linux tells of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def reap() -> None:
    """Let go of children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def wait_until(question: Any, at_most_s: float) -> None:
    """Return once the answer is yes, or it has taken too long."""
    until = time.monotonic() + at_most_s
    while not question() and time.monotonic() < until:
        time.sleep(0.1)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Nobody else starts or stops a server meanwhile."""
    import fcntl

    with (HERE / "lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_state() -> dict[str, Any] | None:
    """What is known of the server; ``None`` when there is none."""
    try:
        state = json.loads((HERE / "state.json").read_text())
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def write(name: str, content: dict[str, Any]) -> None:
    """Write a file that nobody else can read, and nobody ever sees a part of."""
    draft = HERE / f"{name}.{os.getpid()}"
    with os.fdopen(os.open(str(draft), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as out:
        json.dump(content, out)
    draft.replace(HERE / name)


def shown(state: dict[str, Any]) -> dict[str, Any]:
    """What the client is told of a server."""
    return {"state": "running", **{key: state[key] for key in ("port", "token", "kind")}}


def failed(why: str) -> dict[str, Any]:
    """What the client is told instead."""
    return {"state": "failed", "why": why}


def last_words(token: str) -> str:
    """The end of what a server wrote that did not come up."""
    lines = (HERE / "log").read_text(errors="replace").replace(token, "<hidden>").strip().splitlines()
    return "; ".join(lines[-3:]) or "it said nothing"


def report(answer: dict[str, Any]) -> None:
    """Write the answer, after which nobody listens any more."""
    os.write(1, json.dumps(answer).encode() + b"\n")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)


def main(action: str, *arguments: str) -> None:
    """Do what the client asks for, or what ``launch_keeper`` does."""
    os.umask(0o077)
    actions = {"start": lambda: report(start()), "stop": lambda: report(stop()), "adopt": adopt}
    try:
        keep(*arguments) if action == "keep" else actions[action]()
    except OSError as error:
        report(failed(str(error)))


if __name__ == "__main__":
    main(*sys.argv[1:])
