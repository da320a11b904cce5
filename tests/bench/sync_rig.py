"""A host at the other end of a line, with a real sshd and disks in memory, and what leads there.

Without delay the line is a pair of virtual Ethernet devices. With delay it is `tests.bench.delay`, because
stock kernels of test machines lack netem. Everything belongs to processes that die with the test process, so
nothing stays behind, also after Ctrl-C or kill -9.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import delay
from tests.harness.machine import Machine
from tests.harness.netns import CLIENT_NUMBER, claim_block, ip, open_tun
from tests.harness.sshd import HarnessError, SshHost, dying_with_us, generate_key
from tests.harness.waiting import eventually

DISK = "6g"
"""Room for the largest file three times; only what is used takes memory."""

QUEUE = 20_000
"""Packets that wait for the line: more than any window lets out, as a drop would be a slow line's doing."""


@dataclass(frozen=True, slots=True)
class Far:
    """A host whose other side of the line is ``rtt_s`` seconds away, there and back.

    ``root`` is its file system as this machine sees it, ``interface`` this machine's end of the line, and
    ``config`` a configuration of ssh in which it is named ``far``; each connection is a new one.
    """

    host: SshHost
    rtt_s: float
    root: Path
    interface: str
    config: Path
    _line: subprocess.Popen[bytes] | None = field(repr=False)

    @property
    def home(self) -> Path:
        """The login folder, as this machine sees it."""
        assert self.host.home is not None
        return self.host.home

    def ssh(self, *words: str) -> list[str]:
        """The words of an ``ssh`` to it, with options before its name."""
        return ["ssh", "-F", str(self.config), *words]

    @contextlib.contextmanager
    def close_by(self) -> Iterator[None]:
        """No delay while the context lasts: for what is only prepared."""
        self._delay(0)
        try:
            yield
        finally:
            self._delay(self.rtt_s)

    def _delay(self, rtt_s: float) -> None:
        if self._line is None:
            return
        assert self._line.stdin is not None
        assert self._line.stdout is not None
        self._line.stdin.write(f"{rtt_s / 2}\n".encode())
        self._line.stdin.flush()
        if self._line.stdout.readline() != b"\n":
            raise HarnessError("the line to the host has died")


@contextlib.contextmanager
def far_host(rtt_ms: float, folder: Path, *, python: bool = True) -> Iterator[Far]:
    """A host ``rtt_ms`` away until the context ends; keys and logs are in ``folder``, which must be new.

    Without ``python`` there is none on it.

    Raises:
        HarnessError: when it does not come up.
    """
    folder.mkdir(parents=True)
    identity = folder / "identity"
    authorized = generate_key(identity)
    with ExitStack() as stack:
        # Its name also keeps others away from the addresses, so it is made where the line is another one too.
        interface, block, device = claim_block(uncut=True)
        stack.callback(os.close, device)
        machine = Machine("far", str(block[1]), folder / "far", disk=DISK)
        stack.enter_context(machine.launched(authorized, {"far": str(block[1])}))
        namespaces = machine.namespaces()
        line = None
        if rtt_ms:
            end = f"{interface}e"
            with _closing(open_tun(end, uncut=True)) as other:
                ip([f"link set {end} txqueuelen {QUEUE} netns {namespaces} name eth0"])
                line = stack.enter_context(_line(device, other))
        else:
            interface = f"{interface}v"
            ip([f"link add {interface} type veth peer name eth0 netns {namespaces}"])
        address = f"{block[CLIENT_NUMBER]}/24"
        ip([f"addr add {address} dev {interface}", f"link set {interface} txqueuelen {QUEUE} up"])
        machine.boot()
        host = machine.await_ssh(identity)
        assert host.home is not None
        far = Far(host, rtt_ms / 1000, host.home.parent, interface, _configuration(host, folder), line)
        if not python:
            _without_python(far.root)
        far._delay(far.rtt_s)
        yield far


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _line(one: int, other: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process between two devices."""
    script = [sys.executable, "-I", "-S", delay.__file__, str(one), str(other)]
    with subprocess.Popen(
        [*dying_with_us(), *script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[one, other],
        start_new_session=True,
    ) as line:
        try:
            yield line
        finally:
            line.kill()


def _configuration(host: SshHost, folder: Path) -> Path:
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(host.known_hosts_line)
    settings = {
        "HostName": host.host,
        "User": host.user,
        "IdentityFile": f'"{host.identity}"',
        "UserKnownHostsFile": f'"{known_hosts}"',
        "GlobalKnownHostsFile": "/dev/null",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
    }
    file = folder / "ssh_config"
    file.write_text("Host far\n" + "".join(f"  {name} {value}\n" for name, value in settings.items()))
    return file


def _without_python(root: Path) -> None:
    for folder in ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"):
        for program in (root / folder).glob("python*"):
            program.unlink(missing_ok=True)


def processes_with(mark: str) -> list[int]:
    """The other processes that have ``mark`` in their words or in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # It may have ended meanwhile.
        with contextlib.suppress(OSError):
            # A connection that OpenSSH keeps open has no more words than the path of its socket.
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if mark.encode() in told and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def end_all_with(mark: str) -> None:
    """End those processes, and return when they are gone."""
    for pid in processes_with(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    eventually(lambda: not processes_with(mark))
