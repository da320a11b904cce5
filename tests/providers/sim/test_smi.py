"""The nvidia-smi of simulated instances: it shows what was sold, to their sessions and nobody else."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpucloud.model import Gpu, GpuWish, Instance, Market
from gpucloud.remote.keys import Identity
from gpucloud_local.adapter import parse_gpu
from gpucloud_sim import Sim
from gpucloud_sim.market import TYPES
from gpucloud_sim.smi import CHIPS, WRONG, Chip, script
from tests.harness.waiting import eventually
from tests.providers.rented import Rented, an_offer, running
from tests.providers.sim.conftest import MakeMarket

Launch = Callable[..., Instance]

NUMBERS = (
    "index",
    "memory.total",
    "memory.used",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "pcie.link.gen.max",
    "clocks.sm",
    "clocks.max.sm",
    "temperature.gpu",
    "utilization.gpu",
    "power.draw",
)
FIELDS = (
    *NUMBERS,
    "name",
    "driver_version",
    "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total",
    "uuid",
)
SHELLS = [
    pytest.param(("dash",), marks=pytest.mark.skipif(not shutil.which("dash"), reason="no dash here")),
    pytest.param(("busybox", "sh"), marks=pytest.mark.needs_busybox),
]
BARE = "--format=csv,noheader,nounits"


class Smi:
    """The program in a folder of its own, run by one shell."""

    def __init__(
        self, folder: Path, shell: tuple[str, ...], gpu: str = "H100-SXM-80", count: int = 2
    ) -> None:
        self.home = folder
        self.file = folder / "nvidia-smi"
        self.file.write_text(script(CHIPS[gpu], count, "gc-seed"))
        self.shell = shell

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        command = [*self.shell, str(self.file), *arguments]
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def rows(self, *fields: str, form: str = BARE) -> list[list[str]]:
        """What it says to these fields."""
        done = self.run(f"--query-gpu={','.join(fields)}", form)
        assert (done.returncode, done.stderr) == (0, "")
        return list(csv.reader(done.stdout.splitlines(), skipinitialspace=True))


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def smi(request: pytest.FixtureRequest, tmp_path: Path) -> Smi:
    """Two H100s, with each shell."""
    return Smi(tmp_path, request.param)


@pytest.mark.parametrize("chip", [*CHIPS.values(), WRONG], ids=lambda chip: chip.name)
def test_shellcheck_finds_nothing(tmp_path: Path, chip: Chip) -> None:
    file = tmp_path / "smi"
    file.write_text(script(chip, 2, "seed"))
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "--shell=sh", file], check=False, capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


def test_every_gpu_that_is_sold_is_known() -> None:
    assert {gpu for _, gpu, *_ in TYPES if gpu} == set(CHIPS)
    for sold, chip in CHIPS.items():
        gpu = parse_gpu(f"{chip.name}, {chip.memory_mib}")
        assert GpuWish(gpu=Gpu.parse(sold)).accepts(gpu, 1)
        assert not GpuWish(gpu=Gpu.parse(sold)).accepts(parse_gpu(f"{WRONG.name}, {WRONG.memory_mib}"), 1)
        assert chip.memory_mib > WRONG.memory_mib


def test_a_query_has_a_row_for_each_gpu_and_a_value_for_each_field(smi: Smi) -> None:
    rows = smi.rows(*FIELDS)
    assert len(rows) == 2
    for index, row in enumerate(rows):
        told = dict(zip(FIELDS, row, strict=True))
        assert told["index"] == str(index)
        assert all(float(told[field]) >= 0 for field in NUMBERS)
        assert (told["name"], told["memory.total"]) == ("NVIDIA H100 80GB HBM3", "81559")
        assert told["pcie.link.width.current"] == told["pcie.link.width.max"] == "16"
        assert told["ecc.errors.uncorrected.volatile.total"] == "0"
    assert smi.rows(*reversed(FIELDS)) == [list(reversed(row)) for row in rows]
    assert len({row[-1] for row in rows}) == 2


def test_units_and_heads_are_there_unless_they_are_not_wanted(smi: Smi) -> None:
    fields = ("name", "memory.total", "utilization.gpu")
    assert smi.rows(*fields, form="--format=csv") == [
        ["name", "memory.total [MiB]", "utilization.gpu [%]"],
        *[["NVIDIA H100 80GB HBM3", "81559 MiB", "0 %"]] * 2,
    ]
    assert smi.rows(*fields, form="--format=csv,noheader")[0][1] == "81559 MiB"
    assert smi.rows(*fields, form="--format=csv,nounits")[:2] == [
        ["name", "memory.total [MiB]", "utilization.gpu [%]"],
        ["NVIDIA H100 80GB HBM3", "81559", "0"],
    ]


def test_a_consumer_card_counts_no_errors(tmp_path: Path) -> None:
    smi = Smi(tmp_path, ("sh",), "RTX4090-24", 1)
    assert smi.rows("name", "memory.total", "ecc.errors.uncorrected.volatile.total") == [
        ["NVIDIA GeForce RTX 4090", "24564", "[N/A]"]
    ]


def test_utilization_is_what_home_says(smi: Smi) -> None:
    fields = ("utilization.gpu", "clocks.sm", "clocks.max.sm")
    (_, idle, fastest), *_ = smi.rows(*fields)
    assert int(idle) < int(fastest)
    for text, use, clock in (("73\n", "73", fastest), ("100", "100", fastest), ("a lot", "0", idle)):
        (smi.home / ".gpu-utilization").write_text(text)
        assert smi.rows(*fields) == [[use, clock, fastest]] * 2


@pytest.mark.parametrize("form", [BARE, "--format=csv"])
def test_a_field_that_is_not_known_is_the_only_thing_that_is_said(smi: Smi, form: str) -> None:
    done = smi.run("--query-gpu=name,no.such.field,index", form)
    assert done.returncode == 2
    assert done.stdout == 'Field "no.such.field" is not a valid field to query.\n\n'


def test_it_lists_its_gpus(smi: Smi) -> None:
    lines = smi.run("-L").stdout.splitlines()
    uuids = [row[0] for row in smi.rows("uuid")]
    assert lines == [f"GPU {n}: NVIDIA H100 80GB HBM3 (UUID: {uuid})" for n, uuid in enumerate(uuids)]


def test_the_table_tells_driver_and_cuda(smi: Smi) -> None:
    done = smi.run()
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "Driver Version" in line]
    (driver,) = {row[0] for row in smi.rows("driver_version")}
    assert line.split("Driver Version:")[1].split()[0] == driver
    assert line.split("CUDA Version:")[1].split()[0] == "12.4"
    assert len({len(line) for line in done.stdout.splitlines()}) == 1


@pytest.mark.parametrize("arguments", [("--query-gpu=name",), ("--wrong",), ("-q", "-x")])
def test_what_it_does_not_understand_fails(smi: Smi, arguments: tuple[str, ...]) -> None:
    assert smi.run(*arguments).returncode != 0


def rent(market: Sim, launch: Launch, key: Identity, instance_type: str, elsewhere: Sim) -> Rented:
    """An instance of a type, had without asking the market under test for its prices."""
    offer = an_offer(elsewhere, instance_type=instance_type, market=Market.ON_DEMAND)
    return Rented(market, running(market, launch(market, offer)), key)


@pytest.mark.parametrize(
    ("instance_type", "shown"),
    [
        ("sim.1x-rtx4090", ["NVIDIA GeForce RTX 4090, 24564"]),
        ("sim.1x-h100", ["NVIDIA H100 80GB HBM3, 81559"]),
        ("sim.8x-h100", ["NVIDIA H100 80GB HBM3, 81559"] * 8),
    ],
)
def test_an_instance_shows_what_was_sold(
    sim: MakeMarket, launch: Launch, key: Identity, instance_type: str, shown: list[str]
) -> None:
    machine = rent(sim("boot=0s"), launch, key, instance_type, sim(folder="elsewhere"))
    assert machine.say(f"nvidia-smi --query-gpu=name,memory.total {BARE}").splitlines() == shown
    uuids = machine.say(f"nvidia-smi --query-gpu=uuid {BARE}").splitlines()
    assert len(set(uuids)) == len(shown)
    machine.say("echo 42 >.gpu-utilization")
    assert machine.say(f"nvidia-smi --query-gpu=utilization.gpu {BARE}").splitlines() == ["42"] * len(shown)
    assert machine.say("ls") == ""


def test_an_instance_without_a_gpu_hides_those_of_the_machine(
    sim: MakeMarket, launch: Launch, key: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA L4, 23034'\n")
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    machine = rent(sim("boot=0s"), launch, key, "sim.cpu", sim(folder="elsewhere"))
    done = machine.run("nvidia-smi")
    assert (done.status, done.stdout) == (6, b"No devices were found\n")


def test_a_host_with_another_gpu_strikes_so_many_instances_with_gpus(
    sim: MakeMarket, launch: Launch, key: Identity
) -> None:
    market, elsewhere = sim("wronggpu=1"), sim(folder="elsewhere")
    question = f"nvidia-smi --query-gpu=name,memory.total {BARE}"
    assert rent(market, launch, key, "sim.cpu", elsewhere).run("nvidia-smi").status == 6
    wrong = rent(market, launch, key, "sim.8x-h100", elsewhere)
    assert wrong.say(question) == "NVIDIA A10, 23028"
    assert wrong.instance.instance_type == "sim.8x-h100"
    right = rent(market, launch, key, "sim.1x-h100", elsewhere)
    assert right.say(question) == "NVIDIA H100 80GB HBM3, 81559"


def test_a_stop_changes_no_gpu(sim: MakeMarket, launch: Launch, key: Identity) -> None:
    market = sim("boot=0s")
    machine = rent(market, launch, key, "sim.1x-h100", sim(folder="elsewhere"))
    before = machine.say("nvidia-smi -L")
    market.stop(machine.instance.ref)
    market.start(machine.instance.ref)
    eventually(lambda: market.get(machine.instance.ref).ssh)
    again = Rented(market, running(market, machine.instance), key)
    assert again.say("nvidia-smi -L") == before
