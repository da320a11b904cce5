"""Names to adapters: the built-in table, then entry points. The only place that loads an adapter."""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gpucloud.config import Config
from gpucloud.credentials.vendor import path_of
from gpucloud.errors import ConfigError, NothingMatched
from gpucloud.provider import Adapter, Provider, PublicCatalog, SpotHistory

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP: Final = "gpucloud.providers"

BUILTIN: Final = MappingProxyType(
    {
        "aws": "gpucloud_aws:Aws",
        "azure": "gpucloud_azure:Azure",
        "cloudrift": "gpucloud_cloudrift:Cloudrift",
        "crusoe": "gpucloud_crusoe:Crusoe",
        "digitalocean": "gpucloud_digitalocean:Digitalocean",
        "gcp": "gpucloud_gcp:Gcp",
        "hotaisle": "gpucloud_hotaisle:Hotaisle",
        "hyperstack": "gpucloud_hyperstack:Hyperstack",
        "lambda": "gpucloud_lambda:Lambda",
        "local": "gpucloud_local:Local",
        "primeintellect": "gpucloud_primeintellect:Primeintellect",
        "runpod": "gpucloud_runpod:Runpod",
        "shadeform": "gpucloud_shadeform:Shadeform",
        "sim": "gpucloud_sim:Sim",
        "ssh": "gpucloud_ssh:Ssh",
        "tensordock": "gpucloud_tensordock:Tensordock",
        "vast": "gpucloud_vast:Vast",
        "verda": "gpucloud_verda:Verda",
        "vultr": "gpucloud_vultr:Vultr",
    }
)
"""Provider name -> ``module:Class``, sorted. The name is also the folder suffix and the config table."""

PRICES_ONLY: Final = MappingProxyType(
    {
        "brev": "gpucloud_brev:Brev",
        "oci": "gpucloud_oci:Oci",
    }
)
"""The same for adapters that read what is published and cannot rent; apart, so that renting loads none."""


SIGNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "cloudrift": ("CLOUDRIFT_API_KEY",),
        "crusoe": ("CRUSOE_ACCESS_KEY_ID", "CRUSOE_ACCESS_KEY", "CRUSOE_SECRET_KEY"),
        "digitalocean": ("DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN"),
        "hotaisle": ("HOTAISLE_API_KEY", "~/.hotaisle/config.json"),
        "hyperstack": ("HYPERSTACK_API_KEY",),
        "lambda": ("LAMBDA_API_KEY",),
        "primeintellect": ("PRIME_API_KEY", "~/.prime/config.json"),
        "runpod": ("RUNPOD_API_KEY", "~/.runpod/config.toml"),
        "shadeform": ("SHADEFORM_API_KEY",),
        "tensordock": ("TENSORDOCK_TOKEN",),
        "vast": ("VAST_API_KEY", "~/.config/vastai/vast_api_key", "~/.vast_api_key"),
        "verda": ("VERDA_CLIENT_ID", "VERDA_CLIENT_SECRET", "~/.verda/credentials"),
        "vultr": ("VULTR_API_KEY",),
    }
)
"""The variables and files by one of which a person may have set a provider up, beside our own.

Loading the adapters of providers that nobody has set up would take half as long as the rest of a listing; a
test holds that these are the credentials that they declare.
"""


def _may_have_plugins() -> bool:
    """Whether an installed package may bring adapters; asking each takes longer than most commands do."""
    try:
        for folder in map(Path, sys.path):
            if folder.is_file():
                return True
            for file in folder.glob("*-info/entry_points.txt"):
                if ENTRY_POINT_GROUP.encode() in file.read_bytes():
                    return True
    except OSError:
        return True
    return False


@cache
def _plugins() -> dict[str, str]:
    found: dict[str, str] = {}
    if not _may_have_plugins():
        return found
    from importlib.metadata import distributions

    for package in distributions():
        try:
            points = package.entry_points.select(group=ENTRY_POINT_GROUP)
        except Exception as error:  # noqa: BLE001 - any package on this machine may be broken
            log.warning("the entry points of the package %s are broken (%s)", package.name, error)
            continue
        for point in points:
            found.setdefault(point.name, point.value)
    return found


def names() -> tuple[str, ...]:
    """Every provider name, built-in and third-party, sorted; nothing is imported."""
    return tuple(sorted({*BUILTIN, *PRICES_ONLY, *_plugins()}))


def load(name: str) -> type[Adapter]:
    """Import and return one adapter class.

    Raises:
        NothingMatched: when no adapter has that name.
        ConfigError: when the adapter is there but cannot be used.
    """
    target = BUILTIN[name] if name in BUILTIN else {**PRICES_ONLY, **_plugins()}.get(name)
    if target is None:
        close = difflib.get_close_matches(name, names(), n=1)
        raise NothingMatched(
            f"there is no provider named {name!r}",
            why=f"known are {', '.join(names())}",
            hint=f"did you mean {close[0]!r}?" if close else "gpucloud providers",
        )
    # What an entry point has in brackets are extras of its package.
    module_name, _, class_name = target.partition("[")[0].replace(" ", "").partition(":")
    with _explained(name):
        adapter = getattr(importlib.import_module(module_name), class_name)
        if not (isinstance(adapter, type) and issubclass(adapter, Adapter) and adapter.name == name):
            raise TypeError(f"{target} is not an Adapter named {name!r}")
        if inspect.isabstract(adapter):
            raise TypeError(
                f"{target} lacks {', '.join(sorted(getattr(adapter, '__abstractmethods__', ())))}"
            )
    return adapter


