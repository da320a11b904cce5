"""A few rows out of a long listing: which ones are found, and what is no listing."""

from __future__ import annotations

import gzip
import json
import socketserver
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from gpucloud.errors import BadReply
from gpucloud.http import HttpClient
from gpucloud_azure.api import Listing
from gpucloud_azure.excerpt import Excerpts
from tests.harness.azure.market import A100, CPU, Row, sku
from tests.harness.catalogs import Clock

NAMES = {A100.casefold()}
WANTED = sku("eastus", A100, 24, 1, 220, "standardNCADSA100v4Family")
OTHER = sku("eastus", CPU, 4, 0, 16, "standardDSv5Family")
BODY = json.dumps({"value": [OTHER, WANTED, OTHER]}).encode()


def read(url: str) -> Listing:
    """The page at an address of a server."""
    clock = Clock()
    with HttpClient("azure", url, sleep=clock.sleep, clock=lambda: clock.now) as http:
        return Excerpts().page(http, "skus", NAMES, {})


def page(httpserver: HTTPServer, body: bytes | str, **headers: str) -> Listing:
    """What is made of a body."""
    httpserver.expect_request("/skus").respond_with_data(body, headers=headers)
    return read(httpserver.url_for(""))


def backwards(row: Row) -> Row:
    """The same with its fields in the other order."""
    return dict(reversed(row.items()))


@pytest.mark.parametrize(
    "wanted",
    [
        WANTED,
        backwards(WANTED),
        {"remark": 'a { in a text, and "another" } {', **WANTED},
        {**backwards(WANTED), "remark": "}"},
        {**WANTED, "name": "Standard_NC24ADS_A100_V4"},
        {**WANTED, "family": "Standard \u00e9t\u00e9"},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_row_is_found_however_it_is_written(
    httpserver: HTTPServer, wanted: Row, indent: int | None
) -> None:
    body = json.dumps({"value": [OTHER, wanted, OTHER]}, indent=indent, ensure_ascii=False)
    assert page(httpserver, body) == Listing(value=[wanted])


def test_what_does_not_matter_is_not_read(httpserver: HTTPServer) -> None:
    broken = json.dumps({"value": [WANTED, {**OTHER, "size": "?"}]}).replace('"?"', "?")
    assert page(httpserver, broken).value == [WANTED]


def test_a_listing_may_have_nothing_that_matters(httpserver: HTTPServer) -> None:
    assert page(httpserver, '{"value": []}') == Listing(value=[])


@pytest.mark.parametrize("link", [None, 'https://host/skus?a="b"&$skiptoken=\u00e9'])
def test_the_address_of_the_next_page_is_told(httpserver: HTTPServer, link: str | None) -> None:
    assert page(httpserver, json.dumps({"value": [WANTED], "nextLink": link})).next_link == link


def test_a_packed_listing_is_asked_for_and_unpacked(httpserver: HTTPServer) -> None:
    packed = page(httpserver, gzip.compress(BODY), **{"Content-Encoding": "gzip"})
    assert packed == Listing(value=[WANTED])
    ((request, _),) = httpserver.log
    assert request.headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"<html>", {}),
        (b"[]", {}),
        (b"null", {}),
        (b'{"value": null}', {}),
        (b'{"error": {"code": "Strange"}}', {}),
        (b'{"value": [{"name": "%s"' % A100.encode(), {}),
        (b"\xff" + BODY, {}),
        (BODY, {"Content-Encoding": "gzip"}),
        (gzip.compress(BODY)[:-20], {"Content-Encoding": "gzip"}),
        (zlib.compress(BODY), {"Content-Encoding": "deflate"}),
    ],
)
def test_what_is_no_listing_is_a_bad_reply(
    httpserver: HTTPServer, body: bytes, headers: dict[str, str]
) -> None:
    with pytest.raises(BadReply):
        page(httpserver, body, **headers)


@pytest.fixture
def breaking() -> Iterator[tuple[str, list[Any]]]:
    """A server whose first connection breaks in the middle of the reply, and the requests it has seen."""
    asked: list[bytes] = []
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n".encode()

    class Service(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline())
            while self.rfile.readline().strip():
                pass
            self.wfile.write(head + (BODY if len(asked) > 1 else BODY[:-9]))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_a_listing_that_breaks_off_is_read_again(breaking: tuple[str, list[Any]]) -> None:
    url, asked = breaking
    assert read(url) == Listing(value=[WANTED])
    assert len(asked) == 2
