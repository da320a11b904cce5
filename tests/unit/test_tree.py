from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent import manifest
from gpucloud.remote.archive import CHUNK, header, write_tar
from gpucloud.remote.difference import Plan, difference
from gpucloud.remote.tree import Entry, EntryKind, Tree, scan

FILE, FOLDER, SYMLINK = EntryKind.FILE, EntryKind.FOLDER, EntryKind.SYMLINK
SHORT = Path("/sys/kernel/profiling")
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")

names = st.one_of(
    st.sampled_from(
        [
            "a",
            "b",
            "-rf",
            "--help",
            " ",
            "a b",
            "é",
            "\n",
            "a\\b",
            "'\"",
            "*",
            os.fsdecode(b"\xff"),
            "n" * 200,
        ]
    ),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
).filter(lambda name: name not in {".", "..", ".git"} and len(os.fsencode(name)) < 256)
SIZES = st.integers(0, 3000)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@st.composite
def entries(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> dict[str, Entry]:
    """A tree as ``scan`` would find it: every parent is a folder that is listed."""
    found: dict[str, Entry] = {}
    modes = st.integers(0, 0o777)
    # tar warns of times in the future.
    times = st.integers(0, 2**30).map(lambda seconds: seconds * 1_000_000_000)
    for path in draw(st.lists(paths, max_size=8)):
        kind = draw(st.sampled_from(EntryKind))
        parents = [parent for parent in _parents(path) if parent not in found]
        if path in found or any(found[p].kind is not FOLDER for p in _parents(path) if p in found):
            continue
        for parent in parents:
            found[parent] = Entry(parent, FOLDER, 0, 0, draw(modes) | 0o700)
        if kind is SYMLINK:
            found[path] = Entry(path, kind, 0, 0, 0o777, draw(names))
        else:
            size = draw(sizes) if kind is FILE else 0
            found[path] = Entry(
                path, kind, size, draw(times), draw(modes) | 0o600 | (0o100 * (kind is FOLDER))
            )
    return dict(sorted(found.items()))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def build(root: Path, tree: dict[str, Entry]) -> None:
    for entry in tree.values():
        place = root / entry.path
        if entry.kind is FOLDER:
            place.mkdir()
        elif entry.kind is SYMLINK:
            place.symlink_to(entry.target)
        else:
            place.write_bytes(os.urandom(entry.size))
    for entry in reversed(tree.values()):
        place = root / entry.path
        if entry.kind is not SYMLINK:
            place.chmod(entry.mode)
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def listed(tree: Tree) -> list[str]:
    return [entry.path for entry in tree.entries]


def test_scan_lists_folders_before_what_is_in_them_and_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty").mkdir(parents=True)
    (tmp_path / "a-b").write_bytes(b"12345")
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "a" / "x").chmod(0o4751)
    os.utime(tmp_path / "a" / "x", ns=(5, 1_234_567_891_234_567_891))
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "dangling").symlink_to("/nowhere/at all")
    (tmp_path / ".git").mkdir()
    tree = scan(tmp_path)
    assert listed(tree) == ["a", "a-b", "a/empty", "a/x", "dangling", "loop"]
    found = {entry.path: entry for entry in tree.entries}
    assert found["a/x"] == Entry("a/x", FILE, 3, 1_234_567_891_234_567_891, 0o751)
    assert (found["a/empty"].kind, found["a/empty"].size) == (FOLDER, 0)
    assert (found["dangling"].kind, found["dangling"].target) == (SYMLINK, "/nowhere/at all")
    assert (tree.files, tree.size, tree.skipped) == (2, 8, ())
    assert listed(scan(tmp_path, rules=False)) == listed(tree)


@settings(deadline=None)
@given(tree=entries())
def test_scan_finds_what_is_there(tree: dict[str, Entry]) -> None:
    with tempfile.TemporaryDirectory() as name:
        build(Path(name), tree)
        found = {entry.path: entry for entry in scan(Path(name), rules=False).entries}
    folders = [path for path, entry in tree.items() if entry.kind is FOLDER]
    assert {path: entry for path, entry in found.items() if path not in folders} == {
        path: entry for path, entry in tree.items() if path not in folders
    }
    assert [(path, found[path].kind, found[path].mode) for path in folders] == [
        (path, FOLDER, tree[path].mode) for path in folders
    ]


