"""Canned HTTP replies for tests of adapters, without a network and without knowing httpx."""

from __future__ import annotations

import json as jsonlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was made.

    ``query`` is name -> values in the order sent, ``headers`` have lower-case names, ``json`` is the decoded
    body, or None when there was none.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    json: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class _Stub:
    status: int
    content: bytes
    headers: Mapping[str, str]
    repeat: bool
    used: bool = field(default=False)


class Responses(httpx.BaseTransport):
    """A transport for ``HttpClient(..., transport=responses)`` that answers from a script.

    Replies to the same method and path are given in the order in which they were added, each once.
    ``requests`` holds every request made, the unexpected ones too.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._stubs: dict[tuple[str, str], list[_Stub]] = {}
        self._unexpected: list[Request] = []
        self._lock = threading.Lock()

    def add(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        status: int = 200,
        text: str = "",
        headers: Mapping[str, str] | None = None,
        repeat: bool = False,
    ) -> None:
        """Answer one request for ``path`` (with the base URL's path, without the query).

        The body is ``json``, or ``text`` when that is None. With ``repeat`` the reply is given to every
        further request too.
        """
        content = text.encode() if json is None else jsonlib.dumps(json).encode()
        stub = _Stub(status, content, headers or {}, repeat)
        self._stubs.setdefault((method, path), []).append(stub)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer ``request``. Raises ``AssertionError`` when no reply is left for it."""
        content = request.read()
        made = Request(
            method=request.method,
            path=request.url.path,
            query=parse_qs(request.url.query.decode(), keep_blank_values=True),
            headers=dict(request.headers),
            json=jsonlib.loads(content) if content else None,
        )
        with self._lock:
            self.requests.append(made)
            stubs = self._stubs.get((made.method, made.path), [])
            stub = next((stub for stub in stubs if stub.repeat or not stub.used), None)
            if stub is None:
                self._unexpected.append(made)
                raise AssertionError(f"no reply is left for {made}")
            stub.used = True
        return httpx.Response(stub.status, content=stub.content, headers=stub.headers)

    def assert_all_used(self) -> None:
        """Raise ``AssertionError`` that names each reply never asked for and each unexpected request."""
        faults = [
            f"never asked for: {method} {path} ({stub.status})"
            for (method, path), stubs in self._stubs.items()
            for stub in stubs
            if not stub.used
        ]
        faults += [f"unexpected: {request}" for request in self._unexpected]
        if faults:
            raise AssertionError("\n".join(faults))
