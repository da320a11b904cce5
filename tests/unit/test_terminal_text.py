"""Whatever comes in, what goes out cannot drive a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.cli.terminal_text import Cleaner, clean

ALLOWED = re.compile(
    r"(?:[\n\t\r\b]|\x1b\[[0-9;:]{0,64}m|\x1b\[[0-2]?K"
    r"|[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f])*"
)

PIECES = st.sampled_from(
    [
        *(bytes([n]) for n in range(256)),
        *(b"\x1b" + bytes([n]) for n in range(0x20, 0x80)),
        *(
            b"\x1b[" + middle + bytes([n])
            for middle in (b"", b"1;31", b"?25", b">4;2")
            for n in range(64, 127)
        ),
        *(
            text.encode()
            for text in ("ü", "日本", "🙂", "\x9b", "\x9d", "\x90", "\u202e", "\u2066", "\u2028")
        ),
        *(
            b"\x1b]0;title\x07",
            b"\x1b]52;c;aGk=\x1b\\",
            b"\x1bPq#0\x1b\\",
            b"\x1b]8;;http://x",
            b"\x1b\\",
            b"text\n",
        ),
        *(b"\x1b[" + b"1;" * n for n in (5, 31, 32, 33, 40)),
        b"\xe6\x97",
        b"\xf0\x9f",
    ]
)
STREAMS = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(b"".join))


@given(STREAMS)
def test_only_what_is_allowed_goes_out(data: bytes) -> None:
    assert ALLOWED.fullmatch(clean(data))
    assert "\x1b" not in clean(data, colours=False).replace("\x1b[K", "").replace("\x1b[0K", "").replace(
        "\x1b[1K", ""
    ).replace("\x1b[2K", "")


@given(STREAMS, st.lists(st.integers(0, 400)))
def test_the_pieces_that_it_comes_in_make_no_difference(data: bytes, cuts: list[int]) -> None:
    cleaner, text, begin = Cleaner(), "", 0
    for cut in [*sorted(cuts), len(data)]:
        text += cleaner.feed(data[begin : max(begin, cut)])
        begin = max(begin, cut)
    assert text + cleaner.end() == clean(data)


@given(STREAMS)
def test_each_byte_alone_makes_no_difference_either(data: bytes) -> None:
    cleaner = Cleaner()
    text = "".join(cleaner.feed(bytes([byte])) for byte in data)
    assert text + cleaner.end() == clean(data)


@given(STREAMS, STREAMS)
def test_at_the_end_it_is_as_new(first: bytes, second: bytes) -> None:
    cleaner = Cleaner()
    cleaner.feed(first)
    cleaner.end()
    assert cleaner.feed(second) + cleaner.end() == clean(second)


@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=60))
def test_text_stays_as_it_is(text: str) -> None:
    # Marks of direction are of a category of their own with what joins letters, and so are not generated.
    assert clean(text.encode()) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"10%\r20%\t\x1b[Kdone\b\b\x1b[2K\n", "10%\r20%\t\x1b[Kdone\b\b\x1b[2K\n"),
        (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        (b"\x1b[38;2;1;2;3mtrue", "\x1b[38;2;1;2;3mtrue\x1b[0m"),
        (b"\x1b[38:5:9mcolon\x1b[m", "\x1b[38:5:9mcolon\x1b[m"),
        # Cursor: anywhere, up, saved and restored; screens; scrolling; reset; modes; questions.
        (b"a\x1b[2J\x1b[Hb\x1b[3Ac\x1b[5;5Hd", "abcd"),
        (b"a\x1b7b\x1b8c\x1b[sd\x1b[ue", "abcde"),
        (b"a\x1b[?1049hb\x1b[?25lc\x1b[1;5rd\x1b[5Se\x1b[!pf", "abcdef"),
        (b"a\x1bcb\x1bDc\x1bMd\x1b=e\x1b>f\x1b#8g", "abcdefg"),
        (b"a\x1b[cb\x1b[6nc\x1b[>cd\x1bZe\x1b[?1$pf", "abcdef"),
        (b"a\x1b[>4;2mb\x1b[?4mc", "abc"),
        # Charsets.
        (b"a\x1b(0b\x1b)Bc\x1b%Gd\x0ee\x0ff", "abcd^Ne^Of"),
        # Titles, clipboard, links, device strings, with every end.
        (b"a\x1b]0;title\x07b\x1b]52;c;cm0=\x1b\\c", "abc"),
        (b"\x1b]8;;http://evil\x1b\\good\x1b]8;;\x1b\\!", "good!"),
        (b"a\x1bP1$r0m\x1b\\b\x1b_x\x1b\\c\x1b^y\x1b\\d\x1bXz\x1b\\e\x1bkw\x1b\\f", "abcdef"),
        (b"a\x1b]0;no end\nb", "a\nb"),
        ("a\x1b]0;t\x9cb".encode(), "ab"),
        (b"a\x1b]0;cut off\x1b[31mb\x1b[m", "a\x1b[31mb\x1b[m"),
        # C1, as one byte and as UTF-8.
        (b"a\x9b31mb\x9d0;t\x07", "a\\x9b31mb\\x9d0;t^G"),
        ("a\x9b31mb\x85c".encode(), "a\\x9b31mb\\x85c"),
        # What does not print.
        (b"\x00\x07\x0b\x0c\x1a\x7f", "^@^G^K^L^Z^?"),
        (b"\xff\xc3(\xed\xa0\x80", "\\xff\\xc3(\\xed\\xa0\\x80"),
        ("if a\u202e} \u2066admin\u2028".encode(), "if a\\u202e} \\u2066admin\\u2028"),
        # What only looks like a sequence.
        (b"\x1b", "^["),
        (b"\x1b\x1b[31mx\x1b[m", "^[\x1b[31mx\x1b[m"),
        (b"\x1b[3\n1m", "^[[3\n1m"),
        (b"\x1b[" + b"1" * 65 + b"m", "^[[" + "1" * 65 + "m"),
        (b"\x1b[12", "^[[12"),
        ("\x1bü".encode(), "^[ü"),
        (b"\xe6\x97", "\\xe6\\x97"),
    ],
)
def test_each_kind_of_sequence(data: bytes, text: str) -> None:
    assert clean(data) == text


def test_colours_can_be_left_out() -> None:
    assert clean(b"\x1b[1;31mred\x1b[0m \x1b[32mgreen", colours=False) == "red green"


@pytest.mark.parametrize("begin", [b"\x1b]0;", b"\x1bP", b"\x1b[", b"\x1b(", b"\x1b["])
def test_a_sequence_without_end_takes_no_memory(begin: bytes) -> None:
    cleaner = Cleaner()
    cleaner.feed(begin)
    for _ in range(100):
        cleaner.feed(b"1;" * 1000)
        assert len(cleaner._held) < 100
    assert "after" in cleaner.feed(b"\nafter\n")
