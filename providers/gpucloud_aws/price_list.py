"""Find the few lines that matter in a price list of hundreds of megabytes, as it comes in.

A row is parsed only if the words it must have are in it, which drops almost all of them unparsed.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from gpucloud.replies import Rows

if TYPE_CHECKING:
    from gpucloud_aws.api import Line

log = logging.getLogger(__name__)

WANTED: Final = {
    "TermType": ("OnDemand",),
    "Tenancy": ("Shared",),
    "Operating System": ("Linux",),
    "Pre Installed S/W": ("", "NA"),
    "CapacityStatus": ("Used",),
    "Unit": ("Hrs",),
    "Currency": ("USD",),
}
"""What a row must say to be the price of a plain Linux instance and hour."""

NEEDED: Final = {*WANTED, "SKU", "Instance Type", "PricePerUnit", "MarketOption", "GPU", "Region Code"}

MOST_PREAMBLE: Final = 50
"""The header is found within so many rows; there are five before it."""

MOST_LINES: Final = 200
"""A row that goes over more lines has a quote that nobody closes."""

_NEURON: Final = re.compile(r"(?:inf|trn)[0-9]")
_ASICS: Final = "Machine Learning ASIC Instances"
_NO_GPU: Final = {"", "0", "NA", "N/A"}


def read(lines: Iterable[str], region: str, provider: str) -> tuple[datetime | None, tuple[Line, ...]]:
    """When the list was published, and its Linux lines with an accelerator, those without a price as well.

    Raises ``BadReply`` for what is no price list, or one of which no such line can be read.
    """
    reply, records = Rows(provider), _records(lines)
    header, published_at = reply.envelope(_header, records)
    by_sku: dict[str, Line] = {}
    for line in reply.read(partial(_line, header, region), filter(_may_matter, records)):
        by_sku.setdefault(line.sku, line)
    return published_at, tuple(by_sku.values())


def _records(lines: Iterable[str]) -> Iterator[str]:
    """Rows, which may go over several lines. A quote that is never closed costs only the line that has it."""
    source, again = iter(lines), deque[str]()
    begun, is_open = list[str](), False
    # No line is empty, as each has its end; so what is empty is the end of all.
    while (line := again.popleft() if again else next(source, "")) or begun:
        begun.append(line)
        is_open ^= line.count('"') % 2 == 1
        if not is_open:
            yield "".join(begun)
            begun = []
        elif not line or len(begun) > MOST_LINES:
            log.debug("a quote is not closed in %.200r", begun[0])
            again.extendleft(reversed(begun[1:]))
            begun, is_open = [], False


def _header(records: Iterator[str]) -> tuple[list[str], datetime | None]:
    """The names of the columns, and when the list was published. Raises ``ValueError`` without them."""
    published_at = None
    for record in islice(records, MOST_PREAMBLE):
        row = _cells(record)
        if "SKU" in row:
            if lacking := NEEDED - set(row):
                raise ValueError(f"it lacks the columns {', '.join(sorted(lacking))}")
            return row, published_at
        if row[:1] == ["Publication Date"]:
            published_at = _moment(row[-1])
    raise ValueError("it has no line with the names of its columns")


def _may_matter(record: str) -> bool:
    """Whether a row can be wanted; quotes in a field are doubled, so this finds whole fields only."""
    return ',"Reserved",' not in record and "Linux" in record and "Shared" in record


def _line(header: Sequence[str], region: str, record: str) -> Line | None:
    """One row if it is wanted. Raises ``ValueError`` for one that makes no sense."""
    from gpucloud_aws.api import Line

    row = _cells(record)
    if len(row) != len(header):
        raise ValueError(f"there are {len(row)} cells in a row and {len(header)} columns")
    cells = dict(zip(header, row, strict=True))
    wanted = all(cells[name] in values for name, values in WANTED.items()) and cells["Region Code"] == region
    return Line.model_validate(cells) if wanted and _has_accelerator(cells) else None


def _cells(record: str) -> list[str]:
    """What stands in a row; nothing in one that cannot be taken apart."""
    try:
        return next(csv.reader([record]), [])
    except csv.Error as error:
        log.debug("a row of the price list cannot be read: %s", error)
        return []


def _has_accelerator(cells: dict[str, str]) -> bool:
    return (
        cells["GPU"] not in _NO_GPU
        or cells.get("Instance Family") == _ASICS
        or _NEURON.match(cells["Instance Type"]) is not None
    )


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
