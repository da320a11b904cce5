"""One host in namespaces of its own: its first process sets up a private root and becomes its sshd."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.harness.sshd import (
    START_DEADLINE_S,
    SYSTEM_PATH,
    HarnessError,
    SshHost,
    await_sshd,
    common_settings,
    dying_with_us,
    find_sshd,
    generate_key,
)

UNSHARE = ("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child")

# The first process of a host, which starts in the host's folder and ends as its sshd. The machine's /proc
# still counts in the caller's process ids. Files of /etc are changed only behind pivot_root: before it, an
# absolute link among them would lead to the machine's own. What slows a login or leads outside is emptied.
_BOOT = """\
name=$1 address=$2 sshd=$3 size=$4 folder=$PWD
read -r pid _ </proc/self/stat
echo "$pid"
read -r _
hostname "$name"
printf 'link set lo up\\naddr add %s/24 dev eth0\\nlink set eth0 up\\n' "$address" | ip -batch -
mkdir disk
mount -t tmpfs -o "size=$size,mode=755" tmpfs disk
cd disk
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
mkdir .machine
pivot_root . .machine
cd /
mount -t proc proc /proc
mount -t sysfs -o ro sysfs /sys
mount --rbind /.machine/dev /dev
mount -t devpts -o newinstance,ptmxmode=0666,gid=5,mode=620 devpts /dev/pts
for private in /tmp /run /root /dev/shm; do mount -t tmpfs -o "size=$size,mode=1777" tmpfs "$private"; done
chmod 755 /run
chmod 700 /root
mkdir -m 755 /run/sshd
mkdir -m 700 /root/.ssh
rm -rf /etc/ssh /etc/hosts /etc/hostname /etc/resolv.conf /etc/bash.bashrc
cp -r "/.machine$folder/ssh" /etc/ssh
mv /etc/ssh/authorized_keys /root/.ssh/
mv /etc/ssh/hosts /etc/hosts
echo "$name" >/etc/hostname
touch /etc/resolv.conf /etc/bash.bashrc
sed -i 's#^root:.*#root:x:0:0:root:/root:/bin/bash#' /etc/passwd
sed -i 's#^root:[^:]*#root:*#' /etc/shadow
umount -l /.machine
rmdir /.machine
exec env -i PATH="$PATH" HOME=/root "$sshd" -D -e </dev/null >/dev/null
"""


class Machine:
    """A host on its way to being one: `launched`, `namespaces`, (wire its network), `boot`, `await_ssh`.

    ``disk`` is the size of each of its disks, which are in memory, as mount has it.
    """

    def __init__(self, name: str, address: str, folder: Path, *, disk: str = "1g") -> None:
        self.name = name
        self._disk = disk
        self.address = address
        self._folder = folder.absolute()
        self._log = self._folder / "host.log"
        self._pid: int | None = None

    @contextlib.contextmanager
    def launched(self, authorized: str, names: Mapping[str, str]) -> Iterator[None]:
        """Start the first process, which waits for `boot`; the host is dead when the context ends.

        ``authorized`` is the public key line that may log in as root, ``names`` the addresses of all hosts.
        """
        etc = self._folder / "ssh"
        etc.mkdir(parents=True)
        self._host_key = generate_key(etc / "ssh_host_ed25519_key")
        known = {"localhost": "127.0.0.1", **names}
        (etc / "hosts").write_text("".join(f"{address} {name}\n" for name, address in known.items()))
        (etc / "authorized_keys").write_text(f"{authorized}\n")
        (etc / "sshd_config").write_text(f"{common_settings()}Subsystem sftp internal-sftp\n")
        boot = ["sh", "-euc", _BOOT, "boot", self.name, self.address, str(find_sshd()), self._disk]
        with self._log.open("wb") as log:
            self._launcher = subprocess.Popen(
                [*dying_with_us(), *UNSHARE, *boot],
                cwd=self._folder,
                env={"PATH": SYSTEM_PATH},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # A Ctrl-C at the terminal is for the test process alone, which then cleans up.
                start_new_session=True,
            )
        with self._launcher:
            try:
                yield
            finally:
                self.kill()

    def namespaces(self) -> int:
        """The process, as numbered here, that holds the host's namespaces; waits until it does.

        Raises:
            HarnessError: when the kernel refuses them.
        """
        assert self._launcher.stdout is not None
        ready, _, _ = select.select([self._launcher.stdout], [], [], START_DEADLINE_S)
        said = self._launcher.stdout.readline() if ready else b""
        if not said:
            raise HarnessError(f"no namespaces for {self.name}: {self._log.read_text(errors='replace')}")
        self._pid = int(said)
        return self._pid

    def boot(self) -> None:
        """Let the first process go on, now that the host has its network device ``eth0``."""
        assert self._launcher.stdin is not None
        # One that died before is reported by `await_ssh`, with its log.
        with contextlib.suppress(BrokenPipeError):
            self._launcher.stdin.write(b"go\n")
            self._launcher.stdin.close()

    def await_ssh(self, identity: Path) -> SshHost:
        """The host, once it answers SSH; ``identity`` is the private key to log in with.

        Raises:
            HarnessError: when it does not.
        """
        await_sshd(self._launcher, self._log, 0, (self.address, 22))
        assert self._pid is not None
        return SshHost(
            name=self.name,
            host=self.address,
            port=22,
            user="root",
            identity=identity,
            host_key=self._host_key,
            home=Path(f"/proc/{self._pid}/root/root"),
            pid=self._pid,
        )

    def kill(self) -> None:
        """Kill -9 the first process; returns when everything inside is dead. Again is no error."""
        if self._launcher.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid or self._launcher.pid, signal.SIGKILL)
        self._launcher.wait()
