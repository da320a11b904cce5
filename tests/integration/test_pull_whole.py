"""The tree that was pushed comes back, and whatever is cut off is completed by another pull."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucloud.errors import HostUnreachable, SyncFailed
from gpucloud.remote.agent import pieces
from gpucloud.remote.fetch import Wishes
from gpucloud.remote.progress import Progress
from gpucloud.remote.pull import pull
from gpucloud.remote.push import push
from tests.harness.nearby import Nearby, nearby
from tests.integration.synced import put

quick = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))

MTIME_NS = 1_600_000_000_123_456_789


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """The files and links of a tree; times in the whole seconds that an archive has."""
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = (str(path.readlink()),)
        elif path.is_file():
            found[name] = (stat.S_IMODE(status.st_mode), int(status.st_mtime), path.read_bytes())
    return found


def visible(root: Path) -> dict[str, bytes]:
    """What of a folder is no part of a file that is still to come."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".gpucloud-")
    }


@pytest.fixture
def near(tmp_path: Path) -> Nearby:
    """A host without a connection that could be slow."""
    home = tmp_path / "home"
    home.mkdir()
    return nearby(home)


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
PATHS = (
    st.lists(NAMES.filter(lambda name: name not in {".", "..", ".git", ".gitignore"}), min_size=1, max_size=3)
    .map("/".join)
    .filter(lambda path: all(len(part.encode()) < 200 for part in path.split("/")))
)
FILES = st.dictionaries(
    PATHS, st.tuples(st.binary(max_size=200) | st.just(bytes(3000)), st.sampled_from([0o600, 0o644, 0o755]))
)


def without_clashes(files: Mapping[str, tuple[bytes, int]]) -> dict[str, tuple[bytes, int]]:
    """What of it can be in one tree: no file in the place of a folder."""
    folders = {path[:at] for path in files for at, letter in enumerate(path) if letter == "/"}
    return {path: file for path, file in files.items() if path not in folders}


