"""The small language of ``--where``: comparisons of columns, with ``and``, ``or``, ``not`` and brackets.

::

    inet_down > 500 and reliability > 0.98 and cuda >= 12.4
    provider in (vast, runpod) and not (market = spot or country != DE)
    usd_per_gpu_hour < $2.50 and memory_gib >= 512GB and driver is known

An unknown value meets no comparison, and no ``not`` of one either: a filter never lets in what nobody knows.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

from gpucloud.catalog.columns import COLUMNS, MICROS, Column, Kind, Unit
from gpucloud.errors import UsageError

EXAMPLE: Final = "--where 'inet_down>500 and reliability>0.98 and cuda>=12.4'"
DEEPEST: Final = 50
"""How deep brackets and ``not`` may be nested."""
LONGEST: Final = 20
"""How many characters a number may have."""
LONGEST_TEXT: Final = 5_000
"""How many characters a condition may have: SQLite does not take any number of them."""

_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<op><=|>=|!=|==|=|<|>|~)
    |(?P<bracket>[(),])
    |"(?P<double>[^"]*)"|'(?P<single>[^']*)'
    |(?P<word>[^\s<>=!~(),"']+)
    )""",
    re.VERBOSE,
)
_NUMBER: Final = re.compile(
    r"(?P<dollar>\$)?(?P<digits>\d+(?:\.\d+)?|\.\d+)(?P<suffix>%|[mgt]i?b)?", re.IGNORECASE | re.ASCII
)
_FACTORS: Final = {
    "": Decimal(1),
    "%": Decimal("0.01"),
    "m": Decimal(1) / 1024,
    "g": Decimal(1),
    "t": Decimal(1024),
}
_FLAGS: Final = {"yes": 1, "true": 1, "no": 0, "false": 0}


