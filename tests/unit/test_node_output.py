"""Lines, ranks and transcripts, whatever the pieces are in which output comes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.cli.node_output import LONGEST_LINE, Lines, ranges
from gpucloud.cli.transcript import Transcripts
from gpucloud.errors import GpucloudError
from gpucloud.fleet.shared_input import AHEAD, SharedInput
from tests.harness.waiting import eventually

PIECES = st.lists(st.binary(max_size=50) | st.sampled_from([b"\n", b"\r\n", b"a\nb\n"]), max_size=20)


@given(PIECES)
def test_lines_are_those_of_the_whole(pieces: list[bytes]) -> None:
    lines = Lines()
    found = [line for piece in pieces for line, _ in lines.feed(piece)]
    found += [line for line, _ in lines.rest()]
    whole = b"".join(pieces)
    assert found == (whole[:-1] if whole.endswith(b"\n") else whole).split(b"\n") * bool(whole)


def test_a_line_that_is_too_long_comes_in_parts_that_say_so() -> None:
    lines = Lines()
    parts = [part for _ in range(5) for part in lines.feed(b"x" * 30_000)]
    parts += lines.feed(b"y\nz\n")
    assert [(len(line), continues) for line, continues in parts] == [
        (LONGEST_LINE, False),
        (LONGEST_LINE, True),
        (150_001 - 2 * LONGEST_LINE, True),
        (1, False),
    ]


@given(st.sets(st.integers(0, 40)))
def test_ranges_name_each_rank_once(ranks: set[int]) -> None:
    named: list[int] = []
    for part in filter(None, ranges(ranks).split(",")):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(ranks)


def test_ranges_are_short() -> None:
    assert ranges([9, 0, 1, 2, 3, 5, 6]) == "0-3,5-6,9"


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=90)), max_size=40))
def test_a_transcript_keeps_the_end_and_knows_the_whole(pieces: list[tuple[int, bytes]]) -> None:
    store = Transcripts(most=100, held=30)
    transcripts = [store.new() for _ in range(3)]
    wholes = [b""] * 3
    for number, data in pieces:
        transcripts[number].add(data)
        wholes[number] += data
    for transcript, whole in zip(transcripts, wholes, strict=True):
        kept = b"".join(transcript.pieces())
        assert transcript.size == len(whole)
        assert whole.endswith(kept)
        assert len(kept) >= min(len(whole), 100)
        assert transcript.left_out == len(whole) - len(kept)
        same = Transcripts().new()
        same.add(whole)
        assert transcript.digest == same.digest


def test_a_full_disk_is_said_in_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Transcripts(most=100, held=10)
    store._file = os.open("/dev/full", os.O_WRONLY) if Path("/dev/full").exists() else -2
    with pytest.raises(GpucloudError, match="cannot be kept") as caught:
        store.new().add(b"x" * 50)
    assert "TMPDIR" in caught.value.hint


class Reader:
    """The input of a command that takes so many bytes and then no more."""

    def __init__(self, most: int) -> None:
        self.taken = b""
        self._most = most
        self.full = threading.Event()
        self.go_on = threading.Event()

    def write(self, data: bytes, /) -> None:
        if len(self.taken) >= self._most:
            self.full.set()
            self.go_on.wait(30)
        self.taken += data


def test_a_reader_that_stops_stalls_no_other() -> None:
    source, sink = os.pipe()
    shared = SharedInput(lambda size: os.read(source, size))
    slow, fast = Reader(10), Reader(1 << 40)
    threads = [threading.Thread(target=shared.feed, args=(reader,)) for reader in (slow, fast)]
    for thread in threads:
        thread.start()
    data = os.urandom(1_000_000)
    with os.fdopen(sink, "wb") as feed:
        feed.write(data)
    threads[1].join(30)
    assert fast.taken == data
    slow.go_on.set()
    threads[0].join(30)
    assert slow.taken == data
    os.close(source)


def test_what_nobody_reads_is_not_spooled_without_end() -> None:
    read = 0

    def endless(size: int) -> bytes:
        nonlocal read
        read += 1 << 20
        return bytes(1 << 20)

    shared = SharedInput(endless)
    eventually(lambda: read >= AHEAD)
    reader = Reader(5 << 20)
    threading.Thread(target=shared.feed, args=(reader,), daemon=True).start()
    reader.full.wait(30)
    assert read <= AHEAD + (8 << 20)


def test_a_failure_to_read_is_every_reader_s() -> None:
    def broken(size: int) -> bytes:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        SharedInput(broken).feed(Reader(0))
