"""Those that are compared: each brings a tree to a folder of its own on the same host, or home from there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Final, Self

from tests.bench import warm
from tests.bench.sync_rig import Far, end_all_with
from tests.harness.cli import Cli, installation

CLUSTER: Final = "far"
LIMIT_S: Final = 900

COMMAND: Final = """
import atexit, sys
def tell():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print("peak", lines["VmHWM"].split()[0], file=sys.stderr)
atexit.register(tell)
from gpucloud.cli import main
main()
"""
"""The command line; at its end it tells the most memory that it ever had, in KiB."""


class Contender(ABC):
    """One way. Enter it to begin with an empty folder on the host, which is gone when the context ends."""

    name: str
    peak_kib: int | None = None
    """The most memory that the process had; ``None`` for what is not ours."""

    _numbers = count()

    def __init__(self, far: Far) -> None:
        self.far = far
        self.number = next(self._numbers)

    @property
    @abstractmethod
    def there(self) -> Path:
        """Its folder on the host, as this machine sees it."""

    @abstractmethod
    def push(self, source: Path) -> float:
        """Make the folder what ``source`` is; returns the seconds that it took."""

    @abstractmethod
    def pull(self, name: str, into: Path) -> float:
        """Bring a file of the folder into another one here; returns the seconds that it took."""

    def disconnect(self) -> None:  # noqa: B027
        """End every connection, so that the next act has to make one; most keep none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.there, ignore_errors=True)


