"""Starting the ``ssh`` that holds a connection for others, and saying why when there is none."""

from __future__ import annotations

import math
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from gpucloud.remote import liveness, sockets
from gpucloud.remote.connection import Endpoint, Incompatible, changed, refused, unreachable
from gpucloud.remote.mux import Control, Gone, Strange
from gpucloud.remote.openssh import block, proxy_line

ALIAS: Final = "gpucloud"
"""The name by which an ``ssh`` that we start knows its only host."""

FAILED: Final = 255
"""The status with which OpenSSH says that there is no connection; with another, it is not OpenSSH."""

LOG_BYTES: Final = 100_000
RESENT: Final = 3
"""A peer that has not answered although it was told so often is not there."""

_WANTED: Final = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR"})
_CANNOT: Final = (
    "bad configuration option",
    "unsupported option",
    "bad ssh2",
    "bad key types",
    "bad permissions",
    "unknown option",
    "terminating, ",
    "unix_listener",
)
"""What OpenSSH says, in lower case, where the built-in client may do better."""

_REASONS: Final = (
    r"connect to host .* port \d+: (.+)",
    r"Could not resolve hostname .*: (.+)",
    r"kex_exchange_identification: (.+)",
)


def start(endpoint: Endpoint, jump: Path | None, *, timeout_s: float, persist_s: int) -> tuple[Path, str]:
    """Start a master that goes on when we end; returns its socket and the public line of the host's key.

    ``jump`` is the socket of the jump host's master. It ends after ``persist_s`` seconds without use.

    Raises:
        HostUnreachable: when no connection comes about within ``timeout_s``.
        HostKeyChanged: when the host shows another key than the pinned one.
        RemoteError: when the host refuses our key, or the key is of no use.
        Incompatible: when this OpenSSH cannot do it.
    """
    try:
        return _start(endpoint, jump, timeout_s, persist_s)
    except OSError as error:
        # As when the disk is full: the built-in client needs none.
        raise Incompatible(str(error)) from error


def _start(endpoint: Endpoint, jump: Path | None, timeout_s: float, persist_s: int) -> tuple[Path, str]:
    place = sockets.folder()
    sockets.sweep(place)
    path = place / secrets.token_hex(8)
    with tempfile.TemporaryDirectory(dir=place, prefix="start-") as drafts, tempfile.TemporaryFile() as log:
        known = Path(drafts) / "known_hosts"
        known.write_text(f"{ALIAS} {endpoint.pinned}\n" if endpoint.pinned else "")
        config = Path(drafts) / "config"
        config.write_text(_config(endpoint, jump, known, timeout_s))
        words = ["ssh", "-F", str(config), "-N", "-f", "-M", "-S", str(path)]
        words += ["-o", f"ControlPersist={max(1, persist_s)}", ALIAS]
        status = _ended(words, _environment(endpoint), log, timeout_s)
        log.seek(0)
        said = log.read(LOG_BYTES).decode("utf-8", "replace")
        if status == 0:
            return path, _shown(known, path)
    if status is None:
        raise unreachable(endpoint, _too_late(said, timeout_s))
    raise _failure(endpoint, status, said)


def _shown(known: Path, path: Path) -> str:
    """The public line of the key that the host has shown."""
    lines = known.read_text().splitlines()
    if not lines:
        with suppress(Gone, Strange), Control(path) as control:
            control.terminate()
        raise Incompatible("the host's key could not be written down")
    return " ".join(lines[-1].split()[1:3])


def _environment(endpoint: Endpoint) -> dict[str, str]:
    """What the master, which stays, needs to know: no keys of providers, but for who connects with them."""
    wanted = os.environ if endpoint.address.proxy else _WANTED & os.environ.keys()
    # The shell is what runs a ProxyCommand.
    return {**{name: os.environ[name] for name in wanted}, "SHELL": "/bin/sh"}


def silent(pid: int) -> bool:
    """Whether the other end of a master's connection no longer answers; false where that cannot be seen."""
    if sys.platform != "linux":
        return False
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        rows = [
            row.split()
            for table in ("tcp", "tcp6")
            for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        ]
    except OSError:
        return False
    inodes = {
        link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")
    }
    return any(row[9] in inodes and int(row[6], 16) >= RESENT for row in rows)


