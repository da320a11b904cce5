"""The server of these tests against Azure's own types and examples."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpucloud_azure.api import Scores
from tests.harness.azure.cloud import MACHINE
from tests.harness.azure.market import skus, usage
from tests.harness.azure.networking import of_interface, of_network, of_rule
from tests.harness.azure.schemas import TYPED, faults, unknown_fields


def example(name: str) -> Any:
    """One of Microsoft's own examples, where somebody has put it."""
    folder = os.environ.get("GPUCLOUD_AZURE_EXAMPLES")
    if not folder:
        pytest.skip("GPUCLOUD_AZURE_EXAMPLES names no folder with examples of azure-rest-api-specs")
    return json.loads((Path(folder) / name).read_text())


@pytest.mark.parametrize("kind", sorted(TYPED))
def test_fields_that_azure_does_not_know_are_seen(kind: str) -> None:
    good = {"properties": {}} if kind.endswith("securityrules") else {"location": "eastus", "properties": {}}
    assert faults(kind, good) == []
    assert faults(kind, {**good, "colour": "red"})
    assert faults(kind, {**good, "properties": {"colour": "red"}})


def test_values_of_another_type_are_seen() -> None:
    assert faults(MACHINE, {"location": "eastus", "properties": {"billingProfile": {"maxPrice": "-1"}}})
    assert faults(
        MACHINE, {"location": "eastus", "properties": {"storageProfile": {"osDisk": {"diskSizeGB": "9"}}}}
    )


@pytest.mark.parametrize(("kind", "row"), [("sku", skus("eastus")[0]), ("usage", usage("cores", 1, 2))])
def test_fields_of_what_only_is_read_are_checked_too(kind: str, row: dict[str, Any]) -> None:
    assert unknown_fields(kind, row) == []
    assert unknown_fields(kind, {**row, "colour": "red"}) == [f"{kind} has no colour"]
    inner = "capabilities" if kind == "sku" else "name"
    worse = [{"colour": "red"}] if kind == "sku" else {"colour": "red"}
    assert unknown_fields(kind, {**row, inner: worse}) == [f"{kind} has no colour"]


def a_network(*subnet: str) -> dict[str, Any]:
    """A network with one subnet."""
    part = {"name": "part", "properties": {"addressPrefixes": list(subnet)}}
    space = {"addressPrefixes": ["10.0.0.0/16", "fd00::/48"]}
    return {"name": "all", "properties": {"addressSpace": space, "subnets": [part]}}


def an_interface(*parts: dict[str, Any]) -> dict[str, Any]:
    """An interface in it, with these addresses."""
    place = {"subnet": {"id": "/networks/all/subnets/part"}}
    return {"properties": {"ipConfigurations": [{"properties": {**place, **part}} for part in parts]}}


BOTH = ("10.0.0.0/24", "fd00::/64")
SIXTH = {"privateIPAddressVersion": "IPv6"}


def test_a_network_must_fit_together() -> None:
    good, used = a_network(*BOTH), [an_interface({"primary": True}, SIXTH)]
    assert list(of_network(good, good, used)) == []
    assert list(of_network(a_network("10.0.0.0/24"), good, [an_interface({})])) == []
    for wrong in (("10.1.0.0/24",), ("fd01::/64",), ("fd00::/56",)):
        assert list(of_network(a_network(*wrong), {}, []))
    assert list(of_network(a_network("10.0.0.0/24"), good, used))


def test_an_interface_must_fit_its_network_and_its_addresses() -> None:
    things = {
        "/networks/all": a_network(*BOTH),
        "/of-4": {"properties": {"publicIPAddressVersion": "IPv4"}},
        "/of-6": {"properties": {"publicIPAddressVersion": "IPv6"}},
    }
    first = {"primary": True}
    assert (
        list(of_interface(an_interface(first, {**SIXTH, "publicIPAddress": {"id": "/of-6"}}), things)) == []
    )
    for wrong in (
        an_interface(SIXTH),
        an_interface({}, SIXTH),
        an_interface({}, {**SIXTH, **first}),
        an_interface(first, {**SIXTH, "publicIPAddress": {"id": "/of-4"}}),
        an_interface(first, {**SIXTH, "publicIPAddress": {"id": "/of-none"}}),
    ):
        assert list(of_interface(wrong, things))
    things["/networks/all"] = a_network("10.0.0.0/24")
    assert list(of_interface(an_interface(first, SIXTH), things))


@pytest.mark.parametrize(
    ("source", "destination", "good"),
    [("fd00::/64", "*", True), ("fd00::/64", "fd01::/64", True), ("fd00::/64", "10.0.0.0/24", False)],
)
def test_a_rule_is_of_one_kind(source: str, destination: str, good: bool) -> None:
    rule = {"properties": {"sourceAddressPrefix": source, "destinationAddressPrefix": destination}}
    assert (list(of_rule(rule)) == []) is good


def test_the_example_of_a_machine_fits_the_types() -> None:
    told = example("vm_create_ssh.2025-04-01.example.json")
    assert faults(MACHINE, told["request"]["body"]) == []
    assert faults(MACHINE, told["response"]["body"]) == []


def test_the_example_of_placement_scores_can_be_read() -> None:
    told = example("spot_placement_scores_2025-06-05.example.json")
    scores = Scores.model_validate(told["response"]["body"]).placement_scores
    assert [score["score"] for score in scores] == ["High", "DataNotFoundOrStale"]
