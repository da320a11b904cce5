"""Faults between a client and any vendor's fake: a layer of WSGI around it, which knows only its verbs."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tests.harness.acme.faults import Fault, Trouble, Verb

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DONE: Final = frozenset({Trouble.LOST_REPLY, Trouble.ERROR_BUT_DONE, Trouble.TIMEOUT, Trouble.TRUNCATED})
"""What goes wrong only after the vendor has done what it was asked to."""

PREVENTED: Final = {
    Trouble.ERROR: ("500 Internal Server Error", b"internal error"),
    Trouble.HTML: ("502 Bad Gateway", b"<html><body><h1>502 Bad Gateway</h1></body></html>"),
    Trouble.THROTTLED: ("429 Too Many Requests", b"slow down"),
}
"""What is answered instead of asking the vendor."""

GENERIC: Final = (*PREVENTED, *sorted(DONE - {Trouble.TIMEOUT}), Trouble.DROPPED_CONNECTION)
"""The troubles that every vendor can have."""

Called = Callable[[str, Verb | None], None]
"""Told ``before`` and ``after`` of each call, with its verb.

When it raises ``ConnectionAbortedError`` the connection is closed: nothing is done, or no answer is read.
"""


class Faulty:
    """A vendor's WSGI application among faults. ``verb`` tells what a request, with its body, is for."""

    def __init__(self, app: WSGIApplication, verb: Callable[[WSGIEnvironment, bytes], Verb | None]) -> None:
        self._app = app
        self._verb = verb
        self._rules: list[tuple[Fault, Iterator[bool]]] = []
        self._lock = threading.Lock()
        self.struck: list[Fault] = []
        """The faults that have struck, each time that they did."""
        self.called: Called = lambda moment, verb: None

    def strike(self, *faults: Fault) -> None:
        """Let these happen from now on, beside those that are there already."""
        with self._lock:
            self._rules += [(fault, _strikes(fault)) for fault in faults]

    def calm(self) -> None:
        """Let nothing happen any more."""
        with self._lock:
            self._rules.clear()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(content)
        verb = self._verb(environ, content)
        try:
            return self._answer(environ, start, verb)
        except ConnectionAbortedError:
            return _hung_up(environ)

    def _answer(self, environ: WSGIEnvironment, start: StartResponse, verb: Verb | None) -> Iterable[bytes]:
        self.called("before", verb)
        trouble = self._trouble(verb)
        if trouble is Trouble.DROPPED_CONNECTION:
            raise ConnectionAbortedError
        if trouble in PREVENTED:
            status, text = PREVENTED[trouble]
            return _answered(start, status, [("Content-Type", "text/html"), ("Retry-After", "0")], text)
        status, headers, body = _asked(self._app, environ)
        self.called("after", verb)
        if trouble is Trouble.LOST_REPLY:
            raise ConnectionAbortedError
        if trouble is Trouble.ERROR_BUT_DONE:
            return _answered(start, "500 Internal Server Error", [], b"internal error")
        return _answered(start, status, headers, body[: len(body) // 2] if trouble else body)

    def _trouble(self, verb: Verb | None) -> Trouble | None:
        with self._lock:
            struck = [fault for fault, strikes in self._rules if fault.verb is verb and next(strikes)]
            self.struck += struck
            return struck[0].trouble if struck else None


def _strikes(fault: Fault) -> Iterator[bool]:
    yield from [False] * fault.after
    yield from [True] * fault.times
    while True:
        yield False


def _asked(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
    """What the vendor itself answers."""
    told: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
        told[:] = [status, headers]
        return lambda data: None

    body = b"".join(app(environ, start))
    status, headers = told
    return status, headers, body


def _answered(
    start: StartResponse, status: str, headers: list[tuple[str, str]], body: bytes
) -> Iterable[bytes]:
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start(status, [*kept, ("Content-Length", str(len(body)))])
    return [body]


def _hung_up(environ: WSGIEnvironment) -> Iterable[bytes]:
    """The connection closed without an answer, which is no failure of the server's."""
    connection: socket.socket = environ["werkzeug.socket"]
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError
