"""Public catalogues: read part by part, each kept when it is there, and none that did not change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.catalog.cache import Cache, SourceKind
from gpucloud.catalog.history import History
from gpucloud.errors import BadReply, NotFound, Unreachable
from gpucloud.market.refresh import Refreshed, refresh
from gpucloud.model import Gpu, Offer, utcnow
from gpucloud.provider import Published
from tests.harness.adapters import an_offer

Part = Callable[[str | None], Published | None]


class Catalog:
    """A public catalogue with these parts; ``asked`` is what it was asked for, with which editions."""

    def __init__(self, **parts: Part) -> None:
        self.parts = parts
        self.asked: list[tuple[str, str | None]] = []

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        unknown = set(regions) - set(self.parts)
        if unknown:
            raise NotFound(f"there is no {min(unknown)}", provider="acme")
        return list(regions or self.parts)

    def catalog(
        self, part: str, validator: str | None, tell: Callable[[int, int | None], None]
    ) -> Published | None:
        self.asked.append((part, validator))
        tell(1, None)
        return self.parts[part](validator)


def published(*offers: Offer, edition: str | None = None) -> Part:
    return lambda validator: None if edition and validator == edition else Published(offers, edition)


def failing(error: Exception) -> Part:
    def read(_: str | None) -> Published:
        raise error

    return read


def sold(part: str, price: int = 1) -> Offer:
    return an_offer(
        region=part, usd_per_hour=Decimal(price), confidence="published", as_of=utcnow(), source="site"
    )


def untold(*_: object) -> None:
    pass


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "market.db") as cache:
        yield cache


def read(cache: Cache, *regions: str, **catalogs: Catalog) -> list[Refreshed]:
    return list(refresh(catalogs, regions, cache, untold))


def test_every_part_is_kept_and_counted(cache: Cache) -> None:
    acme = Catalog(east=published(sold("east")), west=published(sold("west"), sold("west-2")))
    east, west = read(cache, acme=acme)
    assert (east.part, east.offers, east.changed, east.left) == ("east", 1, 1, 1)
    assert (west.part, west.offers, west.changed, west.left) == ("west", 2, 2, 0)
    assert {source.kind for source in cache.sources()} == {SourceKind.PUBLISHED}
    assert sorted(str(offer.region) for offer in cache.select()) == ["east", "west", "west-2"]


def test_what_did_not_change_is_not_read_and_is_as_of_now(cache: Cache) -> None:
    acme = Catalog(east=published(sold("east"), edition='"1"'))
    read(cache, acme=acme)
    before = cache.select()
    (again,) = read(cache, acme=acme)
    assert acme.asked == [("east", None), ("east", '"1"')]
    assert (again.offers, again.changed) == (None, 0)
    assert [offer.id for offer in cache.select()] == [offer.id for offer in before]
    (source,) = cache.sources()
    assert source.complete_at is not None
    assert utcnow() - source.complete_at < timedelta(minutes=1)


def test_what_is_told_the_same_again_changes_nothing(cache: Cache) -> None:
    acme = Catalog(east=published(sold("east")))
    read(cache, acme=acme)
    (again,) = read(cache, acme=acme)
    assert (again.offers, again.changed) == (1, 0)
    acme.parts["east"] = published(sold("east", price=2))
    (other,) = read(cache, acme=acme)
    assert (other.offers, other.changed) == (1, 1)


def test_an_interrupted_refresh_keeps_the_parts_that_were_read(cache: Cache) -> None:
    acme = Catalog(
        east=published(sold("east"), edition='"1"'),
        west=failing(KeyboardInterrupt()),  # type: ignore[arg-type]
    )
    parts = refresh({"acme": acme}, (), cache, untold)
    assert next(parts).part == "east"
    parts.close()  # type: ignore[attr-defined]
    acme.parts["west"] = published(sold("west"))
    acme.asked.clear()
    read(cache, acme=acme)
    assert acme.asked == [("east", '"1"'), ("west", None)]


def test_a_part_that_makes_no_sense_keeps_no_other_from_being_read(cache: Cache) -> None:
    read(cache, acme=Catalog(bad=published(sold("old"))))
    parts = {
        "bad": failing(BadReply("acme sent nonsense", provider="acme", why="", hint="")),
        "huge": published(sold("huge"), an_offer(vcpus=10**30)),
        "good": published(sold("good")),
    }
    bad, huge, good = read(cache, acme=Catalog(**parts))
    assert bad.failure is not None
    assert huge.failure is not None
    assert (good.failure, good.offers) == (None, 1)
    # What is remembered of a part that failed is still there.
    assert sorted(str(offer.region) for offer in cache.select()) == ["good", "old"]


def test_a_provider_that_does_not_answer_is_left_alone_and_hides_nobody(cache: Cache) -> None:
    down = Catalog(
        east=failing(Unreachable("down is down", provider="down", why="", hint="")), west=published(sold("w"))
    )
    done = read(cache, down=down, up=Catalog(east=published(sold("east"))))
    assert {(part.provider, part.failure is None) for part in done} == {("down", False), ("up", True)}
    assert [part for part, _ in down.asked] == ["east"]


def test_only_the_parts_of_the_wanted_regions_are_read(cache: Cache) -> None:
    acme = Catalog(east=published(sold("east")), west=published(sold("west")))
    assert [part.part for part in read(cache, "west", acme=acme)] == ["west"]
    (nowhere,) = read(cache, "north", acme=acme)
    assert nowhere.failure is not None
    assert "north" in nowhere.failure.message


def test_providers_are_read_at_the_same_time(cache: Cache) -> None:
    meeting = threading.Barrier(2, timeout=20)

    def meet(_: str | None) -> Published:
        meeting.wait()
        return Published([sold("here")])

    done = read(cache, one=Catalog(a=meet), other=Catalog(a=meet))
    assert [part.failure for part in done] == [None, None]


def test_how_far_each_has_come_is_told(cache: Cache) -> None:
    told: list[tuple[str, str, int, int | None]] = []
    list(
        refresh({"acme": Catalog(east=published(sold("east")))}, (), cache, lambda *words: told.append(words))
    )
    assert told == [("acme", "east", 1, None)]


def test_a_history_that_is_damaged_keeps_nothing_from_being_read(
    cache: Cache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "history.db"
    file.write_bytes(b"no database at all" * 100)
    catalog = Catalog(east=published(sold("east")), west=published(sold("west")))
    done = list(refresh({"acme": catalog}, (), cache, untold, History(file)))
    assert [part.offers for part in done] == [1, 1]
    assert "the price history cannot be used" in caplog.text


def test_an_answer_that_cannot_be_kept_is_in_no_history(cache: Cache, tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    catalog = Catalog(huge=published(an_offer(gpu=Gpu("H100"), gpu_count=1, usd_per_hour=Decimal(10**30))))
    (done,) = refresh({"acme": catalog}, (), cache, untold, history)
    assert done.failure is not None
    assert history.lines(datetime(2000, 1, 1, tzinfo=UTC)) == []
    history.close()