@quick
@given(files=FILES, links=st.dictionaries(NAMES.filter(lambda n: n not in {".", ".."}), PATHS, max_size=2))
def test_what_is_pushed_comes_back(files: dict[str, tuple[bytes, int]], links: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("home", "here", "back"):
            (root / name).mkdir()
        near = nearby(root / "home")
        for path, (content, mode) in without_clashes(files).items():
            put(root / "here", path, content=content)
            (root / "here" / path).chmod(mode)
            os.utime(root / "here" / path, ns=(MTIME_NS, MTIME_NS))
        for name, target in links.items():
            if not os.path.lexists(root / "here" / name):
                (root / "here" / name).symlink_to(target)
        push(near.host, root / "here", "work")
        expected = seen(near.work)
        pulled = pull(near.host, ["."], root / "back")
        assert seen(root / "back") == expected
        assert set(pulled.files) == set(expected)
        assert seen(root / "here") == expected


def a_tree(near: Nearby, into: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """A host's tree and what is here of an older one; returns their contents."""
    old = os.urandom(3 * pieces.SMALL)
    new = {
        "a": b"new",
        "large": os.urandom(5 * pieces.SMALL // 2),
        "log": old + os.urandom(pieces.SMALL),
        "sub/b": b"b" * 5000,
        "z": os.urandom(pieces.SMALL),
    }
    before = {"a": b"old", "log": old, "mine": b"mine"}
    for path, content in new.items():
        put(near.work, path, content=content)
    for path, content in before.items():
        put(into, path, content=content)
    return new, before


@quick
@given(st.floats(0, 1), st.booleans())
def test_whatever_byte_it_is_cut_at_the_next_pull_completes_it(where: float, twice: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, into = Path(folder) / "home", Path(folder) / "into"
        home.mkdir()
        near = nearby(home)
        new, before = a_tree(near, into)
        whole = sum(map(len, new.values())) - len(before["log"]) + 3000
        for cut in [where, where / 2] if twice else [where]:
            near.pipes.cut_after, near.pipes.passed = int(whole * cut), 0
            try:
                pull(near.host, ["."], into)
            except HostUnreachable:
                for path, content in visible(into).items():
                    assert content in {new.get(path), before.get(path)}
                assert visible(into)["mine"] == b"mine"
        near.pipes.cut_after = None
        assert set(pull(near.host, ["."], into).files) == set(new)
        assert visible(into) == {**before, **new}
        assert not list(into.rglob(".gpucloud-*"))


def test_what_had_come_before_a_cut_does_not_come_again(near: Nearby, tmp_path: Path) -> None:
    put(near.work, "large", content=os.urandom(20 * pieces.SMALL))
    near.pipes.cut_after = 15 * pieces.SMALL
    with pytest.raises(HostUnreachable):
        pull(near.host, ["large"], tmp_path / "into")
    near.pipes.cut_after, near.pipes.passed = None, 0
    pull(near.host, ["large"], tmp_path / "into")
    assert near.pipes.passed < 7 * pieces.SMALL
    assert visible(tmp_path / "into") == visible(near.work)


def test_of_a_large_file_only_what_has_changed_comes(near: Nearby, tmp_path: Path) -> None:
    put(near.work, "ckpt", "log", content=os.urandom(10 * pieces.SMALL))
    pull(near.host, ["."], tmp_path / "into")
    with (near.work / "ckpt").open("r+b") as file:
        file.seek(4 * pieces.SMALL + 5)
        file.write(b"changed")
    with (near.work / "log").open("ab") as file:
        file.write(b"one line more")
    near.pipes.passed = 0
    pull(near.host, ["."], tmp_path / "into")
    assert near.pipes.passed < pieces.SMALL
    assert visible(tmp_path / "into") == visible(near.work)
    os.truncate(near.work / "log", 2 * pieces.SMALL)
    pull(near.host, ["."], tmp_path / "into")
    assert visible(tmp_path / "into") == visible(near.work)


def test_several_connections_bring_one_file(near: Nearby, tmp_path: Path) -> None:
    put(near.work, "large", content=os.urandom(70 * pieces.SMALL))
    told: list[Progress] = []
    pulled = pull(near.host, ["large"], tmp_path / "into", watch=told.append)
    assert near.pipes.lanes >= 1
    assert pulled.size == 70 * pieces.SMALL
    assert visible(tmp_path / "into") == visible(near.work)
    assert (
        (told[-1].files, told[-1].bytes) == (told[-1].files_total, told[-1].bytes_total) == (1, pulled.size)
    )


def test_a_sparse_file_stays_sparse(near: Nearby, tmp_path: Path) -> None:
    with (near.work / "image").open("wb") as file:
        file.truncate(1 << 34)
        file.seek(1 << 33)
        file.write(b"in the middle")
    pull(near.host, ["image"], tmp_path / "into")
    status = (tmp_path / "into" / "image").stat()
    assert (status.st_size, status.st_blocks < 4096) == (1 << 34, True)
    assert near.pipes.passed < pieces.SMALL * 3


def test_times_and_permissions_come_along_but_no_more(near: Nearby, tmp_path: Path) -> None:
    put(near.work, "small", "large", content=bytes(2 * pieces.SMALL))
    put(near.work, "small")
    for name in ("small", "large"):
        (near.work / name).chmod(0o6751)
        os.utime(near.work / name, ns=(MTIME_NS, MTIME_NS))
    pull(near.host, ["."], tmp_path / "into")
    for name in ("small", "large"):
        status = (tmp_path / "into" / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o751, MTIME_NS)
    assert (
        pull(near.host, ["."], tmp_path / "into", wishes=Wishes(trusting=True)).size == 2 * pieces.SMALL + 7
    )


def test_two_pulls_at_once_do_not_disturb_each_other(near: Nearby, tmp_path: Path) -> None:
    import threading

    put(near.work, "large", content=os.urandom(20 * pieces.SMALL))
    put(near.work, *[f"small{number}" for number in range(200)], content=os.urandom(500))
    failures: list[BaseException] = []

    def one() -> None:
        try:
            pull(near.host, ["."], tmp_path / "into")
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert visible(tmp_path / "into") == visible(near.work)
    assert not list((tmp_path / "into").glob(".gpucloud-*"))


def test_what_cannot_be_read_there_is_unverified(near: Nearby, tmp_path: Path) -> None:
    put(near.work, "a", "b")
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (near.work / "b").chmod(0)
    pulled = pull(near.host, ["."], tmp_path / "into")
    assert (set(pulled.files), pulled.unverified) == ({"a"}, ("b",))


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.13"])
def test_the_helper_runs_on_other_versions_of_python(near: Nearby, tmp_path: Path, version: str) -> None:
    python = next(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python3"), None)
    found = str(python) if python else shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"no Python {version} here")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(found)
    near.pipes.environ = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "LC_ALL": "C"}
    put(near.work, "out/naïve*", b"out/\xff", content=b"odd")
    put(near.work, "large", content=os.urandom(2 * pieces.SMALL))
    put(tmp_path / "into", "large", content=bytes(2 * pieces.SMALL))
    (near.work / "link").symlink_to("out")
    pull(near.host, ["large", "l*"], tmp_path / "into")
    assert seen(tmp_path / "into") == seen(near.work)


def test_a_file_that_may_not_grow_so_far_here_is_told(near: Nearby, tmp_path: Path) -> None:
    put(near.work, "a")
    put(near.work, "large", content=os.urandom(4 * pieces.SMALL))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * pieces.SMALL, limits[1]))
    try:
        with pytest.raises(SyncFailed) as caught:
            pull(near.host, ["."], tmp_path / "into")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "'large' cannot be written" in caught.value.message
    assert set(visible(tmp_path / "into")) == {"a"}
    pull(near.host, ["."], tmp_path / "into")
    assert visible(tmp_path / "into") == visible(near.work)


def test_a_part_that_nobody_came_back_for_is_forgotten(near: Nearby, tmp_path: Path) -> None:
    put(near.work, "a")
    into = tmp_path / "into"
    put(into, ".gpucloud-0123456789abcdef-part", ".gpucloud-fedcba9876543210-part", ".gpucloud-mine")
    os.utime(into / ".gpucloud-0123456789abcdef-part", (0, 0))
    pull(near.host, ["a"], into)
    assert {path.name for path in into.iterdir()} == {
        "a",
        ".gpucloud-fedcba9876543210-part",
        ".gpucloud-mine",
    }
