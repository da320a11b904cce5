"""Planted secrets are looked for in everything that a whole run leaves, shows, sends or starts."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.harness.cli import Cli
from tests.harness.plugins import ACME, write_plugin
from tests.harness.waiting import eventually

# The setup has the secret in a file beside it, which goes when the job begins. The job writes it where it was
# not. Each waits until its gate is open.
TASK = """
setup: |
  echo setting up
  while [ ! -e "$GATES/setup" ]; do sleep 0.05; done
run: |
  mkdir kept && printf %s "$PLANTED" > kept/mine.txt
  echo running
  while [ ! -e "$GATES/run" ]; do sleep 0.05; done
outputs: [kept/mine.txt]
"""
WRITTEN_BY_JOB = Path("kept", "mine.txt")


def forms(secret: str) -> list[bytes]:
    """The ways in which a secret may be written: plain, as hex, and as base64 of what it is a part of."""
    plain = secret.encode()
    # What comes before it decides how it is cut into groups of three bytes; the ends mix with what is around.
    shifted = [base64.b64encode(b"-" * shift + plain)[4 if shift else 0 : -4] for shift in range(3)]
    return [plain, plain.hex().encode(), *shifted]


def has(content: bytes, secret: str) -> bool:
    return any(form in content for form in forms(secret))


def holders(folder: Path, secret: str) -> set[Path]:
    """The files below a folder that have a secret, relative to it."""
    found = set()
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if not file.is_symlink() and file.is_file() and has(file.read_bytes(), secret):
                found.add(file.relative_to(folder))
    return found


@dataclass(frozen=True, slots=True)
class Seen:
    """A process that has a secret: in its ``cmdline`` or its ``environ``; whether a job's own."""

    where: str
    words: bytes
    of_job: bool


@dataclass(slots=True)
class Watch:
    """What has been seen in the process list, again and again; ``passes`` counts how often."""

    secret: str
    seen: set[Seen] = field(default_factory=set)
    passes: int = 0

    def look(self) -> None:
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words, environ = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
                of_job = b"GPUCLOUD_JOB_ID=" in environ
                for where, content in {"cmdline": words, "environ": environ}.items():
                    if has(content, self.secret):
                        self.seen.add(Seen(where, words, of_job))
        self.passes += 1


@contextmanager
def watching(*watches: Watch) -> Iterator[None]:
    """Look through the process list all the time."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for watch in watches:
                watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass(slots=True)
class Vendor:
    """A server that accepts everything and remembers what it was sent, and in a reply tells it back."""

    authorisations: set[str] = field(default_factory=set)
    rest: list[bytes] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        headers = dict(request.headers)
        told = headers.pop("Authorization", "")
        self.authorisations.add(told)
        self.rest += [
            request.method.encode(),
            request.url.encode(),
            repr(headers).encode(),
            request.get_data(),
        ]
        return Response(json.dumps({"name": "ann", "seen": told}), content_type="application/json")


@pytest.fixture
def vendor(httpserver: HTTPServer) -> Vendor:
    found = Vendor()
    httpserver.expect_request(re.compile("/.*")).respond_with_handler(found)
    return found


@dataclass(frozen=True, slots=True)
class Ran:
    """What a whole run has shown and how it was seen from outside."""

    out: str
    err: str
    command: bytes


def run(cli: Cli, watch: Watch, *words: str, env: Mapping[str, str]) -> Ran:
    """Run the task to its end, telling all, and look around while its setup and its job go on."""
    home, gates = cli.project.parent, cli.project.parent / "gates"
    gates.mkdir()
    (cli.project / "task.yaml").write_text(TASK)
    line = ("run", "task.yaml", "--debug", "--yes", "--secret", "PLANTED", "--env", f"GATES={gates}", *words)
    with cli.start(*line, env=env) as process, drained(process.stderr) as told:
        try:
            assert process.stdout
            assert process.stdout.readline() == "setting up\n", told()
            # Read once it has spoken: a program that has just been started has no words yet.
            command = Path("/proc", str(process.pid), "cmdline").read_bytes()
            (beside,) = holders(home, watch.secret)
            assert (home / beside).stat().st_mode & 0o777 == 0o600
            assert (beside.parts[-3], beside.name) == ("jobs", "env")
            assert "work" not in beside.parts
            looked_until(watch)
            (gates / "setup").touch()
            assert process.stdout.readline() == "running\n", told()
            looked_until(watch)
            written = eventually(lambda: holders(home, watch.secret))
            assert {file.parts[-2:] for file in written} == {WRITTEN_BY_JOB.parts}
            (gates / "run").touch()
            out = process.stdout.read()
            assert process.wait(60) == 0, told()
            return Ran(out, told(), command)
        finally:
            process.kill()


def looked_until(watch: Watch) -> None:
    """Wait until the whole process list has been looked through, from its beginning to its end."""
    before = watch.passes
    eventually(lambda: watch.passes > before + 1)


@contextmanager
def drained(stream: IO[str] | None) -> Iterator[Callable[[], str]]:
    """All that a stream says, once it has ended; it is read beside, so that its writer never waits."""
    assert stream
    parts: list[str] = []
    thread = threading.Thread(target=lambda: parts.extend(stream))
    thread.start()

    def told() -> str:
        thread.join(60)
        return "".join(parts)

    try:
        yield told
    finally:
        thread.join(60)


def assert_only_where_it_belongs(watch: Watch, ran: Ran) -> None:
    """Of processes only the job's own have a secret, and the command that was given it by its environment."""
    assert not [seen for seen in watch.seen if seen.where == "cmdline"]
    others = {seen.words for seen in watch.seen if not seen.of_job}
    # A child is its parent until it runs a program of its own.
    assert others <= {ran.command}


