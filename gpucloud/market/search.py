"""A search over what providers offer: who is asked answers live, the others are remembered, with age."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gpucloud.catalog.cache import Cache
from gpucloud.catalog.filters import all_of, filters
from gpucloud.catalog.where import Condition
from gpucloud.errors import StoreError
from gpucloud.market.ask import ask_all, offers_of, to_failure
from gpucloud.market.order import RANK
from gpucloud.model import Failure, Offer, Requirements, utcnow
from gpucloud.provider import Provider

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How to search.

    ``timeout_s`` is how long to wait for the slowest provider. A provider that told everything within
    ``max_age`` is not asked again; ``None`` asks nobody. ``stand_ins`` are the providers whose last known
    offers, or listed prices, are shown when they were not asked or did not answer. Of each ``group``, which
    are expressions of SQL as ``order`` is, only the best offer is told.
    """

    timeout_s: float
    max_age: timedelta | None = timedelta(0)
    stand_ins: frozenset[str] = frozenset()
    order: Sequence[str] = RANK
    group: Sequence[str] = ()
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The matching offers, best first; whether there are ``more`` than the limit; and who could not answer.

    ``removed`` is how many offers each filter removed, counted only when nothing matches. ``gpus`` is every
    GPU that was on offer, matching or not: what a mistyped name is compared with.
    """

    offers: tuple[Offer, ...]
    more: bool = False
    failures: tuple[Failure, ...] = ()
    removed: Counter[str] = field(default_factory=Counter)
    gpus: frozenset[str] = frozenset()


def search(
    providers: Sequence[Provider], wanted: Requirements, terms: Terms, cache: Cache | None = None
) -> SearchResult:
    """Ask all ``providers`` at once; one that fails or is late never hides the others.

    Without ``cache`` nothing is remembered. Raises ``UsageError`` when ``wanted.where`` makes no sense.
    """
    named = filters(wanted)
    if cache is None:
        with Cache(None) as fresh:
            return search(providers, wanted, terms, fresh)
    asked = [provider for provider in providers if not _fresh(cache, provider, terms.max_age)]
    found, failures = ask_all(asked, lambda p: (utcnow(), offers_of(p, wanted)), terms.timeout_s)
    try:
        failures += _remember(cache, found, all_of(named.values()))
    except StoreError as error:
        log.warning("%s (%s); nothing is remembered", error.message, error.why)
        cache = Cache(None)
        failures += _remember(cache, found, all_of(named.values()))
    late = {failure.provider for failure in failures}
    answered = {provider.name for provider in providers} - late
    return _select(cache, _scope(cache, answered, terms.stand_ins), named, terms, failures)


def _remember(
    cache: Cache, found: Mapping[str, tuple[datetime, list[Offer]]], wanted: Condition
) -> list[Failure]:
    """Put every answer into the cache; returns whose made no sense."""
    failures = []
    for name, (at, offers) in found.items():
        try:
            cache.put(name, offers, name=offers[0].source if offers else name, at=at, wanted=wanted)
        except (ArithmeticError, TypeError, ValueError) as error:
            failures.append(to_failure(name, error))
    return failures


def _fresh(cache: Cache, provider: Provider, max_age: timedelta | None) -> bool:
    """Whether what is remembered of a provider will do; a script may want another answer each time."""
    if max_age is None or provider.settings.script:
        return max_age is None
    known = [s.complete_at for s in cache.sources() if s.provider == provider.name and s.live]
    return any(at is not None and utcnow() - at < max_age for at in known)


def _scope(cache: Cache, answered: Collection[str], stand_ins: Collection[str]) -> Condition:
    """The sources that count; listed prices only of providers of whom nothing better is known."""
    sources = cache.sources()
    live = {source.provider for source in sources if source.live}
    ids = [
        source.id
        for source in sources
        if (source.live and source.provider in {*answered, *stand_ins})
        or (not source.live and source.provider in stand_ins and source.provider not in live)
    ]
    return Condition(f"offers.source IN ({', '.join('?' * len(ids))})", tuple(ids))


def _select(
    cache: Cache, scope: Condition, named: Mapping[str, Condition], terms: Terms, failures: Sequence[Failure]
) -> SearchResult:
    matching = all_of([scope, *named.values()])
    # One more than is wanted tells whether there is more, and counting them all would take as long again.
    one_more = None if terms.limit is None else terms.limit + 1
    offers = cache.select(matching, order=terms.order, group=terms.group, limit=one_more)
    if offers:
        return SearchResult(tuple(offers[: terms.limit]), len(offers) == one_more, tuple(failures))
    removed = _removed(cache, scope, named)
    return SearchResult((), False, tuple(failures), removed, frozenset(cache.gpus(scope)))


def _removed(cache: Cache, scope: Condition, named: Mapping[str, Condition]) -> Counter[str]:
    """How many offers each filter removed of those that the ones before it had left."""
    removed: Counter[str] = Counter()
    passed, left = [scope], cache.count(scope)
    for name, condition in named.items():
        passed.append(condition)
        now = cache.count(all_of(passed))
        if now < left:
            removed[name] = left - now
        left = now
    return removed
