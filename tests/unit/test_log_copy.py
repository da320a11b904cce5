"""The copy of a log: parts without holes, for any number of readers at once, and when they were written."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.jobs.log_copy import LogCopy
from gpucloud.jobs.log_times import Times

LOG = bytes(range(256)) * 16


def replayed(copy: LogCopy, offset: int = 0) -> bytes:
    seen = bytearray()

    def take(data: bytes, place: int) -> None:
        assert place == offset + len(seen)
        seen.extend(data)

    copy.replay(offset, take)
    return bytes(seen)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, len(LOG)), st.integers(1, 600)), min_size=1, max_size=30
    )
)
def test_what_any_readers_wrote_is_there_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int, int]]
) -> None:
    file = tmp_path_factory.mktemp("copy") / "log.1"
    readers = [LogCopy(file) for _ in range(4)]
    known = bytearray(len(LOG))
    for reader, offset, size in writes:
        readers[reader].write(LOG[offset : offset + size], offset)
        known[offset : offset + size] = b"\1" * len(LOG[offset : offset + size])
    with LogCopy(file) as fresh:
        for offset in (0, *(begin for _, begin, _ in writes)):
            end = known.find(b"\0", offset)
            assert replayed(fresh, offset) == LOG[offset : end if end >= 0 else len(LOG)]
        assert fresh.size == len(replayed(fresh))
        for part in fresh.parts():
            assert part.file.read_bytes() == LOG[part.begin : part.end]
    for copy in readers:
        copy.__exit__()


def test_a_part_that_another_has_as_well_goes_and_its_writer_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "log.1"
    with LogCopy(file) as behind, LogCopy(file) as ahead:
        ahead.write(LOG[100:200], 100)
        behind.write(LOG[:300], 0)
        with LogCopy(file) as fresh:
            assert [part.begin for part in fresh.parts()] == [0]
        ahead.write(LOG[200:400], 200)
        assert replayed(behind) == LOG[:400]


def test_the_holes_of_a_copy_are_known(tmp_path: Path) -> None:
    with LogCopy(tmp_path / "log.1") as copy:
        assert (copy.after(0), copy.size, copy.touched_at) == (None, 0, None)
        copy.write(b"one\n", 0)
        copy.write(b"nine\nten", 50)
        assert (copy.after(4), copy.after(58), copy.size) == (50, None, 4)
        copy.finish(58)
        assert not copy.whole
        assert copy.last(5) == (50, 2)
        copy.write(b"x" * 46, 4)
        copy.finish(58)
        assert copy.whole
        assert copy.last(5) == (0, 3)


@pytest.mark.parametrize("text", [b"", b"\n", b"a", b"a\n", b"a\nb", b"\n\na\n", b"x" * 3_000_000 + b"\nb\n"])
@pytest.mark.parametrize("lines", [0, 1, 2, 100])
def test_the_last_lines_of_a_copy(tmp_path: Path, text: bytes, lines: int) -> None:
    with LogCopy(tmp_path / "log.1") as copy:
        copy.write(text, 0)
        wanted = text.splitlines(keepends=True)[max(0, len(text.splitlines()) - lines) :]
        assert copy.last(lines) == (len(text) - sum(map(len, wanted)), len(wanted))


def test_the_begin_of_a_line(tmp_path: Path) -> None:
    with LogCopy(tmp_path / "log.1") as copy:
        copy.write(b"first\nsecond\n", 0)
        assert [copy.line_at(place) for place in (0, 3, 6, 8, 13)] == [0, 0, 6, 6, 13]
        assert copy.line_at(99) == 99


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_byte_was_written_by_the_first_look_that_found_it() -> None:
    times = Times([(100, 10), (200, 20)])
    assert [times.of(place) for place in (0, 9, 10, 19, 20)] == [at(100), at(100), at(200), at(200), None]
    assert [times.since(at(moment)) for moment in (50, 100, 101, 200, 201)] == [0, 0, 10, 10, 20]
    assert Times().since(at(0)) is None


def test_what_comes_while_we_listen_is_of_now() -> None:
    times = Times.told(b"1000 10\n1005 30\n", 1005)
    times.arrived(30, 1006)
    assert times.of(20) is None, "what was there before may be of any time"
    times.arrived(40, 1007)
    times.arrived(50, 1007.5)
    times.arrived(60, 1020)
    assert [times.of(place) for place in (5, 35, 45, 55, 60)] == [
        at(1000),
        at(1007),
        at(1007),
        at(1020),
        None,
    ]


def test_without_a_word_of_the_host_nothing_is_taken_for_new() -> None:
    times = Times()
    times.arrived(100, 1000)
    assert times.of(0) is None


def test_a_clock_that_is_wrong_there_is_set_right() -> None:
    times = Times.told(b"5000 10\n5010 20\n", 1010)
    assert times.of(0) == at(1000)
    assert Times.told(b"1000 10\n1010 20\n", 1011).of(0) == at(1000), "a second may just be the way"


@pytest.mark.parametrize(
    "report", [b"1000 10\n10\n1001 1x\n\xff\n-\n1002 5\n900 50\n99999 60\n1003 30\n1004 30\n"]
)
def test_samples_that_make_no_sense_are_left_out(report: bytes) -> None:
    times = Times.told(report, 1004)
    assert [times.of(place) for place in (0, 10, 30)] == [at(1000), at(1003), None]


def test_a_host_that_tells_no_time_is_told_of() -> None:
    with pytest.raises(ValueError, match="no time"):
        Times.told(b"nonsense\n", 1000)


def test_times_are_kept_and_never_replaced_by_fewer(tmp_path: Path) -> None:
    file = tmp_path / "log.1.times"
    assert Times.load(file).of(0) is None
    Times([(1, 10), (2, 20)]).save(file)
    Times([(1, 10)]).save(file)
    Times().save(file)
    assert Times.load(file).of(15) == at(2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.1.times"]


def test_following_for_months_takes_no_more_memory() -> None:
    times = Times.told(b"0 0\n", 0)
    for second in range(100_000):
        times.arrived(second * 10 + 10, float(second))
    assert times.of(999_995) == at(99_999)
    assert len(times._at) <= 20_000
