"""Launching local instances: they outlive their launcher, and one token makes one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.errors import ConfigError, Rejected
from gpucloud.model import Availability, Instance, InstanceRef, InstanceState, Market, Requirements
from gpucloud.provider import LaunchSpec, ProviderSettings
from gpucloud.remote.keys import identity
from gpucloud_local import Local
from tests.harness.waiting import eventually
from tests.providers.local.conftest import BOTH, a_provider
from tests.providers.rented import Rented, a_spec, an_offer, end, processes, rented, running

LAUNCHER = """\
import os, sys
from pathlib import Path
from gpucloud.model import Requirements
from gpucloud.provider import LaunchSpec, ProviderSettings
from gpucloud_local import Local
state, token, sshd, public_key = sys.argv[1:5]
provider = Local(ProviderSettings("local", Path(state), table={"sshd": sshd}))
(offer,) = provider.offers(Requirements())
instance = provider.launch(offer, LaunchSpec(token, "test", 0, "me", public_key))
print(instance.ref.id, flush=True)
"""


def launcher(
    state: Path, token: str, public_key: str, sshd: str = "asyncssh", last_words: str = ""
) -> list[str]:
    """A process of its own that launches an instance."""
    return [sys.executable, "-c", LAUNCHER + last_words, str(state), token, sshd, public_key]


@pytest.mark.parametrize("sshd", BOTH)
@pytest.mark.parametrize("last_words", ["", "os.killpg(0, 9)"], ids=["exits", "is killed with its group"])
def test_an_instance_outlives_the_process_that_launched_it(
    tmp_path: Path, sshd: str, last_words: str
) -> None:
    key, provider = identity(tmp_path), a_provider(tmp_path / "state", sshd)
    command = launcher(tmp_path / "state", "gc-survivor", key.public, sshd, last_words)
    # Its terminal goes with it, as when a window is closed.
    done = subprocess.run(command, check=False, capture_output=True, text=True, start_new_session=True)
    assert done.stdout == "gc-survivor\n"
    instance = provider.get(InstanceRef("gc-survivor"))
    machine = Rented(provider, running(provider, instance), key)
    assert machine.say("echo alive") == "alive"
    end(provider, instance)


def test_the_server_keeps_nothing_of_its_launcher_open(tmp_path: Path, local: Local) -> None:
    key = identity(tmp_path)
    # Whoever reads the launcher's output gets its end although the instance goes on.
    done = subprocess.run(
        [*launcher(tmp_path / "state", "gc-quiet", key.public)],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"gc-quiet\n"
    end(local, local.get(InstanceRef("gc-quiet")))


def test_launches_with_one_token_in_many_processes_make_one_instance(tmp_path: Path, local: Local) -> None:
    key = identity(tmp_path)
    command = launcher(tmp_path / "state", "gc-once", key.public)
    everyone = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate()[0] for process in everyone] == ["gc-once\n"] * 4
    (instance,) = local.instances()
    machine = Rented(local, running(local, instance), key)
    assert machine.say("echo one") == "one"
    assert len(processes(str(machine.folder))) == 1
    assert [entry.name for entry in (tmp_path / "state").iterdir()] == ["gc-once"]
    end(local, instance)


def test_launches_with_one_token_in_many_threads_make_one_instance(tmp_path: Path, local: Local) -> None:
    spec, gate = a_spec(identity(tmp_path)), threading.Barrier(6)

    def launch(_: int) -> Instance:
        gate.wait(30)
        return local.launch(an_offer(local), spec)

    with ThreadPoolExecutor(6) as pool:
        instances = list(pool.map(launch, range(6)))
    assert {instance.ref.id for instance in instances} == {spec.token}
    assert [i.token for i in local.instances()] == [spec.token]
    end(local, instances[0])


def test_a_launched_instance_is_known_by_what_was_asked_for(tmp_path: Path, local: Local) -> None:
    spec = a_spec(identity(tmp_path), cluster="train", rank=3, owner="somebody")
    instance = local.launch(an_offer(local), spec)
    listed = running(local, instance)
    assert (listed.cluster, listed.rank, listed.owner) == ("train", 3, "somebody")
    assert (listed.instance_type, listed.market) == ("this-machine", Market.ON_DEMAND)
    assert (listed.usd_per_hour, listed.ref.region) == (Decimal(0), "local")
    assert listed.created_at is not None
    assert listed.created_at == instance.created_at
    assert listed.state is InstanceState.RUNNING
    end(local, instance)


def test_the_offer_is_what_this_machine_has(local: Local, tmp_path: Path) -> None:
    (offer,) = local.offers(Requirements())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    assert (offer.usd_per_hour, offer.availability) == (Decimal(0), Availability.AVAILABLE)
    assert offer.vcpus == os.cpu_count()
    assert offer.memory_gib == pytest.approx(Decimal(memory), abs=Decimal("0.1"))
    assert offer.disk_gib == pytest.approx(Decimal(shutil.disk_usage(tmp_path).free) / 2**30, abs=Decimal(5))


def test_an_unknown_ssh_server_is_a_wrong_setting(tmp_path: Path) -> None:
    provider = Local(ProviderSettings("local", tmp_path / "state", table={"sshd": "dropbear"}))
    with pytest.raises(ConfigError, match="dropbear") as caught:
        provider.launch(an_offer(provider), a_spec(identity(tmp_path)))
    assert "asyncssh or openssh" in caught.value.hint
    assert list(provider.instances()) == []


def test_openssh_that_is_not_there_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpucloud_local.sshd_openssh.PLACES", str(tmp_path))
    provider = Local(ProviderSettings("local", tmp_path / "state", table={"sshd": "openssh"}))
    with pytest.raises(ConfigError, match="has no sshd"):
        provider.launch(an_offer(provider), a_spec(identity(tmp_path)))
    assert list(provider.instances()) == []


def test_a_folder_that_cannot_be_written_is_a_launch_of_unknown_outcome(tmp_path: Path, local: Local) -> None:
    offer = an_offer(local)
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").touch()
    with pytest.raises(Rejected) as caught:
        local.launch(offer, a_spec(identity(tmp_path)))
    assert caught.value.outcome_unknown
    assert str(tmp_path / "state") in caught.value.why


def test_a_server_that_cannot_start_says_why_and_is_listed(
    tmp_path: Path, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "pydantic.py").write_text("raise ImportError('no pydantic today')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    spec = a_spec(identity(tmp_path))
    with pytest.raises(Rejected, match="could not be made") as caught:
        local.launch(an_offer(local), spec)
    assert "no pydantic today" in caught.value.why
    assert caught.value.outcome_unknown
    assert [i.token for i in local.instances()] == [spec.token]
    local.terminate(InstanceRef(spec.token))
    assert list(local.instances()) == []


def test_a_bad_public_key_makes_an_instance_that_failed(tmp_path: Path, local: Local) -> None:
    spec = LaunchSpec("gc-bad", "c", 0, "me", "ssh-ed25519 not-a-key")
    instance = local.launch(an_offer(local), spec)
    eventually(lambda: local.get(instance.ref).state is InstanceState.FAILED, 30)
    local.terminate(instance.ref)
    assert list(local.instances()) == []


def test_many_instances_live_side_by_side(tmp_path: Path, local: Local) -> None:
    with rented(local, tmp_path, rank=0) as one, rented(local, tmp_path, rank=1) as other:
        one.say("echo one >here")
        assert other.run("cat here").status == 1
        assert one.address.port != other.address.port
        assert {i.rank for i in local.instances()} == {0, 1}
