"""The HTTP client against a real server on loopback that does what each test tells it to."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud import __version__
from gpucloud.errors import (
    AuthError,
    BadReply,
    BalanceExhausted,
    ConfigError,
    NoCapacity,
    NotFound,
    ProviderError,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.http import (
    LOGGED_BODY_LENGTH,
    MAX_REPLY_BYTES,
    VENDOR_TEXT_LENGTH,
    HttpClient,
    retry_reads,
    within,
)
from gpucloud.model import utcnow
from gpucloud.testing.responses import Responses

WRITES = ("post", "put", "patch", "delete")
VERBS = ("get", *WRITES)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@dataclass
class Reply:
    """What the server does with one request; ``act`` takes the place of a reply."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    act: Callable[[BaseHTTPRequestHandler], None] | None = None


@dataclass
class Seen:
    """A request as the server read it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Server(ThreadingHTTPServer):
    """Plays its replies in order; the last one is played again and again."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[Reply] = [Reply()]
        self.seen: list[Seen] = []
        self.connections = 0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def next_reply(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline()
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        names = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.command, self.path, names, body))
        reply = self.server.next_reply()
        if reply.act:
            self.close_connection = True
            reply.act(self)
            return
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)


def hang(handler: BaseHTTPRequestHandler) -> None:
    assert isinstance(handler.server, Server)
    handler.server.released.wait()


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Close without a word."""


def cut_in_the_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


def flood(handler: BaseHTTPRequestHandler) -> None:
    """Send a body without end, until the client goes away."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    piece = b" " * 2**20
    try:
        while True:
            handler.wfile.write(piece)
    except OSError:
        return


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def moment() -> Time:
    return Time()


@pytest.fixture
def client(server: Server, moment: Time) -> Iterator[HttpClient]:
    with HttpClient(
        "acme",
        server.url + "/v1/",
        headers={"Authorization": "Bearer s3cr3t-bearer"},
        sleep=moment.sleep,
        clock=moment.clock,
    ) as client:
        yield client


def call(client: HttpClient, verb: str, path: str = "/pods") -> Any:
    return getattr(client, verb)(path)


def failure(client: HttpClient, verb: str, path: str = "/pods") -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call(client, verb, path)
    return caught.value


# Requests and replies


def test_a_read_sends_parameters_and_returns_decoded_json(server: Server, client: HttpClient) -> None:
    server.replies = [Reply(body=b'{"pods": [1, "\xc3\xa9"]}')]
    assert client.get("/pods", params={"page": 2}) == {"pods": [1, "é"]}
    (seen,) = server.seen
    assert (seen.method, seen.target) == ("GET", "/v1/pods?page=2")
    assert seen.headers["authorization"] == "Bearer s3cr3t-bearer"
    assert seen.headers["user-agent"] == f"gpucloud/{__version__}"


@pytest.mark.parametrize("verb", WRITES)
def test_a_write_sends_json_and_headers(server: Server, client: HttpClient, verb: str) -> None:
    server.replies = [Reply(201, b'{"id": "i-1"}')]
    send = getattr(client, verb)
    assert send("pods", json={"gpu": 8}, params={"dry": 1}, headers={"X-Once": "t1"}) == {"id": "i-1"}
    (seen,) = server.seen
    assert (seen.method, seen.target) == (verb.upper(), "/v1/pods?dry=1")
    assert json.loads(seen.body) == {"gpu": 8}
    assert seen.headers["x-once"] == "t1"
    assert seen.headers["authorization"] == "Bearer s3cr3t-bearer"


@pytest.mark.parametrize("reply", [Reply(204, b""), Reply(200, b""), Reply(200, b" \r\n")])
def test_an_empty_body_is_none(server: Server, client: HttpClient, reply: Reply) -> None:
    server.replies = [reply]
    assert client.get("/pods") is None
    assert client.delete("/pods/1") is None


@pytest.mark.parametrize(
    ("body", "told"),
    [(b"a-bare-id", "a-bare-id"), (b'"quoted"', "quoted"), (b"<html>", "<html>"), (b"", None)],
)
def test_bare_text_is_taken_where_it_is_asked_for(
    server: Server, client: HttpClient, body: bytes, told: str | None
) -> None:
    server.replies = [Reply(202, body)]
    assert client.post_for_text("/pods", json={"gpu": 8}) == told


def test_bare_text_is_asked_for_once(server: Server, client: HttpClient) -> None:
    server.replies = [Reply(500, b"lost")]
    with pytest.raises(Unreachable) as failed:
        client.post_for_text("/pods", json={"gpu": 8})
    assert failed.value.outcome_unknown
    assert len(server.seen) == 1


