"""A push to a host with Python when files, hosts and connections do not keep still."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gpucloud.errors import HostUnreachable, RemoteError, SyncFailed
from gpucloud.remote.outgoing import DELTA, PACK
from gpucloud.remote.progress import Phase, Progress
from gpucloud.remote.push import push
from gpucloud.remote.streams import Writer
from tests.harness.waiting import eventually
from tests.integration.synced import (
    LARGE,
    There,
    Watched,
    enlarge,
    listing,
    names,
    needs_mount,
    put,
    reached,
    run_elsewhere,
    small_disk,
)
from tests.providers.rented import Rented


class Cut(Watched):
    """Hangs up after so many bytes of a push, once that has come to pass which a test waits for."""

    left = 0
    until: Callable[[], object] = staticmethod(lambda: True)

    def agent(
        self, words: object, *, stdin: Callable[[Writer], object], consume: Callable[..., object]
    ) -> bool:
        """As the host does, but for the end."""
        return super().agent(words, stdin=lambda out: stdin(_Cutting(out, self)), consume=consume)  # type: ignore[arg-type]


class _Cutting:
    def __init__(self, out: Writer, host: Cut) -> None:
        self._out = out
        self._host = host

    def write(self, data: bytes, /) -> None:
        if len(data) > self._host.left:
            self._out.write(data[: self._host.left])
            eventually(self._host.until)
            self._host.connection.close()
            raise HostUnreachable("cut off")
        self._host.left -= len(data)
        self._out.write(data)


@pytest.fixture
def again(machine: Rented, there: There) -> Iterator[Watched]:
    """The same host over a connection of its own."""
    with machine.connect() as connection:
        yield Watched(connection, there.root.name)


def cut(
    machine: Rented,
    there: There,
    here: Path,
    target: str,
    after: int,
    until: Callable[[], object] = lambda: True,
) -> bool:
    """Push and hang up after so many bytes; tells whether the push was over before."""
    with machine.connect() as connection:
        host = Cut(connection, there.root.name)
        host.left, host.until = after, until
        try:
            push(host, here, target)
        except RemoteError:
            return False
    return True


def whole(target: Path, *sources: Path) -> None:
    """Nothing lies in a target that is not, whole, in one of the sources."""
    for path in target.rglob("*"):
        if path.is_file() and not path.is_symlink():
            kept = [source / path.relative_to(target) for source in sources]
            assert path.read_bytes() in [one.read_bytes() for one in kept if one.is_file()], path


def meddle(here: Path, chance: random.Random) -> None:
    """A folder goes, or is a file from now on, or one that was comes back; and there is one file more."""
    place = here / f"d{chance.randrange(4)}"
    if place.is_dir():
        shutil.rmtree(place)
        if chance.random() < 0.5:
            put(here, place.name, content=chance.randbytes(100))
    else:
        place.unlink(missing_ok=True)
        put(place, "back", content=chance.randbytes(100))
    put(here, f"new/{chance.random()}")


def left_over(there: There) -> list[str]:
    return [path.name for path in (there.root / "stage").iterdir()]


@pytest.mark.parametrize("seed", range(6))
def test_a_push_that_is_cut_at_any_byte_is_completed_by_the_next(
    there: There, here: Path, machine: Rented, again: Watched, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    for number in range(30):
        size = chance.choice([0, 1, 1000, 50_000])
        put(here, f"d{number % 4}/e{number % 3}/{number}", content=chance.randbytes(size))
    put(here, "large", content=chance.randbytes(LARGE + chance.randrange(PACK)))
    (here / "link").symlink_to("d1")
    target = f"work/{seed}"
    total = sum(path.stat().st_size for path in here.rglob("*") if path.is_file())
    for _ in range(3):
        old = tmp_path / "old"
        shutil.copytree(here, old, symlinks=True)
        cut(machine, there, here, target, chance.randrange(total + 20_000))
        # It may be at work for a moment still.
        eventually(lambda: not helper_of(there, target))
        whole(there.root / target, here, old)
        # What the cut push has brought may have vanished or changed by the time of the next.
        shutil.rmtree(old)
        shutil.copytree(here, old, symlinks=True)
        meddle(here, chance)
        cut(machine, there, here, target, chance.randrange(total + 20_000))
        # It may be at work for a moment still.
        eventually(lambda: not helper_of(there, target))
        whole(there.root / target, here, old)
        shutil.rmtree(old)
    push(again, here, target)
    assert listing(there.root / target) == listing(here)
    assert left_over(there) == []
    assert push(again, here, target).files == 0


def test_what_a_cut_push_has_brought_is_not_sent_again(
    there: There, here: Path, machine: Rented, again: Watched
) -> None:
    put(here, *(f"a/{number}" for number in range(50)), content=os.urandom(20_000))
    put(here, "large", content=os.urandom(6 * PACK))

    def most_has_come() -> bool:
        return any(part.stat().st_size >= 3 * PACK for part in (there.root / "stage").rglob("part-*"))

    assert not cut(machine, there, here, "work", 5 * PACK, most_has_come)
    eventually(lambda: not helper_of(there))
    push(again, here, "work")
    assert again.sent_bytes < 4 * PACK
    assert listing(there.work) == listing(here)
    assert left_over(there) == []


def test_a_client_that_is_killed_leaves_nothing_half_done(
    there: There, here: Path, machine: Rented, again: Watched
) -> None:
    put(here, "a/x", "b", "old")
    push(there.host, here, "work")
    put(here, "a/y", "c/1", "c/2")
    put(here, "large", content=os.urandom(3 * PACK))
    (here / "old").unlink()
    killed = 'host.meddle = [lambda: os.kill(os.getpid(), signal.SIGKILL)]\npush(host, sys.argv[6], "work")'
    assert run_elsewhere(machine, there, killed, here) == -signal.SIGKILL
    assert "large" not in names(there.work)
    put(here.parent / "before", "old")
    whole(there.work, here, here.parent / "before")
    shutil.rmtree(here / "c")
    push(again, here, "work")
    assert listing(there.work) == listing(here)


def helper_of(there: There, target: str = "work") -> int:
    """The helper at work in a folder of the host, where it holds its journal; 0 when there is none."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == there.root / target and b"-I\0-S\0" in (
                process / "cmdline"
            ).read_bytes():
                return int(process.name)
    return 0


def test_a_helper_that_is_killed_is_told_and_leaves_nothing_half_done(
    there: There, here: Path, again: Watched
) -> None:
    put(here, "a/x", "b")
    put(here, "large", content=os.urandom(4 * PACK))
    there.host.meddle = [lambda: os.kill(eventually(lambda: helper_of(there)), signal.SIGKILL)]
    with pytest.raises(RemoteError):
        push(there.host, here, "work")
    whole(there.work, here)
    push(again, here, "work")
    assert listing(there.work) == listing(here)
    assert left_over(there) == []


@pytest.mark.parametrize("change", ["grows", "shrinks", "is another", "is a link now", "is a folder now"])
def test_a_large_file_that_changes_while_it_is_read_is_read_again(
    there: There, here: Path, change: str
) -> None:
    put(here, "a", "z")
    put(here, "file", content=os.urandom(LARGE))

    def meddle() -> None:
        if change == "grows":
            with (here / "file").open("ab") as file:
                file.write(b"more")
        elif change == "shrinks":
            os.truncate(here / "file", PACK)
        else:
            (here / "file").unlink()
            if change == "is another":
                put(here, "file", content=os.urandom(LARGE))
            elif change == "is a link now":
                (here / "file").symlink_to("a")
            else:
                put(here, "file/in/it")

    there.host.meddle = [meddle]
    assert push(there.host, here, "work").changing == ()
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)


def test_a_large_file_that_never_keeps_still_is_named_and_comes_next_time(there: There, here: Path) -> None:
    put(here, "a")
    put(here, "log", content=bytes(LARGE))
    with (here / "log").open("ab") as log:

        def meddle() -> None:
            log.write(os.urandom(PACK + 1))
            log.flush()
            there.host.meddle.append(meddle)

        there.host.meddle = [meddle]
        assert push(there.host, here, "work").changing == ("log",)
    there.host.meddle.clear()
    assert push(there.host, here, "work").changing == ()
    assert listing(there.work) == listing(here)


