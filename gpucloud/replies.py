"""What adapters share in reading a vendor's replies: rows, pages, and several requests for one thing."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

from gpucloud.errors import BadReply
from gpucloud.http import Tell
from gpucloud.model import Availability, Instance, Offer

log = logging.getLogger(__name__)
T = TypeVar("T")

TO_BE_HAD: Final = {Availability.AVAILABLE, Availability.LIMITED}


class Rows:
    """What is made of the rows of a reply. A row at fault is left out; when all are, the reply is bad."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._offers: list[Offer] = []
        self._fault: str | None = None

    def envelope(self, validate: Callable[[Any], T], body: object) -> T:
        """What ``validate`` makes of what the rows stand in. Raises ``BadReply`` for its ``ValueError``."""
        try:
            return validate(body)
        except ValueError as error:
            raise self.bad(reason(error)) from error

    @contextmanager
    def row(self) -> Iterator[None]:
        """Inside, a ``ValueError`` means that this row is at fault."""
        try:
            yield
        except ValueError as error:
            self._fault = reason(error)
            log.debug("%s: a row is left out: %s", self._provider, self._fault)

    def read(self, make: Callable[[Any], T | None], rows: Iterable[Any]) -> list[T]:
        """What ``make`` makes of each row; ``None`` is of a row that does not matter.

        Raises ``BadReply`` when nothing is left and a row was at fault.
        """
        made: list[T] = []
        for row in rows:
            with self.row():
                one = make(row)
                if one is not None:
                    made.append(one)
        self._check(made)
        return made

    def add(self, offers: Iterable[Offer]) -> None:
        """Take the offers of a row, none of them if making them fails."""
        self._offers += list(offers)

    def offers(self) -> list[Offer]:
        """All offers, one of those that nobody can tell apart. Raises ``BadReply`` when no row was good.

        Of such twins that can be had the dearest is told, so that no price is told too low.
        """
        self._check(self._offers)
        worst_first = sorted(self._offers, key=lambda o: (o.availability in TO_BE_HAD, o.usd_per_hour))
        return list({(offer.id, offer.ref): offer for offer in worst_first}.values())

    def bad(self, why: str) -> BadReply:
        """The error for a reply of which nothing can be used."""
        return BadReply(f"{self._provider} sent prices that cannot be read", provider=self._provider, why=why)

    def _check(self, good: list[Any]) -> None:
        if self._fault is not None and not good:
            raise self.bad(self._fault)


def understood(provider: str, validate: Callable[[Any], T], body: object, *, sent: bool = False) -> T:
    """What ``validate`` makes of a reply; ``sent`` when it answers what may have taken effect.

    Raises ``BadReply`` for its ``ValueError``.
    """
    try:
        return validate(body)
    except ValueError as error:
        what = f"{provider} sent a reply that cannot be read"
        raise BadReply(what, provider=provider, why=reason(error), outcome_unknown=sent) from error


def every_row(
    provider: str, path: str, page: Callable[[str | None], tuple[Iterable[T], str | None]]
) -> Iterator[T]:
    """Every row of a listing, from all its pages. Raises ``BadReply`` when these go in a circle.

    ``page`` is given what the page before calls the next one, or ``None`` for the first, and tells its rows
    and what it calls the next.
    """
    cursor, known = None, set[str]()
    while True:
        rows, cursor = page(cursor)
        yield from rows
        if cursor is None:
            return
        if cursor in known:
            what = f"{provider} sent a listing without end"
            raise BadReply(what, provider=provider, why=f"the pages of {path} go in a circle")
        known.add(cursor)


def ours(listed: Iterable[Instance]) -> Iterator[Instance]:
    """Those of an account's instances that carry our tag."""
    return (instance for instance in listed if instance.token)


class Progress:
    """How far several requests have come together; one that is tried again is not counted anew."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._before = self._most = 0

    def told(self, read: int, total: int | None) -> None:
        """So many bytes of the present request are there."""
        self._most = max(self._most, self._before + read)
        self._tell(self._most, None if total is None else max(self._most, self._before + total))

    def next_request(self) -> None:
        """What is there now is there for good."""
        self._before = self._most


def query_of(address: str) -> dict[str, str]:
    """What the address of a next page asks for. Its host does not count: no reply may send us to another.

    Raises ``ValueError`` for what is no address.
    """
    return dict(parse_qsl(urlsplit(address).query))


def release_of(name: str) -> tuple[int, ...]:
    """``24.04`` in the name of an image, to find the newest; nothing where there is none."""
    found = re.search(r"([0-9]+)\.([0-9]+)", name)
    return tuple(map(int, found.groups())) if found else ()


def numbers_of(name: str) -> tuple[int, ...]:
    """Every number in the name of an image, to find the newest among names of one form."""
    return tuple(map(int, re.findall("[0-9]+", name)))


def reason(error: ValueError) -> str:
    """What is wrong with a reply or a row, in one line."""
    listed = getattr(error, "errors", None)
    if not callable(listed):
        return str(error)
    first = cast(list[dict[str, Any]], listed(include_url=False))[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
