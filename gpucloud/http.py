"""The one HTTP client that adapters use: timeouts, pacing, retried reads, status to error, redaction.

Only reads are retried. A write that fails says in ``outcome_unknown`` whether it may have taken effect; it is
settled by listing for the token, never by sending it again. httpx and tenacity are imported at the first use.
"""

from __future__ import annotations

import json as jsonlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from gpucloud import __version__, errors
from gpucloud.calls import sending
from gpucloud.model import utcnow
from gpucloud.redact import hide, scrub

if TYPE_CHECKING:
    import ssl

    import httpx
    from tenacity import RetryCallState

log = logging.getLogger(__name__)
T = TypeVar("T")
Sleep = Callable[[float], None]
Clock = Callable[[], float]
Tell = Callable[[int, int | None], None]
"""Told how many bytes of how many, if that is known, have been read."""
_Params = Mapping[str, Any] | None
_Headers = Mapping[str, str] | None


_patience_ends: ContextVar[float] = ContextVar("patience", default=float("inf"))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """In this thread, inside, no request lasts longer with all its retries; what it failed by is raised.

    Whoever waits no longer than that then learns the reason, and not only that it took too long.
    """
    token = _patience_ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _patience_ends.reset(token)


def untold(read: int, total: int | None) -> None:
    """Nobody wants to know how far a read has come."""


MAX_REPLY_BYTES: Final = 64 * 2**20
UNCHANGED: Final = 304
VENDOR_TEXT_LENGTH: Final = 500
LONGEST_RESET_S: Final = 10**9
"""What is more than this is no number of seconds to wait, but of those since 1970."""

