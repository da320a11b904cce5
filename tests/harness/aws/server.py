"""The cloud of the tests behind a port: one WSGI application for all services and regions."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.harness.aws.actions import OURS, Refused
from tests.harness.aws.cloud import KEY, Asked, Cloud, Refusal
from tests.harness.aws.wire import SERVICES, Malformed, parse, refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SCOPE: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/[0-9]{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request"
)
ADVISOR: Final = "/spot-advisor-data.json"
THROTTLED: Final = {
    "ec2": Refusal(503, "RequestLimitExceeded", "Request limit exceeded."),
    "json": Refusal(400, "ThrottlingException", "Rate exceeded"),
}
NOT_ALLOWED: Final = {"ec2": (403, "UnauthorizedOperation"), "json": (400, "AccessDeniedException")}
NOT_KNOWN: Final = (401, "AuthFailure", "AWS was not able to validate the provided access credentials")


class Application:
    """The whole cloud as WSGI, so that something that breaks it can be put around it."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        answer = self._answer(Request(dict(environ, **{"wsgi.input": io.BytesIO(body)})), environ)
        return answer(environ, start_response)

    def _answer(self, request: Request, environ: WSGIEnvironment) -> Response:
        if request.path == ADVISOR:
            return Response(json.dumps(self._advisor()), content_type="application/json")
        scope = SCOPE.match(request.headers.get("Authorization", ""))
        if scope is None:
            return refusal("ec2", *NOT_KNOWN)
        key, region, service = scope.groups()
        if key != KEY or service not in SERVICES:
            return refusal(service, *NOT_KNOWN)
        with self.cloud.lock:
            try:
                action, words = parse(service, request)
                self.cloud.asked.append(Asked(action, region, words))
                self._refuse(service, action, region)
                ours = OURS.get(action)
                answer = ours(self.cloud, region, words) if ours else None
                return answer or Response.from_app(self._moto, environ)
            except Refused as refused:
                told = refused.refusal
                return refusal(service, told.status, told.code, told.text)
            except Malformed as error:
                return refusal(service, 400, "MalformedByTheTest", str(error))

    def _refuse(self, service: str, action: str, region: str) -> None:
        kind = "ec2" if service == "ec2" else "json"
        if {(f"{service}:{action}", None), (f"{service}:{action}", region)} & self.cloud.forbidden:
            status, code = NOT_ALLOWED[kind]
            raise Refused(status, code, f"You are not authorized to perform: {service}:{action}")
        if self.cloud.throttled.get(action, 0) > 0:
            self.cloud.throttled[action] -= 1
            told = THROTTLED[kind]
            raise Refused(told.status, told.code, told.text)
        if waiting := self.cloud.refusals.get(action):
            told = waiting.pop(0)
            raise Refused(told.status, told.code, told.text)

    def _advisor(self) -> dict[str, Any]:
        regions: dict[str, Any] = {}
        for (name, region), band in self.cloud.bands.items():
            regions.setdefault(region, {"Linux": {}})["Linux"][name] = {"s": 60, "r": band}
        labels = ("<5%", "5-10%", "10-15%", "15-20%", ">20%")
        ranges = [
            {"index": index, "label": label, "dots": index, "max": 5} for index, label in enumerate(labels)
        ]
        return {"ranges": ranges, "spot_advisor": regions}


@dataclass(frozen=True)
class Served:
    """A cloud, and where it answers."""

    url: str
    cloud: Cloud


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Say nothing on stderr."""


@contextmanager
def serving(cloud: Cloud | None = None, around: Any = None) -> Iterator[Served]:
    """A cloud behind a port of loopback; ``around`` makes another WSGI application of its own."""
    cloud = cloud or Cloud()
    application: WSGIApplication = Application(cloud)
    if around is not None:
        application = around(application)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{server.server_port}", cloud)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
