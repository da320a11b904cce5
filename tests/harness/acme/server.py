"""The vendor acme behind HTTP on loopback: real sockets, real statuses, and the faults that it was given."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from gpucloud.testing.responses import Request
from tests.harness.acme.faults import Fault, Trouble, Verb
from tests.harness.acme.vendor import Refusal, Struck, Vendor

KEY: Final = "acme-key-of-the-tests"
RETRY_AFTER_S: Final = 1
NO_CAPACITY: Final = "This cannot be done now: there is no capacity left."
HTML: Final = "<html><body><h1>502 Bad Gateway</h1></body></html>"

ROUTES: Final = (
    ("GET", "/v1/types", Verb.OFFERS),
    ("GET", "/v1/instances", Verb.LIST),
    ("POST", "/v1/instances", Verb.CREATE),
    ("GET", "/v1/instances/([^/]+)", Verb.GET),
    ("PATCH", "/v1/instances/([^/]+)", Verb.EXPIRE),
    ("DELETE", "/v1/instances/([^/]+)", Verb.TERMINATE),
    ("POST", "/v1/instances/([^/]+)/stop", Verb.STOP),
    ("POST", "/v1/instances/([^/]+)/start", Verb.START),
    ("GET", "/v1/resources", Verb.LIST_RESOURCES),
    ("DELETE", "/v1/resources/([^/]+)", Verb.REMOVE),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as it is sent."""

    status: int
    body: str
    content_type: str = "application/json"
    retry_after: int | None = None


class Server:
    """The server of one vendor. Made by ``serving``."""

    def __init__(self, vendor: Vendor, url: str) -> None:
        self.vendor = vendor
        self.url = url
        self.requests: list[Request] = []
        """Every request that was made; of one whose connection was dropped, without its body."""
        self.struck: list[Fault] = []
        """The faults that have struck, each time that they did."""
        self._rules: list[tuple[Fault, Iterator[bool]]] = []
        self._lock = threading.Lock()

    def strike(self, *faults: Fault) -> None:
        """Let these faults happen from now on, beside those that are there already."""
        with self._lock:
            self._rules += [(fault, _strikes(fault)) for fault in faults]

    def calm(self) -> None:
        """Let no fault happen any more."""
        with self._lock:
            self._rules.clear()

    def made(self, verb: Verb) -> list[Request]:
        """The requests for one verb."""
        return [request for request in self.requests if _routed(request.method, request.path)[0] is verb]

    def troubles(self, verb: Verb | None) -> Struck:
        """What goes wrong with the next request for a verb. Every rule for it counts the request."""
        with self._lock:
            struck = [fault for fault, strikes in self._rules if fault.verb is verb and next(strikes)]
            self.struck += struck
            return {fault.trouble: fault for fault in struck}


def _strikes(fault: Fault) -> Iterator[bool]:
    yield from [False] * fault.after
    yield from [True] * fault.times
    while True:
        yield False


def _routed(method: str, path: str) -> tuple[Verb | None, str]:
    """The verb of a request, and the id of what it is about."""
    for of_method, pattern, verb in ROUTES:
        if of_method == method and (match := re.fullmatch(pattern, path)):
            return verb, match[1] if match.groups() else ""
    return None, ""


class _Http(ThreadingHTTPServer):
    """A port of loopback."""

    # A client that finds the queue full waits a second for nothing.
    request_queue_size = 128

    def __init__(self, vendor: Vendor) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.acme = Server(vendor, f"http://127.0.0.1:{self.server_port}")


class _Handler(BaseHTTPRequestHandler):
    """One connection, which carries one request: none is kept open for tests to close."""

    @property
    def acme(self) -> Server:
        """Whose connection it is."""
        return cast(_Http, self.server).acme

    def _serve(self) -> None:
        address = urlsplit(self.path)
        verb, thing_id = _routed(self.command, address.path)
        struck = self.acme.troubles(verb)
        dropped = Trouble.DROPPED_CONNECTION in struck
        content = b"" if dropped else self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(
            method=self.command,
            path=address.path,
            query=parse_qs(address.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            json=json.loads(content) if content else None,
        )
        self.acme.requests.append(request)
        if dropped:
            return
        answer = self._prevented(verb, struck) or self._done(verb, thing_id, request, struck)
        if Trouble.LOST_REPLY in struck:
            return
        if Trouble.TIMEOUT in struck:
            # Nothing more comes from a client that waits: this ends when it hangs up.
            with suppress(OSError):
                self.connection.recv(1)
            return
        if Trouble.ERROR_BUT_DONE in struck:
            answer = _error(500, "internal error")
        self._send(answer, half=Trouble.TRUNCATED in struck)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names are the library's

    def _prevented(self, verb: Verb | None, struck: Struck) -> Answer | None:
        """The answer to a request of which nothing is done."""
        if Trouble.ERROR in struck:
            return _error(500, "internal error")
        if Trouble.HTML in struck:
            return Answer(502, HTML, "text/html")
        if Trouble.THROTTLED in struck:
            return Answer(429, _told("slow down"), retry_after=RETRY_AFTER_S)
        if Trouble.UNAUTHORIZED in struck or self.headers.get("Authorization") != f"Bearer {KEY}":
            return _error(401, "who are you?")
        if Trouble.REFUSED in struck:
            return _error(400, NO_CAPACITY if verb in {Verb.CREATE, Verb.START} else "not at the moment")
        if Trouble.NOT_FOUND in struck:
            return _error(404, "there is no such thing")
        return None

    def _done(self, verb: Verb | None, thing_id: str, request: Request, struck: Struck) -> Answer:
        if verb is None:
            return _error(404, "there is no such page")
        asked = request.json or {name: values[0] for name, values in request.query.items()}
        try:
            return Answer(200, json.dumps(self.acme.vendor.answer(verb, thing_id, asked, struck)))
        except Refusal as refusal:
            return _error(refusal.status, refusal.text)

    def _send(self, answer: Answer, *, half: bool) -> None:
        content = answer.body.encode()
        if half:
            content = content[: len(content) // 2]
        # Who hung up before is answered nothing.
        with suppress(OSError):
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(content)))
            if answer.retry_after is not None:
                self.send_header("Retry-After", str(answer.retry_after))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing on stderr."""


def _told(text: str) -> str:
    return json.dumps({"error": {"message": text}})


def _error(status: int, text: str) -> Answer:
    return Answer(status, _told(text))


@contextmanager
def serving(vendor: Vendor | None = None) -> Iterator[Server]:
    """A vendor behind a port of loopback, for as long as the context lasts."""
    with _Http(vendor or Vendor()) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield http.acme
        finally:
            http.shutdown()
            thread.join()
