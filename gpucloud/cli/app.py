"""The command tree. Importing a command module registers its commands; none imports anything heavy."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

import click
import typer
from typer.core import TyperCommand, TyperGroup

from gpucloud.cli.exit_codes import MEANINGS
from gpucloud.cli.render import out

F = TypeVar("F", bound=Callable[..., Any])

HELP = """Compare, rent and use GPUs of any provider, and prove that the meter has stopped."""

EPILOG = "Exit status: " + "; ".join(f"{int(code)} {text}" for code, text in MEANINGS.items()) + "."

WORDS_GIVEN = "gpucloud.words-given"
"""Where a command finds whether the person wrote ``--`` before words of her own."""


class Command(TyperCommand):
    """A command with the options that every command has."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += common()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember whether there was a ``--``, which the parser takes away."""
        ctx.meta[WORDS_GIVEN] = "--" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Let interrupts and closed pipes through, which the library would turn into a mere status."""
        if out.explain and self.only_shows(ctx):
            from gpucloud.cli.calls import show_calls

            show_calls(rehearse=True)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Stopped from error
        except BrokenPipeError as error:
            raise ReaderLeft from error

    def only_shows(self, ctx: click.Context) -> bool:
        """Whether it was asked to do nothing, but to show what it would do."""
        return bool(ctx.params.get("dry_run"))


class Stopped(Exception):
    """The person has pressed Ctrl-C."""


class ReaderLeft(Exception):
    """Whoever read our output has had enough, as with ``| head``."""


class Group(TyperGroup):
    """A group that suggests the command that was meant.

    ``default`` is the command, if any, that words call which begin with none.
    """

    default: str | None = None

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += common()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before words that name none."""
        if self.default and (not args or args[0] not in {*self.commands, "-h", "--help"}):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"{ctx.command_path} --help"
            ctx.fail(f"there is no command {args[0]!r}\n{hint}")
        return super().resolve_command(ctx, args)


def common() -> list[click.Parameter]:
    """The options that every command has."""
    return [
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_set_json, help="Write one JSON document."
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_set_debug, help="Tell all on stderr."
        ),
        click.Option(
            ["--explain"],
            is_flag=True,
            expose_value=False,
            callback=_set_explain,
            help="Show the HTTP calls as curl commands.",
        ),
    ]


def _set_json(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    out.json = out.json or value


def _set_debug(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not out.debug:
        from gpucloud.cli.log import all_there_is

        out.debug = True
        all_there_is()


def _set_explain(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not out.explain:
        from gpucloud.cli.calls import show_calls

        out.explain = True
        show_calls()


class App(typer.Typer):
    """A set of commands, each of which has the options that every command has."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **settings: Any
    ) -> Callable[[F], F]:
        """Register the function that is decorated."""
        return super().command(name, cls=cls or Command, **settings)


def group(name: str, help: str, cls: type[Group] = Group) -> App:
    """A noun with commands of its own."""
    commands = App(name=name, help=help, cls=cls, rich_markup_mode=None)
    app.add_typer(commands)
    return commands


app = App(
    help=HELP,
    epilog=EPILOG,
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Show the version."),
) -> None:
    if version:
        from gpucloud import __version__

        out.line(f"gpucloud {__version__}")
        raise typer.Exit
