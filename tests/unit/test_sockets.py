"""The folder and the names of the sockets behind which connections are shared."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gpucloud.model import SshAddress
from gpucloud.remote import sockets
from gpucloud.remote.connection import Endpoint, Incompatible
from gpucloud.remote.sockets import LONGEST_PATH, NAME_LENGTH, SUFFIX_LENGTH, folder, locked, shared, sweep

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA"
THERE = Endpoint(SshAddress("192.0.2.1", 22, "root"), Path("/keys/id"), "box", KEY)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path, as the system's runtime folder; there is no other place."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        monkeypatch.setattr(tempfile, "gettempdir", lambda: f"{name}/none")
        yield Path(name)


def test_it_is_in_the_runtime_folder_and_ours_alone(short: Path) -> None:
    umask = os.umask(0)
    try:
        place = folder()
    finally:
        os.umask(umask)
    assert place == short / "gpucloud"
    assert place.stat().st_mode & 0o777 == 0o700
    assert folder() == place


@pytest.mark.parametrize("trouble", ["link", "file", "open to others", "dangling"])
def test_what_could_be_somebody_else_s_is_not_used(short: Path, trouble: str) -> None:
    place = short / "gpucloud"
    if trouble == "link":
        (short / "theirs").mkdir(mode=0o700)
        place.symlink_to(short / "theirs")
    elif trouble == "dangling":
        place.symlink_to(short / "nowhere")
    elif trouble == "file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o750)
    assert folder() != place
    assert folder().name == f"gpucloud-{os.getuid()}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(short: Path) -> None:
    (short / "gpucloud").mkdir(mode=0o700)
    os.chown(short / "gpucloud", 12345, 12345)
    assert folder() != short / "gpucloud"


def test_a_path_that_is_too_long_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(deep))
    place = folder()
    assert place.parent == Path("/tmp")
    assert len(str(place)) + 1 + NAME_LENGTH + SUFFIX_LENGTH <= LONGEST_PATH


def test_without_any_place_the_built_in_client_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "LONGEST_PATH", 10)
    with pytest.raises(Incompatible):
        folder()


def test_a_name_is_short_and_tells_apart_whatever_leads_elsewhere(short: Path) -> None:
    hop = replace(THERE, address=SshAddress("192.0.2.9"))
    ways = [
        THERE,
        replace(THERE, address=SshAddress("192.0.2.2")),
        replace(THERE, address=SshAddress("192.0.2.1", 2222)),
        replace(THERE, address=SshAddress("192.0.2.1", user="ann")),
        replace(THERE, address=SshAddress("192.0.2.1", proxy=("proxy", "%h"))),
        replace(THERE, identity=Path("/keys/other")),
        replace(THERE, pinned="ssh-ed25519 BBBB"),
        replace(THERE, jump=hop),
        replace(THERE, jump=replace(hop, pinned="ssh-ed25519 CCCC")),
    ]
    names = {shared(way, lane).name for way in ways for lane in (0, 1, 64)}
    assert len(names) == 3 * len(ways)
    assert max(map(len, names)) <= NAME_LENGTH
    for same in (replace(THERE, label="x"), replace(THERE, pinned=f"{KEY} comment")):
        assert shared(same) == shared(THERE)


def test_one_after_the_other_holds_the_lock_and_nothing_is_left(short: Path) -> None:
    path = folder() / "name"
    inside: list[int] = []
    most: list[int] = []

    def enter() -> None:
        for _ in range(20):
            with locked(path, time.monotonic() + 60):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 120
    assert list(folder().iterdir()) == []


def test_who_waits_too_long_for_the_lock_gives_up(short: Path) -> None:
    path = folder() / "name"
    with locked(path, time.monotonic()), pytest.raises(TimeoutError), locked(path, time.monotonic()):
        pass


def test_what_killed_commands_have_left_is_swept_once_it_is_old(short: Path) -> None:
    place = folder()
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as young:
        dead.bind(str(place / "dead"))
        young.bind(str(place / "young"))
    (place / "start-x").mkdir()
    (place / "start-x" / "config").write_text("")
    (place / "start-y").mkdir()
    old = time.time() - 2 * sockets.STALE_S
    for name in ("dead", "start-x"):
        os.utime(place / name, (old, old))
    sweep(place)
    assert {entry.name for entry in place.iterdir()} == {"young", "start-y"}
