from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucloud.errors import HostUnreachable, SyncFailed
from gpucloud.remote.agent.globs import stays_inside
from gpucloud.remote.archive import write_tar
from gpucloud.remote.tree import scan
from gpucloud.remote.unpack import TEMPORARY, unpack

END = bytes(1024)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def member(name: str, content: bytes = b"", **fields: Any) -> bytes:
    """One entry of an archive, with whatever a host may put into its header."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + content + bytes(-len(content) % 512)


def symlink(name: str, target: str) -> bytes:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def put(into: Path, archive: bytes, expected: dict[str, str], **options: Any) -> dict[str, str]:
    return unpack(io.BytesIO(archive), into, expected, **options)


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = os.readlink(path) if path.is_symlink() else ""  # noqa: PTH115
        found[str(path.relative_to(root))] = (status.st_mode, content, target, status.st_mtime_ns)
    return found


def test_what_tar_packs_is_put_in_place(tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "out" / "deep").mkdir(parents=True)
    contents = {"out/a": b"a" * 600_000, "out/deep/é\n b": b"", "-x": b"x"}
    for path, content in contents.items():
        (there / path).write_bytes(content)
    (there / "-x").chmod(0o6751)
    (there / "out" / "latest").symlink_to("deep/é\n b")
    expected = {path: sha(content) for path, content in contents.items()}
    expected["out/latest"] = "link:deep/é\n b"
    for prefix in ("", "./"):
        names = b"\0".join(os.fsencode(prefix + path) for path in sorted(expected))
        packed = subprocess.run(
            ["tar", "-cf", "-", "--null", "--verbatim-files-from", "-T", "-"],
            cwd=there,
            input=names,
            capture_output=True,
            check=True,
        ).stdout
        into = tmp_path / f"here{len(prefix)}"
        assert put(into, packed, expected) == {path: path for path in expected}
        assert {path: (into / path).read_bytes() for path in contents} == contents
        assert os.readlink(into / "out" / "latest") == "deep/é\n b"  # noqa: PTH115
        assert stat.S_IMODE((into / "-x").stat().st_mode) == 0o751
        assert not list(into.rglob(TEMPORARY + "*"))


def test_archives_in_a_row_are_all_read(tmp_path: Path) -> None:
    archives = [member(name, name.encode()) + bytes(padding) for name, padding in [("a", 1024), ("b", 9216)]]
    assert put(tmp_path, b"".join(archives), {"a": sha(b"a"), "b": sha(b"b")}) == {"a": "a", "b": "b"}


def test_a_read_may_give_less_than_was_asked_for(tmp_path: Path) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 100))

    stream = Slow(member("a", b"a" * 1000) + END)
    assert unpack(stream, tmp_path, {"a": sha(b"a" * 1000)}) == {"a": "a"}


def test_wrong_content_is_not_put_in_place(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"old")
    archive = b"".join(
        [
            member("a", b"wrong"),
            member("b", b"wrong"),
            symlink("c", "a"),
            symlink("d", "a"),
            member("e"),
            member("f"),
        ]
    )
    expected = {
        "a": sha(b"a"),
        "b": sha(b"b"),
        "c": "link:b",
        "d": sha(b""),
        "e": "link:a",
        "f": sha(b"").upper(),
    }
    assert put(tmp_path, archive + END, expected) == {"f": "f"}
    assert sorted(os.listdir(tmp_path)) == ["b", "f"]  # noqa: PTH208
    assert (tmp_path / "b").read_bytes() == b"old"


@pytest.mark.parametrize(
    "hostile",
    [
        member("b", b"x"),
        member("../a", b"x"),
        member("/a", b"x"),
        member("./../a", b"x"),
        member("a/", b"x"),
        member("a", type=tarfile.DIRTYPE),
        member("a", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("a", type=tarfile.CHRTYPE),
        member("a", type=tarfile.BLKTYPE),
        member("a", type=tarfile.FIFOTYPE),
        member("a", type=tarfile.GNUTYPE_SPARSE),
        member("a", type=b"Z"),
        symlink("b", "a"),
    ],
)
def test_what_was_not_asked_for_is_refused(tmp_path: Path, hostile: bytes) -> None:
    with pytest.raises(SyncFailed) as failed:
        put(tmp_path / "into", hostile + END, {"a": sha(b"x")})
    assert failed.value.message and failed.value.hint
    assert snapshot(tmp_path).keys() == {"into"}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("../a", sha(b"")),
        ("/a", sha(b"")),
        ("a/../../b", sha(b"")),
        ("a//b", sha(b"")),
        ("a/.", sha(b"")),
        ("", sha(b"")),
        ("a\0b", sha(b"")),
        ("a", "link:/etc/passwd"),
        ("a", "link:.."),
        ("a/b", "link:../.."),
        ("a/b", "link:../c/../../d"),
        ("a/b", "link:c/.."),
        ("a", "link:"),
        ("a", "link:b\0"),
    ],
)
def test_names_that_lead_out_are_refused_before_anything_is_read(
    tmp_path: Path, path: str, content: str
) -> None:
    stream = io.BytesIO(member("good") + END)
    with pytest.raises(SyncFailed) as failed:
        unpack(stream, tmp_path / "into", {path: content, "good": sha(b"")})
    assert repr(path) in failed.value.message and "good" not in failed.value.message
    assert stream.tell() == 0
    assert not (tmp_path / "into").exists()


@given(path=st.lists(st.sampled_from("ab"), min_size=1, max_size=4), target=st.text("a./", max_size=12))
def test_a_symlink_that_stays_inside_does(path: list[str], target: str) -> None:
    place = "/".join(path)
    inside = os.path.normpath(f"/root/{place}/../{target}").startswith("/root") and not target.startswith("/")
    if stays_inside(place, target):
        assert inside
    elif target and "/.." not in target.lstrip("./"):
        assert not inside


def test_symlinks_that_climb_within_are_put_in_place(tmp_path: Path) -> None:
    archive = symlink("a/b/up", "../../x") + symlink("a/top", "..") + symlink("here", "./a") + END
    expected = {"a/b/up": "link:../../x", "a/top": "link:..", "here": "link:./a"}
    assert put(tmp_path, archive, expected) == {path: path for path in expected}


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_nothing_goes_through_a_symlink(tmp_path: Path, where: str) -> None:
    into = tmp_path / "into"
    (into / "inside").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (into / "d").symlink_to({"outside": "../outside", "inside": "inside"}[where])
    before = snapshot(tmp_path)
    with pytest.raises(SyncFailed, match="d/x"):
        put(into, member("d/x", b"x") + END, {"d/x": sha(b"x")})
    assert snapshot(tmp_path) == before


def test_a_symlink_that_the_host_sent_is_not_followed_either(tmp_path: Path) -> None:
    archive = symlink("d", ".") + member("d/x", b"x") + END
    with pytest.raises(SyncFailed, match="d/x"):
        put(tmp_path / "into", archive, {"d": "link:.", "d/x": sha(b"x")})
    assert snapshot(tmp_path).keys() == {"into", "into/d"}


def test_a_symlink_in_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (tmp_path / "outside").write_bytes(b"old")
    (into / "x").symlink_to("../outside")
    assert put(into, member("x", b"new") + END, {"x": sha(b"new")}) == {"x": "x"}
    assert not (into / "x").is_symlink() and (into / "x").read_bytes() == b"new"
    assert (tmp_path / "outside").read_bytes() == b"old"


@pytest.mark.parametrize("path", ["file/x", "folder"])
def test_what_is_in_the_way_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "full").mkdir(parents=True)
    before = snapshot(tmp_path)
    with pytest.raises(SyncFailed, match=path) as failed:
        put(tmp_path, member(path, b"x") + END, {path: sha(b"x")})
    assert failed.value.why and failed.value.hint
    assert snapshot(tmp_path).keys() == before.keys()


def test_a_destination_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "into").touch()
    with pytest.raises(SyncFailed, match="into"):
        put(tmp_path / "into", END, {})


def test_a_stream_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    whole = member("a", b"a" * 700) + member("n" * 150, b"b") + END
    expected = {"a": sha(b"a" * 700), "n" * 150: sha(b"b")}
    assert put(tmp_path / "whole", whole, expected).keys() == expected.keys()
    for length in range(0, len(whole) - 512, 100):
        into = tmp_path / str(length)
        with pytest.raises(SyncFailed):
            put(into, whole[:length], expected)
        assert not list(into.rglob(TEMPORARY + "*"))
        assert all(sha(path.read_bytes()) == expected[path.name] for path in into.iterdir())


def test_a_failing_connection_is_an_error(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def __init__(self, failure: Exception) -> None:
            super().__init__(member("a", bytes(400_000)))
            self.failure = failure

        def read(self, size: int | None = -1, /) -> bytes:
            if data := super().read(size):
                return data
            raise self.failure

    with pytest.raises(SyncFailed, match="broke off") as failed:
        unpack(Failing(TimeoutError("timed out")), tmp_path, {"a": sha(bytes(400_000))})
    assert failed.value.why == "timed out"
    with pytest.raises(HostUnreachable):
        unpack(Failing(HostUnreachable("gone")), tmp_path, {"a": sha(bytes(500_000))})


@pytest.mark.parametrize(
    "block", [bytes(4096), b"garbage " * 512, member("a"), member("b"), member("a", bytes(4096))]
)
def test_a_stream_without_end_is_given_up(tmp_path: Path, block: bytes) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int | None = -1, /) -> bytes:
            return block * 32

    with pytest.raises(SyncFailed):
        unpack(Endless(), tmp_path, {"a": sha(b"")}, limit_bytes=3_000_000)
    assert {path.name for path in tmp_path.iterdir()} <= {"a"}


@pytest.mark.parametrize("block", [bytes(4096), b"garbage " * 512])
def test_padding_without_end_is_given_up_without_a_limit(tmp_path: Path, block: bytes) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int | None = -1, /) -> bytes:
            return block * 32

    with pytest.raises(SyncFailed, match="more than it announced"):
        unpack(Endless(), tmp_path, {})


def test_headers_that_announce_too_much_are_given_up(tmp_path: Path) -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.REGTYPE):
        long = member("a", type=kind, size=2**62) + bytes(3_000_000)
        with pytest.raises(SyncFailed):
            put(tmp_path / "into", long, {"a": sha(b"")})
    chain = member("x", b"long", type=tarfile.GNUTYPE_LONGNAME) * 1500
    with pytest.raises(SyncFailed):
        put(tmp_path / "into", chain + member("a") + END, {"a": sha(b"")})
    assert list((tmp_path / "into").iterdir()) == []


def test_a_limit_is_for_the_whole_stream(tmp_path: Path) -> None:
    archive = member("a", b"a" * 5000) + END
    assert put(tmp_path, archive, {"a": sha(b"a" * 5000)}, limit_bytes=len(archive)) == {"a": "a"}
    with pytest.raises(SyncFailed, match="more than"):
        put(tmp_path, archive, {"a": sha(b"a" * 5000)}, limit_bytes=len(archive) - 1)


def test_the_same_content_is_left_untouched(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "l").symlink_to("a")
    for name in ("a", "l"):
        os.utime(tmp_path / name, ns=(1, 1), follow_symlinks=False)
    before = snapshot(tmp_path)
    archive = member("a", b"same", mode=0o600) + symlink("l", "a") + END
    assert put(tmp_path, archive, {"a": sha(b"same"), "l": "link:a"}) == {"a": "a", "l": "l"}
    assert snapshot(tmp_path) == before


def test_what_was_changed_here_since_then_is_kept(tmp_path: Path) -> None:
    then = datetime(2024, 5, 1, tzinfo=UTC)
    for name, age in {"d/older": -1, "d/newer": 1, "same": 1}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"new" if name == "same" else b"mine")
        os.utime(tmp_path / name, (then.timestamp() + age,) * 2)
    names = ["d/older", "d/newer", "same", "absent"]
    archive = b"".join(member(name, b"new") for name in names) + END
    for _ in range(2):
        assert put(
            tmp_path, archive, dict.fromkeys(names, sha(b"new")), newer_than=then, beside=".from-j-abc123"
        ) == {"d/older": "d/older", "d/newer": "d/newer.from-j-abc123", "same": "same", "absent": "absent"}
        assert (tmp_path / "d" / "newer").read_bytes() == b"mine"
        assert (tmp_path / "d" / "newer.from-j-abc123").read_bytes() == b"new"
        assert (tmp_path / "d" / "older").read_bytes() == b"new"


def test_a_killed_extraction_leaves_only_its_temporary_file(tmp_path: Path) -> None:
    child = """