LOGGED_BODY_LENGTH: Final = 2048
# 520 to 524 come from Cloudflare when it cannot reach the provider's own server.
_PASSING: Final = frozenset({429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_DEBUG: Final = "run it again with --debug to see request and reply"
# By status, else by its first digit; 0 is no reply, -1 is what cannot be sent.
_MEANINGS: Final[dict[int, tuple[type[errors.ProviderError], str, str]]] = {
    0: (errors.Unreachable, "{} does not answer", "try again later"),
    -1: (errors.AuthError, "address or credentials of {} are malformed", "copy them again without line ends"),
    2: (errors.BadReply, "{} sent a reply that cannot be read", _DEBUG),
    4: (errors.Rejected, "{} refused the request", _DEBUG),
    5: (errors.Unreachable, "{} failed on its side", "try again later"),
    401: (errors.AuthError, "{} refused the credentials", "gpucloud login {}"),
    402: (errors.BalanceExhausted, "the account at {} has no money left", "add funds, then run it again"),
    403: (errors.AuthError, "{} does not allow this with these credentials", "gpucloud login {}"),
    404: (errors.NotFound, "{} knows no such thing", "gpucloud ps"),
    429: (errors.RateLimited, "{} was asked too often", "run it again in a minute"),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is read as it comes. ``chunks`` raise like the read itself."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


@dataclass(eq=False, repr=False)
class HttpClient:
    """JSON over HTTP with one provider; safe to share between threads. Constructing it does no I/O.

    ``headers`` carry the credentials. Requests start ``min_interval_s`` or more apart; ``deadline_s`` bounds
    one with all its retries. ``classify`` is shown the status and the body (decoded JSON, else text, None
    when empty) of every reply, 2xx too because some vendors report failures with 200; what it returns is
    raised, None leaves the reply to the general mapping. ``sign`` makes the headers that prove who asks, anew
    for each request, from its method and its whole address.

    Requests raise ``AuthError`` (401, 403), ``BalanceExhausted`` (402), ``NotFound`` (404), ``RateLimited``
    (429), ``Rejected`` (other 4xx), ``Unreachable`` (5xx, no connection, timeouts), ``BadReply`` (not JSON,
    too large, a redirect) or ``ConfigError`` (proxy or certificate settings).
    """

    provider: str
    base_url: str
    _: KW_ONLY
    headers: Mapping[str, str] = field(default_factory=dict)
    transport: httpx.BaseTransport | None = None
    min_interval_s: float = 0
    classify: Callable[[int, Any], errors.ProviderError | None] | None = None
    sign: Callable[[str, str], Mapping[str, str]] | None = None
    connect_s: float = 5
    read_s: float = 30
    deadline_s: float = 60
    sleep: Sleep = time.sleep
    clock: Clock = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _client: httpx.Client | None = field(default=None, init=False)
    _next_start: float = field(default=float("-inf"), init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def get(self, path: str, *, params: _Params = None) -> Any:
        """Read, with retries; returns decoded JSON, or None for an empty body."""
        return self._again("GET", path, None, params, None, untold)[0]

    def get_once(self, path: str) -> Any:
        """Like ``post``, for what a vendor wants to be told by GET although it changes something."""
        return self._write("GET", path, None, None, None)

    def query(self, path: str, *, json: Any, params: _Params = None, tell: Tell = untold) -> Any:
        """Like ``get``, for what a vendor wants to be asked by POST: only what changes nothing."""
        return self._again("POST", path, json, params, None, tell)[0]

    def get_edition(
        self, path: str, *, params: _Params = None, validator: str | None = None, tell: Tell = untold
    ) -> tuple[Any, str | None] | None:
        """Like ``get``, with what tells this edition from the next; None if it is that of ``validator``."""
        body, reply = self._again("GET", path, None, params, if_changed(validator), tell)
        return None if reply.status_code == UNCHANGED else (body, validator_of(reply.headers))

    @contextmanager
    def open(self, path: str, *, params: _Params = None, headers: _Headers = None) -> Iterator[Reply]:
        """Read something large, inside: like ``get``, but anything, and "unchanged", is taken as it comes.

        Each chunk must come within ``read_s``; only until the first one a read is tried again.
        """
        with ExitStack() as stack:
            opened = partial(self._opened_reply, stack, path, params, headers)
            yield retry_reads(opened, deadline_s=self._longest_s, sleep=self.sleep, clock=self.clock)

    def post(self, path: str, *, json: Any = None, params: _Params = None, headers: _Headers = None) -> Any:
        """Send once and never again; returns decoded JSON, or None for an empty body."""
        return self._write("POST", path, json, params, headers)

    def post_for_text(self, path: str, *, json: Any) -> Any:
        """Like ``post``, where a vendor answers with bare text: what is not JSON is returned as it is."""
        until = self.clock() + self._longest_s
        return self._send("POST", path, json, None, None, until, changes=True, plain=True)[0]

    def put(self, path: str, *, json: Any = None, params: _Params = None, headers: _Headers = None) -> Any:
        """Like ``post``."""
        return self._write("PUT", path, json, params, headers)

    def patch(self, path: str, *, json: Any = None, params: _Params = None, headers: _Headers = None) -> Any:
        """Like ``post``."""
        return self._write("PATCH", path, json, params, headers)

    def delete(self, path: str, *, json: Any = None, params: _Params = None, headers: _Headers = None) -> Any:
        """Like ``post``."""
        return self._write("DELETE", path, json, params, headers)

    def _again(
        self, method: str, path: str, json: Any, params: _Params, more: _Headers, tell: Tell
    ) -> tuple[Any, httpx.Response]:
        until = self.clock() + self._longest_s
        read = partial(self._send, method, path, json, params, more, until, tell)
        return retry_reads(read, deadline_s=self._longest_s, sleep=self.sleep, clock=self.clock)

    def _write(self, method: str, path: str, json: Any, params: _Params, more: _Headers) -> Any:
        until = self.clock() + self._longest_s
        return self._send(method, path, json, params, more, until, changes=True)[0]

    def _send(
        self,
        method: str,
        path: str,
        json: Any,
        params: _Params,
        more: _Headers,
        until: float,
        tell: Tell = untold,
        *,
        changes: bool = False,
        plain: bool = False,
    ) -> tuple[Any, httpx.Response]:
        began = self.clock()
        with self._exchange(method, path, json, params, more, until, changes=changes) as reply:
            content = self._read(reply, until, tell)
        try:
            body, decoded = jsonlib.loads(content) if content.strip() else None, True
        except (ValueError, RecursionError):
            body, decoded = content.decode("utf-8", "replace"), plain
        _trace(reply.request, json, reply, body if decoded else "not JSON", self.clock() - began)
        return self._judge(_what(method, path), reply, body, decoded), reply

    def _opened_reply(self, stack: ExitStack, path: str, params: _Params, headers: _Headers) -> Reply:
        until = self.clock() + self._longest_s
        with ExitStack() as own:
            reply = own.enter_context(self._exchange("GET", path, None, params, headers, until))
            if not reply.is_success and reply.status_code != UNCHANGED:
                text = self._read(reply, until, untold).decode("utf-8", "replace")
                self._judge(_what("GET", path), reply, text, decoded=False)
            stack.push(own.pop_all())
        return Reply(reply.status_code, reply.headers, self._raw(reply, _what("GET", path)))

    def _raw(self, reply: httpx.Response, what: str) -> Iterator[bytes]:
        with self._translated("GET", what, None):
            yield from reply.iter_raw()

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        json: Any,
        params: _Params,
        more: _Headers,
        until: float,
        *,
        changes: bool = False,
    ) -> Iterator[httpx.Response]:
        """One request and its reply, whose body is still to be read."""
        import httpx

        http = self._opened()
        self._pace(until)
        left = max(until - self.clock(), 0.001)
        limit = httpx.Timeout(min(self.read_s, left), connect=min(self.connect_s, left))
        # Glued, not joined: a whole URL found in a reply must not take the credentials to another host.
        url = f"{self.base_url.rstrip('/')}/{path.lstrip('/')}"
        headers = {"User-Agent": f"gpucloud/{__version__}", **self.headers, **(more or {})}
        with self._translated(method, _what(method, path), json):
            if self.sign:
                headers |= self.sign(method, str(httpx.URL(url).copy_merge_params(params or {})))
            request = http.build_request(
                method, url, params=params, json=json, headers=headers, timeout=limit
            )
            sending(method, str(request.url), request.headers, request.content, changes=changes)
            with closing(http.send(request, stream=True)) as reply:
                yield reply

    @contextmanager
    def _translated(self, method: str, what: str, json: Any) -> Iterator[None]:
        """What breaks on the way to the provider or back, as an error of ours."""
        import httpx

        began = self.clock()
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, UnicodeError) as error:
            raise self._error(-1, f"{what}: {type(error).__name__}") from None  # Its text can show a header.
        except httpx.RequestError as error:
            reason = scrub(str(error) or type(error).__name__, _carried(error.request))
            _trace(error.request, json, None, reason, self.clock() - began)
            lost = self._error(2 if isinstance(error, httpx.DecodingError) else 0, f"{what}: {reason}")
            unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
            lost.outcome_unknown = method != "GET" and not isinstance(error, unsent)
            raise lost from error

    @property
    def _longest_s(self) -> float:
        return min(self.deadline_s, max(_patience_ends.get() - time.monotonic(), 0.001))

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                for name in ("httpx", "httpcore"):  # They log whole URLs and headers, secrets included.
                    logging.getLogger(name).setLevel(logging.WARNING)
                try:
                    files = (os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
                    self._client = httpx.Client(transport=self.transport, verify=_tls(*files))
                except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
                    hint = "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
                    raise errors.ConfigError("HTTP cannot be set up", why=str(error), hint=hint) from error
            return self._client

    def _pace(self, until: float) -> None:
        with self._lock:
            now = self.clock()
            wait = max(0.0, self._next_start - now)
            if now + wait > until:
                text, hint = f"too many requests to {self.provider} are waiting already", "try again later"
                raise errors.RateLimited(text, provider=self.provider, retry_after=wait, hint=hint)
            self._next_start = now + wait + self.min_interval_s
        if wait:
            self.sleep(wait)

    def _read(self, reply: httpx.Response, until: float, tell: Tell) -> bytes:
        import httpx

        content = bytearray()
        for chunk in reply.iter_bytes():
            content += chunk
            tell(reply.num_bytes_downloaded, length_of(reply.headers))
            if len(content) > MAX_REPLY_BYTES:
                raise httpx.DecodingError(f"more than {MAX_REPLY_BYTES} bytes", request=reply.request)
            if self.clock() > until:
                raise httpx.ReadTimeout("the reply did not end in time", request=reply.request)
        return bytes(content)

    def _error(self, meaning: int, why: str) -> errors.ProviderError:
        kind, message, hint = _MEANINGS[meaning]
        told = message.format(self.provider), hint.format(self.provider)
        error = kind(told[0], provider=self.provider, hint=told[1])
        error.why = why
        return error

    def _judge(self, what: str, reply: httpx.Response, body: Any, decoded: bool) -> Any:
        status = reply.status_code
        error = self.classify(status, body) if self.classify else None
        asked_for_changes = {"if-none-match", "if-modified-since"} & set(reply.request.headers)
        if error is None and (asked_for_changes if status == UNCHANGED else decoded and reply.is_success):
            return body
        words = vendor_words(body)
        code, text = (
            " ".join(scrub(word, _carried(reply.request)).split())[:VENDOR_TEXT_LENGTH] for word in words
        )
        why = f"{what} answered {status}" + (f": {text}" if text else "")
        if error is None:
            error = self._error(next((m for m in (status, status // 100) if m in _MEANINGS), 2), why)
            error.retryable = error.retryable and status in _PASSING
        error.why = error.why or why
        error.vendor_code = error.vendor_code or code
        error.vendor_text = error.vendor_text or text
        if isinstance(error, errors.RateLimited | errors.Unreachable) and error.retry_after is None:
            error.retry_after = _retry_after(reply.headers)
        if isinstance(error, errors.Unreachable | errors.BadReply):
            error.outcome_unknown |= not (what.startswith("GET ") or reply.is_client_error)
        raise error


def retry_reads(
    call: Callable[[], T], *, deadline_s: float = 60, sleep: Sleep = time.sleep, clock: Clock = time.monotonic
) -> T:
    """Call again while it raises ``RateLimited`` or ``Unreachable``; at the deadline raise the last error.

    Waits grow, are jittered, last ``retry_after`` at least and end before the deadline. For reads only.
    """
    from tenacity import Retrying, retry_if_exception, wait_exponential, wait_random

    began, kinds = clock(), (errors.RateLimited, errors.Unreachable)
    backoff = wait_exponential(multiplier=0.5, max=10) + wait_random(0, 0.5)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(backoff(state), getattr(error, "retry_after", None) or 0)

    def late(state: RetryCallState) -> bool:
        return clock() - began + state.upcoming_sleep >= deadline_s

    passing = retry_if_exception(lambda error: isinstance(error, kinds) and error.retryable)
    return Retrying(retry=passing, wait=wait, stop=late, sleep=sleep, reraise=True)(call)


@cache
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:
    """One context for all providers: reading the certificates takes longer than a request."""
    import httpx

    return httpx.create_ssl_context()


def if_changed(validator: str | None) -> dict[str, str]:
    """Headers of a read that wants only another edition; a validator is a quoted ETag or a date."""
    if validator is None:
        return {}
    return {"If-None-Match" if '"' in validator else "If-Modified-Since": validator}


def validator_of(headers: Mapping[str, str]) -> str | None:
    """What tells the edition that was read from others, if the provider says so."""
    return headers.get("ETag") or headers.get("Last-Modified")


def length_of(headers: Mapping[str, str]) -> int | None:
    """How many bytes a reply has, if the provider says so."""
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    from email.utils import parsedate_to_datetime

    # Some say it in a header of their own, which ends in the same words.
    own = (value for name, value in headers.items() if name.lower().endswith("-retry-after"))
    text = (headers.get("Retry-After") or next(own, "")).strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    reset = headers.get("RateLimit-Reset") or headers.get("X-RateLimit-Reset") or ""
    try:
        # By the provider's own clock when it shows it: ours may be wrong.
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else utcnow()
        if not text and re.fullmatch("[0-9]{1,12}", reset):
            # Some tell the moment, and others how long it is until then.
            until = float(reset) - (now.timestamp() if float(reset) > LONGEST_RESET_S else 0)
            return max(0.0, until)
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _what(method: str, path: str) -> str:
    return f"{method} /{path.lstrip('/').partition('?')[0]}"


def vendor_words(body: Any, depth: int = 20) -> tuple[str, str]:
    """The vendor's own code and text, from where bodies of errors commonly have them; else empty."""
    if isinstance(body, str):
        return "", "" if body.lstrip().startswith("<") else body
    if isinstance(body, list) and body and depth:
        return vendor_words(body[0], depth - 1)
    if not isinstance(body, dict) or not depth:
        return "", ""
    names = "code" if "code" in body else "error_code", "error"
    code, error = (body[n] if isinstance(body.get(n), str | int) else "" for n in names)
    for name in ("message", "msg", "error_description", "detail", "error", "errors", "details"):
        inner, text = vendor_words(body.get(name), depth - 1)
        if text:
            return inner or str(code or ("" if error == text else error)), text
    return str(code), ""


def _carried(request: httpx.Request) -> list[tuple[str, str]]:
    """The headers and query parameters of a request, as name and value."""
    return [*request.headers.items(), *request.url.params.multi_items()]


def _trace(request: httpx.Request, sent: Any, reply: httpx.Response | None, got: Any, took_s: float) -> None:
    if not log.isEnabledFor(logging.DEBUG):
        return
    url = request.url.copy_with(userinfo=b"", params=hide(dict(request.url.params)))
    status, headers = (reply.status_code, dict(reply.headers)) if reply else ("failed", {})
    line = f"{request.method} {url} {status} {took_s * 1000:.0f} ms"
    with suppress(RecursionError):
        for part in (dict(request.headers), sent, headers, got):
            shown = jsonlib.loads(jsonlib.dumps(part, default=str), object_hook=hide)
            line += " " + scrub(jsonlib.dumps(shown), _carried(request))[:LOGGED_BODY_LENGTH]
    log.debug("%s", line)
