"""Adapters before a server on loopback that publishes prices, what it answers, and what they make of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.http import HttpClient, untold
from gpucloud.model import Offer
from gpucloud.provider import Adapter, ProviderSettings, PublicCatalog, Published

A = TypeVar("A", bound=Adapter)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self.now += seconds


def an_adapter(
    kind: type[A],
    server: HTTPServer,
    folder: Path,
    clock: Clock | None = None,
    rates: Mapping[str, Decimal] | None = None,
    **table: Any,
) -> A:
    """An adapter that asks this server and never waits for real; ``table`` are more of its settings."""
    time = clock or Clock()
    table = {"catalog_url": server.url_for(""), **table}
    adapter = kind(ProviderSettings(kind.name, folder, table=table, rates=rates or {}))
    adapter.client = partial(HttpClient, sleep=time.sleep, clock=lambda: time.now)
    return adapter


def reply(body: Any, status: int = 200) -> Response:
    """A body as JSON."""
    return Response(json.dumps(body), status, content_type="application/json")


def answer(body: Any) -> Callable[[Request], Response]:
    """A handler that tells ``body``, and that nothing has changed to whom it has told it before."""

    def handler(request: Request) -> Response:
        response = reply(body)
        response.add_etag()
        return response.make_conditional(request)

    return handler


def edition(
    catalog: PublicCatalog,
    part: str = "",
    validator: str | None = None,
    tell: Callable[[int, int | None], None] = untold,
) -> Published:
    """One part of a catalogue, which must be another edition than that of ``validator``."""
    published = catalog.catalog(part, validator, tell)
    assert published is not None
    return published


def read(catalog: PublicCatalog, part: str = "") -> list[Offer]:
    """The offers of one part by instance type, region and market: a catalogue promises no order."""
    return sorted(edition(catalog, part).offers, key=lambda offer: (offer.id, offer.ref))
