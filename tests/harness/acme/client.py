"""Adapters of acme as tests use them: without waiting, in a process of their own, or about to die."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from gpucloud.config import Config
from gpucloud.errors import NothingMatched
from gpucloud.http import HttpClient
from gpucloud.provider import Provider, ProviderSettings
from gpucloud.registry import Registry
from tests.harness.acme.adapter import Acme, AcmeSsh
from tests.harness.acme.server import KEY, Server
from tests.harness.catalogs import Clock
from tests.harness.plugins import write_plugin

ROOT: Final = Path(__file__).resolve().parents[3]

DIES_AT: Final = "ACME_DIES_AT"
"""Environment of an installed adapter: ``after 3`` kills its process once the 3rd call is answered."""

PATIENCE: Final = "ACME_PATIENCE_S"
"""Environment of an installed adapter: how long it waits for an answer."""

PLUGIN: Final = '''\
"""acme, as an installed package brings it."""

from tests.harness.acme.adapter import {kind}
from tests.harness.acme.client import installed_client


class Acme({kind}):
    """Virtual machines of acme."""

    def __init__(self, settings):
        super().__init__(settings)
        self.client = installed_client(settings.environ)
'''


class Moment(StrEnum):
    """When in a call: before anything is sent, or when it is answered, but nobody has read the answer."""

    BEFORE = "before"
    AFTER = "after"


Hook = Callable[[Moment, str], None]
"""Told of each moment of each call, such as ``POST /v1/instances``; what it raises, the client raises."""


class Killed(BaseException):
    """The client is dead. No handler of ``Exception`` takes it for something that can be dealt with."""


class DiesAt:
    """A ``Hook`` by which the client dies at that moment of its ``number``-th call, from 1, and stays dead.

    Of calls that are under way at once it is the one that comes to that moment as the ``number``-th.

    To kill it at every call of something, go on until it survives::

        for number in itertools.count(1):
            dies = DiesAt(number, Moment.AFTER)
            try:
                something(an_acme(server, folder, hook=dies))
            except Killed:
                continue  # with a new adapter, as the next process has it, look what is left
            break
    """

    def __init__(self, number: int, moment: Moment) -> None:
        self._number = number
        self._moment = moment
        self._come = 0
        self._lock = threading.Lock()
        self.dead = False

    def __call__(self, moment: Moment, call: str) -> None:
        """Raise ``Killed`` when it is time, or has been."""
        with self._lock:
            self._come += moment is self._moment
            self.dead = self.dead or self._come == self._number
            if self.dead:
                raise Killed(f"{moment} {call}")


class Wire(httpx.BaseTransport):
    """Real connections, and a hook on both sides of each call."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, unless the hook raises."""
        call = f"{request.method} {request.url.path}"
        self._hook(Moment.BEFORE, call)
        response = self._inner.handle_request(request)
        try:
            self._hook(Moment.AFTER, call)
        except BaseException:
            response.close()
            raise
        return response

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


def an_acme(
    server: Server,
    folder: Path,
    *,
    clock: Clock | None = None,
    patience_s: float = 30,
    hook: Hook | None = None,
    kind: type[Acme] | None = None,
) -> Acme:
    """An adapter before this server, which sleeps only on ``clock``; reached by SSH if its vendor has that.

    A test of ``Trouble.TIMEOUT`` gives it little patience, which passes for real.
    """
    time = clock or Clock()
    table = {"url": server.url, "api_key": KEY}
    kind = kind or (AcmeSsh if server.vendor.address else Acme)
    adapter = kind(ProviderSettings(kind.name, folder, table=table))
    adapter.client = partial(
        HttpClient,
        sleep=time.sleep,
        clock=lambda: time.now,
        read_s=patience_s,
        transport=Wire(hook) if hook else None,
    )
    return adapter


class Only(Registry):
    """A registry of adapters that a test has made, and of no others: for a ``Fleet`` in this process."""

    def __init__(self, config: Config, *providers: Provider) -> None:
        super().__init__(config)
        self._given = {provider.name: provider for provider in providers}

    def get(self, reference: str) -> Provider:
        """One of what was given. Raises ``NothingMatched``."""
        name = reference.partition(":")[0]
        if name not in self._given:
            raise NothingMatched(f"there is no provider named {name!r}")
        return self._given[name]

    def configured(self) -> list[Provider]:
        """All that was given, by name."""
        return [self._given[name] for name in sorted(self._given)]

    def asks(self, reference: str) -> bool:
        """Whether it was given."""
        return reference.partition(":")[0] in self._given


def install_acme(server: Server, folder: Path) -> dict[str, str]:
    """Write a package that brings acme, and return the environment in which gpucloud uses it."""
    kind = AcmeSsh if server.vendor.address else Acme
    write_plugin(folder, Acme.name, PLUGIN.format(kind=kind.__name__))
    path = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "GPUCLOUD_ACME_URL": server.url,
        "GPUCLOUD_ACME_API_KEY": KEY,
    }


def installed_client(environ: Mapping[str, str]) -> Callable[..., HttpClient]:
    """What makes the client of an installed adapter, as its environment wants it."""
    number = moment = ""
    if DIES_AT in environ:
        moment, number = environ[DIES_AT].split()
    hook = _suicidal(DiesAt(int(number), Moment(moment))) if number else None
    return partial(
        HttpClient, read_s=float(environ.get(PATIENCE, "30")), transport=Wire(hook) if hook else None
    )


def _suicidal(dies: DiesAt) -> Hook:
    """A hook that ends the whole process where another would raise, as a power cut does."""

    def hook(moment: Moment, call: str) -> None:
        try:
            dies(moment, call)
        except Killed:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook
