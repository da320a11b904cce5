"""What a new machine is told to do first."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gpucloud.cloud_init import ON_HOST, user_data
from gpucloud.model import utcnow
from gpucloud.provider import HostKeyPair, LaunchSpec
from gpucloud.remote.keys import new_key_pair


def a_spec(**given: Any) -> LaunchSpec:
    return LaunchSpec(
        token="gc-1", cluster="x", rank=0, owner="me", public_key="ssh-ed25519 AAAA me", **given
    )


def told(spec: LaunchSpec, **wanted: bool) -> dict[str, Any]:
    text = user_data(spec, **wanted)
    assert text.startswith("#cloud-config\n")
    found = YAML(typ="safe").load(text)
    assert isinstance(found, dict)
    return found


def test_our_key_opens_it_and_nothing_else_is_said() -> None:
    assert told(a_spec()) == {"ssh_authorized_keys": ["ssh-ed25519 AAAA me"]}


def test_it_has_only_the_planted_host_key() -> None:
    pair = new_key_pair()
    config = told(a_spec(host_key=pair))
    assert config["ssh_deletekeys"] is True
    keys = config["ssh_keys"]
    assert HostKeyPair(keys["ed25519_private"], keys["ed25519_public"]) == pair


@pytest.mark.parametrize(("seen", "left"), [(False, "ended"), (True, "")])
def test_it_powers_off_at_the_end_of_its_lease_unless_somebody_has_logged_in(
    tmp_path: Path, seen: bool, left: str
) -> None:
    (command,) = told(a_spec(expires_at=utcnow() - timedelta(hours=1)))["runcmd"]
    if seen:
        (tmp_path / "home/ubuntu/.gpucloud").mkdir(parents=True)
    (tmp_path / "poweroff").write_text(f"#!/bin/sh\necho ended >{tmp_path}/left\n")
    (tmp_path / "poweroff").chmod(0o755)
    (tmp_path / "left").write_text("")
    folders = " ".join(f"{tmp_path}{folder}" for folder in ON_HOST.split())
    text = command[2].replace(ON_HOST, folders).replace("sleep 1;", "").replace(" &", "")
    subprocess.run(["sh", "-c", text], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True, timeout=30)
    assert (tmp_path / "left").read_text().strip() == left


def test_the_time_left_is_counted_from_now() -> None:
    (command,) = told(a_spec(expires_at=utcnow() + timedelta(hours=1)))["runcmd"]
    assert command[:2] == ["sh", "-c"]
    assert 3590 <= int(command[2].partition("sleep ")[2].partition(";")[0]) <= 3600


def test_where_that_saves_nothing_it_stays_on() -> None:
    assert "runcmd" not in told(a_spec(expires_at=utcnow() + timedelta(hours=1)), powers_off=False)
