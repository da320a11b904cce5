"""A push to a host without Python when files, hosts and connections do not keep still."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from gpucloud.errors import HostUnreachable, RemoteError, SyncFailed
from gpucloud.model import SshAddress
from gpucloud.remote import plain
from gpucloud.remote.archive import CHUNK
from gpucloud.remote.connection import Connection, Endpoint, connect
from gpucloud.remote.push import push
from tests.harness.sshd import SshHost
from tests.harness.waiting import eventually
from tests.integration.synced import (
    BIG,
    There,
    Watched,
    enlarge,
    installed,
    listing,
    names,
    needs_mount,
    put,
    reached,
    run_elsewhere,
    small_disk,
)
from tests.providers.rented import Rented


class Bare(Watched):
    """A host whose Python is not used."""

    def __init__(self, connection: Connection, token: str) -> None:
        super().__init__(connection, token)
        self.bare = True


@pytest.fixture(autouse=True)
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compressed, however late a host answers."""
    monkeypatch.setattr(plain, "FAR_S", float("inf"))


@pytest.fixture
def there(machine: Rented) -> Iterator[There]:
    """Its host program; no Python is used."""
    with reached(machine) as there:
        there.host.bare = True
        yield there


@pytest.mark.parametrize("change", ["grows", "shrinks", "is another", "is a link now", "is a folder now"])
def test_a_file_that_changes_while_it_is_read_is_sent_again(there: There, here: Path, change: str) -> None:
    put(here, "a", "z")
    put(here, "file", content=os.urandom(BIG))

    def meddle() -> None:
        if change == "grows":
            with (here / "file").open("ab") as file:
                file.write(b"more")
        elif change == "shrinks":
            os.truncate(here / "file", CHUNK)
        else:
            (here / "file").unlink()
            if change == "is another":
                put(here, "file")
            elif change == "is a link now":
                (here / "file").symlink_to("a")
            else:
                put(here, "file/in/it")

    there.host.meddle = [meddle]
    assert push(there.host, here, "work").changing == ()
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)


def test_a_file_that_never_keeps_still_is_named_and_comes_next_time(there: There, here: Path) -> None:
    put(here, "a")
    put(here, "log", content=bytes(BIG))
    sizes = iter([BIG + 1, BIG + 2, BIG + 3, BIG + 4])
    there.host.meddle = [lambda: os.truncate(here / "log", next(sizes))] * 4
    assert push(there.host, here, "work").changing == ("log",)
    assert len(there.host.meddle) == 1
    there.host.meddle.clear()
    sent = push(there.host, here, "work")
    assert (sent.files, sent.changing) == (1, ())
    assert listing(there.work) == listing(here)


def test_a_file_that_vanishes_while_it_is_read_is_deleted_by_the_next_push(there: There, here: Path) -> None:
    put(here, "a", "z")
    push(there.host, here, "work")
    put(here, "a", content=bytes(BIG))
    put(here, "z", content=b"newer")
    there.host.meddle = [(here / "z").unlink]
    assert push(there.host, here, "work").changing == ()
    assert (there.work / "z").read_bytes() == b"content"
    assert push(there.host, here, "work").removed == 1
    assert listing(there.work) == listing(here)


def test_what_was_altered_there_unseen_is_noticed_when_contents_are_compared(
    there: There, here: Path
) -> None:
    put(here, "same", "altered", "gone", "folder/alike")
    (here / "link").symlink_to("same")
    push(there.host, here, "work")
    put(there.work, "altered", content=b"CONTENT")
    (there.work / "gone").unlink()
    (there.work / "link").unlink()
    (there.work / "link").symlink_to("altered")
    assert push(there.host, here, "work").files == 0
    assert push(there.host, here, "work", verify=True).files == 2
    assert listing(there.work) == listing(here)
    assert push(there.host, here, "work", verify=True).files == 0


def test_a_push_that_is_cut_off_before_it_deletes_is_made_good_by_the_next(there: There, here: Path) -> None:
    class Cut(Bare):
        def remove(self, target: str, names: Iterable[str]) -> None:
            raise HostUnreachable("cut off")

    put(here, "a", "gone", "folder/file")
    push(there.host, here, "work")
    (here / "gone").unlink()
    shutil.rmtree(here / "folder")
    put(here, "folder")
    with pytest.raises(HostUnreachable):
        push(Cut(there.host.connection, there.root.name), here, "work")
    assert names(there.work) == {"a", "gone", "folder/file", "folder"}
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)


def test_a_file_that_was_away_while_others_changed_is_sent_once_it_is_back(there: There, here: Path) -> None:
    put(here, "a", content=bytes(BIG))
    put(here, "z")

    def meddle() -> None:
        (here / "z").rename(here.parent / "z")
        os.truncate(here / "a", BIG + 1)

    there.host.meddle = [meddle]
    push(there.host, here, "work")
    assert names(there.work) == {"a"}
    (here.parent / "z").rename(here / "z")
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)


def test_a_push_that_was_killed_is_complete_when_repeated(there: There, here: Path, machine: Rented) -> None:
    put(here, "a/x", "b", "old")
    push(there.host, here, "work")
    put(here, "a/y", "c/1", "c/2")
    put(here, "m", content=os.urandom(BIG))
    put(here, "z")
    (here / "old").unlink()
    killed = """
from gpucloud.remote import plain

host.bare, plain.FAR_S = True, float("inf")

def meddle():
    eventually(lambda: [*Path(sys.argv[7]).parent.glob(".unpacked-*/tree/m")])
    os.kill(os.getpid(), signal.SIGKILL)

host.meddle = [meddle]
push(host, sys.argv[6], "work")
"""
    assert run_elsewhere(machine, there, killed, here, there.work) == -signal.SIGKILL
    assert "z" not in names(there.work)
    # What the cut push has brought may have vanished by the time of the next, or be something else.
    for folder in ("a", "c"):
        shutil.rmtree(here / folder)
    put(here, "a")
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)


