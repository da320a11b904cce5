"""Large files, from a real server on loopback that breaks off where each test wants it to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gpucloud.download import MOST_BREAKS, download
from gpucloud.errors import BadReply, NotFound, Unreachable
from gpucloud.http import HttpClient

TEXT = b"".join(b"line %d \xc3\xa9\n" % number for number in range(5_000)) + b"the last"


class Server(ThreadingHTTPServer):
    """One file, whose edition is ``etag``; ``breaks`` are how many bytes each answer has before it breaks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = TEXT
        self.headers = {"ETag": '"1"', "Accept-Ranges": "bytes"}
        self.statuses: list[int] = []
        self.breaks: list[int] = []
        self.asked: list[dict[str, str]] = []
        self.change_after_first = False


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        server.asked.append({name.lower(): value for name, value in self.headers.items()})
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self._send(status, b"{}", {"Retry-After": "0"})
            return
        asked = server.asked[-1]
        if asked.get("if-none-match") == server.headers.get("ETag", "none"):
            self._send(304, b"", server.headers)
        elif "range" in asked and not server.change_after_first:
            first = int(asked["range"].removeprefix("bytes=").removesuffix("-"))
            self._send(206, server.body[first:], server.headers)
        else:
            self._send(200, server.body, server.headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if status in {200, 206} and self.server.breaks:
            body = body[: self.server.breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def http(server: Server) -> Iterator[HttpClient]:
    with HttpClient(
        "acme", f"http://127.0.0.1:{server.server_address[1]}", sleep=lambda _: None, deadline_s=5
    ) as client:
        yield client


def read(http: HttpClient, **settings: object) -> bytes | None:
    with download(http, "/file", **settings) as file:  # type: ignore[arg-type]
        return None if file is None else b"".join(file.chunks)


def test_a_file_is_read_chunk_by_chunk_and_its_edition_is_told(http: HttpClient) -> None:
    told: list[tuple[int, int | None]] = []
    with download(http, "/file", tell=lambda done, total: told.append((done, total))) as file:
        assert file is not None
        assert file.validator == '"1"'
        assert b"".join(file.chunks) == TEXT
    assert told[-1] == (len(TEXT), len(TEXT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_lines_of_a_file_are_its_lines(http: HttpClient) -> None:
    with download(http, "/file") as file:
        assert file is not None
        assert list(file.lines()) == TEXT.decode().splitlines(keepends=True)


def test_an_edition_that_is_known_is_not_read(http: HttpClient, server: Server) -> None:
    assert read(http, validator='"1"') is None
    assert read(http, validator='"0"') == TEXT
    server.headers = {"Last-Modified": "Fri, 20 Nov 2026 10:00:00 GMT"}
    assert read(http, validator=server.headers["Last-Modified"]) == TEXT
    assert server.asked[-1]["if-modified-since"] == server.headers["Last-Modified"]


def test_a_broken_connection_is_taken_up_where_it_broke(http: HttpClient, server: Server) -> None:
    server.breaks = [1_000, 20_000, 0]
    told: list[int] = []
    assert read(http, tell=lambda done, _: told.append(done)) == TEXT
    assert [asked.get("range") for asked in server.asked] == [
        None,
        "bytes=1000-",
        "bytes=21000-",
        "bytes=21000-",
    ]
    assert {asked.get("if-range") for asked in server.asked[1:]} == {'"1"'}
    assert told == sorted(told)


def test_what_changes_while_it_is_read_is_not_glued_together(http: HttpClient, server: Server) -> None:
    server.breaks, server.change_after_first = [1_000], True
    with pytest.raises(Unreachable, match="changed what was being read"):
        read(http)


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_without_a_strong_edition_nothing_is_taken_up(
    http: HttpClient, server: Server, headers: dict[str, str]
) -> None:
    server.headers, server.breaks = headers, [1_000]
    with pytest.raises(Unreachable):
        read(http)
    assert len(server.asked) == 1


def test_a_connection_that_always_breaks_is_given_up(http: HttpClient, server: Server) -> None:
    server.breaks = [1] * 100
    with pytest.raises(Unreachable):
        read(http)
    assert len(server.asked) == MOST_BREAKS + 1


def test_a_failure_before_the_first_byte_is_tried_again(http: HttpClient, server: Server) -> None:
    server.statuses = [503, 429, 200]
    assert read(http) == TEXT
    server.statuses = [404]
    with pytest.raises(NotFound):
        read(http)
    server.statuses = [302]
    with pytest.raises(BadReply):
        read(http)


def test_the_edition_of_a_document_is_told_and_spares_the_next_read(http: HttpClient, server: Server) -> None:
    server.body = b'{"a": 1}'
    assert http.get_edition("/file") == ({"a": 1}, '"1"')
    assert http.get_edition("/file", validator='"1"') is None
    assert http.get_edition("/file", validator='"0"') == ({"a": 1}, '"1"')
    server.headers = {}
    assert http.get_edition("/file") == ({"a": 1}, None)


def test_unchanged_is_no_answer_to_who_did_not_ask_for_changes(http: HttpClient, server: Server) -> None:
    server.statuses = [304]
    with pytest.raises(BadReply):
        http.get("/file")
