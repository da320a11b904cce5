"""The contracts of public catalogues and of past prices as tests: subclass, give the fixture, run pytest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpucloud.catalog.gpus import facts
from gpucloud.errors import AuthError
from gpucloud.http import untold
from gpucloud.model import Availability, Market, Offer, utcnow
from gpucloud.provider import PublicCatalog


class SpotHistoryConformance:
    """The fixture ``teller`` is the adapter, with settings that lead it to a server that the test made.

    What that server tells must be of the ten days before now, and of one GPU at least that is known.
    """

    @pytest.fixture
    def teller(self) -> Any:
        """The adapter. To be overridden."""
        pytest.fail("give the suite a teller fixture")

    def test_past_offers_are_complete(self, teller: Any) -> None:
        since = utcnow() - timedelta(days=10)
        told = list(teller.spot_history(since, ()))
        assert told
        for offer in told:
            assert offer.provider == teller.name
            assert offer.instance_type
            assert offer.source
            assert offer.confidence == "history"
            assert offer.gpu is not None
            assert offer.gpu_count > 0
            assert offer.market is Market.SPOT
            assert offer.usd_per_hour > 0
            assert offer.zone or offer.region
            assert offer.as_of.tzinfo is not None
            assert offer.as_of <= utcnow()
        assert any(facts(offer.gpu) for offer in told)

    def test_without_credentials_it_says_so(self, teller: Any) -> None:
        bare = type(teller)(replace(teller.settings, environ={"HOME": "/nonexistent"}))
        with pytest.raises(AuthError):
            list(bare.spot_history(utcnow() - timedelta(days=1), ()))


class CatalogConformance:
    """The fixture ``catalog`` is the adapter, with settings that lead it to a server that the test made.

    What that server tells must be in the vendor's own format, and tell of one GPU at least that is known.
    """

    @pytest.fixture
    def catalog(self) -> Any:
        """The adapter. To be overridden."""
        pytest.fail("give the suite a catalog fixture")

    @pytest.fixture
    def published(self, catalog: PublicCatalog) -> list[Offer]:
        """Every offer of every usual part."""
        return list(_read(catalog))

    def test_it_is_a_public_catalogue_in_the_package_of_its_name(self, catalog: Any) -> None:
        assert issubclass(type(catalog), PublicCatalog)
        assert re.fullmatch(r"[a-z][a-z0-9]*", catalog.name)
        assert type(catalog).__module__.split(".")[0] == f"gpucloud_{catalog.name}"

    def test_making_one_needs_no_network(self, catalog: Any) -> None:
        type(catalog)(replace(catalog.settings, table={}, environ={}))

    def test_its_parts_have_names_of_their_own(self, catalog: PublicCatalog) -> None:
        parts = list(catalog.catalog_parts(()))
        assert parts
        assert len(set(parts)) == len(parts)

    def test_published_offers_are_complete(self, catalog: Any, published: list[Offer]) -> None:
        assert published
        for offer in published:
            assert offer.provider == catalog.name
            assert offer.instance_type
            assert offer.source
            assert offer.confidence == "published"
            assert offer.gpu is not None
            assert offer.gpu_count > 0
            assert isinstance(offer.market, Market)
            assert isinstance(offer.availability, Availability)
            assert isinstance(offer.usd_per_hour, Decimal)
            assert offer.usd_per_hour > 0
            assert offer.amount is None or isinstance(offer.amount, Decimal)
            assert re.fullmatch(r"[A-Z]{3}", offer.currency)
            assert offer.currency == "USD" or offer.amount is not None
            assert offer.country is None or re.fullmatch(r"[A-Z]{2}", offer.country)
            assert offer.vcpus is None or offer.vcpus > 0
            assert offer.memory_gib is None or offer.memory_gib > 0
            assert offer.as_of.tzinfo is not None
            assert offer.as_of <= utcnow() + timedelta(minutes=1)

    def test_no_two_published_offers_are_one(self, published: list[Offer]) -> None:
        ids = [(offer.id, offer.ref) for offer in published]
        assert sorted(ids) == sorted(set(ids))

    def test_a_gpu_of_the_table_is_recognised(self, published: list[Offer]) -> None:
        assert any(offer.gpu and facts(offer.gpu) for offer in published)

    def test_how_far_it_has_come_only_grows(self, catalog: PublicCatalog) -> None:
        for part in catalog.catalog_parts(()):
            told: list[int] = []
            catalog.catalog(part, None, lambda read, _, told=told: told.append(read))  # type: ignore[misc]
            assert told
            assert told == sorted(told)

    def test_an_edition_that_is_known_is_not_read_again(self, catalog: PublicCatalog) -> None:
        for part in catalog.catalog_parts(()):
            first = catalog.catalog(part, None, untold)
            assert first is not None
            if first.validator is not None:
                assert catalog.catalog(part, first.validator, untold) is None


def _read(catalog: PublicCatalog) -> Iterator[Offer]:
    for part in catalog.catalog_parts(()):
        read = catalog.catalog(part, None, untold)
        assert read is not None
        yield from read.offers
