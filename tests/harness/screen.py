"""What a terminal shows, and has scrolled away, of all that was written to it: as much of one as we need."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PIECE = re.compile(r"\x1b\[(?P<number>[0-9;?]*)(?P<act>[A-Za-z])|(?P<control>[\r\n])|(?P<text>[^\x1b\r\n]+)")


@dataclass(slots=True)
class Screen:
    """A terminal of so many columns, on which lines that are too long go on in the next."""

    columns: int = 100
    rows: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0

    def write(self, text: str) -> None:
        """Show it. Colours are not kept; what is no text nor a move of the cursor fails."""
        at = 0
        while at < len(text):
            piece = _PIECE.match(text, at)
            assert piece, f"no terminal knows {text[at : at + 20]!r}"
            at = piece.end()
            if piece["act"]:
                self._act(piece["act"], piece["number"])
            elif piece["control"] == "\r":
                self.column = 0
            elif piece["control"] == "\n":
                self._down()
            else:
                self._put(piece["text"])

    @property
    def text(self) -> str:
        """All lines, without the spaces at their ends."""
        lines = "\n".join(line.rstrip() for line in self.rows).rstrip("\n")
        return f"{lines}\n" if lines else ""

    def _act(self, act: str, number: str) -> None:
        count = int(number) if number.isdecimal() else 1
        if act == "A":
            self.row = max(0, self.row - count)
        elif act == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            del self.rows[self.row + 1 :]
        elif act == "K":
            self.rows[self.row] = "" if number == "2" else self.rows[self.row][: self.column]

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")

    def _put(self, text: str) -> None:
        for character in text:
            if self.column == self.columns:
                self._down()
                self.column = 0
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1


def shown(text: str, columns: int = 100) -> str:
    """What is to be seen in the end of all that was written."""
    screen = Screen(columns)
    screen.write(text)
    return screen.text