def interactive(path: Path, command: str) -> int:
    """Run a command in this terminal over a master; returns its status."""
    words = ["ssh", "-F", os.devnull, "-S", str(path), *_ONLY_SHARED, "-t", ALIAS, command]
    return subprocess.run(words, check=False).returncode


_ONLY_SHARED: Final = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "LogLevel=ERROR")
"""So that nothing else is tried where the master has gone."""


def _config(endpoint: Endpoint, jump: Path | None, known: Path, timeout_s: float) -> str:
    address = endpoint.address
    interval = max(1, round(liveness.KEEPALIVE_S))
    first = [
        "BatchMode yes",
        # Its own report is all that tells one failure from another.
        "LogLevel DEBUG1",
        f"ConnectTimeout {math.ceil(timeout_s)}",
        f"StrictHostKeyChecking {'yes' if endpoint.pinned else 'accept-new'}",
        "HashKnownHosts no",
        "PreferredAuthentications publickey",
        # The processor does it alone nearly everywhere; the default takes twice the time.
        "Ciphers ^aes128-gcm@openssh.com",
        f"ServerAliveInterval {interval}",
        f"ServerAliveCountMax {max(1, round(liveness.DEAD_AFTER_S / interval))}",
    ]
    if algorithms := endpoint.algorithms():
        first.append(f"HostKeyAlgorithms {','.join(algorithms)}")
    if jump:
        over = ["ssh", "-F", os.devnull, "-S", str(jump), *_ONLY_SHARED, "-W"]
        first.append(f"ProxyCommand {shlex.join(over).replace('%', '%%')} '[%h]:%p' {ALIAS}")
    elif address.proxy:
        first.append(proxy_line(address))
    return block(ALIAS, address, ALIAS, endpoint.identity, known, first)


def _ended(words: list[str], environ: dict[str, str], log: IO[bytes], timeout_s: float) -> int | None:
    """Run ``ssh`` until it has gone into the background; its status, or ``None`` when that takes too long."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        env=environ,
        start_new_session=True,
    )
    try:
        return _wait(process, timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    # The wait of subprocess looks only every 50 ms.
    if hasattr(os, "pidfd_open"):
        from select import POLLIN, poll

        with suppress(OSError):
            descriptor = os.pidfd_open(process.pid)
            try:
                ending = poll()
                ending.register(descriptor, POLLIN)
                began = time.monotonic()
                ending.poll(timeout_s * 1000)
                timeout_s = max(0.0, timeout_s - (time.monotonic() - began))
            finally:
                os.close(descriptor)
    return process.wait(timeout_s)


def _failure(endpoint: Endpoint, status: int, said: str) -> Exception:
    lower = said.lower()
    shown = re.findall(r"Server host key: (\S+ SHA256:\S+)", said)
    if "Host key verification failed" in said and endpoint.pinned and shown:
        return changed(endpoint, _printable(shown[-1]))
    if "no matching host key type found" in said and endpoint.pinned:
        return changed(endpoint, "a key of another type")
    told = [line for line in said.splitlines() if line.strip() and not line.startswith("debug1: ")]
    last = _printable(told[-1]) if told else "ssh said nothing"
    denied = "Permission denied (" in said or "Too many authentication failures" in said
    if denied:
        from gpucloud.remote.builtin import load_key

        # Of a key that is of no use, ssh says only that it was not taken.
        load_key(endpoint)
    if status != FAILED or any(sign in lower for sign in _CANNOT):
        return Incompatible(last)
    if denied:
        return refused(endpoint)
    for line in reversed(told):
        for pattern in _REASONS:
            if found := re.search(pattern, line):
                return unreachable(endpoint, _printable(found[1]))
    return unreachable(endpoint, last)


def _too_late(said: str, timeout_s: float) -> str:
    if "SSH2_MSG_SERVICE_ACCEPT received" in said or "SSH2_MSG_NEWKEYS received" in said:
        return "it did not answer when we logged in"
    if "Connection established" in said:
        return f"no SSH server has answered within {timeout_s:g} s"
    return "timed out"


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:300]
