"""What becomes the past: quotes that were told now, and those that providers tell of earlier times."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gpucloud.catalog.history import History
from gpucloud.errors import StoreError
from gpucloud.market.ask import to_failure
from gpucloud.model import Failure, Offer, utcnow
from gpucloud.parallel import as_they_come
from gpucloud.provider import SpotHistory

log = logging.getLogger(__name__)


def keep(history: History, offers: Sequence[Offer], at: datetime) -> None:
    """Note what was told; a history that cannot be written keeps nobody from anything."""
    try:
        history.note(offers, at)
    except StoreError as error:
        log.warning("%s (%s); no quote is kept", error.message, error.why)


def take_over(
    sources: Mapping[str, SpotHistory], since: datetime, regions: Sequence[str], history: History
) -> Iterator[tuple[str, int | Failure]]:
    """Ask all at once; what became of each: how many quotes are new, or why it could not be asked.

    Raises ``StoreError``.
    """
    tasks = {name: partial(_read, source, since, regions) for name, source in sources.items()}
    for name, answer in as_they_come(tasks):
        if isinstance(answer, BaseException):
            yield name, to_failure(name, answer)
            continue
        try:
            yield name, history.add(answer.offers, answer.at)
        except (ArithmeticError, TypeError, ValueError) as error:
            yield name, to_failure(name, error)


@dataclass(frozen=True, slots=True)
class _Told:
    offers: list[Offer]
    at: datetime


def _read(source: SpotHistory, since: datetime, regions: Sequence[str]) -> Iterator[_Told]:
    at = utcnow()
    yield _Told(list(source.spot_history(since, regions)), at)
