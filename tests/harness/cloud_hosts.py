"""Hosts in namespaces that the fakes of clouds hand out as new instances, set up as cloud-init would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from tests.harness import smi
from tests.harness.netns import Network, namespace_hosts
from tests.harness.sshd import SshHost
from tests.harness.waiting import eventually

USERS: Final = ("ubuntu", "azureuser")
"""The login users of the clouds' images, who may do here what root may."""


class CloudHosts:
    """So many machines, each handed out once."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._free = list(network.hosts)
        self._lock = threading.Lock()
        self.given: dict[str, SshHost] = {}
        """The host of each instance, by its id."""

    def boot(self, instance_id: str, user_data: str) -> str:
        """Set a machine with eight H100 up by its user data; returns its address."""
        with self._lock:
            host = self._free.pop(0)
            self.given[instance_id] = host
        config: dict[str, Any] = YAML(typ="safe").load(user_data)
        root = Path(f"/proc/{host.pid}/root")
        with (root / "etc/passwd").open("a") as users:
            users.writelines(f"{name}:x:0:0::/root:/bin/bash\n" for name in USERS)
        with (root / "root/.ssh/authorized_keys").open("a") as keys:
            keys.writelines(f"{key}\n" for key in config["ssh_authorized_keys"])
        _put_gpus(root, "h100-sxm-8")
        planted = config["ssh_keys"]
        (root / "etc/ssh/ssh_host_ed25519_key").write_text(planted["ed25519_private"])
        os.kill(host.pid, signal.SIGHUP)
        eventually(lambda: planted["ed25519_public"].split()[1] in _shown(host))
        return host.host

    def end(self, instance_id: str) -> None:
        """Cut the power."""
        host = self.given.get(instance_id)
        if host:
            self._network.kill(host.name)


def _put_gpus(root: Path, machine: str) -> None:
    """Let ``nvidia-smi`` there answer as that machine does; it finds what it prints in its own folder."""
    shutil.copytree(smi.FIXTURES, root / "opt/smi")
    tools = root / "usr/local/bin"
    smi.nvidia_smi(tools, machine)
    tool = tools / "nvidia-smi"
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
