"""One real sshd that stands for many hosts: it listens on a port for each."""

from __future__ import annotations

import os
import pwd
import random
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.sshd import (
    SYSTEM_PATH,
    SshHost,
    await_sshd,
    common_settings,
    dying_with_us,
    find_sshd,
    generate_key,
)


@contextmanager
def many_hosts(folder: Path, count: int) -> Iterator[list[SshHost]]:
    """``count`` hosts with one key and one home.

    Raises:
        HarnessError: when the server does not come up.
    """
    home, identity = folder / "home", folder / "identity"
    home.mkdir(parents=True)
    host_key = generate_key(folder / "host_key")
    (folder / "authorized_keys").write_text(generate_key(identity) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    # Below what kernels hand out to clients.
    first = random.randrange(20_000, 32_000 - count)
    ports = range(first, first + count)
    settings = [
        *(f"Port {port}" for port in ports),
        "ListenAddress 127.0.0.1",
        f'HostKey "{folder}/host_key"',
        f'AuthorizedKeysFile "{folder}/authorized_keys"',
        f'SetEnv "HOME={home}"',
        f'ForceCommand cd {shlex.quote(str(home))} && exec sh -c "$SSH_ORIGINAL_COMMAND"',
        common_settings(),
    ]
    (folder / "sshd_config").write_text("\n".join(settings))
    log = folder / "sshd.log"
    with log.open("wb") as written:
        server = subprocess.Popen(
            [*dying_with_us(), str(find_sshd()), "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=written,
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,
        )
    try:
        await_sshd(server, log, 0, ("127.0.0.1", first))
        user = pwd.getpwuid(os.geteuid()).pw_name
        yield [
            SshHost(f"port-{port}", "127.0.0.1", port, user, identity, host_key, home, server.pid)
            for port in ports
        ]
    finally:
        server.kill()
        server.wait()