def test_a_lost_connection_is_told_and_the_next_push_is_complete(
    there: There, here: Path, machine: Rented
) -> None:
    put(here, "a", "z")
    put(here, "m", content=os.urandom(BIG))
    there.host.meddle = [once_there(there, there.host.connection.close)]
    with pytest.raises(HostUnreachable):
        push(there.host, here, "work")
    (here / "a").unlink()
    with machine.connect() as connection:
        push(Bare(connection, there.root.name), here, "work")
    assert listing(there.work) == listing(here)


@pytest.mark.needs_sshd
def test_a_session_that_is_killed_is_told_and_the_next_push_is_complete(
    ssh_host: SshHost, here: Path
) -> None:
    put(here, "a", "z")
    put(here, "m", content=os.urandom(BIG))
    address = SshAddress(ssh_host.host, ssh_host.port, ssh_host.user)
    endpoint = Endpoint(address, ssh_host.identity, "it", ssh_host.host_key)
    assert ssh_host.home is not None
    with connect(endpoint, timeout_s=15) as connection:
        there = installed(connection, ssh_host.home)
        there.host.bare = True
        there.host.meddle = [once_there(there, lambda: kill_children(ssh_host.pid))]
        with pytest.raises(HostUnreachable):
            push(there.host, here, "work")
    with connect(endpoint, timeout_s=15) as connection:
        push(Bare(connection, there.root.name), here, "work")
    assert listing(there.work) == listing(here)


def once_there(there: There, act: Callable[[], object]) -> Callable[[], None]:
    """What is on its way when a connection ends may still be written; so wait until only one file is open."""

    def meddle() -> None:
        eventually(lambda: [*there.root.glob(".unpacked-*/tree/m")])
        assert "m" not in names(there.work)
        act()

    return meddle


def kill_children(pid: int) -> None:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


def test_a_tar_that_is_killed_there_is_told_and_the_next_push_is_complete(there: There, here: Path) -> None:
    put(here, "a", "z")
    put(here, "m", content=os.urandom(BIG))

    there.host.meddle = [lambda: os.kill(eventually(lambda: tar_in(there.root)), signal.SIGKILL)]
    with pytest.raises(RemoteError):
        push(there.host, here, "work")
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)


def tar_in(folder: Path) -> int:
    """The tar that is at work below a folder; 0 when there is none."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text() == "tar\n" and folder in (process / "cwd").readlink().parents:
                return int(process.name)
    return 0


@needs_mount
def test_a_full_disk_is_told_and_the_next_push_is_complete(there: There, here: Path) -> None:
    put(here, "a", "z")
    put(here, "m", content=os.urandom(3_000_000))
    disk = there.root / "disk"
    with small_disk(disk, "1m"):
        with pytest.raises(SyncFailed) as caught:
            push(there.host, here, str(disk))
        assert "No space left" in caught.value.why
        enlarge(disk)
        push(there.host, here, str(disk))
        assert listing(disk) == listing(here)


@pytest.mark.parametrize("target", ["work/file/sub", "/proc/nowhere"])
def test_a_target_that_cannot_be_made_is_named(there: There, here: Path, target: str) -> None:
    put(here, "a")
    put(there.work, "file")
    with pytest.raises(SyncFailed) as caught:
        push(there.host, here, target)
    assert target in caught.value.message + caught.value.why


def test_a_push_during_a_push_of_the_same_folder_ends_with_what_is_here(
    there: There, here: Path, machine: Rented
) -> None:
    put(here, "a", "m/x", "z")
    put(here, "b", content=os.urandom(BIG))
    push(there.host, here, "work")
    put(here, "b", content=os.urandom(BIG))
    put(here, "z", content=b"newer")

    def meddle() -> None:
        put(here, "z", content=b"newest of all")
        put(here, "new")
        (here / "a").unlink()
        with machine.connect() as connection:
            push(Bare(connection, there.root.name), here, "work")

    there.host.meddle = [meddle]
    push(there.host, here, "work")
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)


def test_what_is_compressed_for_a_long_way_arrives(
    there: There, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "FAR_S", 0.0)
    put(here, "a/text", "z")
    put(here, "a/long", content=b"gpucloud " * 200_000)
    push(there.host, here, "work")
    assert there.host.sent_bytes < 200_000
    assert listing(there.work) == listing(here)


def test_a_host_that_has_python_by_now_is_served_by_it_the_next_time(there: There, here: Path) -> None:
    put(here, "a")
    push(there.host, here, "work")
    there.host.bare = False
    put(here, "b")
    os.utime(here / "b", ns=(5, 1_234_567_890_123_456_789))
    push(there.host, here, "work")
    assert (there.work / "b").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert listing(there.work) == listing(here)


def test_pushes_at_once_end_with_what_is_here(there: There, here: Path, machine: Rented) -> None:
    put(here, *(f"{n}/{m}" for n in range(10) for m in range(20)))
    put(here, "big", content=os.urandom(1_000_000))
    ready = threading.Barrier(4)

    def one() -> None:
        with machine.connect() as connection:
            ready.wait(60)
            push(Bare(connection, there.root.name), here, "work")

    with ThreadPoolExecutor(4) as pool:
        for pushed in [pool.submit(one) for _ in range(4)]:
            pushed.result()
    assert push(there.host, here, "work").files == 0
    assert listing(there.work) == listing(here)
