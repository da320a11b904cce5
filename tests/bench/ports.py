"""A few real sshds that stand for many hosts: each listens on as many ports as it can."""

from __future__ import annotations

import os
import pwd
import random
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.harness.sshd import (
    SYSTEM_PATH,
    SshHost,
    await_sshd,
    common_settings,
    dying_with_us,
    find_sshd,
    generate_key,
)

PORTS_EACH: Final = 16
"""sshd's own limit."""


@contextmanager
def many_hosts(folder: Path, count: int) -> Iterator[list[SshHost]]:
    """``count`` hosts with one key and one home.

    Raises:
        HarnessError: when a server does not come up.
    """
    home, identity = folder / "home", folder / "identity"
    home.mkdir(parents=True)
    host_key = generate_key(folder / "host_key")
    (folder / "authorized_keys").write_text(generate_key(identity) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    user = pwd.getpwuid(os.geteuid()).pw_name
    # Below what kernels hand out to clients.
    first = random.randrange(20_000, 32_000 - count)
    with ExitStack() as servers:
        hosts = []
        for start in range(first, first + count, PORTS_EACH):
            ports = range(start, min(start + PORTS_EACH, first + count))
            pid = servers.enter_context(_server(folder, ports))
            hosts += [
                SshHost(f"port-{port}", "127.0.0.1", port, user, identity, host_key, home, pid)
                for port in ports
            ]
        yield hosts


@contextmanager
def _server(folder: Path, ports: range) -> Iterator[int]:
    home = shlex.quote(str(folder / "home"))
    settings = [
        *(f"Port {port}" for port in ports),
        "ListenAddress 127.0.0.1",
        f'HostKey "{folder}/host_key"',
        f'AuthorizedKeysFile "{folder}/authorized_keys"',
        f'SetEnv "HOME={folder}/home"',
        f'ForceCommand cd {home} && exec sh -c "$SSH_ORIGINAL_COMMAND"',
        common_settings(),
    ]
    config, log = folder / f"{ports.start}.conf", folder / f"{ports.start}.log"
    config.write_text("\n".join(settings))
    with log.open("wb") as written:
        server = subprocess.Popen(
            [*dying_with_us(), str(find_sshd()), "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=written,
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,
        )
    try:
        await_sshd(server, log, 0, ("127.0.0.1", ports.start))
        yield server.pid
    finally:
        server.kill()
        server.wait()