@pytest.mark.parametrize("reply", [Reply(500, b"lost"), Reply(429, b"{}")])
def test_what_changes_something_by_get_is_asked_for_once(
    server: Server, client: HttpClient, reply: Reply
) -> None:
    server.replies = [reply]
    with pytest.raises(ProviderError):
        client.get_once("/pods/1/stop")
    assert [(seen.method, seen.target) for seen in server.seen] == [("GET", "/v1/pods/1/stop")]


def test_a_whole_url_as_path_stays_on_the_provider(server: Server, client: HttpClient) -> None:
    client.get("http://127.0.0.1:1/next?page=2")
    client.get("@127.0.0.1:1/next")
    assert [seen.target for seen in server.seen] == [
        "/v1/http://127.0.0.1:1/next?page=2",
        "/v1/@127.0.0.1:1/next",
    ]


def test_each_request_is_signed_anew_for_its_whole_address(server: Server, moment: Time) -> None:
    server.replies = [Reply(503), Reply()]
    asked: list[tuple[str, str]] = []

    def sign(method: str, address: str) -> dict[str, str]:
        asked.append((method, address))
        return {"Authorization": f"number {len(asked)}"}

    with HttpClient("acme", f"{server.url}/v1", sign=sign, sleep=moment.sleep, clock=moment.clock) as client:
        client.get("/pods", params={"name": "a b"})
    assert asked == [("GET", f"{server.url}{seen.target}") for seen in server.seen]
    assert [seen.headers["authorization"] for seen in server.seen] == ["number 1", "number 2"]
    assert {seen.target for seen in server.seen} == {"/v1/pods?name=a+b"}


def test_one_connection_serves_several_requests(server: Server, client: HttpClient) -> None:
    server.replies = [Reply(), Reply(404), Reply(204, b""), Reply()]
    client.get("/a")
    failure(client, "post")
    client.delete("/b")
    client.get("/c")
    assert len(server.seen) == 4
    assert server.connections == 1


def test_a_closed_client_opens_again(server: Server, client: HttpClient) -> None:
    client.get("/a")
    client.close()
    client.close()
    client.get("/b")
    assert server.connections == 2


def test_a_proxy_from_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    with HttpClient("acme", "http://far.invalid/v1") as client:
        client.get("/pods")
    assert server.seen[0].target == "http://far.invalid/v1/pods"


def test_a_proxy_setting_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:1")
    with HttpClient("acme", "http://far.invalid") as client, pytest.raises(ConfigError) as caught:
        client.get("/pods")
    assert "gopher" in caught.value.why
    assert "ALL_PROXY" in caught.value.hint


