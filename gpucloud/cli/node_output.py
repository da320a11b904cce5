"""What commands on nodes write, on its way to stdout and stderr: as it is, by line, by node, or as JSON."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from gpucloud.cli.render import colour, encoded, out
from gpucloud.cli.terminal_text import Cleaner, clean_line
from gpucloud.fleet.node_events import NodeEnd, Piece

if TYPE_CHECKING:
    from gpucloud.cli.transcript import Transcript

LONGEST_LINE: Final = 65_536
"""A longer line is passed on in parts, so that one without an end fills no memory."""

_COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Presenter(Protocol):
    """Shows what a fan-out tells."""

    def take(self, event: Piece | NodeEnd) -> None:
        """Some bytes have come, or a node has ended. Raises ``OSError`` and ``GpucloudError``."""

    def close(self) -> None:
        """All nodes have ended."""


class Way:
    """The way of one remote stream to here: on a terminal what is safe for one, else every byte as it is."""

    def __init__(self, stderr: bool) -> None:
        self._stderr = stderr
        self._cleaner = Cleaner(colours=colour()) if _terminal(stderr) else None

    def write(self, data: bytes) -> None:
        """Pass the next piece on."""
        _write(self._stderr, self._cleaner.feed(data).encode() if self._cleaner else data)

    def close(self) -> None:
        """Pass on what was held back, and end any colour."""
        if self._cleaner:
            _write(self._stderr, self._cleaner.end().encode())


class Raw:
    """One node: every byte as it comes, stdout to stdout and stderr to stderr."""

    def __init__(self) -> None:
        self._ways = {stderr: Way(stderr) for stderr in (False, True)}

    def take(self, event: Piece | NodeEnd) -> None:
        """Write it at once."""
        if isinstance(event, Piece):
            self._ways[event.stderr].write(event.data)

    def close(self) -> None:
        """Write what was held back."""
        for way in self._ways.values():
            way.close()


class Lines:
    """Whole lines out of the pieces of one stream; each is told with whether it goes on the one before."""

    def __init__(self) -> None:
        self._held = b""
        self._continues = False

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """The lines that are whole now, without their ends."""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            yield line, self._continues
            self._continues = False
        while len(self._held) >= LONGEST_LINE:
            line, self._held = self._held[:LONGEST_LINE], self._held[LONGEST_LINE:]
            yield line, self._continues
            self._continues = True

    def rest(self) -> Iterator[tuple[bytes, bool]]:
        """A last line that has no end."""
        if self._held:
            yield self._held, self._continues
        self._held = b""


class Prefixed:
    """Line by line as they come, each behind the rank of its node; ``+`` instead of ``|`` goes on a line."""

    def __init__(self, ranks: Iterable[int]) -> None:
        self._width = len(str(max(ranks)))
        self._lines: dict[tuple[int, bool], Lines] = defaultdict(Lines)

    def take(self, event: Piece | NodeEnd) -> None:
        """Write the lines that are whole now, and at the end what has no end of line."""
        if isinstance(event, Piece):
            self._show(event.rank, event.stderr, self._lines[event.rank, event.stderr].feed(event.data))
            return
        for stderr in (False, True):
            self._show(event.rank, stderr, self._lines[event.rank, stderr].rest())

    def close(self) -> None:
        """All of it has been written."""

    def _show(self, rank: int, stderr: bool, lines: Iterable[tuple[bytes, bool]]) -> None:
        terminal = _terminal(stderr)
        prefixes = [self._prefix(rank, mark, terminal) for mark in "|+"]
        shown = []
        for line, continues in lines:
            text = clean_line(line, colours=colour()).encode() if terminal else line
            shown.append(prefixes[continues] + text + b"\n")
        if shown:
            _write(stderr, b"".join(shown))

    def _prefix(self, rank: int, mark: str, terminal: bool) -> bytes:
        if not terminal:
            return f"{rank}{mark} ".encode()
        text = f"{rank:>{self._width}}{mark}"
        return (
            f"\x1b[{_COLOURS[rank % len(_COLOURS)]}m{text}\x1b[0m ".encode()
            if colour()
            else f"{text} ".encode()
        )


class Collected:
    """All that each node has written, as far as it is kept."""

    def __init__(self) -> None:
        from gpucloud.cli.transcript import Transcripts

        self.streams: dict[tuple[int, bool], Transcript] = defaultdict(Transcripts().new)

    def take(self, event: Piece | NodeEnd) -> None:
        """Keep it. Raises ``GpucloudError`` where there is no room."""
        if isinstance(event, Piece):
            self.streams[event.rank, event.stderr].add(event.data)

    def close(self) -> None:
        """Nothing is shown by itself."""


class Grouped(Collected):
    """At the end, all of one node together; nodes that have written the same are shown once."""

    def close(self) -> None:
        """Write each output below the ranks that it is of."""
        same: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
        for rank in sorted({rank for rank, _ in self.streams}):
            same[self.streams[rank, False].digest, self.streams[rank, True].digest].append(rank)
        for ranks in same.values():
            for stderr in (False, True):
                self._show(ranks, stderr, self.streams[ranks[0], stderr])

    def _show(self, ranks: list[int], stderr: bool, stream: Transcript) -> None:
        if not stream.size:
            return
        terminal = _terminal(stderr)
        heading = f"[{ranges(ranks)}]"
        _write(
            stderr,
            f"\x1b[1m{heading}\x1b[0m\n".encode() if terminal and colour() else f"{heading}\n".encode(),
        )
        if stream.left_out:
            _write(stderr, f"(without the first {stream.left_out} bytes)\n".encode())
        way, last = Way(stderr), b""
        for piece in stream.pieces():
            way.write(piece)
            last = piece[-1:] or last
        way.close()
        if last != b"\n":
            _write(stderr, b"\n")


class Streamed:
    """Each line as a JSON document of its own, and one for the end of each node."""

    def __init__(self) -> None:
        self._lines: dict[tuple[int, bool], Lines] = defaultdict(Lines)

    def take(self, event: Piece | NodeEnd) -> None:
        """Write the lines that are whole now, and at the end what has no end of line."""
        if isinstance(event, Piece):
            self._show(event.rank, event.stderr, self._lines[event.rank, event.stderr].feed(event.data))
            return
        for stderr in (False, True):
            self._show(event.rank, stderr, self._lines[event.rank, stderr].rest())
        self._event("end", rank=event.rank, state=event.how, exit_code=event.status)

    def close(self) -> None:
        """All of it has been written."""

    def _show(self, rank: int, stderr: bool, lines: Iterable[tuple[bytes, bool]]) -> None:
        stream = "stderr" if stderr else "stdout"
        for line, continues in lines:
            text = line.decode("utf-8", "replace")
            self._event("line", rank=rank, stream=stream, text=text, continues=continues)

    def _event(self, event: str, **fields: object) -> None:
        out.line(encoded({"schema": "gpucloud.exec-event/1", "event": event, **fields}))
        out.flush()


def ranges(ranks: Iterable[int]) -> str:
    """Ranks in their shortest form: ``0-6,9``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1][1:] = [rank]
        else:
            runs.append([rank])
    return ",".join("-".join(map(str, run)) for run in runs)


def _terminal(stderr: bool) -> bool:
    stream = sys.stderr if stderr else sys.stdout
    return stream is not None and stream.isatty()


def _write(stderr: bool, data: bytes) -> None:
    # There is none where it was closed before we began, as by ``>&-``.
    if (sys.stderr if stderr else sys.stdout) is not None:
        (out.raw_error if stderr else out.raw)(data)
