"""Who asks: the credentials file that Google's own programs use, and a token for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gpucloud.calls import sending
from gpucloud.errors import AuthError, BadReply, ConfigError, Unreachable
from gpucloud.http import VENDOR_TEXT_LENGTH
from gpucloud.provider import ProviderSettings

SCOPE: Final = "https://www.googleapis.com/auth/compute"
"""The narrowest that may ask for past prices, and that may make a machine."""

PRICES_SCOPE: Final = "https://www.googleapis.com/auth/cloud-billing.readonly"
"""The narrowest that may ask for the price list."""

NAMED: Final = "GOOGLE_APPLICATION_CREDENTIALS"
LOGIN: Final = "gcloud auth application-default login"
TOKEN_S: Final = 30
"""How long one request for a token may take; google-auth tries again where that helps."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A project, and the headers of requests in its name; they hold a token that is renewed every hour.

    ``credentials`` are google-auth's own, for its SDK.
    """

    project: str
    headers: Mapping[str, str] = field(repr=False)
    credentials: Any = field(repr=False)


class _Headers(Mapping[str, str]):
    """The headers of a request of this moment. Reading them raises what ``identify`` raises."""

    def __init__(self, provider: str, credentials: Any) -> None:
        self._provider = provider
        self._credentials = credentials
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> str:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> dict[str, str]:
        with self._lock:
            return _fresh(self._provider, self._credentials)


def found(settings: ProviderSettings) -> bool:
    """Whether there is a login, told without reading it."""
    return credentials_file(settings.environ).is_file()


def identify(settings: ProviderSettings, *more: str) -> Identity:
    """Read the credentials file and get a token for it, good for the scope of machines and for ``more``.

    Raises ``AuthError`` without credentials or a project and for credentials that are refused,
    ``ConfigError`` without google-auth, ``Unreachable`` or ``BadReply`` when no token comes.
    """
    file = credentials_file(settings.environ)
    info = _read(settings.name, file)
    project = (
        settings.table.get("project")
        or settings.environ.get("GOOGLE_CLOUD_PROJECT")
        or info.get("project_id")
        or info.get("quota_project_id")
    )
    if not project:
        raise AuthError(
            f"{settings.name} is to be asked for no project",
            provider=settings.name,
            why=f"{file} names none",
            hint="export GOOGLE_CLOUD_PROJECT=...",
        )
    credentials = _loaded(settings.name, file, info, [SCOPE, *more])
    headers = _Headers(settings.name, credentials)
    # A refusal is to be told now, and not by the first of many requests.
    len(headers)
    return Identity(str(project), headers, credentials)


def credentials_file(environ: Mapping[str, str]) -> Path:
    """The file that the environment names, else the one that gcloud writes; it may be missing."""
    if named := environ.get(NAMED):
        return Path(named)
    config = environ.get("CLOUDSDK_CONFIG")
    folder = Path(config) if config else Path(environ.get("HOME") or "/", ".config", "gcloud")
    return folder / "application_default_credentials.json"


def _read(provider: str, file: Path) -> dict[str, Any]:
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        text, why = f"there are no credentials for {provider}", f"there is no file {file}"
        raise AuthError(text, provider=provider, why=why, hint=f"{LOGIN}, or set {NAMED}") from error
    except (OSError, ValueError) as error:
        raise _unusable(provider, file, str(error)) from error
    if not isinstance(info, dict):
        raise _unusable(provider, file, "it is no JSON object")
    return info


def _loaded(provider: str, file: Path, info: Mapping[str, Any], scopes: Sequence[str]) -> Any:
    try:
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise ConfigError(
            f"{provider} needs google-auth", why=str(error), hint="pip install 'gpucloud[gcp]'"
        ) from error

    try:
        return _credentials(info, scopes)
    except (AttributeError, TypeError, ValueError, GoogleAuthError) as error:
        raise _unusable(provider, file, str(error)) from error


def _fresh(provider: str, credentials: Any) -> dict[str, str]:
    """Headers with a token that is good for some minutes at least."""
    from google.auth.exceptions import GoogleAuthError

    headers: dict[str, str] = {}
    try:
        if not credentials.valid:
            credentials.refresh(_Transport(provider))
        credentials.apply(headers)
    except GoogleAuthError as error:
        raise refused(provider, error) from error
    except (AttributeError, TypeError, ValueError) as error:
        # google-auth takes for granted that a token comes as a JSON object.
        raise BadReply(f"{provider} sent a token that cannot be read", provider=provider) from error
    return headers


def _credentials(info: Mapping[str, Any], scopes: Sequence[str]) -> Any:
    """What google-auth makes of a file. Raises ``ValueError`` for one that it does not understand."""
    from google.oauth2 import credentials, service_account

    accounts: Any = service_account.Credentials
    users: Any = credentials.Credentials
    match info.get("type"):
        case "service_account":
            return accounts.from_service_account_info(info, scopes=scopes)
        case "authorized_user":
            user = users.from_authorized_user_info(info)
            return user.with_token_uri(info["token_uri"]) if info.get("token_uri") else user
        case other:
            raise ValueError(f"its type is {other!r}; gpucloud reads service_account and authorized_user")


def _unusable(provider: str, file: Path, why: str) -> AuthError:
    text = f"the credentials for {provider} in {file} cannot be used"
    return AuthError(text, provider=provider, why=why, hint=LOGIN)


def refused(provider: str, error: Exception) -> AuthError | Unreachable:
    """What google-auth failed by: the first of its arguments is text, the second the whole reply."""
    why = " ".join(str(error.args[0] if error.args else error).split())[:VENDOR_TEXT_LENGTH]
    if getattr(error, "retryable", False):
        return Unreachable(f"{provider} gives out no tokens now", provider=provider, why=why)
    return AuthError(f"{provider} refused the credentials", provider=provider, why=why, hint=LOGIN)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A reply as google-auth wants it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class _Transport:
    """How google-auth asks for a token: by httpx, with the proxies and certificates of all other requests."""

    provider: str

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> _Answer:
        import httpx

        sending(method, url, headers or {}, body, changes=False)
        try:
            reply = httpx.request(method, url, content=body, headers=headers, timeout=timeout or TOKEN_S)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            why = f"{method} {url}: {error or type(error).__name__}"
            raise Unreachable(
                f"{self.provider} does not give out tokens", provider=self.provider, why=why
            ) from error
        return _Answer(reply.status_code, reply.headers, reply.content)