import io, os, signal, sys
from pathlib import Path
from gpucloud.remote.unpack import unpack

class Killed(io.BytesIO):
    def read(self, size=-1, /):
        if data := super().read(size):
            return data
        os.kill(os.getpid(), signal.SIGKILL)

unpack(Killed(sys.stdin.buffer.read()), Path(sys.argv[1]), {"d/a": sys.argv[2], "b": sys.argv[3]})
"""
    content = os.urandom(600_000)
    archive = member("b", b"b") + member("d/a", content) + END
    for _ in range(2):
        killed = subprocess.run(
            [sys.executable, "-c", child, str(tmp_path), sha(content), sha(b"b")],
            input=archive[:400_000],
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert killed.returncode == -9
        [left] = (tmp_path / "d").iterdir()
        assert left.name.startswith(TEMPORARY)
    somebody_elses = tmp_path / "d" / f"{TEMPORARY}0123456789abcdef-0123456789abcdef"
    somebody_elses.touch()
    assert put(tmp_path, archive, {"d/a": sha(content), "b": sha(b"b")}) == {"d/a": "d/a", "b": "b"}
    assert sorted((tmp_path / "d").iterdir()) == [somebody_elses, tmp_path / "d" / "a"]


@settings(deadline=None)
@given(
    contents=st.dictionaries(
        st.lists(
            st.sampled_from(["a", "b", "-c", "é", " ", "\n", os.fsdecode(b"\xff")]), min_size=1, max_size=3
        ).map("/".join),
        st.binary(max_size=2000),
        max_size=6,
    ),
    wrong=st.sets(st.integers(0, 5)),
)
def test_what_is_pushed_can_be_pulled(contents: dict[str, bytes], wrong: set[int]) -> None:
    files = {
        path: content
        for path, content in contents.items()
        if not any(p.startswith(path + "/") for p in contents)
    }
    with tempfile.TemporaryDirectory() as name:
        here, there = Path(name, "here"), Path(name, "there")
        there.mkdir()
        for path, content in files.items():
            (there / path).parent.mkdir(parents=True, exist_ok=True)
            (there / path).write_bytes(content)
        archive = io.BytesIO()
        write_tar(there, [entry for entry in scan(there).entries if entry.path in files], archive)
        expected = {path: sha(content) for path, content in files.items()}
        bad = {path for number, path in enumerate(files) if number in wrong}
        placed = put(here, archive.getvalue(), expected | dict.fromkeys(bad, sha(b"something else")))
        good = expected.keys() - bad
        assert placed == {path: path for path in good}
        found = {entry.path: entry for entry in scan(here, rules=False).entries if entry.path in files}
        assert found.keys() == good
        assert all((here / path).read_bytes() == files[path] for path in good)


HOSTILE = [
    "a",
    "b",
    "d",
    "d/a",
    "l",
    "l/a",
    "l/outside",
    "../outside/a",
    "/outside",
    "d/../../outside/a",
    "./a",
    "..",
    "",
]
TARGETS = ["a", ".", "..", "../outside", "/", "d/..", "d/../../outside", "l", ""]
REGULAR, SYMTYPE = tarfile.REGTYPE, tarfile.SYMTYPE
TYPES = [REGULAR, REGULAR, SYMTYPE, SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, b"L", b"K", b"x", b"g", b"S"]
members = st.builds(
    lambda name, content, kind, target, size: (
        member(name, content, type=kind, linkname=target)
        if size is None
        else member(name, content, type=kind, linkname=target, size=size)
    ),
    st.sampled_from(HOSTILE),
    st.sampled_from([b"", b"a", b"20 path=../outside/a\n", b"x" * 600]),
    st.sampled_from(TYPES),
    st.sampled_from(TARGETS),
    st.one_of(st.none(), st.none(), st.sampled_from([-1, 0, 1, 511, 2**33, 2**62])),
)
pieces = st.lists(st.one_of(members, members, st.just(bytes(512)), st.binary(max_size=700)), max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    archive=pieces.map(b"".join),
    mutations=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    ends=st.booleans(),
    asked=st.dictionaries(
        st.sampled_from(HOSTILE),
        st.one_of(
            st.sampled_from([sha(b""), sha(b"a"), sha(b"x" * 600)]),
            st.sampled_from(TARGETS).map("link:".__add__),
        ),
    ),
    linked=st.sampled_from(["", "../outside", ".", "/"]),
)
def test_no_archive_writes_outside(
    archive: bytes, mutations: list[tuple[int, int]], ends: bool, asked: dict[str, str], linked: str
) -> None:
    damaged = bytearray(archive + (END if ends else b""))
    for offset, value in mutations:
        if offset < len(damaged):
            damaged[offset] = value
    name = tempfile.mkdtemp()
    try:
        root = Path(name)
        (root / "outside").mkdir()
        (root / "outside" / "a").write_bytes(b"sentinel")
        (root / "into").mkdir()
        if linked:
            (root / "into" / "l").symlink_to(linked)
        before = snapshot(root / "outside")
        try:
            placed = put(root / "into", bytes(damaged), asked, limit_bytes=100_000)
        except SyncFailed:
            placed = {}
        assert snapshot(root / "outside") == before
        assert {path.name for path in root.iterdir()} == {"into", "outside"}
        for asked_path, place in placed.items():
            there = root / "into" / place
            found = f"link:{os.readlink(there)}" if there.is_symlink() else sha(there.read_bytes())  # noqa: PTH115
            assert found == asked[asked_path]
        assert not list((root / "into").rglob(TEMPORARY + "*"))
    finally:
        shutil.rmtree(name)


@settings(deadline=None)
@given(noise=st.binary(max_size=3000))
def test_noise_is_no_file(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        with suppress(SyncFailed):
            assert put(Path(name), noise, {"a": sha(b"")}) == {}
        assert list(Path(name).iterdir()) == []
