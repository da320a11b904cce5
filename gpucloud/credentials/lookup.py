"""Where the secrets of a provider are looked for.

In order: the environment, our own file, which may say that the key is in the keyring, the files of the
vendor's own tools, and last our settings. Nothing is read before an adapter asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from gpucloud import redact
from gpucloud.credentials import keyring, vendor
from gpucloud.credentials.file import KEYRING, CredentialFile, Kept
from gpucloud.credentials.paths import open_to_others, shown
from gpucloud.errors import AuthError
from gpucloud.provider import Credential, ProviderSettings

MISSING: Final = "missing"
_VARIABLE: Final = "environment "

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the secrets of one provider are looked for. ``table`` is what ``table_file`` has for it."""

    provider: str
    file: CredentialFile
    environ: Mapping[str, str] = field(repr=False)
    table: Mapping[str, Any] = field(repr=False)
    table_file: Path

    def source(self, wanted: Credential) -> str | None:
        """Say in words where it would be read from; ``None`` when it is nowhere. Raises ``ConfigError``."""
        return next((place for place, value in self._places(wanted) if value), None)

    def read(self, wanted: Credential) -> str:
        """Return the secret itself; from now on it is hidden wherever it would be shown.

        Raises:
            AuthError: when it is nowhere.
            ConfigError: when a place that should have it cannot be used.
        """
        for place, value in self._places(wanted):
            if value:
                secret = keyring.recall(self.provider, wanted.key) if isinstance(value, Kept) else value
                redact.add(secret, self._variable(wanted, place))
                self._warn_of_readers(place, wanted.key)
                return secret
        looked_at = [place for place, _ in self._places(wanted)]
        raise AuthError(
            f"there is no {wanted.key} for {self.provider}",
            provider=self.provider,
            why=f"looked at {', '.join(looked_at[:-1])} and {looked_at[-1]}",
            hint=f"gpucloud login {self.provider}"
            + (f", with one from {wanted.page}" if wanted.page else ""),
        )

    def _variable(self, wanted: Credential, place: str) -> str:
        """The variable that it was read from, else the one that people know."""
        named = place.removeprefix(_VARIABLE)
        return named if named != place else (*wanted.variables, self._own(wanted))[0]

    def _own(self, wanted: Credential) -> str:
        return f"GPUCLOUD_{self.provider}_{wanted.key}".upper()

    def _places(self, wanted: Credential) -> Iterator[tuple[str, str | Kept | None]]:
        """Each place in words, and what it has; the next one is looked at only when somebody asks on."""
        for variable in (self._own(wanted), *wanted.variables):
            yield f"{_VARIABLE}{variable}", self.environ.get(variable, "").strip()
        kept = self.file.get(self.provider, wanted.key)
        yield KEYRING if isinstance(kept, Kept) else shown(self.file.path), kept
        for theirs in wanted.files:
            path = vendor.path_of(theirs.path, self.environ)
            yield shown(path), vendor.read(path, theirs)
        value = self.table.get(wanted.key)
        yield self._table_place, value.strip() if isinstance(value, str) else None

    @property
    def _table_place(self) -> str:
        return shown(self.table_file)

    def _warn_of_readers(self, place: str, key: str) -> None:
        if place == self._table_place and open_to_others(self.table_file.stat().st_mode):
            _warn_once(f"others on this machine can read the {key} of {self.provider}: chmod 600 {place}")


def source_of(wanted: Sequence[Credential], settings: ProviderSettings) -> str | None:
    """Where all the secrets of an adapter would come from, or ``missing``; ``None`` when it needs none."""
    sources = [settings.credential_source(credential) for credential in wanted]
    return ", ".join(dict.fromkeys(source or MISSING for source in sources)) or None


@cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)
