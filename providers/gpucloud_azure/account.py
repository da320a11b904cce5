"""The person's account: who asks, by azure-identity's own chain, and what asks Azure Resource Manager.

What only reads goes over our HTTP client, with a token of azure-identity; what changes anything goes through
Azure's own clients, which know its long-running operations. They take 0.6 s to import, and 2.2 s to read the
sizes of one region, for which plain JSON takes 0.1 s (measured in November 2026), so listings do without.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

from gpucloud.calls import sending
from gpucloud.errors import AuthError, ConfigError, Unreachable
from gpucloud.http import HttpClient
from gpucloud.provider import ProviderSettings
from gpucloud.replies import Rows, query_of
from gpucloud_azure.errors import classify, no_login, refusal

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo
    from azure.mgmt.compute import ComputeManagementClient
    from azure.mgmt.network import NetworkManagementClient
    from azure.mgmt.resource.resources import ResourceManagementClient

    from gpucloud_azure.api import Listing

T = TypeVar("T")

ARM: Final = "https://management.azure.com"
RESOURCE_GROUP: Final = "gpucloud"
MOST_PAGES: Final = 1000
FRESH_S: Final = 300
"""A token that is good for less is not used any more."""

SECRETS: Final = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE")
SIGN_IN: Final = "az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
CHOOSE: Final = "az account set --subscription NAME, or gpucloud config set providers.azure.subscription ID"

READING: Final = {"GET", "HEAD"}
RETRIES: Final = {"retry_total": 4, "retry_status": 4, "retry_backoff_max": 10, "timeout": 60}
"""The patience of Azure's clients with one request. Everything they repeat has a name of its own and is thus
made once: they repeat no POST but after 500, 503 and 504, and our POSTs stop and start."""
BUSY: Final = {"AnotherOperationInProgress", "ReferencedResourceNotProvisioned"}
"""What Azure says while something, or what it is to use, is being changed."""
TURNS: Final = 10
TURN_S: Final = 1
"""How often, and how many seconds apart, something that another launch is changing too is tried."""
POLL_S: Final = 1
"""How often an operation is looked at when Azure does not say."""


class ResourceId(NamedTuple):
    """What Azure calls a thing: everything but the subscription."""

    group: str
    type: str
    name: str

    @classmethod
    def parse(cls, text: str) -> ResourceId | None:
        """Read ``/subscriptions/S/resourceGroups/G/providers/TYPE/NAME``; ``None`` for anything else.

        Azure does not keep the case of the group.
        """
        pattern = r"/subscriptions/[^/]+/resourceGroups/([^/]+)/providers/([^/]+/[^/]+)/([^/]+)/?"
        match = re.fullmatch(pattern, text, re.IGNORECASE)
        return cls(match[1].lower(), match[2], match[3]) if match else None


class Clients(NamedTuple):
    """Azure's own clients."""

    compute: ComputeManagementClient
    network: NetworkManagementClient
    resources: ResourceManagementClient


