"""The only door to the terminal: data to stdout, all the rest to stderr.

On a terminal data is a table, piped it is tab-separated without header or colour, with ``--json`` it is one
document. JSON and tab-separated text are written as they are, never through a layout engine.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.cli.exit_codes import exit_code
from gpucloud.errors import GpucloudError, UsageError
from gpucloud.model import Event, Failure
from gpucloud.redact import scrub

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


SHORT: Final = 14
"""Columns of a table are not made narrower than this."""

GAP: Final = 2
"""Between two columns of a table."""


@dataclass(slots=True)
class Output:
    """How this command writes. ``json``: one document on stdout, also for a failure.

    ``explain``: HTTP calls are shown. What is shown live on stderr steps ``aside`` for each line there.
    """

    json: bool = False
    debug: bool = False
    explain: bool = False
    aside: AbstractContextManager[object] = field(default_factory=nullcontext)

    def document(self, schema: str, **fields: Any) -> None:
        """Write the one JSON document of a command: ``gpucloud.SCHEMA/1``."""
        sys.stdout.write(encoded({"schema": f"gpucloud.{schema}/1", **fields}) + "\n")

    def long_document(self, schema: str, name: str, rows: Iterable[Mapping[str, Any]], **fields: Any) -> None:
        """The same with a list of that name first, of which no more than one row is in memory at a time."""
        sys.stdout.write(encoded({"schema": f"gpucloud.{schema}/1"})[:-1] + f', "{name}": [')
        for number, row in enumerate(rows):
            sys.stdout.write((", " if number else "") + encoded(row))
        sys.stdout.write("], " + encoded(fields)[1:] + "\n")

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], least: Sequence[str] = ()
    ) -> None:
        """Write rows of cells; ``None`` is shown as a dash.

        ``least`` are columns that a narrow terminal goes without, the first of them first.
        """
        if self.screen and least:
            kept = fitting(columns, rows, least, self.screen.columns)
            columns, rows = [columns[n] for n in kept], [[row[n] for n in kept] for row in rows]
        cells = [[_cell(value) for value in row] for row in rows]
        if not sys.stdout.isatty():
            sys.stdout.write("".join("\t".join(_flat(cell) for cell in row) + "\n" for row in cells))
            return
        console = _console()
        console.print(_rich_table(columns, cells, console.width))

    @property
    def screen(self) -> os.terminal_size | None:
        """How large the terminal is, if what is written is a table on one."""
        if self.json or not sys.stdout.isatty():
            return None
        try:
            return os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return None

    @property
    def growing(self) -> bool:
        """Whether a table can be shown while it grows, which takes a terminal that can go back a line."""
        return not self.json and sys.stdout.isatty() and colour()

    @contextmanager
    def growing_table(self) -> Iterator[Callable[[Sequence[str], Sequence[Sequence[object]]], None]]:
        """A table on a terminal that is shown again with other columns and rows, and vanishes at the end."""
        from rich.live import Live

        with Live(console=_console(), auto_refresh=False, transient=True) as live:

            def show(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
                most = live.console.height - 2
                cells = [[_cell(value) for value in row] for row in rows[:most]]
                live.update(_rich_table(columns, cells, live.console.width), refresh=True)

            yield show

    def csv(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write rows as RFC 4180 has them, with a header; ``None`` is an empty field."""
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if value is None else _plain_cell(value) for value in row] for row in rows])

    def raw(self, data: bytes) -> None:
        """Write bytes of a job or a file to stdout, now."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def text(self, text: str) -> None:
        """Write what a job printed, made safe for the terminal, to stdout, now."""
        self.raw(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))

    @property
    def on_terminal(self) -> bool:
        """Whether stdout is read by a person."""
        return sys.stdout.isatty()

    def raw_error(self, data: bytes) -> None:
        """Write bytes of a job to stderr, now."""
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()

    def line(self, text: str) -> None:
        """Write a line of data to stdout."""
        sys.stdout.write(text + "\n")

    def note(self, text: str) -> None:
        """Tell the person something, on stderr, where no secret belongs."""
        text = scrub(text)
        with self.aside, suppress(BrokenPipeError):
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def flush(self) -> None:
        """Send what was written on its way."""
        sys.stdout.flush()

    @property
    def live(self) -> os.terminal_size | None:
        """How large the terminal of stderr is, if lines on it can be taken back."""
        if self.json or os.environ.get("TERM", "dumb") == "dumb" or not sys.stderr.isatty():
            return None
        try:
            size = os.get_terminal_size(sys.stderr.fileno())
        except OSError:
            return None
        # A serial line does not know how large the terminal at its end is.
        return size if size.columns and size.lines else None

    def draw(self, frame: str) -> None:
        """Write what moves on the terminal of stderr, which may be gone."""
        with suppress(OSError):
            sys.stderr.write(frame)
            sys.stderr.flush()

    def event(self, event: Event) -> None:
        """Tell of a step while something goes on."""
        self.note(f"{event.kind:>12}  {event.message}")

    def failure(self, failure: Failure) -> None:
        """Tell of a provider that could not answer."""
        self.note(f"{failure.provider}: {failure.message}")

    def error(self, error: GpucloudError) -> None:
        """Three lines on stderr: what, why, what to type next; with ``--json`` also a document on stdout."""
        code = exit_code(error)
        self.note(f"gpucloud: {error.message}")
        self.note(f"     why: {error.why}")
        self.note(f"    next: {error.hint}")
        if self.json:
            self.document(
                "error",
                code=int(code),
                name=error.code,
                code_from="broker",
                message=scrub(error.message),
                why=scrub(error.why),
                hint=scrub(error.hint),
                retryable=error.retryable,
            )


out = Output()
"""The output of this process."""


def encoded(document: Mapping[str, Any]) -> str:
    """A document as JSON."""
    return json.dumps(document, default=_plain, ensure_ascii=False)


def colour() -> bool:
    """Whether colour is wanted on a terminal."""
    if os.environ.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def interactive() -> bool:
    """Whether there is somebody who could answer a question."""
    refused = os.environ.get("GPUCLOUD_NO_INPUT") or os.environ.get("CI")
    return not refused and sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """Put a yes-or-no question on stderr; anything but yes is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def ask_secret(question: str) -> str:
    """Have something typed that is not shown. Raises ``UsageError`` where the terminal shows all."""
    import getpass
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(f"{question}: ", sys.stderr)
        except EOFError:
            return ""
        except getpass.GetPassWarning as error:
            raise UsageError(
                "the secret could be seen", why="this terminal shows what is typed", hint="add --stdin"
            ) from error


