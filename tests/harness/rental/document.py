"""A vendor's own OpenAPI document as the judge of every request to its fake and of every reply of that.

openapi-core does it within the process: a document of 3 MB is ready in a second and a call is judged in some
3 ms. Prism would be a process of node's for each test, with a port and a start of several seconds, and takes
what a document does not name. Documents of Swagger 2 are put into the words of OpenAPI 3 first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest
from openapi_core import Config, OpenAPI
from openapi_core.contrib.werkzeug import WerkzeugOpenAPIRequest, WerkzeugOpenAPIResponse
from openapi_core.exceptions import OpenAPIError
from ruamel.yaml import YAML
from werkzeug import Request, Response
from werkzeug.datastructures import Headers

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ROOT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = Path(os.environ.get("GPUCLOUD_SPECS") or ROOT.parent / "shared" / "specs")
"""Where the vendors' documents are; they may not be copied into this repository."""

UNTOLD: Final = frozenset({402, 403, 429})
"""Refusals, beside failures of the server, that a vendor may make without its document saying so."""

METHODS: Final = ("get", "put", "post", "delete", "patch", "head", "options")


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where the vendor is known to do otherwise than its document says.

    ``call`` is a pattern for ``POST /v2/pods``, ``fault`` one for what is found wrong, and ``source`` says
    who has seen it.
    """

    call: str
    fault: str
    source: str

    def excuses(self, call: str, fault: str) -> bool:
        """Whether this is about that."""
        return bool(re.fullmatch(self.call, call) and re.search(self.fault, fault))


class _Call(WerkzeugOpenAPIRequest):
    """A request as if it had been sent to the vendor itself."""

    def __init__(self, request: Request, origin: str, prefix: str, slashes: bool) -> None:
        super().__init__(request)
        # WSGI does not tell an underscore in the name of a header from a hyphen.
        header = Headers(request.headers)
        for name, value in request.headers.items():
            header.setdefault(name.replace("-", "_"), value)
        self.parameters.header = header
        self._origin = origin
        self._slashes = slashes
        self._prefix = prefix

    @property
    def host_url(self) -> str:
        """Where the document says that the vendor is."""
        return self._origin

    @property
    def path(self) -> str:
        """As it was sent, with what the vendor has before the paths of its document.

        Without the slash at its end that a document leaves out and its vendor wants.
        """
        path = sent_path(self.request.environ)
        if not path.startswith(f"{self._prefix}/"):
            path = f"{self._prefix}{path}"
        return path if self._slashes else path.rstrip("/")


def sent_path(environ: WSGIEnvironment) -> str:
    """The path of a request as it was sent, in which a slash that belongs to a name is quoted."""
    return str(urlsplit(environ["REQUEST_URI"]).path)


class Document:
    """One document. ``strict`` also minds fields that it does not name, where its schemas bear that."""

    def __init__(self, content: dict[str, Any], *, base: str, strict: bool) -> None:
        content = _as_openapi_3(content) if "swagger" in content else dict(content)
        content["openapi"] = str(content["openapi"]).replace("3.2.", "3.1.")
        content["servers"] = [{"url": base}]
        self._origin = "{0.scheme}://{0.netloc}".format(urlsplit(base))
        self._slashes = any(path.endswith("/") for path in content["paths"])
        self._prefix = urlsplit(base).path.rstrip("/")
        config = Config(
            spec_validator_cls=None,
            additional_properties_default_policy="forbid" if strict else "allow",
            extra_media_type_deserializers={"application/problem+json": json.loads},
        )
        self._api = OpenAPI.from_dict(content, config=config)

    def faults(self, request: Request, response: Response) -> Iterator[str]:
        """What is wrong with a call, first with what was asked; a refused question may be wrong."""
        call = _Call(request, self._origin, self._prefix, self._slashes)
        answer = WerkzeugOpenAPIResponse(response)
        if response.status_code not in {400, 401, 403, 404, 409, 422}:
            yield from _raised(lambda: self._api.validate_request(call))
        untold = response.status_code in UNTOLD or response.status_code >= 500
        for fault in _raised(lambda: self._api.validate_response(call, answer)):
            if not (untold and "Unknown response http status" in fault):
                yield fault


def _raised(check: Any) -> Iterator[str]:
    try:
        check()
    except OpenAPIError as error:
        # What is wrong comes first: the value that it is wrong with, of which texts begin, may be long.
        reasons, texts, cause = [], [str(error)], error.__cause__
        while cause is not None:
            inner = getattr(cause, "schema_errors", None)
            reasons += [f"{list(e.absolute_path)}: {e.message}" for e in inner or ()]
            texts.append(str(cause))
            cause = cause.__cause__
        yield "; ".join([*reasons, *texts])[:1500]


@cache
def document(name: str, base: str, strict: bool) -> Document | None:
    """The document of that file name; ``None`` where it is not at hand."""
    file = FOLDER / name
    if not file.is_file():
        return None
    text = file.read_text()
    content = json.loads(text) if file.suffix == ".json" else YAML(typ="safe").load(text)
    return Document(content, base=base, strict=strict)


def needs_documents() -> None:
    """Skip the running test where the vendors' documents are not at hand."""
    if not FOLDER.is_dir():
        pytest.skip("GPUCLOUD_SPECS names no folder with the vendors' API documents")


def _as_openapi_3(swagger: Mapping[str, Any]) -> dict[str, Any]:
    """What a document of Swagger 2 says of calls, in the words of OpenAPI 3."""
    text = json.dumps(swagger).replace('"#/definitions/', '"#/components/schemas/')
    told = json.loads(text)
    paths = {path: _path(item) for path, item in told["paths"].items()}
    return {
        "openapi": "3.0.3",
        "info": told["info"],
        "paths": paths,
        "components": {"schemas": told.get("definitions", {})},
    }


def _path(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _operation(value) if key in METHODS else value for key, value in item.items()}


def _operation(told: Mapping[str, Any]) -> dict[str, Any]:
    parameters = told.get("parameters", [])
    operation: dict[str, Any] = {
        "parameters": [_parameter(one) for one in parameters if one["in"] not in {"body", "formData"}],
        "responses": {status: _response(one) for status, one in told["responses"].items()},
    }
    for body in (one for one in parameters if one["in"] == "body"):
        content = {"application/json": {"schema": body["schema"]}}
        operation["requestBody"] = {"content": content, "required": body.get("required", False)}
    return operation


def _parameter(told: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: told[key] for key in ("name", "in", "required") if key in told}
    return {**kept, "schema": {key: told[key] for key in ("type", "items", "enum", "format") if key in told}}


def _response(told: Mapping[str, Any]) -> dict[str, Any]:
    content = {"content": {"application/json": {"schema": told["schema"]}}} if "schema" in told else {}
    return {"description": told.get("description", ""), **content}
