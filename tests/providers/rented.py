"""Launching instances of an adapter under test and using them over SSH."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpucloud.model import Instance, InstanceState, Offer, Requirements, SshAddress
from gpucloud.provider import LaunchSpec, Provider
from gpucloud.remote.builtin import Builtin
from gpucloud.remote.connection import Completed, Connection, Endpoint, connect
from gpucloud.remote.keys import Identity, identity
from gpucloud.store import new_id
from tests.harness.waiting import eventually


@dataclass(frozen=True, slots=True)
class Rented:
    """A running instance, and the key that opens it."""

    provider: Provider
    instance: Instance
    identity: Identity

    @property
    def folder(self) -> Path:
        """The folder of a local instance."""
        return self.provider.settings.state_dir / self.instance.ref.id

    @property
    def address(self) -> SshAddress:
        """Where its SSH server answers."""
        assert self.instance.ssh is not None
        return self.instance.ssh

    def connect(self, key: Path | None = None, pinned: str | None = None) -> Connection:
        """A connection of gpucloud's own."""
        return connect(Endpoint(self.address, key or self.identity.file, "it", pinned), timeout_s=15)

    def builtin(self) -> Builtin:
        """One of the built-in client, whose channels a test may use."""
        return Builtin(Endpoint(self.address, self.identity.file, "it"), timeout_s=15)

    def run(self, command: str, stdin: bytes = b"") -> Completed:
        """Run a command to its end."""
        with self.connect() as connection:
            return connection.run(command, stdin=stdin)

    def say(self, command: str) -> str:
        """What a command that must succeed prints."""
        done = self.run(command)
        assert done.status == 0, done
        return done.stdout.decode().strip()

    def ssh(self, *words: str, tool: str = "ssh", port: str = "-p") -> list[str]:
        """The system's own client, with no configuration of anyone."""
        options = (
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "LogLevel=ERROR",
        )
        settings = [word for option in options for word in ("-o", option)]
        login = ["-i", str(self.identity.file), port, str(self.address.port)]
        return [tool, "-F", "/dev/null", *settings, *login, *words]

    @property
    def login(self) -> str:
        """Whom and where, as the system's clients want it."""
        return f"{self.address.user}@{self.address.host}"


def an_offer(provider: Provider, **wanted: Any) -> Offer:
    """The first offer whose fields are as wanted."""
    return next(
        offer
        for offer in provider.offers(Requirements(markets=()))
        if all(getattr(offer, name) == value for name, value in wanted.items())
    )


def a_spec(identity: Identity, **given: Any) -> LaunchSpec:
    """What to launch, with a token of its own."""
    standard = {"token": new_id("gc-", 20), "cluster": "test", "rank": 0, "owner": "me"}
    return LaunchSpec(**{**standard, "public_key": identity.public, **given})


def running(provider: Provider, instance: Instance) -> Instance:
    """The instance, once it has an address."""

    def look() -> Instance | None:
        found = provider.get(instance.ref)
        assert found.state not in {InstanceState.FAILED, InstanceState.TERMINATED}, found
        return found if found.ssh else None

    found = eventually(look)
    assert found is not None
    return found


@contextmanager
def rented(provider: Provider, folder: Path, offer: Offer | None = None, **given: Any) -> Iterator[Rented]:
    """An instance that answers SSH; it is ended, and gone, afterwards."""
    key = identity(folder)
    instance = provider.launch(offer or an_offer(provider), a_spec(key, **given))
    try:
        yield Rented(provider, running(provider, instance), key)
    finally:
        end(provider, instance)


def end(provider: Provider, instance: Instance) -> None:
    """Terminate, and wait until nothing is left."""
    provider.terminate(instance.ref)
    eventually(lambda: all(i.ref != instance.ref for i in provider.instances()))


def processes(mark: str) -> list[int]:
    """The processes that have ``mark`` as an argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]
