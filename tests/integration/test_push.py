"""A push over real SSH: what arrives, and what is deleted."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpucloud.errors import SyncFailed
from gpucloud.remote.push import push
from tests.harness.host_sh import ODD_NAMES
from tests.integration.synced import There, installed, listing, names, put
from tests.providers.rented import Rented

NOBODY = 65_534


def test_a_tree_arrives_as_it_is(there: There, here: Path) -> None:
    put(here, *ODD_NAMES, *(b"odd/" + os.fsencode(name) + b"/file" for name in ODD_NAMES))
    put(here, "empty", content=b"")
    put(here, "big", content=os.urandom(4_500_000))
    put(here, "/".join(["deep" * 15] * 8) + "/file")
    for mode in (0o755, 0o600, 0o444, 0o400, 0o640):
        put(here, f"modes/{mode:o}")
        (here / "modes" / f"{mode:o}").chmod(mode)
    for folder in ("hollow", "hollow/inner", "private"):
        (here / folder).mkdir()
    (here / "private").chmod(0o700)
    for link, target in {"up": "../elsewhere", "root": "/", "dangling": "no where", "folder": "odd"}.items():
        (here / link).symlink_to(target)
    (here / "hard").hardlink_to(here / "big")
    with (here / "sparse").open("wb") as sparse:
        sparse.truncate(3_000_000)
    os.utime(here / "big", (1_600_000_000, 1_600_000_000))
    sent = push(there.host, here, "work")
    assert listing(there.work) == listing(here)
    assert (sent.files, sent.removed, sent.changing, sent.skipped) == (2 * len(ODD_NAMES) + 10, 0, (), ())
    assert (there.work / "hard").stat().st_ino != (there.work / "big").stat().st_ino


def test_what_is_no_file_is_left_out_with_a_word(there: There, here: Path) -> None:
    put(here, "file")
    os.mkfifo(here / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        place = os.open(here, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{place}/socket")
        os.close(place)
        sent = push(there.host, here, "work")
    assert sent.skipped == (("pipe", "fifo"), ("socket", "socket"))
    assert names(there.work) == {"file"}


def test_ignored_files_are_neither_sent_nor_deleted_there(there: There, here: Path) -> None:
    put(here, "a.log", "sub/b.tmp", "sub/c.tmp", "data/x", "kept.log", "code")
    put(here, ".gitignore", content=b"*.log\n")
    put(here, "sub/.gitignore", content=b"*.tmp\n!c.tmp\n")
    put(here, ".gpucloudignore", content=b"data/\n!kept.log\n")
    put(there.work, "a.log", "train.log", "sub/b.tmp", "data/x", content=b"theirs")
    push(there.host, here, "work")
    sent = {".gitignore", ".gpucloudignore", "code", "kept.log", "sub", "sub/.gitignore", "sub/c.tmp"}
    theirs = {"a.log", "train.log", "sub/b.tmp", "data", "data/x"}
    assert names(there.work) == sent | theirs
    (here / "code").unlink()
    push(there.host, here, "work")
    assert names(there.work) == sent - {"code"} | theirs
    assert {(there.work / name).read_bytes() for name in theirs - {"data"}} == {b"theirs"}


def test_what_was_sent_and_is_ignored_now_is_not_deleted(there: There, here: Path) -> None:
    put(here, "runs/1/step", "runs/2/step", "a.log", "b.log", "code")
    push(there.host, here, "work")
    put(here, ".gitignore", content=b"*.log\nruns/\n")
    shutil.rmtree(here / "runs" / "2")
    (here / "b.log").unlink()
    assert push(there.host, here, "work").removed == 0
    assert names(there.work) == {*names(here), "runs/2", "runs/2/step", "b.log"}


def test_outputs_that_were_sent_along_are_the_job_s_from_then_on(there: There, here: Path) -> None:
    put(here, "code", "ckpt/1", "ckpt/2")
    put(here, ".gitignore", content=b"ckpt/\n")
    assert push(there.host, here, "work", extra=["ckpt"]).files == 4
    put(there.work, "ckpt/2", content=b"newer")
    put(here, "code", content=b"other")
    (here / "ckpt" / "2").unlink()
    assert push(there.host, here, "work").files == 1
    assert (there.work / "ckpt" / "2").read_bytes() == b"newer"


def test_what_cannot_be_read_any_more_is_not_deleted_there(
    machine: Rented, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A shared connection is for one user alone, and here is another for a while.
    with tempfile.TemporaryDirectory() as folder, machine.builtin() as connection:
        there = installed(connection, machine.folder / "home")
        here = Path(folder, "here")
        monkeypatch.setenv("HOME", folder)
        put(here, "closed/a", "file", "gone")
        push(there.host, here, "work")
        (here / "gone").unlink()
        for name in ("closed", "file"):
            (here / name).chmod(0)
        Path(folder).chmod(0o755)
        with unprivileged():
            sent = push(there.host, here, "work")
        assert sent.skipped == (("closed", "unreadable"), ("file", "unreadable"))
        assert names(there.work) == {"closed", "closed/a", "file"}
        (here / "closed").chmod(0o755)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may read everything, so be somebody else for a while."""
    user = os.getuid()
    os.setresuid(user or NOBODY, user or NOBODY, user)
    try:
        yield
    finally:
        os.setresuid(user, user, user)


