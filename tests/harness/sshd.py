"""A real OpenSSH server on loopback, as the current user, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

START_DEADLINE_S = 20.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SFTP_FOLDERS = "/usr/lib/openssh:/usr/libexec/openssh:/usr/lib/ssh:/usr/libexec"
# Below what kernels hand out to clients, so that no outgoing connection takes the port between two starts.
_PORTS = range(20000, 32000)
_MARK = "TEST_SSH_HOST"

_WRAPPER = """\
cd "$HOME" || exit 70
command=${SSH_ORIGINAL_COMMAND:-}
unset SSH_ORIGINAL_COMMAND
[ -z "$command" ] && exec sh
exec sh -c "$command"
"""


class HarnessError(RuntimeError):
    """A test host could not be brought up; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class SshHost:
    """One host that answers SSH.

    ``identity`` is the private key file that may log in, ``host_key`` the public line ``ssh-ed25519 AAAA...``
    the host must show, ``home`` the login folder as this machine sees it, ``pid`` its server's process here.
    """

    name: str
    host: str
    port: int
    user: str
    identity: Path
    host_key: str
    home: Path | None
    pid: int

    @property
    def known_hosts_line(self) -> str:
        """The line that makes a client trust this host and no other at its address."""
        place = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        return f"{place} {self.host_key}\n"

    def ssh(self, *command: str, known_hosts: Path, options: Sequence[str] = ()) -> list[str]:
        """The arguments of an ``ssh`` that trusts only ``known_hosts`` and reads no configuration of anyone.

        ``options`` are written as after ``-o``: ``ConnectTimeout=2``.
        """
        fixed = [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={known_hosts}",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
        ]
        # The first value of an option wins, so the caller's come first.
        settings = [part for option in (*options, *fixed) for part in ("-o", option)]
        login = ["-i", str(self.identity), "-p", str(self.port), f"{self.user}@{self.host}"]
        return ["ssh", "-F", "/dev/null", *settings, *login, "--", *command]


