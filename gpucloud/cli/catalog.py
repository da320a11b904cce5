"""``gpucloud catalog``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import group
from gpucloud.cli.exit_codes import ExitCode
from gpucloud.cli.render import failures, out
from gpucloud.errors import NothingMatched

if TYPE_CHECKING:
    from gpucloud.market.refresh import Refreshed

COLUMNS = ("PROVIDER", "PART", "OFFERS", "CHANGED")

catalog = group("catalog", "The prices that providers publish, and the list that ships with the program.")


@catalog.command()
def refresh(
    providers: Annotated[
        list[str] | None, typer.Argument(metavar="[PROVIDER]...", help="Only these.", show_default=False)
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only, or also, these regions.")
    ] = None,
) -> None:
    """Read the prices that providers publish to everybody; no account is needed.

    What did not change is not read again, and what was interrupted goes on where it was.

    Example: gpucloud catalog refresh azure --region westeurope
    """
    from gpucloud.cli.context import config, offer_cache, price_history
    from gpucloud.cli.progress import Reads
    from gpucloud.market.refresh import refresh as read_again
    from gpucloud.registry import Registry

    settings = config()
    catalogs = Registry(settings).catalogs(providers or ())
    parts = []
    with offer_cache(settings) as cache, Reads(catalogs) as reads:
        for part in read_again(catalogs, region or (), cache, reads.tell, price_history(settings)):
            parts.append(part)
            if part.failure:
                out.failure(part.failure)
            if not part.left:
                reads.done(part.provider)
    if not parts:
        raise NothingMatched(
            f"no catalogue tells of {' or '.join(region or ())}",
            why="every provider has regions of other names",
            hint="gpucloud offers --columns provider,region",
        )
    _write(parts)
    if any(part.failure for part in parts):
        raise typer.Exit(ExitCode.UNREACHABLE)


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


def _write(parts: Sequence[Refreshed]) -> None:
    if out.json:
        out.document(
            "catalog-refresh",
            parts=[
                {
                    "provider": part.provider,
                    "part": part.part,
                    "offers": part.offers,
                    "changed": part.changed,
                    "unchanged": part.offers is None,
                }
                for part in parts
                if not part.failure
            ],
            failures=failures([part.failure for part in parts if part.failure]),
        )
    else:
        out.table(COLUMNS, [_to_row(part) for part in parts if not part.failure])


def _to_row(part: Refreshed) -> tuple[object, ...]:
    offers = "as before" if part.offers is None else part.offers
    return (part.provider, part.part or None, offers, part.changed)
