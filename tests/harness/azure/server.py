"""The tests' Azure behind HTTPS on loopback."""

from __future__ import annotations

import functools
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import trustme
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.harness.azure import market
from tests.harness.azure.cloud import GROUP, MACHINE, PLACEMENT, RULE, SPELLINGS, Body, Cloud, Refusal
from tests.harness.azure.schemas import unknown_fields

SUBSCRIPTION: Final = "S"
TENANT: Final = "11111111-2222-3333-4444-555555555555"
CLIENT: Final = "66666666-7777-8888-9999-000000000000"
SECRET: Final = "client-secret-of-the-tests"
TOKEN: Final = "access-token-of-the-tests"
ENVIRON: Final = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": SECRET}
PAGE: Final = 50
AT_ONCE: Final = (GROUP, PLACEMENT)
"""What is made while one waits for the answer."""
POLL_S: Final = 0.01
"""How soon a server notices that it is to end."""

ITEM: Final = re.compile(
    r"/subscriptions/S/resourcegroups/([^/]+)/providers/([^/]+/[^/]+)/([^/]+)(?:/([^/]+))?(?:/([^/]+))?", re.I
)
ALL: Final = re.compile(r"/subscriptions/S/providers/(microsoft\.(?:compute|network)/[a-z]+)", re.I)
OPERATION: Final = re.compile(r"/subscriptions/S/providers/[^/]+/locations/[^/]+/operations/([^/]+)", re.I)
CONDITION: Final = re.compile(r"(?:(contains)\((\w+), '([^']*)'\)|(\w+) eq '([^']*)')(?: and |$)")

