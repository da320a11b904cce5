"""``gpucloud history``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer

from gpucloud.cli.app import Group, group
from gpucloud.cli.exit_codes import ExitCode
from gpucloud.cli.options import Yes, gpus, parsed
from gpucloud.cli.render import failures, money, out
from gpucloud.errors import AuthError, NothingMatched, UsageError
from gpucloud.model import Failure, Market, utcnow
from gpucloud.quantities import format_count, parse_duration

if TYPE_CHECKING:
    from gpucloud.catalog.history import Line
    from gpucloud.market.trend import Trend

COLUMNS = ("GPU", "PROVIDER", "MARKET", "$ NOW", "$ LOW", "$ HIGH", "CHEAPEST PER GPU-HOUR")
PIECES = 40
"""How many blocks a line of the table has."""

SVG_PIECES = 400


class _History(Group):
    """``gpucloud history H100`` is ``gpucloud history show H100``."""

    default = "show"


history = group("history", "What was seen of prices, and since when.", _History)


@history.command()
def show(
    gpu: Annotated[str, typer.Argument(help="H100, H100-SXM-80, 24GB+; several with |.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back: 12h, 30d.")] = "30d",
    provider: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this provider.")] = None,
    market: Annotated[
        list[str] | None,
        typer.Option(
            click_type=click.Choice([market.value for market in Market]), help="Only sold like this."
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a chart into this file.")] = None,
) -> None:
    """The cheapest price of a GPU-hour that was seen at each provider, and how it has moved.

    Only what gpucloud was told on this machine is known: by offers, watch and catalog refresh.

    Example: gpucloud history H100-SXM --since 30d
    """
    from gpucloud.cli.context import config, price_history

    end = utcnow()
    start = end - (parsed("--since", since, parse_duration) or timedelta(0))
    markets = tuple(map(Market, market or ()))
    lines = price_history(config()).lines(start, gpus(gpu), tuple(provider or ()), markets)
    if not lines:
        raise NothingMatched(
            "no quote was seen" + (f" of {gpu}" if gpu else ""),
            why=f"nothing that matches was told within {since}",
            hint="gpucloud offers --live, or gpucloud catalog refresh; or a longer --since",
        )
    if svg:
        _draw(svg, lines, start, end)
    if out.json:
        out.document("history", history=[_to_json(line) for line in lines], failures=[])
    else:
        out.table(COLUMNS, [_to_row(trend) for trend in _trends(lines, start, end, PIECES)])


@history.command("import")
def import_(
    providers: Annotated[
        list[str] | None, typer.Argument(metavar="[PROVIDER]...", help="Only these.", show_default=False)
    ] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back: 12h, 30d.")] = "30d",
    region: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only these regions.")] = None,
) -> None:
    """Take over the past spot prices that providers tell to who has an account there.

    Example: gpucloud history import aws --since 30d --region us-east-1
    """
    from gpucloud.cli.context import config, price_history
    from gpucloud.market.past import take_over
    from gpucloud.registry import Registry

    settings = config()
    start = utcnow() - (parsed("--since", since, parse_duration) or timedelta(0))
    sources = Registry(settings).spot_histories(providers or ())
    told = dict(take_over(sources, start, region or (), price_history(settings)))
    failed = [outcome for outcome in told.values() if isinstance(outcome, Failure)]
    added = [(name, outcome) for name, outcome in told.items() if not isinstance(outcome, Failure)]
    for failure in failed:
        out.failure(failure)
    if out.json:
        rows = [{"provider": name, "quotes": count} for name, count in added]
        out.document("history-import", providers=rows, failures=failures(failed))
    else:
        out.table(("PROVIDER", "NEW QUOTES"), added)
    if failed:
        without_account = all(failure.code == AuthError.code for failure in failed)
        raise typer.Exit(ExitCode.CREDENTIALS if without_account else ExitCode.UNREACHABLE)


@history.command()
def prune(
    older_than: Annotated[str, typer.Option(metavar="TIME", help="Forget what held only before: 90d.")],
    yes: Yes = False,
) -> None:
    """Forget old quotes.

    Example: gpucloud history prune --older-than 90d
    """
    from gpucloud.cli.consent import agree
    from gpucloud.cli.context import config, price_history

    age = parsed("--older-than", older_than, parse_duration) or timedelta(0)
    agree(f"Forget every quote that was replaced more than {older_than} ago?", yes=yes)
    gone = price_history(config()).prune(utcnow() - age)
    if out.json:
        out.document("history-prune", quotes=gone, failures=[])
    else:
        out.line(f"{format_count(gone, 'quote')} forgotten")


def _draw(file: Path, lines: Sequence[Line], start: datetime, end: datetime) -> None:
    from gpucloud.cli.chart import svg

    seen = max(start, min(line.quotes[0].at for line in lines))
    trends = _trends(lines, seen, end, SVG_PIECES)
    try:
        file.write_text(svg(trends, seen, end), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written", why=str(error), hint="--svg FILE") from error
    out.note(f"drawn into {file}")


def _trends(lines: Sequence[Line], start: datetime, end: datetime, pieces: int) -> list[Trend]:
    from gpucloud.market.trend import trends

    return trends(lines, start, end, pieces)


def _to_row(trend: Trend) -> tuple[object, ...]:
    from gpucloud.cli.chart import sparkline

    known, now = trend.known, trend.prices[-1]
    return (
        trend.gpu,
        trend.provider,
        trend.market,
        None if now is None else f"{now:.2f}",
        f"{min(known):.2f}",
        f"{max(known):.2f}",
        sparkline(trend.prices),
    )


def _to_json(line: Line) -> dict[str, object]:
    return {
        "provider": line.provider,
        "instance_type": line.instance_type,
        "place": line.place,
        "market": line.market,
        "gpu": str(line.gpu),
        "gpu_count": line.gpu_count,
        "seen_at": line.seen_at,
        "quotes": [
            {"at": quote.at, "usd_per_hour": money(quote.usd_per_hour), "availability": quote.availability}
            for quote in line.quotes
        ],
    }
