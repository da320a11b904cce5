"""Who gets into a local instance, and what can be seen in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gpucloud.errors import HostKeyChanged, RemoteError
from gpucloud.remote.keys import identity, new_key_pair
from gpucloud_local import Local
from gpucloud_local.processes import MARKER, PASSED_ON
from tests.harness.waiting import eventually
from tests.providers.local.conftest import BOTH, a_provider
from tests.providers.rented import Rented, rented

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-secret-aws",
    "GPUCLOUD_RUNPOD_API_KEY": "planted-secret-runpod",
    "SSH_AUTH_SOCK": "/planted-secret-agent",
    "MY_PASSWORD": "planted-secret-password",
}

STRANGE = (
    "with a space",
    "with 'single' and \"double\" quotes",
    "50% of %h",
    "back\\slash and $HOME and `tick`",
    "ünï-côdé-機械",
    "# hash; semi & amp",
)


def test_another_key_is_refused(machine: Rented, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="refused our SSH key"):
        machine.connect(identity(tmp_path).file)


def test_two_instances_do_not_know_each_others_keys(local: Local, tmp_path: Path) -> None:
    with rented(local, tmp_path / "one") as one, rented(local, tmp_path / "other") as other:
        assert one.say("pwd") != other.say("pwd")
        with pytest.raises(RemoteError, match="refused our SSH key"):
            one.connect(other.identity.file)


@pytest.mark.parametrize("sshd", BOTH)
def test_a_planted_host_key_is_the_one_that_is_shown(tmp_path: Path, sshd: str) -> None:
    planted = new_key_pair()
    with rented(a_provider(tmp_path / "state", sshd), tmp_path, host_key=planted) as machine:
        with machine.connect(pinned=planted.public) as connection:
            assert connection.host_key == planted.public
        with pytest.raises(HostKeyChanged):
            machine.connect(pinned=new_key_pair().public)


def test_every_instance_has_a_host_key_of_its_own(local: Local, tmp_path: Path) -> None:
    with (
        rented(local, tmp_path) as one,
        rented(local, tmp_path) as other,
        one.connect() as to_one,
        other.connect() as to_other,
    ):
        assert to_one.host_key != to_other.host_key


def test_what_is_in_an_instance_is_for_its_owner_only(machine: Rented) -> None:
    modes = {
        entry.name: stat.S_IMODE(entry.stat().st_mode)
        for entry in (machine.folder, machine.folder / "home", machine.folder / "host_key")
    }
    assert modes == {machine.folder.name: 0o700, "home": 0o700, "host_key": 0o600}


@pytest.mark.parametrize("sshd", BOTH)
def test_no_secret_of_whoever_launched_it_can_be_read_in_an_instance(
    tmp_path: Path, sshd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    with rented(a_provider(tmp_path / "state", sshd), tmp_path) as machine:
        shown = machine.say("env")
        # A command there may look at the processes it descends from, as far as they are the instance's.
        server = (machine.folder / "pid").read_text()
        inherited = machine.say(f"tr '\\0' '\\n' </proc/$$/environ; tr '\\0' '\\n' </proc/{server}/environ")
        left_behind = machine.say(f"cat /proc/{server}/cmdline; grep -r planted-secret .. || true")
    for text in (shown, inherited, left_behind):
        assert "planted-secret" not in text
        assert not [name for name in SECRETS if name in text]


def test_programs_are_found_as_outside(local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools with space"
    tools.mkdir()
    (tools / "my-tool").write_text("#!/bin/sh\necho mine\n")
    (tools / "my-tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with rented(local, tmp_path) as machine:
        assert machine.say("my-tool") == "mine"
        assert machine.say("date +%z") == "+0900"
        assert machine.say("echo $CUDA_VISIBLE_DEVICES") == "1"


def test_the_environment_is_a_short_and_known_one(machine: Rented) -> None:
    shown = machine.say("env").splitlines()
    names = {line.partition("=")[0] for line in shown if "=" in line}
    by_sshd_and_sh = {"PWD", "OLDPWD", "SHLVL", "_", "MAIL"} | {n for n in names if n.startswith("SSH_")}
    assert names - by_sshd_and_sh <= {*PASSED_ON, MARKER, "HOME", "USER", "LOGNAME", "SHELL"}
    assert f"HOME={machine.folder}/home" in shown
    assert f"USER={machine.address.user}" in shown


@pytest.mark.parametrize("sshd", BOTH)
@pytest.mark.parametrize("name", STRANGE)
def test_a_folder_with_a_strange_name_is_as_good_as_any(tmp_path: Path, sshd: str, name: str) -> None:
    state = tmp_path / name / "state"
    with rented(a_provider(state, sshd), tmp_path) as machine:
        assert machine.say('printf %s "$HOME"') == str(machine.folder / "home")
        assert machine.say("pwd") == str(machine.folder / "home")
        machine.say("echo data >file")
        assert (machine.folder / "home" / "file").read_text() == "data\n"
    eventually(lambda: list(state.iterdir()) == [])
