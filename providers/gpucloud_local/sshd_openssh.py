"""The SSH server of a local instance, with the machine's own OpenSSH: one ``sshd -i`` for each connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PLACES: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin"

CONFIG: Final = """\
HostKey {key}
AuthorizedKeysFile {authorized}
ForceCommand exec /bin/sh {enter}
SetEnv {home}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
ClientAliveInterval 30
Subsystem sftp {sftp}
"""

ENTER: Final = """\
{exports}
cd "$HOME" || exit 1
case ${{SSH_ORIGINAL_COMMAND-}} in
  '') exec "$SHELL" -l ;;
  *) exec "$SHELL" -c "$SSH_ORIGINAL_COMMAND" ;;
esac
"""


def find_sshd() -> str | None:
    """The path of this machine's sshd, which must be started by its absolute path."""
    return shutil.which("sshd", path=PLACES)


async def listen(folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Answer SSH on a free loopback port; returns the port and the public line of the host key.

    Raises:
        subprocess.CalledProcessError: when sshd does not want to run, with its reasons in our log.
    """
    sshd, keygen = find_sshd(), shutil.which("ssh-keygen")
    if sshd is None or keygen is None:
        raise FileNotFoundError("OpenSSH's sshd and ssh-keygen are not on this machine")
    key, config = folder / "host_key", folder / "sshd_config"
    if not key.exists():
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
    public = subprocess.run([keygen, "-y", "-f", key], check=True, capture_output=True, text=True).stdout
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    (folder / "enter").write_text(ENTER.format(exports=exports))
    sftp = shutil.which("sftp-server", path=f"/usr/lib/openssh:/usr/libexec:/usr/lib/ssh:{PLACES}")
    config.write_text(
        CONFIG.format(
            key=_quoted(str(key)),
            authorized=_quoted(str(folder / "authorized_keys").replace("%", "%%")),
            enter=shlex.quote(str(folder / "enter")),
            home=_quoted(f"HOME={environment['HOME']}"),
            sftp=sftp or "internal-sftp",
        )
    )
    subprocess.run([sshd, "-t", "-f", config], check=True)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    command = [sshd, "-i", "-f", str(config)]
    asyncio.get_running_loop().create_task(_accept(listener, command, environment))
    return listener.getsockname()[1], " ".join(public.split()[:2])


async def _accept(listener: socket.socket, command: list[str], environment: Mapping[str, str]) -> None:
    while True:
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        # One that cannot be served for want of processes is closed; the next may be luckier.
        with connection, contextlib.suppress(OSError):
            connection.setblocking(True)
            end = connection.fileno()
            await asyncio.create_subprocess_exec(*command, stdin=end, stdout=end, env=environment)


def _quoted(word: str) -> str:
    """A word of sshd_config."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