def test_nothing_heavy_is_imported_or_made_before_the_first_request() -> None:
    program = (
        "import sys; from gpucloud.http import HttpClient; HttpClient('acme', 'https://api.example');"
        "print(sorted({'httpx', 'httpcore', 'tenacity', 'ssl', 'asyncio'} & set(sys.modules)))"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# Status to error

MAPPING = [
    (301, BadReply),
    (304, BadReply),
    (400, Rejected),
    (401, AuthError),
    (402, BalanceExhausted),
    (403, AuthError),
    (404, NotFound),
    (405, Rejected),
    (409, Rejected),
    (422, Rejected),
    (429, RateLimited),
    (500, Unreachable),
    (501, Unreachable),
    (502, Unreachable),
    (503, Unreachable),
    (504, Unreachable),
    (522, Unreachable),
    (599, Unreachable),
    (999, BadReply),
]


@pytest.mark.parametrize(("status", "kind"), MAPPING)
def test_each_status_has_its_error(
    server: Server, client: HttpClient, status: int, kind: type[ProviderError]
) -> None:
    body = b"" if status == 304 else b'{"error": {"code": "E7", "message": "because"}}'
    server.replies = [Reply(status, body, {"Location": "/elsewhere"})]
    for verb in VERBS:
        error = failure(client, verb, "/pods/7?api_key=s3cr3t-query")
        assert isinstance(error, kind)
        assert error.provider == "acme"
        assert "acme" in error.message
        assert error.hint
        assert f"{verb.upper()} /pods/7 answered {status}" in error.why
        if body:
            assert (error.vendor_code, error.vendor_text) == ("E7", "because")
            assert error.why.endswith("because")
        assert "s3cr3t" not in f"{error} {error.why} {error.hint} {error.vendor_text}"
    assert {seen.target for seen in server.seen} == {"/v1/pods/7?api_key=s3cr3t-query"}


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"error": "no"}, "", "no"),
        ({"error": {"code": 17, "message": "no"}}, "17", "no"),
        ({"message": "no", "code": "E1"}, "E1", "no"),
        ({"detail": "no"}, "", "no"),
        ({"detail": [{"loc": ["body"], "msg": "field required", "type": "missing"}]}, "", "field required"),
        ({"errors": ["no", "never"]}, "", "no"),
        ({"errors": [{"code": "E2", "message": "no"}]}, "E2", "no"),
        ({"success": False, "error": "no_such_ask", "msg": "ask 7 is gone"}, "no_such_ask", "ask 7 is gone"),
        ({"error": "invalid_grant", "error_description": "no"}, "invalid_grant", "no"),
        ({"error_code": "NO_FUNDS", "error": "top up"}, "NO_FUNDS", "top up"),
        ({"errors": [{"param": "name", "details": "too long"}]}, "", "too long"),
        ([{"message": "no"}], "", "no"),
        ({"code": "E3"}, "E3", ""),
        ({"error": {}, "message": None, "errors": []}, "", ""),
        ("no", "", "no"),
        (7, "", ""),
        (None, "", ""),
    ],
)
def test_the_vendors_words_are_found(
    server: Server, client: HttpClient, body: Any, code: str, text: str
) -> None:
    server.replies = [Reply(400, json.dumps(body).encode())]
    error = failure(client, "post")
    assert (error.vendor_code, error.vendor_text) == (code, text)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"out  of\nluck", "out of luck"),
        (b"<html><h1>Bad gateway</h1></html>", ""),
        (b"\xff\xfe\xfd", "\ufffd\ufffd\ufffd"),
        (b"", ""),
        (b"[" * 100_000, "[" * VENDOR_TEXT_LENGTH),
        (b'{"error":' * 200 + b"1" + b"}" * 200, ""),
    ],
)
def test_words_that_are_not_well_formed_do_no_harm(
    server: Server, client: HttpClient, body: bytes, text: str
) -> None:
    server.replies = [Reply(400, body)]
    error = failure(client, "post")
    assert isinstance(error, Rejected)
    assert error.vendor_text == text


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"error":', "}")])
def test_no_depth_of_nesting_does_harm(opening: str, closing: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gpucloud.http")
    responses = Responses()
    client = HttpClient("acme", "https://api.example", transport=responses)
    # Each depth around the end of the stack, which newer Pythons let JSON pass but not their own functions.
    for depth in (*range(800, 1000), 2000, 5000, 50_000):
        responses.add("POST", "/pods", text=opening * depth + "1" + closing * depth, status=400)
        assert isinstance(failure(client, "post"), Rejected)


def test_the_vendors_text_is_bounded_and_without_our_credentials(server: Server, client: HttpClient) -> None:
    said = "bad key s3cr3t-bearer and s3cr3t-query " + "x" * 1000
    server.replies = [Reply(401, json.dumps({"error": said}).encode())]
    error = failure(client, "get", "/pods?api_key=s3cr3t-query")
    assert error.vendor_text.startswith("bad key REDACTED and REDACTED xxx")
    assert len(error.vendor_text) == VENDOR_TEXT_LENGTH
    assert "s3cr3t" not in error.why


def test_credentials_too_short_to_be_any_do_not_garble_the_vendors_text(server: Server) -> None:
    server.replies = [Reply(400, b'{"code": "s3cr3t", "error": "bad key: kk"}')]
    with HttpClient("acme", server.url, headers={"X-Api-Key": "k", "X-Token": "s3cr3t"}) as client:
        error = failure(client, "post")
    assert (error.vendor_code, error.vendor_text) == ("REDACTED", "bad key: kk")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["error", "errors", "message", "detail", "code", "msg"]), inner)
        ),
    )
)
def test_any_body_of_an_error_gives_bounded_words(body: Any) -> None:
    responses = Responses()
    responses.add("GET", "/pods", text=json.dumps(body), status=400)
    error = failure(HttpClient("acme", "https://api.example", transport=responses), "get")
    assert isinstance(error, Rejected)
    assert max(len(error.vendor_code), len(error.vendor_text)) <= VENDOR_TEXT_LENGTH
    responses.assert_all_used()