@pytest.mark.parametrize("change", ["in the middle", "appended", "cut", "touched"])
def test_of_a_large_file_only_blocks_that_differ_are_sent(there: There, here: Path, change: str) -> None:
    put(here, "big", content=os.urandom(DELTA + 3 * PACK + 5))
    push(there.host, here, "work")
    there.host.sent_bytes = 0
    with (here / "big").open("r+b") as file:
        if change == "in the middle":
            file.seek(5_000_000)
            file.write(os.urandom(1000))
        elif change == "appended":
            file.seek(0, os.SEEK_END)
            file.write(os.urandom(1000))
        elif change == "cut":
            file.truncate(DELTA + PACK + 3)
    os.utime(here / "big", ns=(1, 1_234_567_890_123_456_789))
    push(there.host, here, "work")
    assert there.host.sent_bytes < 600_000
    assert listing(there.work) == listing(here)
    assert (there.work / "big").stat().st_mtime_ns == 1_234_567_890_123_456_789


def test_of_files_that_are_only_touched_nothing_is_sent(there: There, here: Path) -> None:
    put(here, *(f"{number % 9}/{number}" for number in range(50)), content=os.urandom(20_000))
    push(there.host, here, "work")
    there.host.sent_bytes = 0
    for path in here.rglob("*"):
        os.utime(path, ns=(1, 1_600_000_000_000_000_001))
    put(here, "3/3", content=os.urandom(20_000))
    assert push(there.host, here, "work").files == 50
    assert there.host.sent_bytes < 100_000
    assert listing(there.work) == listing(here)


def test_what_was_altered_on_the_host_is_put_right(there: There, here: Path) -> None:
    put(here, "size", "time", "content", "mode", "gone", "kind", "folder/x", "folder/y")
    push(there.host, here, "work")
    for name in ("size", "time", "content", "mode"):
        before = (there.work / name).stat()
        if name in {"size", "content"}:
            put(there.work, name, content=b"longer than it was" if name == "size" else b"CONTENT")
        if name in {"size", "content"}:
            os.utime(there.work / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(there.work / "time", (5, 5))
    (there.work / "mode").chmod(0o777)
    (there.work / "gone").unlink()
    (there.work / "kind").unlink()
    (there.work / "kind").symlink_to("size")
    shutil.rmtree(there.work / "folder")
    put(there.root, "precious/x", "precious/y", content=b"not ours")
    (there.work / "folder").symlink_to(there.root / "precious")
    push(there.host, here, "work")
    assert (there.work / "content").read_bytes() == b"CONTENT"
    assert push(there.host, here, "work", verify=True).files == 1
    assert listing(there.work) == listing(here)
    assert {path.read_bytes() for path in (there.root / "precious").iterdir()} == {b"not ours"}


def test_nothing_is_deleted_behind_a_link_that_a_job_has_put_in_the_place_of_a_folder(
    there: There, here: Path
) -> None:
    put(here, "data/x", "data/sub/y", "code")
    push(there.host, here, "work")
    put(there.root, "precious/x", "precious/sub/y")
    shutil.rmtree(there.work / "data")
    (there.work / "data").symlink_to(there.root / "precious")
    shutil.rmtree(here / "data")
    push(there.host, here, "work")
    assert names(there.root / "precious") == {"x", "sub", "sub/y"}
    assert names(there.work) == {"code"}


def test_times_of_files_are_kept_to_the_nanosecond(there: There, here: Path) -> None:
    put(here, "past", "future", "new/file")
    for path, when in {"past": 1, "future": 4_102_444_800_123_456_789, "new/file": 123_456_789}.items():
        os.utime(here / path, ns=(when, when))
    push(there.host, here, "work")
    for path in ("past", "future", "new/file"):
        assert (there.work / path).stat().st_mtime_ns == (here / path).stat().st_mtime_ns
    assert push(there.host, here, "work").files == 0


def test_a_large_sparse_file_stays_sparse(there: There, here: Path) -> None:
    with (here / "sparse").open("wb") as file:
        file.truncate(64 * PACK)
        file.seek(40 * PACK)
        file.write(os.urandom(1000))
    push(there.host, here, "work")
    status = (there.work / "sparse").stat()
    assert status.st_blocks * 512 < 4 * PACK
    assert there.host.sent_bytes < PACK
    assert (there.work / "sparse").read_bytes() == (here / "sparse").read_bytes()


def test_git_s_own_folder_comes_only_when_it_is_asked_for(there: There, here: Path) -> None:
    put(here, ".git/HEAD", ".git/objects/1/2", "code")
    push(there.host, here, "work")
    assert names(there.work) == {"code"}
    push(there.host, here, "work", git=True)
    assert listing(there.work) == listing(here)
    (here / ".git" / "HEAD").unlink()
    assert push(there.host, here, "work").removed == 0
    assert push(there.host, here, "work", git=True).removed == 1


def test_folders_that_nobody_may_write_to_are_filled(there: There, here: Path) -> None:
    put(here, "closed/a", "closed/sub/b")
    for folder in ("closed/sub", "closed"):
        (here / folder).chmod(0o555)
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)
    assert stat.S_IMODE((there.work / "closed").stat().st_mode) == 0o555


