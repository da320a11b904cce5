"""Files that come to the host: what is removed, what is unpacked, and what the host remembers of it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.harness.host_sh import ODD_NAMES, HostSh, archive, nul, write


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.init()
    return host_sh


def listing(folder: Path) -> set[bytes]:
    return {os.fsencode(path.name) for path in folder.iterdir()}


def tree(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_what_was_pushed_is_remembered_by_its_key(host: HostSh) -> None:
    manifest = bytes(range(256)) * 5000
    assert host.run("sent", "k1").stdout == b""
    host.run("keep", "k1", stdin=manifest)
    host.run("keep", "k2", stdin=b"other")
    assert host.run("sent", "k1").stdout == manifest
    assert host.run("sent", "k2").stdout == b"other"
    host.run("keep", "k1", stdin=b"newer")
    assert host.run("sent", "k1").stdout == b"newer"
    assert sorted(path.name for path in (host.root / "sent").iterdir()) == ["k1", "k2"]


def test_what_is_half_written_does_not_take_the_place_of_what_was_sent(host: HostSh) -> None:
    host.run("keep", "k1", stdin=b"all")
    with host.popen("keep", "k1", stdin=-1) as keeper:
        assert keeper.stdin
        keeper.stdin.write(b"half")
        keeper.stdin.flush()
        assert host.run("sent", "k1").stdout == b"all"
        keeper.communicate(b" and half")
    assert host.run("sent", "k1").stdout == b"half and half"


@pytest.mark.parametrize("target", ["work", "work/data/deep", "~/models of mine", "/absolute"])
def test_only_the_named_files_are_removed(host: HostSh, target: str) -> None:
    place = folder_of(host, target)
    write(place, "go", "stay", "sub/go", "sub/stay", "empty/go")
    where = str(place) if target.startswith("/") else target
    host.run("remove", where, stdin=nul("go", "sub/go", "empty/go", "never there", "sub/", "empty/"))
    assert listing(place) >= {b"stay", b"sub"}
    assert listing(place) & {b"go", b"empty"} == set()
    assert listing(place / "sub") == {b"stay"}


def folder_of(host: HostSh, target: str) -> Path:
    if target.startswith("~/"):
        return host.home / target[2:]
    return host.folder / target[1:] if target.startswith("/") else host.root / target


def test_odd_names_are_removed_and_no_others(host: HostSh) -> None:
    write(host.work, *ODD_NAMES, "kept", "ab", "help")
    host.run("remove", "work", stdin=nul(*ODD_NAMES))
    assert listing(host.work) == {b"kept", b"ab", b"help"}


def test_odd_folders_are_removed_when_they_are_empty(host: HostSh) -> None:
    for name in ODD_NAMES:
        write(host.work, os.fsencode(name) + b"/file")
    files = [os.fsencode(name) + b"/file" for name in ODD_NAMES]
    kept = b"- kept/file"
    write(host.work, kept)
    folders = [os.fsencode(name) + b"/" for name in [*ODD_NAMES, "- kept"]]
    host.run("remove", "work", stdin=nul(*files, *folders))
    assert listing(host.work) == {b"- kept"}


def test_many_names_are_removed_in_their_order(host: HostSh) -> None:
    names = [f"{'folder' * 20}/{n:05}-{'long' * 30}" for n in range(3000)]
    write(host.work, *names)
    host.run("remove", "work", stdin=nul(*names, f"{'folder' * 20}/"))
    assert listing(host.work) == set()


def test_nothing_to_remove_is_fine_and_makes_the_target(host: HostSh) -> None:
    host.run("remove", "work/new/folder")
    assert (host.work / "new" / "folder").is_dir()


def test_a_link_is_removed_and_not_what_it_leads_to(host: HostSh) -> None:
    write(host.home, "outside/file")
    (host.work / "link").symlink_to(host.home / "outside")
    (host.work / "file link").symlink_to(host.home / "outside" / "file")
    host.run("remove", "work", stdin=nul("link", "file link"))
    assert listing(host.work) == set()
    assert (host.home / "outside" / "file").exists()


def test_nothing_behind_a_link_that_a_job_has_put_in_the_place_of_a_folder_is_removed(
    host: HostSh, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    (precious / "sub").mkdir(parents=True)
    (precious / "file").touch()
    work = host.root / "work"
    (work / "data").symlink_to(precious)
    host.run("remove", "work", stdin=nul("data/file", "data/sub/", "data/"))
    assert (precious / "file").exists()
    assert (precious / "sub").is_dir()
    assert (work / "data").is_symlink()


def test_a_folder_of_somebody_else_in_the_place_of_a_file_stays(host: HostSh) -> None:
    write(host.work, "taken/result")
    host.run("remove", "work", stdin=nul("taken"))
    assert (host.work / "taken" / "result").exists()


def test_a_file_that_cannot_be_removed_is_a_failure(host: HostSh) -> None:
    done = host.run("remove", "/proc/self", stdin=nul("stat"), status=None)
    assert done.returncode != 0
    assert b"stat" in done.stderr


@pytest.mark.parametrize("target", ["work", "work/data/deep", "~/models of mine", "/absolute"])
def test_files_arrive_with_their_modes_times_and_links(host: HostSh, target: str) -> None:
    place = folder_of(host, target)
    where = str(place) if target.startswith("/") else target
    tar = tree(
        member("bin", tarfile.DIRTYPE, mode=0o750),
        member("bin/tool", mode=0o755, size=1000, mtime=1_600_000_000),
        member("bin/secret", mode=0o600, size=3),
        member("bin/open", mode=0o666),
        member("link", tarfile.SYMTYPE, linkname="bin/tool"),
        member("dangling", tarfile.SYMTYPE, linkname="/no/where"),
    )
    host.run("receive", where, "plain", stdin=tar)
    assert stat.S_IMODE((place / "bin").stat().st_mode) == 0o750
    tool = (place / "bin" / "tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_size, tool.st_mtime) == (0o755, 1000, 1_600_000_000)
    assert stat.S_IMODE((place / "bin" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((place / "bin" / "open").stat().st_mode) == 0o666
    assert (place / "link").readlink() == Path("bin/tool")
    assert (place / "dangling").readlink() == Path("/no/where")
    assert tool.st_uid == os.geteuid()


@pytest.mark.parametrize("command", [("remove",), ("receive", "plain")])
def test_folders_that_are_made_on_the_way_are_like_anybody_s(host: HostSh, command: tuple[str, ...]) -> None:
    host.run(
        command[0],
        "~/data/deep",
        *command[1:],
        stdin=b"" if command[0] == "remove" else archive({"file": b"x"}),
    )
    for folder in (host.home / "data", host.home / "data" / "deep"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_files_of_odd_names_arrive(host: HostSh) -> None:
    tar = archive({os.fsdecode(name): os.fsencode(name) for name in ODD_NAMES})
    host.run("receive", "work", "plain", stdin=tar)
    for name in ODD_NAMES:
        assert (host.work / os.fsdecode(name)).read_bytes() == os.fsencode(name)
    assert len(listing(host.work)) == len(ODD_NAMES)


def test_what_arrives_replaces_what_is_there(host: HostSh) -> None:
    write(host.work, "file", "replaced by a link", "running")
    (host.work / "link").symlink_to(host.home / "own")
    (host.home / "own").write_text("kept")
    with (host.work / "running").open("rb") as running:
        tar = tree(
            member("file", size=2),
            member("replaced by a link", tarfile.SYMTYPE, linkname="file"),
            member("link", size=2),
            member("running", size=2),
        )
        host.run("receive", "work", "plain", stdin=tar)
        # Whoever has the old file open still reads the old one.
        assert running.read() == b"content"
    for name in ("file", "replaced by a link", "link", "running"):
        assert (host.work / name).read_text() == "xx"
    assert (host.home / "own").read_text() == "kept"


def test_an_archive_that_was_cut_off_is_a_failure(host: HostSh) -> None:
    whole = archive({"file": os.urandom(50_000)})
    assert host.run("receive", "work", "plain", stdin=whole[:20_000], status=None).returncode != 0
    assert host.run("receive", "work", "plain", stdin=b"rubbish" * 1000, status=None).returncode != 0


@pytest.mark.parametrize("command", [("remove",), ("receive", "plain")])
@pytest.mark.parametrize("target", ["/proc/no/such", "work/file/below", "~/file/below"])
def test_a_target_that_cannot_be_made_is_named(host: HostSh, command: tuple[str, ...], target: str) -> None:
    write(host.work, "file")
    write(host.home, "file")
    done = host.run(command[0], target, *command[1:], stdin=archive({"x": b""}), status=1)
    assert done.stderr.splitlines()[-1].startswith(b"gpucloud: /")
    assert b"cannot be made" in done.stderr


def test_the_manifest_of_two_pushes_at_once_is_that_of_one_of_them(host: HostSh) -> None:
    texts = [bytes([n]) * 3_000_000 for n in b"abcd"]
    keepers = [host.popen("keep", "k", stdin=subprocess.PIPE) for _ in texts]
    for keeper, text in zip(keepers, texts, strict=True):
        assert keeper.stdin
        keeper.stdin.write(text[:10])
        keeper.stdin.flush()
    for keeper, text in zip(keepers, texts, strict=True):
        assert keeper.communicate(text[10:])[1] == b""
        assert keeper.returncode == 0
    assert host.run("sent", "k").stdout in texts


def test_archives_that_come_at_once_all_come_to_their_places(host: HostSh) -> None:
    names = [f"new/{folder}/{name}" for folder in range(6) for name in range(5)]
    tars = [archive(dict.fromkeys(names, text)) for text in (b"a" * 99, b"b" * 99, b"c" * 99)]
    # The lock of one that was killed, whose number nobody has any more.
    dead = subprocess.Popen(["true"])
    dead.wait()
    (host.root / ".unpacking").symlink_to(str(dead.pid))
    receivers = [host.popen("receive", "work", "plain", stdin=subprocess.PIPE) for _ in tars]
    for receiver, tar in zip(receivers, tars, strict=True):
        assert receiver.stdin
        receiver.stdin.write(tar[:100])
        receiver.stdin.flush()
    for receiver, tar in zip(receivers, tars, strict=True):
        assert receiver.communicate(tar[100:])[1] == b""
        assert receiver.returncode == 0
    found = {str(path.relative_to(host.work)) for path in host.work.rglob("*") if path.is_file()}
    assert found == set(names)
    assert not [path.name for path in host.root.iterdir() if path.name.startswith(".unpack")]