@pytest.mark.parametrize("body", [b"<html>", b"{", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("verb", ["get", "post"])
def test_success_that_is_not_json_is_a_bad_reply(
    server: Server, client: HttpClient, body: bytes, verb: str
) -> None:
    server.replies = [Reply(200, body)]
    error = failure(client, verb)
    assert isinstance(error, BadReply)
    assert error.outcome_unknown is (verb == "post")
    assert len(server.seen) == 1


@pytest.mark.parametrize("verb", ["get", "post"])
def test_a_body_without_end_is_refused(server: Server, client: HttpClient, verb: str) -> None:
    server.replies = [Reply(act=flood)]
    error = failure(client, verb)
    assert isinstance(error, BadReply)
    assert str(MAX_REPLY_BYTES) in error.why
    assert error.outcome_unknown is (verb == "post")


def test_not_a_piece_is_read_beyond_the_limit() -> None:
    pieces = 0

    class Pieces(httpx.SyncByteStream):
        def __init__(self, count: int) -> None:
            self.count = count

        def __iter__(self) -> Iterator[bytes]:
            nonlocal pieces
            for _ in range(self.count):
                pieces += 1
                yield b" " * 2**20

    streams = [Pieces(64), Pieces(1000)]
    replies = httpx.MockTransport(lambda request: httpx.Response(200, stream=streams.pop(0)))
    client = HttpClient("acme", "https://api.example", transport=replies)
    assert client.get("/pods") is None
    assert pieces == MAX_REPLY_BYTES // 2**20
    pieces = 0
    assert isinstance(failure(client, "get"), BadReply)
    assert pieces == MAX_REPLY_BYTES // 2**20 + 1


def test_a_body_that_cannot_be_unpacked_is_a_bad_reply(server: Server, client: HttpClient) -> None:
    server.replies = [Reply(200, b"not gzip", {"Content-Encoding": "gzip"})]
    error = failure(client, "post")
    assert isinstance(error, BadReply)
    assert error.outcome_unknown


@pytest.mark.parametrize("secret", ["s3cr3t\n", "s3cr3t\u201d", "s3cr3t\x00"])
def test_credentials_that_no_header_can_hold_are_told_without_showing_them(
    server: Server, secret: str
) -> None:
    with HttpClient("acme", server.url, headers={"Authorization": f"Bearer {secret}"}) as client:
        error = failure(client, "post")
    assert isinstance(error, AuthError)
    assert "malformed" in error.message
    assert error.hint
    assert not error.outcome_unknown
    assert "s3cr3t" not in f"{error} {error.why} {error.hint} {error.__cause__}"
    assert server.seen == []


@pytest.mark.parametrize("address", ["api.example", "ftp://api.example", "http://api.example:port"])
def test_an_address_that_is_none_is_told_at_once(address: str, moment: Time) -> None:
    with HttpClient("acme", address, sleep=moment.sleep, clock=moment.clock) as client:
        error = failure(client, "get")
    assert isinstance(error, AuthError)
    assert moment.sleeps == []


# What the adapter says of a reply


def test_classify_comes_before_the_general_mapping(server: Server, moment: Time) -> None:
    shown: list[tuple[int, Any]] = []

    def classify(status: int, body: Any) -> ProviderError | None:
        shown.append((status, body))
        if isinstance(body, dict) and body.get("error") == "none left":
            return NoCapacity("acme has no H100", provider="acme")
        return None

    server.replies = [
        Reply(500, b'{"error": "none left"}'),
        Reply(200, b'{"error": "none left"}'),
        Reply(200, b'{"id": 1}'),
        Reply(400, b"plain words"),
        Reply(204, b""),
    ]
    with HttpClient("acme", server.url, classify=classify, sleep=moment.sleep, clock=moment.clock) as client:
        first, second = failure(client, "post"), failure(client, "get")
        assert client.get("/pods") == {"id": 1}
        assert isinstance(failure(client, "post"), Rejected)
        assert client.post("/pods") is None
    assert shown == [
        (500, {"error": "none left"}),
        (200, {"error": "none left"}),
        (200, {"id": 1}),
        (400, "plain words"),
        (204, None),
    ]
    for error in (first, second):
        assert isinstance(error, NoCapacity)
        assert error.message == "acme has no H100"
        assert error.vendor_text == "none left"
        assert "none left" in error.why
        assert not error.outcome_unknown


@pytest.mark.parametrize(("status", "unknown"), [(200, True), (400, False), (500, True)])
@pytest.mark.parametrize("kind", [Unreachable, BadReply])
def test_an_outcome_that_classify_cannot_know_is_settled_by_the_status(
    server: Server, kind: type[ProviderError], status: int, unknown: bool
) -> None:
    server.replies = [Reply(status)]
    with HttpClient("acme", server.url, classify=lambda *_: kind("odd", provider="acme")) as client:
        assert failure(client, "post").outcome_unknown is unknown


def test_what_classify_filled_in_is_kept(server: Server) -> None:
    given = Rejected("no", provider="acme", why="why", vendor_code="C", vendor_text="T", outcome_unknown=True)
    server.replies = [Reply(400, b'{"code": "other", "message": "other"}')]
    with HttpClient("acme", server.url, classify=lambda status, body: given) as client:
        error = failure(client, "post")
    assert (error.why, error.vendor_code, error.vendor_text) == ("why", "C", "T")
    assert error.outcome_unknown


def test_a_rate_limit_that_only_classify_recognises_is_waited_for(server: Server, moment: Time) -> None:
    def classify(status: int, body: Any) -> ProviderError | None:
        return RateLimited("slower", provider="acme") if status == 400 else None

    server.replies = [Reply(400, b"{}", {"Retry-After": "9"}), Reply(200, b"7")]
    with HttpClient("acme", server.url, classify=classify, sleep=moment.sleep, clock=moment.clock) as client:
        assert client.get("/pods") == 7
    assert moment.sleeps == [9]


# Whether a write may have taken effect


@pytest.mark.parametrize(
    ("status", "unknown"),
    [
        *((status, False) for status in (400, 401, 402, 403, 404, 409, 422, 429)),
        *((status, True) for status in (301, 500, 501, 502, 503, 504, 522)),
    ],
)
def test_outcome_by_status(server: Server, client: HttpClient, status: int, unknown: bool) -> None:
    server.replies = [Reply(status)]
    for verb in VERBS:
        assert failure(client, verb).outcome_unknown is (unknown and verb != "get")


@pytest.mark.parametrize("act", [cut, cut_in_the_body])
def test_outcome_when_the_connection_is_cut(
    server: Server, client: HttpClient, act: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.replies = [Reply(act=act)]
    for verb in VERBS:
        error = failure(client, verb)
        assert isinstance(error, Unreachable)
        assert error.outcome_unknown is (verb != "get")


def test_a_server_that_hangs_runs_into_the_read_timeout(server: Server, moment: Time) -> None:
    server.replies = [Reply(act=hang)]
    with HttpClient(
        "acme", server.url, read_s=0.05, deadline_s=1, sleep=moment.sleep, clock=moment.clock
    ) as client:
        for verb in WRITES:
            error = failure(client, verb)
            assert isinstance(error, Unreachable)
            assert error.outcome_unknown
        assert moment.sleeps == []
        error = failure(client, "get")
    assert isinstance(error, Unreachable)
    assert not error.outcome_unknown
    assert len(moment.sleeps) == 1


def test_a_refused_connection_did_nothing(moment: Time) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with HttpClient("acme", f"http://127.0.0.1:{port}", sleep=moment.sleep, clock=moment.clock) as client:
        for verb in WRITES:
            error = failure(client, verb)
            assert isinstance(error, Unreachable)
            assert not error.outcome_unknown
        assert moment.sleeps == []
        assert isinstance(failure(client, "get"), Unreachable)
        assert moment.sleeps


@pytest.mark.parametrize("verb", ["get", "post"])
@pytest.mark.parametrize(
    ("lost", "unknown"),
    [
        (httpx.ConnectError, False),
        (httpx.ConnectTimeout, False),
        (httpx.PoolTimeout, False),
        (httpx.ProxyError, False),
        (httpx.WriteError, True),
        (httpx.WriteTimeout, True),
        (httpx.ReadError, True),
        (httpx.ReadTimeout, True),
        (httpx.CloseError, True),
        (httpx.RemoteProtocolError, True),
    ],
)
def test_outcome_by_how_the_transport_failed(
    lost: type[httpx.TransportError], unknown: bool, verb: str, moment: Time
) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise lost("", request=request)

    with HttpClient(
        "acme",
        "https://api.example",
        transport=httpx.MockTransport(fail),
        sleep=moment.sleep,
        clock=moment.clock,
    ) as client:
        error = failure(client, verb)
    assert isinstance(error, Unreachable)
    assert error.outcome_unknown is (unknown and verb == "post")
    assert lost.__name__ in error.why


# Retries

PASSING = [429, 500, 502, 503, 504, 520, 524]


@pytest.mark.parametrize("status", PASSING)
def test_reads_are_retried(server: Server, client: HttpClient, moment: Time, status: int) -> None:
    server.replies = [Reply(status), Reply(status), Reply(200, b"7")]
    assert client.get("/pods") == 7
    assert len(server.seen) == 3
    assert len(moment.sleeps) == 2
    assert all(0 < wait < 3 for wait in moment.sleeps)


@pytest.mark.parametrize("act", [cut, cut_in_the_body])
def test_reads_are_retried_when_the_connection_is_cut(
    server: Server, client: HttpClient, act: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.replies = [Reply(act=act), Reply(200, b"7")]
    assert client.get("/pods") == 7


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 409, 501, 505])
def test_what_waiting_does_not_heal_is_not_retried(
    server: Server, client: HttpClient, moment: Time, status: int
) -> None:
    server.replies = [Reply(status)]
    assert not failure(client, "get").retryable
    assert len(server.seen) == 1
    assert moment.sleeps == []


@pytest.mark.parametrize("reply", [*(Reply(status) for status in PASSING), Reply(act=cut)])
def test_writes_are_never_retried(server: Server, client: HttpClient, moment: Time, reply: Reply) -> None:
    server.replies = [reply]
    for verb in WRITES:
        assert failure(client, verb).retryable
    assert [seen.method for seen in server.seen] == [verb.upper() for verb in WRITES]
    assert moment.sleeps == []


def test_waits_grow_and_the_deadline_ends_them(server: Server, client: HttpClient, moment: Time) -> None:
    server.replies = [Reply(503)]
    assert isinstance(failure(client, "get"), Unreachable)
    assert len(server.seen) == len(moment.sleeps) + 1 > 5
    assert moment.sleeps[3] > moment.sleeps[0]
    assert 45 < sum(moment.sleeps) < 60


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured(
    server: Server, client: HttpClient, moment: Time, status: int
) -> None:
    server.replies = [Reply(status, headers={"Retry-After": "7"}), Reply(200, b"7")]
    assert client.get("/pods") == 7
    assert moment.sleeps == [7]


def test_retry_after_as_a_date_is_honoured_by_the_providers_clock(
    server: Server, client: HttpClient, moment: Time
) -> None:
    dates = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:28:11 GMT"}
    server.replies = [Reply(429, headers=dates), Reply(200, b"7")]
    assert client.get("/pods") == 7
    assert moment.sleeps == [11]


def test_retry_after_as_a_date_alone_is_honoured_by_our_clock(server: Server, client: HttpClient) -> None:
    in_an_hour = format_datetime(utcnow() + timedelta(hours=1), usegmt=True)
    server.replies = [Reply(429, headers={"Retry-After": in_an_hour})]
    error = failure(client, "post")
    assert isinstance(error, RateLimited)
    assert error.retry_after is not None
    assert 3000 < error.retry_after <= 3600


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12),
        ("0", 0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0),
        ("soon", None),
        ("-3", None),
        ("nan", None),
        ("9" * 400, None),
        ("Wed, 21 Oct 2015 07:28:00 -0000", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_read_with_care(
    server: Server, client: HttpClient, text: str, seconds: float | None
) -> None:
    server.replies = [Reply(429, headers={"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": text})]
    error = failure(client, "post")
    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_past_the_deadline_is_not_begun(
    server: Server, client: HttpClient, moment: Time, status: int
) -> None:
    server.replies = [Reply(status, headers={"Retry-After": "60"})]
    assert failure(client, "get").retryable
    assert len(server.seen) == 1
    assert moment.sleeps == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X-RateLimit-Reset": "1445412491"}, 11),
        ({"RateLimit-Reset": "30"}, 30),
        ({"ratelimit-reset": "1445412400"}, 0),
        ({"ratelimit-reset": "soon"}, None),
        ({"Retry-After": "5", "ratelimit-reset": "30"}, 5),
    ],
)
def test_when_a_limit_is_reset_is_honoured(
    server: Server, client: HttpClient, headers: dict[str, str], seconds: float | None
) -> None:
    server.replies = [Reply(429, headers={"Date": "Wed, 21 Oct 2015 07:28:00 GMT", **headers})]
    error = failure(client, "post")
    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds


def test_zero_as_retry_after_does_not_hammer(server: Server, client: HttpClient, moment: Time) -> None:
    server.replies = [Reply(429, headers={"Retry-After": "0"})]
    failure(client, "get")
    assert all(wait >= 0.5 for wait in moment.sleeps)


def test_a_body_that_only_trickles_is_given_up_at_the_deadline(moment: Time) -> None:
    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                moment.now += 10
                yield b" "

    replies = httpx.MockTransport(lambda request: httpx.Response(200, stream=Trickle()))
    with HttpClient(
        "acme", "https://api.example", transport=replies, sleep=moment.sleep, clock=moment.clock
    ) as client:
        read = failure(client, "get")
        write = failure(client, "post")
    assert isinstance(read, Unreachable)
    assert isinstance(write, Unreachable)
    assert write.outcome_unknown
    assert moment.sleeps == []
    assert moment.now == 1000 + 2 * 70


def test_no_attempt_may_last_longer_than_what_is_left(moment: Time) -> None:
    limits = []

    def answer(request: httpx.Request) -> httpx.Response:
        limits.append(request.extensions["timeout"])
        return httpx.Response(503, headers={"Retry-After": "7"})

    client = HttpClient(
        "acme",
        "https://api.example",
        transport=httpx.MockTransport(answer),
        read_s=8,
        deadline_s=10,
        sleep=moment.sleep,
        clock=moment.clock,
    )
    failure(client, "get")
    assert [(limit["connect"], limit["read"]) for limit in limits] == [(5, 8), (3, 3)]


