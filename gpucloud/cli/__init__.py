"""Words in, words out: the command line. The only part of gpucloud that touches the terminal."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Final

from gpucloud import __version__
from gpucloud.errors import GpucloudError, UsageError

HELP: Final = Path(__file__).with_name("help.txt")
"""What ``--help`` says, as the commands make it for a terminal of the usual width; generated."""

USUAL_WIDTH: Final = 80

GARBAGE: Final = (50_000, 20, 20)
"""After so many new objects Python looks for circles. With its own 700 a listing of three clouds took the
processor a quarter longer (2026-11-21).
"""


def main() -> None:
    """Run the command that was typed and exit with its status."""
    known = at_once(sys.argv[1:])
    if known is None:
        # A command makes a great many objects and soon ends; to look for circles among them takes long.
        gc.set_threshold(*GARBAGE)
        sys.exit(execute(sys.argv[1:]))
    try:
        sys.stdout.write(known)
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_left()


def at_once(words: list[str]) -> str | None:
    """What can be said before anything is loaded, which takes most of the time that a command takes."""
    if words == ["--version"]:
        return f"gpucloud {__version__}\n"
    if words not in (["--help"], ["-h"]):
        return None
    try:
        narrow = sys.stdout.isatty() and os.get_terminal_size().columns < USUAL_WIDTH
    except OSError:
        narrow = False
    return None if narrow else HELP.read_text("utf-8")


def execute(words: list[str]) -> int:
    """Run one command and return its exit status; every failure becomes lines that tell what to do next."""
    import click

    from gpucloud.calls import KeptBack
    from gpucloud.cli.app import ReaderLeft, Stopped
    from gpucloud.cli.exit_codes import ExitCode, exit_code
    from gpucloud.cli.log import warnings
    from gpucloud.cli.render import out

    warnings()
    own = words[: words.index("--")] if "--" in words else words
    out.json = "--json" in own
    try:
        from gpucloud.cli import commands

        commands.load(words)
        return int(commands.app(words, prog_name="gpucloud", standalone_mode=False) or 0)
    except click.UsageError as error:
        message, _, hint = error.format_message().partition("\n")
        path = error.ctx.command_path if error.ctx else "gpucloud"
        out.error(UsageError(message.rstrip("."), hint=hint or f"{path} --help"))
        return ExitCode.USAGE
    except GpucloudError as error:
        _trace(out.debug)
        out.error(error)
        return exit_code(error)
    except KeptBack:
        out.note("# the dry run ends here")
        return ExitCode.OK
    except (Stopped, KeyboardInterrupt, click.Abort):
        out.note("")
        out.note("gpucloud: interrupted; what is rented stays rented, and gpucloud ps shows what it costs")
        return ExitCode.BY_PERSON
    except (ReaderLeft, BrokenPipeError):
        return _reader_left()
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback for a person who did not ask
        _trace(out.debug)
        out.error(
            GpucloudError(
                "this should not have happened",
                why=f"{type(error).__name__}: {error}",
                hint="repeat it with --debug and report what it prints; gpucloud fsck shows what may bill",
            )
        )
        return ExitCode.FAILURE


def _trace(wanted: bool) -> None:
    if wanted:
        import traceback

        from gpucloud.cli.render import out

        out.note(traceback.format_exc().rstrip())


def _reader_left() -> int:
    """Whoever read our output has had enough, as with ``| head``; nothing is wrong."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