def test_scan_leaves_out_what_the_rules_exclude(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").touch()
    (tmp_path / "y.log").touch()
    (tmp_path / ".gitignore").write_text("data/\n*.log\n")
    assert listed(scan(tmp_path)) == [".gitignore"]
    assert listed(scan(tmp_path, rules=False)) == [".gitignore", "data", "data/x", "y.log"]


@pytest.mark.parametrize(
    ("extra", "taken"),
    [
        (["out"], ["out", "out/a", "out/a/x.pt", "out/a/y.log"]),
        (["./out/"], ["out", "out/a", "out/a/x.pt", "out/a/y.log"]),
        (["out/**"], ["out", "out/a", "out/a/x.pt", "out/a/y.log"]),
        (["out/*/*.pt"], ["out", "out/a", "out/a/x.pt"]),
        (["**/y.???"], ["out", "out/a", "out/a/y.log"]),
        (["out/**/x.pt", "z.pt"], ["out", "out/a", "out/a/x.pt", "z.pt"]),
        (["out/x.pt", "/z.pt", "a"], []),
        (["*"], ["out", "out/a", "out/a/x.pt", "out/a/y.log", "z.pt"]),
        ([], []),
    ],
)
def test_extras_are_taken_although_excluded(tmp_path: Path, extra: list[str], taken: list[str]) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    for path in ("out/a/x.pt", "out/a/y.log", "z.pt"):
        (tmp_path / path).touch()
    (tmp_path / "out" / ".git").touch()
    (tmp_path / ".gitignore").write_text("out/\n*.pt\n")
    assert listed(scan(tmp_path, extra=extra)) == [".gitignore", *taken]


def test_scan_skips_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        listener.bind("s")
        tree = scan(tmp_path)
    assert tree == Tree({}, (("pipe", "fifo"), ("s", "socket")))


@not_root
def test_scan_skips_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0o200)
    (tmp_path / "closed").mkdir(mode=0o300)
    assert scan(tmp_path).skipped == (("closed", "unreadable"), ("secret", "unreadable"))


@pytest.mark.parametrize("name", ["missing", "file"])
def test_scan_wants_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SyncFailed, match=name) as failed:
        scan(tmp_path / name)
    assert failed.value.why and failed.value.hint


def test_scan_survives_files_that_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "stays").touch()
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            for number in range(20):
                (tmp_path / f"d{number}").mkdir()
                (tmp_path / f"d{number}" / "x").touch()
                (tmp_path / f"l{number}").symlink_to("x")
            for number in range(20):
                shutil.rmtree(tmp_path / f"d{number}")
                (tmp_path / f"l{number}").unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        trees = [scan(tmp_path) for _ in range(200)]
    finally:
        over.set()
        thread.join()
    assert all("stays" in listed(tree) and not tree.skipped for tree in trees)


def test_biggest_names_files_and_top_level_folders() -> None:
    sizes = {"a/b/x": 5, "a/y": 4, "z": 7}
    tree = Tree(packed({path: Entry(path, FILE, size, 0, 0o644) for path, size in sizes.items()}))
    assert tree.biggest(3) == [("a/", 9), ("z", 7), ("a/b/x", 5)]
    assert tree.biggest(0) == []


def packed(tree: dict[str, Entry]) -> dict[bytes, bytes]:
    """A tree as both sides pack it."""
    kinds = {FILE: manifest.FILE, FOLDER: manifest.FOLDER, SYMLINK: manifest.LINK}
    found: dict[bytes, list[bytes]] = {}
    for entry in tree.values():
        folder, name = manifest.split(os.fsencode(entry.path))
        target = os.fsencode(entry.target)
        one = manifest.row(name, kinds[entry.kind] | entry.mode, entry.size, entry.mtime_ns, target)
        if entry.kind is SYMLINK:
            one = manifest.row(name, manifest.LINK | 0o777, len(target), 0, target)
        if entry.kind is FOLDER:
            one = manifest.row(name, manifest.FOLDER | entry.mode, 0, 0)
        found.setdefault(folder, []).append(one)
    return {folder: manifest.block_of(one) for folder, one in found.items()}


