"""Rows of the comparison with rsync: several ways do the same on the same line, one after the other."""

from __future__ import annotations

import os
import shutil
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.bench import trees
from tests.bench.contenders import Command, Contender, Engine, Rsync, SharedSsh, SshTar
from tests.bench.sync_rig import Far

ROUNDS: Final = int(os.environ.get("GPUCLOUD_BENCH_ROUNDS", "3"))
NO_SLOWER: Final = 1.1
"""The limit of each row on a host without Python."""

COLUMNS: Final = (
    "workload",
    "RTT ms",
    "gpucloud s",
    "warm process s",
    "rsync -a s",
    "rsync -az s",
    "ratio",
    "limit",
    "of the",
    "rsync over a ControlMaster s",
    "ssh + tar s",
    "peak MiB",
)


class Kind(StrEnum):
    """What is timed: on a new connection into an empty folder, or with both as they were left."""

    COLD = "cold"
    WARM = "warm"
    PULL = "pull"


@dataclass(frozen=True, slots=True)
class Row:
    """A workload: ``make`` writes the tree, ``change`` what is to be sent of it in the round of a number.

    ``limits`` are, by milliseconds, the largest ratio to the faster of ``rsync -a`` and ``rsync -az``; these
    are for the command, but where ``alone`` has the milliseconds for a process that is running already.
    """

    name: str
    kind: Kind
    make: Callable[[Path], None]
    limits: Mapping[int, float]
    change: Callable[[Path, int], None] = lambda tree, number: None
    compresses: bool = False
    alone: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians in seconds, by the name of the contender, and the most memory that one of ours had."""

    row: Row
    rtt_ms: int
    python: bool
    seconds: Mapping[str, float]
    peak_mib: float

    @property
    def held(self) -> str:
        """Which of ours is held to the limit."""
        return Engine.name if self.rtt_ms in self.row.alone else Command.name

    @property
    def limit(self) -> float:
        """The largest ratio that is good enough."""
        return self.row.limits[self.rtt_ms] if self.python else NO_SLOWER

    @property
    def ratio(self) -> float:
        """Ours to theirs."""
        theirs = min(self.seconds[name] for name in ("rsync -a", "rsync -az") if name in self.seconds)
        return self.seconds[self.held] / theirs

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as people read it, for `COLUMNS`."""
        names = (Command.name, Engine.name, "rsync -a", "rsync -az", f"rsync -a {Rsync.SHARED}", SshTar.name)
        shown = [f"{self.seconds[name]:.3f}" if name in self.seconds else "" for name in names]
        return (
            self.row.name + ("" if self.python else ", no python3 there"),
            str(self.rtt_ms),
            *shown[:4],
            f"{self.ratio:.2f}",
            f"{self.limit:.2f}",
            "command" if self.held == Command.name else "warm process",
            *shown[4:],
            f"{self.peak_mib:.0f}",
        )


@dataclass(slots=True)
class Contest:
    """A row on a line: ``tree`` is what ``row.make`` has written, ``scratch`` a folder that may be filled."""

    row: Row
    far: Far
    tree: Path
    scratch: Path
    python: bool = True
    rounds: int = ROUNDS
    _seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list), init=False)

    def run(self) -> Measured:
        """Let all do it in turns, and see that each has brought everything, which is not timed."""
        far, kind = self.far, self.row.kind
        contenders = [
            Command(far),
            Rsync(far),
            Engine(far),
            *([Rsync(far, "-az")] if self.row.compresses else []),
        ]
        if kind is Kind.WARM:
            with SharedSsh(far) as ssh:
                self._warm([*contenders, Rsync(far, through=ssh)])
        else:
            turns = (each for number in range(self.rounds) for each in _turned(contenders, number))
            # Who is there only for information does it once.
            for contender in [*turns, SshTar(far)]:
                (self._cold if kind is Kind.COLD else self._pull)(contender)
        return Measured(
            row=self.row,
            rtt_ms=round(far.rtt_s * 1000),
            python=self.python,
            seconds={name: statistics.median(times) for name, times in self._seconds.items()},
            peak_mib=max(each.peak_kib or 0 for each in contenders) / 1024,
        )

    def _cold(self, contender: Contender) -> None:
        with contender:
            contender.disconnect()
            self._seconds[contender.name].append(contender.push(self.tree))
            self._verify(contender, contender.there)

    def _pull(self, contender: Contender) -> None:
        (name,) = (file.name for file in self.tree.iterdir())
        into = self.scratch / "home"
        into.mkdir()
        with contender:
            contender.disconnect()
            shutil.copytree(self.tree, contender.there, dirs_exist_ok=True)
            self._seconds[contender.name].append(contender.pull(name, into))
        self._verify(contender, into)
        shutil.rmtree(into)

    def _warm(self, contenders: Sequence[Contender]) -> None:
        with ExitStack() as stack:
            for contender in contenders:
                stack.enter_context(contender)
            with self.far.close_by():
                for contender in contenders:
                    contender.push(self.tree)
            for contender in contenders:
                # What a connection has learnt of the line is no longer so.
                contender.disconnect()
                contender.push(self.tree)
            # What is short varies the most.
            for number in range(2 * self.rounds + 1):
                self.row.change(self.tree, number)
                for contender in _turned(contenders, number):
                    self._seconds[contender.name].append(contender.push(self.tree))
            for contender in contenders:
                self._verify(contender, contender.there)

    def _verify(self, contender: Contender, copy: Path) -> None:
        # An output that comes home is as new as its coming.
        odd = trees.differences(self.tree, copy, marks=self.row.kind is not Kind.PULL)
        assert not odd, f"{contender.name} brought {len(odd)} things otherwise: {odd[:5]}"


def _turned(contenders: Sequence[Contender], number: int) -> Iterator[Contender]:
    """All of them; whoever is first in this round is last in the next."""
    first = number % len(contenders)
    yield from contenders[first:]
    yield from contenders[:first]