class SharedSsh:
    """An OpenSSH connection that stays open until the context ends; ``words`` begin an ``ssh`` over it."""

    def __init__(self, far: Far) -> None:
        # Sockets have short paths only.
        self._runtime = tempfile.TemporaryDirectory(prefix="gcb")
        self._socket = Path(self._runtime.name, "s")
        options = ("-o", "ControlMaster=auto", "-o", "ControlPersist=10m", "-S", str(self._socket))
        self.words = far.ssh(*options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._runtime.cleanup()

    def close(self) -> None:
        """End the connection; the next command makes another one."""
        if self._socket.exists():
            subprocess.run([*self.words, "-O", "exit", "far"], check=True, capture_output=True)

    def run(self, command: str) -> float:
        """How long a command takes that must succeed."""
        return seconds([*self.words, "far", command])


class Rsync(Contender):
    """``rsync -a``, or with other options, over a connection of its own, or ``through`` one that is open."""

    SHARED: Final = "over a ControlMaster"

    def __init__(self, far: Far, options: str = "-a", *, through: SharedSsh | None = None) -> None:
        super().__init__(far)
        self.name = f"rsync {options} {self.SHARED}" if through else f"rsync {options}"
        self._options = options
        self._through = through
        self._words = through.words if through else far.ssh()

    @property
    def there(self) -> Path:
        """Its folder on the host."""
        return self.far.home / f"theirs-{self.number}"

    def push(self, source: Path) -> float:
        """As ``Contender`` says; what is gone here is deleted there."""
        return self._run("--delete", f"{source}/", f"far:{self.there.name}/")

    def pull(self, name: str, into: Path) -> float:
        """As ``Contender`` says."""
        return self._run(f"far:{self.there.name}/{name}", f"{into}/")

    def disconnect(self) -> None:
        """End the connection that is open, if there is one."""
        if self._through:
            self._through.close()

    def _run(self, *words: str) -> float:
        # It knows quotes in the words of an ssh, but no other rules of a shell.
        shell = " ".join(f"'{word}'" for word in self._words)
        return seconds(["rsync", self._options, "-e", shell, *words])


class SshTar(Contender):
    """``tar`` into an ``ssh``, which knows nothing of what is there already."""

    name = "ssh + tar"

    @property
    def there(self) -> Path:
        """Its folder on the host."""
        return self.far.home / f"tar-{self.number}"

    def push(self, source: Path) -> float:
        """As ``Contender`` says, onto an empty folder."""
        unpack = f"mkdir -p {self.there.name} && tar -xpf - -C {self.there.name}"
        return self._piped(["tar", "-cf", "-", "-C", str(source), "."], self.far.ssh("far", unpack))

    def pull(self, name: str, into: Path) -> float:
        """As ``Contender`` says."""
        pack = self.far.ssh("far", f"tar -cf - -C {self.there.name} {name}")
        return self._piped(pack, ["tar", "-xpf", "-", "-C", str(into)])

    def _piped(self, one: Sequence[str], other: Sequence[str]) -> float:
        began = time.perf_counter()
        with subprocess.Popen(one, stdout=subprocess.PIPE) as first:
            subprocess.run(other, stdin=first.stdout, check=True, timeout=LIMIT_S)
        assert first.returncode == 0
        return time.perf_counter() - began


class Command(Contender):
    """What a user runs: ``gpucloud push`` and ``pull``, from the start of the process to its end.

    Each has an installation of its own, which has never seen the tree nor the host. With ``job`` the host
    runs that, under the name `CLUSTER`.
    """

    name = "gpucloud"

    def __init__(self, far: Far, job: str = "") -> None:
        super().__init__(far)
        self._job = ["--", job] if job else []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # The path of a socket is short, and so is that of the usual folder for them.
            runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="gcb"))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpucloud-bench-")))
            self._runtime = runtime
            cli = stack.enter_context(installation(folder))
            self.cli = Cli(cli.project, {**cli.environ, "XDG_RUNTIME_DIR": runtime})
            stack.callback(end_all_with, self._runtime)
            self._configure()
            before = self._tokens()
            with self.far.close_by():
                self.cli.ok("launch", "--name", CLUSTER, *self._job)
            (self._token,) = self._tokens() - before
            stack.callback(shutil.rmtree, self._home / self._token, ignore_errors=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def there(self) -> Path:
        """The working directory."""
        return self._home / self._token / "work"

    def push(self, source: Path) -> float:
        """As ``Contender`` says."""
        return self.run("push", CLUSTER, "--workdir", str(source))

    def pull(self, name: str, into: Path) -> float:
        """As ``Contender`` says."""
        return self.run("pull", CLUSTER, name, "--to", str(into))

    def run(self, *words: str) -> float:
        """How long a command takes that must succeed."""
        began = time.perf_counter()
        with self.started(*words) as process:
            process.communicate(timeout=LIMIT_S)
            return time.perf_counter() - began

    @contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command with its stdout to be read; it must have succeeded when the context ends."""
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [sys.executable, "-c", COMMAND, *words],
                cwd=self.cli.project,
                env=self.cli.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as process,
        ):
            try:
                yield process
                process.wait()
            finally:
                process.kill()
            errors.seek(0)
            said = errors.read().decode(errors="replace")
            assert process.returncode == 0, said
            *_, last = said.splitlines()
            assert last.startswith("peak "), "it has not told of its memory"
            self.peak_kib = max(self.peak_kib or 0, int(last.removeprefix("peak ")))

    def disconnect(self) -> None:
        """End what stays behind of a command to be used by the next."""
        end_all_with(self._runtime)

    @property
    def _home(self) -> Path:
        return self.far.home / ".gpucloud"

    def _tokens(self) -> set[str]:
        return {folder.name for folder in self._home.glob("gc-*")}

    def _configure(self) -> None:
        host = self.far.host
        file = Path(self.cli.environ["XDG_CONFIG_HOME"]) / "gpucloud" / "config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(
            f'[offers]\nproviders = ["ssh"]\n[providers.ssh.hosts.far]\naddress = "{host.host}"\n'
            f'user = "{host.user}"\nidentity_file = "{host.identity}"\nslots = 1000\n'
        )


class Engine(Command):
    """The same without the start of a process: in one that stays and has its connection."""

    name = "gpucloud, in a warm process"

    def __enter__(self) -> Self:
        super().__enter__()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        super().__exit__()

    def push(self, source: Path) -> float:
        """As ``Contender`` says."""
        return self.ask("push", str(source))

    def pull(self, name: str, into: Path) -> float:
        """As ``Contender`` says."""
        return self.ask("pull", name, str(into))

    def ask(self, *words: str) -> float:
        """Let the process do something that must succeed; returns the seconds that it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        took = float(self._process.stdout.readline())
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        self.peak_kib = int(status.partition("VmHWM:")[2].split()[0])
        return took

    def disconnect(self) -> None:
        """Start it anew."""
        self._end()
        super().disconnect()
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, warm.__file__, CLUSTER],
            cwd=self.cli.project,
            env=self.cli.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _end(self) -> None:
        self._process.communicate()


def seconds(words: Sequence[str]) -> float:
    """How long a program takes that must succeed."""
    began = time.perf_counter()
    # With a pipe we would also wait for the connection that it may leave open.
    subprocess.run(
        words,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=LIMIT_S,
    )
    return time.perf_counter() - began
