"""``gpucloud why``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpucloud.cli.app import app
from gpucloud.cli.offer_view import DOLLAR, SHOWN, to_json
from gpucloud.cli.options import work
from gpucloud.cli.render import money, out
from gpucloud.errors import NothingMatched

if TYPE_CHECKING:
    from decimal import Decimal

    from gpucloud.catalog.cache import Cache
    from gpucloud.market.cost import Cost
    from gpucloud.model import Offer


@app.command()
def why(
    offer: Annotated[str, typer.Argument(help="The id of an offer: gpucloud offers --columns id.")],
    hours: Annotated[str, typer.Option(metavar="N", help="What a job of so many hours would cost.")] = "",
    disk: Annotated[str, typer.Option(metavar="SIZE", help="With so much disk.")] = "",
    data: Annotated[str, typer.Option(metavar="SIZE", help="With so much data to be brought there.")] = "",
    egress: Annotated[str, typer.Option(metavar="SIZE", help="With so much traffic out of it.")] = "",
) -> None:
    """What is known of an offer, from where and since when, and what a job would cost by it, term by term.

    Example: gpucloud why sim/sim.1x-h100/sim-east/spot --hours 6 --disk 200GB
    """
    from gpucloud.cli.context import config, offer_cache, readiness
    from gpucloud.market.cost import cost

    settings = config()
    job = work(hours, disk, data, egress, lambda: readiness(settings))
    with offer_cache(settings) as cache:
        found = [(each, cost(each, job) if job else None) for each in _named(cache, offer)]
    if out.json:
        listing = [{**to_json(each), "cost": total and cost_to_json(total)} for each, total in found]
        out.document("why", offers=listing, failures=[])
        return
    for each, total in found:
        cells = [(name, column.cell(each)) for name, column in SHOWN.items()]
        if each.currency != DOLLAR:
            cells.append(("rate", _rate(each, settings.rates)))
        out.table(("WHAT", "IS"), [(name, "unknown" if cell is None else cell) for name, cell in cells])
        if total:
            _tell(total)


def _rate(offer: Offer, rates: Mapping[str, Decimal]) -> str:
    """At which rate its price would be converted now, with source and day."""
    from decimal import Decimal

    from gpucloud.catalog.currencies import to_usd

    try:
        one = to_usd(Decimal(1), offer.currency, rates)
    except ValueError as error:
        return str(error)
    since = f", {one.as_of}" if one.as_of else ""
    return f"1 {offer.currency} is {one.rate:f} USD ({one.source}{since})"


def _named(cache: Cache, name: str) -> list[Offer]:
    """Every offer of that id that is known. Raises ``NothingMatched``."""
    from gpucloud.catalog.columns import COLUMNS
    from gpucloud.catalog.where import Condition

    found = cache.select(Condition(f"{COLUMNS['id'].sql} = ?", (name,)), order=["offers.usd_per_hour"])
    if not found:
        raise NothingMatched(
            f"no offer {name!r} is known",
            why=f"{cache.count()} offers are remembered, and it is none of them",
            hint="gpucloud offers --columns id",
        )
    return found


def _tell(total: Cost) -> None:
    rows = [(term.name, _dollars(term.expected), _dollars(term.worst), term.how) for term in total.terms]
    rows.append(("together", _dollars(total.expected), _dollars(total.worst), _remark(total)))
    out.table(("TERM", "EXPECTED", "WORST", "HOW"), rows)


def _remark(total: Cost) -> str:
    if total.unknown:
        return f"without {', '.join(total.unknown)}, which is not known"
    return "nothing bounds it" if total.worst is None else ""


def _dollars(amount: Decimal | None) -> str:
    return "unknown" if amount is None else f"${amount:.4f}"


def cost_to_json(total: Cost) -> dict[str, Any]:
    """A cost as the schema ``gpucloud.why/1`` has it."""
    terms = [
        {"name": t.name, "expected": money(t.expected), "worst": money(t.worst), "how": t.how}
        for t in total.terms
    ]
    return {
        "expected": money(total.expected),
        "worst": money(total.worst),
        "unknown": total.unknown,
        "terms": terms,
    }