@pytest.mark.parametrize("provider", ["local", "sim:boot=0s"])
def test_a_job_s_secret_is_nowhere_but_in_the_job(cli: Cli, provider: str) -> None:
    watch = Watch(secrets.token_hex(16))
    with watching(watch):
        ran = run(cli, watch, "--provider", provider, env={"PLANTED": watch.secret})
    assert [seen for seen in watch.seen if seen.of_job], "the job's own processes were not seen"
    assert_only_where_it_belongs(watch, ran)
    assert not has(ran.out.encode(), watch.secret)
    assert not has(ran.err.encode(), watch.secret)
    assert "gone, confirmed" in ran.err
    assert holders(cli.project.parent, watch.secret) == {Path("project") / WRITTEN_BY_JOB}


@pytest.mark.parametrize("kept_in", ["environment", "file"])
def test_a_provider_s_key_goes_to_that_provider_and_nowhere_else(
    cli: Cli, vendor: Vendor, httpserver: HTTPServer, tmp_path: Path, kept_in: str
) -> None:
    write_plugin(tmp_path / "plugins", "acme", ACME)
    job, key = Watch(secrets.token_hex(16)), Watch(secrets.token_hex(16))
    env = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "plugins"), cli.environ.get("PYTHONPATH", "")]),
        "GPUCLOUD_ACME_URL": httpserver.url_for(""),
        "PLANTED": job.secret,
    }
    places = set()
    if kept_in == "environment":
        env["ACME_API_KEY"] = key.secret
    else:
        cli.ok("login", "acme", "--stdin", stdin=key.secret, env=env)
        places.add(Path("config", "gpucloud", "credentials.toml"))
    with watching(job, key):
        ran = run(cli, job, "--provider", "acme", env=env)
    assert_only_where_it_belongs(job, ran)
    assert_only_where_it_belongs(key, ran)
    assert not [seen for seen in key.seen if seen.of_job], "the job was given the key of its provider"
    shown = (ran.out + ran.err).encode()
    assert b"/instances" in shown, "requests are not told of"
    sent = b"\n".join(vendor.rest)
    assert b"POST" in sent and b"gpucloud-token" in sent and b"DELETE" in sent
    assert vendor.authorisations == {f"Bearer {key.secret}"}
    for secret in job.secret, key.secret:
        assert not has(shown, secret)
        assert not has(sent, secret)
    home = cli.project.parent
    assert holders(home, job.secret) == {Path("project") / WRITTEN_BY_JOB}
    assert holders(home, key.secret) == places


@pytest.mark.parametrize("shift", range(4))
def test_the_search_finds_a_secret_however_it_is_written(tmp_path: Path, shift: int) -> None:
    secret = secrets.token_hex(16)
    around = f"{'x' * shift}{secret}yz".encode()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    written = {"plain": around, "hex": around.hex().encode(), "base64": base64.b64encode(around)}
    for name, content in written.items():
        (tmp_path / "deep" / "er" / name).write_bytes(b"\0before" + content + b"after\0")
    with closing(sqlite3.connect(tmp_path / "deep" / "books.db")) as books:
        books.execute("PRAGMA journal_mode = WAL")
        books.execute("CREATE TABLE told (text)")
        books.commit()
        books.execute("INSERT INTO told VALUES (?)", (secret,))
        books.commit()
        found = holders(tmp_path, secret)
    assert found == {Path("deep", "books.db-wal"), *(Path("deep", "er", name) for name in written)}
    assert holders(tmp_path, secrets.token_hex(16)) == set()


@pytest.mark.parametrize("where", ["cmdline", "environ"])
def test_the_watch_sees_a_secret_that_a_process_has(where: str) -> None:
    watch = Watch(secrets.token_hex(16))
    words = [watch.secret] if where == "cmdline" else []
    environ = {} if words else {"TOLD": watch.secret}
    with (
        subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()", *words],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
        watching(watch),
    ):
        assert process.stdout and process.stdin
        process.stdout.readline()
        looked_until(watch)
        process.stdin.write("\n")
    assert {seen.where for seen in watch.seen} == {where}
