"""``gpucloud check``: whether what is rented is what it should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpucloud_local import api
from tests.harness import smi
from tests.harness.cli import Cli


@pytest.fixture
def tools(cli: Cli, tmp_path: Path) -> Path:
    """A folder first on the PATH of the command line and of all that it starts."""
    folder = tmp_path / "tools"
    folder.mkdir()
    assert isinstance(cli.environ, dict)
    cli.environ["PATH"] = f"{folder}:{cli.environ['PATH']}"
    return folder


def checks(cli: Cli, *words: str, code: int = 0) -> dict[str, dict[str, object]]:
    """The findings of the first node by name, from the one document."""
    done = cli("check", "x", "--json", *words)
    assert done.code == code, done.err
    document = done.json
    assert (document["schema"], document["failures"]) == ("gpucloud.check/1", [])
    return {check["name"]: check for check in document["checks"] if check["rank"] == 0}


def test_a_machine_without_a_gpu_is_fine_without_tools(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--no-push", "--yes")
    done = cli.ok("check", "x")
    name, good, expected, found, _ = done.out.rstrip("\n").split("\t")
    assert (name, good, expected) == ("disk", "yes", "-")
    assert " free of " in found


def test_gpus_that_are_there_are_found(cli: Cli, tools: Path) -> None:
    smi.nvidia_smi(tools, "b200-2")
    cli.ok("launch", "--name", "x", "--no-push", "--yes")
    found = checks(cli)
    assert (found["gpu"]["ok"], found["gpu"]["found"]) == (True, "2 x B200-SXM-180")
    assert (found["gpu-count"]["found"], found["gpu-memory"]["found"]) == ("2", "179 GiB")
    assert (found["ecc"]["ok"], found["pcie"]["ok"]) == (True, True)
    assert found["driver"]["found"] == "610.43.02 CUDA 13.3"


def test_gpus_that_are_gone_exit_with_85_and_three_lines(cli: Cli, tools: Path) -> None:
    smi.nvidia_smi(tools, "h100-sxm-8")
    cli.ok("launch", "--name", "x", "--no-push", "--yes")
    smi.printing(tools, "nvidia-smi", "driver-mismatch.txt", 18)
    assert checks(cli, code=85)["gpu"] == {
        "rank": 0,
        "name": "gpu",
        "ok": False,
        "expected": "8 x H100-SXM-80",
        "found": "none",
        "detail": "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch",
    }
    done = cli("check", "x")
    assert done.code == 85
    assert done.out.startswith("gpu\tno\t8 x H100-SXM-80\tnone\t")
    message, why, hint = done.err.splitlines()[-3:]
    assert message == "gpucloud: x is not what was rented, or not well"
    assert why.startswith("     why: gpu: expected 8 x H100-SXM-80, found none (nvidia-smi: Failed")
    assert hint.startswith("    next: gpucloud ")


def test_another_gpu_than_the_one_rented_is_noticed(cli: Cli, tools: Path) -> None:
    smi.nvidia_smi(tools, "h100-sxm-8")
    cli.ok("launch", "--name", "x", "--no-push", "--yes")
    smi.nvidia_smi(tools, "a100-pcie-2")
    assert checks(cli, code=85)["gpu"]["found"] == "2 x A100-PCIe-80"


def test_every_node_is_checked_or_one(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--nodes", "3", "--no-push", "--yes")
    ranks = [check["rank"] for check in cli.ok("check", "x", "--json").json["checks"]]
    assert ranks == [0, 1, 2]
    nodes = [line.split("\t")[0] for line in cli.ok("check", "x").out.splitlines()]
    assert nodes == ["x-0", "x-1", "x-2"]
    assert [check["rank"] for check in cli.ok("check", "x-1", "--json").json["checks"]] == [1]
    assert cli("check", "x-3").code == 3


def test_a_node_that_cannot_be_asked_hides_no_other(cli: Cli) -> None:
    cli.ok("launch", "--name", "x", "--nodes", "2", "--no-push", "--yes")
    (last,) = [m for m in api.machines(cli.data / "providers" / "local") if m.spec.rank == 1]
    api.destroy(last.folder)
    done = cli("check", "x", "--json")
    assert done.code == 5, done.err
    assert [check["rank"] for check in done.json["checks"]] == [0]
    (failure,) = done.json["failures"]
    assert (failure["provider"], failure["code"]) == ("local", "host-unreachable")
    done = cli("check", "x")
    assert (done.code, done.out.split("\t")[0]) == (5, "x-0")


@pytest.mark.parametrize(
    "words", [["--load", "10"], ["--load", "0s"], ["--load", "1h"], ["--download", "file:///etc/passwd"]]
)
def test_what_cannot_be_measured_is_refused_before_anything_is_asked(cli: Cli, words: list[str]) -> None:
    assert cli("check", "x", *words).code == 2


def test_an_unknown_name_is_3(cli: Cli) -> None:
    assert cli("check", "x").code == 3