def test_retry_reads_retries_and_returns(moment: Time) -> None:
    failures: list[Exception] = [
        RateLimited("slower", provider="acme", retry_after=20),
        Unreachable("gone", provider="acme"),
    ]

    def read() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    assert retry_reads(read, sleep=moment.sleep, clock=moment.clock) == "done"
    assert moment.sleeps[0] == 20
    assert len(moment.sleeps) == 2


@pytest.mark.parametrize("error", [Rejected("no", provider="acme"), KeyError("x"), KeyboardInterrupt()])
def test_retry_reads_lets_everything_else_through_at_once(error: BaseException, moment: Time) -> None:
    def read() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        retry_reads(read, sleep=moment.sleep, clock=moment.clock)
    assert caught.value is error
    assert moment.sleeps == []


def test_retry_reads_raises_the_last_error_at_its_deadline(moment: Time) -> None:
    made: list[Unreachable] = []

    def read() -> None:
        made.append(Unreachable(f"try {len(made)}", provider="acme"))
        raise made[-1]

    with pytest.raises(Unreachable) as caught:
        retry_reads(read, deadline_s=5, sleep=moment.sleep, clock=moment.clock)
    assert caught.value is made[-1]
    assert len(made) > 2
    assert sum(moment.sleeps) < 5


def test_time_spent_in_the_call_counts_towards_the_deadline(moment: Time) -> None:
    def read() -> None:
        moment.now += 59.9
        raise Unreachable("slow", provider="acme")

    with pytest.raises(Unreachable):
        retry_reads(read, sleep=moment.sleep, clock=moment.clock)
    assert moment.sleeps == []