def find_sshd() -> str | None:
    """The absolute path of ``sshd``; an ordinary user's PATH often lacks its folder."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def generate_key(file: Path) -> str:
    """Write a new ed25519 private key (0600) to ``file``; returns its public line without a comment."""
    for old in (file, file.with_name(f"{file.name}.pub")):
        old.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(file)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return file.with_name(f"{file.name}.pub").read_text().strip()


def common_settings() -> str:
    """The lines of ``sshd_config`` that every test host shares."""
    lines = [
        "AddressFamily inet",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "PermitUserRC no",
        "StrictModes no",
        "UsePAM no",
        "PidFile none",
        "LogLevel VERBOSE",
        "MaxStartups 100:30:200",
    ]
    version = _sshd_version()
    # The default of the older ones, sntrup761, takes half the time of a login.
    lines += ["KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org"] if version < (9, 9) else []
    # Tests log in wrongly and hang up early on purpose, all from one address.
    lines += ["PerSourcePenalties no"] if version >= (9, 8) else []
    return "\n".join(lines) + "\n"


@cache
def _sshd_version() -> tuple[int, int]:
    # Releases before 9.3 do not know -V, and print the version along with the usage.
    shown = subprocess.run([str(find_sshd()), "-V"], check=False, capture_output=True, text=True)
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", shown.stderr + shown.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def dying_with_us() -> list[str]:
    """What to put before a command so that it is killed when the calling thread ends, in any way."""
    setpriv = shutil.which("setpriv", path=SYSTEM_PATH) if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def await_sshd(process: subprocess.Popen[bytes], log: Path, offset: int, address: tuple[str, int]) -> None:
    """Return when ``process``, which logs from ``offset`` of ``log``, shows an SSH banner at ``address``.

    Raises:
        HarnessError: when it ends or stays silent instead.
    """
    deadline = time.monotonic() + START_DEADLINE_S
    # Only its own log tells our server from a stranger that holds the same port.
    while b"Server listening on" not in log.read_bytes()[offset:] or not _shows_banner(address):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.005)
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_bytes()[offset:].decode(errors="replace")
            raise HarnessError(f"no SSH server at {address[0]}:{address[1]}: {said[-2000:]}")


def _shows_banner(address: tuple[str, int]) -> bool:
    # Short: a first packet lost while the host comes up is repeated only after a second.
    try:
        with socket.create_connection(address, timeout=0.3) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


class _Server:
    """The process behind one loopback `SshHost`, and the folder it lives in."""

    def __init__(self, folder: Path, authorized: str | None, settings: str) -> None:
        self._extra = settings
        self._folder = folder.absolute()
        self._home = self._folder / "home"
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log = self._folder / "sshd.log"
        self._log.touch()
        self._identity = self._folder / "identity"
        allowed = [generate_key(self._identity), *([authorized.strip()] if authorized else [])]
        (self._folder / "authorized_keys").write_text("".join(f"{line}\n" for line in allowed))
        (self._folder / "session.sh").write_text(_WRAPPER)
        self._process: subprocess.Popen[bytes] | None = None
        self.new_host_key()

    def new_host_key(self) -> None:
        self._host_key = generate_key(self._folder / "host_key")

    def start(self, port: int) -> SshHost:
        (self._folder / "sshd_config").write_text(self._settings(port))
        offset = self._log.stat().st_size
        # Root's server insists on this folder, which only a running system service would have made.
        if os.geteuid() == 0 and sys.platform == "linux":
            Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
        sshd = [str(find_sshd()), "-D", "-e", "-f", str(self._folder / "sshd_config")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*dying_with_us(), *sshd],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={"PATH": SYSTEM_PATH},
                start_new_session=True,
            )
        try:
            await_sshd(self._process, self._log, offset, ("127.0.0.1", port))
        except HarnessError:
            self.stop()
            raise
        return SshHost(
            name=f"loopback-{port}",
            host="127.0.0.1",
            port=port,
            user=pwd.getpwuid(os.geteuid()).pw_name,
            identity=self._identity,
            host_key=self._host_key,
            home=self._home,
            pid=self._process.pid,
        )

    def start_anywhere(self) -> SshHost:
        for port in random.sample(_PORTS, 20):
            try:
                return self.start(port)
            except HarnessError as error:
                if "Address already in use" not in str(error):
                    raise
        raise HarnessError(f"no free port between {_PORTS.start} and {_PORTS.stop}")

    def stop(self) -> None:
        """End the listener. Open sessions go on, as when a service is restarted."""
        if self._process is not None:
            # A test may have frozen it, and then it would not hear anything milder.
            self._process.kill()
            self._process.wait()
            self._process = None

    def end_sessions(self) -> None:
        """Kill what was started over SSH and still runs, jobs detached from their session included."""
        while left := _processes_marked(f"{_MARK}={self._folder}"):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _settings(self, port: int) -> str:
        lines = [
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f'HostKey "{self._folder}/host_key"',
            f'AuthorizedKeysFile "{self._folder}/authorized_keys"',
            f'SetEnv "HOME={self._home}" "{_MARK}={self._folder}"',
            f"ForceCommand /bin/sh {shlex.quote(str(self._folder / 'session.sh'))}",
        ]
        # The wrapper must be able to run it, so not the one inside sshd.
        if sftp := shutil.which("sftp-server", path=_SFTP_FOLDERS):
            lines.append(f"Subsystem sftp {sftp}")
        # The first value of a setting wins.
        return "\n".join([self._extra, *lines, common_settings()])


def _processes_marked(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        # It may have ended meanwhile, or be another user's.
        with contextlib.suppress(OSError):
            if mark.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found


_running: dict[int, _Server] = {}
"""By port, so that the functions below find what is behind the value a test holds."""


@contextlib.contextmanager
def openssh_host(
    folder: Path, *, port: int | None = None, authorized: str | None = None, settings: str = ""
) -> Iterator[SshHost]:
    """A real ``sshd`` on 127.0.0.1 that logs the current user in, to ``folder/home`` as HOME.

    It accepts the key made at ``SshHost.identity`` and the public key lines in ``authorized``. The lines of
    ``settings`` overrule those of its ``sshd_config``. It logs to ``folder/sshd.log``. On Linux it dies with
    the calling thread, and at the end so does all it started.

    Raises:
        HarnessError: when it does not come up.
    """
    server = _Server(folder, authorized, settings)
    host = server.start_anywhere() if port is None else server.start(port)
    _running[host.port] = server
    try:
        yield host
    finally:
        del _running[host.port]
        server.stop()
        server.end_sessions()


def logins(host: SshHost) -> int:
    """How often somebody has logged in to a loopback host."""
    return (host.identity.parent / "sshd.log").read_text(errors="replace").count("Accepted publickey")


def stop(host: SshHost) -> None:
    """End the server: its port refuses connections until `restart`."""
    _running[host.port].stop()


def restart(host: SshHost) -> SshHost:
    """Stop and start the server on the same port; returns the host with its new ``pid``."""
    stop(host)
    return _running[host.port].start(host.port)


def replace_host_key(host: SshHost) -> SshHost:
    """Restart the server on the same port with another host key, which the returned host announces."""
    _running[host.port].new_host_key()
    return restart(host)
