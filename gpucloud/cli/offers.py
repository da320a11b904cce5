"""``gpucloud offers``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gpucloud.cli.app import app
from gpucloud.cli.offer_view import SHOWN, USUAL, View, chosen, priced
from gpucloud.cli.options import Listing, Typed, parsed, work
from gpucloud.cli.render import out
from gpucloud.errors import NothingMatched, UsageError
from gpucloud.model import utcnow
from gpucloud.quantities import format_age, parse_duration

if TYPE_CHECKING:
    from decimal import Decimal

    from gpucloud.catalog.cache import Cache
    from gpucloud.config import Config
    from gpucloud.market import Search, SearchResult, Terms
    from gpucloud.market.cost import Work
    from gpucloud.model import Offer, Requirements
    from gpucloud.provider import Provider


USUAL_LIMIT: Final = 100
FEWEST: Final = 5
"""However low the terminal is."""


@app.command(cls=Listing)
def offers(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[GPU]", help="The same as --gpu GPU.")] = "",
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
    limit: Annotated[
        int | None, typer.Option(min=0, help="At most so many, 0 for all; else a screenful, or 100.")
    ] = None,
) -> None:
    """What can be rented now, cheapest first.

    Example: gpucloud offers H100:8 --max-price 25 --where 'memory_gib > 500'
    """
    from gpucloud.cli.context import config, readiness
    from gpucloud.market import grouped

    typed = Typed.of(ctx)
    wanted = typed.requirements(typed.gpu_or(name), markets=())
    settings = config({"offers.timeout": timeout} if timeout else {})
    job = work(typed.hours, typed.disk, typed.data, typed.egress, lambda: readiness(settings))
    shown = priced(job) if job else SHOWN
    names = chosen(columns, shown) or (tuple(shown) if wide else (*USUAL, *list(shown)[len(SHOWN) :]))
    most = _screenful(csv) if limit is None else limit
    terms = replace(_terms(settings, live, offline, max_age), group=grouped(group_by), limit=most or None)
    view = View(names, shown, csv=csv, grows=sort != "cost", trims=not (columns or wide or job))
    with _search(settings, typed.provider, wanted, _sorted(terms, sort, job)) as search:
        view.write(_matching(_ranked(view.follow(search), sort, job, most), wanted))


def _screenful(csv: bool) -> int:
    """How many offers fit on the terminal, beside the heading, a note and what is typed next."""
    return max(out.screen.lines - 4, FEWEST) if out.screen and not csv else USUAL_LIMIT


def _sorted(terms: Terms, sort: str, job: Work | None) -> Terms:
    """The order of ``--sort``; what a job costs cannot be told before everything is there."""
    from gpucloud.market import ordered

    if sort != "cost":
        return replace(terms, order=ordered(sort))
    if job is None:
        raise UsageError("--sort cost needs --hours", why="a job is what costs", hint="--sort cost --hours 6")
    return replace(terms, limit=None)


def _ranked(found: SearchResult, sort: str, job: Work | None, limit: int) -> SearchResult:
    """The same, by cost if that is wanted; those come last of which a term is unknown.

    How long it takes to get ready is mostly unknown and little to pay for, so that it puts nothing last.
    """
    from gpucloud.market.cost import READY, cost

    if sort != "cost" or job is None:
        return found
    costs = {offer: cost(offer, job) for offer in found.offers}

    def rank(offer: Offer) -> tuple[bool, Decimal, str]:
        return bool({*costs[offer].unknown} - {READY}), costs[offer].expected, offer.id

    best = sorted(costs, key=rank)
    return replace(found, offers=tuple(best[: limit or None]), more=len(best) > (limit or len(best)))


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


@contextmanager
def _search(settings: Config, names: Sequence[str], wanted: Requirements, terms: Terms) -> Iterator[Search]:
    """Search among the named providers, or all; what is told is remembered at the end."""
    from gpucloud.cli.context import offer_cache, price_history
    from gpucloud.market import Search

    with offer_cache(settings) as cache:
        asked, stand_ins = _whom(settings, names, cache)
        terms = replace(terms, stand_ins=stand_ins)
        search = Search(asked, wanted, terms, cache, price_history(settings))
        try:
            yield search
        except NothingMatched:
            search.remember()
            raise
        # What was found is on its way to the reader before this takes its time.
        out.flush()
        search.remember()


def _whom(settings: Config, names: Sequence[str], cache: Cache) -> tuple[list[Provider], frozenset[str]]:
    """Who is to be asked, and of whom something is remembered. Raises ``NothingMatched``."""
    from gpucloud.catalog.cache import SourceKind
    from gpucloud.registry import Registry

    listed = {source.provider for source in cache.sources() if source.kind is not SourceKind.LIVE}
    registry = Registry(settings)
    if not names:
        asked = registry.select(())
        return asked, frozenset(listed | {provider.name for provider in asked})
    # Of whom there are prices without an account nothing is asked before there is one.
    rentable = [name for name in names if name not in listed or registry.is_set_up(name)]
    asked = registry.select(rentable) if rentable else []
    return asked, frozenset(listed.intersection(names) | {provider.name for provider in asked})


def _matching(found: SearchResult, wanted: Requirements) -> SearchResult:
    """The same, with who failed told. Raises what says why there is nothing in it."""
    for failure in found.failures:
        out.failure(failure)
        ages = [utcnow() - offer.as_of for offer in found.offers if offer.provider == failure.provider]
        if ages:
            out.note(f"{failure.provider}: what it offered {format_age(min(ages))} ago is shown instead")
    if not found.offers:
        from gpucloud.fleet.plan import no_offer

        raise no_offer(found, wanted)
    return found