# Pacing


def paced(moment: Time, interval: float) -> tuple[HttpClient, Responses]:
    responses = Responses()
    responses.add("GET", "/pods", 7, repeat=True)
    client = HttpClient(
        "acme",
        "https://api.example",
        transport=responses,
        min_interval_s=interval,
        sleep=moment.sleep,
        clock=moment.clock,
    )
    return client, responses


def test_requests_are_paced(moment: Time) -> None:
    client, _ = paced(moment, 2)
    for _ in range(3):
        client.get("/pods")
    assert moment.sleeps == [2, 2]
    moment.now += 1.5
    client.get("/pods")
    assert moment.sleeps == [2, 2, 0.5]
    moment.now += 50
    client.get("/pods")
    assert len(moment.sleeps) == 3


def test_pacing_gives_each_thread_a_slot_of_its_own() -> None:
    class Stopped(Time):
        def sleep(self, seconds: float) -> None:
            self.sleeps.append(seconds)

    moment = Stopped()
    client, responses = paced(moment, 0.25)
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: client.get("/pods"), range(200))) == [7] * 200
    finally:
        sys.setswitchinterval(switching)
    assert len(responses.requests) == 200
    assert sorted(moment.sleeps) == [0.25 * slot for slot in range(1, 200)]


def test_no_one_queues_for_a_slot_after_the_deadline(moment: Time) -> None:
    client, responses = paced(moment, 100)
    client.get("/pods")
    for verb in ("get", "post"):
        error = failure(client, verb)
        assert isinstance(error, RateLimited)
        assert error.retry_after == 100
        assert error.hint
    assert moment.sleeps == []
    assert len(responses.requests) == 1


# The debug log

PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\ns3cr3t-pem\n-----END OPENSSH PRIVATE KEY-----"