def test_progress_is_told_from_the_first_to_the_last_byte(there: There, here: Path) -> None:
    put(here, "a", "b/c", content=b"12345")
    put(here, "large", content=os.urandom(LARGE))
    told: list[Progress] = []
    push(there.host, here, "work", watch=told.append)
    assert told[0] == Progress(Phase.COMPARING)
    assert told[-1] == Progress(Phase.SENDING, 3, LARGE + 10, 3, LARGE + 10)
    sending = [one for one in told if one.phase is Phase.SENDING]
    assert [one.bytes for one in sending] == sorted(one.bytes for one in sending)


@needs_mount
def test_a_full_disk_is_told_and_the_next_push_goes_on(there: There, here: Path) -> None:
    put(here, "a", "z")
    put(here, "m", content=os.urandom(3_000_000))
    disk = there.root / "disk"
    with small_disk(disk, "1m"):
        with pytest.raises(SyncFailed) as caught:
            push(there.host, here, str(disk))
        assert "No space left" in caught.value.why
        assert "m" not in names(disk)
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


def test_what_cannot_be_remembered_is_asked_for(
    there: There, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here, "a", "b/c")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert push(there.host, here, "work").files == 2
    assert push(there.host, here, "work").files == 0
    put(here, "a", content=b"other")
    assert push(there.host, here, "work").files == 1
    assert listing(there.work) == listing(here)


def test_another_machine_s_push_is_seen(there: There, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(here, "a", "b/c", "gone")
    push(there.host, here, "work")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here.parent / "elsewhere"))
    put(here, "a", content=b"theirs")
    (here / "gone").unlink()
    assert push(there.host, here, "work").removed == 1
    put(here, "new")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here.parent / "cache"))
    assert push(there.host, here, "work").files == 1
    assert listing(there.work) == listing(here)


def test_several_connections_bring_the_same(
    there: There, here: Path, machine: Rented, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpucloud.remote.contents.FAR_S", 0.0)
    monkeypatch.setattr("gpucloud.remote.contents._LANE_BYTES", PACK)
    monkeypatch.setattr("gpucloud.remote.contents._SMALL_LANE_BYTES", PACK)
    monkeypatch.setattr("gpucloud.remote.outgoing.RANGE", PACK)
    for number in range(120):
        put(here, f"{number % 7}/{number % 5}/{number}", content=os.urandom(30_000))
    put(here, "text", content=b"gpucloud " * 500_000)
    put(here, "large", content=os.urandom(4 * PACK + 7))
    with reached(machine) as other:
        push(other.host, here, "work")
        assert listing(other.work) == listing(here)
        assert left_over(other) == []
        assert push(other.host, here, "work").files == 0
