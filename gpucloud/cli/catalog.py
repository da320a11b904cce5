"""``gpucloud catalog``."""

from __future__ import annotations

import typer

from gpucloud.cli.app import group
from gpucloud.cli.exit_codes import ExitCode
from gpucloud.cli.render import out

catalog = group("catalog", "The price list that ships with the program.")


@catalog.command()
def check() -> None:
    """Test the price list against its rules, one line per problem; exits 1 when there is any.

    Example: gpucloud catalog check
    """
    from gpucloud.catalog.prices import problems, rows
    from gpucloud.model import utcnow

    prices = rows()
    found = problems(prices, utcnow().date())
    gpus = len({row.gpu for row in prices})
    if out.json:
        out.document("catalog", problems=found, prices=len(prices), gpus=gpus, failures=[])
    elif found:
        for problem in found:
            out.line(problem)
    else:
        out.line(f"{len(prices)} prices, {gpus} GPUs: no problem")
    if found:
        raise typer.Exit(ExitCode.FAILURE)
