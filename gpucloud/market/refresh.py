"""Read public catalogues again: all providers at once, the parts of each in series, each kept when read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gpucloud.catalog.cache import Cache, SourceKind
from gpucloud.catalog.history import History
from gpucloud.errors import NotFound, RateLimited, Unreachable
from gpucloud.market.ask import to_failure
from gpucloud.market.past import keep
from gpucloud.model import Failure, utcnow
from gpucloud.parallel import as_they_come
from gpucloud.provider import PublicCatalog, Published

Tell = Callable[[str, str, int, int | None], None]
"""Told the provider, the part, and how many bytes of how many have been read; from several threads."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What became of one part of a catalogue.

    ``offers`` is how many it has now, ``None`` when it is as it was; ``changed`` how many are new, other or
    gone. ``left`` is how many parts of this provider are still to be read.
    """

    provider: str
    part: str
    left: int
    offers: int | None = None
    changed: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """One part as it was read; ``error`` is why it could not be."""

    part: str
    left: int
    at: datetime
    published: Published | None = None
    error: Exception | None = None


def refresh(
    catalogs: Mapping[str, PublicCatalog],
    regions: Sequence[str],
    cache: Cache,
    tell: Tell,
    history: History | None = None,
) -> Iterator[Refreshed]:
    """Read the parts that tell of ``regions``, or the usual ones, and yield what became of each.

    Every part is in the cache when it is yielded, so that what an interruption leaves is taken up by the next
    refresh. A part that fails leaves what is remembered of it. Raises ``StoreError``.
    """
    known = cache.validators(SourceKind.PUBLISHED)
    tasks = {
        name: partial(_read_all, name, catalog, regions, known, partial(tell, name))
        for name, catalog in catalogs.items()
    }
    for name, answer in as_they_come(tasks):
        if isinstance(answer, NotFound) and len(tasks) > 1:
            continue  # its regions have other names
        if isinstance(answer, BaseException):
            yield Refreshed(name, "", 0, failure=to_failure(name, answer))
        else:
            kept = _keep(cache, name, answer)
            if history and answer.published and not kept.failure:
                keep(history, answer.published.offers, answer.at)
            yield kept


def _read_all(
    name: str,
    catalog: PublicCatalog,
    regions: Sequence[str],
    known: Mapping[tuple[str, str], str | None],
    tell: Callable[[str, int, int | None], None],
) -> Iterator[_Read]:
    parts = catalog.catalog_parts(regions)
    for number, part in enumerate(parts, 1):
        left, at = len(parts) - number, utcnow()
        try:
            published = catalog.catalog(part, known.get((name, part)), partial(tell, part))
        except (Unreachable, RateLimited):
            raise
        except Exception as error:  # noqa: BLE001 - one part must not keep the others from being read
            yield _Read(part, left, at, error=error)
        else:
            yield _Read(part, left, at, published)


def _keep(cache: Cache, provider: str, read: _Read) -> Refreshed:
    if read.error:
        return Refreshed(provider, read.part, read.left, failure=to_failure(provider, read.error))
    if read.published is None:
        cache.unchanged(provider, read.part, read.at)
        return Refreshed(provider, read.part, read.left)
    offers = read.published.offers
    try:
        changed = cache.put(
            provider,
            offers,
            name=offers[0].source if offers else provider,
            kind=SourceKind.PUBLISHED,
            part=read.part,
            at=read.at,
            validator=read.published.validator,
        )
    except (ArithmeticError, TypeError, ValueError) as error:
        return Refreshed(provider, read.part, read.left, failure=to_failure(provider, error))
    return Refreshed(provider, read.part, read.left, len(offers), changed)
