"""A pull over real SSH: what comes home, verified, and what happens when something goes wrong."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import shutil
import signal
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpucloud.errors import RemoteError, SyncFailed, UsageError
from gpucloud.remote.host import Host
from gpucloud.remote.pull import pull
from tests.harness.host_sh import ODD_NAMES
from tests.integration.synced import (
    BIG,
    There,
    enlarge,
    names,
    needs_mount,
    put,
    run_elsewhere,
    small_disk,
    without_python,
)
from tests.providers.local.conftest import BOTH, a_provider
from tests.providers.rented import Rented, rented


@pytest.fixture(scope="module", params=[*BOTH, "no python"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rented]:
    """A local instance behind either SSH server, and one that has no Python."""
    folder = tmp_path_factory.mktemp("machine")
    bare = request.param == "no python"
    with pytest.MonkeyPatch.context() as patch:
        if bare:
            patch.setenv("PATH", without_python(folder / "bin"))
        with rented(a_provider(folder / "state", BOTH[0] if bare else request.param), folder) as instance:
            patch.undo()
            assert bool(instance.run("command -v python3").status) is bare
            yield instance


@pytest.fixture
def bare(request: pytest.FixtureRequest, there: There) -> There:
    """The host that has no Python, whose shell program a test may replace."""
    if request.node.callspec.params["machine"] != "no python":
        pytest.skip("its program does not do that")
    return there


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "into"
    folder.mkdir(parents=True)
    return folder


def contents(root: Path) -> dict[str, bytes | str]:
    """What is in the files of a tree, and where its links lead."""
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lie(there: There, command: str, script: str) -> None:
    """Let the program there do something else for one of its commands."""
    honest = there.root / "host.sh"
    honest.rename(there.root / "honest.sh")
    honest.write_text(
        f'case $1 in {command}) {script} ;; *) exec sh "$(dirname "$0")/honest.sh" "$@" ;; esac\n'
    )


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["a.pt"], {"a.pt"}),
        (["out"], {"out/a.pt", "out/log", "out/deep/b.pt"}),
        (["out/"], {"out/a.pt", "out/log", "out/deep/b.pt"}),
        (["*.pt"], {"a.pt"}),
        (["**/*.pt"], {"a.pt", "out/a.pt", "out/deep/b.pt"}),
        (["out/?.pt", "./out/l[m-p]g"], {"out/a.pt", "out/log"}),
        (["o*", "out/log"], {"out/a.pt", "out/log", "out/deep/b.pt", "other"}),
    ],
)
def test_files_folders_and_globs_come_to_their_places(
    there: There, into: Path, patterns: list[str], expected: set[str]
) -> None:
    put(there.work, "a.pt", "other", "out/a.pt", "out/log", "out/deep/b.pt")
    pulled = pull(there.host, patterns, into)
    assert pulled.files == {name: into / name for name in expected}
    assert contents(into) == dict.fromkeys(expected, b"content")
    assert pulled.size == 7 * len(expected)
    assert (pulled.missing, pulled.unverified, pulled.refused) == ((), (), ())


def test_all_that_a_name_may_be_comes_home(there: There, into: Path) -> None:
    put(there.work, *ODD_NAMES, "tool", content=os.urandom(100))
    put(there.work, "big", content=os.urandom(3 * BIG))
    put(there.work, "empty", content=b"")
    (there.work / "tool").chmod(0o751)
    (there.work / "link").symlink_to("big")
    (there.work / "dangling").symlink_to("no where")
    pulled = pull(there.host, ["."], into)
    assert contents(into) == contents(there.work)
    assert len(pulled.files) == len(ODD_NAMES) + 5
    assert stat.S_IMODE((into / "tool").stat().st_mode) == 0o751


def test_what_is_here_already_is_not_brought_again(there: There, into: Path) -> None:
    put(there.work, "a", "b/c")
    pull(there.host, ["."], into)
    before = (into / "a").stat()
    lie(there, "pack", "exit 1")
    assert set(pull(there.host, ["."], into).files) == {"a", "b/c"}
    after = (into / "a").stat()
    # Not when it was read last: to compare it is to read it.
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_only_what_was_asked_for_is_overwritten(there: There, into: Path) -> None:
    put(there.work, "out/a", "out/b", "c", content=b"theirs")
    put(into, "out/a", "out/b", "out/mine", "c", content=b"mine")
    pull(there.host, ["out/a"], into)
    assert contents(into) == {"out/a": b"theirs", "out/b": b"mine", "out/mine": b"mine", "c": b"mine"}


def test_patterns_that_match_nothing_are_named(there: There, into: Path) -> None:
    put(there.work, "a")
    (there.work / "hollow").mkdir()
    assert pull(there.host, ["a", "b", "hollow", "*.pt"], into).missing == ("b", "hollow", "*.pt")


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../secret", "out/../../secret", "*/../.."])
def test_a_pattern_that_leads_out_is_refused_and_the_host_not_blamed(
    there: There, into: Path, pattern: str
) -> None:
    with pytest.raises(UsageError) as caught:
        pull(there.host, [pattern], into)
    assert pattern in caught.value.message


def test_a_link_that_is_named_brings_what_it_leads_to(there: There, into: Path) -> None:
    put(there.work, "ckpt/5[a].pt", "runs/2/log", "runs/1/log", "unrelated")
    for link, target in {"best.pt": "ckpt/5[a].pt", "latest": "newest", "newest": "runs/2"}.items():
        (there.work / link).symlink_to(target)
    pulled = pull(there.host, ["*.pt", "latest"], into)
    assert set(pulled.files) == {"best.pt", "ckpt/5[a].pt", "latest", "newest", "runs/2/log"}
    assert (into / "best.pt").read_bytes() == (into / "latest" / "log").read_bytes() == b"content"


def test_a_link_in_a_folder_that_is_named_is_only_a_link(there: There, into: Path) -> None:
    put(there.work, "dataset/huge", "out/log")
    for link, target in {"out/data": "../dataset", "out/self": ".", "all": "."}.items():
        (there.work / link).symlink_to(target)
    assert set(pull(there.host, ["out", "all"], into).files) == {"out/log", "out/data", "out/self", "all"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../elsewhere", "sub/../../../x"])
def test_a_link_that_leads_out_is_no_output(there: There, into: Path, target: str) -> None:
    put(there.work, "out/log")
    for link in ("model.pt", "out/last"):
        (there.work / link).symlink_to(target)
    pulled = pull(there.host, ["model.pt", "out"], into)
    assert (pulled.refused, pulled.missing) == (("model.pt", "out/last"), ("model.pt",))
    assert names(into) == {"out", "out/log"}


def test_what_changes_while_it_is_pulled_comes_as_it_is_then(there: There, into: Path) -> None:
    put(there.work, "a", "log")
    versions = iter([b"one", b"two"])

    def change() -> None:
        if version := next(versions, b""):
            put(there.work, "log", content=version)

    there.host.before_pack = change
    pulled = pull(there.host, ["."], into)
    assert (set(pulled.files), pulled.unverified) == ({"a", "log"}, ())
    assert (into / "log").read_bytes() == b"two"


def test_what_never_keeps_still_is_not_put_in_place(there: There, into: Path) -> None:
    put(there.work, "a", "log")
    put(into, "log", content=b"mine")
    there.host.before_pack = lambda: put(there.work, "log", content=os.urandom(10))
    pulled = pull(there.host, ["."], into)
    assert (set(pulled.files), pulled.unverified) == ({"a"}, ("log",))
    assert contents(into) == {"a": b"content", "log": b"mine"}


def test_what_vanishes_while_it_is_pulled_is_missing_and_not_unverified(there: There, into: Path) -> None:
    put(there.work, "out/a", "out/scratch", "b")

    def vanish() -> None:
        for name in ("out/scratch", "b"):
            (there.work / name).unlink(missing_ok=True)

    there.host.before_pack = vanish
    pulled = pull(there.host, ["out", "b"], into)
    assert (set(pulled.files), pulled.unverified, pulled.missing) == ({"out/a"}, (), ("b",))


def test_an_output_that_has_no_checksum_is_missing(bare: There, into: Path) -> None:
    put(bare.work, "a")
    lie(bare, "digest", "cat >/dev/null; echo gone")
    pulled = pull(bare.host, ["a"], into)
    assert (pulled.files, pulled.missing) == ({}, ("a",))


def hostile(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b"evil") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        hostile("../evil"),
        hostile("/tmp/gpucloud-evil"),
        hostile("sub/a", tarfile.SYMTYPE, "/") + hostile("sub/a/evil"),
        hostile("sub", tarfile.SYMTYPE, "../..") + hostile("sub/a"),
        hostile("sub/a", tarfile.LNKTYPE, "../../mine"),
        hostile("sub/a", tarfile.CHRTYPE),
        hostile("not asked for"),
    ],
)
def test_a_host_that_lies_writes_nothing(bare: There, into: Path, archive: bytes) -> None:
    put(bare.work, "sub/a", content=b"evil")
    put(into.parent, "mine")
    (bare.root / "evil.tar").write_bytes(archive)
    lie(bare, "pack", f"cat >/dev/null; exec cat {shlex.quote(str(bare.root / 'evil.tar'))}")
    with pytest.raises(SyncFailed):
        pull(bare.host, ["."], into)
    assert contents(into.parent) == {"mine": b"content"}
    assert not Path("/tmp/gpucloud-evil").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../evil", ".."])
def test_a_host_that_names_what_is_elsewhere_is_not_trusted(bare: There, into: Path, name: str) -> None:
    lie(bare, "files", f"printf '%s\\0' {name}")
    with pytest.raises(SyncFailed) as caught:
        pull(bare.host, ["."], into)
    assert caught.value.hint == "do not trust it"
    assert names(into.parent) == {"into"}


def test_a_host_whose_files_are_not_what_it_says_brings_nothing(bare: There, into: Path) -> None:
    put(bare.work, "a", "b")
    put(into, "b", content=b"mine")
    lie(bare, "digest", f"cat >/dev/null; echo {sha(b'other')}; echo {sha(b'other')}")
    pulled = pull(bare.host, ["."], into)
    assert (pulled.files, pulled.unverified) == ({}, ("a", "b"))
    assert contents(into) == {"b": b"mine"}


def test_a_folder_that_is_a_link_here_is_not_followed(there: There, into: Path) -> None:
    put(there.work, "out/a", "out/b")
    put(into.parent, "elsewhere/a", content=b"mine")
    (into / "out").symlink_to("../elsewhere")
    with pytest.raises(SyncFailed) as caught:
        pull(there.host, ["out"], into)
    assert "out/" in caught.value.message
    assert contents(into.parent / "elsewhere") == {"a": b"mine"}


def test_a_link_or_a_pipe_in_the_place_of_a_file_is_replaced(there: There, into: Path) -> None:
    put(there.work, "a", "b")
    put(into.parent, "elsewhere", content=b"mine")
    (into / "a").symlink_to("../elsewhere")
    os.mkfifo(into / "b")
    pull(there.host, ["."], into)
    assert contents(into) == {"a": b"content", "b": b"content"}
    assert (into.parent / "elsewhere").read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["into/a", "into"])
def test_a_place_that_is_taken_is_named(there: There, into: Path, place: str) -> None:
    put(there.work, "a")
    if place == "into":
        shutil.rmtree(into)
        put(into.parent, "into")
    else:
        put(into, "a/inner")
    before = contents(into.parent)
    with pytest.raises(SyncFailed) as caught:
        pull(there.host, ["a"], into)
    assert "cannot be written" in caught.value.message
    assert contents(into.parent) == before


@needs_mount
def test_a_full_disk_here_is_told_and_the_next_pull_is_complete(there: There, tmp_path: Path) -> None:
    put(there.work, "a", "z")
    put(there.work, "m", content=os.urandom(3_000_000))
    into = tmp_path / "disk"
    with small_disk(into, "1m"):
        with pytest.raises(SyncFailed) as caught:
            pull(there.host, ["."], into)
        assert "No space left" in caught.value.why
        assert names(into) <= {"a"}
        enlarge(into)
        assert set(pull(there.host, ["."], into).files) == {"a", "m", "z"}
        assert contents(into) == contents(there.work)


def test_a_pull_that_was_killed_leaves_no_half_file_and_is_complete_when_repeated(
    there: There, into: Path, machine: Rented
) -> None:
    put(there.work, "a", "z")
    put(there.work, "m", content=os.urandom(3 * BIG))
    killed = """
host.meddle = [lambda: os.kill(os.getpid(), signal.SIGKILL)]
pull(host, ["."], Path(sys.argv[6]))
"""
    assert run_elsewhere(machine, there, killed, into) == -signal.SIGKILL
    assert {name for name in names(into) if not name.startswith(".gpucloud-")} <= {"a", "z"}
    assert set(pull(there.host, ["."], into).files) == {"a", "m", "z"}
    assert contents(into) == contents(there.work)


def test_a_connection_that_is_lost_leaves_no_half_file(there: There, into: Path, machine: Rented) -> None:
    # More than may be on its way when the connection ends.
    put(there.work, "m", content=os.urandom(40 * BIG))
    put(into, "m", content=b"mine")
    there.host.meddle = [there.host.connection.close]
    with pytest.raises(RemoteError):
        pull(there.host, ["m"], into)
    assert {n: c for n, c in contents(into).items() if not n.startswith(".gpucloud-")} == {"m": b"mine"}
    with machine.connect() as connection:
        pull(Host(connection, there.root.name), ["m"], into)
    assert contents(into) == contents(there.work)