Value: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression of SQL over the tables of the cache, and the values for its question marks."""

    sql: str
    values: tuple[Value, ...] = ()


ALL: Final = Condition("1")
"""What every offer meets."""


def parse(text: str) -> Condition:
    """Read a condition. Raises ``UsageError`` that says where it stops making sense."""
    if len(text) > LONGEST_TEXT:
        raise UsageError("--where is too long", why=f"it has {len(text)} characters", hint=EXAMPLE)
    parser = _Parser(text)
    condition = parser.either()
    if parser.kind:
        raise parser.wrong("'and' or 'or' is missing before")
    return condition


@dataclass(slots=True)
class _Parser:
    """Reads one token ahead: ``kind`` and ``token`` are the next one, empty at the end."""

    text: str
    kind: str = ""
    token: str = ""
    _start: int = 0
    _end: int = 0
    _depth: int = field(default=0)

    def __post_init__(self) -> None:
        self._advance()

    def either(self) -> Condition:
        return self._joined("or", lambda: self._joined("and", self._negated))

    def _joined(self, word: str, part: Callable[[], Condition]) -> Condition:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        if len(parts) == 1:
            return parts[0]
        values = tuple(value for each in parts for value in each.values)
        return Condition("(" + f" {word.upper()} ".join(each.sql for each in parts) + ")", values)

    def _negated(self) -> Condition:
        negated = self._take("not")
        if not negated and not self._take("("):
            return self._comparison()
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.wrong("it is nested too deep at")
        inner = self._negated() if negated else self.either()
        if not negated and not self._take(")"):
            raise self.wrong("a closing bracket is missing before")
        self._depth -= 1
        return Condition(f"(NOT {inner.sql})", inner.values) if negated else inner

    def _comparison(self) -> Condition:
        column = self._column()
        if self._take("is"):
            known = not self._take("not")
            if self._take("unknown"):
                known = not known
            elif not self._take("known"):
                raise self.wrong("'known' or 'unknown' must come before")
            return Condition(f"({column.sql} IS {'NOT ' if known else ''}NULL)")
        if self._take("in"):
            return self._one_of(column)
        if self.kind != "op":
            if column.kind is not Kind.FLAG:
                raise self.wrong(f"{column.name} must be compared with something, before")
            return Condition(f"({column.sql} = 1)")
        operator = self.token
        self._check(column, operator)
        self._advance()
        value = self._value(column)
        if operator == "~":
            return Condition(f"({column.sql} LIKE ? ESCAPE '\\')", (f"%{escaped(str(value))}%",))
        collation = " COLLATE NOCASE" if column.kind is Kind.TEXT else ""
        return Condition(f"({column.sql} {'=' if operator == '==' else operator} ?{collation})", (value,))

    def _one_of(self, column: Column) -> Condition:
        if not self._take("("):
            raise self.wrong("values in brackets must come before")
        values = [self._value(column)]
        while self._take(","):
            values.append(self._value(column))
        if not self._take(")"):
            raise self.wrong("a comma or a closing bracket is missing before")
        collation = " COLLATE NOCASE" if column.kind is Kind.TEXT else ""
        return Condition(f"({column.sql}{collation} IN ({', '.join('?' * len(values))}))", tuple(values))

    def _column(self) -> Column:
        if self.kind != "word":
            raise self.wrong("a column must come before")
        column = COLUMNS.get(self.token.lower())
        if column is None:
            close = difflib.get_close_matches(self.token.lower(), COLUMNS, n=1, cutoff=0.5)
            raise UsageError(
                f"there is no column {self.token!r}",
                why=f"known are {', '.join(COLUMNS)}",
                hint=f"did you mean {close[0]!r}?" if close else EXAMPLE,
            )
        self._advance()
        return column

    def _check(self, column: Column, operator: str) -> None:
        if operator == "~" and column.kind is not Kind.TEXT:
            raise self.wrong(f"{column.name} is no text, so it contains nothing:")
        if operator in {"<", "<=", ">", ">="} and column.kind in {Kind.CHOICE, Kind.FLAG}:
            raise self.wrong(f"{column.name} has no order, only = and != make sense:")

    def _value(self, column: Column) -> Value:
        if self.kind not in {"word", "text"}:
            raise self.wrong("a value must come before")
        value = self._read(column)
        self._advance()
        return value

    def _read(self, column: Column) -> Value:
        if column.kind is Kind.TEXT:
            return self.token
        if column.kind is Kind.CHOICE:
            if self.token.lower() not in column.choices:
                raise self.wrong(f"{column.name} is one of {', '.join(column.choices)}, not")
            return column.choices.index(self.token.lower())
        if column.kind is Kind.FLAG:
            if self.token.lower() not in _FLAGS:
                raise self.wrong(f"{column.name} is yes or no, not")
            return _FLAGS[self.token.lower()]
        return self._number(column)

    def _number(self, column: Column) -> int | float:
        match = _NUMBER.fullmatch(self.token)
        if match is None or len(self.token) > LONGEST:
            raise self.wrong(f"{column.name} is a number, not")
        dollar, digits, suffix = match["dollar"], match["digits"], (match["suffix"] or "")[:1].lower()
        wanted = Unit.USD if dollar else Unit.SHARE if suffix == "%" else Unit.GIB if suffix else column.unit
        if wanted is not column.unit or (dollar and suffix):
            raise self.wrong(f"{column.name} is no such quantity as")
        scaled = Decimal(digits) * _FACTORS[suffix] * (MICROS if column.kind is Kind.AMOUNT else 1)
        return int(scaled) if scaled == scaled.to_integral_value() else float(scaled)

    def _take(self, token: str) -> bool:
        """Go on when the next token is this word or bracket."""
        if self.kind not in {"word", "bracket"} or self.token.lower() != token:
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        match = _TOKEN.match(self.text, self._end)
        if match is None and (rest := self.text[self._end :].strip()):
            self._start, self.token = self.text.index(rest, self._end), rest
            raise self.wrong("a quotation mark is not closed in")
        if match is None or match.lastgroup is None:
            self.kind = self.token = ""
            self._start = len(self.text)
            return
        self.kind, self.token = match.lastgroup, match[match.lastgroup]
        if self.kind in {"double", "single"}:
            self.kind = "text"
        self._start, self._end = match.start(match.lastgroup), match.end()

    def wrong(self, why: str) -> UsageError:
        """An error at the next token."""
        what = repr(self.token) if self.kind or self.token else "the end"
        return UsageError(
            "--where makes no sense", why=f"{why} {what} (character {self._start + 1})", hint=EXAMPLE
        )


def escaped(text: str) -> str:
    """Text for a pattern of LIKE with the escape character ``\\``, standing for itself."""
    return re.sub(r"([%_\\])", r"\\\1", text)