def load_all() -> dict[str, type[Adapter]]:
    """Every adapter that can be loaded, sorted by name; a broken third-party plugin warns and is left out."""
    adapters = {}
    for name in names():
        with _skipped_if_broken(name):
            adapters[name] = load(name)
    return adapters


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """What the code of an adapter raises before it is asked anything, as an error that names the adapter."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"the adapter of provider {name!r} cannot be used",
            why=f"{type(error).__name__}: {error}",
            hint="update or uninstall the package that brings it",
        ) from error


@contextmanager
def _skipped_if_broken(name: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        if name in BUILTIN or name in PRICES_ONLY:
            raise
        log.warning("%s (%s); it is skipped", error.message, error.why)


class Registry:
    """The providers of one command, built on first use. A name may carry a script: ``sim:stockout=2``."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._built: dict[str, Provider] = {}

    def get(self, reference: str) -> Provider:
        """The provider ``reference`` names, to rent there. Raises ``NothingMatched`` or ``ConfigError``."""
        name, _, script = reference.partition(":")
        if name not in self._built or script not in ("", self._built[name].settings.script):
            adapter = load(name)
            if not issubclass(adapter, Provider):
                raise NothingMatched(
                    f"nothing can be rented at {name} yet",
                    why="its adapter reads only the prices that it publishes",
                    hint=f"gpucloud offers --provider {name}",
                )
            with _explained(name):
                self._built[name] = adapter(self._config.provider(name, script))
        return self._built[name]

    def catalogs(self, wanted: Sequence[str]) -> dict[str, PublicCatalog]:
        """The public catalogues of the named providers, or all. Raises ``NothingMatched``."""
        found = self._able(wanted, PublicCatalog, "publishes no prices that gpucloud reads")
        return {name: adapter for name, adapter in found.items() if isinstance(adapter, PublicCatalog)}

    def spot_histories(self, wanted: Sequence[str]) -> dict[str, SpotHistory]:
        """What tells of past spot prices, of the named providers, or all. Raises ``NothingMatched``."""
        found = self._able(wanted, SpotHistory, "tells no past prices that gpucloud reads")
        return {name: adapter for name, adapter in found.items() if isinstance(adapter, SpotHistory)}

    def _able(self, wanted: Sequence[str], ability: type, lack: str) -> dict[str, Adapter]:
        adapters = {name: load(name) for name in wanted} if wanted else load_all()
        found: dict[str, Adapter] = {}
        for name, adapter in adapters.items():
            if issubclass(adapter, ability):
                with _explained(name):
                    found[name] = adapter(self._config.provider(name))
            elif wanted:
                raise NothingMatched(
                    f"{name} {lack}", why="its adapter has no such ability", hint="gpucloud providers"
                )
        return found

    def asks(self, reference: str) -> bool:
        """Whether a provider that was named is to be asked, rather than what it publishes be read.

        One that publishes its prices is asked once there is an account. Raises ``ConfigError``.
        """
        name = reference.partition(":")[0]
        adapter = load(name) if name in names() else Adapter
        return issubclass(adapter, Provider) and (
            self.is_set_up(name) or not issubclass(adapter, PublicCatalog)
        )

    def select(self, references: Sequence[str]) -> list[Provider]:
        """The named providers, or without names every one that is configured."""
        wanted = references or self._config.get("offers.providers")
        return [self.get(reference) for reference in wanted] if wanted else self.configured()

    def configured(self) -> list[Provider]:
        """Every provider that the person has set up, or has named in this command, by name."""
        for name in names():
            if name not in self._built:
                with _skipped_if_broken(name):
                    if self.is_set_up(name):
                        self.get(name)
        return [self._built[name] for name in sorted(self._built)]

    def known(self) -> dict[str, tuple[type[Adapter], bool]]:
        """Every adapter that can be loaded, by name, and whether the person has set it up."""
        found = {}
        for name, adapter in load_all().items():
            with _skipped_if_broken(name):
                found[name] = adapter, self.is_set_up(name)
        return found

    def is_set_up(self, name: str) -> bool:
        """Whether the person can rent at a provider. Raises ``ConfigError`` when its adapter is broken."""
        if name in PRICES_ONLY and name not in _plugins():
            return False
        if name in SIGNS and not self._may_be_set_up(name):
            return False
        adapter = load(name)
        with _explained(name):
            return issubclass(adapter, Provider) and adapter.configured(self._config.provider(name))

    def _may_be_set_up(self, name: str) -> bool:
        """Whether there is any sign of it; told without loading the adapter."""
        environ, ours = self._config.environ, f"GPUCLOUD_{name}_".upper()
        return (
            name in self._config.tables
            or self._config.credential_file.path.exists()
            or any(variable.startswith(ours) for variable in environ)
            or any(sign in environ or path_of(sign, environ).exists() for sign in SIGNS[name])
        )
