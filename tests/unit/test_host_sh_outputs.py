"""Files that go home: listed, checksummed and packed by any name that a file can have."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from tests.harness.host_sh import ODD_NAMES, HostSh, nul, write


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.init()
    return host_sh


def listed(host: HostSh, *names: str | bytes) -> list[bytes]:
    done = host.run("files", *(os.fsencode(name) for name in names))
    assert done.stdout == b"" or done.stdout.endswith(b"\0")
    return sorted(name.removeprefix(b"./") for name in done.stdout.split(b"\0")[:-1])


def digests(host: HostSh, *names: str | bytes) -> list[str]:
    lines = host.run("digest", "work", stdin=nul(*names)).stdout.decode().split("\n")
    assert lines.pop() == ""
    return lines


def packed(host: HostSh, *names: str | bytes) -> dict[bytes, bytes | str]:
    """What the archives hold: the content of files, and where links lead."""
    done = host.run("pack", stdin=nul(*names), status=None)
    found: dict[bytes, bytes | str] = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout), mode="r|", ignore_zeros=True) as tar:
        for entry in tar:
            assert entry.isreg() or entry.issym(), entry.name
            file = tar.extractfile(entry) if entry.isreg() else None
            name = os.fsencode(entry.name.removeprefix("./"))
            assert name not in found
            found[name] = file.read() if file else entry.linkname
    return found


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def some_tree(host: HostSh) -> None:
    write(host.work, "top", "out/a", "out/deep/b", "other/c")
    (host.work / "out" / "link").symlink_to("a")
    (host.work / "out" / "empty").mkdir()


def test_files_and_links_are_listed_wherever_they_are_below(host: HostSh) -> None:
    some_tree(host)
    assert listed(host, "out") == [b"out/a", b"out/deep/b", b"out/link"]
    assert listed(host, "out/deep", "top") == [b"out/deep/b", b"top"]
    assert listed(host, ".") == [b"other/c", b"out/a", b"out/deep/b", b"out/link", b"top"]


def test_names_that_are_not_there_are_passed_over(host: HostSh) -> None:
    some_tree(host)
    assert listed(host, "nothing", "top", "out/nothing", "-nothing") == [b"top"]
    assert listed(host, "nothing") == []
    assert listed(host) == []


def test_what_is_neither_file_nor_link_is_not_listed(host: HostSh) -> None:
    os.mkfifo(host.work / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(host.work)
        server.bind("socket")
        os.chdir(here)
    write(host.work, "file")
    assert listed(host, ".", "fifo") == [b"file"]
    assert digests(host, "fifo", "socket", "file") == ["gone", "gone", sha256(b"content")]


def test_odd_names_are_listed_checksummed_and_packed(host: HostSh) -> None:
    names = [os.fsencode(name) for name in ODD_NAMES]
    for n, name in enumerate(names):
        write(host.work, name)
        (host.work / os.fsdecode(name)).write_text(str(n))
        assert listed(host, name) == [name]
    assert listed(host, *names) == listed(host, ".") == sorted(names)
    assert digests(host, *names) == [sha256(str(n).encode()) for n in range(len(names))]
    assert packed(host, *names) == {name: str(n).encode() for n, name in enumerate(names)}


@pytest.mark.parametrize("name", ["-delete", "(", "!", ",", ")", "-exec"])
def test_a_folder_whose_name_is_a_word_of_find_is_just_a_folder(host: HostSh, name: str) -> None:
    write(host.work, f"{name}/file", "other")
    assert listed(host, name) == [f"{name}/file".encode()]
    assert listed(host, ".") == sorted([f"{name}/file".encode(), b"other"])


def test_a_digest_tells_files_links_and_what_is_gone(host: HostSh) -> None:
    some_tree(host)
    (host.work / "dangling").symlink_to("no where")
    (host.work / "empty").touch()
    blob = os.urandom(1_000_000)
    (host.work / "blob").write_bytes(blob)
    assert digests(host, "blob", "out/link", "gone", "dangling", "empty", "out") == [
        *(sha256(blob), "link:a", "gone", "link:no where", sha256(b""), "gone")
    ]


@pytest.mark.parametrize("target", ["two\nlines", "\n", "line\n\n", "\u2028", "\x85\x0b", "-n", "%s\\n"])
def test_wherever_a_link_leads_its_digest_is_one_line(host: HostSh, target: str) -> None:
    (host.work / "link").symlink_to(target)
    assert digests(host, "link", "none") == [f"link:{target.replace(chr(10), '?')}", "gone"]


def test_a_file_that_cannot_be_read_is_not_taken_for_gone(host: HostSh) -> None:
    write(host.work, "a", "b")
    host.tool("sha256sum", f"case $(cat) in content) exit 1 ;; *) {host.real('sha256sum')} <b ;; esac\n")
    (host.work / "b").write_text("another")
    assert digests(host, "a", "b", "c") == ["unreadable", sha256(b"another"), "gone"]


def test_where_there_is_no_sha256sum_another_tool_does_it(host: HostSh) -> None:
    write(host.work, "file")
    host.lose_tools("sha256sum", "shasum")
    real = host.real("sha256sum")
    host.tool("shasum", f'[ "$*" = "-a 256" ] && exec {real}\n')
    assert digests(host, "file") == [sha256(b"content")]


def test_a_digest_of_nothing_is_nothing(host: HostSh) -> None:
    assert digests(host) == []


def test_digests_come_in_the_order_of_the_names_however_many(host: HostSh) -> None:
    names = [f"{'folder' * 20}/{n:05}-{'long' * 30}" for n in range(1500)]
    for n, name in enumerate(names):
        (host.work / name).parent.mkdir(exist_ok=True)
        (host.work / name).write_text(str(n))
    assert digests(host, *names) == [sha256(str(n).encode()) for n in range(1500)]


def test_what_is_packed_is_what_is_there(host: HostSh) -> None:
    some_tree(host)
    blob = os.urandom(1_000_000)
    (host.work / "blob").write_bytes(blob)
    assert packed(host, "blob", "out/link", "out/deep/b") == {
        b"blob": blob,
        b"out/link": "a",
        b"out/deep/b": b"content",
    }


def test_hard_links_are_packed_as_the_files_they_are(host: HostSh) -> None:
    write(host.work, "one")
    os.link(host.work / "one", host.work / "two")
    (host.work / "three").symlink_to("one")
    os.link(host.work / "three", host.work / "four", follow_symlinks=False)
    assert packed(host, "one", "two", "three", "four") == {
        b"one": b"content",
        b"two": b"content",
        b"three": "one",
        b"four": "one",
    }


def test_five_thousand_long_names_are_packed(host: HostSh) -> None:
    names = [f"{'folder' * 15}/{n:05}-{'long' * 30}" for n in range(5000)]
    write(host.work, *names)
    found = packed(host, *names)
    assert set(found) == {name.encode() for name in names}
    assert set(found.values()) == {b"content"}


def test_what_is_gone_by_now_does_not_keep_the_rest_from_being_packed(host: HostSh) -> None:
    write(host.work, "a", "z")
    assert packed(host, "a", "gone", "z") == {b"a": b"content", b"z": b"content"}


def test_no_link_leads_out_of_the_working_directory(host: HostSh) -> None:
    write(host.home, "own/secret")
    (host.work / "folder").symlink_to(host.home / "own")
    (host.work / "file").symlink_to(host.home / "own" / "secret")
    assert listed(host, ".") == listed(host, "folder", "file") == [b"file", b"folder"]
    assert digests(host, "folder", "file") == [f"link:{host.home}/own", f"link:{host.home}/own/secret"]
    assert packed(host, "folder", "file") == {
        b"folder": f"{host.home}/own",
        b"file": f"{host.home}/own/secret",
    }


@pytest.mark.parametrize("command", [("files", "."), ("digest", "work"), ("pack",)])
def test_without_a_working_directory_there_is_an_error(host: HostSh, command: tuple[str, ...]) -> None:
    host.work.rmdir()
    done = host.run(*command, stdin=nul("x"), status=None)
    assert (done.returncode != 0, done.stdout) == (True, b"")


def test_a_search_that_fails_is_an_error_though_the_next_one_succeeds(host: HostSh) -> None:
    write(host.work, "a/x", "b/y")
    host.tool("find", f'{host.real("find")} "$@"\n[ "$1" != a ]\n')
    done = host.run("files", "a", "b", status=1)
    assert sorted(done.stdout.split(b"\0")) == [b"", b"a/x", b"b/y"]
