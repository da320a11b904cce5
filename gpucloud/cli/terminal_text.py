"""What strangers print, made safe for a terminal: colours and progress bars stay, all that drives it goes.

A terminal is a machine that obeys what is printed: it moves, sets titles, fills the clipboard and answers
questions into the person's own input. Nothing but the following is let through: printable text, newline, tab,
carriage return and backspace, colours (``ESC [ ... m``), and the erasing of the line (``ESC [ K``). Sequences
that a terminal would obey are left out; what else does not print is shown: ``^G``, ``\\x9b``, ``\\u202e``.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

RESET: Final = "\x1b[0m"

_LONGEST: Final = 64
"""Parameters of a sequence that are longer are none; true colours for both grounds take 40."""

_BIDI: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""They change the order in which the rest of a line is shown, so that it reads as what it is not."""

_BREAKS: Final = "\u2028\u2029"

_HIDDEN: Final = rf"\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f{_BIDI}{_BREAKS}\U000e0000-\U000e007f"

_SUSPECT: Final = re.compile(f"[{_HIDDEN}]")
"""To look for these first is ten times as fast where there is none, as in most logs."""

_TOKEN: Final = re.compile(
    rf"""
      (?P<colour>  \x1b\[ [0-9;:]{{0,{_LONGEST}}} m )
    | (?P<erase>   \x1b\[ [0-2]? K )
    | (?P<control> \x1b\[ [0-?]{{0,{_LONGEST}}} [\ -/]{{0,8}} [@-~]
                 | \x1b [\ -/]{{1,8}} [0-~]
                 | \x1b [0-OQ-WYZ\\`-jl-~] )
    | (?P<string>  \x1b [\]PX^_k] [^\x07\n\x18\x1a\x1b\x9c]* (?P<end> [\x07\x18\x1a\x9c] | (?=[\n\x1b]) )? )
    | (?P<hidden>  [{_HIDDEN}] )
    """,
    re.VERBOSE,
)

_INCOMPLETE: Final = re.compile(rf"\x1b(?:\[[0-?]{{0,{_LONGEST}}}[ -/]{{0,8}}|[ -/]{{0,8}})?", re.ASCII)
"""What a sequence that is no string may begin with."""

_STRING_END: Final = re.compile(r"[\x07\x18\x1a\x9c]|(?=[\n\x1b])")

_RESETS: Final = frozenset({"\x1b[m", RESET})

_HELD: Final = 1 + 1 + _LONGEST + 8


class Cleaner:
    """Makes one stream of bytes safe; ``colours``: whether they may stay.

    However the stream is cut into pieces, the text is the same. What is held back is the begin of a character
    or of a sequence, some 80 bytes at most; a string, as a title is one, ends at the end of its line at the
    latest, and nothing of it is kept. Bytes that are no UTF-8 are shown as ``\\xff``.
    """

    def __init__(self, *, colours: bool = True) -> None:
        self._colours = colours
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""
        self._in_string = False
        self._coloured = False

    def feed(self, data: bytes) -> str:
        """The text of the next piece."""
        return self._cleaned(self._held + self._decoder.decode(data))

    def end(self) -> str:
        """What was held back, and the end of any colour; afterwards the cleaner is as new."""
        text = self._cleaned(self._held + self._decoder.decode(b"", final=True))
        # Nothing more comes that could make a sequence of it.
        text += _TOKEN.sub(self._replaced, self._held)
        if self._coloured:
            text += RESET
        self._decoder.reset()
        self._held, self._in_string, self._coloured = "", False, False
        return text

    def _cleaned(self, text: str) -> str:
        if self._in_string:
            end = _STRING_END.search(text)
            if end is None:
                self._held = ""
                return ""
            self._in_string = False
            text = text[end.end() :]
        if not _SUSPECT.search(text):
            self._held = ""
            return text
        begin = text.rfind("\x1b", max(0, len(text) - _HELD))
        if begin < 0 or not _INCOMPLETE.fullmatch(text, begin):
            begin = len(text)
        text, self._held = text[:begin], text[begin:]
        return _TOKEN.sub(self._replaced, text)

    def _replaced(self, token: re.Match[str]) -> str:
        kind, text = token.lastgroup, token[0]
        if kind == "hidden":
            return _shown(text)
        if kind == "colour":
            self._coloured = self._colours and text not in _RESETS
            return text if self._colours else ""
        if kind == "string" and token["end"] is None:
            self._in_string = True
        return text if kind == "erase" else ""


def clean(data: bytes, *, colours: bool = True) -> str:
    """The safe text of something that is complete."""
    cleaner = Cleaner(colours=colours)
    return cleaner.feed(data) + cleaner.end()


def clean_line(data: bytes, *, colours: bool = True) -> str:
    """A line behind something else: what a progress bar shows last, as it must not go back to before it."""
    shown = data.rstrip(b"\r").rpartition(b"\r")[2]
    return clean(shown, colours=colours).replace("\b", "^H")


def _shown(character: str) -> str:
    """A character that does not print, as terminals and ``repr`` write it."""
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"^{chr(code ^ 0x40)}"
    return ascii(character)[1:-1]
