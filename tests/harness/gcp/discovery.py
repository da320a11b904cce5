"""What Google says of its own interface: the discovery documents that its client library carries.

Paths, parameters and the bodies of requests and replies are checked by them. Nothing here is written by hand,
so that neither an adapter nor the server under test can agree on something that Google does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
INT64: Final = {"int64", "uint64"}
LIMITS: Final = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the description understands it: the method's id, and what is in its path."""

    id: str
    path: Mapping[str, str]
    faults: tuple[str, ...]
    reply: str | None


class Description:
    """One interface, such as ``compute.v1``."""

    def __init__(self, name: str) -> None:
        document = files("googleapiclient.discovery_cache.documents").joinpath(f"{name}.json")
        self._said: dict[str, Any] = json.loads(document.read_text())
        contents = {
            f"said:{schema}": {"$schema": DIALECT, **_schema(said)}
            for schema, said in self._said["schemas"].items()
        }
        pairs = [(name, Resource.from_contents(content)) for name, content in contents.items()]
        self._registry: Registry[Any] = Registry().with_resources(pairs)
        self._methods = list(_methods(self._said, "/" + self._said["servicePath"]))

    def call(self, verb: str, path: str, query: Mapping[str, str], body: object) -> Call | None:
        """What is asked, and what is wrong with it; ``None`` for what is no method of this interface."""
        for of_verb, pattern, method in self._methods:
            found = pattern.fullmatch(path) if of_verb == verb else None
            if found:
                faults = [*self._parameters(method, found.groupdict(), query)]
                if "request" in method:
                    faults += self._faults(method["request"]["$ref"], {} if body is None else body)
                elif body is not None:
                    faults.append(f"{method['id']} takes no body")
                reply = method.get("response", {}).get("$ref")
                return Call(method["id"], found.groupdict(), tuple(faults), reply)
        return None

    def reply(self, call: Call, body: object) -> list[str]:
        """What is wrong with a reply."""
        return [] if call.reply is None else list(self._faults(call.reply, body))

    def _parameters(
        self, method: Mapping[str, Any], path: Mapping[str, str], query: Mapping[str, str]
    ) -> Iterator[str]:
        known = {**self._said.get("parameters", {}), **method.get("parameters", {})}
        for name, value in path.items():
            pattern = known.get(name, {}).get("pattern")
            if pattern and not re.fullmatch(pattern, value):
                yield f"path {name}={value!r} is not like {pattern}"
        for name, value in query.items():
            said = known.get(name)
            if said is None or said["location"] != "query":
                yield f"{method['id']} has no parameter {name}"
            elif "enum" in said and value not in said["enum"]:
                yield f"{name}={value!r} is none of {said['enum']}"
        for name, said in known.items():
            if said.get("required") and said["location"] == "query" and name not in query:
                yield f"{name} is missing"

    def _faults(self, schema: str, body: object) -> Iterator[str]:
        validator = Draft202012Validator({"$ref": f"said:{schema}"}, registry=self._registry)
        for error in validator.iter_errors(body):
            yield f"{schema}.{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"


@cache
def description(name: str) -> Description:
    """The description of one interface; to read one takes a while."""
    return Description(name)


def _methods(said: Mapping[str, Any], base: str) -> Iterator[tuple[str, re.Pattern[str], Mapping[str, Any]]]:
    for method in said.get("methods", {}).values():
        path = re.sub(r"\{\+?(\w+)\}", r"(?P<\1>[^/:]+)", method.get("flatPath") or method["path"])
        yield method["httpMethod"], re.compile(base + path), method
    for inner in said.get("resources", {}).values():
        yield from _methods(inner, base)


def _schema(said: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of the description as one of JSON Schema; what it does not name is not allowed."""
    if "$ref" in said:
        return {"$ref": f"said:{said['$ref']}"}
    made: dict[str, Any] = {}
    if said.get("type") not in {None, "any"}:
        made["type"] = said["type"]
    if said.get("format") in INT64:
        made = {"type": "string", "pattern": "^-?[0-9]+$"}
    if said.get("format") in LIMITS:
        least, most = LIMITS[said["format"]]
        made = {"type": "integer", "minimum": least, "maximum": most}
    if "enum" in said:
        made["enum"] = said["enum"]
    if "pattern" in said and made.get("type") == "string":
        made["pattern"] = f"^(?:{said['pattern']})$"
    if "items" in said:
        made["items"] = _schema(said["items"])
    if "properties" in said:
        made["properties"] = {name: _schema(inner) for name, inner in said["properties"].items()}
        made["additionalProperties"] = False
    if isinstance(said.get("additionalProperties"), dict):
        made["additionalProperties"] = _schema(said["additionalProperties"])
    return made
