"""A search over what providers offer: who is asked answers live, the others are remembered, with age."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from gpucloud.catalog.cache import Cache, Source, SourceKind
from gpucloud.catalog.filters import all_of, filters
from gpucloud.catalog.history import History
from gpucloud.catalog.where import ALL, Condition
from gpucloud.errors import StoreError
from gpucloud.http import within
from gpucloud.market.ask import IN_TIME, offers_of, to_failure, too_late
from gpucloud.market.order import RANK
from gpucloud.market.passed_on import once
from gpucloud.market.past import keep
from gpucloud.market.shortlist import shortlist
from gpucloud.model import Failure, Offer, Requirements, utcnow
from gpucloud.parallel import as_they_come
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


class Search:
    """One search: ``results`` while the answers arrive, ``remember`` when there is time for it.

    Without ``cache`` nothing is remembered, without ``history`` no quote kept. Raises ``UsageError`` when
    ``wanted.where`` makes no sense.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        wanted: Requirements,
        terms: Terms,
        cache: Cache | None = None,
        history: History | None = None,
    ) -> None:
        self._wanted, self._terms, self._filters = wanted, terms, filters(wanted)
        self._cache, self._history = Cache(None) if cache is None else cache, history
        self._sources = self._cache.sources()
        self._asked = {p.name: p for p in providers if not _fresh(self._sources, p, terms.max_age)}
        self._known = {provider.name for provider in providers} - set(self._asked)
        self._told: dict[str, _Answer] = {}

    @property
    def asks(self) -> bool:
        """Whether there is anybody to wait for."""
        return bool(self._asked)

    def results(self, *, every_answer: bool = False) -> Iterator[SearchResult]:
        """What is found in the end; before that, if wanted, what is found with each answer that arrives."""
        if not self._asked:
            found = self._found(self._cache, self._scope())
            yield found if found.offers else self._why(found)
            return
        failures: dict[str, Failure] = {}
        unranked: dict[str, _Answer] = {}
        with Cache(None) as ranking:
            self._stand_in(ranking)
            for name, answer in self._answers():
                if isinstance(answer, BaseException):
                    log.debug("%s failed", name, exc_info=answer)
                    failures[name] = to_failure(name, answer)
                else:
                    unranked[name] = answer
                if every_answer:
                    failures |= self._rank(ranking, unranked)
                    unranked = {}
                    yield self._found(ranking, _nearest(ranking))
            failures |= self._rank(ranking, unranked)
            found = self._found(ranking, _nearest(ranking))
        missing = [name for name in self._asked if name not in self._told]
        told = (failures.get(name) or too_late(name, self._terms.timeout_s) for name in missing)
        found = replace(found, failures=tuple(told))
        yield found if found.offers else self._why(found)

    def remember(self) -> None:
        """Put what was told into the cache and the history; what cannot be kept is only logged."""
        told, self._told = self._told, {}
        wanted = all_of(self._filters.values())
        try:
            for name, answer in told.items():
                if fault := _put(self._cache, name, answer, answer.offers, wanted):
                    log.warning("%s: what it told is not remembered (%s)", name, fault.message)
                elif self._history:
                    keep(self._history, answer.offers, answer.at)
        except StoreError as error:
            log.warning("%s (%s); nothing is remembered", error.message, error.why)

    def _answers(self) -> Iterator[tuple[str, _Answer | BaseException]]:
        tasks = {name: partial(self._ask, provider) for name, provider in self._asked.items()}
        return as_they_come(tasks, self._terms.timeout_s)

    def _ask(self, provider: Provider) -> Iterator[_Answer]:
        at = utcnow()
        with within(self._terms.timeout_s * IN_TIME):
            offers = offers_of(provider, self._wanted)
        yield _Answer(at, offers, self._shortlist(offers))

    def _shortlist(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        limit = None if self._terms.group else self._one_more
        return shortlist(offers, self._wanted, self._terms.order, limit)

    def _rank(self, ranking: Cache, answers: Mapping[str, _Answer]) -> dict[str, Failure]:
        """Put what can be among the best into a cache; returns whose answer makes no sense."""
        failures = {}
        best = set(map(id, self._shortlist([offer for answer in answers.values() for offer in answer.best])))
        for name, answer in answers.items():
            if fault := _put(ranking, name, answer, [offer for offer in answer.best if id(offer) in best]):
                failures[name] = fault
            else:
                self._told[name] = answer
        return failures

    @property
    def _one_more(self) -> int | None:
        # One more than is wanted tells whether there is more; counting them all would take as long again.
        return None if self._terms.limit is None else self._terms.limit + 1

    def _scope(self) -> Condition:
        """What is remembered and counts: of who need not be asked live offers, of stand-ins the nearest."""
        kinds = _kinds(self._sources)
        return _among(
            source
            for source in self._sources
            if source.kind is kinds[source.provider]
            and source.provider not in self._told
            and (
                source.provider in self._terms.stand_ins
                or (source.provider in self._known and source.kind is SourceKind.LIVE)
            )
        )

    def _stand_in(self, ranking: Cache) -> None:
        """What is remembered counts until something better is told."""
        kinds = _kinds(self._sources)
        remembered: dict[str, list[Offer]] = {}
        for offer in self._best(self._cache, self._scope()):
            remembered.setdefault(offer.provider, []).append(offer)
        for name, offers in remembered.items():
            ranking.put(name, offers, name=offers[0].source, kind=kinds[name], at=utcnow())

    def _best(self, cache: Cache, scope: Condition) -> list[Offer]:
        matching = all_of([scope, *self._filters.values()])
        order, group, wanted = self._terms.order, self._terms.group, self._one_more
        limit = wanted
        while True:
            told = cache.select(matching, order=order, group=group, limit=limit)
            best = once(told)
            if wanted is None or limit is None or len(best) >= wanted or len(told) < limit:
                return best[:wanted]
            # What is told twice has taken the places of others.
            limit *= 2

    def _found(self, cache: Cache, scope: Condition) -> SearchResult:
        offers = self._best(cache, scope)
        return SearchResult(tuple(offers[: self._terms.limit]), len(offers) == self._one_more)

    def _why(self, found: SearchResult) -> SearchResult:
        """The same, with the reasons why there is nothing in it."""
        with Cache(None) as told:
            for name, answer in self._told.items():
                _put(told, name, answer, answer.offers)
            places = ((told, ALL), (self._cache, self._scope()))
            removed = sum((_removed(*place, self._filters) for place in places), Counter[str]())
            gpus = frozenset(gpu for cache, scope in places for gpu in cache.gpus(scope))
        return replace(found, removed=removed, gpus=gpus)


def search(
    providers: Sequence[Provider], wanted: Requirements, terms: Terms, cache: Cache | None = None
) -> SearchResult:
    """Ask all ``providers`` at once and remember what they told; as ``Search``."""
    one = Search(providers, wanted, terms, cache)
    (found,) = one.results()
    one.remember()
    return found


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one provider told, when it was asked, and which of it can be among the best."""

    at: datetime
    offers: Sequence[Offer]
    best: Sequence[Offer]


def _put(
    cache: Cache, name: str, answer: _Answer, offers: Sequence[Offer], wanted: Condition = ALL
) -> Failure | None:
    """Put an answer into a cache; returns what is wrong when it makes no sense."""
    source = offers[0].source if offers else name
    try:
        cache.put(name, offers, name=source, at=answer.at, wanted=wanted)
    except (ArithmeticError, TypeError, ValueError) as error:
        return to_failure(name, error)
    return None


def _fresh(sources: Iterable[Source], provider: Provider, max_age: timedelta | None) -> bool:
    """Whether what is remembered of a provider will do; a script may want another answer each time."""
    if max_age is None or provider.settings.script:
        return max_age is None
    live = (s for s in sources if s.provider == provider.name and s.kind is SourceKind.LIVE)
    return any(s.complete_at is not None and utcnow() - s.complete_at < max_age for s in live)


def _kinds(sources: Iterable[Source]) -> dict[str, SourceKind]:
    """The kind of source of each provider that is nearest to the market."""
    return {source.provider: source.kind for source in sorted(sources, key=lambda source: source.kind)}


def _nearest(cache: Cache) -> Condition:
    sources = cache.sources()
    kinds = _kinds(sources)
    return _among(source for source in sources if source.kind is kinds[source.provider])


def _among(sources: Iterable[Source]) -> Condition:
    ids = [source.id for source in sources]
    return Condition(f"offers.source IN ({', '.join('?' * len(ids))})", tuple(ids))


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