class Account:
    """One subscription, and its credentials. Safe to share between threads; constructing it does no I/O."""

    def __init__(self, settings: ProviderSettings, client: Callable[..., HttpClient]) -> None:
        self.provider = settings.name
        self.settings = settings
        self.arm = str(settings.table.get("arm_url", ARM)).rstrip("/")
        self.group = str(settings.table.get("resource_group", RESOURCE_GROUP)).lower()
        self._client = client
        self._lock = threading.Lock()
        self._token: AccessTokenInfo | None = None

    @cached_property
    def subscription(self) -> str:
        """Its id. Raises ``ConfigError`` when neither settings nor environment nor ``az login`` tell one."""
        found = named_subscription(self.settings) or default_subscription(self.settings)
        if not found:
            raise ConfigError(
                f"{self.provider}: no subscription is chosen",
                why="neither the settings nor AZURE_SUBSCRIPTION_ID nor az login name one",
                hint=CHOOSE,
            )
        return found

    def path(self, rest: str) -> str:
        """Where something of the subscription is."""
        return f"subscriptions/{self.subscription}/{rest}"

    def vm_id(self, group: str, name: str) -> str:
        """What we call an instance; in Azure's own spelling, but for the case of the group."""
        where = self.path(
            f"resourceGroups/{group.lower()}/providers/Microsoft.Compute/virtualMachines/{name}"
        )
        return f"/{where}"

    # -- reading -----------------------------------------------------------------------------------

    @contextmanager
    def http(self) -> Iterator[HttpClient]:
        """What reads. Raises ``AuthError`` when nobody is signed in."""
        headers = {"Authorization": f"Bearer {self._fresh().token}"}
        more: dict[str, Any] = {}
        if self._ca_file:
            import ssl

            import httpx

            more["transport"] = httpx.HTTPTransport(verify=ssl.create_default_context(cafile=self._ca_file))
        with self._client(self.provider, self.arm, headers=headers, classify=classify, **more) as http:
            yield http

    def rows(self, http: HttpClient, path: str, **params: str) -> Iterator[Any]:
        """Everything that a listing has, from all its pages. Raises ``BadReply`` if these do not end."""
        from gpucloud_azure.api import Listing

        def page(asked: Mapping[str, str]) -> Listing:
            return Rows(self.provider).envelope(Listing.model_validate, http.get(path, params=asked))

        return self.paged(page, path, params)

    def paged(
        self, page: Callable[[Mapping[str, str]], Listing], path: str, params: Mapping[str, str]
    ) -> Iterator[Any]:
        """The same of pages that are read by ``page``, which is told what to ask for."""
        reply, asked = Rows(self.provider), dict(params)
        for _ in range(MOST_PAGES):
            listing = page(asked)
            yield from listing.value
            if not listing.next_link:
                return
            asked = {**params, **reply.envelope(query_of, listing.next_link)}
        raise reply.bad(f"there are more than {MOST_PAGES} pages of {path}")

    # -- changing ----------------------------------------------------------------------------------

    @contextmanager
    def clients(self) -> Iterator[Clients]:
        """Azure's own clients. Raises ``ConfigError`` when they are not installed."""
        _hush()
        with _installed(self.provider):
            from azure.mgmt.compute import ComputeManagementClient
            from azure.mgmt.network import NetworkManagementClient
            from azure.mgmt.resource.resources import ResourceManagementClient
        given: dict[str, Any] = {
            "base_url": self.arm,
            "credential_scopes": [self._scope],
            "polling_interval": POLL_S,
            "raw_request_hook": _tell_of,
            "raw_response_hook": _read_refusal,
            **self._trusting,
            **RETRIES,
        }
        with ExitStack() as stack:
            yield Clients(
                stack.enter_context(ComputeManagementClient(self, self.subscription, **given)),
                stack.enter_context(NetworkManagementClient(self, self.subscription, **given)),
                stack.enter_context(ResourceManagementClient(self, self.subscription, **given)),
            )

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Inside, what Azure's clients raise is raised in our words."""
        from azure.core import exceptions as of_azure

        try:
            yield
        except of_azure.ClientAuthenticationError as error:
            status = error.status_code or 401
            raise refusal(self.provider, status, *_words(error)) from error
        except of_azure.HttpResponseError as error:
            raise refusal(self.provider, error.status_code or 0, *_words(error)) from error
        except (of_azure.ServiceRequestError, of_azure.ServiceResponseError) as error:
            lost = Unreachable(f"{self.provider} does not answer", provider=self.provider, why=str(error))
            # Retries may have failed to connect after a first try that did.
            lost.outcome_unknown = True
            raise lost from error
        except of_azure.AzureError as error:
            raise refusal(self.provider, 500, type(error).__name__, str(error)) from error

    def in_turn(self, call: Callable[[], T]) -> T:
        """Make or change a part by its name, again while what it belongs to is being changed."""
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

        waiting = Retrying(
            retry=retry_if_exception(lambda error: getattr(error, "vendor_code", "") in BUSY),
            stop=stop_after_attempt(TURNS),
            wait=wait_random(TURN_S / 2, TURN_S * 3 / 2),
            reraise=True,
        )
        for attempt in waiting:
            with attempt, self.translated():
                return call()
        raise AssertionError("the last attempt returns or raises")

    # -- credentials -------------------------------------------------------------------------------

    def get_token_info(self, *_: str, options: object = None) -> AccessTokenInfo:
        """What Azure's clients ask for; all of them ask for the same."""
        return self._fresh()

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        """The same, as older clients ask for it."""
        from azure.core.credentials import AccessToken

        token = self._fresh()
        return AccessToken(token.token, token.expires_on)

    def _fresh(self) -> AccessTokenInfo:
        # The command of az takes a second, and nothing in that chain remembers what it said.
        with self._lock:
            if self._token is None or self._token.expires_on - time.time() < FRESH_S:
                self._token = self._asked()
            return self._token

    def _asked(self) -> AccessTokenInfo:
        _hush()
        with _installed(self.provider):
            try:
                with self.translated(), self._credential() as credential:
                    token: AccessTokenInfo = credential.get_token_info(self._scope)
                    return token
            except AuthError as error:
                raise no_login(self.provider, error, SIGN_IN) from error
            except ValueError as error:
                raise ConfigError(
                    f"the settings for {self.provider} are wrong", why=str(error), hint=SIGN_IN
                ) from error

    def _credential(self) -> Any:
        """That of a secret in the variables of the settings, else what DefaultAzureCredential finds."""
        from azure.identity import ClientSecretCredential, DefaultAzureCredential

        environ, more = self.settings.environ, {"raw_request_hook": _tell_of_login, **self._trusting}
        if authority := environ.get("AZURE_AUTHORITY_HOST"):
            more["authority"] = authority
        if self.settings.table.get("instance_discovery") is False:
            more["disable_instance_discovery"] = True
        known = [environ.get(name) for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")]
        if all(known):
            return ClientSecretCredential(*map(str, known), **more)
        return DefaultAzureCredential(**more)

    @property
    def _scope(self) -> str:
        return f"{self.arm}/.default"

    @property
    def _ca_file(self) -> str:
        return str(self.settings.table.get("ca_file", ""))

    @property
    def _trusting(self) -> Mapping[str, Any]:
        return {"connection_verify": self._ca_file} if self._ca_file else {}


def signed_in(settings: ProviderSettings) -> bool:
    """Whether somebody has signed in with Azure's own tools, or the settings name a subscription."""
    environ = settings.environ
    by_variables = environ.get("AZURE_CLIENT_ID") and any(environ.get(name) for name in SECRETS)
    return bool(by_variables or settings.table.get("subscription") or default_subscription(settings))


def named_subscription(settings: ProviderSettings) -> str:
    """The one that the settings or the environment name; else empty."""
    return str(settings.table.get("subscription") or settings.environ.get("AZURE_SUBSCRIPTION_ID") or "")


def default_subscription(settings: ProviderSettings) -> str:
    """The one that ``az login`` has left as its default; empty when there is none, or no such file."""
    environ = settings.environ
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or "~").expanduser()
    file = Path(environ.get("AZURE_CONFIG_DIR") or home / ".azure") / "azureProfile.json"
    try:
        listed = json.loads(file.read_text("utf-8-sig"))["subscriptions"]
        found = (each["id"] for each in listed if each.get("isDefault") and each.get("state") == "Enabled")
        return str(next(found, ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _tell_of(request: Any) -> None:
    """Tell whoever wants to know of a request of Azure's clients."""
    _tell(request.http_request, changes=request.http_request.method not in READING)


def _tell_of_login(request: Any) -> None:
    _tell(request.http_request, changes=False)


def _tell(request: Any, *, changes: bool) -> None:
    # Of the two kinds of requests that Azure's libraries make, only the newer one has its content.
    body = getattr(request, "content", None) or request.data
    text = urlencode(body) if isinstance(body, Mapping) else body
    content = text if isinstance(text, str | bytes) else None
    sending(request.method, request.url, request.headers, content, changes=changes)


def _read_refusal(reply: Any) -> None:
    """Azure's clients forget the body of a reply after which they try again, and with it the connection."""
    if reply.http_response.status_code >= 400:
        reply.http_response.read()


def _hush() -> None:
    """Azure's libraries warn of every place without credentials, and of replies that are no JSON."""
    logging.getLogger("azure").setLevel(logging.ERROR)


@contextmanager
def _installed(provider: str) -> Iterator[None]:
    """Raises ``ConfigError`` without Azure's libraries, which are not installed unless asked for."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"{provider} can be rented from only with Azure's own libraries",
            why=f"one cannot be imported: {error}",
            hint="pip install 'gpucloud[azure]'",
        ) from error


def _words(error: Any) -> tuple[str, str]:
    """The vendor's code and text of an exception of Azure's clients."""
    told = getattr(error, "error", None)
    code, text = (getattr(told, name, None) or "" for name in ("code", "message"))
    return str(code), str(text or getattr(error, "message", "") or error)
