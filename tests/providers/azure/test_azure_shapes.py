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


def test_the_example_of_a_machine_fits_the_types() -> None:
    told = example("vm_create_ssh.2025-04-01.example.json")
    assert faults(MACHINE, told["request"]["body"]) == []
    assert faults(MACHINE, told["response"]["body"]) == []


def test_the_example_of_placement_scores_can_be_read() -> None:
    told = example("spot_placement_scores_2025-06-05.example.json")
    scores = Scores.model_validate(told["response"]["body"]).placement_scores
    assert [score["score"] for score in scores] == ["High", "DataNotFoundOrStale"]