def test_a_second_push_sends_what_changed_and_nothing_else(there: There, here: Path) -> None:
    put(here, "big", content=os.urandom(5_000_000))
    put(here, "sub/small", "tool")
    push(there.host, here, "work")
    assert there.host.sent_bytes > 5_000_000
    there.host.sent_bytes = 0
    assert push(there.host, here, "work").files == 0
    few, there.host.sent_bytes = there.host.sent_bytes, 0
    assert few < 20_000
    put(here, "sub/small", content=b"more")
    (here / "tool").chmod(0o755)
    sent = push(there.host, here, "work")
    # Of what only changed its permissions nothing is sent.
    assert (sent.files, sent.size) == (2, 4)
    assert there.host.sent_bytes < few + 300
    assert listing(there.work) == listing(here)


def test_what_vanished_here_is_deleted_there_and_nothing_else(there: There, here: Path) -> None:
    put(here, "old", "stay", "run/code", "run/log", "gone/deep/file")
    put(there.root.parent, "old", "neighbour/old")
    (here / "link").symlink_to("../../old")
    push(there.host, here, "work")
    put(there.work, "run/result", "made/by/job", "gone/here")
    for name in ("old", "run/log", "link"):
        (here / name).unlink()
    shutil.rmtree(here / "gone")
    assert push(there.host, here, "work").removed == 6
    made = {"run/result", "made", "made/by", "made/by/job", "gone", "gone/here"}
    assert names(there.work) == names(here) | made
    assert {"old", "neighbour/old"} <= names(there.root.parent)


def _file(path: Path) -> None:
    put(path.parent, path.name)


def _folder(path: Path) -> None:
    put(path, "x", "sub/y")


def _link(path: Path) -> None:
    path.symlink_to("../../outside")


@pytest.mark.parametrize(
    ("before", "after"),
    [(_file, _folder), (_folder, _file), (_folder, _link), (_link, _folder), (_file, _link), (_link, _file)],
)
def test_what_changes_its_kind_changes_it_there(
    there: There, here: Path, before: Callable[[Path], None], after: Callable[[Path], None]
) -> None:
    put(there.root.parent, "outside/x", "outside/sub/y", content=b"not ours")
    outside = listing(there.root.parent / "outside")
    before(here / "it")
    push(there.host, here, "work")
    shutil.rmtree(here / "it") if (here / "it").is_dir() and before is _folder else (here / "it").unlink()
    after(here / "it")
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)
    assert listing(there.root.parent / "outside") == outside


def test_a_result_in_a_folder_that_became_a_file_is_kept_and_named(there: There, here: Path) -> None:
    put(here, "run/code")
    push(there.host, here, "work")
    put(there.work, "run/result")
    shutil.rmtree(here / "run")
    put(here, "run")
    with pytest.raises(SyncFailed) as caught:
        push(there.host, here, "work")
    assert "run" in caught.value.message + caught.value.why
    assert (there.work / "run" / "result").read_bytes() == b"content"
    shutil.rmtree(there.work / "run")
    push(there.host, here, "work")
    assert listing(there.work) == listing(here)


@pytest.mark.parametrize("target", ["work/conf/.env", "~/.env", "~/a b/.env"])
def test_one_file_comes_to_its_place_under_its_new_name(
    there: There, here: Path, home: Path, target: str
) -> None:
    put(home, ".config/git/ignore", content=b".env\n")
    put(here, "production.env", content=b"A=1")
    place = there.root / target if target.startswith("work") else there.root.parents[1] / target[2:]
    assert push(there.host, here / "production.env", target).files == 1
    assert place.read_bytes() == b"A=1"
    put(place.parent, "neighbour")
    put(here, "production.env", content=b"A=2")
    push(there.host, here / "production.env", target)
    assert place.read_bytes() == b"A=2"
    assert (place.parent / "neighbour").exists()


def test_a_source_that_is_not_there_is_named(there: There, here: Path) -> None:
    with pytest.raises(SyncFailed) as caught:
        push(there.host, here / "nothing", "work/file")
    assert "nothing" in caught.value.message
