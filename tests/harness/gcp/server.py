"""The project behind HTTP on loopback, and a door at which tokens are given out."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.harness.gcp.discovery import Call, description
from tests.harness.gcp.project import Project, Refused

TOKEN: Final = "ya29.made-in-a-test"
REFRESH: Final = "1//made-in-a-test"
STATUS: Final = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
Wsgi = Callable[[dict[str, Any], Any], Any]


class _Quiet(WSGIRequestHandler):
    """Connections of which no line is written for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing."""


@dataclass(slots=True)
class Google:
    """The server of one project: a WSGI application. ``violations`` is what Google would not understand.

    ``calls`` are the ids of all methods that were asked for, with what was sent, and ``tokens`` is how many
    tokens were given out.
    """

    project: Project
    url: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    tokens: int = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer one request, as WSGI has it."""
        return self._answer(Request(environ))(environ, start_response)

    def asked(self, method: str) -> list[Any]:
        """What was sent with each request for a method."""
        return [body for name, body in self.calls if name == method]

    def credentials(self, folder: Path) -> Path:
        """The file that ``gcloud auth application-default login`` would have left."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "application_default_credentials.json"
        content = {
            "type": "authorized_user",
            "client_id": "c",
            "client_secret": "s",
            "refresh_token": REFRESH,
            "quota_project_id": self.project.name,
            "token_uri": f"{self.url}/token",
        }
        file.write_text(json.dumps(content))
        return file

    def _answer(self, request: Request) -> Response:
        if request.path == "/token":
            good = request.form.get("refresh_token") == REFRESH
            self.tokens += good
            token = {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}
            return _reply(*((200, token) if good else (400, {"error": "invalid_grant"})))
        body = json.loads(request.data) if request.data else None
        names = ("compute.v1", "cloudbilling.v1")
        query = request.args.to_dict()
        calls = (description(name).call(request.method, request.path, query, body) for name in names)
        call = next(filter(None, calls), None)
        if call is None:
            self.violations.append(f"no method: {request.method} {request.path}")
            return _error(404, "notFound", "no such method")
        self.calls.append((call.id, body))
        if call.faults:
            self.violations += call.faults
            return _error(400, "invalid", "; ".join(call.faults))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(401, "authError", "Request had invalid authentication credentials.")
        return self._done(call, query, body)

    def _done(self, call: Call, query: dict[str, str], body: Any) -> Response:
        try:
            told = self.project.answer(call.id, call.path, query, body)
        except Refused as refusal:
            return _error(refusal.status, refusal.reason, refusal.message)
        of_billing = call.id.startswith("cloudbilling")
        faults = description("cloudbilling.v1" if of_billing else "compute.v1").reply(call, told)
        self.violations += faults
        return _reply(200, told)


def _error(status: int, reason: str, message: str) -> Response:
    told = {"message": message, "domain": "global", "reason": reason}
    fault = {"code": status, "message": message, "errors": [told], "status": STATUS.get(status, "UNKNOWN")}
    return _reply(status, {"error": fault})


def _reply(status: int, body: Any) -> Response:
    return Response(json.dumps(body), status, content_type="application/json; charset=UTF-8")


@contextmanager
def serving(project: Project, around: Callable[[Wsgi], Wsgi] | None = None) -> Iterator[Google]:
    """Serve a project on a port of loopback; ``around`` may put faults between it and its clients.

    Raises ``AssertionError`` at the end when anything was asked or answered that Google would not understand.
    """
    google = Google(project)
    application: Wsgi = around(google) if around else google
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    google.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield google
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not google.violations, google.violations
