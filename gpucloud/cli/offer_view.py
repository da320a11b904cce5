"""What of an offer is shown, under which heading, and how it is written."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from gpucloud.cli.render import failures, fitting, money, out
from gpucloud.errors import UsageError
from gpucloud.model import Offer, utcnow
from gpucloud.quantities import format_age

if TYPE_CHECKING:
    from gpucloud.market import Search, SearchResult
    from gpucloud.market.cost import Work

Value = Callable[[Offer], Any]

DOLLAR: Final = "USD"


@dataclass(frozen=True, slots=True)
class Shown:
    """One column: its heading, its value in JSON, and what a table has instead, if not the same."""

    heading: str
    value: Value
    text: Value | None = None

    def cell(self, offer: Offer) -> object:
        """What a table has for an offer; ``None`` is unknown."""
        return (self.text or self.value)(offer)


def _yes(flag: bool | None) -> str | None:
    return None if flag is None else "yes" if flag else "no"


def _share(share: Decimal | None) -> str | None:
    return None if share is None else f"{share:+.0%}"


def _dollars(amount: Decimal | None, offer: Offer | None = None) -> str | None:
    """Two digits; what an offer's own currency was converted to begins with a tilde."""
    if amount is None:
        return None
    return f"~{amount:.2f}" if offer and offer.currency != DOLLAR else f"{amount:.2f}"


SHOWN: Final = {
    "id": Shown("ID", lambda o: o.id),
    "gpu": Shown("GPU", lambda o: str(o.gpu) if o.gpu else None),
    "gpu_count": Shown("COUNT", lambda o: o.gpu_count),
    "usd_per_gpu_hour": Shown(
        "$/GPU-H", lambda o: money(o.usd_per_gpu_hour), lambda o: _dollars(o.usd_per_gpu_hour, o)
    ),
    "usd_per_hour": Shown("$/H", lambda o: money(o.usd_per_hour), lambda o: _dollars(o.usd_per_hour, o)),
    "provider": Shown("PROVIDER", lambda o: o.provider),
    "upstream": Shown("UPSTREAM", lambda o: o.upstream),
    "margin": Shown("MARGIN", lambda o: money(o.margin), lambda o: _share(o.margin)),
    "instance_type": Shown("TYPE", lambda o: o.instance_type),
    "place": Shown("PLACE", lambda o: o.zone or o.region),
    "region": Shown("REGION", lambda o: o.region),
    "zone": Shown("ZONE", lambda o: o.zone),
    "country": Shown("COUNTRY", lambda o: o.country),
    "market": Shown("MARKET", lambda o: o.market),
    "availability": Shown("AVAILABLE", lambda o: o.availability),
    "availability_detail": Shown("AS IT SAYS", lambda o: o.availability_detail),
    "vcpus": Shown("VCPUS", lambda o: o.vcpus),
    "memory_gib": Shown("GIB", lambda o: money(o.memory_gib)),
    "disk_gib": Shown("DISK", lambda o: money(o.disk_gib)),
    "any_disk": Shown("ANY DISK", lambda o: o.any_disk, lambda o: _yes(o.any_disk)),
    "inet_down": Shown("DOWN", lambda o: o.inet_down_mbps),
    "inet_up": Shown("UP", lambda o: o.inet_up_mbps),
    "reliability": Shown("RELIABILITY", lambda o: money(o.reliability)),
    "cuda": Shown("CUDA", lambda o: money(o.cuda)),
    "driver": Shown("DRIVER", lambda o: o.driver),
    "interconnect": Shown("INTERCONNECT", lambda o: o.interconnect),
    "secure": Shown("SECURE", lambda o: o.secure, lambda o: _yes(o.secure)),
    "verified": Shown("VERIFIED", lambda o: o.verified, lambda o: _yes(o.verified)),
    "interruptions_per_hour": Shown("LOST/H", lambda o: money(o.interruptions_per_hour)),
    "disk_usd_per_gib_month": Shown("$/GIB-MONTH", lambda o: money(o.disk_usd_per_gib_month)),
    "egress_usd_per_gib": Shown("$/GIB OUT", lambda o: money(o.egress_usd_per_gib)),
    "minimum_s": Shown("LEAST S", lambda o: o.minimum_s),
    "currency": Shown("CURRENCY", lambda o: o.currency),
    "amount": Shown("AMOUNT", lambda o: money(o.amount)),
    "as_of": Shown("AS OF", lambda o: o.as_of),
    "age": Shown("AGE", lambda o: format_age(utcnow() - o.as_of)),
    "source": Shown("SOURCE", lambda o: o.source),
    "confidence": Shown("CONFIDENCE", lambda o: o.confidence),
}
"""Every column, in the order of ``--wide``; the keys are the words of JSON and ``--columns``."""