Wsgi = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Server:
    """Where it is, and what state it is in; ``prices_url`` is the same without TLS."""

    url: str
    prices_url: str
    cloud: Cloud
    ca_file: Path

    @property
    def environ(self) -> dict[str, str]:
        """The environment of somebody who is signed in here."""
        return {**ENVIRON, "AZURE_AUTHORITY_HOST": self.url, "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION}

    @property
    def table(self) -> dict[str, Any]:
        """The settings by which an adapter finds it."""
        return {
            "arm_url": self.url,
            "catalog_url": self.prices_url,
            "ca_file": str(self.ca_file),
            "instance_discovery": False,
        }


class App:
    """The server as WSGI."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.routes: list[tuple[str, str, Callable[[Request, re.Match[str]], Response]]] = [
            ("GET", r"/api/retail/prices", self._prices),
            ("GET", rf"/{TENANT}/v2.0/.well-known/openid-configuration", self._discovery),
            ("POST", rf"/{TENANT}/oauth2/v2.0/token", self._token),
            ("GET", r"/subscriptions/S/locations", self._locations),
            ("GET", r"/subscriptions/S/providers/Microsoft\.Compute/skus", self._skus),
            ("GET", r"/subscriptions/S/providers/Microsoft\.Compute/locations/([^/]+)/usages", self._usages),
            (
                "GET",
                r"/subscriptions/S/providers/Microsoft\.Compute/locations/[^/]+/(publishers/.+)",
                self._images,
            ),
            (
                "POST",
                r"/subscriptions/S/providers/Microsoft\.Compute/locations/[^/]+/placementScores/spot/generate",
                self._scores,
            ),
            ("POST", r"/providers/Microsoft\.ResourceGraph/resources", self._graph),
            ("GET", r"/subscriptions/S/resources", self._resources),
            ("GET", r"/subscriptions/S/resourcegroups", self._groups),
            ("GET", r"/subscriptions/S/resourcegroups/([^/]+)/resources", self._in_group),
        ]

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        path = unquote(request.path)
        self.cloud.requests.append((request.method, path))
        try:
            self._known(request)
            self.cloud.check(request.method, f"{path}?{request.args.get('$filter', '')}")
            for method, pattern, route in self.routes:
                if method == request.method and (match := re.fullmatch(pattern, path, re.I)):
                    return route(request, match)
            return self._thing(request, path)
        except Refusal as refusal:
            body = {"error": {"code": refusal.code, "message": refusal.message}}
            response = _json(body, refusal.status)
            if refusal.retry_after is not None:
                # Azure's clients know a header for less than a second.
                response.headers["x-ms-retry-after-ms"] = str(int(refusal.retry_after * 1000))
                if refusal.retry_after >= 1:
                    response.headers["Retry-After"] = str(int(refusal.retry_after))
            return response

    def _known(self, request: Request) -> None:
        """Raises unless whoever asks Resource Manager is signed in."""
        if not request.path.startswith(("/subscriptions", "/providers")):
            return
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "InvalidAuthenticationToken", "The access token is invalid.")
        if not request.args.get("api-version"):
            raise Refusal(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        if request.path.startswith("/subscriptions/") and request.path.split("/")[2] != SUBSCRIPTION:
            raise Refusal(404, "SubscriptionNotFound", "The subscription could not be found.")

    # -- one thing ---------------------------------------------------------------------------------

    def _thing(self, request: Request, path: str) -> Response:
        if match := OPERATION.fullmatch(path):
            return _later(_json(self.cloud.operation_status(match[1])))
        if match := re.fullmatch(r"/subscriptions/S/resourcegroups/([^/]+)", path, re.I):
            return self._item(request, f"/subscriptions/S/resourceGroups/{match[1]}", GROUP)
        if match := ALL.fullmatch(path):
            return self._all(request, match[1].lower())
        match = ITEM.fullmatch(path)
        if match is None:
            raise Refusal(404, "InvalidResourceType", f"There is nothing at {path}.")
        group, kind, name, inner, inner_name = match.groups()
        where = f"/subscriptions/S/resourceGroups/{group}/providers/{SPELLINGS[kind.lower()]}/{name}"
        if inner and inner.lower() == "securityrules":
            return self._item(request, f"{where}/securityRules/{inner_name}", RULE)
        if inner and request.method == "POST" and kind.lower() == MACHINE:
            self.cloud.power(where, inner)
            return self._begun(request, _json(None, 202))
        return self._item(request, where, kind.lower())

    def _item(self, request: Request, where: str, kind: str) -> Response:
        if request.method == "PUT":
            edition = request.headers.get("If-Match")
            body, new = self.cloud.put(where, kind, json.loads(request.data), edition)
            response = _json(body, 201 if new else 200)
            return response if kind in AT_ONCE else self._begun(request, response)
        if request.method == "DELETE":
            if not self.cloud.delete(where):
                return Response(status=204)
            return _json(None) if kind == PLACEMENT else self._begun(request, _json(None, 202))
        if request.method == "GET":
            return _json(self.cloud.get(where, expand=request.args.get("$expand") == "instanceView"))
        raise Refusal(405, "MethodNotAllowed", request.method)

    def _begun(self, request: Request, response: Response) -> Response:
        where = f"providers/Microsoft.Compute/locations/all/operations/{self.cloud.operation()}"
        version = request.args["api-version"]
        host = request.host_url.rstrip("/")
        response.headers["Azure-AsyncOperation"] = f"{host}/subscriptions/S/{where}?api-version={version}"
        return _later(response)

    def _all(self, request: Request, kind: str) -> Response:
        return self._paged(request, self.cloud.listing(kind))

    def _paged(self, request: Request, rows: list[Body]) -> Response:
        skip = int(request.args.get("$skiptoken", 0))
        body: Body = {"value": rows[skip : skip + PAGE]}
        if skip + PAGE < len(rows):
            query = f"api-version={request.args['api-version']}&$skiptoken={skip + PAGE}"
            body["nextLink"] = f"{request.base_url}?{query}"
        return _json(body)

    # -- what only is read -------------------------------------------------------------------------

    def _discovery(self, request: Request, _: re.Match[str]) -> Response:
        base = f"{request.host_url}{TENANT}"
        return _json(
            {
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "issuer": f"{base}/v2.0",
            }
        )

    def _token(self, request: Request, _: re.Match[str]) -> Response:
        if (request.form.get("client_id"), request.form.get("client_secret")) != (CLIENT, SECRET):
            body = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret."}
            return _json(body, 401)
        return _json({"token_type": "Bearer", "expires_in": 3600, "access_token": TOKEN})

    def _locations(self, _: Request, __: re.Match[str]) -> Response:
        return _json({"value": [{"name": region, "displayName": region} for region in self.cloud.regions]})

    def _skus(self, request: Request, _: re.Match[str]) -> Response:
        match = re.fullmatch("location eq '([^']+)'", request.args.get("$filter", ""))
        regions = [match[1]] if match else self.cloud.regions
        rows = [row for region in regions for row in self.cloud.skus.get(region, [])]
        self._all_known("sku", rows)
        return self._paged(request, rows)

    def _usages(self, _: Request, match: re.Match[str]) -> Response:
        rows = [market.usage(name, *figures) for name, figures in self.cloud.usages[match[1]].items()]
        self._all_known("usage", rows)
        return _json({"value": rows})

    def _images(self, _: Request, match: re.Match[str]) -> Response:
        if match[1] not in self.cloud.images:
            raise Refusal(404, "NotFound", "Artifact: PublisherImages was not found.")
        rows = [market.image(kind) for kind in self.cloud.images[match[1]]]
        self._all_known("image", rows)
        return _json(rows)

    def _all_known(self, kind: str, rows: list[Body]) -> None:
        # One of them has them all: to look through thousands takes longer than the test.
        for row in rows[:1]:
            self.cloud.violations += unknown_fields(kind, row)

    def _scores(self, request: Request, _: re.Match[str]) -> Response:
        asked = json.loads(request.data)
        if len(asked["desiredSizes"]) > 5 or len(asked["desiredLocations"]) > 8:
            raise Refusal(400, "InvalidParameter", "Too many sizes or locations.")
        found = []
        for size in asked["desiredSizes"]:
            for region in asked["desiredLocations"]:
                score, quota = self.cloud.scores.get((size["sku"], region), ("DataNotFoundOrStale", True))
                row = {"region": region, "sku": size["sku"], "score": score, "isQuotaAvailable": quota}
                found.append(row)
        return _json({**asked, "placementScores": found})

    def _graph(self, request: Request, _: re.Match[str]) -> Response:
        asked = json.loads(request.data)
        sizes, regions = (
            set(re.findall("'([^']+)'", re.search(rf"{field} in~ \(([^)]*)\)", asked["query"])[1]))  # type: ignore[index]
            for field in ("sku.name", "location")
        )
        rows = [
            {"size": size.lower(), "region": region, "rate": rate}
            for (size, region), rate in self.cloud.evictions.items()
            if size in sizes and region in regions
        ]
        skip = int(asked["options"].get("$skipToken", 0))
        more = {"$skipToken": str(skip + 1)} if skip + 1 < len(rows) else {}
        return _json({"totalRecords": len(rows), "count": 1, "data": rows[skip : skip + 1], **more})

    def _resources(self, request: Request, _: re.Match[str]) -> Response:
        return self._paged(request, self.cloud.tagged(*_tag(request), lambda kind: kind != GROUP))

    def _groups(self, request: Request, _: re.Match[str]) -> Response:
        return self._paged(request, self.cloud.tagged(*_tag(request), lambda kind: kind == GROUP))

    def _in_group(self, request: Request, match: re.Match[str]) -> Response:
        return self._paged(request, self.cloud.in_group(match[1]))

    def _prices(self, request: Request, _: re.Match[str]) -> Response:
        conditions = request.args["$filter"]
        rows = [row for rows in self.cloud.prices.values() for row in rows if _meets(row, conditions)]
        skip = int(request.args.get("$skip", 0))
        body: Body = {"BillingCurrency": "USD", "Items": rows[skip : skip + 1000], "NextPageLink": None}
        if skip + 1000 < len(rows):
            body["NextPageLink"] = f"{request.base_url}?$filter={quote(conditions)}&$skip={skip + 1000}"
        return _json(body)


def _meets(row: Mapping[str, Any], conditions: str) -> bool:
    fields = {**row, "priceType": row["type"]}
    return all(
        text in fields[part] if contains else fields[name] == value
        for contains, part, text, name, value in CONDITION.findall(conditions)
    )


def _tag(request: Request) -> tuple[str, str]:
    match = re.fullmatch(r"tagName eq '([^']+)' and tagValue eq '([^']+)'", request.args.get("$filter", ""))
    if match is None:
        raise Refusal(400, "InvalidFilterInQueryString", "The filter is not understood.")
    return match[1], match[2]


def _json(body: Any, status: int = 200) -> Response:
    content = "" if body is None else json.dumps(body)
    return Response(content, status, content_type="application/json")


def _later(response: Response) -> Response:
    response.headers["x-ms-retry-after-ms"] = "1"
    return response


class _Handler(WSGIRequestHandler):
    """Keeps connections open, as Azure does: a handshake for each request would take longer than it."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """What was asked is in ``Cloud.requests``."""


@functools.cache
def _certificates() -> tuple[trustme.CA, trustme.LeafCert]:
    authority = trustme.CA()
    return authority, authority.issue_cert("127.0.0.1")


@contextmanager
def serving(
    folder: Path, cloud: Cloud | None = None, wrap: Callable[[Wsgi], Wsgi] = lambda app: app
) -> Iterator[Server]:
    """A server that is there inside; ``wrap`` puts something around it."""
    state = cloud or Cloud()
    authority, leaf = _certificates()
    ca_file = folder / "azure-ca.pem"
    ca_file.parent.mkdir(parents=True, exist_ok=True)
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    app = wrap(App(state))
    servers = [
        make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler, ssl_context=secured)
        for secured in (context, None)
    ]
    threads = [threading.Thread(target=each.serve_forever, args=(POLL_S,), daemon=True) for each in servers]
    for thread in threads:
        thread.start()
    try:
        secure, plain = (each.server_port for each in servers)
        yield Server(f"https://127.0.0.1:{secure}", f"http://127.0.0.1:{plain}", state, ca_file)
    finally:
        for each in servers:
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join()
