"""A log as lines: never mixed, never without bound, with what is known of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gpucloud.cli.log_lines import LONGEST, Line, Lines, Splitter, event, form
from gpucloud.cli.terminal_text import clean_line
from gpucloud.jobs.logs import Piece

TIME = datetime(2026, 11, 22, 5, 18, 48, tzinfo=UTC)


def piece(data: bytes, offset: int = 0, *, rank: int = 0, attempt: int = 1, known: bool = True) -> Piece:
    return Piece(rank, attempt, offset, data, lambda _: TIME if known else None)


def written(pieces: list[Piece], *, ranks: int = 2, times: bool = False, terminal: bool = False) -> bytes:
    text: list[bytes] = []
    lines = Lines(form(ranks=ranks, times=times, terminal=terminal), text.append)
    for each in pieces:
        lines(each)
    lines.close()
    return b"".join(text)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_lines_are_the_same_in_whatever_pieces_they_come(data: bytes, cuts: list[int]) -> None:
    splitter, begin = Splitter(), 0
    found: list[Line] = []
    for cut in [*sorted(cuts), len(data)]:
        if cut > begin:
            found += splitter.feed(piece(data[begin:cut], begin))
            begin = min(cut, len(data))
    found += splitter.end()
    assert b"".join(line.data + b"\n" * line.ended for line in found) == data
    whole = data.split(b"\n")
    assert [line.data for line in found] == whole[:-1] + [whole[-1]] * bool(whole[-1])
    for line in found:
        assert data[line.offset : line.offset + len(line.data)] == line.data


def test_lines_of_several_ranks_are_never_mixed() -> None:
    pieces = [
        piece(b"one ", rank=0),
        piece(b"two\nthr", rank=11),
        piece(b"more\n", 4),
        piece(b"ee", 7, rank=11),
    ]
    assert written(pieces, ranks=12) == b"11| two\n 0| one more\n11| three\n"


def test_the_time_of_a_line_is_that_of_its_begin_or_unknown() -> None:
    assert written([piece(b"a\n")], times=True, ranks=1) == b"2026-11-22T05:18:48Z a\n"
    unknown = written([piece(b"a\n", known=False)], times=True)
    assert unknown == b"0| unknown              a\n"


def test_a_line_without_end_is_written_in_parts_and_takes_no_memory() -> None:
    text: list[bytes] = []
    lines = Lines(form(ranks=2, times=False, terminal=False), text.append)
    for n in range(100):
        lines(piece(b"x" * 30_000, n * 30_000))
        assert len(lines._splitters[0]._held) <= LONGEST
    lines.close()
    parts = b"".join(text).splitlines()
    assert {len(part) for part in parts[:-1]} == {LONGEST + 3}
    assert sum(len(part) - 3 for part in parts) == 3_000_000


def test_a_piece_of_another_attempt_or_behind_a_hole_begins_a_line() -> None:
    pieces = [piece(b"cut off"), piece(b"again\nhole", attempt=2), piece(b"there\n", 100, attempt=2)]
    assert written(pieces, ranks=1) == b"cut off\nagain\nhole\nthere\n"


def test_what_is_piped_keeps_every_byte_and_what_is_shown_is_safe() -> None:
    nasty = piece(b"10%\r20%\x1b[2J\x1b[31m\xff\b\r\n")
    assert written([nasty]) == b"0| 10%\r20%\x1b[2J\x1b[31m\xff\b\r\n"
    assert written([nasty], terminal=True) == b"0| 20%\x1b[31m\\xff^H\x1b[0m\n"


def test_nothing_goes_back_over_the_rank() -> None:
    assert clean_line(b"\r\r") == clean_line(b"") == ""
    assert clean_line(b"a\rb\b\b\b\b0|") == "b^H^H^H^H0|"


def test_json_tells_all_that_is_known_of_a_line() -> None:
    line = Line(3, 2, 40, "zwölf\x9b\u202e".encode(), True, TIME)
    text = event("j-1")(line)
    assert text.isascii()
    assert json.loads(text) == {
        "schema": "gpucloud.logs/1",
        "job": "j-1",
        "rank": 3,
        "attempt": 2,
        "offset": 40,
        "time": "2026-11-22T05:18:48Z",
        "text": "zwölf\x9b\u202e",
        "ended": True,
    }
    garbage = json.loads(event("j-1")(Line(0, 1, 0, b"\xff\0", False, None)))
    assert (garbage["text"], garbage["hex"], garbage["time"], garbage["ended"]) == (
        "\ufffd\0",
        "ff00",
        None,
        False,
    )
