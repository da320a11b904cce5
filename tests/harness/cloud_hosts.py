"""Hosts in namespaces that the fakes of clouds hand out as new instances, set up as cloud-init would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from tests.harness import smi
from tests.harness.netns import Network, namespace_hosts
from tests.harness.sshd import SshHost
from tests.harness.waiting import eventually

USERS: Final = ("ubuntu", "azureuser", "hotaisle", "riftuser", "shadeform", "user")
"""The login users of vendors' images, who may do here what root may."""


class CloudHosts:
    """So many machines, each handed out once."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.free = list(network.hosts)
        self._lock = threading.Lock()
        self.given: dict[str, SshHost] = {}
        """The host of each instance, by its id."""

    def boot(
        self, instance_id: str, user_data: str = "", keys: Sequence[str] = (), gpus: str = "h100-sxm-8"
    ) -> str:
        """Set a machine up with keys, and by user data if it is in the words of cloud-init.

        Returns its address. ``gpus`` is a machine of the fixtures.
        """
        with self._lock:
            host = self.free.pop(0)
            self.given[instance_id] = host
        config: dict[str, Any] = {}
        if user_data.startswith("#cloud-config"):
            config = YAML(typ="safe").load(user_data)
        root = Path(f"/proc/{host.pid}/root")
        with (root / "etc/passwd").open("a") as users:
            users.writelines(f"{name}:x:0:0::/root:/bin/bash\n" for name in USERS)
        with (root / "root/.ssh/authorized_keys").open("a") as authorized:
            authorized.writelines(f"{key}\n" for key in [*keys, *config.get("ssh_authorized_keys", ())])
        _put_gpus(root, gpus)
        if "ssh_keys" in config:
            _plant(host, root, config["ssh_keys"])
        return host.host

    def hang_up(self, instance_id: str) -> None:
        """End its sessions, as a machine does that is shut down."""
        pid = self.given[instance_id].pid
        for session in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(session), signal.SIGKILL)

    def end(self, instance_id: str) -> None:
        """Cut the power."""
        host = self.given.get(instance_id)
        if host:
            self._network.kill(host.name)


def _plant(host: SshHost, root: Path, planted: Mapping[str, str]) -> None:
    """Let it show that host key from now on."""
    (root / "etc/ssh/ssh_host_ed25519_key").write_text(planted["ed25519_private"])
    os.kill(host.pid, signal.SIGHUP)
    eventually(lambda: planted["ed25519_public"].split()[1] in _shown(host))


def _put_gpus(root: Path, machine: str) -> None:
    """Let the tools of its GPUs' maker answer there as that machine does, from a folder of its own."""
    shutil.copytree(smi.FIXTURES, root / "opt/smi")
    tools = root / "usr/local/bin"
    if machine.startswith("mi"):
        smi.printing(tools, "rocm-smi", f"{machine}.json")
    else:
        smi.nvidia_smi(tools, machine)
    for tool in tools.glob("*-smi"):
        tool.write_text(tool.read_text().replace(str(smi.FIXTURES), "/opt/smi").replace(str(root), ""))


def _shown(host: SshHost) -> str:
    """The host key that a machine shows now."""
    scan = ["ssh-keyscan", "-T", "2", "-t", "ed25519", host.host]
    return subprocess.run(scan, capture_output=True, text=True, check=False).stdout


@contextmanager
def cloud_hosts(count: int, folder: Path) -> Iterator[CloudHosts]:
    """``count`` machines, for as long as the context lasts."""
    with namespace_hosts(count, folder=folder) as network:
        yield CloudHosts(network)
