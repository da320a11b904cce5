"""Who has taken which machine: exclusive, lasting, and given back only by whoever has it."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud import config
from gpucloud.errors import NoCapacity, NotFound, Rejected
from gpucloud.model import Availability, Instance, InstanceRef, InstanceState, Offer, Requirements
from gpucloud.provider import LaunchSpec, ProviderSettings
from gpucloud.store import new_id
from gpucloud_ssh import Ssh

LAUNCHERS = 20

LAUNCHER = """\
import json, sys
from pathlib import Path
from gpucloud.errors import NoCapacity
from gpucloud.model import Requirements
from gpucloud.provider import LaunchSpec, ProviderSettings
from gpucloud_ssh import Ssh
state, hosts, token = sys.argv[1:]
provider = Ssh(ProviderSettings("ssh", Path(state), table={"hosts": json.loads(hosts)}))
(offer,) = provider.offers(Requirements())
print("ready", flush=True)
sys.stdin.readline()
try:
    print(provider.launch(offer, LaunchSpec(token, "test", 0, "me", "")).token)
except NoCapacity as error:
    print(error.message)
"""


def ssh(folder: Path, **hosts: Any) -> Ssh:
    """The provider with these hosts."""
    return Ssh(ProviderSettings("ssh", folder / "state", table={"hosts": hosts}))


def box(**settings: Any) -> dict[str, Any]:
    """One host."""
    return {"address": "box.example", **settings}


def offer_of(provider: Ssh, name: str = "box") -> Offer:
    """What is offered of a host."""
    return next(offer for offer in provider.offers(Requirements()) if offer.instance_type == name)


def launch(provider: Ssh, name: str = "box", **given: Any) -> Instance:
    """Take a slot of a host."""
    spec = {
        "token": new_id("gc-", 20),
        "cluster": "test",
        "rank": 0,
        "owner": "me",
        "public_key": "",
        **given,
    }
    return provider.launch(offer_of(provider, name), LaunchSpec(**spec))


def tokens(provider: Ssh) -> set[str | None]:
    """Who has taken something."""
    return {instance.token for instance in provider.instances()}


@pytest.mark.parametrize("slots", [1, 3])
def test_of_many_launches_at_once_as_many_succeed_as_there_are_slots(tmp_path: Path, slots: int) -> None:
    hosts = f'{{"box": {{"address": "box.example", "slots": {slots}}}}}'
    names = [f"gc-{number}" for number in range(LAUNCHERS)]
    everyone = [
        subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(tmp_path / "state"), hosts, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for process in everyone:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in everyone:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].strip() for process in everyone]

    lucky = {name for name, answer in zip(names, said, strict=True) if answer == name}
    assert len(lucky) == slots
    assert [answer for answer in said if answer not in names] == ["ssh: box is taken"] * (LAUNCHERS - slots)
    provider = ssh(tmp_path, box=box(slots=slots))
    assert tokens(provider) == lucky
    assert offer_of(provider).availability is Availability.UNAVAILABLE


def test_one_token_takes_one_slot_however_often_it_asks(tmp_path: Path) -> None:
    provider, gate = ssh(tmp_path, box=box(slots=8)), threading.Barrier(8)

    def ask(_: int) -> Instance:
        gate.wait(30)
        return launch(provider, token="gc-same")

    with ThreadPoolExecutor(8) as pool:
        assert {instance.ref.id for instance in pool.map(ask, range(8))} == {"gc-same"}
    assert [instance.token for instance in provider.instances()] == ["gc-same"]


def test_a_slot_stays_taken_for_later_processes(tmp_path: Path) -> None:
    taken = launch(ssh(tmp_path, box=box()), cluster="train", rank=2, owner="ada")
    later = ssh(tmp_path, box=box())
    assert offer_of(later).availability is Availability.UNAVAILABLE
    (found,) = later.instances()
    assert found == taken
    assert (found.cluster, found.rank, found.owner, found.state) == ("train", 2, "ada", InstanceState.RUNNING)
    assert later.get(taken.ref) == taken
    with pytest.raises(NoCapacity) as caught:
        launch(later)
    assert not caught.value.lasting


def test_a_slot_that_is_given_back_can_be_taken_again(tmp_path: Path) -> None:
    provider = ssh(tmp_path, box=box())
    provider.terminate(launch(provider).ref)
    assert list(provider.instances()) == []
    assert offer_of(provider).availability is Availability.AVAILABLE
    assert launch(provider).state is InstanceState.RUNNING


def test_terminate_gives_back_what_its_token_has_and_nothing_else(tmp_path: Path) -> None:
    provider = ssh(tmp_path, box=box(slots=3), other=box())
    one, two, elsewhere = launch(provider), launch(provider), launch(provider, "other")
    provider.terminate(one.ref)
    assert tokens(provider) == {two.token, elsewhere.token}
    three = launch(provider)
    provider.terminate(one.ref)  # again, when somebody else has its slot
    assert tokens(provider) == {two.token, three.token, elsewhere.token}


def test_more_slots_are_not_given_out_when_there_have_become_fewer(tmp_path: Path) -> None:
    many = ssh(tmp_path, box=box(slots=3))
    first, second = launch(many), launch(many)
    many.terminate(first.ref)
    fewer = ssh(tmp_path, box=box(slots=1))
    assert offer_of(fewer).availability is Availability.UNAVAILABLE
    with pytest.raises(NoCapacity):
        launch(fewer)
    assert tokens(fewer) == {second.token}


def test_a_host_that_is_no_longer_configured_is_not_listed_until_it_is_again(tmp_path: Path) -> None:
    both = ssh(tmp_path, box=box(), other=box())
    offer, taken = offer_of(both), launch(both)
    without = ssh(tmp_path, other=box())
    assert list(without.instances()) == []
    assert without.host_keys(taken.ref) == ()
    with pytest.raises(NotFound):
        without.get(taken.ref)
    with pytest.raises(NoCapacity, match="no longer configured"):
        without.launch(offer, LaunchSpec("gc-new", "test", 0, "me", ""))
    assert list(both.instances()) == [taken]
    without.terminate(taken.ref)
    assert list(both.instances()) == []


def test_the_agreed_price_is_kept_when_the_configured_one_changes(tmp_path: Path) -> None:
    launch(ssh(tmp_path, box=box(usd_per_hour=1.1)))
    (found,) = ssh(tmp_path, box=box(usd_per_hour=9)).instances()
    assert found.usd_per_hour == Decimal("1.1")


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc/passwd", "a/b", "..", ".", ".hidden", "box.1", "ünï", "x" * 300, "a b%2F*"]
)
def test_a_host_may_have_any_name_and_stays_in_its_place(tmp_path: Path, name: str) -> None:
    before = {file for file in tmp_path.rglob("*") if "state" not in file.parts}
    provider = ssh(tmp_path, **{name: box(), "box": box()})
    taken = launch(provider, name)
    assert taken.instance_type == name
    assert offer_of(provider, name).availability is Availability.UNAVAILABLE
    assert offer_of(provider, "box").availability is Availability.AVAILABLE
    assert {file for file in tmp_path.rglob("*") if "state" not in file.parts} == before
    assert list(provider.instances()) == [taken]
    provider.terminate(taken.ref)
    assert list(provider.instances()) == []


@pytest.mark.parametrize("reference", ["", ".", "..", "../../outside", "/etc/hostname"])
def test_what_is_no_id_leads_nowhere(tmp_path: Path, reference: str) -> None:
    (tmp_path / "outside.json").touch()
    provider = ssh(tmp_path, box=box())
    launch(provider)
    provider.terminate(InstanceRef(reference))
    with pytest.raises(NotFound):
        provider.get(InstanceRef(reference))
    assert (tmp_path / "outside.json").exists()
    assert len(list(provider.instances())) == 1


def test_a_damaged_note_is_an_error_and_no_absence(tmp_path: Path) -> None:
    provider = ssh(tmp_path, box=box())
    launch(provider)
    (note,) = (tmp_path / "state").rglob("*.json")
    note.write_text("")
    for look in (
        lambda: list(provider.instances()),
        lambda: list(provider.offers(Requirements())),
        lambda: provider.get(InstanceRef("gc-x")),
    ):
        with pytest.raises(Rejected) as caught:
            look()
        assert str(note) in caught.value.why


def test_a_note_that_cannot_be_written_is_a_launch_of_unknown_outcome(tmp_path: Path) -> None:
    provider = ssh(tmp_path, box=box())
    offer = offer_of(provider)
    (tmp_path / "state").touch()
    with pytest.raises(Rejected) as caught:
        provider.launch(offer, LaunchSpec("gc-new", "test", 0, "me", ""))
    assert caught.value.outcome_unknown


def test_taking_a_machine_writes_nothing_but_its_note(tmp_path: Path) -> None:
    provider = ssh(tmp_path, box=box())
    offer_of(provider)
    list(provider.instances())
    assert not (tmp_path / "state").exists()
    launch(provider, token="gc-note")
    assert {file.name for file in (tmp_path / "state").rglob("*") if not file.name.startswith(".")} == {
        "claims",
        "gc-note.json",
    }
    assert (tmp_path / "state" / "claims").stat().st_mode & 0o777 == 0o700


def test_the_settings_of_ssh_itself_are_not_taken_for_the_providers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "gpucloud").mkdir()
    (tmp_path / "gpucloud" / "config.toml").write_text('[providers.ssh.hosts.box]\naddress = "box.example"\n')
    settings = config.load({}, {"GPUCLOUD_SSH_CONNECT_TIMEOUT": "5s"}, tmp_path).provider("ssh")
    assert len(list(Ssh(settings).offers(Requirements()))) == 1