def test_the_debug_log_tells_all_but_the_secrets(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    held = {
        "name": "visible-name",
        "public_key": "visible-public-key",
        "api_key": "s3cr3t-1",
        "nested": [{"deep": {"accessToken": "s3cr3t-2", "PASSWORD": ["s3cr3t-3"], "plain": "visible-plain"}}],
        "client_secret": {"inner": "s3cr3t-4"},
        "env": [{"key": "HF_TOKEN", "value": "s3cr3t-5"}, {"name": "WANDB_API_KEY", "value": "s3cr3t-6"}],
        "modes": [{"name": "MODE", "value": "visible-value"}],
        "user_data": "s3cr3t-7",
        "files": [PEM],
    }
    server.replies = [
        Reply(200, json.dumps(held).encode(), {"Set-Cookie": "s=s3cr3t-cookie", "X-Seen": "visible-header"}),
        Reply(400, b"s3cr3t-text, not JSON"),
        Reply(401, b'{"error": "not known: s3cr3t-bearer, s3cr3t-param"}', {"X-Auth-Token": "s3cr3t-reply"}),
    ]
    headers = {
        "Authorization": "Bearer s3cr3t-bearer",
        "X-API-Key": "s3cr3t-header",
        "Api-Key": "s3cr3t-api",
        "Cookie": "c=s3cr3t-jar",
        "X-Vendor-Token": "s3cr3t-token",
        "X-Vendor-Secret": "s3cr3t-secret",
        "X-Vendor-Signing-Key": "s3cr3t-signing",
    }
    with HttpClient("acme", server.url, headers=headers) as client:
        client.post("/pods", json=held, params={"api_key": "s3cr3t-param", "page": "visible-param"})
        with pytest.raises(Rejected):
            client.post("/pods")
        with pytest.raises(AuthError):
            client.get("/pods", params={"auth_token": "s3cr3t-param"})
        server.replies = [Reply(act=cut)]
        with pytest.raises(Unreachable):
            client.post("/lost", params={"password": "s3cr3t-param"})
    assert "s3cr3t" not in caplog.text
    ours = [record for record in caplog.records if record.name == "gpucloud.http"]
    assert len(ours) == 4
    first = ours[0].getMessage()
    assert f"POST {server.url}/pods?" in first
    assert " 200 " in first
    assert " ms" in first
    for word in ("name", "public-key", "plain", "value", "header", "param"):
        assert f"visible-{word}" in first
    assert first.count("visible-plain") == 2
    assert " 400 " in ours[1].getMessage()
    assert "failed" in ours[3].getMessage()


def test_a_password_in_the_address_is_neither_logged_nor_told(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.replies = [Reply(400)]
    with HttpClient("acme", server.url.replace("//", "//user:s3cr3t@")) as client:
        error = failure(client, "post")
    assert server.url in caplog.text
    assert "s3cr3t" not in f"{caplog.text} {error} {error.why}"


def test_logged_bodies_are_shortened(
    server: Server, client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gpucloud.http")
    server.replies = [Reply(200, json.dumps(["r" * 50_000]).encode())]
    client.post("/pods", json=["q" * 50_000])
    (record,) = caplog.records
    for letter in "qr":
        assert LOGGED_BODY_LENGTH - 100 < record.getMessage().count(letter) <= LOGGED_BODY_LENGTH + 100


def test_nothing_is_logged_below_debug(
    server: Server, client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client.get("/pods")
    assert caplog.records == []


# Responses


def test_responses_play_in_order_and_record_what_was_asked() -> None:
    responses = Responses()
    responses.add("GET", "/v1/pods", {"page": 1})
    responses.add("GET", "/v1/pods", {"page": 2}, headers={"X-More": "no"})
    responses.add("POST", "/v1/pods", status=201)
    client = HttpClient("acme", "https://api.example/v1", headers={"X-Who": "me"}, transport=responses)
    assert client.get("/pods", params={"tag": ["a", "b"], "empty": ""}) == {"page": 1}
    assert client.get("/pods") == {"page": 2}
    assert client.post("/pods", json={"gpu": 8}) is None
    responses.assert_all_used()
    first, _, last = responses.requests
    assert (first.method, first.path, first.json) == ("GET", "/v1/pods", None)
    assert first.query == {"tag": ["a", "b"], "empty": [""]}
    assert first.headers["x-who"] == "me"
    assert (last.method, last.json) == ("POST", {"gpu": 8})


def test_responses_give_status_text_and_repeat() -> None:
    responses = Responses()
    responses.add("GET", "/pods", status=404)
    responses.add("GET", "/pods", text="not json")
    responses.add("GET", "/pods", 7, repeat=True)
    client = HttpClient("acme", "https://api.example", transport=responses)
    assert isinstance(failure(client, "get"), NotFound)
    assert isinstance(failure(client, "get"), BadReply)
    assert [client.get("/pods") for _ in range(3)] == [7, 7, 7]
    responses.assert_all_used()


def test_responses_name_what_was_never_asked_for() -> None:
    responses = Responses()
    responses.add("GET", "/used")
    responses.add("GET", "/used", status=404)
    responses.add("DELETE", "/idle")
    responses.add("GET", "/always", repeat=True)
    HttpClient("acme", "https://api.example", transport=responses).get("/used")
    with pytest.raises(AssertionError) as caught:
        responses.assert_all_used()
    assert str(caught.value).splitlines() == [
        "never asked for: GET /used (404)",
        "never asked for: DELETE /idle (200)",
        "never asked for: GET /always (200)",
    ]


def test_responses_name_what_was_not_expected() -> None:
    responses = Responses()
    responses.add("GET", "/pods")
    client = HttpClient("acme", "https://api.example", transport=responses)
    client.get("/pods")
    for verb in ("get", "post"):
        with pytest.raises(AssertionError, match=f"{verb.upper()} /pods"):
            call(client, verb)
    with pytest.raises(AssertionError) as caught:
        responses.assert_all_used()
    assert str(caught.value).splitlines() == ["unexpected: GET /pods", "unexpected: POST /pods"]


def test_a_header_of_the_provider_s_own_that_ends_in_retry_after_is_honoured(
    server: Server, client: HttpClient, moment: Time
) -> None:
    server.replies = [Reply(429, headers={"x-ms-ratelimit-retailprices-retry-after": "7"}), Reply(200, b"7")]
    assert client.get("/pods") == 7
    assert moment.sleeps[0] >= 7


def test_inside_a_limit_no_request_is_tried_again_beyond_it(
    server: Server, client: HttpClient, moment: Time
) -> None:
    server.replies = [Reply(429, headers={"Retry-After": "20"}), Reply(200, b"7")]
    with within(10), pytest.raises(RateLimited):
        client.get("/pods")
    assert moment.sleeps == []
    server.replies = [Reply(429, headers={"Retry-After": "20"}), Reply(200, b"7")]
    assert client.get("/pods") == 7


def test_a_limit_holds_for_its_own_thread_only(client: HttpClient) -> None:
    with within(0.5), ThreadPoolExecutor(1) as threads:
        assert threads.submit(lambda: client._longest_s).result() == client.deadline_s
        assert client._longest_s <= 0.5
