"""``gpucloud budget``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from gpucloud.cli.app import app
from gpucloud.cli.render import money, out
from gpucloud.model import utcnow

if TYPE_CHECKING:
    from pathlib import Path

    from gpucloud.store.budget import Cap, Use

COLUMNS: Final = ("CAP", "$ LIMIT", "$ SPENT", "$ HELD", "$ LEFT", "BY WHAT")
NAMED: Final = 3
"""A row of the table names so many clusters."""


@app.command()
def budget() -> None:
    """What the caps on spending allow, what is spent of them, and what is held for what runs.

    Example: gpucloud budget --json
    """
    from gpucloud.cli.context import config
    from gpucloud.fleet.budget import caps

    settings = config()
    found = _taken(settings.data_dir, caps(settings, utcnow()))
    if not found:
        out.note("there is no cap: what may be spent a day or a month is not limited")
        out.note(f"to set some, write into {settings.config_dir / 'config.toml'}:")
        out.note('[budget]\nlaunch = 10\nday = 20\nmonth = 300\nprojects = ["train=100"]')
        out.note("a project's own file cannot set them")
    for line in _doubts([use for uses in found.values() for use in uses]):
        out.note(line)
    if out.json:
        out.document("budget", caps=[_to_json(*each) for each in found.items()], failures=[])
    else:
        out.table(COLUMNS, [_to_row(*each) for each in found.items()])


def _taken(folder: Path, caps: Iterable[Cap]) -> Mapping[Cap, Sequence[Use]]:
    """What takes of each cap; nothing does before the first launch."""
    from gpucloud.store import Store

    books = Store(folder).budget if Store.exists(folder) else None
    return {cap: books.uses(cap) if books and cap.since else () for cap in caps}


def _doubts(uses: Sequence[Use]) -> list[str]:
    """Why it may be more than the figures say, and what to do."""
    unknown = dict.fromkeys(use.cluster for use in uses if not use.known)
    endless = dict.fromkeys(use.cluster for use in uses if use.endless)
    return [f"{name}: a price is not known, so it may have cost more than is shown" for name in unknown] + [
        f"{name}: nothing bounds what it can cost, so no other launch is allowed until gpucloud down {name}"
        for name in endless
    ]


def _sums(cap: Cap, uses: Sequence[Use]) -> tuple[Decimal | None, Decimal | None, Decimal | None]:
    """What is spent, held and left; a cap on each launch has none of them."""
    if cap.since is None:
        return None, None, None
    spent = sum((use.spent for use in uses), Decimal(0))
    held = sum((use.held for use in uses), Decimal(0))
    return spent, held, max(cap.usd - spent - held, Decimal(0))


def _to_json(cap: Cap, uses: Sequence[Use]) -> dict[str, object]:
    """One cap as the schema ``gpucloud.budget/1`` has it."""
    spent, held, left = _sums(cap, uses)
    return {
        "name": cap.name,
        "project": cap.project,
        "limit": money(cap.usd),
        "spent": money(spent),
        "held": money(held),
        "left": money(left),
        "currency": "USD",
        "since": cap.since,
        "uses": [
            {
                "cluster": use.cluster,
                "spent": money(use.spent),
                "held": money(use.held),
                "price_known": use.known,
                "bounded": not use.endless,
            }
            for use in uses
        ],
    }


def _to_row(cap: Cap, uses: Sequence[Use]) -> tuple[object, ...]:
    amounts = (None if usd is None else f"{usd:.2f}" for usd in _sums(cap, uses))
    named = [_named(use) for use in uses[:NAMED]]
    if len(uses) > NAMED:
        named.append(f"{len(uses) - NAMED} more")
    of = f", project {cap.project}" if cap.project is not None else ""
    return (f"{cap.name}{of}", f"{cap.usd:.2f}", *amounts, ", ".join(named) or None)


def _named(use: Use) -> str:
    doubt = " (no limit)" if use.endless else "" if use.known else " (price unknown)"
    return f"{use.cluster} {use.usd:.2f}{doubt}"