@given(old=entries(st.integers(0, 1)), new=entries(st.integers(0, 1)), data=st.data())
def test_a_difference_turns_one_tree_into_the_other(
    old: dict[str, Entry], new: dict[str, Entry], data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(list(old)), unique=True)) if old else []
    for path in kept:
        if all(new.get(parent, old[parent]).kind is FOLDER for parent in _parents(path)):
            new |= {parent: old[parent] for parent in _parents(path) if parent not in new}
            if path not in new:
                new[path] = old[path]
    here, there = packed(new), packed(old)
    plan = difference(there, Tree(here), lambda path, is_folder: False)

    host = {entry.path: entry for entry in Tree(there).entries}
    for path in map(os.fsdecode, plan.remove_files):
        assert host.pop(path).kind is not FOLDER
    for path in map(os.fsdecode, plan.remove_folders):
        assert host.pop(path).kind is FOLDER
        assert not [below for below in host if below.startswith(path + "/")]
    for one in plan.folders:
        [(name, mode, _, _, _)] = _whole_rows(one)
        host[os.fsdecode(name)] = Entry(os.fsdecode(name), FOLDER, 0, 0, mode & 0o777)
    for which in (plan.send, plan.alike, plan.touch):
        for folder, found in which.items():
            for entry in Tree({folder: manifest.block_of(found)}).entries:
                assert host.get(entry.path) != entry
                assert entry.path not in host or host[entry.path].kind is entry.kind
                assert all(host[parent].kind is FOLDER for parent in _parents(entry.path))
                if which is not plan.send:
                    assert host[entry.path].size == entry.size
                host[entry.path] = entry
    assert host == {entry.path: entry for entry in Tree(here).entries}
    assert plan.there == here
    assert difference(here, Tree(here), lambda path, is_folder: False) == Plan(here)


def _whole_rows(one: bytes) -> list[tuple[bytes, int, int, int, bytes]]:
    length, mode, size, mtime_ns = manifest.ROW.unpack_from(one)
    return [(one[manifest.ROW.size :][:length], mode, size, mtime_ns, b"")]


def test_what_is_unseen_stays_and_is_part_of_what_is_there() -> None:
    old = packed({"a": Entry("a", FILE, 1, 1, 0o644), "b": Entry("b", FILE, 1, 1, 0o644)})
    plan = difference(old, Tree({}), lambda path, is_folder: path == b"b")
    assert plan.remove_files == [b"a"]
    assert plan.there == packed({"b": Entry("b", FILE, 1, 1, 0o644)})


def test_times_and_permissions_that_a_host_cannot_hold_are_no_difference() -> None:
    here = Tree(packed({"a": Entry("a", FILE, 1, 1_000_000_007, 0o640)}))
    there = packed({"a": Entry("a", FILE, 1, 1_000_000_000, 0o777)})
    plan = difference(there, here, lambda path, is_folder: False, 1_000_000_000, modes=False)
    assert plan == Plan(plan.there)
    assert difference(there, here, lambda path, is_folder: False, 1_000_000_000).touch


EXTRACTORS = [["tar", "-xpof", "-"], ["busybox", "tar", "-xpof", "-"], ["bsdtar", "-xpof", "-"]]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            command,
            marks=pytest.mark.skipif(not shutil.which(command[0]), reason=f"{command[0]} is not installed"),
        )
        for command in EXTRACTORS
    ],
    ids=lambda command: command[0],
)
@settings(max_examples=60, deadline=None)
@given(tree=entries(st.sampled_from([0, 1, 511, 512, 513, 3000, CHUNK, CHUNK + 1])))
def test_an_archive_is_extracted_to_the_same_tree(command: list[str], tree: dict[str, Entry]) -> None:
    with tempfile.TemporaryDirectory() as name:
        here, there = Path(name, "here"), Path(name, "there")
        here.mkdir()
        there.mkdir()
        build(here, tree)
        archive = io.BytesIO()
        sent = scan(here, rules=False).entries
        assert write_tar(here, sent, archive) == []
        extracted = subprocess.run(
            command, cwd=there, input=archive.getvalue(), capture_output=True, check=False
        )
        assert (extracted.returncode, extracted.stderr) == (0, b"")
        arrived = scan(there, rules=False).entries
        assert [_extracted(entry) for entry in arrived] == [_extracted(entry) for entry in sent]
        for entry in sent:
            if entry.kind is FILE:
                assert (there / entry.path).read_bytes() == (here / entry.path).read_bytes()
                assert (there / entry.path).stat().st_mtime_ns == entry.mtime_ns


