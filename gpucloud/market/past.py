"""Take over the past prices that providers tell: all of them at once, each kept when it is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gpucloud.catalog.history import History
from gpucloud.market.ask import to_failure
from gpucloud.model import Failure, Offer, utcnow
from gpucloud.parallel import as_they_come
from gpucloud.provider import SpotHistory


def take_over(
    sources: Mapping[str, SpotHistory], since: datetime, regions: Sequence[str], history: History
) -> Iterator[tuple[str, int | Failure]]:
    """What became of each provider: how many quotes are new, or why it could not be asked.

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