USUAL: Final = (
    "gpu",
    "gpu_count",
    "usd_per_gpu_hour",
    "usd_per_hour",
    "provider",
    "instance_type",
    "place",
    "market",
    "availability",
    "vcpus",
    "memory_gib",
    "age",
    "confidence",
    "upstream",
    "margin",
)

SELDOM: Final = ("upstream", "margin")
"""What is left out of the usual columns on a terminal where no offer has it."""


LEAST_FIRST: Final = ("vcpus", "memory_gib", "place", "usd_per_hour", "confidence", "availability")
"""What is left out of the usual columns, one after the other, where the terminal is too narrow for them."""


def priced(work: Work) -> dict[str, Shown]:
    """Every column, with what a job would cost."""
    from gpucloud.market.cost import cost

    def expected(offer: Offer) -> Decimal:
        return cost(offer, work).expected

    def worst(offer: Offer) -> Decimal | None:
        return cost(offer, work).worst

    def unknown(offer: Offer) -> list[str]:
        return list(cost(offer, work).unknown)

    return {
        **SHOWN,
        "cost": Shown("$ COST", lambda o: money(expected(o)), lambda o: f"{expected(o):.2f}"),
        "cost_worst": Shown("$ WORST", lambda o: money(worst(o)), lambda o: _dollars(worst(o))),
        "cost_without": Shown("WITHOUT", unknown, lambda o: ", ".join(unknown(o)) or None),
    }


def chosen(columns: str, shown: Mapping[str, Shown]) -> tuple[str, ...]:
    """``--columns``: names separated by commas. Raises ``UsageError`` for an unknown one."""
    names = tuple(name.strip().lower() for name in columns.split(",") if name.strip())
    for name in names:
        if name not in shown:
            close = difflib.get_close_matches(name, shown, n=1, cutoff=0.5)
            raise UsageError(
                f"there is no column {name!r}",
                why=f"known are {', '.join(shown)}",
                hint=f"did you mean {close[0]!r}?" if close else "gpucloud offers --wide",
            )
    return names


def to_json(offer: Offer, shown: Mapping[str, Shown] = SHOWN) -> dict[str, object]:
    """One offer as the schema ``gpucloud.offers/1`` has it."""
    return {name: column.value(offer) for name, column in shown.items() if name not in {"place", "age"}}


def to_row(offer: Offer, columns: Sequence[str], shown: Mapping[str, Shown] = SHOWN) -> list[object]:
    """One offer as a row of a table."""
    return [shown[name].cell(offer) for name in columns]


@dataclass(frozen=True, slots=True)
class View:
    """How offers are shown: which columns, of those that there are, and whether as CSV.

    ``grows``: what comes first may be shown before the rest is there. ``trims``: on a narrow terminal some
    columns may be left out.
    """

    columns: Sequence[str]
    shown: Mapping[str, Shown]
    csv: bool = False
    grows: bool = True
    trims: bool = False

    def follow(self, search: Search) -> SearchResult:
        """Run a search; on a terminal what it has found is shown while answers arrive."""
        if self.csv or not (self.grows and search.asks and out.growing):
            (found,) = search.results()
            return found
        with out.growing_table() as show:
            for found in search.results(every_answer=True):
                columns = self._fitting(found)
                show(self._headings(columns), self._rows(found, columns))
        return found

    def write(self, found: SearchResult) -> None:
        """Write what was found."""
        if found.more:
            out.note(f"these are the best {len(found.offers)}; --limit 0 shows all")
        if out.json:
            listing = [to_json(offer, self.shown) for offer in found.offers]
            out.document("offers", offers=listing, more=found.more, failures=failures(found.failures))
        elif self.csv:
            out.csv(self.columns, self._rows(found, self.columns))
        else:
            columns = self._fitting(found)
            out.table(self._headings(columns), self._rows(found, columns))

    def _fitting(self, found: SearchResult) -> Sequence[str]:
        """As many of the columns as the terminal is wide enough for."""
        columns, screen = list(self.columns), out.screen
        if screen is None or not self.trims:
            return columns
        for seldom in SELDOM:
            if all(self.shown[seldom].value(offer) is None for offer in found.offers):
                columns.remove(seldom)
        least = [self.shown[name].heading for name in LEAST_FIRST]
        kept = fitting(self._headings(columns), self._rows(found, columns), least, screen.columns)
        return [columns[place] for place in kept]

    def _rows(self, found: SearchResult, columns: Sequence[str]) -> list[list[object]]:
        return [to_row(offer, columns, self.shown) for offer in found.offers]

    def _headings(self, columns: Sequence[str]) -> list[str]:
        return [self.shown[name].heading for name in columns]
