"""Our own file of keys: a table for each provider, which only its owner may read."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gpucloud.credentials import keyring
from gpucloud.credentials.paths import POSIX, open_to_others, shown
from gpucloud.errors import ConfigError, Locked

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

FILE: Final = "credentials.toml"

KEYRING: Final = "keyring"
"""What marks in the file that a key is in the keyring."""

LOCK_S: Final = 10
"""Who writes the file is done in an instant, unless the keyring asks somebody something."""


class Kept(Enum):
    """Where a key is that the file does not have itself."""

    IN_KEYRING = KEYRING


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """Our own file of keys: a table for each provider, readable by its owner alone.

    Every method raises ``ConfigError`` when the file is open to others or is not what it must be.
    """

    path: Path

    def get(self, provider: str, key: str) -> str | Kept | None:
        """A key, or that it is in the keyring; ``None`` when it is in neither."""
        value = self._tables().get(provider, {}).get(key)
        if value == {KEYRING: True}:
            return Kept.IN_KEYRING
        if value is None:
            return None
        if isinstance(value, str):
            return value.strip()
        raise ConfigError(
            f"{shown(self.path)} has no text for {provider}.{key}",
            why='a key is written as api_key = "...", below [PROVIDER]',
            hint=f"gpucloud login {provider}",
        )

    def keys(self, provider: str) -> list[str]:
        """The names of the keys of a provider that are in the file, or of which it knows where they are."""
        return list(self._tables().get(provider, {}))

    def put(self, provider: str, values: Mapping[str, str], *, in_keyring: bool = False) -> None:
        """Store keys, here or in the keyring, in place of what was stored before.

        Raises:
            ConfigError: also when the file cannot be written, or the keyring cannot be used.
            Locked: when another process keeps the file.
        """
        import tomlkit

        with self._changing() as document:
            table = document.setdefault(provider, tomlkit.table())
            for key, value in values.items():
                if table.get(key) == {KEYRING: True} and not in_keyring:
                    keyring.forget(provider, key)
                if in_keyring:
                    keyring.remember(provider, key, value)
                    table[key] = tomlkit.inline_table().append(KEYRING, True)
                else:
                    table[key] = value

    def remove(self, provider: str) -> list[str]:
        """Delete the keys of a provider, from the keyring too, and name them. Raises as ``put`` does."""
        if not self.keys(provider):
            return []
        with self._changing() as document:
            table = document.pop(provider, {})
            for key, value in table.items():
                if value == {KEYRING: True}:
                    keyring.forget(provider, key)
            return [str(key) for key in table]

    def _tables(self) -> dict[str, dict[str, Any]]:
        hint = f"{os.environ.get('EDITOR', 'vi')} {shown(self.path)}"
        try:
            tables = tomllib.loads(self._text())
        except tomllib.TOMLDecodeError:
            # Its own words quote the file, secrets too.
            raise self._unusable("it is not TOML", hint) from None
        if not all(isinstance(table, dict) for table in tables.values()):
            raise self._unusable("a key stands below no [PROVIDER]", hint)
        return tables

    def _text(self) -> str:
        """All of the file; nothing when there is none."""
        try:
            self._check_link()
            with self.path.open(encoding="utf-8") as file:
                if open_to_others(os.fstat(file.fileno()).st_mode):
                    why = "others on this machine can read it or write to it"
                    raise self._unusable(why, f"chmod 600 {shown(self.path)}")
                return file.read()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            why = str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8"
            raise self._unusable(why, f"ls -l {shown(self.path)}") from None

    def _check_link(self) -> None:
        status = self.path.lstat()
        if POSIX and stat.S_ISLNK(status.st_mode) and status.st_uid != os.geteuid():
            raise self._unusable(
                "it is a link that belongs to somebody else",
                f"ls -l {shown(self.path)}, then remove the link",
            )

    @contextmanager
    def _changing(self) -> Iterator[TOMLDocument]:
        """The file, to be changed inside, while no other process does; comments in it stay."""
        import tomlkit
        from filelock import FileLock, Timeout

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self.path.with_name(f".{FILE}.lock"), timeout=LOCK_S, mode=0o600):
                self._tables()
                document = tomlkit.parse(self._text())
                yield document
                self._replace(tomlkit.dumps(document))
        except Timeout as error:
            raise Locked(
                f"{shown(self.path)} is being changed",
                why="by another gpucloud",
                hint="try again in a moment",
            ) from error
        except OSError as error:
            raise self._unusable(error.strerror or str(error), f"ls -ld {shown(self.path.parent)}") from error

    def _replace(self, text: str) -> None:
        """Put another text in its place, whole or not at all."""
        import tempfile

        target = self.path.resolve()
        handle, draft = tempfile.mkstemp(prefix=f".{FILE}.", dir=target.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(target)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def _unusable(self, why: str, hint: str) -> ConfigError:
        return ConfigError(f"{shown(self.path)} cannot be used", why=why, hint=hint)
