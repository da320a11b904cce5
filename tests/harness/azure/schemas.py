"""The shapes of Azure's interfaces, from the types that its own libraries are generated with."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from azure.mgmt.compute import models as compute_models
from azure.mgmt.compute import types as compute_types
from azure.mgmt.network import models as network_models
from azure.mgmt.network import types as network_types
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import is_typeddict

TYPED: Mapping[str, tuple[ModuleType, ModuleType, str]] = {
    "microsoft.compute/virtualmachines": (compute_types, compute_models, "VirtualMachine"),
    "microsoft.compute/disks": (compute_types, compute_models, "Disk"),
    "microsoft.compute/proximityplacementgroups": (
        compute_types,
        compute_models,
        "ProximityPlacementGroup",
    ),
    "microsoft.network/publicipaddresses": (network_types, network_models, "PublicIPAddress"),
    "microsoft.network/networkinterfaces": (network_types, network_models, "NetworkInterface"),
    "microsoft.network/networksecuritygroups": (network_types, network_models, "NetworkSecurityGroup"),
    "microsoft.network/networksecuritygroups/securityrules": (network_types, network_models, "SecurityRule"),
    "microsoft.network/virtualnetworks": (network_types, network_models, "VirtualNetwork"),
}
"""By type of resource: where its fields are written down."""

READ_ONLY: Mapping[str, Any] = {
    "sku": compute_models.ResourceSku,
    "usage": compute_models.Usage,
    "image": compute_models.VirtualMachineImageResource,
}
"""What is only ever read has a class instead."""

MODULES = (compute_types, compute_models), (network_types, network_models)


def faults(kind: str, body: object) -> list[str]:
    """What is wrong with a body of that type; empty when nothing is."""
    found = _schema(kind.lower()).iter_errors(body)
    return [f"{kind} {'/'.join(map(str, each.absolute_path))}: {each.message[:160]}" for each in found]


def unknown_fields(kind: str, body: Mapping[str, Any]) -> list[str]:
    """Fields of something that is only read which no library of Azure would look at."""
    return [f"{kind} has no {name}" for name in _unknown(READ_ONLY[kind](dict(body)), body)]


def _unknown(model: Any, body: Mapping[str, Any]) -> Iterator[str]:
    fields = {field._rest_name: name for name, field in type(model)._attr_to_rest_field.items()}
    for key, value in body.items():
        if key not in fields:
            yield key
            continue
        read = getattr(model, fields[key])
        pairs = zip(read, value, strict=True) if isinstance(value, list) else [(read, value)]
        for inner, part in pairs:
            if isinstance(part, dict):
                yield from _unknown(inner, part)


@functools.cache
def _schema(kind: str) -> jsonschema.Draft202012Validator:
    types, _, name = TYPED[kind]
    _prepare()
    adapter: TypeAdapter[Any] = TypeAdapter(getattr(types, name))
    adapter.rebuild(_types_namespace=vars(types))
    schema = adapter.json_schema()
    # The types inherit from each other in a way that makes fields of a part mandatory for the whole.
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("required", None)
    return jsonschema.Draft202012Validator(schema)


@functools.cache
def _prepare() -> None:
    """Let the types know the enumerations that they name, and no fields but their own."""
    for types, models in MODULES:
        for name, value in vars(models).items():
            if isinstance(value, type) and issubclass(value, enum.Enum) and name not in vars(types):
                setattr(types, name, value)
        for value in list(vars(types).values()):
            if is_typeddict(value):
                value.__pydantic_config__ = ConfigDict(extra="forbid")
