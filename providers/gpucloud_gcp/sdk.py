"""Changes, by Google's own SDK: what is made, stopped and deleted. Nothing is read here.

To import google-cloud-compute 1.57.0 took 1.6 s and 113 MiB on an idle machine with two cores, and up to 6.6
s on a busy one (November 2026); it is the same for one of its clients as for all. google-auth with our own
HTTP client took a sixth of that. So listings, looks at one instance and the waits for operations never load
it, and neither does ``terminate`` of what is not there.

Each change carries a ``requestId``, by which Google knows a repeated one for the same for an hour at least:
https://docs.cloud.google.com/compute/docs/reference/rest/v1/instances/insert (as of 2026-11-21). That is why
the SDK may try it again, with growing and jittered waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from gpucloud.calls import heard, sending
from gpucloud.errors import BadReply, ConfigError, ProviderError, RateLimited, Unreachable
from gpucloud_gcp.auth import Identity, refused
from gpucloud_gcp.errors import Fault, translate

if TYPE_CHECKING:
    from requests import PreparedRequest

REQUEST_S: Final = 30
"""How long one request may take."""

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 5.0


def request_id(token: str) -> UUID:
    """What Google knows a launch by; the same for the same token."""
    return uuid5(NAMESPACE_URL, f"gpucloud:{token}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is: in a zone, in a region, or with neither for the whole project."""

    zone: str = ""
    region: str = ""

    @property
    def names(self) -> dict[str, str]:
        """What there is of it, as requests name it."""
        return {key: name for key, name in (("zone", self.zone), ("region", self.region)) if name}


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of one project. ``patience_s`` bounds each one with all its retries."""

    provider: str
    who: Identity
    url: str
    patience_s: float

    def insert(
        self, kind: str, what: str, body: Mapping[str, Any], place: Place, request: UUID | None = None
    ) -> str:
        """Make something from its body in the words of REST, and return the name of the operation.

        ``kind`` is the SDK's name of the collection, such as ``Instances``, and ``what`` of one in it.

        Raises what ``translate`` makes of Google's refusal, with ``outcome_unknown`` where it may be there.
        """
        message = getattr(_library(self.provider), what).from_json(json.dumps(body))
        return self._do(kind, "insert", {f"{_snake(what)}_resource": message, **place.names}, request)

    def act(self, kind: str, what: str, verb: str, name: str, place: Place, **more: Any) -> str:
        """Do something with what there is, such as delete it; otherwise as ``insert``."""
        return self._do(kind, verb, {_snake(what): name, **place.names, **more}, None)

    def _do(self, kind: str, verb: str, request: dict[str, Any], known_as: UUID | None) -> str:
        library = _library(self.provider)
        from google.api_core.retry import Retry

        told = {"project": self.who.project, "request_id": str(known_as or uuid4()), **request}
        retry = Retry(
            predicate=_passing,
            initial=FIRST_WAIT_S,
            maximum=LONGEST_WAIT_S,
            timeout=self.patience_s,
        )
        with self._translated():
            client_class = getattr(library, f"{kind}Client")
            options = {"api_endpoint": self.url}
            with client_class(credentials=self.who.credentials, client_options=options) as client:
                if heard():
                    client.transport._session.auth = _tell_of
                change = getattr(client, f"{verb}_unary")
                return str(change(request=told, retry=retry, timeout=REQUEST_S).name)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPICallError, RetryError
        from google.auth.exceptions import GoogleAuthError
        from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
        from requests import RequestException

        try:
            yield
        except RetryError as error:
            cause = error.cause
            raise (
                self._error(cause) if isinstance(cause, GoogleAPICallError) else self._lost(cause or error)
            ) from error
        except GoogleAPICallError as error:
            raise self._error(error) from error
        except RequestException as error:
            raise self._lost(error) from error
        except GoogleAuthError as error:
            raise refused(self.provider, error) from error
        except (ParseError, ValueError) as error:
            text = f"{self.provider} sent a reply that cannot be read"
            raise BadReply(text, provider=self.provider, why=str(error), outcome_unknown=True) from error

    def _error(self, error: Any) -> ProviderError:
        return translate(Fault(_reason(error), error.message, int(error.code or 0)), self.who.project)

    def _lost(self, error: BaseException) -> ProviderError:
        return Unreachable(
            f"{self.provider} does not answer",
            provider=self.provider,
            why=type(error).__name__,
            hint="try again later",
            outcome_unknown=True,
        )


def _tell_of(request: PreparedRequest) -> PreparedRequest:
    """What a session asks to add credentials, when all else is there; these are there too."""
    body = request.body if isinstance(request.body, str | bytes) else None
    sending(str(request.method), str(request.url), request.headers, body, changes=True)
    return request


def _library(provider: str) -> Any:
    try:
        from google.cloud import compute_v1
    except ImportError as error:
        raise ConfigError(
            f"{provider} needs google-cloud-compute", why=str(error), hint="pip install 'gpucloud[gcp]'"
        ) from error
    return compute_v1


def _passing(error: BaseException) -> bool:
    """Whether a change may be tried again a moment later."""
    from google.api_core.exceptions import GoogleAPICallError
    from requests import ConnectionError as Disconnected
    from requests import Timeout
    from requests.exceptions import ChunkedEncodingError

    if isinstance(error, GoogleAPICallError):
        meant = translate(Fault(_reason(error), "", int(error.code or 0)), "")
        # A network that another process is just making is there, and cannot be used yet.
        return isinstance(meant, RateLimited | Unreachable) or _reason(error) == "resourceNotReady"
    return isinstance(error, Disconnected | Timeout | ChunkedEncodingError)


def _reason(error: Any) -> str:
    """Google's one word for a refusal."""
    told = (each.get("reason", "") for each in error.errors if isinstance(each, dict))
    return next((word for word in told if word), error.reason or "")


def _snake(what: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", what).lower()
