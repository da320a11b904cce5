"""``gpucloud exec``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from gpucloud.cli.app import Command, app
from gpucloud.cli.exec_report import Report
from gpucloud.cli.node_output import Collected, Grouped, Prefixed, Presenter, Raw, Streamed
from gpucloud.cli.nodes import STRAIGHT, NodeName, Words, command_words, find_node, in_workdir
from gpucloud.cli.render import out
from gpucloud.errors import GpucloudError, UsageError

if TYPE_CHECKING:
    from gpucloud.fleet.fan_out import FanOut, Input
    from gpucloud.remote.streams import Writer


class OptionsAfterName(Command):
    """A command whose own options may also stand right behind the name; a command begins with none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put them before the name, where they are looked for."""
        before = self._options(args)
        name = args[before : before + 1]
        rest = args[before + 1 :]
        behind = self._options(rest)
        return super().parse_args(ctx, [*args[:before], *rest[:behind], *name, *rest[behind:]])

    def _options(self, args: Sequence[str]) -> int:
        """How many of the first words are options and their values."""
        options = [param for param in self.params if isinstance(param, click.Option)]
        valued = {name for option in options if not option.is_flag for name in option.opts}
        at = 0
        while at < len(args) and args[at].startswith("-") and args[at] not in {"-", "--"}:
            at += 2 if args[at] in valued else 1
        return min(at, len(args))


@app.command("exec", context_settings=STRAIGHT, cls=OptionsAfterName)
def exec_(
    name: NodeName,
    words: Words,
    everywhere: Annotated[bool, typer.Option("--all", help="On every node at once.")] = False,
    group: Annotated[bool, typer.Option("--group", help="At the end, same outputs once.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="With --json: each line as it comes.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="The first failure ends the others.")
    ] = False,
    timeout: Annotated[
        str,
        typer.Option("--timeout", metavar="TIME", help="End it on a node after this, as 90s; status 124."),
    ] = "",
) -> None:
    """Run a command on a machine and return its exit status.

    With --all on every node of a cluster at once; the status is that of the worst: a node that could not be
    reached, else the highest.

    Example: gpucloud exec train --all -- nvidia-smi -L
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.fan_out import FanOut
    from gpucloud.jobs.script import command_text

    here = fleet()
    cluster, rank = find_node(here, name)
    text = command_text(command_words(words))
    ranks = range(len(cluster.rentals)) if everywhere else range(rank, rank + 1)
    presenter = _presenter(ranks, group=group, stream=stream)
    fan = FanOut(
        here,
        cluster,
        lambda rank: in_workdir(cluster, rank, text),
        ranks,
        stdin=_input(len(ranks)),
        timeout_s=_seconds(timeout),
        fail_fast=fail_fast,
    )
    raise typer.Exit(_follow(fan, Report(cluster, ranks), presenter))


def _seconds(timeout: str) -> float | None:
    if not timeout:
        return None
    from gpucloud.cli.options import parsed
    from gpucloud.quantities import parse_duration

    limit = parsed("--timeout", timeout, parse_duration)
    return limit.total_seconds() if limit else None


def _input(nodes: int) -> Input:
    """What is piped in, for one node as it comes and for several from a copy; a keyboard stays here."""
    if sys.stdin is None or sys.stdin.isatty() or _nothing(sys.stdin.fileno()):
        return b""
    read = partial(os.read, sys.stdin.fileno())
    if nodes > 1:
        from gpucloud.fleet.shared_input import SharedInput

        return SharedInput(read).feed

    def pass_on(remote: Writer) -> None:
        while data := read(65_536):
            remote.write(data)

    return pass_on


def _nothing(descriptor: int) -> bool:
    """Whether it leads to ``/dev/null``, as that of cron and many scripts does."""
    try:
        return os.path.samestat(os.fstat(descriptor), Path(os.devnull).stat())
    except OSError:
        return False


def _presenter(ranks: Sequence[int], *, group: bool, stream: bool) -> Presenter:
    if stream and not out.json:
        raise UsageError(
            "--stream is for JSON", why="without --json lines come one by one anyway", hint="add --json"
        )
    if out.json:
        return Streamed() if stream else Collected()
    if len(ranks) == 1:
        return Raw()
    return Grouped() if group else Prefixed(ranks)


def _follow(fan: FanOut, report: Report, presenter: Presenter) -> int:
    """Show what nodes write until all have ended; returns the exit status.

    Where it cannot be shown, or a signal comes, what goes on there is ended first; a second signal does not
    wait for that.
    """
    from gpucloud.fleet.node_events import NodeEnd

    failure: OSError | GpucloudError | None = None
    with _ended_by_signals(fan.end) as heard:
        fan.start()
        try:
            for event in fan:
                if isinstance(event, NodeEnd):
                    report.add(event)
                if not failure:
                    failure = _shown(partial(presenter.take, event))
                    if failure:
                        fan.end()
        except KeyboardInterrupt:
            report.abandoned()
            raise
        failure = failure or _shown(presenter.close)
    if failure:
        raise _explained(failure)
    report.tell(interrupted=bool(heard))
    if heard:
        raise KeyboardInterrupt
    if out.json:
        report.document(presenter)
    return report.status


def _shown(show: Callable[[], None]) -> OSError | GpucloudError | None:
    try:
        show()
    except (OSError, GpucloudError) as error:
        return error
    return None


def _explained(failure: OSError | GpucloudError) -> Exception:
    if isinstance(failure, BrokenPipeError | GpucloudError):
        return failure
    return GpucloudError(
        "the output could not be written, so the command was ended",
        why=failure.strerror or str(failure),
        hint="df -h",
    )


@contextmanager
def _ended_by_signals(end: Callable[[], None]) -> Iterator[list[int]]:
    """Let the first signal that would end this process end what it has started; yields those that came."""
    heard: list[int] = []

    def hear(number: int, _frame: object) -> None:
        heard.append(number)
        if len(heard) > 1:
            raise KeyboardInterrupt
        end()

    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in known}
    try:
        for number, handler in before.items():
            # As nohup has it, and shells for what they start in the background.
            if handler is not signal.SIG_IGN:
                signal.signal(number, hear)
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
