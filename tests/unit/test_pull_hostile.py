"""Hosts that lie: whatever one answers, nothing is written outside the folder or goes wrong otherwise."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucloud.errors import GpucloudError, SyncFailed
from gpucloud.remote import catalogue
from gpucloud.remote.agent import pieces
from gpucloud.remote.agent.frames import HEADER
from gpucloud.remote.catalogue import Catalogue, State
from gpucloud.remote.connection import Connection
from gpucloud.remote.host import Host
from gpucloud.remote.pull import Pulled, pull
from gpucloud.remote.streams import Reader, Writer
from tests.harness.nearby import Pipes, nearby

quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def frame(kind: bytes, data: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(data)) + data


def entry(
    name: str | bytes, content: bytes = b"", *, kind: bytes = pieces.FILE, target: str = "", **other: int
) -> bytes:
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    led = target.encode("utf-8", "surrogateescape")
    size = other.get("size", len(content))
    fields = other.get("mode", 0o644), size, other.get("mtime", 10**18), other.get("held", size), 7
    return pieces.ENTRY.pack(kind, len(raw), len(led), *fields) + raw + led


def listed(*entries: bytes) -> bytes:
    return frame(b"E", zlib.compress(b"".join(entries)))


def whole(number: int, content: bytes, digest: bytes | None = None) -> bytes:
    told = hashlib.sha256(content).digest() if digest is None else digest
    return pieces.WHOLE.pack(number, pieces.OK, len(content), told) + content


class Scripted(Host):
    """A host whose helper answers what a test says, whatever it is asked."""

    def __init__(self, answers: Iterable[bytes]) -> None:
        super().__init__(cast(Connection, Pipes(Path("/"))), "gc-hostile")
        self._answers = iter(answers)

    def agent(
        self, words: Sequence[str], *, stdin: Callable[[Writer], object], consume: Callable[[Reader], object]
    ) -> bool:
        """Read what it likes of the questions."""
        thread = threading.Thread(target=stdin, args=(_Nowhere(),))
        thread.start()
        try:
            consume(_Stream(itertools.chain([frame(b"r")], self._answers)))
        finally:
            thread.join()
        return True


class _Nowhere:
    def write(self, data: bytes, /) -> int:
        return len(data)


class _Stream:
    def __init__(self, answers: Iterator[bytes]) -> None:
        self._answers = answers
        self._held = b""

    def read(self, size: int = 65_536, /) -> bytes:
        while not self._held:
            more = next(self._answers, None)
            if more is None:
                return b""
            self._held = more
        data, self._held = self._held[:size], self._held[size:]
        return data


def attempt(root: Path, answers: Iterable[bytes], patterns: Sequence[str] = (".",)) -> Pulled | GpucloudError:
    """Pull into a folder between others, which must stay as they are; returns how it went."""
    into = root / "home" / "into"
    into.mkdir(parents=True)
    (root / "home" / "mine").write_bytes(b"mine")
    (into / "out").symlink_to("../elsewhere")
    (root / "home" / "elsewhere").mkdir()
    try:
        return pull(Scripted(answers), patterns, into)
    except GpucloudError as error:
        return error
    finally:
        assert sorted(path.name for path in root.iterdir()) == ["home"]
        assert sorted(path.name for path in (root / "home").iterdir()) == ["elsewhere", "into", "mine"]
        assert (root / "home" / "mine").read_bytes() == b"mine"
        assert not list((root / "home" / "elsewhere").iterdir())


HARMLESS = ["a", "b", "a/b", "link/x", "out/x", "\x1b[2J"]
ESCAPES = ["../x", "/x", "", ".", "a//b", "a/./b", "a/../../x", "x\0y"]
LISTED = [frame(b"n"), frame(b"N")]
ENTRIES = st.builds(
    lambda name, kind, target, size, mtime, mode: entry(
        name, kind=kind, target=target, size=size, mtime=mtime, mode=mode
    ),
    st.sampled_from([*HARMLESS, *ESCAPES]),
    st.sampled_from([pieces.FILE, pieces.FILE, pieces.LINK, pieces.LOST, b"?"]),
    st.sampled_from(["", "", "a", "..", "../..", "/etc", "b/../../x", "\0"]),
    st.sampled_from([0, 1, 4, pieces.SMALL + 1, 3 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]),
    st.sampled_from([0, -(1 << 63), (1 << 63) - 1]),
    st.integers(0, 0xFFFF),
)
CONTENTS = st.sampled_from([b"", b"e", b"evil", bytes(pieces.SMALL)])
ANSWERS = st.one_of(
    st.lists(ENTRIES, min_size=1, max_size=4).map(lambda entries: listed(*entries)),
    st.sampled_from(
        [frame(b"n"), frame(b"N"), frame(b"P"), frame(b"X", b"\x1b[2J"), frame(b"R", b"\0"), b""]
    ),
    st.builds(lambda n, c: frame(b"F", whole(n, c)), st.integers(0, 3), CONTENTS),
    st.builds(lambda n, c: frame(b"f", zlib.compress(whole(n, c))), st.integers(0, 3), CONTENTS),
    st.builds(
        lambda at, c: frame(b"D", pieces.DATA.pack(at, hashlib.sha256(c).digest()) + c),
        st.integers(0, 2).map(lambda n: n << 20),
        CONTENTS,
    ),
    st.builds(
        lambda at, size: frame(b"Z", pieces.HOLE.pack(at, size)),
        st.integers(0, 5),
        st.integers(0, 1 << 64 - 1),
    ),
    st.builds(
        lambda n, how, count: frame(b"S", pieces.SUMS.pack(n, how, count) + bytes(32 * min(count, 5))),
        st.integers(0, 3),
        st.integers(0, 6),
        st.integers(0, 9),
    ),
    st.builds(frame, st.binary(min_size=1, max_size=1), st.binary(max_size=40)),
    st.binary(max_size=30),
)


@quick
@given(st.lists(ENTRIES, max_size=3), st.lists(ANSWERS, max_size=12))
def test_whatever_a_host_answers_it_reaches_nothing_else(entries: list[bytes], answers: list[bytes]) -> None:
    begin = [listed(*entries), frame(b"n"), frame(b"N")] if entries else []
    with tempfile.TemporaryDirectory() as folder:
        attempt(Path(folder), [*begin, *answers])


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_leads_out_is_not_taken(tmp_path: Path, name: str) -> None:
    failed = attempt(tmp_path, [listed(entry(name, b"evil")), *LISTED, frame(b"F", whole(0, b"evil"))])
    assert isinstance(failed, SyncFailed)


def test_a_name_that_was_not_asked_for_is_not_taken(tmp_path: Path) -> None:
    failed = attempt(tmp_path, [listed(entry("b", b"evil")), frame(b"n"), frame(b"N")], ["a"])
    assert isinstance(failed, SyncFailed)
    assert "not asked for" in failed.message


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_link_and_then_a_file_below_it_is_not_followed(tmp_path: Path, rounds: int) -> None:
    first, second = entry("a", kind=pieces.LINK, target="b"), entry("a/x", b"evil")
    between = [frame(b"n")] * (rounds - 1)
    (tmp_path / "home" / "into" / "b").mkdir(parents=True)
    failed = attempt2(
        tmp_path,
        [listed(first), *between, listed(second), frame(b"n"), frame(b"N"), frame(b"F", whole(1, b"evil"))],
    )
    assert isinstance(failed, SyncFailed)
    assert not list((tmp_path / "home" / "into" / "b").iterdir())


def attempt2(root: Path, answers: Iterable[bytes]) -> Pulled | GpucloudError:
    try:
        return pull(Scripted(answers), ["."], root / "home" / "into")
    except GpucloudError as error:
        return error


def test_a_folder_that_is_a_link_here_is_not_followed(tmp_path: Path) -> None:
    failed = attempt(
        tmp_path, [listed(entry("out/x", b"evil")), frame(b"n"), frame(b"N"), frame(b"F", whole(0, b"evil"))]
    )
    assert isinstance(failed, SyncFailed)
    assert "out/x" in failed.message


def test_content_that_is_not_what_its_checksum_says_is_not_put_in_place(tmp_path: Path) -> None:
    begin = [listed(entry("a", b"evil")), frame(b"n"), frame(b"N")]
    failed = attempt(tmp_path, [*begin, frame(b"F", whole(0, b"evil", bytes(32)))])
    assert isinstance(failed, SyncFailed)
    assert not (tmp_path / "home" / "into" / "a").exists()


def test_more_than_was_announced_is_not_written(tmp_path: Path) -> None:
    begin = [listed(entry("a", b"evil")), frame(b"n"), frame(b"N")]
    failed = attempt(tmp_path, [*begin, frame(b"F", whole(0, b"evil" * 9))])
    assert isinstance(failed, SyncFailed)
    assert not (tmp_path / "home" / "into" / "a").exists()


def test_a_file_that_is_larger_than_the_disk_is_refused_at_once(tmp_path: Path) -> None:
    failed = attempt(tmp_path, [listed(entry("a", size=1 << 59)), frame(b"n"), frame(b"N")])
    assert isinstance(failed, SyncFailed)
    assert "no room" in failed.message


def test_escapes_for_the_terminal_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    failed = attempt(tmp_path, [frame(b"X", b"\x1b]0;owned\x07\xc2\x9b2J")])
    assert isinstance(failed, SyncFailed)
    assert failed.why.isprintable()


def endless(kind: str) -> Iterator[bytes]:
    number = 0
    bomb = zlib.compress(bytes(1 << 28))
    while True:
        number += 1
        if kind == "list":
            yield listed(*(entry(b"%015d%s" % (number * 1000 + n, b"x" * 3000)) for n in range(80)))
        elif kind == "bomb":
            yield frame(b"E", bomb)
        elif kind == "rounds":
            yield frame(b"n")
        elif kind == "greetings":
            yield frame(b"P")
        elif kind == "frame":
            yield HEADER.pack(b"E", (1 << 32) - 1) + bytes(1 << 20)
        else:
            yield listed()


@pytest.mark.parametrize("kind", ["list", "bomb", "rounds", "greetings", "frame", "nothing"])
def test_an_endless_answer_is_given_up_before_memory_is(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "ROOM", 40_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failed = attempt(tmp_path, endless(kind))
    assert isinstance(failed, SyncFailed)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


MAIN = f"printf '{struct.pack('>cI', b'r', 0).decode()}'".replace("\0", "\\0")


@pytest.mark.parametrize(
    "script",
    [
        "exec cat /dev/zero",
        "head -c 300000000 /dev/zero >&2; exit 3",
        f"{MAIN}; exec cat /dev/zero",
        f"{MAIN}; exec yes",
        f"{MAIN}; exit 7",
        "kill -9 $$",
        "echo 1",
    ],
)
def test_a_helper_that_is_something_else_is_an_error(tmp_path: Path, script: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "python3").chmod(0o755)
    (tmp_path / "home").mkdir()
    near = nearby(tmp_path / "home", {"PATH": f"{tools}:{os.environ['PATH']}"})
    with pytest.raises(GpucloudError) as caught:
        pull(near.host, ["."], tmp_path / "into")
    assert caught.value.why.isprintable()


def test_of_names_that_are_one_here_the_second_is_refused() -> None:
    found = Catalogue(["."], "it")
    found.add(b"".join(map(entry, ["A/x", "B", "a/y", "b", "c", "e\u0301", "\u00e9"])))
    found.refuse_clashes()
    assert found.names(State.CLASHING) == ("a/y", "b", "\u00e9")
