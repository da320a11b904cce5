"""``gpucloud offers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.offer_view import SHOWN, USUAL, Shown, chosen, priced, to_json, to_row
from gpucloud.cli.options import Listing, Typed, parsed, work
from gpucloud.cli.render import failures, out
from gpucloud.errors import UsageError
from gpucloud.model import utcnow
from gpucloud.quantities import format_age, parse_duration

if TYPE_CHECKING:
    from gpucloud.config import Config
    from gpucloud.market import SearchResult, Terms
    from gpucloud.market.cost import Work
    from gpucloud.model import Requirements


@app.command(cls=Listing)
def offers(
    ctx: typer.Context,
    gpu: Annotated[str, typer.Argument(help="H100, H100:8, H100-SXM-80:8, 24GB+; several with |.")] = "",
    live: Annotated[bool, typer.Option("--live", help="Ask every provider now.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody; show what is remembered.")] = False,
    max_age: Annotated[str, typer.Option(metavar="TIME", help="Ask who was asked longer ago.")] = "",
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long to wait for the slowest.")] = "",
    sort: Annotated[
        str, typer.Option(metavar="KEY", help="price, cost, value, vram or availability.")
    ] = "price",
    group_by: Annotated[str, typer.Option(metavar="COLUMNS", help="Only the best of each group.")] = "",
    columns: Annotated[str, typer.Option(metavar="COLUMNS", help="What to show, in this order.")] = "",
    wide: Annotated[bool, typer.Option("--wide", help="Show every column.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a header.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 shows all.")] = 100,
) -> None:
    """What can be rented now, cheapest first.

    Example: gpucloud offers H100:8 --max-price 25 --where 'memory_gib > 500'
    """
    from gpucloud.cli.context import config
    from gpucloud.market import grouped

    typed = Typed.of(ctx)
    wanted = typed.requirements(gpu, markets=())
    job = work(typed.hours, typed.disk, typed.egress)
    shown = priced(job) if job else SHOWN
    names = chosen(columns, shown) or (tuple(shown) if wide else (*USUAL, *list(shown)[len(SHOWN) :]))
    settings = config({"offers.timeout": timeout} if timeout else {})
    terms = replace(_terms(settings, live, offline, max_age), group=grouped(group_by), limit=limit or None)
    found = _ranked(settings, typed.provider, wanted, terms, sort, job)
    _tell_failures(found)
    if not found.offers:
        from gpucloud.fleet.plan import no_offer

        raise no_offer(found, wanted)
    _write(found, names, shown, csv)


def _ranked(
    settings: Config, names: Sequence[str], wanted: Requirements, terms: Terms, sort: str, job: Work | None
) -> SearchResult:
    """What a search finds, in the order of ``--sort``; by cost those come last of which a term is unknown."""
    from gpucloud.market import ordered
    from gpucloud.market.cost import cost

    if sort != "cost":
        return _found(settings, names, wanted, replace(terms, order=ordered(sort)))
    if job is None:
        raise UsageError("--sort cost needs --hours", why="a job is what costs", hint="--sort cost --hours 6")
    found = _found(settings, names, wanted, replace(terms, limit=None))
    costs = {offer: cost(offer, job) for offer in found.offers}
    best = sorted(costs, key=lambda offer: (bool(costs[offer].unknown), costs[offer].expected, offer.id))
    return replace(found, offers=tuple(best[: terms.limit]), more=len(best) > (terms.limit or len(best)))


def _terms(settings: Config, live: bool, offline: bool, max_age: str) -> Terms:
    from gpucloud.market import Terms

    if live + offline + bool(max_age) > 1:
        raise UsageError(
            "--live, --offline and --max-age exclude each other",
            why="each says whom to ask",
            hint="give one of them",
        )
    oldest = parsed("--max-age", max_age, parse_duration) or settings.duration("offers.max_age")
    return Terms(
        settings.duration("offers.timeout").total_seconds(),
        max_age=None if offline else timedelta(0) if live else oldest,
    )


def _found(settings: Config, names: Sequence[str], wanted: Requirements, terms: Terms) -> SearchResult:
    """Search among the named providers, or all; whoever is not asked is remembered."""
    from gpucloud.cli.context import offer_cache
    from gpucloud.market import search
    from gpucloud.registry import Registry

    with offer_cache(settings) as cache:
        providers = Registry(settings).select(names)
        stand_ins = {provider.name for provider in providers}
        if not names:
            stand_ins |= {source.provider for source in cache.sources() if not source.live}
        return search(providers, wanted, replace(terms, stand_ins=frozenset(stand_ins)), cache)


def _tell_failures(found: SearchResult) -> None:
    for failure in found.failures:
        out.failure(failure)
        ages = [utcnow() - offer.as_of for offer in found.offers if offer.provider == failure.provider]
        if ages:
            out.note(f"{failure.provider}: what it offered {format_age(min(ages))} ago is shown instead")


def _write(found: SearchResult, columns: Sequence[str], shown: Mapping[str, Shown], csv: bool) -> None:
    if found.more:
        out.note(f"these are the best {len(found.offers)}; --limit 0 shows all")
    if out.json:
        listing = [to_json(offer, shown) for offer in found.offers]
        out.document("offers", offers=listing, more=found.more, failures=failures(found.failures))
    elif csv:
        out.csv(columns, [to_row(offer, columns, shown) for offer in found.offers])
    else:
        headings = [shown[name].heading for name in columns]
        out.table(headings, [to_row(offer, columns, shown) for offer in found.offers])
