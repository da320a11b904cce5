"""Clusters of real SSH hosts in the books of an installation, as they are after a launch."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gpucloud.model import HostKeySource, SshAddress
from gpucloud.remote.keys import new_key_pair
from tests.harness.books import opened, rented
from tests.harness.cli import Cli
from tests.harness.sshd import SshHost, openssh_host

Node = SshHost | tuple[str, int]
"""A host, or the address of something that is none."""


@contextmanager
def ssh_hosts(folder: Path, count: int) -> Iterator[list[SshHost]]:
    """Hosts on loopback, each with its number as the content of the file ``rank`` in its home."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(openssh_host(folder / str(number))) for number in range(count)]
        for number, host in enumerate(hosts):
            assert host.home is not None
            (host.home / "rank").write_text(str(number))
        yield hosts


def enter(cli: Cli, nodes: Sequence[Node], name: str = "x") -> None:
    """Write down that these are the nodes of a cluster."""
    with opened(cli.data) as store:
        cluster = store.clusters.create(name, len(nodes), ephemeral=False)
        for rank, node in enumerate(nodes):
            token = f"gc-{name}-{rank}"
            rented(store, cluster, token, rank=rank, provider="ssh")
            if isinstance(node, SshHost):
                address = SshAddress(node.host, node.port, node.user, identity_file=str(node.identity))
                store.journal.reached(token, address, node.host_key, HostKeySource.FIRST_CONTACT)
            else:
                key = new_key_pair().public
                store.journal.reached(token, SshAddress(*node), key, HostKeySource.FIRST_CONTACT)


@contextmanager
def refusing() -> Iterator[tuple[str, int]]:
    """An address at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address at which connections are taken and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()
