"""Names to adapters: the built-in table, then entry points. The only place that loads an adapter."""

from __future__ import annotations

import difflib
import importlib
import logging
from functools import cache
from types import MappingProxyType
from typing import Final

from gpucloud.errors import ConfigError, NothingMatched
from gpucloud.provider import Provider, ProviderSettings

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP: Final = "gpucloud.providers"

BUILTIN: Final = MappingProxyType(
    {
        "local": "gpucloud_local:Local",
        "sim": "gpucloud_sim:Sim",
        "ssh": "gpucloud_ssh:Ssh",
    }
)
"""Provider name -> ``module:Class``, sorted. The name is also the folder suffix and the config table."""


@cache
def _plugins() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def names() -> tuple[str, ...]:
    """Every provider name, built-in and third-party, sorted; nothing is imported."""
    return tuple(sorted({*BUILTIN, *_plugins()}))


def load(name: str) -> type[Provider]:
    """Import and return one adapter class.

    Raises:
        NothingMatched: when no adapter has that name.
        ConfigError: when the adapter is there but cannot be imported.
    """
    target = BUILTIN.get(name) or _plugins().get(name)
    if target is None:
        close = difflib.get_close_matches(name, names(), n=1)
        raise NothingMatched(
            f"there is no provider named {name!r}",
            why=f"known are {', '.join(names())}",
            hint=f"did you mean {close[0]!r}?" if close else "gpucloud providers",
        )
    module_name, _, class_name = target.partition(":")
    try:
        adapter = getattr(importlib.import_module(module_name), class_name)
        if not (isinstance(adapter, type) and issubclass(adapter, Provider) and adapter.name == name):
            raise TypeError(f"{target} is not a Provider named {name!r}")
    except Exception as error:
        raise ConfigError(
            f"the adapter of provider {name!r} cannot be loaded",
            why=f"{type(error).__name__}: {error}",
            hint=f"uninstall or update the package that brings {module_name!r}",
        ) from error
    return adapter


def load_all() -> dict[str, type[Provider]]:
    """Every adapter that can be loaded, sorted by name; a broken third-party plugin warns and is left out."""
    adapters = {}
    for name in names():
        try:
            adapters[name] = load(name)
        except ConfigError as error:
            if name in BUILTIN:
                raise
            log.warning("%s (%s); it is skipped", error.message, error.why)
    return adapters


def create(settings: ProviderSettings) -> Provider:
    """Build the provider that ``settings`` names."""
    return load(settings.name)(settings)