def _extracted(entry: Entry) -> tuple[Any, ...]:
    return entry.path, entry.kind, entry.size, entry.mode, entry.target


def contents(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: file.read() if file else b"" for name, file in files}


class Meddler(io.BytesIO):
    """Takes an archive, and does something to the files as soon as the first content has come."""

    def __init__(self, meddle: Any) -> None:
        super().__init__()
        self.meddle = meddle

    def write(self, data: Any, /) -> int:
        if len(data) == CHUNK and self.meddle:
            self.meddle()
            self.meddle = None
        return super().write(data)


def test_a_file_that_shrinks_or_grows_does_not_break_the_archive(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 3 * CHUNK)
    tree = scan(tmp_path)

    shrunk = Meddler(lambda: os.truncate(tmp_path / "a", CHUNK))
    assert write_tar(tmp_path, tree.entries, shrunk) == ["a"]
    assert contents(shrunk.getvalue()) == {"a": b"a" * CHUNK + bytes(2 * CHUNK), "b": b"b" * 3 * CHUNK}

    (tmp_path / "a").write_bytes(b"a" * 3 * CHUNK)
    grown = Meddler(lambda: os.truncate(tmp_path / "a", 4 * CHUNK))
    assert write_tar(tmp_path, scan(tmp_path).entries, grown) == ["a"]
    assert contents(grown.getvalue()) == {"a": b"a" * 3 * CHUNK, "b": b"b" * 3 * CHUNK}


def test_what_changed_since_it_was_listed_is_named(tmp_path: Path) -> None:
    for name in ("gone", "link", "pipe", "folder", "other", "same"):
        (tmp_path / name).write_bytes(b"old")
    tree = scan(tmp_path)
    for name in ("gone", "link", "pipe", "folder"):
        (tmp_path / name).unlink()
    (tmp_path / "link").symlink_to("same")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").write_bytes(b"newer")
    archive = io.BytesIO()
    assert write_tar(tmp_path, tree.entries, archive) == ["folder", "gone", "link", "other", "pipe"]
    assert contents(archive.getvalue()) == {"other": b"newer", "same": b"old"}


@pytest.mark.skipif(not SHORT.exists(), reason="needs a file that is shorter than it says, as in sysfs")
def test_a_file_that_is_shorter_than_it_says_is_filled_up_and_named() -> None:
    status = SHORT.stat()
    entry = Entry(SHORT.name, FILE, status.st_size, status.st_mtime_ns, 0o644)
    archive = io.BytesIO()
    assert write_tar(SHORT.parent, [entry], archive) == [SHORT.name]
    content = SHORT.read_bytes()
    assert contents(archive.getvalue()) == {SHORT.name: content + bytes(status.st_size - len(content))}


def test_hard_links_are_separate_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    archive = io.BytesIO()
    assert write_tar(tmp_path, scan(tmp_path).entries, archive) == []
    assert contents(archive.getvalue()) == {"a": b"x", "b": b"x"}


def test_files_of_many_gigabytes_can_be_announced(tmp_path: Path) -> None:
    class Full(Exception):
        pass

    class Little(io.BytesIO):
        def write(self, data: Any, /) -> int:
            if self.tell() > 2 * CHUNK:
                raise Full
            return super().write(data)

    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 9 * 2**30)
    out = Little()
    with pytest.raises(Full):
        write_tar(tmp_path, scan(tmp_path).entries, out)
    info = tarfile.TarInfo.frombuf(out.getvalue()[:512], "utf-8", "surrogateescape")
    assert (info.name, info.size) == ("big", 9 * 2**30)


def test_a_long_path_and_target_fit_in_a_header() -> None:
    entry = Entry("d/" * 500 + "é", SYMLINK, 0, 0, 0o777, "t" * 3000)
    with tarfile.open(fileobj=io.BytesIO(header(entry) + bytes(1024))) as tar:
        [member] = tar.getmembers()
    assert (member.name, member.linkname) == (entry.path, entry.target)
