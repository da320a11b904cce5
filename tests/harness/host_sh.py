"""The on-host program on this machine: in a home of its own, run by one of several shells and their tools."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import gpucloud.remote
from tests.harness.sshd import SYSTEM_PATH
from tests.harness.waiting import eventually

PROGRAM: Final = Path(gpucloud.remote.__file__).with_name("host.sh")
USERLANDS: Final = ("dash", "bash", "busybox")
"""By shell; with ``busybox`` every tool is busybox's, with the others they are this machine's."""

ODD_NAMES: Final[list[str | bytes]] = [
    *(
        "a b",
        " leading",
        "trailing ",
        "-rf",
        "--help",
        "new\nline",
        "tab\t",
        "'single'",
        '"double"',
        "back\\slash",
    ),
    *(
        "$(touch hacked)",
        "`touch hacked`",
        "$HOME",
        "*",
        "?",
        "[a-z]",
        "~",
        "#x",
        "a;b",
        "a|b",
        "a&b",
        "(",
        "!",
        ",",
    ),
    *("ünï", "日本語", "@x", "%s", "%n", "=", "x" * 255, b"\xff\xfe"),
]
"""Names that a file may have, and that shells, tools or formats may take for something else."""

TIMEOUT_S: Final = 60
_MARK: Final = "GPUCLOUD_TEST_HOST"

Completed = subprocess.CompletedProcess[bytes]
Facts = dict[str, str]


class HostSh:
    """One installed copy of the program; ``root`` is its folder and ``work`` the one that jobs start in."""

    def __init__(self, folder: Path, userland: str, *, token: str = "gc-1") -> None:
        self.folder = folder
        self.userland = userland
        self.home = folder / "home of a user"
        self.root = self.home / ".gpucloud" / token
        self.work = self.root / "work"
        self.bin = folder / "bin"
        path = str(self.bin) if userland == "busybox" else f"{self.bin}:{SYSTEM_PATH}"
        self.env = {"HOME": str(self.home), "PATH": path, _MARK: str(folder)}
        self._make_bin()

    def _make_bin(self) -> None:
        if self.bin.is_dir():
            return
        self.bin.mkdir(parents=True)
        shell = shutil.which(self.userland, path=SYSTEM_PATH)
        assert shell, f"no {self.userland} on this machine"
        if self.userland == "busybox":
            subprocess.run([shell, "--install", "-s", str(self.bin)], check=True)
        else:
            (self.bin / "sh").symlink_to(shell)

    def sibling(self, token: str) -> HostSh:
        """Another installation in the same home."""
        return HostSh(self.folder, self.userland, token=token)

    def real(self, name: str) -> str:
        """The command line of a tool that `tool` may have replaced."""
        if self.userland == "busybox":
            return f"{shutil.which('busybox', path=SYSTEM_PATH)} {name}"
        return str(shutil.which(name, path=SYSTEM_PATH))

    def tool(self, name: str, script: str) -> None:
        """Put a shell script in the place of a tool."""
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!{self.bin / 'sh'}\n{script}")
        (self.bin / name).chmod(0o755)

    def lose_tools(self, *names: str) -> None:
        """Leave nothing on the PATH but this machine's tools without these."""
        for folder in [] if self.userland == "busybox" else SYSTEM_PATH.split(":"):
            for tool in Path(folder).glob("*"):
                with contextlib.suppress(FileExistsError):
                    (self.bin / tool.name).symlink_to(tool)
        self.env["PATH"] = str(self.bin)
        for name in names:
            (self.bin / name).unlink(missing_ok=True)

    def install(self, *, grace_s: int = 30) -> None:
        """Bring the program over as the client does, but let it look around more often.

        ``grace_s`` is what the end of the lease leaves a job to end in.
        """
        for folder in (self.home, self.root.parent, self.root):
            folder.mkdir(mode=0o700, exist_ok=True)
        text = PROGRAM.read_text()
        pauses = {"sleep 1;": "sleep 0.1;", "sleep 10;": "sleep 0.2;", "sleep 0.2 ": "sleep 0.04 "}
        for old, new in {"\nGRACE=30\n": f"\nGRACE={grace_s}\n", **pauses}.items():
            assert old in text
            text = text.replace(old, new)
        (self.root / "host.sh").write_text(text)

    def init(self, *, slots: int = 0, claim: str = "me", probe: str = "", at_end: str = "") -> Completed:
        """Take the machine; see the program for what the arguments mean."""
        return self.run("init", str(slots), claim, probe, at_end)

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        """What runs a command of the program."""
        return [str(self.bin / "sh"), str(self.root / "host.sh"), *arguments]

    def run(self, *arguments: str | bytes, stdin: bytes = b"", status: int | None = 0) -> Completed:
        """Run a command of the program to its end, which must be ``status`` unless that is ``None``."""
        done = subprocess.run(
            self.command(*arguments),
            check=False,
            env=self.env,
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
        )
        assert status is None or done.returncode == status, done
        return done

    def call(self, function: str, *arguments: str) -> None:
        """Run one of the program's functions, for moments that no command can be held up in."""
        functions, dispatch, _ = (self.root / "host.sh").read_text().partition("\ncommand=${1:-}\n")
        assert dispatch
        script = self.root / "functions.sh"
        script.write_text(functions + '\n"$@"\n')
        command = [str(self.bin / "sh"), str(script), function, *arguments]
        subprocess.run(command, check=True, env=self.env, timeout=TIMEOUT_S)

    def popen(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Start a command of the program in a session of its own, as an SSH server does."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def start(self, job: str, run: str, *, setup: str | None = None, env: Mapping[str, str] = {}) -> Facts:
        """Start a job from shell text and variables."""
        return facts(self.run("start", job, stdin=scripts(run, setup=setup, env=env)))

    def status(self, job: str) -> Facts:
        """What the program knows of a job."""
        return facts(self.run("status", job))

    def ended(self, job: str) -> Facts:
        """The status of a job once it is over."""
        eventually(lambda: self.status(job)["state"] != "going")
        return self.status(job)

    def finish(self, job: str, run: str, *, setup: str | None = None, env: Mapping[str, str] = {}) -> Facts:
        """Run a job to its end."""
        self.start(job, run, setup=setup, env=env)
        return self.ended(job)

    def log(self, job: str) -> bytes:
        """All that a job has printed."""
        return (self.root / "jobs" / job / "log").read_bytes()

    def processes(self, word: str = "") -> list[int]:
        """What runs of all that was started here and has ``word`` among its arguments."""
        return [
            pid
            for pid in marked_processes(str(self.folder))
            if not word or word.encode() in _read(Path(f"/proc/{pid}/cmdline")).split(b"\0")
        ]

    def pid(self, job: str, file: str = "pid") -> int:
        """The number of a process of a job, once it is known."""
        path = self.root / "jobs" / job / file
        return int(eventually(lambda: _read(path).split())[0])

    def kill_all(self) -> None:
        """Kill what still runs."""
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def facts(done: Completed) -> Facts:
    """A status as the program prints it."""
    return dict(line.split("=", 1) for line in done.stdout.decode().splitlines())


def scripts(run: str, *, setup: str | None = None, env: Mapping[str, str] = {}) -> bytes:
    """A job as ``start`` reads it."""
    texts = {"run": run, "env": "".join(f"export {k}={shlex.quote(v)}\n" for k, v in env.items())}
    if setup is not None:
        texts["setup"] = setup
    return archive({name: text.encode() for name, text in texts.items()}, mode=0o600)


def archive(files: Mapping[str, bytes], *, mode: int = 0o644) -> bytes:
    """A tar of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def nul(*names: str | bytes) -> bytes:
    """Names as the program reads them."""
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def write(folder: Path, *names: str | bytes) -> None:
    """Make files with something in them, and the folders that they are in."""
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")


def marked_processes(mark: str) -> list[int]:
    """All processes, but for zombies, that inherited the mark of a `HostSh`."""
    wanted = f"{_MARK}={mark}".encode()
    return [
        int(entry.parent.name)
        for entry in Path("/proc").glob("[0-9]*/environ")
        if wanted in _read(entry).split(b"\0")
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def installed(folder: Path, userland: str) -> Iterator[HostSh]:
    """The program, installed but not yet told anything; nothing of it runs any more at the end."""
    host = HostSh(folder, userland)
    host.install()
    try:
        yield host
    finally:
        host.kill_all()
