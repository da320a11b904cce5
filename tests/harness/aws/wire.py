"""Requests and replies by botocore's own description of each service, checked both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from xml.sax.saxutils import escape

from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from moto.core.model import ServiceModel
from moto.core.parse import EC2QueryParser, JSONParser, RequestParser
from moto.core.serialize import EC2Serializer, JSONSerializer, XFormedAttributePicker
from moto.core.utils import get_service_model
from moto.ec2.responses import EC2Response
from werkzeug import Request, Response

SERVICES: Final = {"ec2": "ec2", "pricing": "pricing", "servicequotas": "service-quotas", "ssm": "ssm"}
"""botocore's names by those of the signature."""


class Malformed(AssertionError):
    """A request or a reply is not as the service's description has it."""


@cache
def model(service: str) -> ServiceModel:
    """botocore's description of a service."""
    return get_service_model(SERVICES[service])


def parse(service: str, request: Request) -> tuple[str, dict[str, Any]]:
    """The action of a request, and what it says. Raises ``Malformed``."""
    parser: type[RequestParser] = EC2QueryParser if service == "ec2" else JSONParser
    target = request.headers.get("X-Amz-Target", "")
    action = request.form["Action"] if service == "ec2" else target.rpartition(".")[2]
    operation = model(service).operation_model(action)
    words = parser(operation).parse(
        {
            "body": request.get_data(),
            "headers": request.headers,
            "method": request.method,
            "url_params": {},
            "url_path": request.path,
            "values": request.form,
        }
    )
    _check(f"{action} was asked", words, operation.input_shape)
    if service == "ec2":
        _check_parameters(operation, words, request.form)
    return action, words


def reply(service: str, action: str, told: Mapping[str, Any]) -> Response:
    """A reply of ours. Raises ``Malformed``."""
    operation = model(service).operation_model(action)
    _check(f"{action} is answered", told, operation.output_shape)
    kind = EC2Serializer if service == "ec2" else JSONSerializer
    return _sent(kind(operation).serialize(told))


def reply_of_moto(action: str, told: Mapping[str, Any]) -> Response:
    """A reply made of moto's own objects, as moto would write it."""
    picker = XFormedAttributePicker(response_transformers=EC2Response.RESPONSE_KEY_PATH_TO_TRANSFORMER)
    return _sent(EC2Serializer(model("ec2").operation_model(action), value_picker=picker).serialize(told))


def refusal(service: str, status: int, code: str, text: str) -> Response:
    """An error as the service writes it."""
    if service == "ec2":
        error = f"<Error><Code>{escape(code)}</Code><Message>{escape(text)}</Message></Error>"
        body = f"<Response><Errors>{error}</Errors><RequestID>1</RequestID></Response>"
        return Response(body, status, content_type="text/xml;charset=UTF-8")
    body = json.dumps({"__type": code, "message": text})
    return Response(body, status, content_type="application/x-amz-json-1.1")


def _sent(answer: Any) -> Response:
    return Response(answer["body"], answer["status_code"], headers=dict(answer["headers"]))


def _check_parameters(operation: Any, words: Mapping[str, Any], form: Mapping[str, str]) -> None:
    """EC2 refuses a parameter that it does not know, which moto's parser leaves out."""
    told = create_serializer("ec2").serialize_to_request(words, operation)["body"]
    if told.keys() != form.keys():
        raise Malformed(f"{operation.name} was asked with {sorted(form)}, of which {sorted(told)} is known")


def _check(what: str, words: Mapping[str, Any], shape: Any) -> None:
    if shape is None:
        return
    report = ParamValidator().validate(words, shape)
    if report.has_errors():
        raise Malformed(f"{what}: {report.generate_report()}")
