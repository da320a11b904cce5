"""What the host measures while it is ours, and that nothing is left of us."""

from __future__ import annotations

import os
import re

import pytest

from tests.harness.host_sh import HostSh
from tests.harness.waiting import eventually

FOREVER = "while :; do sleep 0.05; done\n"
# As nvidia-smi prints two GPUs of which one cannot measure its power.
TWO_GPUS = "0, 87, 40536, 81559, 412.50, 61\n1, 3, 4, 81559, [N/A], 33\n"


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.init()
    return host_sh


def nvidia_smi(host: HostSh, script: str) -> None:
    """Be a machine with GPUs, and count how often they are looked at."""
    host.tool("nvidia-smi", f"echo \"$*\" >>'{host.folder}/asked'\n{script}")


def print_gpus(host: HostSh) -> str:
    (host.folder / "gpus.csv").write_text(TWO_GPUS)
    return f"cat '{host.folder}/gpus.csv'\n"


def test_the_use_of_each_gpu_is_noted_with_the_time(host_sh: HostSh) -> None:
    nvidia_smi(host_sh, print_gpus(host_sh))
    host_sh.init()
    samples = host_sh.root / "gpu.csv"
    eventually(lambda: samples.exists() and samples.read_text().count("\n") == 2)
    lines = samples.read_text().splitlines()
    assert [re.sub(r"^\d{10}, ", "", line) for line in lines] == TWO_GPUS.splitlines()
    asked = (host_sh.folder / "asked").read_text()
    assert "--query-gpu=index,utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu" in asked
    assert "--format=csv,noheader,nounits" in asked


def test_the_samples_are_moved_aside_before_they_fill_the_disk(host_sh: HostSh) -> None:
    nvidia_smi(host_sh, print_gpus(host_sh))
    (host_sh.root / "gpu.csv").write_bytes(b"x" * 7_999_999 + b"\n")
    (host_sh.root / "gpu.csv.1").write_text("older\n")
    host_sh.init()
    eventually(lambda: not (host_sh.root / "gpu.csv").exists())
    aside = (host_sh.root / "gpu.csv.1").read_text()
    assert len(aside) > 8_000_000
    assert aside.endswith("61\n" + aside.splitlines()[-1] + "\n")


def test_what_a_failing_nvidia_smi_says_is_no_sample(host_sh: HostSh) -> None:
    nvidia_smi(host_sh, "echo 'NVIDIA-SMI has failed because it could not communicate'\nexit 9\n")
    host_sh.init()
    asked = host_sh.folder / "asked"
    eventually(lambda: asked.exists() and asked.read_text().count("\n") >= 3)
    assert not (host_sh.root / "gpu.csv").exists()


def test_clean_ends_the_jobs_and_takes_the_folder_away(host: HostSh) -> None:
    marks = host.folder / "ended"
    marks.mkdir()
    for job in ("a", "b"):
        host.start(job, f"trap 'touch {marks}/{job}; exit' TERM\ntouch {job}.up\n{FOREVER}")
    eventually(lambda: (host.work / "a.up").exists() and (host.work / "b.up").exists())
    done = host.run("clean")
    assert (done.stdout, done.stderr) == (b"", b"")
    assert sorted(path.name for path in marks.iterdir()) == ["a", "b"]
    assert not host.root.exists()
    eventually(lambda: not host.processes())


def test_clean_touches_nothing_that_is_not_ours(host: HostSh) -> None:
    other = host.sibling("gc-2")
    other.install()
    other.init(slots=2)
    other.start("j", f"{FOREVER}")
    (host.home / "own file").write_text("kept")
    (host.work / "link").symlink_to(host.home)
    (host.home / "link to it").symlink_to("own file")
    host.run("clean")
    assert (host.home / "own file").read_text() == "kept"
    assert sorted(path.name for path in host.home.iterdir()) == [".gpucloud", "link to it", "own file"]
    assert [path.name for path in host.root.parent.iterdir()] == ["gc-2"]
    assert other.status("j")["state"] == "going"
    assert other.processes("watch")


def test_clean_ends_a_job_that_has_lost_its_supervisor(host: HostSh) -> None:
    host.start("j", f"touch up\n{FOREVER}")
    eventually((host.work / "up").exists)
    os.kill(host.pid("j", "supervisor"), 9)
    host.run("clean")
    assert not host.root.exists()
    eventually(lambda: not host.processes())


def test_clean_before_anything_was_done_is_fine(host_sh: HostSh) -> None:
    host_sh.run("clean")
    assert not host_sh.root.exists()


def test_clean_is_over_only_when_what_still_writes_is_dead(host: HostSh) -> None:
    busy = "n=0; while :; do n=$((n + 1)); mkdir -p d$n && : >d$n/f; done"
    host.start("j", f"trap 'exit 0' TERM\nfor w in 1 2; do sh -c '{busy}' & done\ntouch up\n{FOREVER}")
    eventually((host.work / "up").exists)
    host.run("clean")
    assert not host.root.exists()
