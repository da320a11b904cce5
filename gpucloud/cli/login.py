"""``gpucloud login`` and ``gpucloud logout``: keys of providers, stored once they are accepted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud import redact
from gpucloud.cli.app import app
from gpucloud.cli.options import Yes
from gpucloud.cli.render import ask_secret, interactive, out
from gpucloud.errors import UsageError

if TYPE_CHECKING:
    from gpucloud.config import Config
    from gpucloud.provider import Adapter, Credential


@app.command()
def login(
    provider: Annotated[str, typer.Argument(help="A provider, by its name.")],
    key: Annotated[str, typer.Option(metavar="NAME", help="Only this one of the secrets it needs.")] = "",
    keyring: Annotated[bool, typer.Option("--keyring", help="Keep it in the system's keyring.")] = False,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read it from stdin, a line for each secret.")
    ] = False,
) -> None:
    """Store the key of a provider, once the provider accepts it; what is typed is not shown.

    Example: gpucloud login acme --stdin < key.txt
    """
    from gpucloud.cli.context import config
    from gpucloud.credentials import KEYRING, shown, source_of
    from gpucloud.registry import load

    adapter = load(provider)
    wanted = _wanted(adapter, key)
    settings = config()
    file = settings.credential_file
    file.keys(provider)  # one that cannot be used is told of before anybody types
    typed = _read(wanted) if stdin else _ask(provider, wanted)
    verified, account = _check(adapter, settings, typed)
    file.put(provider, typed, in_keyring=keyring)
    place = KEYRING if keyring else shown(file.path)
    used = source_of(wanted, settings.provider(provider))
    out.note(f"{', '.join(typed)} of {provider} stored: {place}" + ("" if verified else ", not verified"))
    if used != place:
        out.note(f"but what is used is that from {used}")
    if out.json:
        stored = {"keys": list(typed), "stored_in": place, "verified": verified, "account": account}
        out.document("login", provider=provider, **stored, credential_source=used, failures=[])


@app.command()
def logout(
    provider: Annotated[str, typer.Argument(help="A provider, by its name.")],
    yes: Yes = False,
) -> None:
    """Delete the keys of a provider that gpucloud login has stored, and say where others still are.

    Example: gpucloud logout acme
    """
    from gpucloud.cli.context import config
    from gpucloud.credentials import MISSING, source_of
    from gpucloud.registry import load, names

    settings = config()
    file = settings.credential_file
    stored = file.keys(provider)
    # The keys of an adapter that is no longer installed can be deleted too.
    adapter = load(provider) if provider in names() or not stored else None
    if stored:
        _agree_to_lose(provider, settings, yes=yes)
    removed = file.remove(provider)
    left = source_of(adapter.credentials, settings.provider(provider)) if adapter else None
    out.note(f"{', '.join(removed)} of {provider} deleted" if removed else "there was nothing to delete")
    if left not in (None, MISSING):
        out.note(f"what is used now is that from {left}")
    if out.json:
        out.document("logout", provider=provider, removed=removed, credential_source=left, failures=[])


def _wanted(adapter: type[Adapter], key: str) -> Sequence[Credential]:
    """The secrets to ask for. Raises ``UsageError``."""
    if not adapter.credentials:
        raise UsageError(
            f"gpucloud keeps no key for {adapter.name}",
            why="its adapter needs none, or finds it by the vendor's own tools",
            hint=f"gpucloud offers --provider {adapter.name}",
        )
    wanted = [credential for credential in adapter.credentials if key in ("", credential.key)]
    if not wanted:
        known = ", ".join(credential.key for credential in adapter.credentials)
        raise UsageError(
            f"{adapter.name} needs no {key!r}", why=f"it needs {known}", hint=f"gpucloud login {adapter.name}"
        )
    return wanted


def _ask(provider: str, wanted: Sequence[Credential]) -> dict[str, str]:
    if not interactive():
        raise UsageError(
            "there is nobody to ask",
            why="there is no terminal, and a key does not belong on a command line",
            hint=f"gpucloud login {provider} --stdin < FILE",
        )
    typed = {}
    for credential in wanted:
        if credential.page:
            out.note(f"there is one at {credential.page}")
        typed[credential.key] = _checked(credential.key, ask_secret(f"{credential.key} of {provider}"))
    return typed


def _read(wanted: Sequence[Credential]) -> dict[str, str]:
    if sys.stdin.isatty():
        raise UsageError(
            "--stdin is for a pipe or a file", why="a terminal shows what is typed", hint="leave it out"
        )
    return {credential.key: _checked(credential.key, sys.stdin.readline()) for credential in wanted}


def _checked(key: str, text: str) -> str:
    """A secret as it was meant, hidden from now on. Raises ``UsageError``, which does not tell it."""
    secret = text.strip()
    redact.add(secret)
    if not secret:
        raise UsageError(f"no {key} was given", why="what was read is empty", hint="try again")
    if not secret.isprintable():
        raise UsageError(
            f"the {key} cannot be right", why="it has a character that cannot be seen", hint="copy it again"
        )
    return secret


def _check(kind: type[Adapter], settings: Config, typed: Mapping[str, str]) -> tuple[bool, str | None]:
    """Whether the provider has accepted them, and whose they are. Raises ``AuthError`` when it has not."""
    from gpucloud.provider import ChecksCredentials

    adapter = kind(settings.provider(kind.name))
    others = [c for c in kind.credentials if c.key not in typed and adapter.settings.credential_source(c)]
    values = {**{c.key: adapter.settings.credential(c) for c in others}, **typed}
    if not isinstance(adapter, ChecksCredentials) or len(values) < len(kind.credentials):
        return False, None
    account = adapter.check_credentials(values)
    out.note(f"{kind.name} accepts it: {account}")
    return True, account


def _agree_to_lose(provider: str, settings: Config, *, yes: bool) -> None:
    """Have somebody agree when machines are rented there, which nobody could end without the key."""
    from gpucloud.cli.consent import agree
    from gpucloud.store import Store

    if not Store.exists(settings.data_dir):
        return
    clusters = Store(settings.data_dir).clusters.living()
    held = [c.name for c in clusters if provider in {rental.provider for rental in c.rentals}]
    if held:
        out.note(f"rented there: {', '.join(held)}; without a key they can be neither seen nor ended")
        agree(f"Delete the key of {provider}?", yes=yes)
