"""What this machine lacks for the tests that need more than Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache

import pytest

from tests.harness.machine import UNSHARE
from tests.harness.netns import open_tun
from tests.harness.sshd import SYSTEM_PATH, find_sshd

REQUIRE = "GPUCLOUD_TEST_REQUIRE"
"""Names the needs (``sshd,netns`` or ``all``) whose absence fails a test instead of skipping it."""

# Everything a namespaced host does that a container or a hardened kernel may refuse.
_PROBE = """\
mount -t tmpfs tmpfs .
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
mount -t devpts -o newinstance devpts root/dev
hostname probe
ip link set lo up
"""


def lack_of_sshd() -> str | None:
    """Why no OpenSSH server can be started here; ``None`` when it can."""
    if find_sshd() is None:
        return "no sshd on this machine (Debian: openssh-server)"
    missing = [tool for tool in ("ssh", "ssh-keygen") if shutil.which(tool) is None]
    return f"no {missing[0]} on this machine (Debian: openssh-client)" if missing else None


def lack_of_busybox() -> str | None:
    """Why no script can be run with nothing but busybox's tools; ``None`` when it can."""
    if shutil.which("busybox", path=SYSTEM_PATH) is None:
        return "no busybox on this machine (Debian: busybox)"
    return None


def lack_of_rsync() -> str | None:
    """Why nothing can be compared with rsync here; ``None`` when it can."""
    return None if shutil.which("rsync", path=SYSTEM_PATH) else "no rsync on this machine (Debian: rsync)"


def lack_of_netns() -> str | None:
    """Why no namespaced hosts can be started here; ``None`` when they can. Leaves nothing behind."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "not root"
    for tool in ("ip", "unshare", "mount", "setpriv", "pivot_root"):
        if shutil.which(tool, path=SYSTEM_PATH) is None:
            return f"no {tool} on this machine (Debian: {'iproute2' if tool == 'ip' else 'util-linux'})"
    try:
        os.close(open_tun(f"gcprobe{os.getpid()}"))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    return _refusal_of_namespaces() or lack_of_sshd()


def _refusal_of_namespaces() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        probe = subprocess.run(
            [*UNSHARE, "sh", "-euc", _PROBE],
            check=False,
            cwd=folder,
            env={"PATH": SYSTEM_PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    return None if probe.returncode == 0 else f"namespaces refused: {probe.stderr.strip()}"


NEEDS: Mapping[str, Callable[[], str | None]] = {
    "sshd": cache(lack_of_sshd),
    "netns": cache(lack_of_netns),
    "busybox": cache(lack_of_busybox),
    "rsync": cache(lack_of_rsync),
}
"""By name; the marker of a need is ``needs_`` and its name. Each looks at the machine once."""


def required(environ: Mapping[str, str]) -> frozenset[str]:
    """The needs that ``environ`` insists on.

    Raises:
        ValueError: when it names one that does not exist, which would otherwise go unnoticed forever.
    """
    names = frozenset(name.strip() for name in environ.get(REQUIRE, "").split(",") if name.strip())
    unknown = names - NEEDS.keys() - {"all"}
    if unknown:
        raise ValueError(f"{REQUIRE}: unknown {', '.join(sorted(unknown))}; known: all, {', '.join(NEEDS)}")
    return frozenset(NEEDS) if "all" in names else names


def insist(need: str, lack: str | None, environ: Mapping[str, str]) -> None:
    """Skip the running test because of ``lack``, or fail it where ``environ`` requires ``need``."""
    if lack is None:
        return
    if need in required(environ):
        pytest.fail(f"{lack} ({REQUIRE} requires {need})", pytrace=False)
    pytest.skip(f"needs {need}: {lack}")