def money(amount: Decimal | None) -> str | None:
    """Dollars as JSON has them: a decimal string."""
    return None if amount is None else f"{amount.normalize():f}"


def failures(found: Sequence[Failure]) -> list[dict[str, object]]:
    """Providers that could not answer, as JSON has them."""
    return [
        {"provider": f.provider, "code": f.code, "message": scrub(f.message), "retryable": f.retryable}
        for f in found
    ]


def local_time(moment: datetime | None) -> str | None:
    """A time for a person: local, to the minute."""
    return None if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def fitting(
    columns: Sequence[str], rows: Sequence[Sequence[object]], least: Sequence[str], width: int
) -> list[int]:
    """The places of the columns that a terminal has room for: those of ``least`` go first, in their order."""
    cells = [[_cell(value) for value in row] for row in rows]
    needed = [min(wide, SHORT) + GAP for wide in _widths(columns, cells)]
    kept = list(range(len(columns)))
    for column in least:
        if sum(needed[place] for place in kept) - GAP <= width:
            break
        kept.remove(columns.index(column))
    return kept


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column of a table is."""
    return [max(map(len, column)) for column in zip(columns, *cells, strict=True)]


def _console() -> Console:
    from rich.console import Console

    return Console(no_color=not colour(), highlight=False, markup=False)


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold" if colour() else "")
    for column, room in zip(columns, _fitted(_widths(columns, cells), width), strict=True):
        table.add_column(column, no_wrap=True, justify="right" if "$" in column else "left", width=room)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _fitted(wanted: Sequence[int], width: int) -> list[int]:
    """What is too wide for the terminal is cut, the widest column first; what is short is shown whole."""
    room = list(wanted)
    while sum(room) + GAP * (len(room) - 1) > width and max(room, default=0) > SHORT:
        room[room.index(max(room))] -= 1
    return room


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return (local_time(value) or "") if sys.stdout.isatty() else _plain(value)
    return str(value)


def _plain_cell(value: object) -> object:
    return _plain(value) if isinstance(value, datetime) else value


def _flat(cell: str) -> str:
    return " ".join(cell.split()) if set(cell) & set("\t\r\n") else cell


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return money(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
