"""Keys in the keyring of the system.

It is opened only for a key that was stored there: that takes long, and may ask somebody for a password.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from gpucloud.errors import AuthError, ConfigError

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger(__name__)

SERVICE: Final = "gpucloud"
"""Under which name our keys are in the keyring; the user there is ``PROVIDER.KEY``."""


def recall(provider: str, key: str) -> str:
    """A key that was stored. Raises ``AuthError``, so that this provider alone is left out."""
    try:
        with _keyring(provider) as keyring:
            secret = keyring.get_password(SERVICE, f"{provider}.{key}")
    except ConfigError as error:
        raise AuthError(error.message, provider=provider, why=error.why, hint=error.hint) from error
    if not secret:
        raise AuthError(
            f"the keyring has no {key} for {provider}",
            provider=provider,
            why="gpucloud login has put it there, and it was deleted since",
            hint=f"gpucloud login {provider}",
        )
    return str(secret)


def remember(provider: str, key: str, value: str) -> None:
    """Store a key. Raises ``ConfigError``."""
    with _keyring(provider) as keyring:
        keyring.set_password(SERVICE, f"{provider}.{key}", value)


def forget(provider: str, key: str) -> None:
    """Delete from the keyring what is in our way; a new key must not fail for the sake of an old one."""
    try:
        with _keyring(provider) as keyring:
            keyring.delete_password(SERVICE, f"{provider}.{key}")
    except ConfigError as error:
        log.warning("the keyring may still have the %s of %s: %s", key, provider, error.why)


@contextmanager
def _keyring(provider: str) -> Iterator[ModuleType]:
    """The keyring, and what goes wrong with it as an error of ours."""
    try:
        import keyring
    except ImportError as error:
        raise ConfigError(
            "there is no keyring here",
            why="the package keyring is not installed",
            hint=f"pip install 'gpucloud[keyring]', or gpucloud login {provider} without --keyring",
        ) from error
    try:
        yield keyring
    except Exception as error:
        raise ConfigError(
            "the keyring cannot be used",
            why=f"{type(error).__name__}: {error}",
            hint=f"unlock it, or gpucloud login {provider} without --keyring",
        ) from error
