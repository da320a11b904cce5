"""``gpucloud completion``."""

from __future__ import annotations

from typing import Annotated

import click
import typer
from click.shell_completion import get_completion_class

from gpucloud.cli.app import app
from gpucloud.cli.render import out
from gpucloud.errors import NothingMatched

SHELLS = ("bash", "zsh", "fish")


@app.command()
def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """The script that completes commands and options in a shell.

    Example: gpucloud completion bash > ~/.local/share/bash-completion/completions/gpucloud
    """
    out.line(script(shell))


def script(shell: str) -> str:
    """The completion script for one shell. Raises ``NothingMatched``."""
    kind = get_completion_class(shell) if shell in SHELLS else None
    if kind is None:
        raise NothingMatched(
            f"there is no completion for {shell!r}",
            why=f"there is for {', '.join(SHELLS)}",
            hint="gpucloud completion bash",
        )
    source = kind(click.Command("gpucloud"), {}, "gpucloud", "_GPUCLOUD_COMPLETE").source().strip()
    # The script is click's, and typer, which answers it, wants the two words the other way round.
    return source.replace(f"{shell}_complete", f"complete_{shell}")
