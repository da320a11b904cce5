"""The command line as a user has it: its own process, its own home, whose path has a space."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "gpucloud")


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout; fails when there is anything else."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Cli:
    """Runs gpucloud in a project folder."""

    project: Path
    environ: Mapping[str, str] = field(repr=False)

    @property
    def data(self) -> Path:
        """Where gpucloud keeps what it must not lose."""
        return Path(self.environ["XDG_DATA_HOME"]) / "gpucloud"

    def __call__(self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Finished:
        """Run a command to its end, with pipes instead of a terminal."""
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.project,
            env={**self.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Finished(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, **settings: Any) -> Finished:
        """Run a command that must succeed."""
        done = self(*words, **settings)
        assert done.code == 0, done.err
        return done

    def start(
        self, *words: str, env: Mapping[str, str] | None = None, **settings: Any
    ) -> subprocess.Popen[str]:
        """Start a command in a session of its own and go on."""
        return subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.project,
            env={**self.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=settings.pop("stdout", subprocess.PIPE),
            stderr=settings.pop("stderr", subprocess.PIPE),
            text=True,
            start_new_session=True,
            **settings,
        )


@contextmanager
def installation(folder: Path) -> Iterator[Cli]:
    """A fresh installation for a fresh user; everything that was rented locally is gone afterwards."""
    home = folder / "home of a user"
    project = home / "project"
    project.mkdir(parents=True)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        **{name: os.environ[name] for name in ("PYTHONPATH", "VIRTUAL_ENV") if name in os.environ},
    }
    try:
        yield Cli(project, environ)
    finally:
        kill_all_below(home)


def kill_all_below(home: Path) -> None:
    """End every process of a local instance whose folder is below ``home``."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if str(home).encode() in words and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
